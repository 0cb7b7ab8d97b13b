"""The gradient of every network of the zoo, whole, under every policy that serves it: along one
direction of all parameters, in float64, against a central difference of the loss.

The step is lowered exactly as a trainer's, decisions included, and run by the reference kernels.
"topk" is left out, for its gradients are approximate on purpose.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np

from tinytrain import budget, check, models, optim, report
from tinytrain.bench.machine import where_and_when
from tinytrain.errors import BudgetError, InputError
from tinytrain.freeze import Frozen, Recorder, defaults, sample_specs
from tinytrain.lower import Decisions, lower
from tinytrain.run import run_fresh
from tinytrain.tape import Tape

BATCH = 4  # of two, a batch norm of single pixels is all curvature
STEP = 1e-8  # of a unit direction: longer, and ReLUs change sides, or dead units come to life
MOST = 1e-5  # of relative error that is a right gradient; kinks cost the most
POLICIES: dict[str, dict[str, Any]] = {
    "keep": {"policy": "keep"},
    "recompute": {"policy": "recompute"},
    "bitmap": {"policy": "bitmap", "density": 0.9},
    "invert": {"policy": "invert"},
    "spill": {"policy": "spill", "spill": "none"},
    "auto": {"policy": "auto"},
}
HEAD = ("model", "parameters", *POLICIES)


class Sums(optim.SGD):
    """Adds gradients up from zero, and updates nothing."""

    def update(self, b: Any, p: int, g: int) -> None:
        pass


def run(
    data: str | None = None, json: bool = False, only: str | None = None, quick: bool = False
) -> dict[str, Any]:
    """Check every network (or those whose name contains `only`), print a table unless `json`;
    `quick` leaves out the solver, which takes longest."""
    rows: list[dict[str, Any]] = []
    for name in models.names():
        if only is None or only in name:
            begin = time.perf_counter()
            net = models.build(name)
            policies = [p for p in POLICIES if not (quick and p == "auto")]
            errors = {p: error(net, p) for p in policies}
            seconds = time.perf_counter() - begin
            count = net.count_parameters()
            rows.append({"model": name, "parameters": count, "errors": errors, "seconds": seconds})
            print(f"{name}: {errors}", file=sys.stderr, flush=True)
    if not json:
        cells = [(r["model"], r["parameters"], *map(_cell, r["errors"].values())) for r in rows]
        print(f"batch {BATCH}, relative errors; wrong above {MOST:.0e}")
        print(report.table(HEAD[: 2 + len(policies)], cells))
        print(f"\n{where_and_when()}")
    return {**where_and_when(), "batch": BATCH, "most": MOST, "models": rows}


def _cell(found: float | str) -> str:
    return found if isinstance(found, str) else f"{found:.1e}" + (" WRONG" if found > MOST else "")


def error(net: Any, policy: str, seed: int = 0) -> float | str:
    """The relative error of one directional derivative; words where the policy does not serve."""
    loss, _ = defaults(net, None, None)
    record = Recorder(net, sample_specs(net), loss)
    optimizer = Sums(momentum=0.9)
    try:
        decisions = _decisions(record, optimizer, POLICIES[policy])
    except (InputError, BudgetError) as refused:
        return str(refused).partition(":")[0].partition(";")[0][:40]
    frozen = record(BATCH)
    tape = doubled(frozen.tape)
    values = _values(frozen, tape, np.random.default_rng(seed))
    found = _gradients(tape, optimizer, decisions, values)
    ways = _direction(found, np.random.default_rng(seed + 1))
    slope = sum(float((found[v] * ways[v]).sum()) for v in found)
    forward = lower(tape)

    def along(t: float) -> float:
        moved = {v: a + t * ways[v] if v in ways else a for v, a in values.items()}
        return float(run_fresh(forward, moved)[tape.loss])  # type: ignore[index]

    measured = sum(c * along(k * STEP) for k, c in check.STENCIL) / STEP
    return abs(slope - measured) / max(abs(slope), abs(measured))


def _direction(found: dict[int, np.ndarray], rng: np.random.Generator) -> dict[int, np.ndarray]:
    """A random unit vector and the gradient's: along the random one alone a large network's slope
    is so small that rounding would be most of what is measured."""
    drawn = {v: rng.standard_normal(g.shape) for v, g in found.items()}
    ways = {}
    length, drawn_length = _norm(found), _norm(drawn)
    for v, g in found.items():
        ways[v] = g / (length or 1.0) + drawn[v] / drawn_length
    return ways


def _norm(arrays: dict[int, np.ndarray]) -> float:
    return float(np.sqrt(sum(float(np.square(a).sum()) for a in arrays.values())))


def _decisions(record: Recorder, optimizer: Any, given: dict[str, Any]) -> Decisions:
    """As a trainer's plan has them; "auto" where there is less than keep holds, by a quarter of
    what is no parameter."""

    def plan(ram: int | None) -> Any:
        more = {"ram": ram, "microbatch": BATCH, **given}
        return budget.choose(record.tape, optimizer, BATCH, **more)

    if given["policy"] != "auto":
        return plan(None).decisions
    keep = plan(None)
    return plan((3 * keep.arena_bytes + keep.persistent_bytes) // 4).decisions


def doubled(tape: Tape) -> Tape:
    """The same tape in float64."""

    def wide(value: Any) -> Any:
        return "float64" if value == "float32" else value

    specs = [replace(s, dtype=wide(s.dtype)) for s in tape.specs]
    nodes = [replace(n, attrs={k: wide(a) for k, a in n.attrs.items()}) for n in tape.nodes]
    return replace(tape, specs=specs, nodes=nodes)


def _values(frozen: Frozen, tape: Tape, rng: np.random.Generator) -> dict[int, np.ndarray]:
    """An array for every leaf of the tape: random inputs and targets, parameters as they start."""
    values: dict[int, np.ndarray] = {}
    for v, leaf in tape.leaves.items():
        spec = tape.specs[v]
        if leaf.kind in ("parameter", "state", "constant"):
            values[v] = np.array(frozen.leaves[v].data, spec.dtype)
        elif spec.is_float:
            values[v] = rng.standard_normal(spec.shape)
        else:
            values[v] = rng.integers(0, 2, spec.shape).astype(spec.dtype)
    return values


def _gradients(
    tape: Tape, optimizer: Any, decisions: Decisions, values: dict[int, np.ndarray]
) -> dict[int, np.ndarray]:
    """By parameter, as the lowered step adds them to a momentum of zero."""
    program = lower(tape, optimizer, decisions, guard=None)
    start = {v: a.copy() for v, a in values.items()}
    for v, leaf in program.leaves.items():
        if v not in start:
            start[v] = np.full(program.specs[v].shape, leaf.kind == "hyper", program.specs[v].dtype)
    made = run_fresh(program, start)
    last = {program.home[v]: v for s in program.steps for v in s.writes() if v in program.home}
    names = {leaf.name: v for v, leaf in tape.leaves.items() if leaf.trainable}
    return {
        names[program.leaves[leaf].name.removesuffix(".momentum")]: made[v]
        for leaf, v in last.items()
        if program.kinds[leaf] == "optimizer"
    }
