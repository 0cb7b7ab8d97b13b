"""Fashion-MNIST with CNNs under 100,000 parameters: test accuracy, arena and time; seeds stated."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from tinytrain import Trainer, models, nn, optim, report
from tinytrain.bench.machine import data_folder, where_and_when
from tinytrain.data import load

SEED, BATCH = 0, 32
EPOCHS = {"small_cnn": 6, "lenet5": 2, "resnet8": 1}


def small_cnn(seed: int = SEED) -> nn.Module:
    """Two stages of two 3x3 convolutions (16, 32) with group norm and max pooling, then dense."""

    def stage(a: int, b: int) -> list[nn.Module]:
        return [nn.Conv2d(a, b, 3, padding=1, bias=False), nn.GroupNorm(b // 8, b), nn.ReLU()]

    with nn.seeded(seed):
        net = nn.Sequential(
            *(stage(1, 16) + stage(16, 16)),
            nn.MaxPool2d(2),
            *(stage(16, 32) + stage(32, 32)),
            nn.MaxPool2d(2),
            nn.Dropout(0.3),
            nn.Flatten(),
            nn.Linear(7 * 7 * 32, 40),
            nn.ReLU(),
            nn.Linear(40, 10),
        )
    net.input_shape = (28, 28, 1)
    return net


def run(data: str | None = None, json: bool = False) -> dict[str, Any]:
    """Train each network on the official training part, measure it on the official test part."""
    folder = str(data_folder(data, "fashion_mnist"))
    train, test = load(folder, part="train"), load(folder, part="test")
    rows = []
    for name, epochs in EPOCHS.items():
        small = name == "small_cnn"
        net = small_cnn() if small else models.build(name, input_shape=(28, 28, 1), seed=SEED)
        rows.append({"model": name, **_train(net, epochs, train, test)})
    if not json:
        head = ("model", "parameters", "epochs", "batch", "arena", "test accuracy", "seconds")
        cells = [
            (
                *(r["model"], r["parameters"], r["epochs"], BATCH, r["arena_bytes"]),
                f"{100 * r['test_accuracy']:.2f} %",
                f"{r['seconds']:.0f}",
            )
            for r in rows
        ]
        print(report.table(head, cells))
    return {**where_and_when(), "seed": SEED, "batch": BATCH, "runs": rows}


def _train(net: nn.Module, epochs: int, train: Any, test: Any) -> dict[str, Any]:
    """Momentum, warm-up and cosine; every epoch mirrors a random half of the images."""
    schedule = optim.WarmupLR(optim.CosineLR(0.04, epochs * -(-len(train) // BATCH)), 200)
    optimizer = optim.SGD(lr=schedule, momentum=0.9, weight_decay=5e-4)
    trainer = Trainer(net, optimizer=optimizer, batch=BATCH, seed=SEED)
    rng = np.random.default_rng(SEED)
    begin = time.perf_counter()
    for _ in range(epochs):
        x = train.x.copy()
        mirrored = rng.random(len(x)) < 0.5
        x[mirrored] = x[mirrored, :, ::-1]
        trainer.fit(x, train.y, epochs=1)
    seconds = time.perf_counter() - begin
    result = trainer.evaluate(test.x, test.y)
    return {
        "parameters": net.count_parameters(),
        "epochs": epochs,
        "arena_bytes": trainer.plan.arena_bytes,
        "high_water_bytes": trainer.high_water_bytes,
        "test_accuracy": result["accuracy"],
        "test_loss": result["loss"],
        "seconds": seconds,
        "backend": trainer.backend,
    }
