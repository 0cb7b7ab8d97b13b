"""Convolutions over their own input, and with their update in one. Conventions: `basic.py`."""

from .basic import fill, sgd
from .conv import (
    _each_forward,
    _each_input,
    _each_weight,
    _forward,
    _grouped,
    _input,
    _inside,
    _taps,
    _weight,
)


def _through(F, lines, count, y, height, size, make, more):
    """Rows of an image by make(row, where, more), each written to y when no later one can need
    what lies there: `count` rows later."""
    for i in range(height + count):
        at = lines + i % count * size
        if i >= count:
            for k in range(size):
                F[y + k] = F[at + k]
            y += size
        if i < height:
            fill(F, None, at, size, 0.0)
            make(F, i, at, more)


def _forward_row(F, i, at, more):
    x, w, b, h, wide, c, o, kh, kw, top, left, groups, dh, dw = more
    line = _each_forward if groups == c == o else _forward
    one = (1, h, wide, c, 1, wide, o, kh, kw, 1, 1, top - i, left, groups, dh, dw)
    _taps(F, line, at, x, w, *one)
    if b >= 0:
        for k in range(wide * o):
            F[at + k] += F[b + k % o]


def conv2d_lines(F, B, y, x, w, b, lines, n, h, wide, c, ho, wo, o, kh, kw, sh, sw, *rest):
    for _ in range(n):
        more = (x, w, b, h, wide, c, o, kh, kw) + rest[:5]
        _through(F, lines, rest[5], y, h, wide * o, _forward_row, more)
        x += h * wide * c
        y += h * wide * o


def _input_row(F, r, at, more):
    g, w, h, wide, c, o, kh, kw, top, left, groups, dh, dw = more
    line = _each_input if groups == c == o else _input
    for ki in range(kh):
        i = r + top - ki * dh
        for kj in range(kw):
            shift = left - kj * dw
            first, count = _inside(shift, 1, wide, wide)
            if 0 <= i < h and count:
                q = g + (i * wide + first + shift) * o
                _grouped(F, line, q, at + first * c, w, c, o, groups, count, c)
            w += c // groups * o


def conv2d_vjp_x_lines(F, B, dx, g, w, lines, tap, n, h, wide, c, ho, wo, o, kh, kw, sh, sw, *rest):
    for _ in range(n):
        more = (g, w, h, wide, c, o, kh, kw) + rest[:5]
        _through(F, lines, rest[5], dx, h, wide * c, _input_row, more)
        g += h * wide * o
        dx += h * wide * c


def conv2d_vjp_w_sgd(F, B, y, p, x, g, lr, tap, n, h, wide, c, ho, wo, o, kh, kw, sh, sw, *rest):
    top, left, groups, dh, dw = rest
    line, size = _each_weight if groups == c == o else _weight, c // groups * o
    for t in range(kh * kw):
        fill(F, B, tap, size, 0.0)
        shift = (sh, sw, top - t // kw * dh, left - t % kw * dw, groups, 1, 1)
        _taps(F, line, g, x, tap, n, h, wide, c, ho, wo, o, 1, 1, *shift)
        sgd(F, B, y, p, tap, lr, size)
        y += size
        p += size


KERNELS = {81: conv2d_lines, 82: conv2d_vjp_x_lines, 83: conv2d_vjp_w_sgd}
