"""The budget: bytes as people write them, and the cheapest plan found that honours them.

Levers, in this order: keep everything; slices of the batch (no extra work, but an accumulator
where the optimizer has none); masks and recomputation, chosen by the solver for each slice size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Any

from tinytrain.errors import InputError
from tinytrain.lower import Decisions, lower
from tinytrain.plan import Plan, make_plan
from tinytrain.solver import Solver, Trial, rank
from tinytrain.tape import Tape

UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}
POLICIES = ("auto", "keep", "recompute")
ATTEMPTS = 3  # to make up for what placement adds to the lower bound


def parse_bytes(size: Any) -> int | None:
    """`"64K"`, `"1.5M"` (1024-based) or an int of bytes; None is no limit."""
    if size is None:
        return None
    if isinstance(size, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?)(?:i?B)?\s*", size, re.IGNORECASE)
        if match and len(match[1]) < 20:
            return int(float(match[1]) * UNITS[match[2].upper()])
    elif isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return size
    raise InputError(f"ram is {size!r}; write bytes as 65536, 64K or 1.5M")


def choose(
    record: Callable[[int], Tape],
    optimizer: Any,
    batch: int,
    ram: Any = None,
    policy: str = "auto",
    microbatch: Any = "auto",
    guard: str | None = "loss",
    clip_norm: float | None = None,
) -> Plan:
    """The cheapest plan found of one training step within `ram`; BudgetError if there is none.

    record      the tape of a slice of so many samples.
    policy      "auto"; "keep": every residual is kept; "recompute": every cheap one is not.
    microbatch  samples of a slice; "auto": the whole batch, or less where that is what fits. A
                network with batch statistics is never sliced by itself.
    """
    if policy not in POLICIES:
        raise InputError(f"unknown policy {policy!r}; there are {', '.join(POLICIES)}")
    if guard not in ("loss", "step", None):
        raise InputError(f"unknown guard {guard!r}; there are 'loss', 'step' and None")
    if clip_norm is not None and not (isinstance(clip_norm, Real) and clip_norm > 0):
        raise InputError(f"clip_norm is {clip_norm!r}; wants a number above 0")
    search = Search(record, optimizer, batch, policy, guard, clip_norm)
    sizes = list(slice_sizes(microbatch, batch, record(batch)))
    return search.within(parse_bytes(ram), sizes).require_fit()


def slice_sizes(microbatch: Any, batch: int, tape: Tape) -> Iterator[int]:
    """The slice sizes that may be tried, the largest first."""
    if microbatch in ("auto", None):
        yield batch
        if all(n.op != "batch_norm" or n.ins[1] is None for n in tape.nodes):
            size = batch
            while size > 1:
                size = -(-size // 2)
                yield size
    elif isinstance(microbatch, int) and 1 <= microbatch <= batch:
        yield microbatch
    else:
        raise InputError(f"microbatch is {microbatch!r}; wants 'auto' or 1 to {batch} samples")


@dataclass
class Search:
    """The plans of one training step, by slice size."""

    record: Callable[[int], Tape]
    optimizer: Any
    batch: int
    policy: str
    guard: str | None
    clip_norm: float | None

    def solver(self, size: int) -> Solver:
        """The solver over slices of this size."""
        tape = self.record(size)

        def lowered(decisions: Decisions):
            sliced = size < self.batch
            return lower(tape, self.optimizer, decisions, self.guard, self.clip_norm, sliced)

        return Solver(tape, lowered, -(-self.batch // size))

    def within(self, ram: int | None, sizes: list[int]) -> Plan:
        """The cheapest plan found within `ram`; without one, the smallest found."""
        best: tuple[tuple[int, int], Plan] | None = None
        whole = self.solver(self.batch).trial(Decisions())
        assert whole is not None
        for size in sizes:
            solver = self.solver(size)
            trial, plan = self._fit(solver, size, ram)
            score = rank(trial.work, plan.arena_bytes, ram)
            if best is None or score < best[0]:
                best = score, plan
                plan.extra_macs_ratio = max(trial.work / whole.work - 1, 0.0)
            if plan.fits and trial.decisions == Decisions():
                break  # slices alone cost nothing
        assert best is not None
        best[1].find_smallest = lambda: self.smallest(sizes[-1])
        return best[1]

    def _fit(self, solver: Solver, size: int, ram: int | None) -> tuple[Trial, Plan]:
        """The best trial for one slice size, placed: the arena is the last check."""
        forced = solver.start(self.policy)
        trial = solver.trial(forced)
        assert trial is not None
        plan = self._plan(trial, size, ram)
        if plan.fits or self.policy == "keep" or ram is None:
            return trial, plan
        target = ram
        for _ in range(ATTEMPTS):
            trial = solver.solve(target)
            plan = self._plan(trial, size, ram)
            if plan.fits or trial.peak > target:
                break
            target -= plan.arena_bytes - ram
        if not plan.fits:  # what the smallest budget promises must be found again
            tight = solver.tighten()
            smaller = self._plan(tight, size, ram)
            if smaller.arena_bytes < plan.arena_bytes:
                return tight, smaller
        return trial, plan

    def _plan(self, trial: Trial, size: int, ram: int | None) -> Plan:
        plan = make_plan(trial.program, self.batch, ram)
        plan.microbatch, plan.decisions = size, trial.decisions
        return plan

    def smallest(self, size: int) -> int:
        """The smallest arena found, by tightening again and again."""
        solver = self.solver(size)
        if self.policy == "keep":
            trial = solver.trial(Decisions())
        else:
            trial = solver.tighten()
        assert trial is not None
        return self._plan(trial, size, None).arena_bytes
