"""The solver: which residuals to keep, mask or recompute so that a step fits a budget cheaply.

Seeds (everything kept, every cheap value recomputed, k kept cuts), then greedy at the peak (the
most bytes freed there for each operation added, candidates from the largest buffers alive), then
pruning (undo the dearest decision while it still fits). Work is counted in lowerings, not in
seconds, so that plans do not differ by machine. Sources: Chen et al. 2016 for segments, Kumar et
al. 2019 and POET (Patil et al. 2022) for rematerialization under a budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tinytrain.errors import InputError
from tinytrain.lifetime import buffers_of, live_of
from tinytrain.lower import Decisions
from tinytrain.op import OPS
from tinytrain.plan import residuals
from tinytrain.stash import spill
from tinytrain.steps import TRANSFERS, Program
from tinytrain.tape import Node, Tape

GATES = ("relu", "relu6")  # a mask of one bit an element serves their gradient
DEAR = ("conv2d", "matmul")  # what recomputing it costs is worth a thought; the rest is cheap
# What makes the streams of a reversible network; the branches added to them are made again.
STREAM = ("add", "slice", "pad", "space_to_depth", "depth_to_space")
LOWERINGS = 200_000  # steps lowered in one search: some seconds
STARTS = 5  # seeds that are searched from, of those that fit and of those that do not
LARGEST = 12  # buffers alive at the peak that are looked at
TIGHTER = 0.98  # of the present peak: a target far away costs far more work
CUTS = (0, 1, 2, 3, 4, 6, 8, 12, 16)


@dataclass
class Trial:
    """A lowered program under some decisions: the bytes it needs at its peak, and its work."""

    decisions: Decisions
    program: Program
    live: list[int]
    work: int

    @property
    def peak(self) -> int:
        return max(self.live)

    def excess(self, budget: int) -> int:
        """Bytes above the budget, summed over the steps: tells whether a move helps even when
        there are several peaks."""
        return sum(n - budget for n in self.live if n > budget)


def work_of(program: Program, slices: int = 1, moves: bool = True) -> int:
    """Multiply-accumulates of the products, an operation for each element of all else, and, with
    `moves`, what the transfers to and from a spill file are worth."""
    specs, total = program.specs, 0
    begin, end = program.body or (0, len(program.steps))
    for k, s in enumerate(program.steps):
        work = program.macs_of(s.op, s.ins, s.outs, s.attrs)
        if s.op in TRANSFERS:
            work = 0
        if work is None:
            work = max((specs[v].size for v in s.outs if v is not None), default=0)
        total += work * slices if begin <= k < end else work
    return total + spill.price(program) * slices * moves


class Solver:
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
        lowerings: int = LOWERINGS,
        spills: frozenset[int] = frozenset(),
    ):
        self.tape, self.lower, self.slices, self.inplace = tape, lower, slices, inplace
        self.known: dict[tuple, Trial | None] = {}
        self.spent = 0
        self.producer = {n.outs[0]: k for k, n in enumerate(tape.nodes)}
        self.groups: dict[tuple, list[int]] = {}
        self.values = [
            n.outs[0]
            for n in tape.nodes
            if n.outs[0] != tape.loss and not OPS[n.op].view and n.op != "fill"
        ]

        for v in self.values:
            self.groups.setdefault(self._likeness(v), []).append(v)
        self.invertible = invertible(tape) & set(self.values)
        self.sparse = sparse  # values that a bitmap may be planned for
        self.spills = spills  # values that may go to the spill file
        self.lowerings = lowerings
        self.orders = orders  # whether the order of a node's gradients, and so of sums, may change

    def _likeness(self, v: int) -> tuple:
        """What values of repeated blocks have in common."""
        node, specs = self.tape.nodes[self.producer[v]], self.tape.specs
        ins = tuple(None if i is None else specs[i] for i in node.ins)
        return node.op, ins, tuple(node.attrs.items())

    # ------------------------------------------------------------------ trying

    def trial(self, decisions: Decisions) -> Trial | None:
        """The lowered program under these decisions; None where they need themselves."""
        key = (
            tuple(sorted(decisions.policies.items())),
            decisions.masks,
            tuple(sorted(decisions.weight_first.items())),
            decisions.lean,
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
        return Trial(decisions, program, live, work_of(program, self.slices))

    # ------------------------------------------------------------------ seeds

    def seeds(self) -> Iterator[Decisions]:
        """Starting points, the cheapest in work first."""
        yield Decisions()
        cheap = self.start("recompute")
        yield cheap
        joined = {v for v in cheap.policies if self._op(v) in ("add", "concat")}
        yield replace(cheap, policies={v: p for v, p in cheap.policies.items() if v not in joined})
        if self.invertible:
            yield self.start("invert")
        if self.sparse:
            yield self.start("bitmap")
        if self.spills:
            yield self.start("spill")
        cuts = self._cuts()
        for k in CUTS:
            if k <= len(cuts):
                kept = self._spread(cuts, k)
                rest = [v for v in self.values if v not in kept]
                yield Decisions(dict.fromkeys(rest, "recompute"))
                yield Decisions(dict.fromkeys(rest, "recompute_each"))

    def start(self, policy: str) -> Decisions:
        """The decisions that a policy forces: recompute takes all that is cheap to make again,
        invert all that can be had back, recomputing the rest but the ends of reversible chains."""
        if policy == "invert":
            if not self.invertible:
                raise InputError("policy 'invert': nothing in this network can be inverted")
            chosen = {
                v: "invert" if v in self.invertible else "recompute"
                for v in self.values
                if v in self.invertible or self._op(v) != "add"
            }
            # Statistics and indices too, or their few bytes would add up with depth.
            more = [
                o
                for v in list(chosen)
                if chosen[v] == "recompute"
                for o in self.tape.nodes[self.producer[v]].outs[1:]
            ]
            return Decisions({**chosen, **dict.fromkeys(more, "recompute")})
        if policy == "bitmap":
            return self._packed()
        if policy == "spill":
            keep = self.trial(Decisions())
            assert keep is not None
            read = residuals(keep.program, ("activation", "input", "label"))
            return Decisions(dict.fromkeys(sorted(read & self.spills), "spill"))
        if policy != "recompute":
            return Decisions()
        masks = frozenset(v for v in self.values if self._op(v) in GATES)
        cheap = [v for v in self.values if self._op(v) not in DEAR]
        return Decisions(dict.fromkeys(cheap, "recompute"), masks=masks)

    def _packed(self) -> Decisions:
        """A bitmap for each sparse value that backward reads; where that is its own gate alone,
        the mask."""
        keep = self.trial(Decisions())
        assert keep is not None
        readers: dict[int, set[str]] = {}
        for s in keep.program.steps:
            first = next(v for v in s.outs if v is not None)
            recorded = first < len(self.tape.specs)  # by the tape: a step of the forward pass
            if not recorded and s.op != "check_finite":
                for v in s.reads():
                    readers.setdefault(keep.program.root(v), set()).add(s.op)
        read = [v for v in self.values if v in self.sparse and v in readers]
        masks = {v for v in read if self._op(v) in GATES and readers[v] == {self._op(v) + "_vjp"}}
        return Decisions({v: "bitmap" for v in read if v not in masks}, masks=frozenset(masks))

    def _op(self, v: int) -> str:
        return self.tape.nodes[self.producer[v]].op

    def _cuts(self) -> list[int]:
        """Values that alone separate what comes before them from what comes after."""
        last: dict[int, int] = {}
        for k, n in enumerate(self.tape.nodes):
            last.update((v, k) for v in n.ins if v is not None)
        alive: set[int] = set()
        cuts = []
        for k, n in enumerate(self.tape.nodes):
            alive.add(n.outs[0])
            alive = {v for v in alive if last.get(v, -1) > k}
            if len(alive) == 1:
                cuts.append(next(iter(alive)))
        return [v for v in dict.fromkeys(cuts) if v in set(self.values)]

    def _spread(self, cuts: list[int], k: int) -> set[int]:
        """k cuts, evenly by the bytes of the forward pass before them."""
        sizes = {v: self.tape.specs[v].nbytes for v in self.values}
        marks = [sum(sizes.values()) * (i + 1) / (k + 1) for i in range(k)]
        seen, kept, wanted = 0, set(), set(cuts)
        for v in self.values:
            seen += sizes[v]
            if marks and seen >= marks[0] and v in wanted:
                kept.add(v)
                marks.pop(0)
        return kept

    # ------------------------------------------------------------------ moves

    def moves(self, trial: Trial) -> Iterator[Decisions]:
        """Changes to what is alive at the peak, one value (or one node's order) at a time."""
        peak = trial.live.index(trial.peak)
        d = trial.decisions
        buffers, _ = buffers_of(trial.program, self.inplace)
        alive = [b for b in buffers if b.first <= peak < b.end and not b.persistent]
        alive.sort(key=lambda b: (-b.nbytes, b.owner))
        seen: dict[int, None] = {}
        for b in alive[:LARGEST]:
            for _, v in b.values:
                seen[trial.program.stands_for.get(v, v)] = None
        for v in seen:
            if v in self.producer and v != self.tape.loss:
                yield from self._changes(d, v)
        near = self._nodes_near(trial, peak)
        for k in near:
            v = self.tape.nodes[k].outs[0]
            yield replace(d, lean=d.lean ^ {v})
            if v not in d.lean:
                yield replace(d, lean=d.lean | {*self.groups[self._likeness(v)]})
        for k in near if self.orders else ():
            yield replace(d, weight_first={**d.weight_first, k: not d.weight_first.get(k, False)})

    def _changes(self, d: Decisions, v: int) -> Iterator[Decisions]:
        """Other policies for v, and for all that are like it."""
        now = d.policies.get(v, "keep")
        alike = self.groups[self._likeness(v)]
        policies = ["keep", "recompute", "recompute_each"]
        if v in self.invertible:
            policies.append("invert")
            alike = [u for u in alike if u in self.invertible]
        if v in self.sparse:
            policies.append("bitmap")
            alike = [u for u in alike if u in self.sparse]
        if v in self.spills:
            policies.append("spill")
        for values in ([v], alike) if len(alike) > 1 else ([v],):
            for policy in policies:
                if policy != now:
                    yield with_policy(d, values, policy)
            if self._op(v) in GATES:
                yield replace(d, masks=d.masks ^ {*values})
                if now == "keep" and v not in d.masks:
                    yield replace(with_policy(d, values, "recompute"), masks=d.masks | {*values})

    def _nodes_near(self, trial: Trial, peak: int) -> list[int]:
        """Nodes whose two gradients are made around the peak."""
        found = []
        for s in trial.program.steps[max(0, peak - 3) : peak + 4]:
            if OPS[s.op].macs is not None:
                seen = {trial.program.stands_for.get(v, v) for v in (*s.reads(), *s.writes())}
                for k, n in enumerate(self.tape.nodes):
                    if n.op in DEAR and seen & {*n.ins, *n.outs}:
                        found.append(k)
        return list(dict.fromkeys(found))

    # ------------------------------------------------------------------ searching

    def solve(self, budget: int) -> Trial:
        """The cheapest trial found whose peak is within the budget, else the one with the lowest
        peak."""
        trials = [t for t in map(self.trial, self.seeds()) if t is not None]
        trials.sort(key=lambda t: _rank(t, budget))
        fitting = [t for t in trials if t.peak <= budget][:STARTS]
        # What does not fit yet may do so after a few moves, from where it is cheap or nearly does.
        others = sorted((t for t in trials if t.peak > budget), key=lambda t: t.work)[:STARTS]
        best = trials[0]
        for trial in (*fitting, *others, *([] if fitting else trials[:1])):
            trial = self.prune(self.greedy(trial, budget), budget)
            if _rank(trial, budget) < _rank(best, budget):
                best = trial
        return best

    def tighten(self) -> Trial:
        """The lowest peak found: chase a little less than the present one, again and again."""
        trials = [t for t in map(self.trial, self.seeds()) if t is not None]
        trial = min(trials, key=lambda t: (t.peak, t.work))
        limit = self.spent + 2 * self.lowerings
        while self.spent < limit:
            tried = self.greedy(trial, int(trial.peak * TIGHTER))
            if tried.peak >= trial.peak:
                break
            trial = tried
        return trial

    def greedy(self, trial: Trial, budget: int) -> Trial:
        """Take the best move at the peak again and again."""
        limit = self.spent + self.lowerings // (2 * STARTS)
        while trial.peak > budget and self.spent < limit:
            excess, best, most = trial.excess(budget), None, 0.0
            for decisions in self.moves(trial):
                tried = self.trial(decisions)
                if tried is None:
                    continue
                gain = excess - tried.excess(budget)
                score = gain / (max(tried.work - trial.work, 0) + 1 + trial.work // 10_000)
                if gain > 0 and score > most:
                    best, most = tried, score
            if best is None:
                break
            trial = best
        return trial

    def prune(self, trial: Trial, budget: int) -> Trial:
        """Undo decisions that cost work, the dearest first, while the peak stays within."""
        limit = self.spent + self.lowerings // (2 * STARTS)
        changed = trial.peak <= budget
        while changed and self.spent < limit:
            changed = False
            chosen = [v for v in trial.decisions.policies if v in self.producer]
            price = {v: self._price(v, trial.program) for v in chosen}
            for v in sorted(chosen, key=price.__getitem__, reverse=True):
                if trial.decisions.policies[v] == "keep" or self.spent >= limit:
                    continue
                for policy in ("keep", "recompute"):
                    tried = self.trial(with_policy(trial.decisions, [v], policy))
                    if tried and tried.peak <= budget and tried.work < trial.work:
                        trial, changed = tried, True
                        break
        return trial

    def _price(self, v: int, program: Program) -> int:
        """What making v again costs."""
        n = self.tape.nodes[self.producer[v]]
        return program.macs_of(n.op, n.ins, n.outs, n.attrs) or program.specs[v].size


def spillable(tape: Tape) -> frozenset[int]:
    """Values that are large enough to be spilled; a network's inputs are among them."""
    inputs = [v for v, leaf in tape.leaves.items() if leaf.kind in ("input", "label")]
    made = [v for n in tape.nodes if not OPS[n.op].view for v in n.outs]
    large = (v for v in (*inputs, *made) if tape.specs[v].nbytes >= spill.SMALLEST)
    return frozenset(v for v in large if v != tape.loss)


def sparse_values(tape: Tape) -> list[int]:
    """Outputs of gates, and of max pooling over these: what is mostly zero after a ReLU."""
    found: dict[int, bool] = {}  # and whether it is a value of its own, not a view
    for n in tape.nodes:
        passes = OPS[n.op].view or n.op == "max_pool2d"
        if n.op in GATES or (passes and n.ins[0] in found):
            found[n.outs[0]] = not OPS[n.op].view
    return [v for v, owns in found.items() if owns]


def invertible(tape: Tape) -> set[int]:
    """Values that their last invertible reader gives back without asking for them again, if what
    sums make on the way there is kept or inverted in its turn."""
    last: dict[int, tuple[Node, int]] = {}
    for node in tape.nodes:
        for i, v in enumerate(node.ins):
            if v is not None and OPS[node.op].inverse_of(i) is not None:
                last[v] = node, i
    producer = {o: n for n in tape.nodes for o in n.outs}
    found: set[int] = set()
    for v, (node, i) in last.items():
        same = tape.specs[node.outs[0]].size == tape.specs[v].size  # not broadcast
        others = [u for k, u in enumerate(node.ins) if k != i]
        stream = v in producer and producer[v].op in STREAM
        if same and stream and not found & {*others} and not _asks_for(v, others, producer):
            found.add(v)
    return found


def _asks_for(v: int, values: list[int | None], producer: dict[int, Node]) -> bool:
    """Whether making `values` again comes upon v, sums not being made again."""
    todo, seen = list(values), set()
    while todo:
        u = todo.pop()
        if u == v:
            return True
        if u in producer and u not in seen and producer[u].op != "add":
            seen.add(u)
            todo += producer[u].ins
    return False


def with_policy(d: Decisions, values: list[int], policy: str) -> Decisions:
    """d with another policy for these values."""
    return replace(d, policies={**d.policies, **dict.fromkeys(values, policy)})


def rank(work: int, peak: int, budget: int | None) -> tuple[int, int]:
    """What fits by its work, before what does not by its peak."""
    return (0, work) if budget is None or peak <= budget else (1, peak)


def _rank(trial: Trial, budget: int) -> tuple[int, int]:
    return rank(trial.work, trial.peak, budget)
