"""What a trainer does once a bad value has spoiled its state: go back to what was saved, or begin
anew what is lost, and say which. It never goes on as if nothing had happened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tinytrain import checkpoint
from tinytrain.diverge import spoiled
from tinytrain.errors import NotFiniteError
from tinytrain.nn.module import Parameter

if TYPE_CHECKING:
    from tinytrain.trainer import Trainer


def recover(trainer: Trainer, error: NotFiniteError, slices: int) -> None:
    """Nothing, if the failed step left everything as it was. Else NotFiniteError that says what
    was done: a bad gradient of an earlier step shows here, in weights that are lost; or a slice
    is bad when `slices` before it were added to momentum and running statistics."""
    lost = not all(np.isfinite(view).all() for view in trainer.state().values())
    summed = written_by_slices(trainer) if slices else {}
    if not lost and not summed:
        return
    keeps = trainer._saved is None and not lost
    bad = spoiled(trainer)
    what = _clear(trainer, summed) if keeps else go_back(trainer)
    why = f"an earlier gradient was NaN or infinite and spoiled the weights up to {bad}"
    if not lost:
        made = f", first made by {error.layer}," if error.layer else ""
        why = (
            f"{error.what} is NaN or infinite{made} when earlier slices of the batch had been added"
        )
    advice = "lower the learning rate"
    if trainer.settings["guard"] != "step":
        apart = "keeps such a gradient out" if lost else "sums slices apart: nothing changes then"
        advice += f", or use guard='step', which {apart}"
    raise NotFiniteError(f"{why}: {what}; {advice}", error.what) from error


def go_back(trainer: Trainer) -> str:
    """Take the last saved state, or begin anew; what was done."""
    if trainer._saved is None:
        start_anew(trainer)
        return "training begins anew, for nothing was saved"
    checkpoint.apply(trainer, trainer._saved, *checkpoint.read(trainer._saved))
    return f"the state saved in {trainer._saved} was restored"


def written_by_slices(trainer: Trainer) -> dict[int, str]:
    """What persists and changes with every slice of a batch, before the update: leaf -> its kind,
    "optimizer" (momentum) or "state" (running statistics)."""
    program = trainer.plan.program
    end = 0 if program.body is None else program.body[1]
    written = {v for s in program.steps[:end] for v in s.writes()}
    leaves = sorted({program.home[v] for v in written if v in program.home})
    return {v: program.kinds[v] for v in leaves if program.kinds[v] in ("optimizer", "state")}


def _clear(trainer: Trainer, summed: dict[int, str]) -> str:
    """Momentum at zero; what there is to say of it."""
    said = ["the weights are as they were"]
    for v, kind in summed.items():
        if kind == "optimizer":
            trainer._train.executor.view(v)[...] = 0
    if "optimizer" in summed.values():
        said.append("the momentum begins at zero")
    if "state" in summed.values():
        said.append("running statistics keep what earlier slices gave")
    return ", ".join(said) + ", for nothing was saved"


def start_anew(trainer: Trainer) -> None:
    """Initial parameters (frozen ones stay), zero optimizer state, step 0."""
    for v, leaf in trainer.plan.program.leaves.items():
        tensor, view = trainer._train.frozen.leaves.get(v), trainer._train.executor.view(v)
        if isinstance(tensor, Parameter):
            if leaf.trainable or leaf.kind == "state":
                tensor.fill(view)
        elif leaf.kind == "optimizer":
            view[...] = 0
    trainer.steps = trainer.epoch = trainer.within = 0
