"""Losses other than cross-entropy over classes. Conventions: `basic.py`."""

from math import log

from .basic import safe_exp as exp


def _seen(F, mask, n):
    """How many elements count."""
    if mask < 0:
        return n
    total = 0.0
    for k in range(mask, mask + n):
        total += F[k]
    return max(total, 1.0)


def mse(F, B, loss, dx, x, targets, mask, n):
    seen, total = _seen(F, mask, n), 0.0
    for k in range(n):
        d = F[x + k] - F[targets + k]
        share = (1.0 if mask < 0 else F[mask + k]) / seen
        total += d * d * share
        if dx >= 0:
            F[dx + k] = 2.0 * d * share
    F[loss] = total


def binary_cross_entropy_with_logits(F, B, loss, dx, x, targets, mask, n):
    seen, total = _seen(F, mask, n), 0.0
    for k in range(n):
        v, wanted = F[x + k], F[targets + k]
        share = (1.0 if mask < 0 else F[mask + k]) / seen
        e = exp(-abs(v))
        total += (max(v, 0.0) - v * wanted + log(1.0 + e)) * share
        if dx >= 0:
            F[dx + k] = ((1.0 if v >= 0.0 else e) / (1.0 + e) - wanted) * share
    F[loss] = total


KERNELS = {69: binary_cross_entropy_with_logits, 70: mse}
