"""Updates other than plain SGD and its momentum, and clipping. Conventions: `basic.py`."""

from math import sqrt


def nesterov(F, B, y, p, g, v, lr, n, momentum):
    rate = F[lr]
    for k in range(n):
        F[y + k] = F[p + k] - rate * (F[g + k] + momentum * F[v + k])


def adam(F, B, p1, m1, v1, p, m, v, g, lr, c, n, b1, rest1, b2, rest2, eps, decoupled):
    rate = F[lr]
    for k in range(n):
        slope = F[g + k]
        first = F[m1 + k] = b1 * F[m + k] + rest1 * slope
        second = F[v1 + k] = b2 * F[v + k] + rest2 * slope * slope
        step = rate / F[c] * first / (sqrt(second / F[c + 1]) + eps)
        F[p1 + k] = F[p + k] * (1.0 - rate * decoupled) - step


def add_scaled(F, B, y, g, p, n, factor):
    for k in range(n):
        F[y + k] = F[g + k] + factor * F[p + k]


def zero_pruned(F, B, y, g, p, n):
    for k in range(n):
        pruned = F[p + k] == 0.0 and not B[4 * (p + k) + 3]  # +0; a weight of -0 is none
        F[y + k] = 0.0 if pruned else F[g + k]


def square_sum(F, B, y, g, n, acc):
    total = 0.0
    for k in range(g, g + n):
        total += F[k] * F[k]
    F[y] = F[y] + total if acc else total


def clip_factor(F, B, y, total, most):
    F[y] = min(1.0, most / max(sqrt(F[total]), 1e-12))


KERNELS = {
    74: (nesterov, 1, 1),
    75: (adam, 1, 6),
    76: (add_scaled, 1, 1),
    77: square_sum,
    78: (clip_factor, 0, 1),
    88: zero_pruned,
}
