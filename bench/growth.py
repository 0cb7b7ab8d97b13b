"""How time grows: a step's with the batch, planning's with the depth; neither is compared."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from tinytrain import Trainer, models, nn, optim, plan, report
from tinytrain.bench.curves import chart
from tinytrain.bench.machine import where_and_when
from tinytrain.bench.speed_turns import turn

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
NETS, BACKENDS = ("lenet5", "resnet8"), ("c", "numba")
DEPTHS = (8, 16, 32, 64, 128, 256, 512)
ROUNDS, REPEATS = 5, 3


def run(data: str | None = None, json: bool = False, svg: str | None = None) -> dict[str, Any]:
    """Time both, print the tables unless `json`, and return the figures: process time, one thread.

    svg  a file for the picture of planning; the steps' goes beside it, with "-batch" in its name.
    """
    steps = {f"{net}, {backend}": _steps(net, backend) for net in NETS for backend in BACKENDS}
    depths = {"keep": [(float(d), _planning(d)) for d in DEPTHS]}
    if not json:
        print("a step, milliseconds a sample")
        rows = [(n, *(f"{1000 * s / b:.3f}" for b, s in found)) for n, found in steps.items()]
        print(report.table(("net", *map(str, BATCHES)), rows))
        print("\nplanning without a budget, milliseconds a layer, by layers")
        rows = [(n, *(f"{1000 * s / d:.2f}" for d, s in found)) for n, found in depths.items()]
        print(report.table(("policy", *map(str, DEPTHS)), rows))
        print("; ".join(where_and_when().values()))
    if svg is not None:
        to = Path(svg)
        title = "Planning a chain of convolutions"
        to.write_text(chart(title, "layers", "seconds", depths), encoding="utf-8")
        beside = to.with_name(f"{to.stem}-batch{to.suffix}")
        title = "A training step"
        beside.write_text(chart(title, "batch", "seconds", steps), encoding="utf-8")
    return {**where_and_when(), "steps": steps, "planning": depths}


def _steps(name: str, backend: str) -> list[tuple[float, float]]:
    """(batch, seconds of a step)."""
    found = []
    for batch in BATCHES:
        net = models.build(name)
        sgd = optim.SGD(lr=1e-5, momentum=0.9)
        trainer = Trainer(net, optimizer=sgd, batch=batch, backend=backend)
        rng = np.random.default_rng(0)
        x = rng.standard_normal((batch, *net.input_shape), dtype=np.float32)
        y = rng.integers(0, 10, batch)

        def step(t: Trainer = trainer, x: Any = x, y: Any = y) -> float:
            return t.step(x, y)

        step()
        taken = [turn(step, 0.02, time.process_time) for _ in range(ROUNDS)]
        found.append((float(batch), statistics.median(taken)))
    return found


def chain(layers: int) -> nn.Module:
    """So many 3x3 convolutions of 8 channels with ReLU, and a dense layer."""
    with nn.seeded(0):
        inner = [x for _ in range(layers - 1) for x in (nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())]
        first = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()
        net = nn.Sequential(*first, *inner, nn.GlobalAvgPool2d(), nn.Linear(8, 10))
    net.input_shape = (16, 16, 3)
    return net


def _planning(layers: int) -> float:
    """Seconds to plan."""
    taken = []
    for _ in range(REPEATS):
        net = chain(layers)
        begin = time.process_time()
        plan(net, loss="cross_entropy", batch=4, optimizer="momentum")
        taken.append(time.process_time() - begin)
    return min(taken)
