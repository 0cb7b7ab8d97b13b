"""Lifetimes: from when to when each buffer is needed, and who is alive at the peak. No offsets.

A lifetime is half-open in steps, [first, end): born in step `first`, last used in step `end - 1`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from tinytrain.inplace import Sharing, share_buffers
from tinytrain.steps import Program


@dataclass(frozen=True)
class Layout:
    """Offsets of persistent leaves by (kind, name), and where the last one ends, in bytes."""

    offsets: dict[tuple[str, str], int]
    end: int


def key_of(program: Program, leaf: int) -> tuple[str, str]:
    """What a leaf is called in every plan of one network."""
    return program.leaves[leaf].kind, program.leaves[leaf].name


STORED = "spill"  # the kind of what lies outside the arena
PERSISTENT = ("parameter", "state", "constant", "hyper", "optimizer", "accumulator")


@dataclass
class Buffer:
    """One stretch of memory and the values that live in it, one after the other.

    values: (first step, value id), in order; kinds and names follow from them.
    """

    owner: int
    nbytes: int
    first: int
    end: int
    persistent: bool
    values: list[tuple[int, int]] = field(default_factory=list)
    offset: int = 0

    def value_at(self, step: int) -> int:
        """The value that the buffer holds during `step`."""
        held = [v for first, v in self.values if first <= step]
        return held[-1] if held else self.values[0][1]


def buffers_of(
    program: Program, inplace: bool = True, layout: Layout | None = None
) -> tuple[list[Buffer], dict[int, int]]:
    """The buffers, persistent ones first, and for every value the position of its buffer.

    With a `layout` of another plan, only leaves named there persist; others come with each run.
    """
    owner = share_buffers(program, inplace)
    total = max(len(program.steps), 1)
    found: dict[int, Buffer] = {}

    def touch(v: int, k: int) -> None:
        root = owner[v]
        if root not in found:
            nbytes = program.specs[root].nbytes
            persistent = root in program.leaves and _persists(program, root, layout)
            found[root] = Buffer(
                root, nbytes, 0 if root in program.leaves else k, k + 1, persistent
            )
        buffer = found[root]
        buffer.end = max(buffer.end, k + 1)
        base = program.root(v)
        if all(base != held for _, held in buffer.values):
            buffer.values.append((k, base))

    for v in program.leaves:
        touch(v, 0)
    for k, step in enumerate(program.steps):
        for v in (*step.writes(), *step.reads()):
            if program.kinds[v] != STORED:
                touch(v, k)
    for v in program.kept:
        touch(v, total - 1)
    for buffer in found.values():
        if buffer.persistent:
            buffer.first, buffer.end = 0, total
    ordered = sorted(found.values(), key=lambda b: (not b.persistent, b.first))
    where = {b.owner: k for k, b in enumerate(ordered)}
    return ordered, {v: where[r] for v, r in owner.items() if r in where}


def slots_of(program: Program) -> list[Buffer]:
    """What is stored outside the arena, from the step that begins to write it to the one that has
    read it back."""
    found: dict[int, Buffer] = {}
    for k, step in enumerate(program.steps):
        for v in (*step.writes(), *step.reads()):
            if program.kinds[v] == STORED:
                nbytes = program.specs[v].nbytes
                slot = found.setdefault(v, Buffer(v, nbytes, k, k + 1, False, [(k, v)]))
                slot.end = k + 1
    return list(found.values())


def live_of(program: Program, inplace: bool = True) -> list[int]:
    """`live_bytes(buffers_of(program))` without the buffers: a solver asks for it many times."""
    sharing = Sharing(program, inplace)
    total = max(len(program.steps), 1)
    end = {v: min(max(k, 0) + 1, total) for v, k in sharing.end.items()}
    end.update((v, total) for v in program.leaves if program.kinds[v] in PERSISTENT)
    delta = [0] * (total + 1)
    for root, begin in sharing.first.items():
        nbytes = 0 if program.kinds[root] == STORED else program.specs[root].nbytes
        delta[begin] += nbytes
        delta[end[root]] -= nbytes
    return list(itertools.accumulate(delta[:total]))


def _persists(program: Program, leaf: int, layout: Layout | None) -> bool:
    known = layout is None or key_of(program, leaf) in layout.offsets
    return known and program.kinds[leaf] in PERSISTENT


def live_bytes(buffers: list[Buffer], steps: int) -> list[int]:
    """Bytes alive during each step."""
    delta = [0] * (steps + 1)
    for b in buffers:
        delta[b.first] += b.nbytes
        delta[min(b.end, steps)] -= b.nbytes
    live, now = [], 0
    for d in delta[:steps]:
        now += d
        live.append(now)
    return live or [sum(b.nbytes for b in buffers)]
