"""The ways to adapt that train: a Trainer over the part of the network that learns, whose rest runs
as inference only. Classes are columns here; labels are `adapt`'s business.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from tinytrain import checkpoint, freeze, optim
from tinytrain.errors import BudgetError, InputError
from tinytrain.learn.embed import Embedder
from tinytrain.learn.nearest import as_nearest_mean, beside_learned
from tinytrain.learn.partial import choose, copy_of, head_of, with_classes
from tinytrain.learn.replay import left, reservoir_of, stream
from tinytrain.learn.ways import Settings, Way
from tinytrain.lower import lower
from tinytrain.nn.layers import Linear
from tinytrain.nn.module import Module
from tinytrain.plan import ALIGN, Plan, make_plan
from tinytrain.spec import Spec
from tinytrain.trainer import Trainer

EPOCHS = 30
REPLAY = "replay/"  # what is kept of past samples, in a file
RATES = {"head": 1e-2, "biases": 5e-3, "last": 3e-3, "sparse": 3e-3, "all": 2e-3}  # of AdamW
BATCH = 10  # for which these rates are
DECAY = 0.02  # of weights, AdamW's
WARM = 20  # one step in so many is warm-up


def _moments(optimizer: optim.Optimizer) -> int:
    """Arrays of state for each parameter, if it is one of ours."""
    if isinstance(optimizer, optim.Adam):
        return 2
    return int(bool(getattr(optimizer, "momentum", 0)))


def _as_float(x: np.ndarray) -> np.ndarray:
    """Bytes of images as a step has them: shares of 255."""
    return np.divide(x, 255, dtype=np.float32) if x.dtype == np.uint8 else x


def _at(optimizer: optim.Optimizer, rate: float | None) -> optim.Optimizer:
    """The optimizer at a constant rate; as it is without one."""
    return optimizer if rate is None else optimizer.with_lr(rate)


class Trained(Way):
    """A Trainer over the part of the network that learns; the rest runs as inference only."""

    def __init__(self, net: Module, how: str, settings: Settings, samples: Any, columns: list[Any]):
        self.pretrained, self.how, self.settings = net, how, settings
        self.samples, self.flash = samples, settings.flash
        self.columns = list(columns)
        self.unset = {k for k, column in enumerate(columns) if column is None}
        self.layers = settings.layers
        self.reservoir = reservoir_of(settings.replay, samples[0], Spec((), "int32"), settings.seed)
        self.trainer: Trainer | None = None
        self.rate: float | None = None  # of AdamW and the like, before its schedule
        self.used: optim.Optimizer | None = None  # the one that fits, once there is a plan
        self._plan: Plan | None = None

    # ------------------------------------------------------------------ network and plan

    def _network(self, layers: Any = None) -> Module:
        """The network as it is now, with its columns, and what learns trainable; `layers` instead
        of those that were chosen."""
        layers = self.layers if layers is None else layers
        if self.how == "sparse" and layers is None:
            raise InputError("how='sparse' chooses its layers by examples: give layers=, or fit")
        shape = self.settings.input_shape
        if not self.columns:
            raise InputError(
                f"how={self.how!r} wants to know the classes: give classes=, or call fit"
            )
        net = copy_of(self.pretrained)
        net = with_classes(net, self.columns, shape)
        return choose(net, self.how, self.settings.k, layers, shape)

    def _optimizers(self) -> list[optim.Optimizer]:
        """Those to be tried, the dearest first."""
        asked, rate = self.settings.optimizer, RATES[self.how]
        if asked is not None:
            return [optim.by_name(asked) if isinstance(asked, str) else asked]
        found: list[optim.Optimizer] = [optim.AdamW(rate, weight_decay=DECAY)]
        if self.settings.ram is not None:
            calm = min(1.0, self.settings.batch / BATCH) ** 0.5
            found += [optim.SGD(calm * rate, momentum=0.9), optim.SGD(10 * calm * rate)]
        return found

    def _fitting(self, make: Any, net: Module) -> Any:
        """`make` (Trainer, or `plan`) with the first optimizer that fits."""
        s, names = self.settings, ("batch", "policy", "microbatch", "density", "spill", "seed")
        given = {name: getattr(s, name) for name in (*names, "backend")}
        given |= {"input_shape": self.samples, "loss": "cross_entropy"}
        leaves = net.named_leaves().values()
        learns = sum(p.spec.nbytes for p in leaves if p.requires_grad)
        frozen = sum(-(-p.spec.nbytes // ALIGN) * ALIGN for p in leaves if not p.requires_grad)
        free, counted = (frozen, 0) if s.flash else (0, frozen)
        *tried, last = self._optimizers()
        budget = left(s.ram, self.reservoir)
        ram = None if budget is None else budget + free
        for self.used in tried:  # the first that fits without much ado
            if ram is None or self._surely_fits(net, self.used, ram, given):
                return make(net, optimizer=self.used, ram=ram, **given)
        self.used = last
        least = counted + learns * (1 + _moments(last))
        try:
            if budget is not None and least > budget:  # no need to search
                missing = least - budget
                raise BudgetError(
                    f"what learns and {last} alone take {least:,} bytes, ram is {budget:,}: at "
                    f"least {missing:,} are missing",
                    missing,
                    least + free,
                )
            return make(net, optimizer=last, ram=ram, **given)
        except BudgetError as error:
            said = f"how={self.how!r}: {error}" + (f" ({free:,} in flash)" if free else "")
            raise BudgetError(said, error.missing, error.smallest - free) from error

    @staticmethod
    def _surely_fits(net: Module, optimizer: Any, ram: int, given: dict[str, Any]) -> bool:
        """Whether slices of one sample fit with every residual kept or every cheap one made
        again: two plans, and no search."""
        own = {"spill": None, "density": None, "microbatch": 1}
        for policy in ("keep", "recompute"):
            arguments = {**given, **own, "policy": policy}
            found = freeze.plan(net, optimizer=optimizer, ram=None, **arguments)
            if found.arena_bytes <= ram:
                return True
        return False

    def easily(self, layers: Any = None) -> bool:
        """Whether it fits the budget with the leanest optimizer, by a look at two plans."""
        s = self.settings
        if s.ram is None:
            return True
        net = self._network({} if self.how == "sparse" and layers is None else layers)
        given = {"batch": s.batch, "input_shape": self.samples, "loss": "cross_entropy"}
        leaves = net.named_leaves().values()
        frozen = sum(-(-p.spec.nbytes // ALIGN) * ALIGN for p in leaves if not p.requires_grad)
        ram = (left(s.ram, self.reservoir) or 0) + (frozen if s.flash else 0)
        return self._surely_fits(net, self._optimizers()[-1], ram, given)

    @property
    def plan(self) -> Plan:  # type: ignore[override]
        """Of one training step."""
        if self.trainer is not None:
            return self.trainer.plan
        if self._plan is None:
            self._plan = self._fitting(freeze.plan, self._network())
        return self._plan

    def answer_macs(self) -> int:
        """Multiply-accumulates of one answer."""
        net = self.trainer.net if self.trainer is not None else self._network()
        program = lower(freeze.freeze(net, self.samples, 1, None, False).tape)
        return make_plan(program, 1).macs

    def _made(self) -> Trainer:
        if self.trainer is None:
            self.trainer = self._fitting(Trainer, self._network())
        return self.trainer

    # ------------------------------------------------------------------ classes

    def add_classes(self, n: int) -> None:
        self._rearrange([*range(len(self.columns)), *[None] * n])

    def remove_class(self, k: int) -> None:
        if len(self.columns) == 1:
            raise InputError("the last class cannot be removed; fit others instead")
        self._rearrange([j for j in range(len(self.columns)) if j != k])

    def _rearrange(self, order: list[int | None]) -> None:
        """Take these of the present columns; None is a new one. What was learned stays; the
        optimizer's state begins at zero."""
        self.unset = {k for k, j in enumerate(order) if j is None or j in self.unset}
        self._plan = None
        if self.reservoir is not None:
            self.reservoir.relabel(order)
        if self.trainer is None:
            self.columns = [None if j is None else self.columns[j] for j in order]
            return
        net = copy.deepcopy(self.trainer.net)
        self.columns = order
        net = with_classes(net, order, self.settings.input_shape)
        self.trainer = self._fitting(Trainer, net)
        self.columns = list(range(len(order)))

    def imprint(self, x: np.ndarray, columns: np.ndarray) -> None:
        """Fill the columns that are unset from the mean embeddings of their examples: all of them
        as nearest class mean, some beside learned ones so that they answer to their own mean
        and not to those of the others."""
        trainer = self._made()
        fill = sorted(self.unset & set(columns.tolist()))
        if not fill:
            return
        embed = Embedder(trainer.net, self.samples, 1, inside=trainer)
        classes = np.unique(columns)
        means = np.stack([embed(x[columns == k]).mean(axis=0) for k in classes])
        head = head_of(trainer.net, self.settings.input_shape)
        assert isinstance(head, Linear)
        bias = np.zeros(len(self.columns), np.float32) if head.bias is None else head.bias.data
        if len(self.unset) == len(self.columns):
            as_nearest_mean(head.weight.data, bias, classes, means)
        else:
            beside_learned(head.weight.data, bias, classes, means, fill)
        self.unset -= set(fill)

    # ------------------------------------------------------------------ learning

    def check_labels(self, labels: list[Any], classes: list[Any]) -> None:
        if len(set(labels)) < 2:
            raise InputError(
                f"y holds one class only ({labels[0]!r}), and training on it forgets all others; "
                f"give examples of others too, or adapt with how='prototypes'"
            )

    def learn(
        self, x: Any, columns: np.ndarray, fresh: bool, epochs: int | None = None, **options: Any
    ) -> None:
        x = np.asarray(x)
        if self.how == "sparse" and self.layers is None:
            self.layers = self._best_layers(x, columns)
        trainer = self._made()
        self.imprint(x, columns)
        count = EPOCHS if fresh else 1
        epochs = count if epochs is None else epochs
        if self.settings.optimizer is None:
            if self.rate is None:
                self.rate = float(trainer.optimizer.schedule(0))
            rate = self.rate
            total = max(epochs * -(-len(x) // trainer.batch), 1)
            schedule: Any = optim.ConstantLR(rate)
            if fresh:
                schedule = optim.WarmupLR(optim.CosineLR(rate, total), -(-total // WARM))
            trainer.optimizer = trainer.optimizer.with_lr(schedule)
        if not fresh and epochs == 1 and not options:
            stream(trainer, _as_float(x), columns, self.reservoir, columns)
            return
        with warnings.catch_warnings():  # the head may know classes that these examples lack
            warnings.filterwarnings("ignore", "y: no sample of class")
            trainer.fit(x, columns, epochs=epochs, **options)
        if self.reservoir is not None:
            self.reservoir.add(_as_float(x), columns, columns)

    def contributions(self, x: np.ndarray, columns: np.ndarray) -> list[Any]:
        """What each layer would bring for its bytes, by these examples."""
        from tinytrain.learn.contribution import contributions

        head = Trained(self.pretrained, "head", replace(self.settings, ram=None), self.samples, [])
        head.columns, head.unset = list(self.columns), set(self.unset)
        head.imprint(x, columns)
        net = head._made().net
        return contributions(net, x, columns, self._nbytes, self.settings.input_shape)

    def _nbytes(self, layers: dict[str, float]) -> int:
        """Of a step over one sample in which these learn, every residual kept."""
        net = self._network(layers)
        given = {"batch": 1, "input_shape": self.samples, "loss": "cross_entropy"}
        optimizer = self._optimizers()[-1]
        plan = freeze.plan(net, optimizer=optimizer, policy="keep", **given)
        return plan.board_bytes if self.flash else plan.arena_bytes

    def _best_layers(self, x: np.ndarray, columns: np.ndarray) -> dict[str, float]:
        """Those with the best contribution for their bytes that fit."""
        from tinytrain.learn.contribution import choose_layers

        found = self.contributions(x, columns)
        fits = None if self.settings.ram is None else self.easily
        return choose_layers(found, fits)

    def missing(self) -> list[int]:
        return sorted(self.unset)

    def scores(self, x: Any) -> np.ndarray:
        found = self._made().predict(x)
        found[:, self.missing()] = -np.inf
        return found

    # ------------------------------------------------------------------ files

    def header(self) -> dict[str, Any]:
        trainer = self._made()
        return {
            "unset": sorted(self.unset),
            "rate": self.rate,
            "layers": self.layers,
            "optimizer": _at(trainer.optimizer, self.rate).config(),
            "position": {name: getattr(trainer, name) for name in checkpoint.POSITION},
        }

    def state(self) -> dict[str, np.ndarray]:
        kept = {} if self.reservoir is None else self.reservoir.state()
        return {**self._made().state(), **{REPLAY + name: a for name, a in kept.items()}}

    @property
    def stored_bytes(self) -> int:  # type: ignore[override]
        """Of past samples that are learned from again."""
        return 0 if self.reservoir is None else self.reservoir.nbytes

    def load(self, classes: int, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.columns, self.layers = [None] * classes, header["layers"]
        optimizer = optim.from_config(header["optimizer"])
        asked, self.settings.optimizer = self.settings.optimizer, optimizer
        try:
            trainer = self._made()
        finally:
            self.settings.optimizer = asked
        kept = {k.removeprefix(REPLAY): a for k, a in arrays.items() if k.startswith(REPLAY)}
        own = {k: a for k, a in arrays.items() if not k.startswith(REPLAY)}
        checkpoint.apply(trainer, "this file", header, own)
        if kept and self.reservoir is not None:
            self.reservoir.load(kept)
        self.rate = header["rate"]
        self.unset = {int(k) for k in header["unset"]}
