"""Augmentation: pure functions from a batch and a random generator to another batch, for
`Trainer.fit(augment=)`. They know nothing of what the samples are, and change no array in place.

Samples are (N, ...), axis 0 the batch, last axis channels; `rng` is a numpy Generator, which `fit`
keys by seed and step, so that a run that was resumed draws what it would have. `together` makes
one function for `fit` of several. Sources: mixing, Zhang et al. 2018 (mixup).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinytrain.errors import InputError

Rng = Any  # numpy.random.Generator, which is imported when somebody draws


def shift(x: np.ndarray, rng: Rng, most: int = 2, axes: Sequence[int] = (1, 2)) -> np.ndarray:
    """Each sample moved by up to `most` places along each of `axes`; what comes in is what lay at
    the border."""
    for axis in axes:
        _check_axis("shift", x, axis)
        n = x.shape[axis]
        by = rng.integers(-most, most + 1, len(x))
        x = _take(x, np.clip(np.arange(n) - by[:, None], 0, n - 1), axis)
    return x


def noise(x: np.ndarray, rng: Rng, most: float = 0.1) -> np.ndarray:
    """Normal noise added, its deviation drawn for each sample up to `most` (in x's units)."""
    size = rng.uniform(0, most, (len(x),) + (1,) * (x.ndim - 1))
    return (x + size * rng.standard_normal(x.shape)).astype(np.float32)


def flip(x: np.ndarray, rng: Rng, axis: int = 2) -> np.ndarray:
    """Every second sample, at random, turned round along an axis."""
    _check_axis("flip", x, axis)
    turned = rng.random(len(x)) < 0.5
    return np.where(turned.reshape(-1, *(1,) * (x.ndim - 1)), np.flip(x, axis), x)


def stretch(x: np.ndarray, rng: Rng, most: float = 0.2, axis: int = 1) -> np.ndarray:
    """Each sample faster or slower along an axis (time) by a factor of up to exp(+-most), about
    its middle, between places linearly; what comes in is what lay at the border."""
    _check_axis("stretch", x, axis)
    n = x.shape[axis]
    speed = np.exp(rng.uniform(-most, most, len(x)))
    at = (np.arange(n) - (n - 1) / 2) * speed[:, None] + (n - 1) / 2
    at = np.clip(at, 0, n - 1)
    low = np.minimum(at.astype(np.int64), max(n - 2, 0))
    part = (at - low).reshape(len(x), *(n if k == axis else 1 for k in range(1, x.ndim)))
    high = np.minimum(low + 1, n - 1)
    return ((1 - part) * _take(x, low, axis) + part * _take(x, high, axis)).astype(np.float32)


def mix(
    x: np.ndarray, y: np.ndarray, rng: Rng, classes: int, alpha: float = 0.2
) -> tuple[np.ndarray, np.ndarray]:
    """Each sample mixed with another of the batch, and its label with that one's: x (N, ...)
    float32, and y (N, classes) float32 shares, for the loss "soft_cross_entropy". y: class numbers
    (N,) or shares. The share of the first is drawn from Beta(alpha, alpha)."""
    labels = shares(y, classes)
    first = rng.beta(alpha, alpha, len(x)).astype(np.float32)
    other = rng.permutation(len(x))
    part = first.reshape(-1, *(1,) * (x.ndim - 1))
    mixed = part * x + (1 - part) * x[other]
    return (
        mixed.astype(np.float32),
        first[:, None] * labels + (1 - first[:, None]) * labels[other],
    )


def shares(y: np.ndarray, classes: int) -> np.ndarray:
    """Class numbers (N,) as float32 (N, classes), a one in each row; shares as they are."""
    if y.ndim == 2 and y.shape[1] == classes:
        return y.astype(np.float32, copy=False)
    if (
        y.ndim != 1
        or y.dtype.kind not in "iu"
        or (len(y) and not 0 <= y.min() <= y.max() < classes)
    ):
        raise InputError(f"y: wants class numbers (N,) below {classes}, got {y.dtype}{y.shape}")
    return np.eye(classes, dtype=np.float32)[y]


def together(*functions: Callable[[np.ndarray, Rng], np.ndarray]) -> Callable[..., Any]:
    """One function for `fit(augment=)` of several over (x, rng), which labels do not concern; for
    settings of their own, `functools.partial(shift, most=4)`."""

    def augment(x: np.ndarray, y: Any, rng: Rng) -> tuple[np.ndarray, Any]:
        """The samples, changed by each function in turn, and the labels as they are."""
        return functools.reduce(lambda a, f: f(a, rng), functions, x), y

    return augment


def _take(x: np.ndarray, index: np.ndarray, axis: int) -> np.ndarray:
    """x at index (N, places) along an axis, for each sample its own."""
    shape = [len(x), *(index.shape[1] if k == axis else 1 for k in range(1, x.ndim))]
    return np.take_along_axis(x, index.reshape(shape), axis)


def _check_axis(what: str, x: np.ndarray, axis: int) -> None:
    if not 1 <= axis < x.ndim:
        raise InputError(f"{what}: axis {axis} of samples {x.shape}; wants 1 to {x.ndim - 1}")
