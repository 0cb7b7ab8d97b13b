"""The kernels of a dense network: products, sums, ReLU, cross-entropy, SGD and the guard.

Every kernel is `kernel(F, B, *operands, *words)`: F the arena as floats, B the same bytes; operands
are places in F (byte k of operand p is B[4 * p + k]; -1: absent), words as `kernels/geometry.py`
of tinytrain names them. A kernel allocates no buffer. KERNELS has them by instruction number, with
(first, count) of the words that are floats where there are any.
"""

from math import exp, log

try:
    from .viper import product
except Exception:  # there is no machine code for this chip, or this is CPython
    from .product import product

_INF = float("inf")


def safe_exp(x):
    """Infinite where it overflows (above 88.72283 in float32), and a NaN stays one: some boards'
    own exp raises, and makes 0 of a negative NaN."""
    return exp(x) if x <= 88.72283 else x * _INF


def walk(rank, w, axes):
    """The pairs of offsets of a strided walk over the first `axes` of `rank` axes, the last one
    fastest; w: sizes, the first operand's strides, the second's."""
    total = 1
    for k in range(axes):
        total *= w[k]
    for place in range(total):
        p = q = 0
        for k in range(axes - 1, -1, -1):
            at = place % w[k]
            place //= w[k]
            p += at * w[rank + k]
            q += at * w[2 * rank + k]
        yield p, q


def rows(row, F, y, a, b, rank, w):
    """row(F, y, a, b, n, a's stride, b's stride) along the last axis of a walk; y is contiguous."""
    n = w[rank - 1]
    for p, q in walk(rank, w, rank - 1):
        row(F, y, a + p, b + q, n, w[2 * rank - 1], w[3 * rank - 1])
        y += n


def fill(F, B, y, n, value):
    for k in range(y, y + n):
        F[k] = value


def _add(F, y, a, b, n, i, j):
    for k in range(y, y + n):
        F[k] = F[a] + F[b]
        a += i
        b += j


def add(F, B, y, a, b, rank, *w):
    rows(_add, F, y, a, b, rank, w)


def _mul(F, y, a, b, n, i, j):
    for k in range(y, y + n):
        F[k] = F[a] * F[b]
        a += i
        b += j


def mul(F, B, y, a, b, rank, *w):
    rows(_mul, F, y, a, b, rank, w)


def relu(F, B, y, x, n):
    for k in range(n):
        v = F[x + k]
        F[y + k] = 0.0 if v <= 0.0 else v  # a NaN passes


def relu_vjp(F, B, dx, g, y, n):
    for k in range(n):
        F[dx + k] = F[g + k] if F[y + k] > 0.0 else 0.0


def sum_to(F, B, y, g, acc, count, columns, *w):
    if w:
        from .reduce import sum_over

        return sum_over(F, y, g, acc, 0, w)
    for k in range(y, y + columns):
        total = F[k] if acc else 0.0
        p = g
        for _ in range(count):
            total += F[p]
            p += columns
        F[k] = total
        g += 1


def matmul(F, B, y, a, b, m, n, k, acc, am, ak, bk, bn, rank, *w):
    for p, q in walk(rank, w, rank):
        product(F, y, a + p, b + q, m, n, k, acc, n, am, 0, ak, bn, bk)
        y += m * n


def cross_entropy(F, B, loss, d, x, labels, mask, count, classes, smooth):
    seen = count
    if mask >= 0:
        seen = 0.0
        for k in range(mask, mask + count):
            seen += F[k]
        seen = max(seen, 1.0)
    loss_sum = 0.0
    for r in range(count):
        label = B[4 * (labels + r)] | B[4 * (labels + r) + 1] << 8
        share = (1.0 if mask < 0 else F[mask + r]) / seen
        top = F[x]
        for k in range(x + 1, x + classes):
            top = max(top, F[k])
        total = 0.0
        for k in range(x, x + classes):
            total += safe_exp(F[k] - top)
        top += log(total)
        total = 0.0
        for k in range(classes):
            z = F[x + k] - top
            total += z
            wanted = smooth / classes
            if k == label:
                loss_sum -= z * (1.0 - smooth) * share
                wanted += 1.0 - smooth
            if d >= 0:
                F[d + k] = (safe_exp(z) - wanted) * share
        loss_sum -= total / classes * smooth * share
        x += classes
        if d >= 0:
            d += classes
    F[loss] = loss_sum


def sgd(F, B, y, p, g, lr, n):
    rate = F[lr]
    if y == p:
        F[lr] = -rate
        product(F, y, g, lr, 1, n, 1, 1, 0, 0, 1, 0, 0, 0)
        F[lr] = rate
        return
    for k in range(n):
        F[y + k] = F[p + k] - rate * F[g + k]


def matmul_tn_sgd(F, B, y, p, a, b, lr, block, m, n, k, rows):
    for i in range(0, m, rows):
        count = min(rows, m - i)
        product(F, block, a + i, b, count, n, k, 0, n, 1, 0, m, 1, n)
        sgd(F, B, y, p, block, lr, count * n)
        y += count * n
        p += count * n


def decay(F, B, y, v, p, n, momentum, weight_decay):
    cell = len(F) - 1  # behind the arena
    F[cell] = momentum
    product(F, y, v, cell, 1, n, 1, 0, 0, 0, 1, 0, 0, 0)
    if p >= 0:
        F[cell] = weight_decay
        product(F, y, p, cell, 1, n, 1, 1, 0, 0, 1, 0, 0, 0)


def matmul_tn_momentum(F, B, v1, p1, v, p, a, b, lr, m, n, k, momentum, weight_decay):
    decay(F, B, v1, v, p if weight_decay else -1, m * n, momentum, weight_decay)
    product(F, v1, a, b, m, n, k, 1, n, 1, 0, m, 1, n)
    sgd(F, B, p1, p, v1, lr, m * n)


def check_finite(F, B, flag, *rest):
    count = len(rest) // 2
    F[flag] = 0.0
    for k in range(count):
        for p in range(rest[k], rest[k] + rest[count + 1 + k]):
            if F[p] - F[p] != 0.0:  # of a NaN and of an infinity that is NaN
                B[4 * flag] = k + 1
                return


KERNELS = {
    5: (fill, 1, 1),
    6: add,
    8: mul,
    22: relu,
    23: relu_vjp,
    44: sum_to,
    49: matmul,
    68: (cross_entropy, 2, 1),
    72: (decay, 1, 2),
    73: sgd,
    79: check_finite,
    84: matmul_tn_sgd,
    93: (matmul_tn_momentum, 3, 2),
}
