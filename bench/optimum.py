"""The least work of a training step within a peak, by mixed-integer programming; no plan comes out.

Checkmate (Jain et al. 2020) over the steps of keep's program: in the stage of each step, any
earlier forward step may be run again, in program order, and any forward value may be carried over
to the next stage. What is counted is what `lifetime.live_of(program, inplace=False)` counts: during
a step its inputs, outputs and scratch are alive, views and values with a home take no bytes. The
backward pass keeps its order, and a forward step with several outputs runs once. Masks, slices and
in-place have to be left out of what it is compared with. SciPy's HiGHS solves it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tinytrain.lifetime import PERSISTENT
from tinytrain.steps import Program

GAP = 2e-3  # of the work, or the peak: nearer is not asked for
KILO = 1024.0  # bytes are counted in these: HiGHS wants coefficients of one size


@dataclass(frozen=True)
class Optimum:
    """Work or peak (as asked) that was found, and the proven bound below any other."""

    value: float
    bound: float

    @property
    def proven(self) -> bool:
        """Whether nothing better exists, but for the gap."""
        return self.value - self.bound <= 1.01 * GAP * self.value


class _Graph:
    """Keep's program as the MILP sees it. A value is named by its root."""

    def __init__(self, program: Program, costs: list[int]):
        roots, leaves = program.roots(), program.leaves
        self.costs, self.total = costs, len(program.steps)
        tape_values = range(len(program.tape.specs))
        self.maker: dict[int, int] = {}
        self.sizes: dict[int, int] = {}
        self.reads: list[list[int]] = []
        self.scratch = [sum(program.specs[v].nbytes for v in s.work) for s in program.steps]
        last: dict[int, int] = {}
        born = {v: 0 for v in leaves if program.kinds[v] not in PERSISTENT}
        for k, s in enumerate(program.steps):
            self.reads.append(sorted({roots[v] for v in s.reads()}))
            for v in self.reads[k]:
                last[v] = k
            for made in s.outs:
                if made is not None and made not in program.home:
                    born[made] = last[made] = k
                    self.maker[made] = k
        last.update((roots[v], self.total - 1) for v in program.kept)
        # Carried over as the program decides: inputs and what the forward pass makes.
        self.free = [v for v in born if v in tape_values and v not in program.kept]
        self.sizes = {v: program.specs[v].nbytes for v in born}
        fixed = [v for v in born if v not in set(self.free)]
        self.before = [0] * self.total  # fixed bytes alive in front of a step, and made by it
        self.made = [0] * self.total
        for v in fixed:
            for t in range(born[v] + (v in self.maker), last.get(v, 0) + 1):
                self.before[t] += self.sizes[v]
            if v in self.maker:
                self.made[born[v]] += self.sizes[v]
        self.persistent = sum(program.specs[v].nbytes for v in leaves if v not in born)
        self.again = self._repeatable(program)
        self.backward = 1 + max(self.maker[v] for v in self.maker if v in tape_values)
        self.reads = [[v for v in r if v in set(self.free)] for r in self.reads]
        self.readers: dict[int, list[int]] = {v: [] for v in self.free}
        for k, r in enumerate(self.reads):
            for v in r:
                self.readers[v].append(k)

    def _repeatable(self, program: Program) -> dict[int, tuple[int, int]]:
        """Steps that may be run again, what they make, and the last step they may precede: what
        they read of parameters must not have changed."""
        written: dict[int, int] = {}
        for k, s in enumerate(program.steps):
            for made in s.outs:
                if made in program.home:
                    written.setdefault(program.home[made], k)
        free, found = set(self.free), {}
        for k, s in enumerate(program.steps):
            if len(s.outs) == 1 and s.outs[0] in free:
                before = min(written.get(v, self.total) for v in (*s.reads(), -1))
                found[k] = s.outs[0], before
        return found


class _Model:
    """Rows and columns of the MILP, by name."""

    def __init__(self) -> None:
        self.columns: dict[tuple, int] = {}
        self.lower: list[float] = []
        self.upper: list[float] = []
        self.integer: list[int] = []
        self.rows: list[tuple[list[tuple[int, float]], float]] = []

    def column(self, name: tuple, upper: float, integer: bool, lower: float = 0.0) -> None:
        """A variable of `lower` to `upper`."""
        self.columns[name] = len(self.upper)
        self.lower.append(lower)
        self.upper.append(upper)
        self.integer.append(int(integer))

    def at_most(self, terms: dict[tuple, float], limit: float) -> None:
        """sum of terms <= limit; a name without a column counts as 0."""
        known = [(self.columns[n], c) for n, c in terms.items() if n in self.columns]
        self.rows.append((known, limit))

    def minimise(self, costs: dict[tuple, float], seconds: float) -> Optimum | None:
        """None where nothing is feasible; TimeoutError where that is not known in time."""
        import numpy as np
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_array

        where = [(r, c, x) for r, (terms, _) in enumerate(self.rows) for c, x in terms]
        r, c, x = (np.array(part) for part in zip(*where, strict=True))
        objective = np.zeros(len(self.upper))
        for name, cost in costs.items():
            objective[self.columns[name]] = cost
        found = milp(
            objective,
            integrality=np.array(self.integer),
            bounds=Bounds(np.array(self.lower), np.array(self.upper)),
            constraints=LinearConstraint(
                csr_array((x, (r, c)), shape=(len(self.rows), len(self.upper))),
                -np.inf,
                np.array([limit for _, limit in self.rows]),
            ),
            options={"time_limit": seconds, "mip_rel_gap": GAP},
        )
        if found.status == 2:
            return None
        if found.x is None:
            raise TimeoutError(f"HiGHS: {found.message}")
        return Optimum(float(found.fun), float(found.mip_dual_bound))


