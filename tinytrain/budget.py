"""The budget: bytes as people write them, and the cheapest plan found that honours them.

Levers, in this order: keep everything; slices of the batch (no extra work, but an accumulator
where the optimizer has none); masks and recomputation, chosen by the solver for each slice size.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

from tinytrain.errors import InputError
from tinytrain.lower import Decisions, lower
from tinytrain.plan import Plan, make_plan
from tinytrain.solver import (
    LOWERINGS,
    Solver,
    Trial,
    rank,
    sparse_values,
    spillable,
    with_policy,
    work_of,
)
from tinytrain.tape import Tape

UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}
POLICIES = ("auto", "keep", "bitmap", "recompute", "invert", "spill")
DENSEST = 0.9  # measured share of non-zeros above which no bitmap is thought of
DENSITY = 0.5  # of a ReLU's output, where nothing is known of it
LEAST = 20_000  # steps lowered for one slice size
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
    clip_norm: Any = None,
    density: float | dict[int, float] | None = None,
    spill: str | os.PathLike[str] | None = None,
) -> Plan:
    """The cheapest plan found of one training step within `ram`; BudgetError if there is none.

    record      the tape of a slice of so many samples.
    policy      "auto"; "keep": every residual is kept; "recompute": every cheap one is not;
                "invert": what a reversible network can give back is not; "bitmap": outputs of ReLU
                are kept packed; "spill": every value of at least `stash.spill.SMALLEST` bytes goes
                to the spill file.
    microbatch  samples of a slice; "auto": the whole batch, or less where that is what fits. A
                network with batch statistics is never sliced by itself.
    density     the share of non-zeros expected in outputs of ReLU (or one for each tape value);
                with it bitmaps are among the choices.
    spill       where spilled values may go; with it spilling is among the choices. Not opened.
    """
    if policy not in POLICIES:
        raise InputError(f"unknown policy {policy!r}; there are {', '.join(POLICIES)}")
    if not (spill is None or (isinstance(spill, str | os.PathLike) and os.fspath(spill))):
        raise InputError(f"spill is {spill!r}; name the file that spilled values may go to")
    if policy == "spill" and spill is None:
        raise InputError("policy 'spill' wants to know where to: name a file as spill")
    if guard not in ("loss", "step", None):
        raise InputError(f"unknown guard {guard!r}; there are 'loss', 'step' and None")
    if not (clip_norm is None or (_is_number(clip_norm) and clip_norm > 0)):
        raise InputError(f"clip_norm is {clip_norm!r}; wants a number above 0")
    if isinstance(density, dict):
        density = {int(v): d for v, d in density.items()}  # a file has names for keys
    shares = list(density.values()) if isinstance(density, dict) else [density or 0.0]
    if not all(_is_number(d) and 0 <= d <= 1 for d in shares):
        raise InputError(f"density is {density!r}; wants the share of non-zeros, 0 to 1")
    search = Search(record, optimizer, batch, policy, guard, clip_norm, density, spill)
    sizes = list(slice_sizes(microbatch, batch, record(batch)))
    return search.within(parse_bytes(ram), sizes).require_fit()


def _is_number(x: Any) -> bool:
    return isinstance(x, Real)


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
    density: float | dict[int, float] | None = None
    spill: str | os.PathLike[str] | None = None

    def solver(self, size: int, same_sums_as: Decisions | None = None) -> Solver:
        """The solver over slices of this size: with bitmaps where they are asked for, or without,
        in the order of sums of other decisions."""
        tape = self.record(size)
        sliced = size < self.batch
        densities = self.densities(tape)
        if same_sums_as is not None:
            densities = {}

        def lowered(decisions: Decisions):
            d = replace(decisions, densities=densities)
            if same_sums_as is not None:
                d = replace(d, weight_first=same_sums_as.weight_first)
            return lower(tape, self.optimizer, d, self.guard, self.clip_norm, sliced)

        slices = -(-self.batch // size)
        sparse = frozenset(densities)
        spills = frozenset() if self.spill is None else spillable(tape)
        if same_sums_as is None:
            return Solver(tape, lowered, slices, sparse=sparse, spills=spills)
        few = LOWERINGS // 10
        return Solver(tape, lowered, slices, orders=False, lowerings=few, spills=spills)

    def densities(self, tape: Tape) -> dict[int, float]:
        """The nominal density of each value that may be kept as a bitmap."""
        if self.density is None and self.policy != "bitmap":
            return {}
        if isinstance(self.density, dict):
            return self.density
        values = [v for v in sparse_values(tape) if v != tape.loss]
        return dict.fromkeys(values, DENSITY if self.density is None else self.density)

    def within(self, ram: int | None, sizes: list[int]) -> Plan:
        """The cheapest plan found within `ram`; without one, the smallest found."""
        best: tuple[tuple[int, int], Plan] | None = None
        whole = self.solver(self.batch).trial(Decisions())
        assert whole is not None
        for k, size in enumerate(sizes):
            solver = self.solver(size)
            solver.lowerings = max(LOWERINGS >> k, LEAST)  # all sizes together: twice the first
            trial, plan = self._fit(solver, size, ram)
            score = rank(trial.work, plan.arena_bytes, ram)
            if best is None or score < best[0]:
                best = score, plan
                work = work_of(trial.program, -(-self.batch // size), moves=False)
                plan.extra_macs_ratio = max(work / whole.work - 1, 0.0)
            if ram is None or (plan.fits and trial.decisions == Decisions()):
                break  # nothing asks for slices, or they alone cost nothing
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
        densities = self.densities(trial.program.tape)
        plan.microbatch, plan.decisions = size, replace(trial.decisions, densities=densities)
        if any(s.op == "bitmap_pack" for s in trial.program.steps):
            self._guarantee(plan)
        return plan

    def _guarantee(self, plan: Plan) -> None:
        """Find the cheapest way without bitmaps, in the same order of sums, for slices that have
        more non-zeros than was planned. Its plan fits the same arena, or the arena grows."""
        d = plan.decisions
        solver = self.solver(plan.microbatch, d)
        packed = [v for v, policy in d.policies.items() if policy == "bitmap"]
        keep = solver.trial(with_policy(d, packed, "keep"))
        assert keep is not None
        best: tuple[tuple[int, int], Plan] | None = None
        for make in (  # it runs rarely: the first that fits will do
            lambda: keep,
            lambda: solver.trial(with_policy(d, packed, "recompute")),
            lambda: solver.trial(solver.start("recompute")),
            lambda: solver.greedy(keep, plan.arena_bytes),
            lambda: solver.solve(plan.arena_bytes),
        ):
            trial = make()
            if trial is None:
                continue
            other = make_plan(trial.program, self.batch, plan.arena_bytes, layout=plan.layout)
            score = rank(trial.work, other.arena_bytes, plan.arena_bytes)
            if best is None or score < best[0]:
                best = score, other
                plan.guaranteed = replace(trial.decisions, weight_first=d.weight_first)
            if other.fits:
                break
        assert best is not None
        plan.arena_bytes = max(plan.arena_bytes, best[1].arena_bytes)

    def smallest(self, size: int) -> int:
        """The smallest arena found, by tightening again and again."""
        solver = self.solver(size)
        if self.policy == "keep":
            trial = solver.trial(Decisions())
        else:
            trial = solver.tighten()
        assert trial is not None
        return self._plan(trial, size, None).arena_bytes
