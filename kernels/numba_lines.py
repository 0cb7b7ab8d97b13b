"""Convolution and grad-input over their own input, a few lines at a time, for Numba.

Stride 1 and rows of one size in and out. `lines` holds output rows until nobody reads the input
rows below them any more. Every sum is the one of `numba_conv`, in its order, so the bits are the
same.
"""

from numba import njit

from .numba_conv import _PANEL, _image, _tap_range, _transpose_tap, _turn_panel
from .numba_gemm import gemm
from .numba_lanes import LANES, address, load, on_stack, store, zero

_WHOLE = 40 * 1024  # float32 of a kernel that is turned as a whole on the stack


@njit(cache=True, error_model="numpy")
def _copy(to, source, count):
    """`count` float32, ascending: `to` may lie below `source` and overlap it."""
    for k in range(0, count, LANES):
        store(load(source + 4 * k, count - k), to + 4 * k, count - k)


@njit(cache=True, error_model="numpy")
def _flush(lines, target, row, done, ready, made):
    """Of the output rows [done, made) in `lines`, write those below `ready` where they belong."""
    _copy(target + 4 * done * row, lines, (ready - done) * row)
    _copy(lines, lines + 4 * (ready - done) * row, (made - ready) * row)
    return ready


@njit(cache=True)
def _strip_of(lines, rows, waiting):
    """Output rows to make at a time, of which `waiting` may have to wait: all where there are as
    many lines."""
    return rows if lines >= rows else lines - min(waiting, rows - 1)


@njit(cache=True, error_model="numpy")
def _gather_panels(y, g, panels, shape, kernel, view):
    """Rows of dx, at y, from the rows of g that they read; y, g and panels, the turned kernel for
    _PANEL input channels after the other, are addresses."""
    (seen, wd, rows, c, o), (kh, kw), (top, left, dh, dw) = shape, kernel, view
    for k in range(0, c, _PANEL):
        n = min(_PANEL, c - k)
        _image(
            *(y + 4 * k, g, panels + 4 * k * kh * kw * o, 0, 0),
            *(seen, wd, rows, wd, kh, kw, 1, 1, top, left, dh, dw, wd * c, c, o),
            *(kw * o * n, o * n, n, o, n, 0),
        )


@njit(cache=True, error_model="numpy")
def conv2d_lines(y, x, w, b, lines, stride, padding, groups, dilation):
    (images, h, wd, c), (kh, kw, depth, o) = x.shape, w.shape
    top, left, reach = padding[0], padding[2], (kh - 1) * dilation[0] + 1
    strip, deep = _strip_of(lines.shape[0], h, top), depth == 1 and groups == o
    parts, n = (1, o) if deep else (groups, o // groups)
    bias = 0 if b is None else address(b)
    for k in range(images):
        source, target, done = address(x) + 4 * k * h * wd * c, address(y) + 4 * k * h * wd * o, 0
        for i in range(0, h, strip):
            rows = min(strip, h - i)
            lo, hi = max(0, i - top), min(h, i - top + rows - 1 + reach)
            geometry = (
                *(hi - lo, wd, rows, wd, kh, kw, 1, 1, lo - (i - top), left),
                *(dilation[0], dilation[1], wd * o, o, c, kw * depth * o, depth * o, o, depth, n),
                int(deep),
            )
            for part in range(parts):
                _image(
                    address(lines) + 4 * ((i - done) * wd * o + part * n),
                    source + 4 * (lo * wd * c + part * depth),
                    address(w) + 4 * part * n,
                    0 if bias == 0 else bias + 4 * part * n,
                    0,
                    *geometry,
                )
            ready = h if i + rows == h else max(0, i + rows - top)
            done = _flush(address(lines), target, wd * o, done, ready, i + rows)


@njit(cache=True, error_model="numpy")
def _scatter_rows(y, g, w, tap, groups, shape, window):
    """Rows of dx from i on, at y, from rows [lo, hi) of the image g, a tap after the other."""
    (i, rows, lo, hi, wd, c, o), (padding, dilation), (kh, kw, depth, _) = shape, window, w.shape
    ki = tap.shape[0]
    zero(y, rows * wd * c)
    for t in range(kh * kw * groups):
        place, part = kh * kw - 1 - t // groups, t % groups
        _transpose_tap(tap, w, place // kw, place % kw, part)
        # Where in the row this tap reads inside, and the rows of dx that it reaches.
        w0, w1, column = _tap_range(place % kw, wd, wd, 1, padding[2], dilation[1])
        shift = place // kw * dilation[0] - padding[0]
        for line in range(max(lo, i - shift), min(hi, i + rows - shift)):
            to = y + 4 * (((line + shift - i) * wd + column) * c + part * depth)
            at = g + 4 * ((line * wd + w0) * o + part * ki)
            gemm(
                *(w1 - w0, depth, 1, to, c, at, o, 0, 1, address(tap), 0, depth, 1, ki),
                *(0, 0, 0, 0),
            )


@njit(cache=True, error_model="numpy")
def conv2d_vjp_x_lines(dx, g, w, lines, tap, size, stride, padding, groups, dilation):
    (images, h, wd, c), o, (kh, kw, depth, _) = dx.shape, g.shape[3], w.shape
    deep, (dh, dw) = depth == 1 and groups == o, dilation
    reach = (kh - 1) * dh + 1
    before, left = reach - 1 - padding[0], (kw - 1) * dw - padding[2]  # of the gradient, as padding
    strip = _strip_of(lines.shape[0], h, before)
    last = address(w) + 4 * (kh * kw - 1) * c
    panels, small = on_stack(_WHOLE), groups == 1 and not deep and w.size <= _WHOLE
    for first in range(0, c if small else 0, _PANEL):
        _turn_panel(panels + 4 * first * kh * kw * o, w, 0, first, min(_PANEL, c - first), o)
    for k in range(images):
        source, target, done = address(g) + 4 * k * h * wd * o, address(dx) + 4 * k * h * wd * c, 0
        for i in range(0, h, strip):
            rows, y = min(strip, h - i), address(lines) + 4 * (i - done) * wd * c
            lo, hi = max(0, i - before), min(h, i - before + rows - 1 + reach)
            if deep:
                geometry = (
                    *(hi - lo, wd, rows, wd, kh, kw, 1, 1, lo - (i - before)),
                    *(left, dh, dw, wd * c, c, c, -kw * c, -c, c, 1, c, 1),
                )
                _image(y, source + 4 * lo * wd * o, last, 0, 0, *geometry)
            elif small:
                shape, view = (hi - lo, wd, rows, c, o), (lo - (i - before), left, dh, dw)
                _gather_panels(y, source + 4 * lo * wd * o, panels, shape, (kh, kw), view)
            else:
                shape, window = (i, rows, lo, hi, wd, c, o), (padding, dilation)
                _scatter_rows(y, source, w, tap, groups, shape, window)
            ready = h if i + rows == h else max(0, i + rows - before)
            done = _flush(address(lines), target, wd * c, done, ready, i + rows)
