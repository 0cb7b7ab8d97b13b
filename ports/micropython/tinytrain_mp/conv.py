"""Convolutions of any groups and dilation, and their two gradients. Conventions: `basic.py`."""

from .basic import fill, product


def _taps(F, row, y, x, w, n, h, wide, c, ho, wo, o, kh, kw, sh, sw, top, left, groups, dh, dw):
    """row(F, y, x, w, channels in, channels out, w's row) at each tap that touches the image."""
    if groups == c == o:  # depthwise: all channels in one row
        c_row, o_row, count = 1, o, 1
    else:
        c_row, o_row, count = c // groups, o // groups, groups
    for _ in range(n):
        for i in range(ho):
            for j in range(wo):
                tap = w
                for ki in range(kh):
                    r = i * sh - top + ki * dh
                    for kj in range(kw):
                        s = j * sw - left + kj * dw
                        if 0 <= r < h and 0 <= s < wide:
                            p = x + (r * wide + s) * c
                            for g in range(count):
                                row(
                                    F,
                                    y + g * o_row,
                                    p + g * c_row,
                                    tap + g * o_row,
                                    c_row,
                                    o_row,
                                    o,
                                )
                        tap += c // groups * o
                y += o
        x += h * wide * c


def _forward(F, y, x, w, c, o, step):
    product(F, y, x, w, 1, o, c, 1, 0, 0, 0, 1, 1, step)


def _input(F, g, dx, w, c, o, step):
    product(F, dx, g, w, 1, c, o, 1, 0, 0, 0, 1, step, 1)


def _weight(F, g, x, dw, c, o, step):
    product(F, dw, x, g, c, o, 1, 1, step, 1, 0, 0, 1, 0)


def _each_forward(F, y, x, w, c, o, step):
    product(F, y, x, w, 1, o, 1, 1, 0, 0, 1, 0, 1, 0)


def _each_input(F, g, dx, w, c, o, step):
    product(F, dx, g, w, 1, o, 1, 1, 0, 0, 1, 0, 1, 0)


def _each_weight(F, g, x, dw, c, o, step):
    product(F, dw, g, x, 1, o, 1, 1, 0, 0, 1, 0, 1, 0)


def conv2d(F, B, y, x, w, b, *words):
    n, _, _, c, ho, wo, o = words[:7]
    fill(F, B, y, n * ho * wo * o, 0.0)
    _taps(F, _each_forward if words[13] == c == o else _forward, y, x, w, *words)
    if b >= 0:
        for k in range(n * ho * wo * o):
            F[y + k] += F[b + k % o]


def conv2d_vjp_x(F, B, dx, g, w, tap, *words):
    n, h, wide, c, _, _, o = words[:7]
    if not words[16]:
        fill(F, B, dx, n * h * wide * c, 0.0)
    _taps(F, _each_input if words[13] == c == o else _input, g, dx, w, *words[:16])


def conv2d_vjp_w(F, B, dw, x, g, *words):
    c, o, groups = words[3], words[6], words[13]
    if not words[16]:
        fill(F, B, dw, words[7] * words[8] * (c // groups) * o, 0.0)
    _taps(F, _each_weight if groups == c == o else _weight, g, x, dw, *words[:16])


KERNELS = {52: conv2d, 53: conv2d_vjp_x, 54: conv2d_vjp_w}
