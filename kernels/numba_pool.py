"""Pooling for Numba, channels last: max with a one-byte index, average over whole windows.

An average is one float32 sum from +0, window row then column ascending, times 1 / window. The
gradients add, from +0 or the stored value, output pixels ascending (row, column). The first of
equal maxima is chosen, and a NaN is larger than any number.
"""

import numpy as np
from numba import njit

from .numba_conv import taps_of
from .numba_lanes import (
    LANES,
    address,
    larger,
    load,
    load_index,
    select,
    splat,
    store,
    store_index,
    where_equal,
    zero,
)

_ZERO, _LOWEST = np.float32(0), np.float32(-np.inf)


@njit(cache=True, error_model="numpy")
def _next(pixel, out):
    """The output pixel (image, row, column) behind this one."""
    image, i, j = pixel
    if j + 1 < out[1]:
        return image, i, j + 1
    return (image, i + 1, 0) if i + 1 < out[0] else (image + 1, 0, 0)


@njit(cache=True, error_model="numpy")
def _window(pixel, size, kernel, stride, padding):
    """Of an output pixel: its window's corner and the taps inside."""
    image, i, j = pixel
    k0, k1 = taps_of(i, size[0], kernel[0], stride[0], padding[0], 1)
    l0, l1 = taps_of(j, size[1], kernel[1], stride[1], padding[2], 1)
    corner = (image * size[0] + i * stride[0] - padding[0]) * size[1] + j * stride[1] - padding[2]
    return corner, k0, k1, l0, l1


@njit(cache=True, error_model="numpy")
def max_pool2d(y, index, x, kernel_size, stride, padding):
    (_, h, w, c), (images, ho, wo, _) = x.shape, y.shape
    pixel = (0, 0, 0)
    for p in range(images * ho * wo):
        corner, k0, k1, l0, l1 = _window(pixel, (h, w), kernel_size, stride, padding)
        pixel = _next(pixel, (ho, wo))
        for channel in range(0, c, LANES):
            n, best, place = c - channel, splat(_LOWEST), splat(_ZERO)
            for k in range(k0, k1):
                for m in range(l0, l1):
                    value = load(address(x) + 4 * ((corner + k * w + m) * c + channel), n)
                    better = larger(value, best)
                    best = select(better, value, best)
                    place = select(better, splat(np.float32(k * kernel_size[1] + m)), place)
            store(best, address(y) + 4 * (p * c + channel), n)
            if index is not None:
                store_index(place, index, p * c + channel, n)


@njit(cache=True, error_model="numpy")
def max_pool2d_vjp(dx, g, index, size, kernel_size, stride, padding, acc):
    (_, h, w, c), (images, ho, wo, _) = dx.shape, g.shape
    if not acc:
        zero(address(dx), dx.size)
    pixel = (0, 0, 0)
    for p in range(images * ho * wo):
        corner, k0, k1, l0, l1 = _window(pixel, (h, w), kernel_size, stride, padding)
        pixel = _next(pixel, (ho, wo))
        for channel in range(0, c, LANES):
            n = c - channel
            place = load_index(index, p * c + channel, n)
            value = load(address(g) + 4 * (p * c + channel), n)
            for k in range(k0, k1):
                for m in range(l0, l1):
                    at = address(dx) + 4 * ((corner + k * w + m) * c + channel)
                    tap = splat(np.float32(k * kernel_size[1] + m))
                    store(load(at, n) + where_equal(place, tap, value), at, n)


@njit(cache=True, error_model="numpy")
def avg_pool2d(y, x, kernel_size, stride, padding):
    (_, h, w, c), (images, ho, wo, _) = x.shape, y.shape
    factor = splat(np.float32(1 / (kernel_size[0] * kernel_size[1])))
    pixel = (0, 0, 0)
    for p in range(images * ho * wo):
        corner, k0, k1, l0, l1 = _window(pixel, (h, w), kernel_size, stride, padding)
        pixel = _next(pixel, (ho, wo))
        for channel in range(0, c, LANES):
            n, total = c - channel, splat(_ZERO)
            for k in range(k0, k1):
                for m in range(l0, l1):
                    at = address(x) + 4 * ((corner + k * w + m) * c + channel)
                    total = total + load(at, n)
            store(total * factor, address(y) + 4 * (p * c + channel), n)


@njit(cache=True, error_model="numpy")
def avg_pool2d_vjp(dx, g, size, kernel_size, stride, padding, acc):
    (_, h, w, c), (images, ho, wo, _) = dx.shape, g.shape
    factor = splat(np.float32(1 / (kernel_size[0] * kernel_size[1])))
    if not acc:
        zero(address(dx), dx.size)
    pixel = (0, 0, 0)
    for p in range(images * ho * wo):
        corner, k0, k1, l0, l1 = _window(pixel, (h, w), kernel_size, stride, padding)
        pixel = _next(pixel, (ho, wo))
        for channel in range(0, c, LANES):
            n = c - channel
            value = load(address(g) + 4 * (p * c + channel), n) * factor
            for k in range(k0, k1):
                for m in range(l0, l1):
                    at = address(dx) + 4 * ((corner + k * w + m) * c + channel)
                    store(load(at, n) + value, at, n)


@njit(cache=True, error_model="numpy", inline="always")
def _byte(flat, at, count, bits):
    """`count` numbers of an index from `at` on, in the low bits of a byte."""
    byte = 0
    for m in range(count):
        byte |= (flat[at + m] & ((1 << bits) - 1)) << bits * m
    return byte


@njit(cache=True, error_model="numpy", inline="always")
def _numbers(flat, at, count, bits, byte):
    for m in range(count):
        flat[at + m] = (byte >> bits * m) & ((1 << bits) - 1)


@njit(cache=True, error_model="numpy")
def index_pack(y, index, bits):
    flat = index.reshape(-1)
    share = 8 // bits
    whole = flat.size // share
    if bits == 2:  # with constants, so that the inner loops are unrolled
        for k in range(whole):
            y[k] = _byte(flat, 4 * k, 4, 2)
    else:
        for k in range(whole):
            y[k] = _byte(flat, 2 * k, 2, 4)
    if flat.size % share:
        y[whole] = _byte(flat, whole * share, flat.size % share, bits)


@njit(cache=True, error_model="numpy")
def index_unpack(index, y, shape, bits):
    flat = index.reshape(-1)
    share = 8 // bits
    whole = flat.size // share
    if bits == 2:
        for k in range(whole):
            _numbers(flat, 4 * k, 4, 2, y[k])
    else:
        for k in range(whole):
            _numbers(flat, 2 * k, 2, 4, y[k])
    if flat.size % share:
        _numbers(flat, whole * share, flat.size % share, bits, y[whole])
