"""Convolution and its two gradients for Numba: no scratch but one tap, no padded image.

Every sum is one float32 sum in one order, so a kernel in C can reproduce the bits:

    conv2d        from +0: kernel row, kernel column, input channel, all ascending; taps that fall
                  into the padding are left out (an added zero would not change the sum). Bias last.
    conv2d_vjp_x  from +0 or the stored value: taps last to first, within a tap the gradient's
                  channels ascending.
    conv2d_vjp_w  from +0 or the stored value: image, output row, output column ascending.

Sums are split over calls of the products only where the stored value is read back. Float32 is
enough: the longest sum, the weight gradient's over the pixels of a batch, adds values of either
sign, and its error grows like the root of their number (32 x 32 x 32 terms: about 1e-5).
"""

from numba import cfunc, njit, types

from .numba_gemm import gemm, lanewise, symbol
from .numba_lanes import address, zero
from .numba_step import descend

# Bytes that stay in a first-level cache of 32 KiB (a block of rows), and in a second-level cache
# of 512 KiB (a block of images), beside the weights.
_L1_BLOCK, _L2_BLOCK = 24 * 1024, 256 * 1024


@njit(cache=True, error_model="numpy")
def _tap_range(k, size, out, stride, before, dilation):
    """Output positions [lo, hi) at which tap k reads inside, and the first input position."""
    shift = k * dilation - before
    lo = max(0, -(shift // stride))
    hi = max(lo, min(out, (size - 1 - shift) // stride + 1))
    return lo, hi, lo * stride + shift


@njit(cache=True, error_model="numpy")
def taps_of(position, size, kernel, stride, before, dilation):
    """Taps [lo, hi) that an output position reads inside."""
    first = position * stride - before
    lo = min(kernel, max(0, -(first // dilation)))
    hi = min(kernel, (size - 1 - first) // dilation + 1)
    return lo, max(lo, hi)


@njit(cache=True, error_model="numpy")
def _inside(size, out, kernel, stride, before, dilation):
    """Output positions [lo, hi) at which every tap reads inside."""
    lo = min(out, _tap_range(0, size, out, stride, before, dilation)[0])
    hi = min(out, _tap_range(kernel - 1, size, out, stride, before, dilation)[1])
    return lo, max(lo, hi)


@njit(cache=True, error_model="numpy")
def _pixels(count, down, y, x, w, bias, rows, columns, acc, geometry):
    """`count` output pixels from (y, x) on, downwards or to the right, that read the same taps.

    y, x, w are addresses: of the first pixel, of its window's corner (which may lie outside the
    image), of the first tap.
    """
    wd, (sh, sw, _, _, dh, dw) = geometry[1], geometry[6:12]
    y_row, y_pixel, x_pixel, w_row, w_tap, w_in, c, n, deep = geometry[12:]
    y_step = y_row if down else y_pixel
    x_step = sh * wd * x_pixel if down else sw * x_pixel
    x_row, x_tap = dh * wd * x_pixel, dw * x_pixel
    x += 4 * (rows[0] * x_row + columns[0] * x_tap)
    w += 4 * (rows[0] * w_row + columns[0] * w_tap)
    ko, ki = rows[1] - rows[0], columns[1] - columns[0]
    if deep:
        lanewise(count, n, acc, y, y_step, x, x_step, x_row, x_tap, w, w_row, w_tap, ko, ki, bias)
    elif x_tap == c or ko * ki == 0:  # a kernel row's inputs lie side by side
        gemm(count, n, acc, y, y_step, x, x_step, x_row, 1, w, w_row, w_in, ko, ki * c, bias)
    else:
        for k in range(ko):
            last = bias if k == ko - 1 else 0
            gemm(count, n, acc, y, y_step, x, x_step, x_tap, 1, w, w_tap, w_in, ki, c, last)
            x, w, acc = x + 4 * x_row, w + 4 * w_row, 1


_IMAGE = types.void(*[types.int64] * 26)


@cfunc(_IMAGE, cache=True, error_model="numpy")
def _compiled_image(
    y, x, w, bias, acc, h, wd, ho, wo, kh, kw, sh, sw, top, left, dh, dw,
    y_row, y_pixel, x_pixel, w_row, w_tap, w_in, c, n, deep,
):  # fmt: skip
    """One image (and group): pixels whose window lies inside go in runs, a border pixel's window
    is cut to the taps that fall inside."""
    geometry = (
        *(h, wd, ho, wo, kh, kw, sh, sw, top, left, dh, dw),
        *(y_row, y_pixel, x_pixel, w_row, w_tap, w_in, c, n, deep),
    )
    i0, i1 = _inside(h, ho, kh, sh, top, dh)
    j0, j1 = _inside(wd, wo, kw, sw, left, dw)
    all_columns = (0, kw)
    for i in range(ho):
        rows = taps_of(i, h, kh, sh, top, dh)
        y_here = y + 4 * i * y_row
        x_here = x + 4 * ((i * sh - top) * wd - left) * x_pixel
        if j1 > j0:
            at, corner = y_here + 4 * j0 * y_pixel, x_here + 4 * j0 * sw * x_pixel
            _pixels(j1 - j0, False, at, corner, w, bias, rows, all_columns, acc, geometry)
        # The border columns: of all whole rows at once, of a border row one by one.
        if i0 < i < i1:
            continue
        count = i1 - i0 if i == i0 < i1 else 1
        for k in range(wo - (j1 - j0)):
            j = k if k < j0 else k + j1 - j0
            columns = taps_of(j, wd, kw, sw, left, dw)
            at, corner = y_here + 4 * j * y_pixel, x_here + 4 * j * sw * x_pixel
            _pixels(count, True, at, corner, w, bias, rows, columns, acc, geometry)


_image = symbol("tinytrain_image", _compiled_image, _IMAGE)


@njit(cache=True, error_model="numpy")
def conv2d(y, x, w, b, stride, padding, groups, dilation):
    (images, h, wd, c), (_, ho, wo, o) = x.shape, y.shape
    kh, kw, depth, _ = w.shape
    top, bottom, left, right = padding
    image = h * wd * c
    if kh * kw * stride[0] * stride[1] == 1 and top + bottom + left + right == 0:
        h, wd, ho, wo = 1, h * wd, 1, ho * wo  # 1 x 1: an image is one long row
    deep = depth == 1 and groups == o
    parts, n = (1, o) if deep else (groups, o // groups)
    geometry = (
        *(h, wd, ho, wo, kh, kw, stride[0], stride[1], top, left, dilation[0], dilation[1]),
        *(wo * o, o, c, kw * depth * o, depth * o, o, depth, n, int(deep)),
    )
    bias = 0 if b is None else address(b)
    for k in range(images):
        for part in range(parts):
            _image(
                address(y) + 4 * (k * ho * wo * o + part * n),
                address(x) + 4 * (k * image + part * depth),
                address(w) + 4 * part * n,
                0 if bias == 0 else bias + 4 * part * n,
                0,
                *geometry,
            )


# ---------------------------------------------------------------------------- grad-input


@njit(cache=True, error_model="numpy")
def _transpose_tap(tap, w, i, j, part):
    outs, ins = tap.shape
    for c in range(ins):
        for o in range(outs):
            tap[o, c] = w[i, j, c, part * outs + o]


@njit(cache=True, error_model="numpy")
def _scatter(dx, g, b, i, j, image, part, shape, stride, padding, dilation):
    """dx += g x one tap, for one image and group; b is the tap's address."""
    deep, n, ki = shape
    (_, h, wd, c), (_, ho, wo, o) = dx.shape, g.shape
    h0, h1, row = _tap_range(i, h, ho, stride[0], padding[0], dilation[0])
    w0, w1, column = _tap_range(j, wd, wo, stride[1], padding[2], dilation[1])
    if w1 <= w0:
        return
    for k in range(h1 - h0):
        y = address(dx) + 4 * (((image * h + row + k * stride[0]) * wd + column) * c + part * n)
        a = address(g) + 4 * (((image * ho + h0 + k) * wo + w0) * o + part * ki)
        if deep:
            lanewise(w1 - w0, n, 1, y, stride[1] * c, a, o, 0, 0, b, 0, 0, 1, 1, 0)
        else:
            gemm(w1 - w0, n, 1, y, stride[1] * c, a, o, 0, 1, b, 0, n, 1, ki, 0)


@njit(cache=True, error_model="numpy")
def _phase(first, kernel, stride, before):
    """What input positions first, first + stride, ... read of the gradient: the last tap, the
    number of taps (each `stride` before the last) and the padding of the gradient."""
    lowest = (first + before) % stride
    if lowest >= kernel:
        return 0, 0, 0
    last = lowest + (kernel - 1 - lowest) // stride * stride
    return last, (last - lowest) // stride + 1, (last - first - before) // stride


@njit(cache=True, error_model="numpy")
def _gather_depthwise(dx, g, w, stride, padding, dilation, acc):
    """A depthwise convolution of g at stride 1 with the taps last to first, for each of the
    stride's phases: the inputs that read the same taps. Wants a stride or a dilation of one."""
    (images, h, wd, c), (_, ho, wo, _) = dx.shape, g.shape
    kh, kw = w.shape[:2]
    (sh, sw), (dh, dw) = stride, dilation
    for phase in range(sh * sw):
        i, j = phase // sw, phase % sw
        k, rows, top = _phase(i, kh, sh, padding[0])
        m, columns, left = _phase(j, kw, sw, padding[2])
        if sh == 1:
            top = (kh - 1) * dh - padding[0]
        if sw == 1:
            left = (kw - 1) * dw - padding[2]
        geometry = (
            *(ho, wo, (h - i + sh - 1) // sh, (wd - j + sw - 1) // sw, rows, columns, 1, 1),
            *(top, left, dh, dw, sh * wd * c, sw * c, c, -sh * kw * c, -sw * c, c, 1, c, 1),
        )
        last = address(w) + 4 * (k * kw + m) * c
        for image in range(images):
            y = address(dx) + 4 * ((image * h + i) * wd + j) * c
            _image(y, address(g) + 4 * image * ho * wo * c, last, 0, int(acc), *geometry)


@njit(cache=True, error_model="numpy")
def _pointwise_vjp_x(dx, g, w, tap, groups, acc):
    """Of a 1 x 1 convolution at stride 1: with one tap, no zero has to be stored first."""
    c, o, (n, ki) = dx.shape[3], g.shape[3], (w.shape[2], tap.shape[0])
    for part in range(groups):
        _transpose_tap(tap, w, 0, 0, part)
        y, a = address(dx) + 4 * part * n, address(g) + 4 * part * ki
        gemm(dx.size // c, n, int(acc), y, c, a, o, 0, 1, address(tap), 0, n, 1, ki, 0)


@njit(cache=True, error_model="numpy")
def conv2d_vjp_x(dx, g, w, tap, size, stride, padding, groups, dilation, acc):
    images, c, o = dx.shape[0], dx.shape[3], g.shape[3]
    kh, kw, depth, _ = w.shape
    deep = depth == 1 and groups == o
    if deep and 1 in (stride[0] * stride[1], dilation[0] * dilation[1]):
        _gather_depthwise(dx, g, w, stride, padding, dilation, acc)
        return
    if kh * kw * stride[0] * stride[1] == 1 and not deep and sum(padding) == 0:
        _pointwise_vjp_x(dx, g, w, tap, groups, acc)
        return
    parts, shape = (1, (1, c, 1)) if deep else (groups, (0, depth, o // groups))
    whole = dx.size // max(1, images)
    # A tap is transposed once for as many images as stay in the cache.
    block = max(1, _L2_BLOCK // (4 * (whole + g.size // max(1, images))))
    for first in range(0, images, block):
        last = min(images, first + block)
        if not acc:
            zero(address(dx) + 4 * first * whole, (last - first) * whole)
        for t in range(kh * kw * parts):
            place, part = kh * kw - 1 - t // parts, t % parts
            i, j = place // kw, place % kw
            if deep:
                b = address(w) + 4 * place * c
            else:
                _transpose_tap(tap, w, i, j, part)
                b = address(tap)
            for image in range(first, last):
                _scatter(dx, g, b, i, j, image, part, shape, stride, padding, dilation)


# ---------------------------------------------------------------------------- grad-weight


@njit(cache=True, error_model="numpy")
def _weights_of_rows(dw, x, g, image, begin, end, part, deep, stride, padding, dilation):
    """dw += what output rows [begin, end) of one image give, for one group (or depthwise)."""
    (_, h, wd, c), (_, ho, wo, o) = x.shape, g.shape
    kh, kw, depth, _ = dw.shape
    n = o * depth // c
    x_row, x_step, g_row = stride[0] * wd * c, stride[1] * c, wo * o
    for i in range(kh):
        h0, h1, _ = _tap_range(i, h, ho, stride[0], padding[0], dilation[0])
        h0, h1 = max(h0, begin), min(h1, end)
        row = h0 * stride[0] + i * dilation[0] - padding[0]
        for j in range(kw):
            w0, w1, column = _tap_range(j, wd, wo, stride[1], padding[2], dilation[1])
            ko, ki = h1 - h0, w1 - w0
            if ko <= 0 or ki <= 0:
                continue
            y = address(dw) + 4 * ((i * kw + j) * depth * o + part * n)
            a = address(x) + 4 * (((image * h + row) * wd + column) * c + part * depth)
            b = address(g) + 4 * (((image * ho + h0) * wo + w0) * o + part * n)
            if deep:
                lanewise(1, o, 1, y, 0, a, 0, x_row, x_step, b, g_row, o, ko, ki, 0)
            else:
                gemm(depth, n, 1, y, o, a, 1, x_row, x_step, b, g_row, o, ko, ki, 0)


@njit(cache=True, error_model="numpy")
def conv2d_vjp_w(dw, x, g, kernel, stride, padding, groups, dilation, acc):
    (images, _, wd, c), (_, ho, wo, o) = x.shape, g.shape
    if not acc:
        zero(address(dw), dw.size)
    deep = dw.shape[2] == 1 and groups == o
    # All taps of a few rows before the next rows: both operands stay in the cache.
    block = max(1, _L1_BLOCK // (4 * (stride[0] * wd * c + wo * o)))
    for image in range(images):
        for begin in range(0, ho, block):
            end = min(ho, begin + block)
            for part in range(1 if deep else groups):
                _weights_of_rows(dw, x, g, image, begin, end, part, deep, stride, padding, dilation)


@njit(cache=True, error_model="numpy")
def conv2d_vjp_w_sgd(y, p, x, g, lr, tap, kernel, stride, padding, groups, dilation):
    (images, h, wd, c), (_, ho, wo, o) = x.shape, g.shape
    kh, kw, depth, _ = p.shape
    deep = depth == 1 and groups == o
    parts, n = (1, o) if deep else (groups, o // groups)
    for place in range(kh * kw):
        i, j = place // kw, place % kw
        h0, h1, row = _tap_range(i, h, ho, stride[0], padding[0], dilation[0])
        w0, w1, column = _tap_range(j, wd, wo, stride[1], padding[2], dilation[1])
        zero(address(tap), tap.size)
        for image in range(images if h1 > h0 and w1 > w0 else 0):
            for part in range(parts):
                to = address(tap) + 4 * part * n
                at = address(x) + 4 * (((image * h + row) * wd + column) * c + part * depth)
                of = address(g) + 4 * (((image * ho + h0) * wo + w0) * o + part * n)
                a_step, ko, ki = (stride[0] * wd * c, stride[1] * c), h1 - h0, w1 - w0
                if deep:
                    lanewise(1, o, 1, to, 0, at, 0, *a_step, of, wo * o, o, ko, ki, 0)
                else:
                    gemm(depth, n, 1, to, o, at, 1, *a_step, of, wo * o, o, ko, ki, 0)
        shift = 4 * place * tap.size
        descend(address(y) + shift, address(p) + shift, address(tap), lr[()], tap.size)
