"""What is left of a training step for Numba: the loss, dropout, sums over rows, updates, the guard.

Orders of the sums, float32 throughout:

    cross_entropy   a row's exponentials and logits by class ascending from +0, rows ascending
                    from +0. exp and log are the polynomials below, from + - * / and integer
                    moves alone, so that they are the same everywhere (within 2 ulp).
    square_sum, mse element k goes to sum k % 8, each from +0; the eight meet as
                    ((0+4)+(2+6)) + ((1+5)+(3+7)). A stored value comes before.
    sum_to          leading axes as rows in the order of `numba_norm`; the stored value is added
                    last, as total + stored.
"""

import numpy as np
from numba import njit

from . import numpy_
from .numba_lanes import (
    LANES,
    address,
    bits_of,
    float_of,
    load,
    load8,
    no_nan,
    splat,
    splat8,
    store,
    total8,
    where_positive,
)
from .numba_norm import sum_rows
from .numba_walk import Choice

_ZERO, _ONE, _HALF = np.float32(0), np.float32(1), np.float32(0.5)


# ---------------------------------------------------------------------------- exp and log


_LOG2_E = np.float32(1.44269504)
# ln 2 in two parts; the first ends in nine zero bits, so its multiples are exact.
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
# Below, exp is subnormal and counts as 0; above, it is infinite.
_EXP_LEAST, _EXP_MOST = np.float32(-87.0), np.float32(88.722839)
_INFINITY, _ROOT_HALF = np.float32(np.inf), np.float32(0.707106781)


# Cephes' expf and logf (S. Moshier), degree 6 on +-ln 2 / 2 and degree 9 on [sqrt 1/2, sqrt 2).
_E0, _E1, _E2, _E3, _E4, _E5 = np.array(
    [
        1.9875691500e-4,
        1.3981999507e-3,
        8.3334519073e-3,
        4.1665795894e-2,
        1.6666665459e-1,
        5.0000001201e-1,
    ],
    np.float32,
)
_L0, _L1, _L2, _L3, _L4 = np.array(
    [7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1],
    np.float32,
)
_L5, _L6, _L7, _L8 = np.array(
    [-1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1], np.float32
)


@njit(cache=True, error_model="numpy")
def exp32(x):
    """e^x for a float32."""
    inside = min(max(x, _EXP_LEAST), _EXP_MOST)
    t = inside * _LOG2_E
    n = np.int32(t - _HALF if t < _ZERO else t + _HALF)  # truncated: t rounded to nearest
    f = np.float32(n)
    r = (inside - f * _LN2_HIGH) - f * _LN2_LOW
    p = ((((_E0 * r + _E1) * r + _E2) * r + _E3) * r + _E4) * r + _E5
    half = np.int32(n >> 1)  # in two factors, as 2^128 is not a float32
    low = float_of(np.int32((half + 127) << 23))
    high = float_of(np.int32((n - half + 127) << 23))
    value = (p * (r * r) + r + _ONE) * low * high
    if x > _EXP_MOST:
        value = _INFINITY
    if not x > _EXP_LEAST:
        value = x if x != x else _ZERO
    return value


@njit(cache=True, error_model="numpy")
def log32(x):
    """ln x for a normal positive float32; infinity and NaN are returned."""
    if not x < _INFINITY:
        return x
    bits = bits_of(x)
    e = np.int32((bits >> 23) - 126)
    m = float_of(np.int32((bits & 0x007FFFFF) | 0x3F000000))
    if m < _ROOT_HALF:
        e, m = np.int32(e - 1), m + m
    m = m - _ONE
    z, f = m * m, np.float32(e)
    y = (((_L0 * m + _L1) * m + _L2) * m + _L3) * m + _L4
    y = ((((y * m + _L5) * m + _L6) * m + _L7) * m + _L8) * m * z
    y = (y + f * _LN2_LOW) - _HALF * z
    return (m + y) + f * _LN2_HIGH


# ---------------------------------------------------------------------------- the loss


