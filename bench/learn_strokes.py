"""Digits drawn in the air: pictures with channels for time and direction, and a GRU on sequences.

800 drawings train, 200 test. The settings were set once and not tuned.
"""

from __future__ import annotations

import numpy as np

from tinytrain import Trainer, nn
from tinytrain.bench.learn import Nets, Row
from tinytrain.bench.machine import data_file
from tinytrain.models import train_strokes

SEEDS = (0, 1, 2)
BASELINE, GOALS = 0.82, {"stroke_cnn": 0.985, "stroke_gru": 0.96}


def rows(data: str | None, nets: Nets) -> list[Row]:
    """Both networks with every seed."""
    points, label, train = train_strokes.load(data_file(data, "magic_wand_digits.npz"))
    found = []
    for kind, goal in GOALS.items():
        form, scores = train_strokes.FORMS[kind], []
        for seed in SEEDS:

            def make(kind: str = kind, seed: int = seed) -> nn.Module:
                return train_strokes.pretrain(points[train], label[train], kind, seed).net

            net = nets(f"{kind}-{seed}", make)
            scores.append(Trainer(net).evaluate(form(points[~train]), label[~train])["accuracy"])
        more = f"{net.count_parameters():,} parameters; " + " ".join(
            f"{100 * s:.1f}" for s in scores
        )
        seeds = ", ".join(map(str, SEEDS))
        found.append(Row(kind, float(np.mean(scores)), BASELINE, goal, seeds, more))
    return found
