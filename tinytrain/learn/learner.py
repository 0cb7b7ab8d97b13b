"""Adapting: a pretrained network learns a user's few examples, by the way that is asked for or that
fits. One object, whatever the way; the network that is given is left as it is.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from tinytrain import budget, checkpoint
from tinytrain.errors import InputError
from tinytrain.freeze import sample_specs
from tinytrain.learn.confusion import counts
from tinytrain.learn.labels import as_array, fewest, labels_given, labels_of, listed, plain
from tinytrain.learn.nearest import STORES
from tinytrain.learn.partial import TRAINED, head_of
from tinytrain.learn.trained import Trained
from tinytrain.learn.ways import Nearest, Settings, Way
from tinytrain.nn.module import Module
from tinytrain.number import is_number, is_whole
from tinytrain.plan import Plan

WAYS = (*STORES, *TRAINED)  # from the cheapest to the dearest
FEW, MANY = 3, 100  # examples a class: below, a mean is better than training; above, train it all


def adapt(
    net: Module,
    how: str = "auto",
    ram: Any = None,
    classes: Any = None,
    examples: int | None = None,
    **settings: Any,
) -> Learner:
    """A learner of a user's classes on a pretrained network, which is copied.

    how       "prototypes" or "knn": nearest class mean or neighbours over embeddings, no backward;
              "head": a softmax layer over them; "biases": all biases and the head (TinyTL); "last":
              the last `k` layers; "sparse": `layers`, names or {name: share of input channels},
              or, without any, those that contribute most for their bytes by the first examples;
              "all"; "auto": by the number of examples and `ram`, once these are known.
    ram       bytes that learning may take, as an int or "256K". BudgetError if it takes more.
    flash     True: frozen parameters lie in flash, as on a board, and do not count.
    classes   their labels or how many; None: those of the network's own head, which is then kept,
              or, without one, those that examples bring.
    examples  a class, for "auto" to choose now; None: when it is first given some.
    replay    bytes (or "64K") of past samples that `partial_fit` learns from again beside new ones.
    metric    "cosine", "euclidean" or, of prototypes, "mahalanobis": distance in units of how the
              examples spread about their means. None: the network's own `metric`, or cosine.
    optimizer an object of `optim`, whose rate is then kept, or None: AdamW with a rate for each
              way, warm-up and cosine; under `ram` SGD with momentum or plain, if only that fits.
    batch, policy, microbatch, density, spill, backend, seed, input_shape: Trainer's.

    The network's embedding is what its method `embed(x)` returns, its output if it says `embeds =
    True`, else what its last dense layer reads. Batch norms use their stored statistics.
    """
    known = Settings.__dataclass_fields__
    for name in settings:
        if name not in known:
            raise InputError(f"adapt takes no {name!r}; it takes {', '.join(known)}")
    if how not in (*WAYS, "auto"):
        raise InputError(f"unknown way {how!r}; there are {', '.join(WAYS)} and auto")
    if not isinstance(net, Module):
        raise InputError(f"adapt wants a network (an nn.Module), not {type(net).__name__}")
    return Learner(net, how, Settings(ram=budget.parse_bytes(ram), **settings), classes, examples)


class Learner:
    """A network and what it has learned of a user's classes: `fit, partial_fit, add, remove,
    predict, predict_proba, evaluate, save, restore`. Made by `adapt`.

    how      the way; "auto" until it is decided.
    classes  the labels, in the order of columns of `predict_proba`.
    """

    def __init__(self, net: Module, how: str, settings: Settings, classes: Any, examples: Any):
        self.net, self.how, self.settings = net, how, settings
        self.samples = sample_specs(net, settings.input_shape)
        if len(self.samples) > 1:
            raise InputError(
                f"{type(net).__name__} reads {len(self.samples)} inputs; what adapts tells classes "
                f"of one apart. Train it further instead"
            )
        self._asked = how
        self._given = labels_given(classes)
        self.classes: list[Any] = []
        self._way: Way | None = None
        if how != "auto":
            self._begin(how)
        elif examples is not None:
            if not is_whole(examples) or examples < 1:
                raise InputError(f"examples is {examples!r}; wants a number a class, from 1")
            self._begin(self._decide(int(examples)))

    # ------------------------------------------------------------------ which way

    def _begin(self, how: str) -> None:
        """Take this way, with nothing learned yet."""
        self.how = how
        self.classes, columns = self._start(how)
        kind = Nearest if how in STORES else Trained
        self._way = kind(self.net, how, self.settings, self.samples, columns)

    def _start(self, how: str) -> tuple[list[Any], list[int | None]]:
        """The labels to begin with, and the columns of the network's head that they keep."""
        if how in STORES:
            return list(self._given or ()), [None] * len(self._given or ())
        own = self._own_classes()
        if self._given is None:
            return own, list(range(len(own)))
        named = getattr(self.net, "classes", None) is not None
        kept = {label: k for k, label in enumerate(own)} if named else {}
        return list(self._given), [kept.get(label) for label in self._given]

    def _own_classes(self) -> list[Any]:
        """The labels of the network's own head."""
        head = head_of(self.net, self.settings.input_shape)
        if head is None or getattr(self.net, "embeds", False):
            return []
        outputs = head.weight.shape[1]
        named = getattr(self.net, "classes", None)
        labels = list(range(outputs)) if named is None else [plain(c) for c in named]
        if len(labels) != outputs:
            raise InputError(f"the network names {len(labels)} classes, its head has {outputs}")
        return labels

    def _decide(self, count: int) -> str:
        """The best way for so many examples of the rarest class that fits `ram`. By measurement
        (see the bench "learn"): of one or two examples a class their mean is the better judge,
        and a last block that learns is as good as all, until examples are many."""
        order = ["last", "sparse", "head", "prototypes"]
        if count < FEW:
            return "prototypes"
        if count >= MANY:
            order.insert(0, "all")
        for how in order[:-1]:
            if self.settings.ram is None or self._fits(how):
                return how
        return order[-1]

    def _fits(self, how: str) -> bool:
        _, columns = self._start(how)
        return Trained(self.net, how, self.settings, self.samples, columns or [None] * 2).easily()

    def _decided(self) -> Way:
        if self._way is None:
            raise InputError(
                "how='auto' decides by the first examples: call fit, or give examples= (a class)"
            )
        return self._way

    # ------------------------------------------------------------------ learning

    def fit(self, x: Any, y: Any, **options: Any) -> Learner:
        """Learn these examples, from the pretrained network on; what was learned before is gone.

        x  (N, ...) samples; uint8 is scaled to [0, 1].   y  (N,) labels: integers or strings.
        options: of the ways that train, those of `Trainer.fit`; 30 epochs if not said.
        InputError if they cannot be learned from; then everything is as it was.
        """
        labels = self._check(x, y)
        before = self.how, self.classes, self._way
        try:
            self._begin(self._decide(fewest(labels)) if self._asked == "auto" else self._asked)
            self._learn(x, labels, fresh=True, **options)
        except BaseException:
            self.how, self.classes, self._way = before
            raise
        return self

    def partial_fit(self, x: Any, y: Any, **options: Any) -> Learner:
        """Learn more examples on top of what was learned; labels may be new. The ways that train
        make one epoch if not said; what is not among these examples they may forget."""
        labels = self._check(x, y)
        if self._way is None:
            self._begin(self._decide(fewest(labels)))
        self._learn(x, labels, fresh=False, **options)
        return self

    def add(self, label: Any, x: Any) -> Learner:
        """A class from one example (...) or several (N, ...), or more examples of one, where
        nothing is trained: "prototypes" and "knn"."""
        x = np.asarray(x)
        x = x[None] if x.shape == self.samples[0].shape else x
        labels = self._check(x, [label] * len(x) if x.ndim else [label])
        if self._way is None:
            self._begin("prototypes")
        way = self._decided()
        if not isinstance(way, Nearest):
            raise InputError(
                f"how={self.how!r} learns a class by training: call partial_fit with its examples "
                f"and some of the others, or adapt with how='prototypes', which adds without"
            )
        way.add(x, self._columns(labels, way, x))
        return self

    def remove(self, label: Any) -> Learner:
        """Forget a class."""
        label = plain(label)
        way = self._decided()
        if label not in self.classes:
            raise InputError(f"there is no class {label!r}; there are {listed(self.classes)}")
        k = self.classes.index(label)
        way.remove_class(k)
        del self.classes[k]
        return self

    def _learn(self, x: Any, labels: list[Any], fresh: bool, **options: Any) -> None:
        way = self._decided()
        way.check_labels(labels, self.classes)
        columns = self._columns(labels, way, x)
        if options.get("validation") is not None:
            held_x, held_y = options["validation"]
            options["validation"] = held_x, self._known(self._check(held_x, held_y))
        way.learn(x, columns, fresh, **options)
        if missing := [self.classes[k] for k in way.missing()]:
            warnings.warn(
                f"no example of class {listed(missing)}: it is no answer until there is one",
                stacklevel=3,
            )

    def _known(self, labels: list[Any]) -> np.ndarray:
        """Columns of labels that have been learned; InputError names one that has not."""
        unknown = sorted({repr(c) for c in labels if c not in self.classes})
        if unknown:
            raise InputError(
                f"y holds {listed(unknown, str)}, which was never learned; learned are "
                f"{listed(self.classes)}"
            )
        where = {label: k for k, label in enumerate(self.classes)}
        return np.array([where[label] for label in labels], np.int32)

    def _columns(self, labels: list[Any], way: Way, x: Any) -> np.ndarray:
        """Column numbers (N,) int32; new labels get columns of their own, from their samples."""
        new = [c for c in dict.fromkeys(labels) if c not in self.classes]
        if new:
            way.add_classes(len(new))
            self.classes = [*self.classes, *new]
        return self._known(labels)

    def _check(self, x: Any, y: Any) -> list[Any]:
        """The labels as Python's values; InputError if there is not one a sample."""
        shape = np.shape(x)
        wanted = self.samples[0].shape
        if not shape or shape[1:] != wanted:
            raise InputError(
                f"x: got shape {shape}, the network wants (N, {', '.join(map(str, wanted))}); "
                f"examples must be made as those it was pretrained on (shape, rate, channels)"
            )
        labels = labels_of(y)
        if len(labels) != shape[0]:
            raise InputError(f"y: {len(labels)} labels for {shape[0]} samples; one each is wanted")
        if not labels:
            raise InputError("x: no sample at all; at least one is wanted")
        return labels

    # ------------------------------------------------------------------ answers

    def predict_proba(self, x: Any) -> np.ndarray:
        """Probabilities (N, classes), float32, in the order of `classes`."""
        way = self._decided()
        if len(way.missing()) == len(self.classes):
            raise InputError("nothing was learned yet; call fit, partial_fit or add first")
        scores = way.scores(np.asarray(x)).astype(np.float64)
        scores -= scores.max(axis=1, keepdims=True)
        p = np.exp(scores)
        return (p / p.sum(axis=1, keepdims=True)).astype(np.float32)

    def predict(self, x: Any, at_least: float = 0.0, unknown: Any = None) -> np.ndarray:
        """The likeliest label of each sample, (N,); `unknown` where its probability is not
        `at_least` so much: what is none of the classes mostly looks a little like several."""
        if not is_number(at_least) or not 0 <= at_least <= 1:
            raise InputError(f"at_least is {at_least!r}; wants a probability, 0 to 1")
        p = self.predict_proba(x)
        best = p.argmax(axis=1)
        if not at_least:
            return as_array(self.classes)[best]
        best[p.max(axis=1) < at_least] = len(self.classes)
        return as_array([*self.classes, unknown])[best]

    def evaluate(self, x: Any, y: Any) -> dict[str, float]:
        """{"loss": mean -log p of the labels, "accuracy": share of right answers}."""
        labels = self._check(x, y)
        columns = self._known(labels)
        p = self.predict_proba(x)
        right = p[np.arange(len(p)), columns].astype(np.float64)
        loss = float(-np.log(np.maximum(right, np.finfo(np.float32).tiny)).mean())
        return {"loss": loss, "accuracy": float((p.argmax(axis=1) == columns).mean())}

    def confusion(self, x: Any, y: Any) -> np.ndarray:
        """Counts (classes, classes), int64: rows are labels, columns answers, as in `classes`
        (see `tinytrain.learn.confusion`)."""
        columns = self._known(self._check(x, y))
        return counts(columns, self.predict_proba(x).argmax(axis=1), len(self.classes))

    # ------------------------------------------------------------------ what it takes

    @property
    def plan(self) -> Plan:
        """The plan of a training step, or of the embedding where nothing is trained."""
        return self._decided().plan

    @property
    def trainer(self) -> Any:
        """The Trainer of a way that trains, once it has learned; else None."""
        return getattr(self._decided(), "trainer", None)

    def contributions(self, x: Any, y: Any) -> list[Any]:
        """What each layer would bring for its bytes if it learned these examples, the best first:
        `layer, share, gain, nbytes, score` (see `contribution`). Nothing changes."""
        labels = self._check(x, y)
        if self._way is None or isinstance(self._way, Nearest):
            raise InputError("contributions are of ways that train: adapt(net, how='sparse')")
        probe = Learner(self.net, "sparse", self.settings, self._given, None)
        way = probe._decided()
        assert isinstance(way, Trained)
        return way.contributions(np.asarray(x), probe._columns(labels, way, x))

    @property
    def ram_bytes(self) -> int:
        """What learning takes: the arena and what is stored of examples; with `flash`, without
        what stays there."""
        return self._decided().ram_bytes

    @property
    def flash_bytes(self) -> int:
        """Frozen parameters and statistics, which a board leaves in flash."""
        return self.plan.flash_bytes

    # ------------------------------------------------------------------ files

    def save(self, path: str) -> None:
        """Everything to one `.npz`: network, what was learned, labels; whole or not at all."""
        way, s = self._decided(), self.settings
        settings = {k: v for k, v in vars(s).items() if k != "optimizer"}
        header = {
            "format": checkpoint.FORMAT,
            "kind": checkpoint.ADAPTED,
            "model": self.net.recipe,
            "how": self.how,
            "asked": self._asked,
            "given": self._given,
            "classes": self.classes,
            "settings": settings,
            "optimizer": None if s.optimizer is None else s.optimizer.config(),
            "way": way.header(),
        }
        checkpoint.write(path, header, way.state())

    @staticmethod
    def restore(path: str, net: Module | None = None, **changes: Any) -> Learner:
        """The learner that `save` wrote. A network that is not from the zoo is given as `net`, as
        it was to `adapt`; `changes` replace settings (backend, ram)."""
        from tinytrain import optim

        header, arrays = checkpoint.read(path)
        if header.get("kind") != checkpoint.ADAPTED:
            raise InputError(f"{path}: holds no adapted network; Trainer.restore reads it")
        try:
            net = checkpoint.network(header["model"]) if net is None else net
            held = header["optimizer"]
            settings = Settings(**{**header["settings"], **changes})
            settings.ram = budget.parse_bytes(settings.ram)
            settings.optimizer = None if held is None else optim.from_config(held)
            made = Learner(net, header["how"], settings, header["given"], None)
            made._asked = header["asked"]
            made.classes = list(header["classes"])
            made._decided().load(len(made.classes), header["way"], arrays)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"{type(error).__name__}: {error}"
            raise InputError(f"{path}: not a whole adapted network ({what})") from error
        return made

    def __repr__(self) -> str:
        more = "" if self._way is None else f", {len(self.classes)} classes"
        return f"Learner({type(self.net).__name__}, how={self.how!r}{more})"
