"""Strokes (a pen, a finger, a wand in the air) as sequences and as pictures, and random ones like
them; NumPy alone. It finds no strokes in a stream of measurements: one gesture goes in.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytrain.errors import InputError

Floats = NDArray[np.float32]

SOFT = 0.075  # deviation of the pen's blot, in halves of the gesture's larger side
AROUND = 1.15  # the picture's half side, in the same unit
KNOTS = 7  # of a random smooth wobble


def resample(points: Any, count: int = 96) -> Floats:
    """(T, 2) to (count, 2), evenly along the path, in a box around 0 whose larger side is 2.

    InputError unless it is a stroke of two different points or more.
    """
    p = np.asarray(points, np.float64)
    if p.ndim != 2 or p.shape[1] != 2 or not np.isfinite(p).all():
        raise InputError(f"stroke: got {p.shape}; wants finite points (T, 2)")
    steps = np.hypot(*np.diff(p, axis=0).T)
    p, steps = p[np.r_[True, steps > 0]], steps[steps > 0]
    if not len(steps):
        raise InputError("stroke: it never moves; at least two different points are wanted")
    along = np.r_[0, np.cumsum(steps)]
    at = np.linspace(0, along[-1], count)
    even = np.stack([np.interp(at, along, p[:, k]) for k in (0, 1)], 1)
    return boxed(even[None])[0]


def boxed(points: NDArray) -> Floats:
    """Strokes (N, T, 2), each moved and scaled into its box."""
    low, high = points.min(1, keepdims=True), points.max(1, keepdims=True)
    side = (high - low).max(2, keepdims=True)
    return ((points - (low + high) / 2) * (2 / side)).astype(np.float32)


def sequence(points: Floats, count: int = 48) -> Floats:
    """Strokes (N, T, 2) as (N, count, 4): place and direction at every step."""
    at = np.linspace(0, points.shape[1] - 1, count).round().astype(int)
    return np.concatenate([points[:, at], _directions(points)[:, at]], 2)


def raster(points: Floats, size: int = 24) -> Floats:
    """Strokes (N, T, 2) as pictures (N, size, size, 4): ink, when it was drawn (-1 to 1), and the
    pen's direction there, x and y."""
    grid = np.linspace(-AROUND, AROUND, size, dtype=np.float32)
    across, down = (np.exp(-((points[:, :, k, None] - grid) ** 2) / (2 * SOFT**2)) for k in (0, 1))
    n, t, _ = points.shape
    time = np.broadcast_to(np.linspace(-1, 1, t, dtype=np.float32)[:, None], (n, t, 1))
    marks = np.concatenate([time, _directions(points)], 2)
    rows = down.swapaxes(1, 2)
    total = rows @ across
    ink = 1 - np.exp(-total)
    share = ink / np.maximum(total, 1e-6)
    channels = [rows @ (across * marks[:, :, k : k + 1]) * share for k in range(3)]
    return np.stack([ink, *channels], 3)


def _directions(points: Floats) -> Floats:
    """Unit vectors along the stroke, (N, T, 2)."""
    ahead = np.diff(points, axis=1, append=2 * points[:, -1:] - points[:, -2:-1])
    return ahead / np.maximum(np.sqrt((ahead**2).sum(2, keepdims=True)), 1e-6)


def varied(points: Floats, rng: np.random.Generator) -> Floats:
    """Strokes as another hand would draw them: turned by up to 14 degrees, stretched, sheared,
    bent smoothly, begun later and ended sooner, a little larger or smaller."""
    n, t, _ = points.shape
    begin = rng.uniform(0, 0.06, (n, 1)) * (t - 1)
    end = rng.uniform(0.94, 1, (n, 1)) * (t - 1)
    p = _interpolated(points, begin + (end - begin) * np.linspace(0, 1, t))
    angle = np.deg2rad(rng.uniform(-14, 14, n))
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], 1)
    shape = np.zeros((n, 2, 2))
    shape[:, 0, 0], shape[:, 1, 1] = rng.uniform(0.8, 1.2, (2, n))
    shape[:, 0, 1] = rng.uniform(-0.25, 0.25, n)
    p = p @ (turn.reshape(n, 2, 2) @ shape)
    knots = rng.normal(0, 0.05, (n, KNOTS, 2))
    p = p + _interpolated(knots, np.tile(np.linspace(0, KNOTS - 1, t), (n, 1)))
    return boxed(p) * rng.uniform(0.94, 1.06, (n, 1, 1)).astype(np.float32)


def _interpolated(points: NDArray, at: NDArray) -> NDArray:
    """Points (N, K, 2) at fractional places (N, T)."""
    low = np.minimum(at.astype(np.int64), points.shape[1] - 2)
    share = (at - low)[..., None]
    rows = np.arange(len(points))[:, None]
    return points[rows, low] * (1 - share) + points[rows, low + 1] * share
