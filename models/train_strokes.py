"""Train the gesture networks on digits drawn in the air: `python -m tinytrain.models.train_strokes
--data FOLDER --net stroke_cnn` (pictures) or stroke_gru (sequences).

magic_wand_digits.npz holds `points_q14` end to end with `offset`, `label` and `index`; drawings
with an index below 80 train, the others test.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from tinytrain import Trainer, models, nn
from tinytrain.data import strokes
from tinytrain.models.train import Recipe, parser

RECIPES = {
    "stroke_cnn": Recipe(epochs=30, batch=50, rate=4e-3, decay=0.02),
    "stroke_gru": Recipe(epochs=60, batch=50, rate=4e-3, decay=0.02),
}
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
    form = FORMS[kind]
    net: nn.Module = models.build(kind, input_shape=form(points[:1]).shape[1:], seed=seed)
    rng = np.random.default_rng([seed, 3])

    def draw(pick: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return form(strokes.varied(points[pick], rng)), label[pick]

    return RECIPES[kind](net, len(points), draw, seed, backend)


def main() -> None:
    """Train, and say how well it does on the drawings held out."""
    given = parser(__doc__, "magic_wand_digits.npz", net="stroke_cnn").parse_args()
    if given.net not in FORMS:
        raise SystemExit(f"--net is one of {', '.join(FORMS)}")
    points, label, train = load(Path(given.data) / "magic_wand_digits.npz")
    trainer = pretrain(points[train], label[train], given.net, given.seed)
    found = trainer.evaluate(FORMS[given.net](points[~train]), label[~train])
    print(f"{given.net}: {100 * found['accuracy']:.1f} % of {(~train).sum()} drawings")


if __name__ == "__main__":
    main()
