"""Normalisation for Numba: batch norm and group norm, forward and gradients, channels last.

Sums are float32 in one order, whatever the vector width:

    over rows, for each channel   rows in blocks of 256; within a block row r goes to sum r % 4,
                                  each from +0 and ascending; a block gives (s0 + s1) + (s2 + s3),
                                  and blocks are added ascending, from +0. A chain is 64 rows, then
                                  one addition a block: 100,000 rows keep six digits.
    over a group (group norm)     channel k of the group goes to sum k % 8, each from +0: channels
                                  0 to 7 over all pixels ascending, then 8 to 15, ...; the eight
                                  meet as ((0+4)+(2+6)) + ((1+5)+(3+7)).

Variances take two passes. The group norm's parameter gradients add, from +0 and image by image,
the sum over its pixels (the first order) times its 1 / sqrt(var + eps). An element is read before
its place is written, so that an output may lie over an input.
"""

import numpy as np
from numba import njit

from .numba_lanes import (
    LANES,
    address,
    first8,
    load,
    load8,
    root,
    splat,
    splat8,
    store,
    total8,
)

_BLOCK = 256
_NEAR = 64  # rows whose channels are all done before the next rows: pages and lines stay near
_PLAIN, _SQUARE, _PRODUCT = 0, 1, 2
_ZERO, _ONE = np.float32(0), np.float32(1)


# ---------------------------------------------------------------------------- over rows


@njit(cache=True, error_model="numpy")
def _term(x, g, m, mode, n):
    d = load(x, n) - m
    if mode == _SQUARE:
        return d * d
    if mode == _PRODUCT:
        return d * load(g, n)
    return d


@njit(cache=True, error_model="numpy")
def sum_rows(x, g, rows, step, m, mode, n):
    """For n channels, the sum over rows of (x - m), its square, or (x - m) * g; x, g: addresses."""
    total = splat(_ZERO)
    for begin in range(0, rows, _BLOCK):
        end = min(rows, begin + _BLOCK)
        s0 = s1 = s2 = s3 = splat(_ZERO)
        r = begin
        while r < end:
            at, other, left = x + r * step, g + r * step, end - r
            s0 = s0 + _term(at, other, m, mode, n)
            if left > 1:
                s1 = s1 + _term(at + step, other + step, m, mode, n)
            if left > 2:
                s2 = s2 + _term(at + 2 * step, other + 2 * step, m, mode, n)
            if left > 3:
                s3 = s3 + _term(at + 3 * step, other + 3 * step, m, mode, n)
            r += 4
        total = total + ((s0 + s1) + (s2 + s3))
    return total


@njit(cache=True, error_model="numpy")
def _scale_rows(y, x, rows, step, m, s, b, n):
    """y = (x - m) * s + b over rows; y, x: addresses."""
    for r in range(rows):
        store((load(x + r * step, n) - m) * s + b, y + r * step, n)


@njit(cache=True, error_model="numpy")
def _slope(var, gamma, at, eps, n):
    """gamma / sqrt(var + eps) of n channels from byte `at` on, as gamma * (1 / sqrt)."""
    slope = splat(_ONE) / root(load(address(var) + at, n) + splat(np.float32(eps)))
    return slope if gamma is None else slope * load(address(gamma) + at, n)


@njit(cache=True, error_model="numpy")
def _shift(beta, at, n):
    return splat(_ZERO) if beta is None else load(address(beta) + at, n)


@njit(cache=True, error_model="numpy")
def _normed(y, x, gamma, beta, mean, var, eps):
    """y = (x - mean) * (gamma / sqrt(var + eps)) + beta."""
    c = x.shape[-1]
    rows, step = x.size // c, 4 * c
    for begin in range(0, rows, _NEAR):
        count = min(_NEAR, rows - begin)
        for k in range(0, c, LANES):
            at, n = 4 * k, c - k
            m, s, b = (
                load(address(mean) + at, n),
                _slope(var, gamma, at, eps, n),
                _shift(beta, at, n),
            )
            at += begin * step
            _scale_rows(address(y) + at, address(x) + at, count, step, m, s, b, n)


@njit(cache=True, error_model="numpy")
def batch_norm(y, mean, var, x, gamma, beta, eps):
    c = x.shape[-1]
    rows, step, none = x.size // c, 4 * c, splat(_ZERO)
    count = splat(np.float32(rows))
    for k in range(0, c, LANES):
        at, n = 4 * k, c - k
        m = sum_rows(address(x) + at, 0, rows, step, none, _PLAIN, n) / count
        v = sum_rows(address(x) + at, 0, rows, step, m, _SQUARE, n) / count
        store(m, address(mean) + at, n)
        store(v, address(var) + at, n)
    _normed(y, x, gamma, beta, mean, var, eps)


@njit(cache=True, error_model="numpy")
def batch_norm_vjp_params(dgamma, dbeta, g, x, mean, var, eps):
    c = x.shape[-1]
    rows, step, none = x.size // c, 4 * c, splat(_ZERO)
    for k in range(0, c, LANES):
        at, n = 4 * k, c - k
        m, r = load(address(mean) + at, n), _slope(var, None, at, eps, n)
        if dbeta is not None:
            s = sum_rows(address(g) + at, 0, rows, step, none, _PLAIN, n)
            store(s, address(dbeta) + at, n)
        if dgamma is not None:
            s = sum_rows(address(x) + at, address(g) + at, rows, step, m, _PRODUCT, n)
            store(s * r, address(dgamma) + at, n)


