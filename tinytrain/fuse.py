"""Fusing on the step list: a weight gradient and the plain update that alone reads it become one
step, so that the gradient is never whole in memory. Nothing is reordered.

The idea is NNTrainer's floor for its linear case (one tile of the gradient at a time); LOMO (Lv et
al. 2023) does it layer by layer.
"""

from __future__ import annotations

from collections import Counter

from tinytrain.op import OPS
from tinytrain.steps import Program, Step

LEAST = 16 * 1024  # bytes of a gradient for which it is worth a step of its own


def fuse_updates(program: Program) -> Program:
    """The program with `w_grad = row(a, g); w = sgd(w, w_grad, lr)` as `w = row_sgd(w, a, g, lr)`
    wherever one directly follows the other."""
    reads = Counter(v for s in program.steps for v in s.reads())
    reads.update(program.kept)
    marked = {at for at, _ in program.marks}
    steps: list[Step] = []
    moved = []
    for k, step in enumerate(program.steps):
        moved.append(len(steps))
        before = steps[-1] if steps and k not in marked else None
        fused = None if before is None else _fused(program, before, step, reads)
        if fused is not None:
            steps.pop()
            moved[-1] = len(steps)
        steps.append(step if fused is None else fused)
    moved.append(len(steps))
    program.steps = steps
    program.marks = [(moved[at], flags) for at, flags in program.marks]
    if program.body is not None:
        program.body = moved[program.body[0]], moved[program.body[1]]
    return program


def _fused(program: Program, made: Step, update: Step, reads: Counter[int]) -> Step | None:
    """Both steps as one, if they may be."""
    name = f"{made.op}_sgd"
    if update.op != "sgd" or name not in OPS or made.acc is not None:
        return None
    w, gradient, lr = update.reads()
    specs = program.specs
    if (
        made.outs[0] != gradient
        or reads[gradient] != 1
        or w in made.ins
        or specs[gradient].ndim != specs[w].ndim
        or specs[gradient].nbytes < LEAST
    ):
        return None
    ins = (w, *made.ins, lr)
    work = program.scratch(name, ins, update.outs, made.attrs)
    return Step(name, update.outs, ins, made.attrs, work)
