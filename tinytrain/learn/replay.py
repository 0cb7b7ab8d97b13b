"""Replay: a reservoir of past samples, so many bytes of them, to learn from again beside new ones.
It decides what is kept; it trains nothing.

Sources: tiny episodic memories, Chaudhry et al. 2019; which sample stays, the class-balancing
reservoir of Chrysakis and Moens 2020 (of one class, Vitter's algorithm R, 1985).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytrain import budget
from tinytrain.errors import BudgetError, InputError
from tinytrain.spec import Spec


class Reservoir:
    """At most `nbytes` of samples and labels: of each class as many as of any other, as far as
    the stream has them, and of one class a fair draw of all that were seen.

    sample, label  the Specs of one; both are stored as they are.
    """

    def __init__(self, nbytes: int, sample: Spec, label: Spec, seed: int = 0):
        each = sample.nbytes + label.nbytes
        self.capacity = nbytes // each
        if not self.capacity:
            raise InputError(f"replay is {nbytes:,} bytes, one sample takes {each:,}; give more")
        self.x: np.ndarray = np.zeros((self.capacity, *sample.shape), sample.dtype)
        self.y: np.ndarray = np.zeros((self.capacity, *label.shape), label.dtype)
        self.group = np.zeros(self.capacity, np.int32)
        self.count = 0  # that it holds
        self.seen: dict[int, int] = {}  # by class
        self._random = np.random.Generator(np.random.Philox(key=np.array([seed, 1], np.uint64)))

    @property
    def nbytes(self) -> int:
        """Of the samples and labels that it has room for."""
        return self.x.nbytes + self.y.nbytes

    def add(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> None:
        """New samples (N, ...), labels (N, ...) and what is balanced (N,), or None: all alike."""
        groups = np.zeros(len(x), np.int32) if groups is None else groups
        for sample, label, group in zip(x, y, groups.tolist(), strict=True):
            self.seen[group] = self.seen.get(group, 0) + 1
            place = self._place(group)
            if place is not None:
                self.x[place], self.y[place], self.group[place] = sample, label, group

    def _place(self, group: int) -> int | None:
        """Where a new sample goes, or None."""
        if self.count < self.capacity:
            self.count += 1
            return self.count - 1
        held = np.bincount(self.group)  # of all places: it is full
        largest = np.flatnonzero(held == held.max())
        if group not in largest:
            group = int(self._random.choice(largest))
        elif self._random.random() > held[group] / self.seen[group]:
            return None
        return int(self._random.choice(np.flatnonzero(self.group == group)))

    def draw(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """At most n different samples and their labels."""
        picked = self._random.permutation(self.count)[:n]
        return self.x[picked], self.y[picked]

    def relabel(self, order: list[int | None]) -> None:
        """Class labels change: new class k is what old class `order[k]` was. Samples of a class
        that is gone are dropped."""
        new = {old: k for k, old in enumerate(order) if old is not None}
        stay = np.flatnonzero([int(g) in new for g in self.group[: self.count]])
        n = len(stay)
        self.x[:n] = self.x[stay]
        self.y[:n] = self.group[:n] = [new[int(g)] for g in self.group[stay]]
        self.group[n:], self.count = 0, n
        self.seen = {new[k]: v for k, v in self.seen.items() if k in new}

    def all(self) -> tuple[np.ndarray, np.ndarray]:
        """Every sample and label that it holds."""
        return self.x[: self.count], self.y[: self.count]

    def state(self) -> dict[str, np.ndarray]:
        """Its arrays."""
        x, y = self.all()
        seen = np.array(sorted(self.seen.items()), np.int64).reshape(-1, 2)
        return {"x": x, "y": y, "group": self.group[: self.count], "seen": seen}

    def load(self, arrays: dict[str, Any]) -> None:
        """Take what `state` gave; InputError if it does not fit."""
        x, y, group = arrays["x"], arrays["y"], arrays["group"]
        n = len(group)
        if n > self.capacity or x.shape[1:] != self.x.shape[1:] or len(x) != n or len(y) != n:
            raise InputError(f"replay: {x.shape} samples do not fit {self.x.shape}")
        self.x[:n], self.y[:n], self.group[:n], self.count = x, y, group, n
        self.seen = {int(k): int(v) for k, v in arrays["seen"]}


def reservoir_of(replay: Any, sample: Spec, label: Spec, seed: int) -> Reservoir | None:
    """One of so many bytes ("64K"), or None where none are to be kept."""
    given = budget.parse_bytes(replay)
    return None if given is None else Reservoir(given, sample, label, seed)


def left(ram: int | None, held: Reservoir | None) -> int | None:
    """What a budget leaves for the arena; BudgetError if it leaves nothing."""
    if ram is None or held is None:
        return ram
    if held.nbytes >= ram:
        raise BudgetError(
            f"replay alone takes {held.nbytes:,} bytes, ram is {ram:,}; keep less",
            held.nbytes - ram,
            held.nbytes,
        )
    return ram - held.nbytes


def stream(
    trainer: Any, x: np.ndarray, y: np.ndarray, held: Reservoir | None, groups: Any = None
) -> None:
    """One pass over new samples in the order in which they come. With a reservoir half of each
    batch are past samples (at batch 1, every second step), and the new ones are then offered to
    it; `groups` (N,) is what it balances."""
    size = trainer.batch if held is None else max(trainer.batch // 2, 1)
    for begin in range(0, len(x), size):
        new = x[begin : begin + size], y[begin : begin + size]
        steps = [new]
        if held is not None and held.count:
            old = held.draw(max(trainer.batch - len(new[0]), 1))
            steps = [new, old]
            if len(new[0]) + len(old[0]) <= trainer.batch:
                steps = [(np.concatenate([new[0], old[0]]), np.concatenate([new[1], old[1]]))]
        for step in steps:
            trainer.step(*step)
        if held is not None:
            held.add(*new, None if groups is None else groups[begin : begin + size])
