"""Ahead: transfers begin early and are waited for late, where that costs no byte at the peak.

It moves nothing but beginnings and waits. A write begins when its value is made and is waited for
as late as the value may stay, at the latest in front of the mark; a fetch begins as early as there
is room for its value, behind the mark, in the order in which the values are needed.
"""

from __future__ import annotations

from dataclasses import replace

from tinytrain.lifetime import live_of
from tinytrain.steps import Program

STATUS = 4  # bytes of what a wait writes


def draw_apart(program: Program, inplace: bool = True) -> Program:
    """The program with its transfers spread over whole steps. Marks and body stay where they
    are: nothing crosses them."""
    waits = [k for k, s in enumerate(program.steps) if s.op == "spill_wait"]
    fetches = [k for k, s in enumerate(program.steps) if s.op == "fetch"]
    if not waits:
        return program
    live = live_of(program, inplace)
    peak = max(live)
    moved: dict[int, tuple[int, int]] = {}  # step -> where it goes: beside which step, which side
    made = {v: k for k, s in enumerate(program.steps) for v in s.outs}
    for k, s in enumerate(program.steps):
        if s.op == "spill":
            source = program.root(s.reads()[0])
            begin = 0 if program.body is None else program.body[0]
            moved[k] = (made[source], 1) if source in made else (begin, -1)
    for k in reversed(waits):
        nbytes, end = _nbytes(program, k), _next_mark(program, k)
        at = k
        while at + 1 < end and live[at + 1] + nbytes + STATUS <= peak:
            at += 1
            live[at] += nbytes
        moved[k] = at, 1
    earliest = 0
    for k in fetches:
        nbytes, begin = _nbytes(program, k), max(earliest, _last_mark(program, k))
        at = k
        while at > begin and live[at - 1] + nbytes <= peak:
            at -= 1
            live[at] += nbytes
        moved[k] = at, -1
        earliest = at
    order = sorted(range(len(program.steps)), key=lambda k: (*moved.get(k, (k, 0)), k))
    return replace(program, steps=[program.steps[k] for k in order])


def _nbytes(program: Program, k: int) -> int:
    v = program.steps[k].ins[0]
    assert v is not None
    return program.specs[v].nbytes


def _next_mark(program: Program, k: int) -> int:
    """The first mark behind step k; there is one behind every write."""
    return min(at for at, _ in program.marks if at > k)


def _last_mark(program: Program, k: int) -> int:
    """The last mark in front of step k; there is one in front of every fetch."""
    return max(at for at, _ in program.marks if at <= k)
