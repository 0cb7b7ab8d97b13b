"""RevNet-38, inverted, beside plain networks kept whole, on CIFAR-10; no search for a recipe.

The images are those of cifar10_jpeg.npz in the data folder: CIFAR-10 as quality-75 JPEG, so that
accuracies are a little below those on the original pixels. All networks get the same seed, the
same batches in the same order and the same schedule.
"""

from __future__ import annotations

import io
import sys
import time
from typing import Any

import numpy as np

from tinytrain import Trainer, data, models, optim, report
from tinytrain.bench.curves import chart
from tinytrain.bench.machine import data_file
from tinytrain.errors import InputError

FILE = "cifar10_jpeg.npz"
SEED, BATCH, IMAGES, EPOCHS, EVERY = 0, 100, 12_500, 2, 25
RATE, DECAY, WARM = 0.1, 2e-4, 25  # Gomez et al. 2017, with a cosine for so few steps
NETWORKS: dict[str, dict[str, Any]] = {
    "RevNet-38": {"policy": "invert", "ram": "72M", "options": {}},
    "plain twin": {"policy": "keep", "ram": None, "options": {"plain": True}},
    "ResNet-32": {
        "policy": "keep",
        "ram": None,
        "options": {"plain": True, "units": (5, 5, 5), "widths": (16, 16, 32, 64)},
    },
}


def run(root: str | None = None) -> dict[str, Any]:
    """Train each network once; images, epochs and runs (see `train`)."""
    arrays = images(root)
    runs = [train(name, *arrays) for name in NETWORKS]
    return {"images": IMAGES, "epochs": EPOCHS, "batch": BATCH, "seed": SEED, "runs": runs}


def images(root: str | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(x, y) of the first IMAGES training images and of all test images, float32 NHWC, each
    channel with mean 0 and deviation 1 over the training images; InputError where they lack."""
    path = data_file(root, FILE)
    try:
        from PIL import Image
    except ImportError:
        raise InputError("this benchmark reads JPEG: install Pillow") from None

    def part(name: str, most: int) -> tuple[np.ndarray, np.ndarray]:
        ends, packed = held[f"{name}_offset"], held[f"{name}_jpeg"]
        count = min(most, len(ends) - 1)
        x = np.empty((count, 32, 32, 3), np.float32)
        for k in range(count):
            body = packed[ends[k] : ends[k + 1]].tobytes()
            x[k] = np.asarray(Image.open(io.BytesIO(header + body + b"\xff\xd9")))
        return x, held[f"{name}_label"][:count].astype(np.int32)

    with np.load(path) as file:
        held = {name: file[name] for name in file.files}
    header = held["header"].tobytes()
    x, y = part("train", IMAGES)
    test, labels = part("test", sys.maxsize)
    mean, deviation = x.mean((0, 1, 2)), x.std((0, 1, 2))
    return (x - mean) / deviation, y, (test - mean) / deviation, labels


def augmented(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each image shifted by up to four pixels with zeros behind it, and half of them mirrored."""
    n, h, w, _ = x.shape
    padded = np.pad(x, ((0, 0), (4, 4), (4, 4), (0, 0)))
    out = np.empty_like(x)
    for k, (i, j, mirrored) in enumerate(rng.integers(0, (9, 9, 2), (n, 3))):
        image = padded[k, i : i + h, j : j + w]
        out[k] = image[:, ::-1] if mirrored else image
    return out


def train(name: str, x, y, test, labels) -> dict[str, Any]:
    """One network: the mean loss of every EVERY steps, the test accuracy after each epoch, bytes
    of its arena, seconds."""
    how = NETWORKS[name]
    net = models.build("revnet", seed=SEED, **how["options"])
    steps = EPOCHS * (len(x) // BATCH)
    schedule = optim.WarmupLR(optim.CosineLR(RATE, steps), WARM)
    trainer = Trainer(
        net,
        optimizer=optim.SGD(lr=schedule, momentum=0.9, weight_decay=DECAY),
        batch=BATCH,
        policy=how["policy"],
        ram=how["ram"],
        seed=SEED,
    )
    rng = np.random.default_rng(SEED)
    losses: list[float] = []
    accuracies: list[float] = []
    begin = time.perf_counter()
    for epoch in range(EPOCHS):
        for pick in data.batches(len(x), BATCH, SEED, epoch, drop_last=True):
            losses.append(trainer.step(augmented(x[pick], rng), y[pick]))
            if len(losses) % EVERY == 0:
                mean = np.mean(losses[-EVERY:])
                print(f"{name}: step {len(losses)} of {steps}, loss {mean:.4f}", file=sys.stderr)
        accuracies.append(trainer.evaluate(test, labels)["accuracy"])
        print(f"{name}: test accuracy {accuracies[-1]:.4f}", file=sys.stderr)
    blocks = np.array(losses[: len(losses) // EVERY * EVERY]).reshape(-1, EVERY)
    return {
        "network": name,
        "policy": how["policy"],
        "parameters": net.count_parameters(),
        "arena_bytes": trainer.plan.arena_bytes,
        "persistent_bytes": trainer.plan.persistent_bytes,
        "high_water_bytes": trainer.high_water_bytes,
        "extra_macs_ratio": trainer.plan.extra_macs_ratio,
        "losses": [float(v) for v in blocks.mean(1)],
        "test_accuracies": accuracies,
        "seconds": time.perf_counter() - begin,
        "backend": trainer.backend,
    }


def text(result: dict[str, Any]) -> str:
    """The figures of all networks, and their curves as columns."""
    runs = result["runs"]
    head = ("network", "policy", "parameters", "arena", "extra work", "test accuracy", "seconds")
    rows = [
        (
            *(r["network"], r["policy"], r["parameters"], r["arena_bytes"]),
            f"{100 * r['extra_macs_ratio']:.1f} %",
            ", ".join(f"{100 * a:.2f} %" for a in r["test_accuracies"]),
            f"{r['seconds']:.0f}",
        )
        for r in runs
    ]
    curve = [
        (k * EVERY, *(f"{v:.4f}" for v in losses))
        for k, losses in enumerate(zip(*(r["losses"] for r in runs), strict=True), 1)
    ]
    return "\n".join(
        [
            f"CIFAR-10 (JPEG q75), {result['images']:,} images, {result['epochs']} epochs, batch "
            f"{result['batch']}, seed {result['seed']}, momentum 0.9, shifts and mirroring; test "
            f"accuracy after each epoch",
            report.table(head, rows),
            "",
            f"mean loss of the {EVERY} steps up to",
            report.table(("step", *(r["network"] for r in runs)), curve),
        ]
    )


def svg(result: dict[str, Any]) -> str:
    """The loss curves."""
    curves = {
        f"{r['network']}, {r['policy']}, {r['arena_bytes'] / 2**20:.0f} MiB": [
            (float(k * EVERY), v) for k, v in enumerate(r["losses"], 1)
        ]
        for r in result["runs"]
    }
    return chart("CIFAR-10 (JPEG q75): training loss", "step", f"mean of {EVERY}", curves)
