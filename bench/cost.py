"""What saving memory costs in time: steps under a policy beside the same steps under keep.

Both take turns in one process, one thread, timed by the process' own clock; a ratio is of the same
round, the median and quartiles of all rounds. Random data, densities measured on it.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tinytrain import Trainer, models, optim, report
from tinytrain.bench.machine import where_and_when
from tinytrain.bench.speed import quartiles
from tinytrain.bench.speed_turns import turn
from tinytrain.errors import InputError

ROUNDS, TURN = 15, 0.02
BACKENDS = ("c", "numba")
INSIDE = ("activations", "stash", "workspace")


class Case(NamedTuple):
    """`under` against `beside`, both arguments of Trainer; `goal` by backend: the most time of
    a step of `beside`, or None where the plan's extra work predicts it."""

    name: str
    net: str
    options: dict[str, Any]
    beside: dict[str, Any]
    under: dict[str, Any]
    goal: dict[str, float] | None


GROUP, KEEP = {"norm": "group"}, {"policy": "keep"}
CASES = (
    Case(
        *("resnet8, 32 slices of 1", "resnet8", GROUP, {**KEEP, "microbatch": 32}),
        *({**KEEP, "microbatch": 1}, {"c": 1.1, "numba": 1.1}),
    ),
    Case(
        *("lenet5, 32 slices of 1", "lenet5", {}, {**KEEP, "microbatch": 32}),
        *({**KEEP, "microbatch": 1}, {"c": 1.1, "numba": 1.1}),
    ),
    *(
        Case(f"{net}, bitmap", net, {}, KEEP, {"policy": "bitmap", "density": 0.5}, bitmap)
        for net in ("resnet8", "vgg6")
        for bitmap in [{"c": 1 / (1 - 0.04), "numba": 1 / (1 - 0.12)}]
    ),
    *(
        Case(f"{net}, recompute", net, {}, KEEP, {"policy": "recompute"}, None)
        for net in ("resnet8", "vgg6")
    ),
    Case("revnet, invert", "revnet", {"units": (2, 2, 2)}, KEEP, {"policy": "invert"}, None),
)
WITHIN = 0.1  # of the time that the extra work predicts


def run(data: str | None = None, json: bool = False, only: str | None = None) -> dict[str, Any]:
    """Time every case under every backend at batch 32, print the table unless `json`, and return
    the figures; `only` cases whose name contains this."""
    chosen = [c for c in CASES if only is None or only in c.name]
    if not chosen:
        raise InputError(f"no case is called {only!r}; there are {[c.name for c in CASES]}")
    _fresh_pages()
    rows = [_row(case, backend) for case in chosen for backend in BACKENDS]
    if not json:
        head = ("case", "backend", "time", "quartiles", "at most", "verdict", "inside bytes")
        print(report.table(head, map(_cells, rows)))
        print("time: of a step of keep; at most: the goal, or 1.1 x what the extra work predicts")
        print("inside bytes: activations, stash and workspace at the peak, of keep's")
        print("; ".join(where_and_when().values()))
    return {**where_and_when(), "rows": rows}


def _fresh_pages() -> None:
    """Every arena in pages of its own: else glibc lays a later one over what an earlier case left,
    which are small pages, and it is slower by some per cent than the one beside it."""
    option, nbytes = -3, 2**20  # M_MMAP_THRESHOLD; to set it stops glibc from raising it
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(option, nbytes)


def _row(case: Case, backend: str) -> dict[str, Any]:
    made = [_stepper(case, case.beside, backend), _stepper(case, case.under, backend)]
    for step, _ in made:
        step()
    taken = [[turn(step, TURN, time.process_time) for step, _ in made] for _ in range(ROUNDS)]
    plans = [trainer.plan for _, trainer in made]
    inside = [sum(p.breakdown()[k] for k in INSIDE) for p in plans]
    extra = plans[1].extra_macs_ratio
    goal = (1 + WITHIN) * (1 + extra) if case.goal is None else case.goal[backend]
    return {
        "case": case.name,
        "backend": backend,
        "ratio": quartiles([b / a for a, b in taken]),
        "extra_macs_ratio": extra,
        "most": goal,
        "inside_share": inside[1] / inside[0],
        "overflows": made[1][1].overflows,
    }


def _stepper(
    case: Case, settings: dict[str, Any], backend: str
) -> tuple[Callable[[], float], Trainer]:
    net = models.build(case.net, **case.options)
    sgd = optim.SGD(lr=1e-5, momentum=0.9)
    trainer = Trainer(net, optimizer=sgd, batch=32, backend=backend, **settings)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((32, *net.input_shape), dtype=np.float32)
    y = rng.integers(0, 10, 32)
    if "density" in settings:
        trainer.calibrate(x)
    return lambda: trainer.step(x, y), trainer


def _cells(r: dict[str, Any]) -> tuple[Any, ...]:
    ratio, low, high = r["ratio"]
    again = f", {r['overflows']} slices run again" if r["overflows"] else ""
    return (
        *(r["case"], r["backend"], f"x{ratio:.3f}", f"{low:.3f} to {high:.3f}"),
        f"x{r['most']:.3f}",
        ("met" if ratio <= r["most"] else "missed") + again,
        f"{100 * r['inside_share']:.1f} %",
    )