def least_work(
    program: Program, costs: list[int], budget: int, seconds: float = 60.0
) -> Optimum | None:
    """The work of a step at a peak of at most `budget` bytes; None where nothing fits.

    program  keep's. costs: the work of each of its steps.
    """
    graph = _Graph(program, costs)
    model, scale = _model(graph, budget), max(costs)
    model.column(("once",), 1.0, False, lower=1.0)
    again = {(t, k) for t in range(graph.total) for k in _sequence(graph, t)}
    prices = {("run", t, k): costs[k] / scale for t, k in again}
    found = model.minimise({**prices, ("once",): sum(costs) / scale}, seconds)
    return found and Optimum(found.value * scale, found.bound * scale)


def least_peak(program: Program, costs: list[int], seconds: float = 60.0) -> Optimum:
    """The smallest budget, in bytes, that anything fits in."""
    graph = _Graph(program, costs)
    found = _model(graph, None).minimise({("peak",): 1.0}, seconds)
    assert found is not None
    return Optimum(found.value * KILO, found.bound * KILO)


def _sequence(graph: _Graph, t: int) -> Iterator[int]:
    """The steps that may be run again in front of step t."""
    if t < graph.backward:
        return iter(())
    return (k for k, (_, before) in graph.again.items() if k < t <= before)


def _model(graph: _Graph, budget: int | None) -> _Model:
    """("run", t, k): step k is run again in the stage of step t. ("hold", t, v): v is carried into
    stage t. ("free", t, v, k): v dies behind k. ("used", t, k): KiB behind k. ("peak",): KiB."""
    model = _Model()
    limit = float("inf") if budget is None else budget / KILO
    model.column(("peak",), limit, False)
    for t in range(graph.total):
        for v in graph.free:
            if graph.maker.get(v, -1) < t:
                model.column(("hold", t, v), 1, True)
        for k in _sequence(graph, t):
            model.column(("run", t, k), 1, True)
    for t in range(graph.total):
        _stage(graph, model, t)
    return model


def _stage(graph: _Graph, model: _Model, t: int) -> None:
    """What stage t needs, what it hands on, and its bytes."""
    runs = list(_sequence(graph, t))

    def run(v: int) -> tuple:
        return "run", t, graph.maker.get(v, -1)

    for k in (*runs, t):
        for v in graph.reads[k]:
            need = {("hold", t, v): -1.0, run(v): -1.0}
            model.at_most(need if k == t else {("run", t, k): 1.0, **need}, -1.0 if k == t else 0)
    for v in graph.free:
        made = 1.0 if graph.maker.get(v) == t else 0.0
        model.at_most({("hold", t + 1, v): 1.0, ("hold", t, v): -1.0, run(v): -1.0}, made)
    fixed = (graph.before[t] + graph.persistent) / KILO
    now: dict[tuple, float] = {("hold", t, v): graph.sizes[v] / KILO for v in graph.free}
    for k in runs:  # what they make and free; the step itself frees nothing that counts here
        own, level = graph.again[k][0], ("used", t, k)
        size, scratch = graph.sizes[own] / KILO, graph.scratch[k] / KILO
        model.column(level, float("inf"), False)
        model.at_most({**now, ("run", t, k): size, level: -1.0}, -fixed)
        model.at_most({level: 1.0, ("run", t, k): scratch, ("peak",): -1.0}, 0.0)
        now, fixed = {level: 1.0}, 0.0
        for v in (own, *graph.reads[k]):
            now |= _death(graph, model, t, v, k)
    own_size = sum(graph.sizes[v] for v in graph.free if graph.maker.get(v) == t)
    more = (own_size + graph.made[t] + graph.scratch[t]) / KILO
    model.at_most({**now, ("peak",): -1.0}, -fixed - more)


def _death(graph: _Graph, model: _Model, t: int, v: int, k: int) -> dict[tuple, float]:
    """Whether v's bytes are free once step k has been run again in stage t: nobody in the stage
    reads it behind k, and it is not handed on. The rest decides it: no integer is asked for."""
    if t in graph.readers[v]:
        return {}
    name = ("free", t, v, k)
    model.column(name, 1.0, False)
    model.at_most({name: 1.0, ("run", t, k): -1.0}, 0.0)
    for taken in (("hold", t + 1, v), *(("run", t, j) for j in graph.readers[v] if j > k)):
        model.at_most({name: 1.0, taken: 1.0}, 1.0)
    return {name: -graph.sizes[v] / KILO}
