"""The bitmap policy for Numba: plain loops over the bits of float32, no arithmetic on values.

A byte of the mask is eight elements, the first in its lowest bit. Only the bits of +0 are dropped.
"""

import numpy as np
from numba import njit

_ONE, _ZERO, _SIX = np.float32(1), np.float32(0), np.float32(6)
_NONE = np.float32(np.nan)  # no bound: nothing compares with it


@njit(cache=True, error_model="numpy")
def _mark(mask, x):
    """The mask of x (as uint32), and how many bits are set."""
    whole = x.size // 8
    count = 0
    for k in range(whole):
        bits = 0
        for m in range(8):
            bit = np.int64(x[8 * k + m] != 0)
            bits |= bit << m
            count += bit
        mask[k] = bits
    if x.size % 8:
        bits = 0
        for m in range(x.size % 8):
            bit = np.int64(x[8 * whole + m] != 0)
            bits |= bit << m
            count += bit
        mask[whole] = bits
    return count


@njit(cache=True, error_model="numpy")
def _pack(values, x):
    """The non-zeros of x in order, as many as have room."""
    at = 0
    for k in range(x.size):
        if at == values.size:
            break
        values[at] = x[k]  # overwritten by the next one if it was zero
        at += np.int64(x[k] != 0)
    return at


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
def _unpack(y, mask, values):
    at = 0
    for k in range(y.size):
        bit = (mask[k >> 3] >> (k & 7)) & 1
        if bit:
            y[k] = values[at]
            at += 1
        else:
            y[k] = 0


@njit(cache=True, error_model="numpy")
def _gate(dx, g, mask, values, most):
    at = 0
    for k in range(g.size):
        passes = _ZERO
        if (mask[k >> 3] >> (k & 7)) & 1:
            if values[at] > _ZERO and not values[at] >= most:
                passes = _ONE
            at += 1
        dx[k] = g[k] * passes  # a product, as in `relu_vjp`


def _bits(x):
    return x.reshape(-1).view(np.uint32)


def bitmap_pack(mask, values, count, x, capacity):
    count[...] = _mark(mask, _bits(x))
    _pack(_bits(values), _bits(x))


def topk_pack(mask, values, x, histogram, k):
    _topk(mask, _bits(values), _bits(x), k, histogram)


def bitmap_unpack(y, mask, values, shape):
    _unpack(_bits(y), mask, _bits(values))


def bitmap_gate_vjp(dx, g, mask, values, gate):
    most = _SIX if gate == "relu6" else _NONE
    _gate(dx.reshape(-1), g.reshape(-1), mask, values, most)
