"""What a way to adapt is, and the ways that train nothing: embeddings and their nearest class.
Classes are columns here; labels are `adapt`'s business, and gradients `trained`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytrain.errors import BudgetError, InputError
from tinytrain.learn.embed import Embedder
from tinytrain.learn.nearest import STORES, Neighbours
from tinytrain.learn.partial import LAST, copy_of
from tinytrain.nn.module import Module
from tinytrain.plan import Plan


@dataclass
class Settings:
    """What `adapt` was asked for, as plain data but for the optimizer."""

    ram: int | None = None
    flash: bool = False
    k: int = LAST
    layers: Any = None
    neighbours: int = 5
    metric: str | None = None
    replay: Any = None
    optimizer: Any = None
    batch: int = 10
    backend: str = "auto"
    seed: int = 0
    input_shape: Any = None
    policy: str = "auto"
    microbatch: Any = "auto"
    density: float | None = None
    spill: str | None = None


class Way:
    """What `adapt.Learner` asks of a way."""

    plan: Plan
    flash: bool
    stored_bytes = 0

    @property
    def ram_bytes(self) -> int:
        """The arena, without what stays in flash if that is asked for, and what is stored."""
        return (self.plan.board_bytes if self.flash else self.plan.arena_bytes) + self.stored_bytes

    def check_labels(self, labels: list[Any], classes: list[Any]) -> None:
        """InputError if this way cannot learn from these."""

    def missing(self) -> list[int]:
        """The columns of which nothing is known yet; they are never an answer."""
        raise NotImplementedError

    def add_classes(self, n: int) -> None:
        """So many more columns, of which nothing is known."""
        raise NotImplementedError

    def remove_class(self, k: int) -> None:
        """Forget column k; those behind it move up."""
        raise NotImplementedError

    def learn(self, x: Any, columns: np.ndarray, fresh: bool, **options: Any) -> None:
        """Examples to learn; `fresh`: these are the first."""
        raise NotImplementedError

    def scores(self, x: Any) -> np.ndarray:
        """(N, classes): logarithms of probabilities up to a constant a row."""
        raise NotImplementedError

    def header(self) -> dict[str, Any]:
        """What a file must say beside `state`."""
        raise NotImplementedError

    def state(self) -> dict[str, np.ndarray]:
        """Every array, by name."""
        raise NotImplementedError

    def load(self, classes: int, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Take what `header` and `state` gave."""
        raise NotImplementedError


class Nearest(Way):
    """Prototypes or neighbours: an embedding in an arena of its own, and a store beside it."""

    def __init__(self, net: Module, how: str, settings: Settings, samples: Any, columns: list[Any]):
        self.net, self.ram, self.flash = copy_of(net), settings.ram, settings.flash
        self.embed = Embedder(self.net, samples, 1, settings.backend)
        self.plan = self.embed.plan
        metric = settings.metric or getattr(net, "metric", None) or "cosine"
        more = (settings.neighbours,) if STORES[how] is Neighbours else ()
        self.store = STORES[how](self.embed.size, metric, *more)
        self._require(self.store.bytes_for(len(columns), 0))
        self.add_classes(len(columns))

    @property
    def stored_bytes(self) -> int:  # type: ignore[override]
        """Of examples or their means."""
        return self.store.nbytes

    def missing(self) -> list[int]:
        return np.flatnonzero(self.store.counts == 0).tolist()

    def _require(self, more: int) -> None:
        """BudgetError unless so many more bytes may be stored."""
        need = self.ram_bytes + more
        if self.ram is not None and need > self.ram:
            raise BudgetError(
                f"the embedding and what is stored of examples need {need:,} bytes, ram is "
                f"{self.ram:,}: {need - self.ram:,} are missing (a class takes "
                f"{self.store.bytes_for(1, 0):,}, an example {self.store.bytes_for(0, 1):,})",
                need - self.ram,
                need,
            )

    def add_classes(self, n: int) -> None:
        self._require(self.store.bytes_for(n, 0))
        for _ in range(n):
            self.store.add_class()

    def remove_class(self, k: int) -> None:
        self.store.remove_class(k)

    def add(self, x: Any, columns: np.ndarray) -> None:
        self._require(self.store.bytes_for(0, len(columns)))
        self.store.add(self.embed(x), columns)

    def learn(self, x: Any, columns: np.ndarray, fresh: bool, **options: Any) -> None:
        if options:
            raise InputError(
                f"{next(iter(options))}: nothing is trained where the nearest class is taken; "
                f"leave it out"
            )
        self.add(x, columns)

    def scores(self, x: Any) -> np.ndarray:
        return self.store.scores(self.embed(x))

    def header(self) -> dict[str, Any]:
        return {}

    def state(self) -> dict[str, np.ndarray]:
        held = {f"net/{name}": p.data for name, p in self.net.named_leaves().items()}
        return {**held, **{f"store/{name}": a for name, a in self.store.state().items()}}

    def load(self, classes: int, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        of = {"net": {}, "store": {}}  # type: ignore[var-annotated]
        for name, a in arrays.items():
            where, _, rest = name.partition("/")
            of[where][rest] = a
        self.net.load_state_dict(of["net"])
        self.store.load(of["store"])
        if len(self.store.counts) != classes:
            raise InputError(f"{len(self.store.counts)} classes are stored, {classes} are named")
