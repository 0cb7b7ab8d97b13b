"""Train the surface network on images of steel defects, split by groups of near-duplicates, and
its backbone on other pictures: `python -m tinytrain.models.train_surfaces --data FOLDER`.

neu_det64.npz (Song and Yan 2013) holds `images` (64x64), `label` and `group`; cifar10_jpeg.npz
the pictures of CIFAR-10 (Krizhevsky 2009), here grey. Neither states a licence: benchmark only.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import numpy as np

from tinytrain import Trainer, data, losses, models, nn, optim

EPOCHS, BATCH, RATE, DECAY, SMOOTHING, WARM = 60, 64, 4e-3, 0.05, 0.05, 15
TRAINS = 0.7  # of each class, in whole groups
ELSEWHERE, ELSEWHERE_EPOCHS = 20_000, 10  # pictures that the backbone is trained on
FEW_EPOCHS, FEW_BATCH, FEW_RATE = 80, 12, 3e-3  # of ten images a class


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


def pictures(path: Any, count: int = ELSEWHERE) -> tuple[np.ndarray, np.ndarray]:
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
    epochs: int = EPOCHS,
    batch: int = BATCH,
    rate: float = RATE,
    backbone: nn.Module | None = None,
    backend: str = "auto",
) -> Trainer:
    """The trainer of a SurfaceCNN after all epochs, from `backbone`'s layers where it is given."""
    steps = epochs * (len(x) // batch)
    net = models.build("surface_cnn", int(y.max()) + 1, input_shape=x.shape[1:], seed=seed)
    if backbone is not None:
        own, held = net.state_dict(), backbone.state_dict()
        net.load_state_dict({k: held[k] if held[k].shape == own[k].shape else own[k] for k in own})
    trainer = Trainer(
        net,
        loss=losses.CrossEntropy(SMOOTHING),
        optimizer=optim.AdamW(
            lr=optim.WarmupLR(optim.CosineLR(rate, steps), max(steps // WARM, 1)),
            weight_decay=DECAY,
        ),
        batch=batch,
        seed=seed,
        backend=backend,
    )
    rng = np.random.default_rng([seed, 4])
    for epoch in range(epochs):
        for pick in data.batches(len(x), batch, seed, epoch, drop_last=True):
            trainer.step(varied(x[pick], rng), y[pick])
    return trainer


def main() -> None:
    """Train on the training groups, and say how well it does on the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder that holds neu_det64.npz")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    x, y, train = load(Path(given.data) / "neu_det64.npz")
    found = pretrain(x[train], y[train], given.seed).evaluate(x[~train], y[~train])
    print(f"{100 * found['accuracy']:.2f} % of {(~train).sum()} images of other groups")


if __name__ == "__main__":
    main()