@njit(cache=True, error_model="numpy")
def _share(mask, rows):
    """1 / the number of rows that count."""
    count = np.float32(rows)
    if mask is not None:
        flat, count = mask.reshape(-1), _ZERO
        for r in range(rows):
            count += np.float32(flat[r])
        count = max(count, _ONE)
    return _ONE / count


@njit(cache=True, error_model="numpy")
def _largest(z):
    """The largest, or a NaN if there is one."""
    top = z[0]
    for c in range(z.size):
        if not z[c] <= top:
            top = z[c]
    return top


@njit(cache=True, error_model="numpy")
def cross_entropy(loss, dlogits, logits, labels, mask, label_smoothing):
    classes = logits.shape[-1]
    rows, smooth = logits.size // classes, np.float32(label_smoothing)
    zs, label = logits.reshape(-1), labels.reshape(-1)
    one, low = _share(mask, rows), smooth / np.float32(classes)
    total = _ZERO
    for r in range(rows):
        z = zs[r * classes : (r + 1) * classes]
        top, share = _largest(z), one
        if mask is not None:
            share = np.float32(mask.reshape(-1)[r]) * one
        picked, mean, norm = z[label[r]] - top, _ZERO, _ZERO
        if smooth > _ZERO:
            for c in range(classes):
                mean += z[c] - top
        # From here on the logits may be gone: their gradient may lie in their place.
        if dlogits is None:
            for c in range(classes):
                norm += exp32(z[c] - top)
        else:
            d = dlogits.reshape(-1)[r * classes : (r + 1) * classes]
            for c in range(classes):
                d[c] = exp32(z[c] - top)
            for c in range(classes):
                norm += d[c]
            hit = d[label[r]]
            for c in range(classes):
                d[c] = (d[c] / norm - low) * share
            d[label[r]] = (hit / norm - (_ONE - smooth + low)) * share
        log_norm = log32(norm)
        mean = mean / np.float32(classes) - log_norm
        total += ((picked - log_norm) * (_ONE - smooth) + mean * smooth) * share
    loss[()] = -total


@njit(cache=True, error_model="numpy")
def mse(loss, dx, x, targets, mask):
    one, total, two = _share(mask, x.size), splat8(_ZERO), splat(_ONE + _ONE)
    for k in range(0, x.size, 8):
        at, n = 4 * k, x.size - k
        d, share = load8(address(x) + at, n) - load8(address(targets) + at, n), splat8(one)
        if mask is not None:
            share = load8(address(mask) + at, n) * share
        total = total + d * d * share
    loss[()] = total8(total)
    if dx is not None:
        for k in range(0, x.size, LANES):
            at, n = 4 * k, x.size - k
            d, each = load(address(x) + at, n) - load(address(targets) + at, n), splat(one)
            if mask is not None:
                each = load(address(mask) + at, n) * each
            store(two * d * each, address(dx) + at, n)


# ---------------------------------------------------------------------------- dropout


@njit(cache=True, error_model="numpy")
def _mix(h):
    """`numpy_._mix`: every bit of h moves every other."""
    h = np.uint32(h ^ (h >> np.uint32(16)))
    h = np.uint32(h * np.uint32(0x7FEB352D))
    h = np.uint32(h ^ (h >> np.uint32(15)))
    h = np.uint32(h * np.uint32(0x846CA68B))
    return np.uint32(h ^ (h >> np.uint32(16)))


@njit(cache=True, error_model="numpy")
def dropout(y, x, key, p, stream):
    rows = max(1, x.shape[0]) if x.ndim else 1
    size = x.size // rows
    least = np.uint32(min(int(p * 4294967296.0), 4294967295))
    factor = np.float32(1 / (1 - p))
    out, value = y.reshape(-1), x.reshape(-1)
    for r in range(rows):
        h = _mix(np.uint32(np.uint32(r + key[2]) ^ key[0]))
        h = _mix(np.uint32(_mix(np.uint32(h ^ key[1])) ^ np.uint32(stream)))
        for k in range(size):
            draw = _mix(np.uint32(h ^ np.uint32(k)))
            out[r * size + k] = value[r * size + k] * (factor if draw >= least else _ZERO)


