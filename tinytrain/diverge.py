"""Training that got out of hand: which layer made the first bad value, and how `fit` goes back to
the last good state and, if it is to, on at a lower rate. It guesses no cause and hides nothing.
"""

from __future__ import annotations

import contextlib
import functools
import os
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tinytrain import checkpoint, durable, optim
from tinytrain.bound import Bound
from tinytrain.errors import InputError, NotFiniteError, TinytrainError
from tinytrain.steps import Program

if TYPE_CHECKING:
    from tinytrain.trainer import Trainer

CHOICES = ("restore", "lower_rate")
FACTOR = 0.1  # on the rate, each time
TIMES = 6  # that it is lowered: a rate a million times too high is found
LOOKED = 16  # steps whose mean loss is compared with the loss before training
RISE = 10.0  # times (that loss + 1): training has diverged, though every number is finite
GAIN = 0.02  # of that loss, in an epoch at a lowered rate: less, and it is still too high
SAMPLES = 64  # of the data, on which the loss before training is measured

# ---------------------------------------------------------------------------- which layer


def layer_of(bound: Bound, what: str) -> str:
    """Which layer made the first NaN or infinity of a slice whose inputs are loaded, as words, or
    "". Forward (for a gradient, backward too) runs again, up to where it was stopped."""
    program = bound.plan.program
    stops = [at for at, flags in program.marks if what in [name for _, name in flags]]
    if what in ("the input", "a label") or not stops:
        return ""
    k = bound.executor.first_bad_step(max(stops))
    return "" if k is None else _words(program, k)


def _words(program: Program, k: int) -> str:
    """The op, and the layer by the parameters that it or the last step before it reads."""
    op = program.steps[k].op
    for near in range(k, -1, -1):
        roots = [program.root(v) for v in program.steps[near].reads()]
        names = [program.leaves[v].name for v in roots if v in program.leaves]
        kinds = [program.leaves[v].kind for v in roots if v in program.leaves]
        named = [n for n, kind in zip(names, kinds, strict=True) if kind == "parameter"]
        if named:
            layer = named[0].rpartition(".")[0] or named[0]
            where = "in" if near == k else "behind"
            return f"{op} {where} layer {layer} ({named[0]})"
    return op


def spoiled(trainer: Trainer) -> str:
    """The last parameter or statistic with a NaN or an infinity, or "": a bad gradient begins at
    the end of the network and spoils all that lies before."""
    names = [name for name, view in trainer.state().items() if not np.isfinite(view).all()]
    return names[-1] if names else ""


# ---------------------------------------------------------------------------- going back


class Diverged(TinytrainError):
    """Finite losses far above the one before training."""


def fit(
    trainer: Trainer,
    choice: str,
    epochs: int,
    epoch: Callable[[Any], float],
    on_step: Callable[[int, float], None] | None,
    data: tuple[Sequence[np.ndarray], Sequence[np.ndarray]],
) -> list[float]:
    """`epochs` of `epoch(on_step)`. Where training diverges, the state of the last epoch's end that
    was good (or the first) is restored, with a UserWarning; then, by choice, "restore": it ends
    there; "lower_rate": it goes on at a tenth of the rate, at most TIMES. Each epoch's mean loss.

    The good state lies in a file beside the last saved one, else in the system's folder for
    temporary files, until `fit` ends.
    """
    import tempfile  # and with it shutil, bz2 and lzma

    if choice not in CHOICES:
        raise InputError(f"on_divergence is {choice!r}; wants one of {', '.join(CHOICES)}, or None")
    handle, good = tempfile.mkstemp(".npz", "tinytrain-good-", _folder(trainer))
    os.close(handle)
    first, goal, lowered = trainer.epoch, trainer.epoch + epochs, 0
    history: list[float] = []
    try:
        before = _loss_of(trainer, *data)
        if not np.isfinite(before):
            raise InputError(
                "the loss is NaN or infinite before the first step; check the data's scale, or "
                "restore a state that is sound"
            )
        limit = RISE * (abs(before) + 1)
        checkpoint.save(trainer, good)
        while trainer.epoch < goal:
            try:
                history.append(
                    epoch(functools.partial(_watch, deque(maxlen=LOOKED), limit, on_step))
                )
                if lowered and not _loss_of(trainer, *data) < before - GAIN * abs(before):
                    raise Diverged("still, for nothing was learned in an epoch")
                checkpoint.save(trainer, good)
            except (NotFiniteError, Diverged) as error:
                if getattr(error, "what", "") in ("the input", "a label"):
                    raise
                _go_back(trainer, good, error, choice, lowered)
                if choice == "restore" or lowered == TIMES:
                    break
                lowered += 1
                del history[trainer.epoch - first :]
    finally:
        for name in (good, durable.previous(good)):
            with contextlib.suppress(OSError):
                os.remove(name)
    return history


def _folder(trainer: Trainer) -> str | None:
    """None: the system's for temporary files."""
    return None if trainer._saved is None else os.path.dirname(os.path.abspath(trainer._saved))


def _loss_of(trainer: Trainer, xs: Sequence[np.ndarray], ys: Sequence[np.ndarray]) -> float:
    """Of the first samples."""
    part = tuple(a[:SAMPLES] for a in ys)
    return trainer.evaluate(tuple(a[:SAMPLES] for a in xs), part or None)["loss"]


def _watch(recent: deque[float], limit: float, on_step: Any, step: int, loss: float) -> None:
    """Behind each step of an epoch."""
    recent.append(loss)
    if sum(recent) > limit * LOOKED:
        mean = sum(recent) / len(recent)
        raise Diverged(f"the mean of the last {len(recent)} losses is {mean:.4g}")
    if on_step is not None:
        on_step(step, loss)


def _go_back(trainer: Trainer, good: str, error: Exception, choice: str, lowered: int) -> None:
    """Take the last good state, lower the rate if it is to be, and say so."""
    step = trainer.steps
    checkpoint.apply(trainer, good, *checkpoint.read(good))
    what = f"the state behind step {trainer.steps} was restored"
    if choice == "lower_rate" and lowered < TIMES:
        schedule, factor = trainer.optimizer.schedule, FACTOR
        if isinstance(schedule, optim.ScaledLR):
            schedule, factor = schedule.after, FACTOR * schedule.factor
        trainer.optimizer = trainer.optimizer.with_lr(optim.ScaledLR(schedule, factor))
        what += f", and the rate is {FACTOR} times what it was"
    else:
        what += ", and training ended there"
    warnings.warn(f"training diverged behind step {step} ({error}): {what}", stacklevel=4)
