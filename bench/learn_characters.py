"""Omniglot: characters of alphabets that the network never saw, by one example or five.

Trained on the 30 background alphabets alone; the 20 evaluation alphabets choose nothing.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from tinytrain import Trainer
from tinytrain.bench.learn import Nets, Row
from tinytrain.bench.machine import data_file
from tinytrain.models import train_characters as characters

SEEDS = (0, 1)
COUNT = 600  # episodes of each kind, drawn from the evaluation alphabets
VIEWS = 10  # random ones beside the drawing itself, averaged
RUNS = "official 20-way one-shot runs"
EPISODES = {"5-way 1-shot": (5, 1), "5-way 5-shot": (5, 5), "20-way 1-shot": (20, 1)}
GOALS = {  # baseline (a Siamese net, Koch et al. 2015; pixels' nearest neighbour), and the goal
    RUNS: (0.920, 0.955),
    "5-way 1-shot": (0.415, 0.984),
    "5-way 5-shot": (0.629, 0.996),
    "20-way 1-shot": (0.226, 0.957),
}


def rows(data: str | None, nets: Nets) -> list[Row]:
    """The official runs and random episodes, with every seed, by one look and by several."""
    path = data_file(data, "omniglot28.npz")
    seen = characters.Characters(path, evaluation=False)
    unseen = characters.Characters(path, evaluation=True)
    drawings = unseen.drawings.reshape(-1, 28, 28, 1)
    runs, asked = _official(path)
    scores: dict[tuple[str, bool], list[float]] = {}
    for seed in SEEDS:
        net = nets(f"characters-{seed}", partial(characters.pretrain, seen, seed))
        predict = Trainer(net, batch=100).predict
        for viewed in (False, True):
            rng = np.random.default_rng([seed, 5]) if viewed else None
            found = {RUNS: answered(embed(predict, runs, rng), asked)}
            e = embed(predict, drawings, rng).reshape(len(unseen), 20, -1)
            draw = np.random.default_rng(0)
            for name, (ways, shots) in EPISODES.items():
                each = [episode(e, ways, shots, draw) for _ in range(COUNT)]
                found[name] = float(np.mean(each))
            for name, share in found.items():
                scores.setdefault((name, viewed), []).append(share)
    seeds, size = ", ".join(map(str, SEEDS)), f"{net.count_parameters():,} parameters; "
    return [
        Row(
            f"  mean of {VIEWS} views more" if viewed else name,
            float(np.mean(each)),
            None if viewed else GOALS[name][0],
            GOALS[name][1],
            seeds,
            ("" if viewed else size) + " ".join(f"{100 * s:.2f}" for s in each),
        )
        for name in GOALS
        for viewed in (False, True)
        for each in [scores[name, viewed]]
    ]


def embed(predict: Any, x: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
    """Embeddings (N, size) of drawings (N, 28, 28, 1); with `rng`, each the mean of the drawing's
    own and those of VIEWS distorted ones."""
    e = predict(x)
    if rng is None:
        return e
    return (e + sum(predict(characters.distorted(x, rng)) for _ in range(VIEWS))) / (VIEWS + 1)


def _official(path: Any) -> tuple[np.ndarray, np.ndarray]:
    """The 20 runs of Lake et al. 2015: the drawings of all examples, then of all questions; and
    which example is the answer, (20, 20)."""
    with np.load(path) as held:
        runs = [held[name] for name in ("run_train", "run_test")]
        label, images = held["run_label"], held["images"]
    drawn = images[np.stack(runs)].astype(np.float32) / 255
    x = (drawn - characters.MEAN) / characters.DEVIATION
    return x.reshape(-1, 28, 28, 1), label


def answered(e: np.ndarray, label: np.ndarray) -> float:
    """The share of the official questions whose nearest example is the answer."""
    examples, questions = e.reshape(2, *label.shape, -1)
    apart = ((questions[:, :, None] - examples[:, None]) ** 2).sum(3)
    return float((apart.argmin(2) == label).mean())


def episode(embedded: np.ndarray, ways: int, shots: int, rng: np.random.Generator) -> float:
    """Nearest class mean of random characters (N, 20, size): all drawings that are no examples
    are asked."""
    picked = rng.choice(len(embedded), ways, replace=False)
    order = rng.permuted(np.tile(np.arange(20), (ways, 1)), axis=1)
    drawn = embedded[picked[:, None], order]
    means, asked = drawn[:, :shots].mean(1), drawn[:, shots:]
    apart = ((asked[:, :, None] - means) ** 2).sum(3)
    return float((apart.argmin(2) == np.arange(ways)[:, None]).mean())
