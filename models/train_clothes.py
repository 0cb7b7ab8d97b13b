"""Train the small image backbone on Fashion-MNIST's official training part; the test part is in no
part of it. `python -m tinytrain.models.train_clothes --data FOLDER --save FILE` makes the network
that ships.

Fashion-MNIST (Xiao, Rasul and Vollgraf 2017): 60,000 grey pictures 28x28 of ten kinds of clothes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tinytrain import augment, data, models, nn
from tinytrain.models import shipped
from tinytrain.models.train import Recipe, parser

FOLDER = "fashion_mnist"
RECIPE = Recipe(epochs=16, batch=64, rate=3e-3, decay=0.05)
MOST = 1  # places that a picture is moved by, either way
HELD = 5000  # pictures of the training part that settings are chosen by
LABELS = (
    "T-shirt",
    "trousers",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "trainer",
    "bag",
    "ankle boot",
)


def load(folder: Any, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (N, 28, 28, 1) from 0 to 1 and labels (N,) of "train" or "test"."""
    found = data.load(str(Path(folder) / FOLDER), part)
    assert found.y is not None  # else `load` raises
    return found.x, found.y


def varied(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirrored at random and moved by up to a place."""
    return augment.shift(augment.flip(images, rng), rng, MOST)


def pretrain(
    x: np.ndarray,
    y: np.ndarray,
    seed: int = 0,
    recipe: Recipe = RECIPE,
    backend: str = "auto",
) -> nn.Module:
    """A ClothesCNN trained on these pictures."""
    net = models.build("clothes_cnn", seed=seed)
    rng = np.random.default_rng([seed, 7])
    recipe(net, len(x), lambda pick: (varied(x[pick], rng), y[pick]), seed, backend)
    return net


def main() -> None:
    """Train on the whole training part and save."""
    given = parser(__doc__, FOLDER, save="clothes.npz").parse_args()
    net = pretrain(*load(given.data, "train"), given.seed)
    shipped.save(net, given.save, LABELS)


if __name__ == "__main__":
    main()
