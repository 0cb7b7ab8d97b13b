"""What pruning during training does to activations: densities of ReLU outputs, bitmaps, accuracy.

On the embedded digits, and on a part of Fashion-MNIST where its data is given. BitTrain (Hosny et
al. 2021) prunes to make activations sparser; here that is measured, not taken for granted.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from tinytrain import Trainer, models, optim, plan, report
from tinytrain.bench.machine import data_folder, where_and_when
from tinytrain.candidates import sparse_values
from tinytrain.data import Dataset, load
from tinytrain.data.embedded import digits
from tinytrain.prune import MagnitudePruning, pruned

SEEDS, BATCH = (0, 1, 2), 32
SPARSITIES = (0.0, 0.5, 0.7, 0.9)
MEASURED = 256  # training images that densities are measured on
FASHION = 6_000  # images of the training part, from its beginning


def run(data: str | None = None, json: bool = False) -> dict[str, Any]:
    """Train each network with and without pruning, print a table unless `json`."""
    rows = _rows("digits_cnn", "digits", *digits(), epochs=20, seeds=SEEDS)
    if data or os.environ.get("TINYTRAIN_DATA"):
        folder = str(data_folder(data, "fashion_mnist"))
        train = load(folder, part="train").take(np.arange(FASHION))
        rows += _rows(
            "vgg6", "fashion", train, load(folder, part="test"), epochs=5, seeds=SEEDS[:1]
        )
    if not json:
        head = ("model", "data", "seeds", "pruned", "density", "accuracy", "keep", "bitmap", "less")
        print(f"batch {BATCH}; bytes are whole arenas; density of ReLU outputs, the densest slice")
        print(report.table(head, [_cells(r) for r in rows]))
    return {**where_and_when(), "batch": BATCH, "runs": rows}


def _rows(
    name: str, what: str, train: Dataset, test: Dataset, epochs: int, seeds: tuple[int, ...]
) -> list[dict[str, Any]]:
    rows = []
    for sparsity in SPARSITIES:
        runs = [_run(name, train, test, epochs, sparsity, seed) for seed in seeds]
        means = {key: sum(r[key] for r in runs) / len(runs) for key in runs[0]}
        rows.append({"model": name, "data": what, "seeds": len(seeds), "epochs": epochs, **means})
    return rows


def _run(
    name: str, train: Dataset, test: Dataset, epochs: int, sparsity: float, seed: int
) -> dict[str, float]:
    """Train, measure the densities, plan anew with bitmaps for them."""
    net = models.build(name, input_shape=train.x.shape[1:], norm="none", seed=seed)
    steps = epochs * -(-len(train) // BATCH)
    optimizer: optim.Optimizer = optim.SGD(lr=optim.CosineLR(0.02, steps), momentum=0.9)
    if sparsity:
        first, last = steps // 10, 7 * steps // 10
        optimizer = MagnitudePruning(optimizer, sparsity, first, last, max(1, steps // 30))
    t = Trainer(net, optimizer=optimizer, batch=BATCH, seed=seed, policy="bitmap")
    begin = time.perf_counter()
    t.fit(train.x, train.y, epochs=epochs, progress=False)
    seconds = time.perf_counter() - begin
    accuracy = t.evaluate(test.x, test.y)["accuracy"]
    shares = t.calibrate(train.x[:MEASURED])
    tape, state = t.plan.program.tape, t.state()
    sizes = {v: tape.specs[v].size for v in sparse_values(tape)}
    zeros = [(state[n] == 0).mean() for n in pruned(t.plan.program)]
    keep = plan(net, optimizer=optimizer, batch=BATCH, policy="keep")
    return {
        "sparsity": sum(zeros) / len(zeros) if zeros else 0.0,
        "density": sum(shares.get(v, 1.0) * n for v, n in sizes.items()) / sum(sizes.values()),
        "accuracy": accuracy,
        "keep_bytes": keep.arena_bytes,
        "bitmap_bytes": t.plan.arena_bytes,
        "overflows": t.overflows,
        "seconds": seconds,
    }


def _cells(r: dict[str, Any]) -> tuple[Any, ...]:
    keep, bitmap = round(r["keep_bytes"]), round(r["bitmap_bytes"])
    return (
        *(r["model"], r["data"], r["seeds"], f"{100 * r['sparsity']:.0f} %"),
        *(f"{r['density']:.3f}", f"{100 * r['accuracy']:.2f} %"),
        *(keep, bitmap, f"{100 * (1 - bitmap / keep):.1f} %"),
    )
