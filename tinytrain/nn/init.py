"""Initialisers: what fills a Parameter's array when it is first wanted.

An initialiser is a function of (rng, out): a generator (as `numpy.random.Generator`) that belongs
to this parameter alone, and the float32 array to fill in place.
`nn.Parameter((3, 4), nn.init.normal(0.1))` takes one of these, or a function of your own; the same
seed and order give the same values.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

Init = Callable[[Any, np.ndarray], None]  # (generator, array to fill)


def uniform(bound: float) -> Init:
    """Uniform in [-bound, bound); PyTorch's Linear and Conv take bound = 1 / sqrt(fan in)."""

    def fill(rng: Any, out: np.ndarray) -> None:
        uniform32 = getattr(rng, "uniform32", None)  # NumPy's own lacks it
        uniform32(out) if uniform32 else rng.random(out=out, dtype=np.float32)
        out *= np.float32(2 * bound)
        out -= np.float32(bound)

    return fill


def normal(deviation: float) -> Init:
    """Normal with mean 0 and this standard deviation; He et al. 2015 take sqrt(2 / fan in)."""

    def fill(rng: Any, out: np.ndarray) -> None:
        rng.standard_normal(out=out, dtype=np.float32)
        out *= np.float32(deviation)

    return fill


def constant(value: float) -> Init:
    """Every element the same: 0 for biases, 1 for a norm's scale."""

    def fill(rng: Any, out: np.ndarray) -> None:
        out[...] = value

    return fill
