"""Elementwise rows for Numba, in the shapes that a training step is made of.

Each has a NumPy kernel of one pass that is as fast, but a call of its own; here the rows are parts
of a walk (`numba_walk`). Other shapes, such as a broadcast in the middle, are left to the
reference. A mean over axes before the last is one float32 sum from +0, ascending, divided last.
"""

import numpy as np
from numba import njit

from . import numpy_
from .numba_lanes import LANES, address, larger, load, select, splat, store, where_positive
from .numba_walk import Choice

_ZERO, _ONE, _SIX = np.float32(0), np.float32(1), np.float32(6)
_ADD, _SUB, _MUL = range(3)


def _flat(*arrays):
    return tuple(a.reshape(-1) for a in arrays)


@njit(cache=True, error_model="numpy")
def _pairs(kind, y, a, b):
    """y = a (+, -, *) b, b repeated for every b.size elements of a; or one for all."""
    period = b.size
    one = splat(b[0])
    for begin in range(0, y.size, y.size if period == 1 else period):
        for k in range(0, y.size if period == 1 else period, LANES):
            at, n = 4 * (begin + k), (y.size if period == 1 else period) - k
            value = load(address(a) + at, n)
            other = one if period == 1 else load(address(b) + 4 * k, n)
            if kind == _ADD:
                value = value + other
            elif kind == _SUB:
                value = value - other
            else:
                value = value * other
            store(value, address(y) + at, n)


def _binary(kind, reference, commutes):
    def choose(y, a, b):
        if commutes and a.size < b.size:
            a, b = b, a
        trailing = b.ndim <= a.ndim and a.shape[a.ndim - b.ndim :] == b.shape
        if a.shape == y.shape and y.size and (trailing or b.size == 1):
            return _pairs, (kind, *_flat(y, a, b))
        return reference, (y, a, b)

    return Choice(choose)


add = _binary(_ADD, numpy_.add, True)
sub = _binary(_SUB, numpy_.sub, False)
mul = _binary(_MUL, numpy_.mul, True)


@njit(cache=True, error_model="numpy")
def _scale(y, x, factor):
    times = splat(np.float32(factor))
    for k in range(0, x.size, LANES):
        at, n = 4 * k, x.size - k
        store(load(address(x) + at, n) * times, address(y) + at, n)


@Choice
def scale(y, x, factor):
    """y = x * factor."""
    return _scale, (*_flat(y, x), float(factor))


@njit(cache=True, error_model="numpy")
def _relu(y, x):
    zero = splat(_ZERO)
    for k in range(0, x.size, LANES):
        at, n = 4 * k, x.size - k
        value = load(address(x) + at, n)
        store(select(larger(value, zero), value, zero), address(y) + at, n)


@Choice
def relu(y, x):
    """max(x, 0); a NaN stays one."""
    return _relu, _flat(y, x)


@njit(cache=True, error_model="numpy")
def _relu6(y, x):
    zero, six = splat(_ZERO), splat(_SIX)
    for k in range(0, x.size, LANES):
        at, n = 4 * k, x.size - k
        value = load(address(x) + at, n)
        value = select(larger(value, zero), value, zero)
        store(select(where_positive(value - six, six), six, value), address(y) + at, n)


@Choice
def relu6(y, x):
    """x within 0 and 6; a NaN stays one."""
    return _relu6, _flat(y, x)


@njit(cache=True, error_model="numpy")
def _relu6_vjp(dx, g, y):
    one, six = splat(_ONE), splat(_SIX)
    for k in range(0, g.size, LANES):
        at, n = 4 * k, g.size - k
        value = load(address(y) + at, n)
        passes = where_positive(six - value, where_positive(value, one))
        store(load(address(g) + at, n) * passes, address(dx) + at, n)


@Choice
def relu6_vjp(dx, g, y):
    """g where 0 < y < 6, as a product."""
    return _relu6_vjp, _flat(dx, g, y)


@njit(cache=True, error_model="numpy")
def _running_average(y, old, new, momentum, correction):
    m, c = splat(np.float32(momentum)), splat(np.float32(correction))
    for k in range(0, old.size, LANES):
        at, n = 4 * k, old.size - k
        value = load(address(old) + at, n)
        moved = c * load(address(new) + at, n) - value
        store(value + m * moved, address(y) + at, n)


@Choice
def running_average(y, old, new, momentum, correction):
    """old + momentum * (correction * new - old)."""
    return _running_average, (*_flat(y, old, new), float(momentum), float(correction))


# ---------------------------------------------------------------------------- over middle axes


def _middle(shape, axis):
    """(outer, middle, inner) sizes where `axis` are neighbours before the last; else None."""
    axis = tuple(sorted(axis))
    if not axis or axis != tuple(range(axis[0], axis[-1] + 1)) or axis[-1] + 1 != len(shape) - 1:
        return None
    outer, inner = int(np.prod(shape[: axis[0]])), shape[-1]
    size = outer * inner * int(np.prod(shape[axis[0] : axis[-1] + 1]))
    return (outer, size // (outer * inner), inner) if size else None


@njit(cache=True, error_model="numpy")
def _mean(y, x, sizes):
    outer, middle, inner = sizes
    count = splat(np.float32(middle))
    for image in range(outer):
        for k in range(0, inner, LANES):
            n, total = inner - k, splat(_ZERO)
            for p in range(middle):
                total = total + load(address(x) + 4 * ((image * middle + p) * inner + k), n)
            store(total / count, address(y) + 4 * (image * inner + k), n)


@Choice
def mean(y, x, axis, keepdims):
    """Over neighbouring axes before the last here."""
    sizes = _middle(x.shape, axis)
    if sizes is None:
        return numpy_.mean, (y, x, axis, keepdims)
    return _mean, (*_flat(y, x), sizes)


@njit(cache=True, error_model="numpy")
def _spread(y, x, sizes):
    outer, middle, inner = sizes
    for image in range(outer):
        for p in range(middle):
            for k in range(0, inner, LANES):
                value = load(address(x) + 4 * (image * inner + k), inner - k)
                store(value, address(y) + 4 * ((image * middle + p) * inner + k), inner - k)


@Choice
def broadcast_to(y, x, shape):
    """Along neighbouring axes before the last here."""
    sizes = None
    if x.ndim == y.ndim and x.dtype == np.float32:
        axis = [k for k in range(y.ndim) if x.shape[k] != y.shape[k]]
        sizes = _middle(y.shape, axis)
    if sizes is None:
        return numpy_.broadcast_to, (y, x, shape)
    return _spread, (*_flat(y, x), sizes)


@njit(cache=True, error_model="numpy")
def _fill(y, value):
    one = splat(np.float32(value))
    for k in range(0, y.size, LANES):
        store(one, address(y) + 4 * k, y.size - k)


@Choice
def fill(y, shape, value, dtype):
    """float32 here."""
    if y.dtype != np.float32:
        return numpy_.fill, (y, shape, value, dtype)
    return _fill, (*_flat(y), float(value))