@njit(cache=True, error_model="numpy")
def batch_norm_vjp_x(dx, g, x, mean, var, gamma, dgamma, dbeta, eps):
    c = x.shape[-1]
    rows, step = x.size // c, 4 * c
    count = splat(np.float32(rows))
    for begin in range(0, rows, _NEAR):
        for k in range(0, c, LANES):
            at, n = 4 * k, c - k
            m, slope = load(address(mean) + at, n), _slope(var, gamma, at, eps, n)
            middle = load(address(dbeta) + at, n) / count
            tilt = _slope(var, None, at, eps, n) * load(address(dgamma) + at, n) / count
            for r in range(begin, min(rows, begin + _NEAR)):
                here = at + r * step
                u = (load(address(x) + here, n) - m) * tilt
                d = load(address(g) + here, n) - middle
                store(slope * (d - u), address(dx) + here, n)


@njit(cache=True, error_model="numpy")
def batch_norm_frozen(y, x, gamma, beta, mean, var, eps):
    _normed(y, x, gamma, beta, mean, var, eps)


@njit(cache=True, error_model="numpy")
def batch_norm_frozen_vjp_x(dx, g, gamma, var, eps):
    c = g.shape[-1]
    rows = g.size // c
    for begin in range(0, rows, _NEAR):
        for k in range(0, c, LANES):
            n = c - k
            s = _slope(var, gamma, 4 * k, eps, n)
            for r in range(begin, min(rows, begin + _NEAR)):
                here = 4 * (r * c + k)
                store(load(address(g) + here, n) * s, address(dx) + here, n)


# ---------------------------------------------------------------------------- over a group


@njit(cache=True, error_model="numpy")
def _sum_group(x, pixels, step, channels, m, square):
    """The sum over a group of (x - m) or of its square."""
    total = splat8(_ZERO)
    for k in range(0, channels, 8):
        n = channels - k
        for p in range(pixels):
            d = load8(x + p * step + 4 * k, n) - m
            total = total + first8(d * d if square else d, n)
    return total8(total)


@njit(cache=True, error_model="numpy")
def _sum_group_products(x, g, gamma, pixels, step, channels, m):
    """The sums over a group of d and of d * (x - m), where d = g * gamma."""
    total, tilt = splat8(_ZERO), splat8(_ZERO)
    for k in range(0, channels, 8):
        n = channels - k
        factor = splat8(_ONE) if gamma == 0 else load8(gamma + 4 * k, n)
        for p in range(pixels):
            at = p * step + 4 * k
            d = load8(g + at, n) * factor
            total = total + d
            tilt = tilt + first8(d * (load8(x + at, n) - m), n)
    return total8(total), total8(tilt)


@njit(cache=True, error_model="numpy")
def group_norm(y, mean, var, x, gamma, beta, groups, eps):
    images, c = x.shape[0], x.shape[-1]
    pixels, step, channels = x.size // (images * c), 4 * c, c // groups
    count = np.float32(pixels * channels)
    for k in range(images * groups):
        image, group = k // groups, k % groups
        at = 4 * (image * pixels * c + group * channels)
        a = address(x) + at
        m = _sum_group(a, pixels, step, channels, splat8(_ZERO), False) / count
        v = _sum_group(a, pixels, step, channels, splat8(m), True) / count
        mean[image, group], var[image, group] = m, v
        r = _ONE / np.sqrt(v + np.float32(eps))
        for i in range(0, channels, LANES):
            n, place = channels - i, 4 * (group * channels + i)
            s, b = splat(r), _shift(beta, place, n)
            if gamma is not None:
                s = s * load(address(gamma) + place, n)
            _scale_rows(address(y) + at + 4 * i, a + 4 * i, pixels, step, splat(m), s, b, n)


@njit(cache=True, error_model="numpy")
def group_norm_vjp_params(dgamma, dbeta, g, x, mean, var, groups, eps):
    images, c = x.shape[0], x.shape[-1]
    pixels, step, channels = x.size // (images * c), 4 * c, c // groups
    for k in range(c):
        group, i = k // channels, k % channels
        if i % LANES:
            continue
        n, slope, middle = channels - i, splat(_ZERO), splat(_ZERO)
        for image in range(images):
            at = 4 * (image * pixels * c + k)
            m, r = mean[image, group], _ONE / np.sqrt(var[image, group] + np.float32(eps))
            a, b = address(x) + at, address(g) + at
            slope = slope + sum_rows(a, b, pixels, step, splat(m), _PRODUCT, n) * splat(r)
            middle = middle + sum_rows(b, 0, pixels, step, splat(_ZERO), _PLAIN, n)
        if dgamma is not None:
            store(slope, address(dgamma) + 4 * k, n)
        if dbeta is not None:
            store(middle, address(dbeta) + 4 * k, n)


@njit(cache=True, error_model="numpy")
def group_norm_vjp_x(dx, g, x, mean, var, gamma, groups, eps):
    images, c = x.shape[0], x.shape[-1]
    pixels, step, channels = x.size // (images * c), 4 * c, c // groups
    count = np.float32(pixels * channels)
    for k in range(images * groups):
        image, group = k // groups, k % groups
        at = 4 * (image * pixels * c + group * channels)
        m, r = mean[image, group], _ONE / np.sqrt(var[image, group] + np.float32(eps))
        factor = 0 if gamma is None else address(gamma) + 4 * group * channels
        total, tilt = _sum_group_products(
            address(x) + at, address(g) + at, factor, pixels, step, channels, splat8(m)
        )
        shift, slope = splat(total / count), splat(tilt * r / count * r)
        for i in range(0, channels, LANES):
            n = channels - i
            factors = splat(_ONE) if factor == 0 else load(factor + 4 * i, n)
            for p in range(pixels):
                here = at + p * step + 4 * i
                d = load(address(g) + here, n) * factors
                u = load(address(x) + here, n) - splat(m)
                store(splat(r) * ((d - shift) - u * slope), address(dx) + here, n)
