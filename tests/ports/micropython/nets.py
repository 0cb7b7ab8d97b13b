"""The networks that the port tests train, each with its data; the same on every machine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import tinytrain as tt
from tinytrain import models, nn, optim

Made = tuple[tt.Trainer, np.ndarray, np.ndarray]


def _vectors(features: int, classes: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points around a centre for each class: something to learn."""
    rng = np.random.default_rng(7)
    y = rng.integers(0, classes, count)
    x = rng.standard_normal((classes, features))[y] + 0.7 * rng.standard_normal((count, features))
    return x.astype(np.float32), y.astype(np.int32)


def _trainer(net: nn.Module, **settings) -> tt.Trainer:
    return tt.Trainer(net, **{"loss": "cross_entropy", "backend": "numpy", **settings})


def mlp() -> Made:
    """32-64-16 and plain SGD: what a heap of 32 KiB holds."""
    net = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 16))
    trainer = _trainer(net, optimizer=optim.SGD(lr=0.1), batch=4, input_shape=(32,))
    return trainer, *_vectors(32, 16, 200)


def digits() -> Made:
    """The demo's network and data, group norm and momentum: what a heap of 128 KiB holds."""
    train, _ = tt.data.digits()
    order = np.random.default_rng(3).permutation(len(train))[:100]
    net = models.build("digits_cnn")
    trainer = _trainer(net, optimizer=optim.SGD(lr=0.01, momentum=0.9), batch=1)
    return trainer, train.x[order], train.y[order].astype(np.int32)


def slices() -> Made:
    """A batch in slices, momentum, weight decay and clipping."""
    net = nn.Sequential(
        *(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.LeakyReLU(), nn.Linear(12, 4))
    )
    sgd = optim.SGD(lr=0.05, momentum=0.9, weight_decay=1e-3)
    trainer = _trainer(net, optimizer=sgd, batch=6, microbatch=2, input_shape=(6,), clip_norm=1.0)
    return trainer, *_vectors(6, 4, 120)


def adam() -> Made:
    """Mean squared error, Adam and an average pool over a depthwise convolution with batch norm."""
    net = nn.Sequential(
        *(nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU6()),
        *(nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.SiLU(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(4, 3)),
    )
    trainer = _trainer(
        net, loss="mse", optimizer=optim.Adam(lr=0.01), batch=3, input_shape=(5, 5, 2)
    )
    x, y = _vectors(50, 3, 60)
    return trainer, x.reshape(-1, 5, 5, 2), np.eye(3, dtype=np.float32)[y]


def topk() -> Made:
    """Weight gradients that read a tenth of each value."""
    net = nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        nn.Linear(64, 4),
    )
    settings = {"policy": "topk", "density": 0.1, "input_shape": (8, 8, 1)}
    trainer = _trainer(net, optimizer=optim.SGD(lr=0.05), batch=2, **settings)
    x, y = _vectors(64, 4, 100)
    return trainer, x.reshape(-1, 8, 8, 1), y


_MAKERS: dict[str, Callable[[], Made]] = {f.__name__: f for f in (mlp, digits, slices, adam, topk)}
NETS = tuple(_MAKERS)


def made(net: str) -> Made:
    """The trainer, its inputs and its labels; the same weights each time."""
    with nn.seeded(5):
        return _MAKERS[net]()
