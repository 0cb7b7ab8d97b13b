"""The bitmap policy for Numba: plain loops over the bits of float32, no arithmetic on values.

A byte of the mask is eight elements, the first in its lowest bit. Only the bits of +0 are dropped.
"""

import math

import numpy as np
from numba import njit

from .numba_bits import gate as _gate
from .numba_bits import mark, pack, through, unpack
from .numba_walk import Choice

_NO_BOUND = math.nan  # nothing compares with it


@njit(cache=True, error_model="numpy")
def _kth(x, k, histogram):
    """The k-th largest of x (as uint32) without its sign bit, and how many equal to it are among
    the k: digit by digit, the highest byte first."""
    least, known, left = 0, 0, k
    for shift in (24, 16, 8, 0):
        histogram[:] = 0
        for v in x:
            size = (np.int64(v) << 1) & 0xFFFFFFFF
            if size & known == least:
                histogram[(size >> shift) & 255] += 1
        digit = 255
        while histogram[digit] < left:
            left -= np.int64(histogram[digit])
            digit -= 1
        least |= digit << shift
        known |= 255 << shift
    return least, left


@njit(cache=True, error_model="numpy")
def _topk(mask, values, x, k, histogram):
    least, left = _kth(x, k, histogram)
    mask[:] = 0
    at = 0
    for i in range(x.size):
        size = (np.int64(x[i]) << 1) & 0xFFFFFFFF
        left -= np.int64(size == least)
        if x[i] != 0 and (size > least or (size == least and left >= 0)):
            mask[i >> 3] |= 1 << (i & 7)
            values[at] = x[i]
            at += 1


@njit(cache=True, error_model="numpy")
def _pack(mask, values, count, x):
    count[()] = pack(mask, values, x)


@njit(cache=True, error_model="numpy")
def _unpack(y, mask, values):
    unpack(y, 0, mask, values, 0, y.size, 0)


def _bound(gate):
    return 6.0 if gate == "relu6" else _NO_BOUND


def _bits(x):
    return x.reshape(-1).view(np.uint32)


@Choice
def bitmap_pack(mask, values, count, x, capacity):
    return _pack, (mask, _bits(values), count, _bits(x))


@Choice
def topk_pack(mask, values, x, histogram, k):
    return _topk, (mask, _bits(values), _bits(x), k, histogram)


@Choice
def bitmap_unpack(y, mask, values, shape):
    return _unpack, (_bits(y), mask, _bits(values))


@Choice
def bitmap_gate_vjp(dx, g, mask, values, gate):
    return _gate, (dx.reshape(-1), g.reshape(-1), mask, values, _bound(gate))


@Choice
def gate_mask(mask, y, gate):
    return mark, (mask, y.reshape(-1), _bound(gate))


@Choice
def gate_mask_vjp(dx, g, mask):
    return through, (dx.reshape(-1), g.reshape(-1), mask)
