"""Steps: the lowered program as data, single assignment, still without bytes or offsets."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import Any

from tinytrain.op import OPS
from tinytrain.spec import Spec
from tinytrain.tape import Leaf, Tape

OVERFLOW = "a bitmap's capacity"  # the flag that asks for the guaranteed plan
TRANSFERS = ("spill", "spill_wait", "fetch", "fetch_wait")  # to and from the spill file


@dataclass(slots=True)
class Step:
    """`outs = op(*ins)` with scratch `work`. With `acc` (a value), `out = acc + op(*ins)`.

    Never changed once it is made; not `frozen`, for that makes it three times as slow to make.
    """

    op: str
    outs: tuple[int | None, ...]
    ins: tuple[int | None, ...]
    attrs: dict[str, Any]
    work: tuple[int, ...] = ()
    acc: int | None = None
    _reads: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _writes: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        reads = self.ins if self.acc is None else (*self.ins, self.acc)
        self._reads = tuple(v for v in reads if v is not None) if None in reads else reads  # type: ignore[assignment]
        writes = (*self.outs, *self.work) if self.work else self.outs
        self._writes = tuple(v for v in writes if v is not None) if None in writes else writes  # type: ignore[assignment]

    def reads(self) -> tuple[int, ...]:
        """The values this step reads."""
        return self._reads

    def writes(self) -> tuple[int, ...]:
        """The values this step makes, scratch included."""
        return self._writes


@dataclass
class Program:
    """The lowered step: everything an executor or a planner needs to know, still without bytes.

    kinds     what each value is: the leaf kinds, and activation, gradient, stash, workspace, io,
              and spill: stored outside the arena.
    views     value -> the value whose bytes it shows under another shape.
    home      value -> the leaf whose buffer it must be written to (parameters, optimizer state).
    marks     (position in steps, flags): before that step, each flag (value, what it tells of)
              must read 0, or the rest of the step is not run. What changes anything persistent
              lies behind the last mark.
    """

    tape: Tape
    specs: list[Spec]
    kinds: list[str]
    leaves: dict[int, Leaf]
    steps: list[Step] = field(default_factory=list)
    views: dict[int, int] = field(default_factory=dict)
    home: dict[int, int] = field(default_factory=dict)
    marks: list[tuple[int, list[tuple[int, str]]]] = field(default_factory=list)
    grads: dict[int, int] = field(default_factory=dict)
    kept: list[int] = field(default_factory=list)  # values that outlive the last step
    body: tuple[int, int] | None = None  # run once for every slice; what is around it, once
    orders: dict[int, bool] = field(default_factory=dict)  # node -> weight gradient first?
    forward_end: int = 0  # where backward begins, when nothing is committed between
    stands_for: dict[int, int] = field(default_factory=dict)  # a copy -> the tape value it is
    inverses: list[int] = field(default_factory=list)  # copies that an inverse made

    def new(self, spec: Spec, kind: str) -> int:
        """A fresh value."""
        self.specs.append(spec)
        self.kinds.append(kind)
        return len(self.specs) - 1

    def scratch(self, op: str, ins, outs, attrs: dict[str, Any]) -> tuple[int, ...]:
        """Fresh values for what `op` over these wants as one-step scratch."""
        rule = OPS[op].work
        if rule is None:
            return ()
        specs = [[None if v is None else self.specs[v] for v in vs] for vs in (ins, outs)]
        return tuple(self.new(s, "workspace") for s in rule(*specs, attrs))

    def macs_of(self, op: str, ins, outs, attrs: dict[str, Any]) -> int | None:
        """Multiply-accumulates of `op` over these values; None where it is no product."""
        rule = OPS[op].macs
        if rule is None:
            return None
        specs = ([None if v is None else self.specs[v] for v in vs] for vs in (ins, outs))
        return rule(*specs, attrs)

    def root(self, v: int) -> int:
        """The value that owns v's bytes, before homes."""
        while v in self.views:
            v = self.views[v]
        return v

    def roots(self) -> list[int]:
        """`root` of every value, for who asks for all."""
        found = list(range(len(self.specs)))
        for v, base in self.views.items():  # a view is made after what it shows
            found[v] = found[base]
        return found


@dataclass(frozen=True)
class Group:
    """Steps that overwrite a leaf: to be placed behind `ready` (a position in the step list) and
    behind the last step that reads what the leaf held."""

    leaf: int
    ready: int
    steps: list[Step]


def finish(program: Program) -> Program:
    """Leave out the outputs that nobody reads, where their kernel can, and what is spilled for
    nobody."""
    fetched = {v for s in program.steps if s.op == "fetch" for v in s.ins}
    unread = {s.outs[0] for s in program.steps if s.op == "spill"} - fetched
    if unread:
        _leave_out(program, unread)
    read = {v for step in program.steps for v in step.reads()} | set(program.kept)
    for k, step in enumerate(program.steps):
        drops = OPS[step.op].drops
        if drops and any(step.outs[i] not in read for i in drops):
            outs = tuple(
                None if i in drops and v not in read else v for i, v in enumerate(step.outs)
            )
            program.steps[k] = replace(step, outs=outs)
    return program


def _leave_out(program: Program, stored: set[int | None]) -> None:
    """Take out the steps that write these, or wait for that."""
    steps = program.steps
    stay = [not stored & {*s.outs, *s.ins} for s in steps]
    moved = [0, *itertools.accumulate(stay)]
    program.steps = [s for s, stays in zip(steps, stay, strict=True) if stays]
    program.marks = [(moved[at], flags) for at, flags in program.marks]
    if program.body is not None:
        program.body = moved[program.body[0]], moved[program.body[1]]
    for v in stored:
        program.stands_for.pop(v, None)  # type: ignore[arg-type]


def place(program: Program, groups: list[Group]) -> list[int]:
    """Put each group where nothing behind it reads what its leaf held. Returns where each old
    position in the step list has moved to."""
    roots, last = program.roots(), dict.fromkeys((g.leaf for g in groups), 0)
    for k, step in enumerate(program.steps):
        for v in step.reads():
            if roots[v] in last:
                last[roots[v]] = k + 1
    at: dict[int, list[Step]] = {}
    for g in groups:
        at.setdefault(max(g.ready, last[g.leaf]), []).extend(g.steps)
    placed: list[Step] = []
    moved = []
    for k, step in enumerate(program.steps):
        moved.append(len(placed))
        if k in at:
            placed += at[k]
        placed.append(step)
    moved.append(len(placed))
    placed += at.get(len(program.steps), ())
    program.steps = placed
    return moved
