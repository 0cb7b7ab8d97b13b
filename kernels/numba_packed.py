"""Weight gradients that read a packed value for Numba: a few rows are dense at a time, in `rows`.

The sums are those of `conv2d_vjp_w` and `matmul_tn`, term by term: there a sum goes on from the
stored value with the next rows, so it does not matter where the rows are parted.
"""

import numpy as np
from numba import njit

from .numba_bits import unpack
from .numba_conv import conv2d_vjp_w
from .numba_lanes import address, zero
from .numba_matmul import blocked
from .numba_walk import Choice


@njit(cache=True, error_model="numpy")
def _count_each(mask, begin, end):
    count = 0
    for k in range(begin, end):
        count += (mask[k >> 3] >> (k & 7)) & 1
    return count


@njit(cache=True, error_model="numpy")
def _count(mask, begin, end):
    """Set bits among elements [begin, end), a byte at a time where whole ones are."""
    first = min(end, begin + (-begin & 7))
    last = max(first, end - (end & 7))
    count = _count_each(mask, begin, first) + _count_each(mask, last, end)
    for k in range(first >> 3, last >> 3):
        byte = np.int64(mask[k])
        byte -= (byte >> 1) & 0x55
        byte = (byte & 0x33) + ((byte >> 2) & 0x33)
        count += (byte + (byte >> 4)) & 15
    return count


@njit(cache=True, error_model="numpy")
def _packed_vjp_w(
    dw, mask, values, g, window, shape, kernel, stride, padding, groups, dilation, acc
):
    """dw += the gradient, as many rows of g at a time as `window` (uint32) has room for."""
    (images, h, wd, c), (_, ho, wo, o), row = shape, g.shape, shape[2] * shape[3]
    if not acc:
        zero(address(dw), dw.size)
    extent, step, top = (kernel[0] - 1) * dilation[0] + 1, stride[0], padding[0]
    bits, rows = window.reshape(-1), window.view(np.float32)
    most = rows.shape[0]
    block = ho if most >= h else (most - extent) // step + 1
    lines = g.reshape(images * ho, wo, o)
    done = at = 0  # elements passed, and the non-zeros among them
    for image in range(images):
        held = base = image * h  # of all images' rows, `rows` holds [base, held)
        for begin in range(0, ho, block):
            end = min(ho, begin + block)
            first = begin * step - top
            low = min(h, max(0, first))
            high = min(h, (end - 1) * step + extent - top)
            if high <= low:
                continue
            start, stop = image * h + low, image * h + high
            stay = max(0, held - start) * row  # what the last rows of g read too
            for k in range(stay):
                bits[k] = bits[(start - base) * row + k]
            fresh = start * row + stay
            at += _count(mask, done, fresh)
            at = unpack(bits, stay, mask, values, fresh, stop * row, at)
            done, base, held = stop * row, start, stop
            x = rows[: high - low].reshape(1, high - low, wd, c)
            part = lines[image * ho + begin : image * ho + end].reshape(1, end - begin, wo, o)
            around = (low - first, 0, padding[2], padding[3])
            conv2d_vjp_w(dw, x, part, kernel, stride, around, groups, dilation, True)


@Choice
def bitmap_conv2d_vjp_w(
    dw, mask, values, g, rows, shape, kernel, stride, padding, groups, dilation, acc
):
    bits = values.view(np.uint32), g, rows.view(np.uint32)
    return _packed_vjp_w, (
        *(dw, mask, *bits, shape, kernel, stride, padding, groups, dilation, bool(acc)),
    )


@njit(cache=True, error_model="numpy")
def _packed_tn(y, mask, values, g, window, acc):
    (most, m), n, bits = window.shape, g.shape[-1], window.reshape(-1)
    k, at = g.size // n, 0
    if not acc:
        zero(address(y), y.size)
    for first in range(0, k, most):
        count = min(most, k - first)
        at = unpack(bits, 0, mask, values, first * m, (first + count) * m, at)
        b = address(g) + 4 * first * n
        blocked(False, m, n, count, True, address(y), address(window), 1, m, b, n)


@Choice
def bitmap_matmul_tn(y, mask, values, g, rows, shape, flat, acc):
    return _packed_tn, (y, mask, values.view(np.uint32), g, rows.view(np.uint32), bool(acc))
