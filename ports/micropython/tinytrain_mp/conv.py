"""Convolutions of any groups and dilation, and their two gradients. Conventions: `basic.py`."""

from .basic import fill, product


def _inside(shift, step, size, count):
    """The first of `count` output places whose tap lies inside, and how many do."""
    first = max(0, -(shift // step))
    return first, max(0, min(count, (size - 1 - shift) // step + 1) - first)


def _taps(F, line, y, x, w, n, h, wide, c, ho, wo, o, kh, kw, sh, sw, top, left, groups, dh, dw):
    """line(...) for each line of an output image and each tap of the kernel that touches it."""
    for _ in range(n):
        for i in range(ho):
            tap = w
            for ki in range(kh):
                r = i * sh - top + ki * dh
                for kj in range(kw):
                    first, count = _inside(kj * dw - left, sw, wide, wo)
                    if 0 <= r < h and count:
                        p = x + (r * wide + first * sw + kj * dw - left) * c
                        _grouped(F, line, y + first * o, p, tap, c, o, groups, count, sw * c)
                    tap += c // groups * o
            y += wo * o
        x += h * wide * c


def _grouped(F, line, y, x, w, c, o, groups, count, xs):
    """line(F, y, x, w, channels in and out of a group, pixels, from one to the next in x and y)."""
    if groups == c == o:  # depthwise: all channels at once
        return line(F, y, x, w, 1, o, count, xs, o)
    for g in range(groups):
        i, j = g * (c // groups), g * (o // groups)
        line(F, y + j, x + i, w + j, c // groups, o // groups, count, xs, o)


def _forward(F, y, x, w, c, o, count, xs, ys):
    product(F, y, x, w, count, o, c, 1, ys, xs, 0, 1, 1, ys)


def _input(F, g, dx, w, c, o, count, xs, ys):
    product(F, dx, g, w, count, c, o, 1, xs, ys, 0, 1, ys, 1)


def _weight(F, g, x, dw, c, o, count, xs, ys):
    product(F, dw, x, g, c, o, count, 1, ys, 1, 0, xs, 1, ys)


def _each_forward(F, y, x, w, c, o, count, xs, ys):
    product(F, y, x, w, count, o, 1, 1, ys, xs, 1, 0, 1, 0)


def _each_input(F, g, dx, w, c, o, count, xs, ys):
    product(F, dx, g, w, count, o, 1, 1, xs, ys, 1, 0, 1, 0)


def _each_weight(F, g, x, dw, c, o, count, xs, ys):
    product(F, dw, g, x, 1, o, count, 1, 0, 0, 1, ys, 1, xs)


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
