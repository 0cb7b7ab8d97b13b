"""How near the solver comes to the optimum on small networks, and how long it takes on the zoo.

Optimum: a mixed-integer program over the same steps (see `optimum.py`, which wants SciPy);
in-place, masks and the order of gradients are off in both, the batch is whole. Budgets go from
what keep needs down to the least peak that the MILP finds. Everything is shape-only.
"""

from __future__ import annotations

import importlib.util
import itertools
import time
from typing import Any

from tinytrain import BudgetError, losses, models, nn, optim, plan, report
from tinytrain.bench import optimum
from tinytrain.bench.machine import where_and_when
from tinytrain.freeze import Recorder, sample_specs
from tinytrain.lower import Decisions, lower
from tinytrain.solver import Solver, Trial, costs_of

SHARES = (0.8, 0.6, 0.4, 0.2, 0.1, 0.0)  # of the way from the least peak to keep's
SECONDS = 120.0  # that HiGHS may take for one budget
BATCH, FRACTIONS = 32, (0.5, 0.25)  # of what keep needs beyond parameters and optimizer state


def run(data: str | None = None, json: bool = False) -> dict[str, Any]:
    """Compare, plan the zoo, print the tables unless `json`, return the figures."""
    found: dict[str, Any] = {**where_and_when(), "optimum": [], "zoo": []}
    if importlib.util.find_spec("scipy") is None:
        found["optimum"] = None
        print("the optimum is left out: SciPy (HiGHS) is not installed") if not json else None
    else:
        for name in NETS:
            found["optimum"] += compare(name, SHARES, SECONDS)
        if not json:
            columns = ("net", "steps", "peak", "ours", "optimum", "proven bound", "above")
            print(report.table(columns, [_cells(r) for r in found["optimum"]]))
    found["zoo"] = [r for name in models.names() for r in _planned(name)]
    if not json:
        print(f"\nbatch {BATCH}, momentum; seconds of this processor")
        head = ("model", "ram", "arena", "slice", "extra work", "seconds")
        print(report.table(head, [_zoo_cells(r) for r in found["zoo"]]))
        print("; ".join(where_and_when().values()))
    return found


# ---------------------------------------------------------------------------- the optimum


def chain(depth: int, channels: int = 16) -> nn.Module:
    """So many 3x3 convolutions of one width, each with a ReLU."""
    widths = [3, *[channels] * depth]
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Conv2d(a, b, 3, padding=1, bias=False), nn.ReLU()]
    net = nn.Sequential(*layers, nn.GlobalAvgPool2d(), nn.Linear(channels, 10))
    net.input_shape = (16, 16, 3)
    return net


class TinyResNet(nn.Module):
    """A convolution and two residual blocks."""

    def __init__(self, channels: int = 16):
        self.first = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.blocks = nn.ModuleList(
            [nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(4)]
        )
        self.last = nn.Linear(channels, 10)
        self.input_shape = (16, 16, 3)

    def forward(self, x):
        x = self.first(x).relu()
        for k in (0, 2):
            y = self.blocks[k](x).relu()
            x = (x + self.blocks[k + 1](y)).relu()
        return self.last(x.mean((1, 2)))


NETS = {
    "chain of 3": (lambda: chain(3), 1),
    "chain of 4": (lambda: chain(4), 1),
    "chain of 6": (lambda: chain(6), 1),
    "tiny resnet": (TinyResNet, 1),
    "mlp": (lambda: models.build("mlp"), 8),
    "lenet5": (lambda: models.build("lenet5"), 2),
}


def solver_of(name: str) -> Solver:
    """The solver over one of `NETS`, plain SGD, with in-place, masks and orders off."""
    build, batch = NETS[name]
    with nn.seeded(0):
        net = build()
    tape = Recorder(net, sample_specs(net), losses.cross_entropy).tape(batch)
    sgd = optim.SGD(lr=0.1)
    return Solver(
        tape, lambda d: lower(tape, sgd, d, guard=None), inplace=False, orders=False, masks=False
    )


def compare(name: str, shares: tuple[float, ...], seconds: float) -> list[dict[str, Any]]:
    """The solver's work beside the optimum's at each share of the way to keep's peak, from the
    least peak there is (or, where that is not known in time, the least that the solver finds)."""
    keep = solver_of(name).trial(Decisions())
    assert keep is not None
    program, costs = keep.program, costs_of(keep.program)
    try:
        least = optimum.least_peak(program, costs, seconds).value
    except TimeoutError:
        least = solver_of(name).tighten().peak
    rows = []
    for share in shares:
        budget = int(least + share * (keep.peak - least)) + 1
        try:
            best = optimum.least_work(program, costs, budget, seconds)
        except TimeoutError:
            best = None
        rows.append(_row(name, keep, budget, solver_of(name).solve(budget), best))
    return rows


def _row(name: str, keep: Trial, budget: int, ours: Trial, best: optimum.Optimum | None) -> dict:
    return {
        "net": name,
        "steps": len(keep.live),
        "keep_peak_bytes": keep.peak,
        "budget_bytes": budget,
        "fits": ours.peak <= budget,
        "extra_macs_ratio": ours.work / keep.work - 1,
        "optimum_extra_macs_ratio": None if best is None else best.value / keep.work - 1,
        "bound_extra_macs_ratio": None if best is None else best.bound / keep.work - 1,
    }


def _cells(r: dict[str, Any]) -> tuple[Any, ...]:
    ours, best = r["extra_macs_ratio"], r["optimum_extra_macs_ratio"]
    return (
        *(r["net"], r["steps"], r["budget_bytes"]),
        f"{100 * ours:.1f} %" if r["fits"] else "does not fit",
        *(
            ("not found in time", "-", "-")
            if best is None
            else (
                f"{100 * best:.1f} %",
                f"{100 * r['bound_extra_macs_ratio']:.1f} %",
                f"{100 * (ours - best):.1f} %" if r["fits"] else "-",
            )
        ),
    )


# ---------------------------------------------------------------------------- the zoo


def _planned(name: str) -> list[dict[str, Any]]:
    """Plans of one zoo model in some budgets and in the smallest; seconds without the others'."""
    keep = plan(models.build(name), batch=BATCH, optimizer="momentum")
    begin = time.process_time()
    smallest = keep.smallest_ram_bytes
    rows = [{"model": name, "ram_bytes": smallest, "what": "smallest"}]
    rows[0]["seconds"] = time.process_time() - begin
    rest = keep.arena_bytes - keep.persistent_bytes
    for ram in (*(keep.persistent_bytes + int(f * rest) for f in FRACTIONS), smallest):
        begin = time.process_time()
        found: dict[str, Any]
        try:
            made = plan(models.build(name), batch=BATCH, optimizer="momentum", ram=ram)
            found = {
                "arena_bytes": made.arena_bytes,
                "microbatch": made.microbatch,
                "extra_macs_ratio": made.extra_macs_ratio,
            }
        except BudgetError as error:
            found = {"smallest_ram_bytes": error.smallest}
        seconds = time.process_time() - begin
        rows.append({"model": name, "ram_bytes": ram, **found, "seconds": seconds})
    return rows


def _zoo_cells(r: dict[str, Any]) -> tuple[Any, ...]:
    extra = r.get("extra_macs_ratio")
    return (
        *(r["model"], r["ram_bytes"], r.get("arena_bytes", r.get("what", "does not fit"))),
        r.get("microbatch", "-"),
        "-" if extra is None else f"{100 * extra:.1f} %",
        f"{r['seconds']:.1f}",
    )
