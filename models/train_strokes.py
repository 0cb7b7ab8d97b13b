"""Train the gesture networks on digits drawn in the air: `python -m tinytrain.models.train_strokes
--data FOLDER --net stroke_cnn` (pictures) or stroke_gru (sequences).

magic_wand_digits.npz holds `points_q14` end to end with `offset`, `label` and `index`; drawings
with an index below 80 train, the others test.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import numpy as np

from tinytrain import Trainer, data, losses, models, nn, optim
from tinytrain.data import strokes

EPOCHS = {"stroke_cnn": 30, "stroke_gru": 60}
RATE = {"stroke_cnn": 4e-3, "stroke_gru": 4e-3}
BATCH, DECAY, SMOOTHING, WARM = 50, 0.02, 0.05, 15
FORMS = {"stroke_cnn": strokes.raster, "stroke_gru": strokes.sequence}


def load(path: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Strokes (N, 96, 2), their digits, and which of them train."""
    with np.load(path) as held:
        points, ends = held["points_q14"] / 2.0**14, held["offset"]
        label, index = held["label"].astype(np.int32), held["index"]
    drawn = [strokes.resample(points[a:b]) for a, b in itertools.pairwise(ends)]
    return np.stack(drawn), label, index < 80


def pretrain(
    points: np.ndarray, label: np.ndarray, kind: str, seed: int = 0, backend: str = "auto"
) -> Trainer:
    """The trainer of a network of this kind after all epochs."""
    steps = EPOCHS[kind] * (len(points) // BATCH)
    form = FORMS[kind]
    net: nn.Module = models.build(kind, input_shape=form(points[:1]).shape[1:], seed=seed)
    rate = optim.WarmupLR(optim.CosineLR(RATE[kind], steps), steps // WARM)
    trainer = Trainer(
        net,
        loss=losses.CrossEntropy(SMOOTHING),
        optimizer=optim.AdamW(lr=rate, weight_decay=DECAY),
        batch=BATCH,
        seed=seed,
        backend=backend,
    )
    rng = np.random.default_rng([seed, 3])
    for epoch in range(EPOCHS[kind]):
        for pick in data.batches(len(points), BATCH, seed, epoch, drop_last=True):
            trainer.step(form(strokes.varied(points[pick], rng)), label[pick])
    return trainer


def main() -> None:
    """Train, and say how well it does on the drawings held out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder that holds magic_wand_digits.npz")
    parser.add_argument("--net", default="stroke_cnn", choices=sorted(FORMS))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    points, label, train = load(Path(given.data) / "magic_wand_digits.npz")
    trainer = pretrain(points[train], label[train], given.net, given.seed)
    found = trainer.evaluate(FORMS[given.net](points[~train]), label[~train])
    print(f"{given.net}: {100 * found['accuracy']:.1f} % of {(~train).sum()} drawings")


if __name__ == "__main__":
    main()
