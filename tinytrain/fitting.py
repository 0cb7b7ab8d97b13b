"""Epochs: the samples of each in their order, augmented and balanced if that is asked for, and when
to stop. It makes no update itself: that is `Trainer.step`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tinytrain import data
from tinytrain.errors import InputError
from tinytrain.number import is_whole
from tinytrain.progress import Progress

if TYPE_CHECKING:
    from tinytrain.trainer import Trainer

Arrays = Sequence[np.ndarray]
AUGMENTS = (1 << 63) + 1  # second word of the key of augmentation's generator; data uses others


class Epochs:
    """How `Trainer.fit` goes through the samples.

    augment   called with a batch's x, its y (None without labels) and a numpy Generator, which is
              keyed by seed and step alone; returns both.
    balance   True: every class of y (N,) is drawn as often as any other, rare ones again.
    """

    def __init__(
        self,
        trainer: Trainer,
        xs: Arrays,
        ys: Arrays,
        drop_last: bool = False,
        progress: bool | None = None,
        augment: Callable[..., Any] | None = None,
        balance: bool = False,
    ):
        self.trainer, self.xs, self.ys = trainer, xs, ys
        self.drop_last, self.progress, self.augment = drop_last, progress, augment
        self.balance = balance
        if augment is not None and (len(xs) != 1 or len(ys) > 1):
            raise InputError("augment: wants one array of samples and at most one of labels")
        if balance and (len(ys) != 1 or ys[0].ndim != 1 or ys[0].dtype.kind not in "iu"):
            raise InputError("balance: wants one class number a sample, y of integers (N,)")

    def order(self) -> list[np.ndarray]:
        """The batches of the present epoch that are left, as indices."""
        t = self.trainer
        given = len(self.xs[0]), t.batch, t.seed, t.epoch, self.drop_last
        made = data.balanced(self.ys[0], *given[1:]) if self.balance else data.batches(*given)
        return list(made)[-(-t.within // t.batch) :]

    def one(self, on_step: Callable[[int, float], None] | None = None) -> float:
        """The present epoch, or what is left of it; the mean loss."""
        t, order = self.trainer, self.order()
        total = seen = 0.0
        with Progress(f"epoch {t.epoch + 1}", len(order), self.progress) as bar:
            for pick in order:
                xs, part = self.batch(pick)
                loss = t.step(xs, part)
                t.within += len(pick)
                weight = t._weight(part, len(pick))
                total, seen = total + loss * weight, seen + weight
                bar.advance(total / seen)
                if on_step is not None:
                    on_step(t.steps, loss)
        t.epoch, t.within = t.epoch + 1, 0
        return total / seen if seen else math.nan

    def batch(self, pick: np.ndarray) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
        """Inputs and labels of these samples, augmented."""
        xs, ys = tuple(a[pick] for a in self.xs), tuple(a[pick] for a in self.ys)
        if self.augment is None:
            return xs, ys
        key = np.array([self.trainer.seed, AUGMENTS + self.trainer.steps], np.uint64)
        rng = np.random.Generator(np.random.Philox(key=key))
        found = self.augment(xs[0], ys[0] if ys else None, rng)
        if not isinstance(found, tuple) or len(found) != 2:
            raise InputError("augment: wants a function of (x, y, rng) that returns (x, y)")
        x, y = (None if a is None else np.asarray(a) for a in found)
        if x is None or len(x) != len(pick) or (y is not None and len(y) != len(pick)):
            raise InputError(f"augment: wants {len(pick)} samples and labels back")
        return (x,), ys if y is None else (y,)

    def until(
        self,
        epochs: int,
        on_step: Callable[[int, float], None] | None,
        validation: tuple[Any, Any],
        patience: int,
    ) -> list[float]:
        """At most so many epochs; they end when `patience` of them have brought no lower loss on
        the samples and labels of `validation`. The state with the lowest is taken back."""
        t = self.trainer
        if not is_whole(patience) or patience < 1:
            raise InputError(f"patience is {patience!r}; wants a number of epochs, at least 1")
        if not isinstance(validation, tuple) or len(validation) != 2:
            raise InputError("validation: wants a pair (x, y) that is not trained on")
        best, left, history, good = math.inf, patience, [], None
        for _ in range(epochs):
            history.append(self.one(on_step))
            loss = t.evaluate(*validation)["loss"]
            if loss < best:
                best, left = loss, patience
                good = {name: a.copy() for name, a in t.state().items() if _changes(t, name)}
            else:
                left -= 1
            if not left:
                break
        for name, view in t.state().items():
            if good is not None and name in good:
                view[...] = good[name]
        return history


def _changes(trainer: Trainer, name: str) -> bool:
    """Whether training changes what is called so: a frozen parameter needs no copy."""
    return not any(name == frozen for _, frozen in trainer.plan.frozen())
