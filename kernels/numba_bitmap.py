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


def bitmap_unpack(y, mask, values, shape):
    _unpack(_bits(y), mask, _bits(values))


def bitmap_gate_vjp(dx, g, mask, values, gate):
    most = _SIX if gate == "relu6" else _NONE
    _gate(dx.reshape(-1), g.reshape(-1), mask, values, most)
