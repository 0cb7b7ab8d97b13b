"""Estimators with scikit-learn's interface over a Trainer: `Classifier` and `Regressor`. They need
no scikit-learn, and load no file; they are pickled by who pickles estimators.
"""

from __future__ import annotations

import copy
import inspect
import math
from typing import Any, Self

import numpy as np

from tinytrain import budget, checkpoint, optim
from tinytrain.errors import InputError
from tinytrain.learn.replay import left, reservoir_of, stream
from tinytrain.learn.samples import not_fitted, of_sklearn, to_inputs, to_labels, to_targets
from tinytrain.nn.module import Module
from tinytrain.spec import Spec
from tinytrain.trainer import Trainer


class Estimator:
    """What both have in common.

    net          a name of the zoo, or a Module (copied) with as many outputs as are wanted.
    optimizer    of `tinytrain.optim`, or None: Adam at rate `lr` with a cosine to zero.
    epochs       of `fit`; `partial_fit` makes one.
    ram          bytes that the arena and `replay` may take together; BudgetError if they do not.
    replay       bytes (or "64K") of past samples that `partial_fit` learns from again beside new
                 ones, so that these are not forgotten; None: none are kept.
    input_shape  of one sample, where X is (N, features) of something that has a shape.
    batch, policy, density, backend, random_state (the seed): Trainer's.

    After `fit`: `n_features_in_`, `plan_`, `ram_bytes_` (arena and replay), `trainer_`.
    """

    loss = ""
    kind = ""

    def __init__(
        self,
        net: Any = "mlp",
        optimizer: Any = None,
        lr: float = 0.005,
        epochs: int = 60,
        batch: int = 32,
        ram: Any = None,
        replay: Any = None,
        input_shape: Any = None,
        policy: str = "auto",
        density: float | None = None,
        backend: str = "auto",
        random_state: Any = 0,
    ):
        self.net = net
        self.optimizer = optimizer
        self.lr = lr
        self.epochs = epochs
        self.batch = batch
        self.ram = ram
        self.replay = replay
        self.input_shape = input_shape
        self.policy = policy
        self.density = density
        self.backend = backend
        self.random_state = random_state

    # ------------------------------------------------------------------ scikit-learn's protocol

    @classmethod
    def _names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments it was made with, by name."""
        return {name: getattr(self, name) for name in self._names()}

    def set_params(self, **params: Any) -> Self:
        """Change arguments; they count from the next `fit` on."""
        for name, value in params.items():
            if name not in self._names():
                raise InputError(
                    f"Invalid parameter {name!r} for estimator {self!r}; there are "
                    f"{', '.join(self._names())}"
                )
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        first = {n: p.default for n, p in inspect.signature(type(self)).parameters.items()}
        given = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if not (value is first[name] or repr(value) == repr(first[name]))
        ]
        return f"{type(self).__name__}({', '.join(given)})"

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn, which asks, wants to know; it has been imported then."""
        tags, own = (of_sklearn("utils", name, None) for name in ("Tags", self._tags_of))
        made = tags(
            estimator_type=self.kind,
            target_tags=of_sklearn("utils", "TargetTags", None)(
                required=True, multi_output=self.kind == "regressor"
            ),
            input_tags=of_sklearn("utils", "InputTags", None)(),
        )
        setattr(made, f"{self.kind}_tags", own())
        return made

    _tags_of = ""

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "trainer_")

    # ------------------------------------------------------------------ learning

    def _network(self, outputs: int, features: int) -> Module:
        """The network with so many outputs."""
        shape = self._shape() or (features,)
        if isinstance(self.net, str):
            recipe = {"name": self.net, "seed": self._seed(), "input_shape": shape}
            return checkpoint.network({**recipe, "classes": outputs})
        if not isinstance(self.net, Module):
            raise InputError(f"net is {self.net!r}; give a name of the zoo or an nn.Module")
        made = copy.deepcopy(self.net)
        if made.input_shape is None:
            made.input_shape = shape
        return made

    def _shape(self) -> tuple[int, ...] | None:
        shape = self.input_shape or getattr(self.net, "input_shape", None)
        return None if shape is None else tuple(int(n) for n in shape)

    def _seed(self) -> int:
        """The seed as a number; a NumPy RandomState (scikit-learn's) draws one."""
        s = self.random_state
        if s is None:
            return 0
        return int(s.randint(2**31 - 1)) if hasattr(s, "randint") else int(s)

    def _begin(self, x: np.ndarray, outputs: int, schedule_steps: int | None) -> None:
        """A new network and trainer, and an empty reservoir."""
        self.n_features_in_ = math.prod(x.shape[1:])
        self._outputs = outputs
        net = self._network(outputs, self.n_features_in_)
        label = Spec((), "int32") if self.kind == "classifier" else Spec((outputs,))
        reservoir = reservoir_of(self.replay, Spec(x.shape[1:]), label, self._seed())
        ram = left(budget.parse_bytes(self.ram), reservoir)
        self.trainer_ = Trainer(
            net,
            loss=self.loss,
            optimizer=self._optimizer(schedule_steps),
            batch=self.batch,
            ram=ram,
            policy=self.policy,
            density=self.density,
            backend=self.backend,
            seed=self._seed(),
            input_shape=[Spec(x.shape[1:])],
        )
        found = self.trainer_._train.frozen.tape
        width = found.specs[found.outputs[0]].shape[1:]
        if width != (outputs,):
            raise InputError(f"net gives {width} for a sample, wants ({outputs},)")
        self._reservoir = reservoir

    def _optimizer(self, steps: int | None) -> optim.Optimizer:
        if self.optimizer is not None:
            given = self.optimizer
            return optim.by_name(given) if isinstance(given, str) else given
        return optim.Adam(self.lr if steps is None else optim.CosineLR(self.lr, steps))

    def _fit(self, x: np.ndarray, y: np.ndarray, outputs: int) -> Self:
        if not isinstance(self.epochs, int) or self.epochs < 0:
            raise InputError(f"epochs is {self.epochs!r}; wants a whole number, not negative")
        held = {k: v for k, v in vars(self).items() if k in ("trainer_", "_reservoir", "_outputs")}
        try:
            steps = max(self.epochs * -(-len(x) // self.batch), 1)
            self._begin(x, outputs, steps)
            self.trainer_.fit(x, y, epochs=self.epochs, progress=False)
        except BaseException:
            vars(self).update(held)
            raise
        if self._reservoir is not None:
            self._reservoir.add(x, y, self._groups(y))
        return self

    def _partial_fit(self, x: np.ndarray, y: np.ndarray) -> Self:
        """One pass over new samples, and past ones where some are kept."""
        trainer, held = self.trainer_, self._reservoir
        if self.optimizer is None:  # behind `fit`, whose rate has come down to zero
            trainer.optimizer = trainer.optimizer.with_lr(self.lr)
        stream(trainer, x, y, held, self._groups(y))
        return self

    def _groups(self, y: np.ndarray) -> np.ndarray | None:
        """What a reservoir balances: classes."""
        return y if self.kind == "classifier" else None

    def _inputs(self, x: Any, fitting: bool) -> np.ndarray:
        features = None if fitting else self.n_features_in_
        return to_inputs(x, type(self).__name__, self._shape(), features)

    def _answers(self, x: Any) -> np.ndarray:
        """The network's outputs (N, outputs)."""
        if not hasattr(self, "trainer_"):
            raise not_fitted(type(self).__name__)
        return self.trainer_.predict(self._inputs(x, fitting=False))

    # ------------------------------------------------------------------ what it takes

    @property
    def plan_(self) -> Any:
        """The plan of a training step."""
        return self.trainer_.plan

    @property
    def ram_bytes_(self) -> int:
        """The arena and what is kept for replay."""
        return self.plan_.arena_bytes + (self._reservoir.nbytes if self._reservoir else 0)

    # ------------------------------------------------------------------ pickles and copies

    def __getstate__(self) -> dict[str, Any]:
        state = {k: v for k, v in vars(self).items() if k not in ("trainer_", "_reservoir")}
        if "trainer_" in vars(self):
            t = self.trainer_
            arrays = {name: view.copy() for name, view in t.state().items()}
            state["_learned"] = arrays, {name: getattr(t, name) for name in checkpoint.POSITION}
            state["_kept"] = None if self._reservoir is None else self._reservoir.state()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        learned, kept = state.pop("_learned", None), state.pop("_kept", None)
        vars(self).update(state)
        if learned is not None:
            shape = self._shape() or (self.n_features_in_,)
            self._begin(np.empty((0, *shape), np.float32), self._outputs, None)
            checkpoint.apply(self.trainer_, "this pickle", {"position": learned[1]}, learned[0])
            if kept is not None and self._reservoir is not None:
                self._reservoir.load(kept)


class Classifier(Estimator):
    """Classes, by cross-entropy; labels are numbers or strings. After `fit`: `classes_`."""

    loss, kind, _tags_of = "cross_entropy", "classifier", "ClassifierTags"

    def fit(self, X: Any, y: Any) -> Self:
        """Learn X (N, features) or (N, *input_shape) with labels y (N,), from the start."""
        x, labels = self._pair(X, y)
        classes, columns = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise InputError(
                f"y holds one class only ({classes[0]!r}); a classifier wants two classes or more"
            )
        self._fit(x, columns.reshape(-1).astype(np.int32), len(classes))
        self.classes_ = classes
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Self:
        """Learn more, one pass. `classes`: all that will ever come, at the first call; if not
        said, those of its y."""
        fresh = not hasattr(self, "trainer_")
        x, labels = self._pair(X, y, fresh)
        if fresh:
            known = np.unique(labels if classes is None else np.asarray(classes))
            if len(known) < 2:
                raise InputError(
                    "one class only: give classes=, all that will come, at the first call"
                )
        else:
            known = self.classes_
            if classes is not None and not np.array_equal(np.unique(classes), known):
                raise InputError(f"classes={classes!r} is not what the first call said: {known}")
        columns = np.searchsorted(known, labels).clip(0, len(known) - 1)
        if (known[columns] != labels).any():
            odd = labels[known[columns] != labels][0]
            raise InputError(f"y holds {odd!r}, which is not among the classes {known}")
        if fresh:
            self._begin(x, len(known), None)
            self.classes_ = known
        return self._partial_fit(x, columns.astype(np.int32))

    def _pair(self, X: Any, y: Any, fitting: bool = True) -> tuple[np.ndarray, np.ndarray]:
        x = self._inputs(X, fitting)
        return x, to_labels(y, len(x))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (N, classes) in the order of `classes_`."""
        scores = self._answers(X).astype(np.float64)
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        return p / p.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest label of each sample, (N,)."""
        best = self._answers(X).argmax(axis=1)
        return self.classes_[best]

    def score(self, X: Any, y: Any) -> float:
        """The share of right answers."""
        answers = self.predict(X)
        return float(np.mean(answers == to_labels(y, len(answers))))


class Regressor(Estimator):
    """Numbers, by mean squared error; several at once where y is (N, outputs)."""

    loss, kind, _tags_of = "mse", "regressor", "RegressorTags"

    def fit(self, X: Any, y: Any) -> Self:
        """Learn X (N, features) or (N, *input_shape) with targets y (N,) or (N, outputs), from
        the start. Targets are taken as they are: scale them to about one."""
        x = self._inputs(X, fitting=True)
        targets, flat = to_targets(y, len(x))
        self._fit(x, targets, targets.shape[1])
        self._flat = flat
        return self

    def partial_fit(self, X: Any, y: Any) -> Self:
        """Learn more, one pass."""
        fresh = not hasattr(self, "trainer_")
        x = self._inputs(X, fitting=fresh)
        targets, flat = to_targets(y, len(x))
        if fresh:
            self._begin(x, targets.shape[1], None)
            self._flat = flat
        if targets.shape[1] != self._outputs:
            raise InputError(f"y has {targets.shape[1]} outputs, there are {self._outputs}")
        return self._partial_fit(x, targets)

    def predict(self, X: Any) -> np.ndarray:
        """The answers, float64 (N,) or (N, outputs) as y was."""
        answers = self._answers(X).astype(np.float64)
        return answers[:, 0] if self._flat else answers

    def score(self, X: Any, y: Any) -> float:
        """R squared, the mean over outputs: 1 is perfect, 0 what the mean would do."""
        answers = self._answers(X).astype(np.float64)
        targets = to_targets(y, len(answers))[0].astype(np.float64)
        left = ((targets - answers) ** 2).sum(axis=0)
        whole = ((targets - targets.mean(axis=0)) ** 2).sum(axis=0)
        return float(np.mean(1 - left / np.where(whole > 0, whole, 1)))
