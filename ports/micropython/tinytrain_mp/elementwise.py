"""What is done to each element alone: arithmetic and activations. Conventions: `basic.py`."""

from math import log as _log
from math import sqrt as _root

from .basic import rows, walk
from .basic import safe_exp as _e

_INF = float("inf")


def _logistic(x):
    e = _e(-abs(x))
    return 1.0 / (1.0 + e) if x >= 0.0 else e / (1.0 + e)


def _tanh(x):
    """From exp, so that a NaN stays one."""
    e = _e(-2.0 * abs(x))
    return (1.0 - e) / (1.0 + e) if x >= 0.0 else (e - 1.0) / (1.0 + e)


def _sub(F, y, a, b, n, i, j):
    for k in range(y, y + n):
        F[k] = F[a] - F[b]
        a += i
        b += j


def sub(F, B, y, a, b, rank, *w):
    rows(_sub, F, y, a, b, rank, w)


def _div(F, y, a, b, n, i, j):
    for k in range(y, y + n):
        v, by = F[a], F[b]
        F[k] = v / by if by else v * _INF
        a += i
        b += j


def div(F, B, y, a, b, rank, *w):
    rows(_div, F, y, a, b, rank, w)


def div_vjp_b(F, B, dx, g, y, b, rank, *w):
    n, step = w[rank - 1], w[2 * rank - 1]
    for q, _ in walk(rank, w + w[rank:], rank - 1):
        q += b
        for k in range(n):
            v, by = -F[g + k] * F[y + k], F[q]
            F[dx + k] = v / by if by else v * _INF
            q += step
        dx += n
        g += n
        y += n


def _pow(x, exponent):
    if x < 0.0 and exponent % 1.0:
        return _INF - _INF
    if x == 0.0 and exponent < 0.0:
        return _INF
    return x**exponent


def pow_(F, B, y, x, n, exponent):
    for k in range(n):
        F[y + k] = _pow(F[x + k], exponent)


def pow_vjp(F, B, dx, g, x, n, exponent):
    for k in range(n):
        slope = exponent * _pow(F[x + k], exponent - 1.0) if exponent else 0.0
        F[dx + k] = F[g + k] * slope


def neg(F, B, y, x, n):
    for k in range(n):
        F[y + k] = -F[x + k]


def exp(F, B, y, x, n):
    for k in range(n):
        F[y + k] = _e(F[x + k])


def log(F, B, y, x, n):
    for k in range(n):
        v = F[x + k]
        F[y + k] = _log(v) if v > 0.0 else -_INF if v == 0.0 else _INF - _INF


def sqrt(F, B, y, x, n):
    for k in range(n):
        v = F[x + k]
        F[y + k] = _root(v) if v >= 0.0 else _INF - _INF


def sqrt_vjp(F, B, dx, g, y, n):
    for k in range(n):
        v = 2.0 * F[y + k]
        F[dx + k] = F[g + k] / v if v else F[g + k] * _INF


def abs_(F, B, y, x, n):
    for k in range(n):
        F[y + k] = abs(F[x + k])


def abs_vjp(F, B, dx, g, x, n):
    for k in range(n):
        v = F[x + k]
        F[dx + k] = F[g + k] if v > 0.0 else -F[g + k] if v < 0.0 else 0.0


def tanh(F, B, y, x, n):
    for k in range(n):
        F[y + k] = _tanh(F[x + k])


def tanh_vjp(F, B, dx, g, y, n):
    for k in range(n):
        F[dx + k] = F[g + k] * (1.0 - F[y + k] * F[y + k])


def sigmoid(F, B, y, x, n):
    for k in range(n):
        F[y + k] = _logistic(F[x + k])


def sigmoid_vjp(F, B, dx, g, y, n):
    for k in range(n):
        F[dx + k] = F[g + k] * F[y + k] * (1.0 - F[y + k])


def relu6(F, B, y, x, n):
    for k in range(n):
        v = F[x + k]
        F[y + k] = 0.0 if v <= 0.0 else 6.0 if v > 6.0 else v


def relu6_vjp(F, B, dx, g, y, n):
    for k in range(n):
        F[dx + k] = F[g + k] if 0.0 < F[y + k] < 6.0 else 0.0


def silu(F, B, y, x, n):
    for k in range(n):
        F[y + k] = F[x + k] * _logistic(F[x + k])


def silu_vjp(F, B, dx, g, x, n):
    for k in range(n):
        s = _logistic(F[x + k])
        F[dx + k] = F[g + k] * s * (1.0 + F[x + k] * (1.0 - s))


def gelu(F, B, y, x, n):
    for k in range(n):
        v = F[x + k]
        F[y + k] = 0.5 * v * (1.0 + _tanh(0.79788456 * (v + 0.044715 * v * v * v)))


def gelu_vjp(F, B, dx, g, x, n):
    for k in range(n):
        v = F[x + k]
        t = _tanh(0.79788456 * (v + 0.044715 * v * v * v))
        rise = 0.79788456 * (1.0 + 3.0 * 0.044715 * v * v)
        F[dx + k] = F[g + k] * (0.5 * (1.0 + t) + 0.5 * v * (1.0 - t * t) * rise)


def leaky_relu(F, B, y, x, n, slope):
    for k in range(n):
        v = F[x + k]
        F[y + k] = v if v > 0.0 else v * slope


def leaky_relu_vjp(F, B, dx, g, y, n, slope):
    for k in range(n):
        F[dx + k] = F[g + k] if F[y + k] > 0.0 else F[g + k] * slope


def scale(F, B, y, x, n, factor):
    for k in range(n):
        F[y + k] = F[x + k] * factor


def snap(F, B, y, x, n, step, grid):
    for k in range(n):
        v = F[x + k] * step
        F[y + k] = grid * (round(v) if -8388608.0 < v < 8388608.0 else v)  # beyond, it is whole


KERNELS = {
    7: sub,
    9: div,
    10: div_vjp_b,
    11: neg,
    12: exp,
    13: log,
    14: sqrt,
    15: sqrt_vjp,
    16: abs_,
    17: abs_vjp,
    18: tanh,
    19: tanh_vjp,
    20: sigmoid,
    21: sigmoid_vjp,
    24: relu6,
    25: relu6_vjp,
    26: silu,
    27: silu_vjp,
    28: gelu,
    29: gelu_vjp,
    30: (leaky_relu, 1, 1),
    31: (leaky_relu_vjp, 1, 1),
    32: (scale, 1, 1),
    33: (pow_, 1, 1),
    34: (pow_vjp, 1, 1),
    35: (snap, 1, 2),
}
