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

SEEDS = (0,)
EPISODES = 600  # drawn from the evaluation alphabets, of each kind
VIEWS = 10  # random ones beside the drawing itself, averaged
EPISODE_GOALS = {(5, 1): (0.415, 0.984), (5, 5): (0.629, 0.996), (20, 1): (0.226, 0.957)}
OFFICIAL = (0.920, 0.955)  # of a Siamese net (Koch et al. 2015), and the goal


def rows(data: str | None, nets: Nets) -> list[Row]:
    """The official runs and random episodes, with every seed."""
    path = data_file(data, "omniglot28.npz")
    seen = characters.Characters(path, evaluation=False)
    unseen = characters.Characters(path, evaluation=True)
    plain, viewed = [], []
    scores: dict[tuple[int, int], list[float]] = {kind: [] for kind in EPISODE_GOALS}
    for seed in SEEDS:
        net = nets(f"characters-{seed}", partial(characters.pretrain, seen, seed))
        predict = Trainer(net, batch=100).predict
        plain.append(official(path, predict))
        viewed.append(official(path, predict, np.random.default_rng([seed, 5])))
        embedded = predict(unseen.drawings.reshape(-1, 28, 28, 1)).reshape(len(unseen), 20, -1)
        rng = np.random.default_rng(0)
        for ways, shots in EPISODE_GOALS:
            each = [episode(embedded, ways, shots, rng) for _ in range(EPISODES)]
            scores[ways, shots].append(float(np.mean(each)))
    seeds, size = ", ".join(map(str, SEEDS)), f"{net.count_parameters():,} parameters; "
    return [
        Row("official 20-way one-shot runs", _mean(plain), *OFFICIAL, seeds, size + _each(plain)),
        Row(f"  mean of {VIEWS} views more", _mean(viewed), None, None, seeds, _each(viewed)),
        *(
            Row(f"{ways}-way {shots}-shot", _mean(s), *EPISODE_GOALS[ways, shots], seeds, _each(s))
            for (ways, shots), s in scores.items()
        ),
    ]


def _mean(scores: list[float]) -> float:
    return float(np.mean(scores))


def _each(scores: list[float]) -> str:
    return " ".join(f"{100 * s:.2f}" for s in scores)


def official(path: Any, predict: Any, rng: np.random.Generator | None = None) -> float:
    """The share of right answers in the 20 runs of Lake et al. 2015; with `rng`, embeddings are
    means of VIEWS distorted drawings and the drawing itself."""
    with np.load(path) as held:
        runs = [held[name] for name in ("run_train", "run_test")]
        label, images = held["run_label"], held["images"]
    drawn = images[np.stack(runs)].astype(np.float32) / 255
    x = ((drawn - characters.MEAN) / characters.DEVIATION).reshape(-1, 28, 28, 1)
    e = predict(x)
    if rng is not None:
        e = (e + sum(predict(characters.distorted(x, rng)) for _ in range(VIEWS))) / (VIEWS + 1)
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