# ---------------------------------------------------------------------------- sums and updates


@njit(cache=True, error_model="numpy")
def _sum_leading(y, g, acc):
    c = y.size
    for k in range(0, c, LANES):
        at, n = 4 * k, c - k
        total = sum_rows(address(g) + at, 0, g.size // c, 4 * c, splat(_ZERO), 0, n)
        if acc:
            total = total + load(address(y) + at, n)
        store(total, address(y) + at, n)


@Choice
def sum_to(y, g, shape, acc):
    """Over leading axes here; the other broadcasts are rare and left to the reference."""
    if y.shape == g.shape[g.ndim - y.ndim :]:
        return _sum_leading, (y.reshape(-1), g.reshape(-1), acc)
    return numpy_.sum_to, (y, g, shape, acc)


@njit(cache=True, error_model="numpy")
def relu_vjp(dx, g, y):
    one = splat(_ONE)
    for k in range(0, g.size, LANES):
        at, n = 4 * k, g.size - k
        # A product, not a choice: the bits of `gate_mask_vjp` for negative and infinite g too.
        value = load(address(g) + at, n) * where_positive(load(address(y) + at, n), one)
        store(value, address(dx) + at, n)


@njit(cache=True, error_model="numpy")
def decay(y, v, p, momentum, weight_decay):
    m, d = splat(np.float32(momentum)), splat(np.float32(weight_decay))
    for k in range(0, v.size, LANES):
        at, n = 4 * k, v.size - k
        value = load(address(v) + at, n) * m
        if p is not None:
            value = value + d * load(address(p) + at, n)
        store(value, address(y) + at, n)


@njit(cache=True, error_model="numpy")
def descend(y, p, g, lr, count):
    """y = p - lr * g over `count` float32 at these addresses."""
    rate = splat(lr)
    for k in range(0, count, LANES):
        at, n = 4 * k, count - k
        store(load(p + at, n) - rate * load(g + at, n), y + at, n)


@njit(cache=True, error_model="numpy")
def sgd(y, p, g, lr):
    descend(address(y), address(p), address(g), lr[()], p.size)


@njit(cache=True, error_model="numpy")
def square_sum(y, g, acc):
    total = splat8(_ZERO)
    for k in range(0, g.size, 8):
        d = load8(address(g) + 4 * k, g.size - k)
        total = total + d * d
    y[()] = y[()] + total8(total) if acc else total8(total)


@njit(cache=True, error_model="numpy")
def _zero_pruned(y, g, p):
    for k in range(p.size):
        y[k] = g[k] if p[k] != 0 else 0


@Choice
def zero_pruned(y, g, p):
    """g where p is not +0, by bits."""
    return _zero_pruned, tuple(a.reshape(-1).view(np.uint32) for a in (y, g, p))


@njit(cache=True, error_model="numpy")
def _finite(x):
    even = odd = splat(_ZERO)
    for k in range(0, x.size, 2 * LANES):
        value = load(address(x) + 4 * k, x.size - k)
        even = even + (value - value)  # 0, or NaN from then on
        if x.size - k > LANES:
            value = load(address(x) + 4 * (k + LANES), x.size - k - LANES)
            odd = odd + (value - value)
    return no_nan(even + odd)


@njit(cache=True, error_model="numpy")
def _check_one(flag, x):
    flag[()] = 0 if _finite(x) else 1


def _check_all(flag, *xs):
    flag[...] = 0
    for k, x in enumerate(xs, 1):
        if not (_finite(x) if x.dtype == np.float32 else np.isfinite(x).all()):
            flag[...] = k
            return


@Choice
def check_finite(flag, *xs):
    """0, or the position from 1 of the first array that holds a NaN or an infinity."""
    if len(xs) == 1 and xs[0].dtype == np.float32:
        return _check_one, (flag, xs[0].reshape(-1))
    return _check_all, (flag, *xs)
