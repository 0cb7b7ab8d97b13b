"""Steel defects (NEU), split by groups of near-duplicates: all images, and ten a class.

Ten images a class are learned by a backbone that was trained on grey CIFAR-10 pictures and has
never seen steel, beside the same network from its first weights. Nothing was tuned on the test
groups.
"""

from __future__ import annotations

import numpy as np

from tinytrain import nn
from tinytrain.bench.learn import Nets, Row
from tinytrain.bench.machine import data_file
from tinytrain.models import train_surfaces as surfaces

SEEDS, DRAWS, FEW = (0, 1), (0, 1, 2), 10
ALL, TEN = (0.922, 0.985), (0.76, 0.88)  # baseline and goal


def rows(data: str | None, nets: Nets) -> list[Row]:
    """Both tasks."""
    x, y, train = surfaces.load(data_file(data, "neu_det64.npz"))
    held = x[~train], y[~train]

    def backbone() -> nn.Module:
        path = data_file(data, "cifar10_jpeg.npz")
        return surfaces.pretrain(*surfaces.pictures(path), recipe=surfaces.ELSEWHERE).net

    whole = [
        surfaces.pretrain(x[train], y[train], seed).evaluate(*held)["accuracy"] for seed in SEEDS
    ]
    elsewhere = nets("surface-backbone", backbone)
    ten: dict[str, list[float]] = {"backbone": [], "from scratch": []}
    for draw in DRAWS:
        few = _few(y, train, draw)
        for name, start in (("backbone", elsewhere), ("from scratch", None)):
            trainer = surfaces.pretrain(x[few], y[few], draw, surfaces.FEW, start)
            ten[name].append(trainer.evaluate(*held)["accuracy"])
    seeds, draws = (", ".join(map(str, s)) for s in (SEEDS, DRAWS))
    count = f"{train.sum():,} train, {(~train).sum()} test; "
    return [
        Row("all images", float(np.mean(whole)), *ALL, seeds, count + _each(whole)),
        Row(
            "10 a class, backbone",
            float(np.mean(ten["backbone"])),
            *TEN,
            draws,
            _each(ten["backbone"]),
        ),
        Row(
            "10 a class, from scratch",
            float(np.mean(ten["from scratch"])),
            *(TEN[0], None, draws, _each(ten["from scratch"])),
        ),
    ]


def _few(y: np.ndarray, train: np.ndarray, draw: int) -> np.ndarray:
    """FEW training images of each class."""
    rng = np.random.default_rng([draw, 6])
    picks = [rng.choice(np.flatnonzero(train & (y == k)), FEW, replace=False) for k in np.unique(y)]
    return np.concatenate(picks)


def _each(scores: list[float]) -> str:
    return " ".join(f"{100 * s:.1f}" for s in scores)
