"""Train the surface network on images of steel defects, split by groups of near-duplicates, and
its backbone on other pictures: `python -m tinytrain.models.train_surfaces --data FOLDER`.

neu_det64.npz (Song and Yan 2013) holds `images` (64x64), `label` and `group`; cifar10_jpeg.npz
the pictures of CIFAR-10 (Krizhevsky 2009), here grey. Neither states a licence: benchmark only.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from tinytrain import Trainer, models, nn
from tinytrain.models.train import Recipe, parser

ALL = Recipe(epochs=60, batch=64, rate=4e-3, decay=0.05)
ELSEWHERE = Recipe(epochs=10, batch=64, rate=4e-3, decay=0.05)  # of the backbone
FEW = Recipe(epochs=80, batch=12, rate=3e-3, decay=0.05)  # of ten images a class
PICTURES = 20_000  # that the backbone is trained on
TRAINS = 0.7  # of each class, in whole groups


def load(path: Any, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images (N, 64, 64, 1), each with mean 0 and deviation 1; labels; and which of them train:
    whole groups, drawn by `seed`, until they are 70 % of their class."""
    with np.load(path) as held:
        images, label, group = held["images"], held["label"].astype(np.int32), held["group"]
    rng, train = np.random.default_rng(seed), np.zeros(len(label), bool)
    for k in np.unique(label):
        mine = label == k
        for g in rng.permutation(np.unique(group[mine])):
            if train[mine].sum() < TRAINS * mine.sum():
                train |= mine & (group == g)
    return normalised(images), label, train


def normalised(images: np.ndarray) -> np.ndarray:
    """(N, H, W) to (N, H, W, 1), each image with mean 0 and deviation 1."""
    x = images.astype(np.float32)
    x -= x.mean((1, 2), keepdims=True)
    return (x / np.maximum(x.std((1, 2), keepdims=True), 1e-3))[..., None]


def pictures(path: Any, count: int = PICTURES) -> tuple[np.ndarray, np.ndarray]:
    """Grey CIFAR-10 pictures (count, 32, 32, 1) of its training part and their labels."""
    from PIL import Image

    with np.load(path) as held:
        header, jpeg = held["header"].tobytes(), held["train_jpeg"]
        ends, label = held["train_offset"], held["train_label"][:count].astype(np.int32)
    found = np.empty((count, 32, 32), np.uint8)
    for k in range(count):
        whole = header + jpeg[ends[k] : ends[k + 1]].tobytes() + b"\xff\xd9"
        found[k] = np.asarray(Image.open(io.BytesIO(whole)).convert("L"))
    return normalised(found), label


def varied(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirrored, transposed, with another contrast and a little noise; never interpolated, for that
    blurs a texture."""
    x = images.copy()
    for flip in (lambda a: a[:, ::-1], lambda a: a[:, :, ::-1], lambda a: a.swapaxes(1, 2)):
        some = rng.random(len(x)) < 0.5
        x[some] = flip(x[some])
    x *= 1 + 0.2 * rng.standard_normal((len(x), 1, 1, 1), np.float32)
    return x + 0.1 * rng.random((len(x), 1, 1, 1), np.float32) * rng.standard_normal(
        x.shape, np.float32
    )


def pretrain(
    x: np.ndarray,
    y: np.ndarray,
    seed: int = 0,
    recipe: Recipe = ALL,
    backbone: nn.Module | None = None,
    backend: str = "auto",
) -> Trainer:
    """The trainer of a SurfaceCNN after all epochs, from `backbone`'s layers where it is given."""
    net = models.build("surface_cnn", int(y.max()) + 1, input_shape=x.shape[1:], seed=seed)
    if backbone is not None:
        own, held = net.state_dict(), backbone.state_dict()
        net.load_state_dict({k: held[k] if held[k].shape == own[k].shape else own[k] for k in own})
    rng = np.random.default_rng([seed, 4])
    return recipe(net, len(x), lambda pick: (varied(x[pick], rng), y[pick]), seed, backend)


def main() -> None:
    """Train on the training groups, and say how well it does on the others."""
    given = parser(__doc__, "neu_det64.npz").parse_args()
    x, y, train = load(Path(given.data) / "neu_det64.npz")
    found = pretrain(x[train], y[train], given.seed).evaluate(x[~train], y[~train])
    print(f"{100 * found['accuracy']:.2f} % of {(~train).sum()} images of other groups")


if __name__ == "__main__":
    main()
