"""NumPy's Philox stream and its uniform float32, without importing numpy.random (7 MB of memory,
most of it OpenSSL's). Nothing but these two: `Generator` hands all else to NumPy's own.

Philox4x64-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011. NumPy promises
that a bit generator's stream never changes (NEP 19).
"""

from __future__ import annotations

from typing import Any

import numpy as np

ROUNDS = 10
FACTORS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
WORDS = 4  # of 64 bits, that a count gives
PIECE = 2**12  # counts that are turned together, so that what lies between stays small
LARGE = 2**20  # elements from which NumPy's own is faster by more than its import takes
_HALF, _LOW = np.uint64(32), np.uint64(2**32 - 1)


def raw(key: tuple[int, int], n: int) -> np.ndarray:
    """The first n words of the stream, uint64; NumPy's `random_raw(n)`."""
    words = np.empty(-(-n // WORDS) * WORDS, np.uint64)
    for at in range(0, len(words), PIECE * WORDS):
        part = words[at : at + PIECE * WORDS].reshape(-1, WORDS)
        first = at // WORDS + 1  # NumPy counts before it turns
        part[...] = _turned(key, np.arange(first, first + len(part), dtype=np.uint64))
    return words[:n]


def _turned(key: tuple[int, int], count: np.ndarray) -> np.ndarray:
    """Four words for each count, as columns."""
    a, b, c, d = count, *(np.zeros_like(count) for _ in range(WORDS - 1))
    for k in range(ROUNDS):
        k0, k1 = (np.uint64((one + k * step) % 2**64) for one, step in zip(key, WEYL, strict=True))
        high0, low0 = _product(FACTORS[0], a)
        high1, low1 = _product(FACTORS[1], c)
        a, b, c, d = high1 ^ b ^ k0, low1, high0 ^ d ^ k1, low0
    return np.stack((a, b, c, d), axis=1)


def _product(factor: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The upper and lower 64 bits of factor * x."""
    f1, f0 = np.uint64(factor >> 32), np.uint64(factor % 2**32)
    x1, x0 = x >> _HALF, x & _LOW
    low, middle = f0 * x0, f1 * x0
    middle += low >> _HALF
    other = f0 * x1 + (middle & _LOW)
    return f1 * x1 + (middle >> _HALF) + (other >> _HALF), x * np.uint64(factor)


class Generator:
    """`numpy.random.Generator(numpy.random.Philox(key=key))`, made when more is asked of it than
    one `uniform32`."""

    def __init__(self, key: tuple[int, int]):
        self.key = (int(key[0]), int(key[1]))
        self.drawn = 0  # float32 before NumPy's own goes on
        self._numpys: Any = None

    def uniform32(self, out: np.ndarray) -> None:
        """Fill `out` (float32) from [0, 1), with the numbers of `random(out=out, dtype=float32)`"""
        if self._numpys is not None or self.drawn or not 0 < out.size <= LARGE:
            self.random(out=out, dtype=np.float32)
            return
        self.drawn = out.size
        words = raw(self.key, -(-out.size // 2)).astype("<u8", copy=False)
        bits = words.view("<u4")[: out.size].reshape(out.shape)  # the lower half first
        np.multiply(bits >> np.uint32(8), np.float32(2.0**-24), out=out, casting="unsafe")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if self._numpys is None:
            self._numpys = np.random.Generator(np.random.Philox(key=np.array(self.key, np.uint64)))
            self._numpys.random(self.drawn, dtype=np.float32)
        return getattr(self._numpys, name)
