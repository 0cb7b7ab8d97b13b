"""The solver: which residuals to keep, mask or recompute so that a step fits a budget cheaply.

Seeds (everything kept, every cheap value recomputed, k kept cuts), then greedy at the peak (the
most bytes freed there for each operation added, candidates from the largest buffers alive), then
pruning (undo the dearest decision while it still fits), then annealing. Effort is counted in steps
lowered, never in seconds, so that plans do not differ by machine. Sources: Chen et al. 2016 for
segments, Kumar et al. 2019 and POET (Patil et al. 2022) for rematerialization under a budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from tinytrain.anneal import anneal
from tinytrain.lifetime import buffers_of, live_of
from tinytrain.lower import Decisions
from tinytrain.op import OPS
from tinytrain.rewrite import GATES
from tinytrain.seeds import Seeds
from tinytrain.stash import spill
from tinytrain.steps import TRANSFERS, Program
from tinytrain.tape import Tape

LOWERINGS = 180_000  # steps lowered in one search, several of which make a plan: some seconds
STARTS = 5  # seeds that are searched from, of those that fit and of those that do not
LARGEST = 12  # buffers alive at the peak that are looked at
TIGHTER = 0.98  # of the present peak: a target far away costs far more work
WALKS = (4, 8, 8, 8)  # annealings one after the other: shares of the search, own draws
AGAIN = ("recompute", "recompute_near", "recompute_each")  # the more work, the fewer bytes
DEEPEST = 30_000  # clones that one seed may make, by a rough count, where bytes alone matter
DEEP = 600  # steps from which on repeated blocks are decided together first


@dataclass
class Trial:
    """Decisions, the bytes alive at each step under them, and their work. The program itself is
    lowered anew when asked for: thousands of trials are remembered."""

    decisions: Decisions
    lower: Callable[[Decisions], Program]
    live: list[int]
    work: int

    @property
    def program(self) -> Program:
        return self.lower(self.decisions)

    @property
    def peak(self) -> int:
        return max(self.live)

    def excess(self, budget: int) -> int:
        """Bytes above the budget, summed over the steps: tells whether a move helps even when
        there are several peaks."""
        return sum(n - budget for n in self.live if n > budget)


def costs_of(program: Program) -> list[int]:
    """The work of each step once: multiply-accumulates of a product; of all else, an operation
    for each element that it makes."""
    specs, costs = program.specs, []
    for s in program.steps:
        work = program.macs_of(s.op, s.ins, s.outs, s.attrs)
        if s.op in TRANSFERS:
            work = 0
        if work is None:
            work = max([specs[v].size for v in s.outs if v is not None], default=0)
        costs.append(work)
    return costs


def work_of(program: Program, slices: int = 1, moves: bool = True) -> int:
    """The work of a batch, of which the body is run once for each slice; with `moves` also what
    the transfers to and from a spill file are worth."""
    costs = costs_of(program)
    begin, end = program.body or (0, len(costs))
    total = sum(costs) + (slices - 1) * sum(costs[begin:end])
    return total + spill.price(program) * slices * moves


class Solver(Seeds):
    """Searches the decisions for one tape. `lower(decisions)` gives the program, of which
    `slices` make a batch."""

    def __init__(
        self,
        tape: Tape,
        lower: Callable[[Decisions], Program],
        slices: int = 1,
        inplace: bool = True,
        sparse: frozenset[int] = frozenset(),
        orders: bool = True,
        masks: bool = True,
        lowerings: int = LOWERINGS,
        spills: frozenset[int] = frozenset(),
    ):
        super().__init__(tape, sparse, spills, orders, masks)
        self.lower, self.slices, self.inplace = lower, slices, inplace
        self.known: dict[tuple, Trial | None] = {}
        self.spent = 0
        self.lowerings = lowerings

    # ------------------------------------------------------------------ trying

    def trial(self, decisions: Decisions) -> Trial | None:
        """The lowered program under these decisions; None where they need themselves."""
        key = (
            tuple(sorted(decisions.policies.items())),
            decisions.masks,
            tuple(sorted(decisions.weight_first.items())),
            decisions.lean,
            decisions.segment,
        )
        if key not in self.known:
            self.known[key] = self._trial(decisions)
        return self.known[key]

    def _trial(self, decisions: Decisions) -> Trial | None:
        try:
            program = self.lower(decisions)
        except RecursionError:
            return None
        self.spent += len(program.steps)
        live = live_of(program, self.inplace)
        return Trial(decisions, self.lower, live, work_of(program, self.slices))

    def kept(self) -> Program:
        keep = self.trial(Decisions())
        assert keep is not None
        return keep.program

    # ------------------------------------------------------------------ moves

    def moves(self, trial: Trial, program: Program, together: bool) -> Iterator[Decisions]:
        """Changes to what is alive at the peak: of all values that are alike, or of one value (or
        one node's order) at a time."""
        peak = trial.live.index(trial.peak)
        d = trial.decisions
        buffers, _ = buffers_of(program, self.inplace)
        alive = [b for b in buffers if b.first <= peak < b.end and not b.persistent]
        alive.sort(key=lambda b: (-b.nbytes, b.owner))
        seen: dict[int, None] = {}
        for b in alive[:LARGEST]:
            for _, v in b.values:
                seen[program.stands_for.get(v, v)] = None
        for v in seen:
            if v in self.producer and v != self.tape.loss:
                alike = self.alike(v)
                if not together or len(alike) > 1:
                    yield from self.changes(d, alike if together else [v])
            elif v in self.indices:
                now = d.policies.get(v, "keep")
                yield d.with_policy([v], "keep" if now == "bitmap" else "bitmap")
            elif v in self.spills:  # an input
                now = d.policies.get(v, "keep")
                yield d.with_policy([v], "keep" if now == "spill" else "spill")
        near = self._products_near(program, peak)
        for v in near if self.masks else ():
            yield d.flipped(self.alike(v) if together else [v])
        for v in near if self.orders and not together else ():
            yield d.turned(v)

    def changes(self, d: Decisions, values: list[int]) -> Iterator[Decisions]:
        """Other policies for these values, which are alike."""
        v = values[0]
        now = [d.policies.get(u, "keep") for u in values]
        policies = ["keep", *AGAIN]
        if not self.invertible.isdisjoint(values):
            policies.append("invert")
        if not self.sparse.isdisjoint(values):
            policies.append("bitmap")
        if {*now} == {"keep"}:
            policies.remove("recompute_near")  # one step down at a time, or to the end
        if not self.spills.isdisjoint(values):
            policies.append("spill")
        able = {"invert": self.invertible, "bitmap": self.sparse, "spill": self.spills}
        for policy in policies:
            chosen = [u for u in values if u in able.get(policy, values)]
            if any(d.policies.get(u, "keep") != policy for u in chosen):
                yield d.with_policy(chosen, policy)
        if self._op(v) in GATES and self.masks:
            yield replace(d, masks=d.masks ^ {*values})
            if "keep" in now and d.masks.isdisjoint(values):
                yield replace(d.with_policy(values, "recompute"), masks=d.masks | {*values})

    def leanest(self, d: Decisions) -> Trial:
        """The lowest peak under these decisions with no product lean, with those whose weights
        are smaller than what they read, or with all."""
        light = frozenset(v for v in self.dear if self._is_light(v))
        leans = (d.lean, light, frozenset(self.dear))
        tried = [self.trial(replace(d, lean=lean)) for lean in leans]
        return min((t for t in tried if t is not None), key=lambda t: t.peak)

    def _is_light(self, v: int) -> bool:
        """Whether the weights of the product v are smaller than what they are multiplied with."""
        x, w = self.tape.nodes[self.producer[v]].ins[:2]
        specs = self.tape.specs
        return x is not None and w is not None and specs[w].nbytes < specs[x].nbytes

    def _products_near(self, program: Program, peak: int) -> list[int]:
        """Outputs of products that run, or whose gradients are made, around the peak."""
        found = []
        for s in program.steps[max(0, peak - 3) : peak + 4]:
            if OPS[s.op].macs is not None:
                seen = {program.stands_for.get(v, v) for v in (*s.reads(), *s.writes())}
                nodes = (self.tape.nodes[self.producer[v]] for v in self.dear)
                found += [n.outs[0] for n in nodes if seen & {*n.ins, *n.outs}]
        return list(dict.fromkeys(found))

    # ------------------------------------------------------------------ searching

    def solve(self, budget: int) -> Trial:
        """The cheapest trial found whose peak is within the budget, else the one with the lowest
        peak."""
        return self.improve(self.approach(budget), budget)

    def approach(self, budget: int) -> Trial:
        """The best trial that greedy and pruning reach from the seeds."""
        trials = self._started()
        best = min(trials, key=lambda t: _rank(t, budget))
        fitting = sorted((t for t in trials if t.peak <= budget), key=lambda t: t.work)
        # What does not fit yet may do so after a few moves, from where it is cheap or nearly does.
        others = sorted((t for t in trials if t.peak > budget), key=lambda t: t.work)
        nearly = sorted(others, key=lambda t: t.peak)
        # Much recomputed and then pruned is another way to the same end.
        fitting = fitting[: STARTS - 2] + fitting[STARTS - 2 :][-2:]
        starts = (*fitting, *others[:STARTS], *nearly[: STARTS // 2])
        limit = self.spent + self.lowerings
        for trial in {id(t): t for t in starts}.values():
            dearer = best.peak <= budget < trial.peak and trial.work >= best.work
            if dearer or self.spent >= limit:
                continue
            found = self._descend(trial, budget, self.lowerings // (2 * STARTS))
            best = min(best, found, key=lambda t: _rank(t, budget))
        return best

    def improve(self, trial: Trial, budget: int) -> Trial:
        """Descent from a trial, annealing, and what can be undone after it; never worse."""
        trial = self._descend(trial, budget, self.lowerings // (2 * STARTS))
        for walk, share in enumerate(WALKS):
            trial = anneal(self, trial, budget, self.lowerings // share, walk)
            trial = self.prune(trial, budget, self.lowerings // (2 * share))
        return trial

    def _descend(self, trial: Trial, budget: int, lowerings: int) -> Trial:
        """Greedy until it fits, then pruned; each may lower so many steps."""
        return self.prune(self.greedy(trial, budget, lowerings), budget, lowerings)

    def _started(self, clones: int = 0) -> list[Trial]:
        return [t for t in map(self.trial, self.seeds(clones)) if t is not None]

    def tighten(self) -> Trial:
        """The lowest peak found: chase a little less than the present one, again and again."""
        limit = self.spent + self.lowerings
        trial = min(self._started(DEEPEST), key=lambda t: (t.peak, t.work))
        while self.spent < limit:
            tried = self.greedy(trial, int(trial.peak * TIGHTER), limit - self.spent)
            if tried.peak >= trial.peak:
                break
            trial = tried
        return anneal(self, trial, 0, self.lowerings // 3)

    def greedy(self, trial: Trial, budget: int, lowerings: int) -> Trial:
        """Take the best move at the peak again and again."""
        limit = self.spent + lowerings
        while trial.peak > budget and self.spent < limit:
            program, best = trial.program, None
            if len(trial.live) > DEEP:
                best = self._best(trial, self.moves(trial, program, True), budget, limit)
            if best is None:
                every = [*self.moves(trial, program, False)]
                if len(trial.live) <= DEEP:
                    every += self.moves(trial, program, True)
                best = self._best(trial, every, budget, limit)
            if best is None:
                break
            trial = best
        return trial

    def _best(
        self, trial: Trial, moves: Iterable[Decisions], budget: int, limit: int
    ) -> Trial | None:
        """Of these, the one that frees most above the budget for the work that it adds; of those
        that may still be looked at."""
        excess, best, most = trial.excess(budget), None, 0.0
        for tried in map(self.trial, moves):
            if self.spent >= limit:
                break
            if tried is None:
                continue
            gain = excess - tried.excess(budget)
            score = gain / (max(tried.work - trial.work, 0) + 1 + trial.work // 10_000)
            if gain > 0 and score > most:
                best, most = tried, score
        return best

    def prune(self, trial: Trial, budget: int, lowerings: int) -> Trial:
        """Undo decisions that cost work, the dearest first, while the peak stays within; in deep
        programs those that are alike together first."""
        limit = self.spent + lowerings
        changed = trial.peak <= budget
        while changed and self.spent < limit:
            changed = False
            program = trial.program
            chosen = [v for v, p in trial.decisions.policies.items() if v in self.producer]
            chosen.sort(key=lambda v: (-self._price(v, program), v))
            sets = [[v] for v in chosen]
            if len(trial.live) > DEEP:
                alike = {g[0]: g for g in map(self.alike, chosen)}
                sets = [g for g in alike.values() if len(g) > 1] + sets
            for values in sets:
                if self.spent >= limit:
                    break
                better = self._cheaper(trial, values, budget)
                if better is not None:
                    trial, changed = better, True
        return trial

    def _cheaper(self, trial: Trial, values: list[int], budget: int) -> Trial | None:
        """These values kept, or recomputed once, if that fits and costs less."""
        policies = {trial.decisions.policies.get(v, "keep") for v in values}
        for policy in ("keep", "recompute", "recompute_near"):
            if policies == {policy}:
                break
            tried = self.trial(trial.decisions.with_policy(values, policy))
            if tried and tried.peak <= budget and tried.work < trial.work:
                return tried
        return None

    def _price(self, v: int, program: Program) -> int:
        """What making v again costs."""
        n = self.tape.nodes[self.producer[v]]
        return program.macs_of(n.op, n.ins, n.outs, n.attrs) or program.specs[v].size


def rank(work: int, peak: int, budget: int | None) -> tuple[int, int]:
    """What fits by its work, before what does not by its peak."""
    return (0, work) if budget is None or peak <= budget else (1, peak)


def _rank(trial: Trial, budget: int) -> tuple[int, int]:
    return rank(trial.work, trial.peak, budget)
