"""Group norm and batch norm, their gradients and running statistics. Conventions: `basic.py`.

Batch norm is group norm over one image with a group for each channel.
"""

from math import sqrt


def _moments(F, mean, var, x, pixels, wide, c):
    """Mean and variance of `wide` neighbouring channels in every pixel."""
    total = 0.0
    for r in range(x, x + pixels * c, c):
        for k in range(r, r + wide):
            total += F[k]
    middle = F[mean] = total / (pixels * wide)
    total = 0.0
    for r in range(x, x + pixels * c, c):
        for k in range(r, r + wide):
            total += (F[k] - middle) * (F[k] - middle)
    F[var] = total / (pixels * wide)


def _affine(F, y, x, middle, slope, shift, pixels, c):
    """One channel of every pixel."""
    for _ in range(pixels):
        F[y] = (F[x] - middle) * slope + shift
        x += c
        y += c


def group_norm(F, B, y, mean, var, x, gamma, beta, images, pixels, c, groups, eps):
    wide = c // groups
    for _ in range(images):
        for k in range(c):
            if k % wide == 0:
                _moments(F, mean, var, x + k, pixels, wide, c)
                middle, slope = F[mean], 1.0 / sqrt(F[var] + eps)
                mean += 1
                var += 1
            a = slope if gamma < 0 else slope * F[gamma + k]
            _affine(F, y + k, x + k, middle, a, 0.0 if beta < 0 else F[beta + k], pixels, c)
        x += pixels * c
        y += pixels * c


def group_norm_vjp_params(F, B, dgamma, dbeta, g, x, mean, var, images, pixels, c, groups, eps):
    wide = c // groups
    for k in range(c):
        F[dgamma + k] = F[dbeta + k] = 0.0
    for _ in range(images):
        for k in range(c):
            middle, slope = F[mean + k // wide], 1.0 / sqrt(F[var + k // wide] + eps)
            a = b = 0.0
            for p in range(k, k + pixels * c, c):
                a += F[g + p] * (F[x + p] - middle) * slope
                b += F[g + p]
            F[dgamma + k] += a
            F[dbeta + k] += b
        x += pixels * c
        g += pixels * c
        mean += groups
        var += groups


def group_norm_vjp_x(F, B, dx, g, x, mean, var, gamma, images, pixels, c, groups, eps):
    wide = c // groups
    for _ in range(images):
        for first in range(0, c, wide):
            middle, slope = F[mean], 1.0 / sqrt(F[var] + eps)
            a = b = 0.0
            for r in range(first, first + pixels * c, c):
                for k in range(wide):
                    v = F[g + r + k] if gamma < 0 else F[g + r + k] * F[gamma + first + k]
                    a += v
                    b += v * (F[x + r + k] - middle) * slope
            a /= pixels * wide
            b /= pixels * wide
            for r in range(first, first + pixels * c, c):
                for k in range(wide):
                    v = F[g + r + k] if gamma < 0 else F[g + r + k] * F[gamma + first + k]
                    F[dx + r + k] = slope * (v - a - (F[x + r + k] - middle) * slope * b)
            mean += 1
            var += 1
        x += pixels * c
        g += pixels * c
        dx += pixels * c


def batch_norm(F, B, y, mean, var, x, gamma, beta, count, c, eps):
    group_norm(F, B, y, mean, var, x, gamma, beta, 1, count, c, c, eps)


def batch_norm_vjp_params(F, B, dgamma, dbeta, g, x, mean, var, count, c, eps):
    group_norm_vjp_params(F, B, dgamma, dbeta, g, x, mean, var, 1, count, c, c, eps)


def batch_norm_vjp_x(F, B, dx, g, x, mean, var, gamma, dgamma, dbeta, count, c, eps):
    group_norm_vjp_x(F, B, dx, g, x, mean, var, gamma, 1, count, c, c, eps)


def batch_norm_frozen(F, B, y, x, gamma, beta, mean, var, count, c, eps):
    for k in range(c):
        slope = 1.0 / sqrt(F[var + k] + eps)
        if gamma >= 0:
            slope *= F[gamma + k]
        shift = 0.0 if beta < 0 else F[beta + k]
        _affine(F, y + k, x + k, F[mean + k], slope, shift, count, c)


def batch_norm_frozen_vjp_x(F, B, dx, g, gamma, var, count, c, eps):
    for k in range(c):
        slope = 1.0 / sqrt(F[var + k] + eps)
        if gamma >= 0:
            slope *= F[gamma + k]
        _affine(F, dx + k, g + k, 0.0, slope, 0.0, count, c)


def running_average(F, B, y, old, new, n, momentum, correction):
    for k in range(n):
        F[y + k] = F[old + k] + momentum * (correction * F[new + k] - F[old + k])


KERNELS = {
    59: (batch_norm, 2, 1),
    60: (batch_norm_vjp_params, 2, 1),
    61: (batch_norm_vjp_x, 2, 1),
    62: (batch_norm_frozen, 2, 1),
    63: (batch_norm_frozen_vjp_x, 2, 1),
    64: (group_norm, 4, 1),
    65: (group_norm_vjp_params, 4, 1),
    66: (group_norm_vjp_x, 4, 1),
    67: (running_average, 1, 2),
}
