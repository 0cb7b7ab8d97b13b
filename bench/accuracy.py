"""Is anything lost by saving memory? Loss curves and test accuracies of each policy beside keep's.

"fashion": a convolutional network on Fashion-MNIST under keep, recompute, bitmap and (where there
is such a policy) spill, which must give the same losses bit for bit. "invert": a reversible network
under keep and invert, as it is, and with its streams on a grid, where inversion is exact. "cifar":
see `cifar`. It searches for no recipe, and trains far shorter than a good accuracy would take.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tinytrain import Trainer, budget, data, nn, ops, optim, report
from tinytrain.bench import cifar
from tinytrain.bench.fashion import small_cnn
from tinytrain.bench.machine import data_folder, where_and_when
from tinytrain.data import load
from tinytrain.errors import InputError

SEEDS = (0, 1, 2)
BATCH, STEPS = 32, 300
RATE, WARM = 0.04, 50
CALIBRATION = 8  # batches
BITS = 14  # of the grid: steps of 2^-14, exact while a stream stays below 2^10
DEPTH, WIDTH = 6, 8  # couplings, channels of a stream

Runs = dict[str, tuple[Callable[[int], nn.Module], str]]


def run(
    data: str | None = None, json: bool = False, only: str | None = None, svg: str | None = None
) -> dict[str, Any]:
    """Run the parts whose names contain `only`, print their tables unless `json`; machine, date
    and figures by part. cifar's curves are drawn to the file `svg`, if that is given. InputError
    if there is no such part."""
    parts = {
        "fashion": (_fashion, text),
        "invert": (_invert, text),
        "cifar": (cifar.run, cifar.text),
    }
    chosen = [name for name in parts if only is None or only in name]
    if not chosen:
        raise InputError(f"no part is called {only!r}; there are {', '.join(parts)}")
    result: dict[str, Any] = where_and_when()
    for name in chosen:
        measure, words = parts[name]
        result[name] = measure(data)
        if not json:
            print(f"{words(result[name])}\n", flush=True)
    if svg is not None and "cifar" in result:
        Path(svg).write_text(cifar.svg(result["cifar"]), encoding="utf-8")
    if not json:
        print(f"{result['machine']}; {result['date']}")
    return result


# ---------------------------------------------------------------------------- Fashion-MNIST


def _fashion(root: str | None) -> dict[str, Any]:
    policies = [p for p in ("keep", "recompute", "bitmap", "spill") if p in budget.POLICIES]
    runs: Runs = {p: (small_cnn, p) for p in policies}
    return _compare("small_cnn", root, [(runs, "keep")])


def _invert(root: str | None) -> dict[str, Any]:
    def grid(seed: int) -> nn.Module:
        return Reversible(seed, BITS)

    free: Runs = {"keep": (Reversible, "keep"), "invert": (Reversible, "invert")}
    exact: Runs = {"grid, keep": (grid, "keep"), "grid, invert": (grid, "invert")}
    return _compare("reversible", root, [(free, "keep"), (exact, "grid, keep")])


class Reversible(nn.Module):
    """RevNet's couplings over 14x14 pixels; with `bits`, streams and branches are rounded to
    multiples of 2^-bits, so that float32 adds and subtracts them exactly."""

    input_shape = (28, 28, 1)

    def __init__(self, seed: int, bits: int | None = None):
        def branch() -> nn.Module:
            conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)
            return nn.Sequential(nn.GroupNorm(1, WIDTH), nn.ReLU(), conv)

        with nn.seeded(seed):
            self.stem = nn.Conv2d(1, 2 * WIDTH, 3, stride=2, padding=1)
            self.branches = [branch() for _ in range(2 * DEPTH)]
            self.norm = nn.GroupNorm(1, 2 * WIDTH)
            self.head = nn.Linear(2 * WIDTH * 49, 10)
        self.bits = bits

    def snap(self, x):
        """x, on the grid if there is one."""
        return x if self.bits is None else ops.snap(x, bits=self.bits)

    def forward(self, x):
        a, b = ops.split(self.snap(self.stem(x)), 2)
        for f, g in zip(self.branches[::2], self.branches[1::2], strict=True):
            a = a + self.snap(f(b))
            b = b + self.snap(g(a))
        x = self.norm(ops.concat([a, b], axis=3)).relu()
        return self.head(ops.avg_pool2d(x, 2).flatten())


def _compare(network: str, root: str | None, groups: list[tuple[Runs, str]]) -> dict[str, Any]:
    """Every run with every seed, each beside the run of its group that it should equal."""
    folder = str(data_folder(root, "fashion_mnist"))
    train, test = load(folder, part="train"), load(folder, part="test")
    rows = []
    for seed in SEEDS:
        for runs, reference in groups:
            made = {}
            for name, (make, policy) in runs.items():
                print(f"{network}, {name}, seed {seed}", file=sys.stderr, flush=True)
                made[name] = _train(make(seed), policy, seed, train, test)
            for name, row in made.items():
                rows.append({"run": name, "seed": seed, **_beside(row, made[reference])})
    return {"network": network, "steps": STEPS, "batch": BATCH, "rows": rows}


def _train(net: nn.Module, policy: str, seed: int, train: Any, test: Any) -> dict[str, Any]:
    """STEPS updates; the losses, the final weights, test accuracy, bytes and seconds."""
    schedule = optim.WarmupLR(optim.CosineLR(RATE, STEPS), WARM)
    optimizer = optim.SGD(lr=schedule, momentum=0.9)
    with tempfile.TemporaryDirectory() as folder:
        more: dict[str, Any] = {"spill": os.path.join(folder, "spill")} if policy == "spill" else {}
        trainer = Trainer(net, optimizer=optimizer, batch=BATCH, policy=policy, seed=seed, **more)
        return _measured(trainer, policy, seed, train, test)


def _measured(trainer: Trainer, policy: str, seed: int, train: Any, test: Any) -> dict[str, Any]:
    order = list(data.batches(len(train), BATCH, seed, 0, True))[:STEPS]
    if policy == "bitmap":
        trainer.calibrate(train.x[np.concatenate(order[:CALIBRATION])])
    begin = time.perf_counter()
    losses = [trainer.step(train.x[pick], train.y[pick]) for pick in order]
    seconds = time.perf_counter() - begin
    return {
        "arena_bytes": trainer.plan.arena_bytes,
        "high_water_bytes": trainer.high_water_bytes,
        "policies": trainer.plan.policies,
        "extra_macs_ratio": trainer.plan.extra_macs_ratio,
        "overflows": trainer.overflows,
        "losses": losses,
        "weights": b"".join(a.tobytes() for a in trainer.state().values()),
        "test_accuracy": trainer.evaluate(test.x, test.y)["accuracy"],
        "seconds": seconds,
        "backend": trainer.backend,
    }


def _beside(row: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    """A run's figures and how far they are from its reference's; the weights stay behind."""
    apart = np.abs(np.subtract(row["losses"], reference["losses"]))
    return {
        **{k: v for k, v in row.items() if k not in ("losses", "weights")},
        "first_losses": row["losses"][:3],
        "last_loss": float(np.mean(row["losses"][-50:])),
        "same_losses": int((apart == 0).sum()),
        "most_apart": float(apart.max()),
        "same_weights": row["weights"] == reference["weights"],
    }


def text(result: dict[str, Any]) -> str:
    """A row for each run, and the mean accuracy of each policy."""
    head = (
        *("run", "seed", "arena", "extra", "mean of last 50 losses", "losses as keep's"),
        *("most apart", "weights", "test accuracy", "overflows", "seconds"),
    )
    rows = [
        (
            *(r["run"], r["seed"], r["arena_bytes"], f"{100 * r['extra_macs_ratio']:.1f} %"),
            *(f"{r['last_loss']:.6f}", f"{r['same_losses']} of {result['steps']}"),
            *(f"{r['most_apart']:.2g}", "same bits" if r["same_weights"] else "differ"),
            *(f"{100 * r['test_accuracy']:.2f} %", r["overflows"], f"{r['seconds']:.0f}"),
        )
        for r in result["rows"]
    ]
    names = dict.fromkeys(r["run"] for r in result["rows"])
    found = {n: [r["test_accuracy"] for r in result["rows"] if r["run"] == n] for n in names}
    means = ", ".join(
        f"{n} {100 * np.mean(a):.2f} +- {100 * np.std(a, ddof=1):.2f} %" for n, a in found.items()
    )
    return "\n".join(
        [
            f"Fashion-MNIST, {result['network']}, {result['steps']} steps of {result['batch']}, "
            f"momentum 0.9, {result['rows'][0]['backend']}",
            report.table(head, rows),
            f"test accuracy, mean and deviation of {len(SEEDS)} seeds: {means}",
        ]
    )
