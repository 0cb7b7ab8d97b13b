"""The budget: bytes as people write them, and the cheapest plan found that honours them.

Levers, in this order: keep everything; slices of the batch (no extra work, but an accumulator
where the optimizer has none); masks and recomputation, chosen by the solver.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from tinytrain.candidates import sparse_values, spillable
from tinytrain.errors import InputError
from tinytrain.lower import Decisions, lower
from tinytrain.number import is_number
from tinytrain.op import OPS
from tinytrain.plan import Plan, make_plan
from tinytrain.rewrite import GATES
from tinytrain.solver import LOWERINGS, Solver, Trial, rank, work_of
from tinytrain.stash import topk
from tinytrain.tape import Tape

UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}
POLICIES = ("auto", "keep", "bitmap", "recompute", "invert", "spill", "topk")
FORCED = ("keep", "topk")  # what is not left for another policy when the budget is too small
DENSEST = 0.9  # measured share of non-zeros above which no bitmap is thought of
DENSITY = 0.5  # of a ReLU's output, where nothing is known of it
LAPS = 10  # times that a search lowers a program of usual depth, and more
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
                to the spill file; "topk": what weight gradients read loses all but its largest
                elements, so that these gradients are approximate (never chosen by "auto").
    microbatch  samples of a slice; "auto": the whole batch, or less where that is what fits. A
                network with batch statistics is never sliced by itself.
    density     the share of non-zeros expected in what may be packed, outputs of ReLU and max
                pools over them (or one for each tape value); with it bitmaps are among the
                choices. Under "topk", the share that is kept.
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
    if not (clip_norm is None or (is_number(clip_norm) and clip_norm > 0)):
        raise InputError(f"clip_norm is {clip_norm!r}; wants a number above 0")
    if isinstance(density, dict):
        density = {int(v): d for v, d in density.items()}  # a file has names for keys
    shares = list(density.values()) if isinstance(density, dict) else [density or 0.0]
    if not all(is_number(d) and 0 <= d <= 1 for d in shares):
        raise InputError(f"density is {density!r}; wants the share of non-zeros, 0 to 1")
    if policy == "topk" and isinstance(density, dict):
        raise InputError("policy 'topk' keeps one share of every value: give density=0.1")
    search = Search(record, optimizer, batch, policy, guard, clip_norm, density, spill)
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


def nominal(tape: Tape, density: float) -> dict[int, float]:
    """The density to plan for in each sparse value where nothing is known but a guess of what
    ReLU gives. Under a max pool, before or behind it, a window of k elements gives a non-zero
    unless all of them are zero: 1 - (1 - density)^k, were they independent. Neighbours are alike,
    so that measured shares are lower, but above `density`."""
    window: dict[int | None, int] = {}  # elements before pooling that one comes from
    for n in tape.nodes:
        x, v = n.ins[0] if n.ins else None, n.outs[0]
        if n.op == "max_pool2d":
            rows, columns = n.attrs["kernel_size"]
            window[v] = window.get(x, 1) * rows * columns
        elif n.op in GATES or OPS[n.op].view:
            window[v] = window.get(x, 1)
    return {
        v: 1 - (1 - density) ** window[v] if window[v] > 1 else density for v in sparse_values(tape)
    }


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
    tightest: dict[int, tuple[Trial, Plan]] = field(default_factory=dict)  # by slice size

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
                same = same_sums_as
                d = replace(d, weight_first=same.weight_first, segment=same.segment)
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
        if self.policy == "topk":
            share = topk.SHARE if self.density is None else self.density
            return {n.outs[0]: share for n in tape.nodes}  # type: ignore[misc]
        if self.density is None and self.policy != "bitmap":
            return {}
        if isinstance(self.density, dict):
            return self.density
        if self.density is None:
            return nominal(tape, DENSITY)
        return dict.fromkeys(sparse_values(tape), self.density)

    def within(self, ram: int | None, sizes: list[int]) -> Plan:
        """The cheapest plan found within `ram`; without one, the smallest found."""
        whole = self.solver(self.batch).trial(Decisions())
        assert whole is not None
        best = self._forced(ram, sizes)
        if ram is not None and not best[1].fits and self.policy not in FORCED:
            found = [self._fit(size, ram, sizes) for size in self._searched(sizes)]
            best = min((*found, best), key=lambda f: rank(f[0].work, f[1].arena_bytes, ram))
            if best[1].fits:
                best = self._larger(best, ram, sizes)
        _, plan = best
        work = work_of(plan.program, -(-self.batch // plan.microbatch), moves=False)
        plan.extra_macs_ratio = max(work / whole.work - 1, 0.0)
        plan.find_smallest = lambda: self.smallest(sizes)
        return plan

    def _forced(self, ram: int | None, sizes: list[int]) -> tuple[Trial, Plan]:
        """The decisions that the policy asks for (keep, where the solver is free), in the largest
        slices that fit: slices cost no work."""
        found = []
        for size in sizes:
            solver = self.solver(size)
            start = solver.start(self.policy)
            if self.policy in ("auto", "spill", *FORCED):
                trial = solver.trial(start)
                assert trial is not None
            else:  # what it is asked for is fewer bytes
                trial = solver.leanest(start)
            found.append((trial, self._plan(trial, size, ram)))
            if found[-1][1].fits:
                return found[-1]
        return min(found, key=lambda f: f[1].arena_bytes)

    def _searched(self, sizes: list[int]) -> list[int]:
        """The slice sizes that the solver looks at: under the same decisions the smallest slices
        need the fewest bytes; only the whole batch may need fewer, for want of accumulators."""
        alone = self.optimizer.accumulates and self.guard != "step" and self.clip_norm is None
        return list(dict.fromkeys(sizes[-1:] if alone else (sizes[-1], sizes[0])))

    def _fit(self, size: int, ram: int, sizes: list[int]) -> tuple[Trial, Plan]:
        """The best trial for one slice size, placed: the arena is the last check."""
        solver = self.solver(size)
        solver.lowerings //= len(self._searched(sizes))
        trial = solver.approach(ram)
        fallback = None
        if trial.peak > ram:  # the smallest was promised, so it must be found again
            fallback = trial, _ = self._tightest(size, ram)
            if len(trial.live) > solver.lowerings // LAPS:  # that search took all of the time
                return fallback
        target = ram
        for _ in range(ATTEMPTS):
            if trial.peak > target:
                break
            trial = solver.improve(trial, target)
            plan = self._plan(trial, size, ram)
            if plan.fits:
                return trial, plan
            target -= plan.arena_bytes - ram
        return fallback or self._tightest(size, ram)

    def _larger(self, best: tuple[Trial, Plan], ram: int | None, sizes: list[int]):
        """The same decisions in larger slices, if they still fit and cost no more."""
        trial, plan = best
        for size in sizes[: sizes.index(plan.microbatch)]:
            same = self.solver(size).trial(trial.decisions)
            if same is not None and same.work <= trial.work and same.peak <= (ram or same.peak):
                placed = self._plan(same, size, ram)
                if placed.fits:
                    return same, placed
        return best

    def _tightest(self, size: int, ram: int | None) -> tuple[Trial, Plan]:
        """The smallest plan found in slices of this size, whatever `ram` is."""
        if size not in self.tightest:
            trial = self.solver(size).tighten()
            self.tightest[size] = trial, self._plan(trial, size, 0)
        trial, plan = self.tightest[size]
        return trial, replace(plan, ram=ram)

    def _plan(self, trial: Trial, size: int, ram: int | None) -> Plan:
        plan = make_plan(trial.program, self.batch, ram)
        lighter = _without_idle_masks(trial)
        if lighter is not trial:
            other = make_plan(lighter.program, self.batch, ram)
            if other.arena_bytes <= plan.arena_bytes:
                trial, plan = lighter, other
        program = trial.program
        densities = self.densities(program.tape)
        plan.microbatch = size
        orders = program.orders  # a smaller last batch has these too, not its own defaults
        plan.decisions = replace(trial.decisions, densities=densities, weight_first=orders)
        if any(s.op == "bitmap_pack" for s in program.steps):
            self._guarantee(plan)
        return plan

    def _guarantee(self, plan: Plan) -> None:
        """Find the cheapest way without bitmaps, in the same order of sums, for slices that have
        more non-zeros than was planned. Its plan fits the same arena, or the arena grows."""
        d = plan.decisions
        solver = self.solver(plan.microbatch, d)
        packed = [v for v in plan.decisions.densities if d.policies.get(v) == "bitmap"]
        keep = solver.trial(d.with_policy(packed, "keep"))
        assert keep is not None
        best: tuple[tuple[int, int], Plan] | None = None
        for make in (  # it runs rarely: the first that fits will do
            lambda: keep,
            lambda: solver.trial(d.with_policy(packed, "recompute")),
            lambda: solver.leanest(solver.start("recompute")),
            lambda: solver.greedy(keep, plan.arena_bytes, solver.lowerings // 3),
            lambda: solver.solve(plan.arena_bytes),
        ):
            trial = make()
            if trial is None:
                continue
            other = make_plan(trial.program, self.batch, plan.arena_bytes, layout=plan.layout)
            score = rank(trial.work, other.arena_bytes, plan.arena_bytes)
            if best is None or score < best[0]:
                best = score, other
                plan.guaranteed = replace(
                    trial.decisions, weight_first=d.weight_first, segment=d.segment
                )
            if other.fits:
                break
        assert best is not None
        plan.arena_bytes = max(plan.arena_bytes, best[1].arena_bytes)

    def smallest(self, sizes: list[int]) -> int:
        """The smallest arena found, by tightening again and again."""
        least = self._forced(1, sizes)[1].arena_bytes
        if self.policy in FORCED:
            return least
        found = [self._tightest(size, None)[1].arena_bytes for size in self._searched(sizes)]
        return min(least, *found)


def _without_idle_masks(trial: Trial) -> Trial:
    """The trial without the masks that no gradient reads, for the gate's output is there; a lean
    node may make others for it. Not for a search, which would see one change less on its way."""
    program = trial.program
    read = {v for s in program.steps for v in s.reads()}
    made = [s.outs[0] for s in program.steps if s.op == "gate_mask"]
    idle = {program.stands_for[v] for v in made if v not in read}  # type: ignore[index]
    if not idle:
        return trial
    decisions = replace(trial.decisions, masks=trial.decisions.masks - idle)
    return replace(trial, decisions=decisions)
