"""Sums, means and maxima over axes, softmax and its logarithm. Conventions: `basic.py`."""

from math import log

from .basic import safe_exp as exp
from .basic import walk


def _places(w, at):
    """The offsets of the axes described from w[at] on: rank, sizes, strides."""
    rank = w[at]
    own = w[at + 1 : at + 1 + 2 * rank] + w[at + 1 + rank : at + 1 + 2 * rank]
    return walk(rank, own, rank)


def sum_over(F, y, x, acc, count, w):
    """Sums over the axes that w describes last, divided by `count` unless that is 0."""
    for p, _ in _places(w, 0):
        total = 0.0
        for q, _ in _places(w, 1 + 2 * w[0]):
            total += F[x + p + q]
        if count:
            total /= count
        F[y] = F[y] + total if acc else total
        y += 1


def sum(F, B, y, x, count, *w):
    sum_over(F, y, x, False, count, w)


def _largest(F, x, p, w):
    """Where the first of the largest values is, in the reduced axes from x + p on."""
    best = -1
    for q, _ in _places(w, 1 + 2 * w[0]):
        if (
            best < 0
            or F[x + p + q] > F[best]
            or (F[x + p + q] != F[x + p + q] and F[best] == F[best])
        ):
            best = x + p + q
    return best


def max_(F, B, y, x, *w):
    for p, _ in _places(w, 0):
        F[y] = F[_largest(F, x, p, w)]
        y += 1


def max_vjp(F, B, dx, g, x, *w):
    for p, _ in _places(w, 0):
        best = _largest(F, x, p, w) - x
        for q, _ in _places(w, 1 + 2 * w[0]):
            F[dx + p + q] = F[g] if p + q == best else 0.0
        g += 1


def _lines(outer, n, inner):
    """Where each line along the axis begins."""
    for k in range(outer):
        for j in range(inner):
            yield k * n * inner + j


def _softmax(F, y, x, outer, n, inner, logarithm):
    for at in _lines(outer, n, inner):
        line = range(at, at + n * inner, inner)
        top = F[x + at]
        for k in line:
            top = max(top, F[x + k])
        total = 0.0
        for k in line:
            total += exp(F[x + k] - top)
        for k in line:
            z = F[x + k] - top
            F[y + k] = z - log(total) if logarithm else exp(z) / total


def softmax(F, B, y, x, *w):
    _softmax(F, y, x, *w, False)


def log_softmax(F, B, y, x, *w):
    _softmax(F, y, x, *w, True)


def _softmax_vjp(F, dx, g, y, outer, n, inner, logarithm):
    for at in _lines(outer, n, inner):
        line = range(at, at + n * inner, inner)
        total = 0.0
        for k in line:
            total += F[g + k] if logarithm else F[g + k] * F[y + k]
        for k in line:
            if logarithm:
                F[dx + k] = F[g + k] - exp(F[y + k]) * total
            else:
                F[dx + k] = F[y + k] * (F[g + k] - total)


def softmax_vjp(F, B, dx, g, y, *w):
    _softmax_vjp(F, dx, g, y, *w, False)


def log_softmax_vjp(F, B, dx, g, y, *w):
    _softmax_vjp(F, dx, g, y, *w, True)


KERNELS = {
    41: sum,
    42: max_,
    43: max_vjp,
    45: softmax,
    46: softmax_vjp,
    47: log_softmax,
    48: log_softmax_vjp,
}
