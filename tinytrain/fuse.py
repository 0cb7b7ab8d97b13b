"""Fusing on the step list: a weight gradient and the update that alone reads it become one step, so
that the gradient is never whole in memory, or a velocity is passed over once. Nothing is reordered
but what a velocity begins with, which moves to where its gradient is made.

The idea is NNTrainer's floor for its linear case (one tile of the gradient at a time); LOMO (Lv et
al. 2023) does it layer by layer.
"""

from __future__ import annotations

import itertools
from collections import Counter

from tinytrain.op import OPS
from tinytrain.steps import Program, Step

LEAST = 16 * 1024  # bytes of a gradient for which it is worth a step of its own


def fuse_updates(program: Program) -> Program:
    """The program with `w_grad = row(a, g); w = sgd(w, w_grad, lr)` as `w = row_sgd(w, a, g, lr)`
    wherever one directly follows the other; where the gradient is added to a velocity,
    `v1 = decay(v, w); v2 = v1 + row(a, g); w = sgd(w, v2, lr)` is `v2, w = row_momentum(v, w, a, g,
    lr)`."""
    reads = Counter(v for s in program.steps for v in s.reads())
    reads.update(program.kept)
    marked = {at for at, _ in program.marks}
    old = program.steps
    begun = {s.outs[0]: k for k, s in enumerate(old) if s.op == "decay"}
    steps, stay = list(old), [True] * len(old)
    for k in range(1, len(old)):
        made, update = old[k - 1], old[k]
        if update.op != "sgd" or k in marked or not _is_whole(program, made, update, reads):
            continue
        fused = None
        if made.acc is None:
            fused = _plain(program, made, update)
        elif made.acc in begun and reads[made.acc] == 1:
            fused = _momentum(old[begun[made.acc]], made, update)
        if fused is not None:
            steps[k], stay[k - 1] = fused, False
            if made.acc is not None:  # nothing else asks for the velocity in between
                stay[begun[made.acc]] = False
    moved = [0, *itertools.accumulate(stay)]
    program.steps = [s for s, stays in zip(steps, stay, strict=True) if stays]
    program.marks = [(moved[at], flags) for at, flags in program.marks]
    if program.body is not None:
        program.body = moved[program.body[0]], moved[program.body[1]]
    return program


def _is_whole(program: Program, made: Step, update: Step, reads: Counter[int]) -> bool:
    """Whether the update alone reads what was made, which is as large as the weights."""
    w, gradient, _ = update.reads()
    specs = program.specs
    return (
        made.outs[0] == gradient
        and reads[gradient] == 1
        and w not in made.ins
        and specs[gradient].ndim == specs[w].ndim
        and specs[gradient].nbytes >= LEAST
    )


def _plain(program: Program, made: Step, update: Step) -> Step | None:
    """A gradient and its descent as one step, if there is a row for it."""
    name = f"{made.op}_sgd"
    if name not in OPS:
        return None
    w, _, lr = update.reads()
    ins = (w, *made.ins, lr)
    work = program.scratch(name, ins, update.outs, made.attrs)
    return Step(name, update.outs, ins, made.attrs, work)


def _momentum(begun: Step, made: Step, update: Step) -> Step | None:
    """A velocity's beginning, the gradient added to it and the descent as one step, if there is a
    row for it."""
    name = f"{made.op}_momentum"
    if name not in OPS:
        return None
    w, _, lr = update.reads()
    attrs = {**begun.attrs, **made.attrs}
    outs = (made.outs[0], update.outs[0])
    return Step(name, outs, (begun.ins[0], w, *made.ins, lr), attrs)
