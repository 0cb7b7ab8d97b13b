"""Images turned, scaled, sheared and shifted, bilinear, in NumPy; around them is background."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tinytrain.errors import InputError

Floats = NDArray[np.float32]


def affine(images: Floats, matrices: NDArray, background: float = 0.0) -> Floats:
    """Images (N, H, W, C), each through its own map.

    matrices    (N, 2, 3): where in the source a pixel at (x, y) comes from, matrix @ (x, y, 1), in
                halves of the image's width and height from its centre.
    background  what lies around an image.
    """
    images, matrices = np.asarray(images, np.float32), np.asarray(matrices, np.float32)
    if images.ndim != 4 or matrices.shape != (len(images), 2, 3):
        raise InputError(
            f"affine: images {images.shape} want to be (N, H, W, C), matrices {matrices.shape} "
            f"({len(images)}, 2, 3)"
        )
    n, h, w, c = images.shape
    y, x = np.meshgrid(_centred(h), _centred(w), indexing="ij")
    grid = np.stack([x.ravel(), y.ravel(), np.ones(h * w, np.float32)])
    at = matrices @ grid
    column, row = (at[:, 0] * w + w + 1) / 2, (at[:, 1] * h + h + 1) / 2  # in a padded image
    np.clip(column, 0, w + 1, out=column)
    np.clip(row, 0, h + 1, out=row)
    padded = np.pad(
        images, ((0, 0), (1, 2), (1, 2), (0, 0)), constant_values=np.float32(background)
    ).reshape(n * (h + 3) * (w + 3), c)
    left, top = column.astype(np.int32), row.astype(np.int32)
    across, down = (column - left)[..., None], (row - top)[..., None]
    first = (np.arange(n, dtype=np.int32)[:, None] * (h + 3) + top) * (w + 3) + left
    upper = padded[first] * (1 - across) + padded[first + 1] * across
    below = padded[first + w + 3] * (1 - across) + padded[first + w + 4] * across
    return (upper + down * (below - upper)).reshape(n, h, w, c)


def _centred(size: int) -> Floats:
    """The centres of pixels from -1 to 1."""
    return ((2 * np.arange(size) + 1) / size - 1).astype(np.float32)


def random_affine(
    n: int,
    rng: np.random.Generator,
    turn: float = 0.0,
    scale: float = 0.0,
    shear: float = 0.0,
    shift: float = 0.0,
) -> Floats:
    """Matrices (N, 2, 3) for `affine`: turned by up to `turn` degrees either way, scaled by 1 +-
    `scale` along each axis, sheared by up to `shear`, shifted by up to `shift` of a side."""
    angle = np.deg2rad(rng.uniform(-turn, turn, n))
    cos, sin = np.cos(angle), np.sin(angle)
    turned = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], 1)
    shape = np.zeros((n, 2, 2))
    shape[:, 0, 0], shape[:, 1, 1] = 1 / rng.uniform(1 - scale, 1 + scale, (2, n))
    shape[:, 0, 1] = rng.uniform(-shear, shear, n)
    moved = 2 * rng.uniform(-shift, shift, (n, 2, 1))
    return np.concatenate([turned @ shape, moved], 2).astype(np.float32)
