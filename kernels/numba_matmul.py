"""Matrix products for Numba: a @ b, a @ b^T and a^T @ b, over leading axes that broadcast.

Every output is one float32 sum over k ascending, from +0 or, when `acc`, from the stored value;
`flat` takes the leading axes, in order, into k. No operand is copied or packed.
"""

import numpy as np
from numba import njit

from .numba_gemm import FUSED, gemm, gemm_nt, outer
from .numba_lanes import LANES, ROWS, address, bits_of, load, splat, splat_at, store

# A block of A (rows x k, float32) stays in a second-level cache while B's columns pass by; the
# sum goes on from the stored value with the next block of k, which keeps its order.
_BLOCK_ROWS, _BLOCK_K = 128, 512
_SHALLOW = 64  # terms of a sum up to which there is less to compute than to read and write


@njit(cache=True, error_model="numpy")
def _rows_of(n, k):
    """How many rows of C at a time: with short sums a few, for they are read and written fastest in
    the order in which they lie."""
    if k > _SHALLOW or n < LANES:
        return _BLOCK_ROWS
    return 4 if k <= 2 else 8


@njit(cache=True, error_model="numpy")
def blocked(turned, m, n, k, acc, y, a, a_rs, a_ki, b, b_step):
    """One product; b_step is from one k to the next, or if B is turned, from one n to the next."""
    most = _BLOCK_ROWS if turned else _rows_of(n, k)
    for row in range(0, m, most):
        rows = min(most, m - row)
        for first in range(0, max(1, k), _BLOCK_K):
            c, left = y + 4 * row * n, min(_BLOCK_K, k - first)
            at, go_on = a + 4 * (row * a_rs + first * a_ki), int(acc or first > 0)
            if turned:
                gemm_nt(
                    *(rows, n, go_on, c, n, at, a_rs, 0, a_ki),
                    *(b + 4 * first, b_step, 1, 1, left, 0, 0, 0, 0),
                )
            else:
                gemm(
                    *(rows, n, go_on, c, n, at, a_rs, 0, a_ki),
                    *(b + 4 * first * b_step, 0, b_step, 1, left, 0, 0, 0, 0),
                )


@njit(cache=True, error_model="numpy")
def _matrix_of(item, x, y):
    """Which of x's matrices goes with y's matrix number `item`, where x's leading axes of one
    are repeated."""
    place, size = 0, 1
    for k in range(x.ndim - 2):
        axis, out = x.ndim - 3 - k, y.ndim - 3 - k
        index = item % y.shape[out]
        item //= y.shape[out]
        if x.shape[axis] > 1:
            place += index * size
            size *= x.shape[axis]
    return place


@njit(cache=True, error_model="numpy")
def matmul(y, a, b):
    k, n = b.shape[-2], b.shape[-1]
    if b.ndim == 2:  # one matrix for all rows
        blocked(False, y.size // n, n, k, False, address(y), address(a), k, 1, address(b), n)
        return
    m = y.shape[-2]
    for item in range(y.size // (m * n)):
        at = address(a) + 4 * m * k * _matrix_of(item, a, y)
        to = address(b) + 4 * k * n * _matrix_of(item, b, y)
        blocked(False, m, n, k, False, address(y) + 4 * item * m * n, at, k, 1, to, n)


@njit(cache=True, error_model="numpy")
def matmul_nt(y, a, b, acc):
    n, k = b.shape[-2], b.shape[-1]
    if b.ndim == 2:
        blocked(True, y.size // n, n, k, acc, address(y), address(a), k, 1, address(b), k)
        return
    m = y.shape[-2]
    for item in range(y.size // (m * n)):
        at = address(a) + 4 * m * k * _matrix_of(item, a, y)
        to = address(b) + 4 * k * n * _matrix_of(item, b, y)
        blocked(True, m, n, k, acc, address(y) + 4 * item * m * n, at, k, 1, to, k)


@njit(cache=True, error_model="numpy")
def _transposed(m, n, k, acc, c, a, b, weights, rate, pull):
    """a^T b, each sum at once. Short ones first in whole tiles, in the order in which they lie."""
    row, most = 0, _rows_of(n, k)
    if most < _BLOCK_ROWS and k > 2:
        row = m - m % ROWS
        outer(row, n, acc, c, n, a, 1, 0, m, b, 0, n, 1, k, 0, weights, rate, pull)
    while row < m:
        rows, at = min(most, m - row), 4 * row * n
        old = weights + at if weights else 0
        gemm(rows, n, acc, c + at, n, a + 4 * row, 1, 0, m, b, 0, n, 1, k, 0, old, rate, pull)
        row += rows


@njit(cache=True, error_model="numpy")
def matmul_tn(y, a, b, flat, acc):
    m, n = a.shape[-1], b.shape[-1]
    items = 1 if flat or y.ndim == 2 else y.size // (m * n)
    k = a.size // m if items == 1 else a.shape[-2]
    for item in range(items):
        at, to, c = address(a), address(b), address(y) + 4 * item * m * n
        if items > 1:
            at += 4 * m * k * _matrix_of(item, a, y)
            to += 4 * k * n * _matrix_of(item, b, y)
        if k <= _BLOCK_K:
            _transposed(m, n, k, int(acc), c, at, to, 0, 0, 0)
        else:
            blocked(False, m, n, k, acc, c, at, 1, m, to, n)


@njit(cache=True, error_model="numpy")
def matmul_tn_sgd(y, p, a, b, lr, block, flat):
    """Every tile of the gradient meets its weights in registers."""
    m, n = p.shape
    places = address(y), address(a), address(b), address(p), address(lr)
    _transposed(m, n, a.size // m, 0, *places, 0)


@njit(cache=True, error_model="numpy")
def _move_rows(v, p, m, n, a, b, momentum, weight_decay, lr):
    """The same where the gradient is one product: there is hardly more than to read and write."""
    mu, decay, rate = splat(np.float32(momentum)), splat(np.float32(weight_decay)), splat(lr)
    for row in range(m):
        factor = splat_at(a + 4 * row)
        for k in range(0, n, LANES):
            at, left = 4 * (row * n + k), n - k
            weight, velocity = load(p + at, left), load(v + at, left) * mu
            if weight_decay != 0:
                velocity = velocity + decay * weight
            velocity = velocity + factor * load(b + 4 * k, left)
            store(velocity, v + at, left)
            store(weight - rate * velocity, p + at, left)


@njit(cache=True, error_model="numpy")
def matmul_tn_momentum(v1, p1, v, p, a, b, lr, momentum, weight_decay, flat):
    """Every tile of the velocity begins, gains the gradient and moves its weights in registers."""
    (m, n), k = p.shape, a.size // v.shape[0]
    if address(v1) != address(v):
        v1[...] = v
    if address(p1) != address(p):
        p1[...] = p
    pull = np.int64(bits_of(np.float32(momentum))) & 0xFFFFFFFF
    pull |= np.int64(bits_of(np.float32(weight_decay))) << 32
    if k == 1 and not FUSED:
        _move_rows(
            address(v1), address(p1), m, n, address(a), address(b), momentum, weight_decay, lr[()]
        )
        return
    places = address(v1), address(a), address(b), address(p1), address(lr)
    _transposed(m, n, k, 2, *places, pull)
