"""Convolution and its two gradients for Numba: no scratch but taps, no padded image.

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

from .numba_gemm import gemm, lanewise, symbol, turn
from .numba_lanes import address, on_stack, zero
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
        steps = x_row, x_tap, w, w_row, w_tap
        lanewise(count, n, acc, y, y_step, x, x_step, *steps, ko, ki, bias, 0, 0, 0)
    elif (x_tap == c and w_tap == c * w_in) or ko * ki == 0:
        # a kernel row's inputs lie side by side, and its weights
        gemm(
            count, n, acc, y, y_step, x, x_step, x_row, 1, w, w_row, w_in, ko, ki * c, bias, 0, 0, 0
        )
    else:
        for k in range(ko):
            last, steps = bias if k == ko - 1 else 0, (x_tap, 1, w, w_tap, w_in)
            gemm(count, n, acc, y, y_step, x, x_step, *steps, ki, c, last, 0, 0, 0)
            x, w, acc = x + 4 * x_row, w + 4 * w_row, 1


_IMAGE = types.void(*[types.int64] * 26)


@cfunc(_IMAGE, cache=True, error_model="numpy")
def _compiled_image(
    y, x, w, bias, acc, h, wd, ho, wo, kh, kw, sh, sw, top, left, dh, dw,
    y_row, y_pixel, x_pixel, w_row, w_tap, w_in, c, n, deep,
):  # fmt: skip
    """One image (and group). The pixels that read the same taps are a rectangle: the inside, a
    border row or column, a corner. It is walked in runs along its longer side."""
    geometry = (
        *(h, wd, ho, wo, kh, kw, sh, sw, top, left, dh, dw),
        *(y_row, y_pixel, x_pixel, w_row, w_tap, w_in, c, n, deep),
    )
    i0, i1 = _inside(h, ho, kh, sh, top, dh)
    j0, j1 = _inside(wd, wo, kw, sw, left, dw)
    i = 0
    while i < ho:
        rows, down, j = i1 - i if i0 <= i < i1 else 1, taps_of(i, h, kh, sh, top, dh), 0
        while j < wo:
            columns, across = j1 - j if j0 <= j < j1 else 1, taps_of(j, wd, kw, sw, left, dw)
            to = y + 4 * (i * y_row + j * y_pixel)
            at = x + 4 * ((i * sh - top) * wd + j * sw - left) * x_pixel
            if columns >= rows:
                for k in range(rows):
                    here, source = to + 4 * k * y_row, at + 4 * k * sh * wd * x_pixel
                    _pixels(columns, False, here, source, w, bias, down, across, acc, geometry)
            else:
                for k in range(columns):
                    here, source = to + 4 * k * y_pixel, at + 4 * k * sw * x_pixel
                    _pixels(rows, True, here, source, w, bias, down, across, acc, geometry)
            j += columns
        i += rows


_image = symbol("tinytrain_image", _compiled_image, _IMAGE)


@njit(cache=True, error_model="numpy")
def conv2d(y, x, w, b, stride, padding, groups, dilation):
    (images, h, wd, c), (_, ho, wo, o) = x.shape, y.shape
    kh, kw, depth, _ = w.shape
    top, bottom, left, right = padding
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
                address(x) + 4 * (k * h * wd * c + part * depth),
                address(w) + 4 * part * n,
                0 if bias == 0 else bias + 4 * part * n,
                0,
                *geometry,
            )


# ---------------------------------------------------------------------------- grad-input


@njit(cache=True, error_model="numpy")
def _transpose_tap(tap, w, i, j, part):
    (outs, ins), (_, kw, depth, o) = tap.shape, w.shape
    turn(address(tap), ins, address(w) + 4 * ((i * kw + j) * depth * o + part * outs), o, ins, outs)


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
            lanewise(w1 - w0, n, 1, y, stride[1] * c, a, o, 0, 0, b, 0, 0, 1, 1, 0, 0, 0, 0)
        else:
            gemm(w1 - w0, n, 1, y, stride[1] * c, a, o, 0, 1, b, 0, n, 1, ki, 0, 0, 0, 0)


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
def _gather(dx, g, w, tap, walked, kernel, stride, padding, dilation, acc):
    """A convolution of g at stride 1 with the taps last to first, for each of the stride's phases:
    the inputs that read the same taps. Wants a stride or a dilation of one. dx, g and w are shape
    and address: w of the last tap, the one before it lies `tap` further."""
    (images, h, wd, c), to = dx
    (_, ho, wo, o), at = g
    (kh, kw), (sh, sw), (dh, dw) = kernel, stride, dilation
    w_in, ins, n, deep = walked
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
            *(top, left, dh, dw, sh * wd * c, sw * c, o, sh * kw * tap, sw * tap),
            *(w_in, ins, n, deep),
        )
        last = w + 4 * (kh * kw - 1 - k * kw - m) * tap
        for image in range(images):
            y = to + 4 * ((image * h + i) * wd + j) * c
            _image(y, at + 4 * image * ho * wo * o, last, 0, int(acc), *geometry)


# All taps of a few input channels are turned at once on the stack: lanes, and float32 there.
_PANEL, _ROOM = 16, 16 * 1024


@njit(cache=True, error_model="numpy")
def _turn_panel(panel, w, part, c, lanes, n):
    """All taps of `lanes` input channels from c on, turned, last to first; n are a group's
    outputs."""
    (_, _, depth, o), taps = w.shape, w.shape[0] * w.shape[1]
    for t in range(taps):
        to = panel + 4 * (taps - 1 - t) * n * lanes
        turn(to, lanes, address(w) + 4 * ((t * depth + c) * o + part * n), o, lanes, n)


@njit(cache=True, error_model="numpy")
def _gather_dense(dx, g, w, stride, padding, groups, dilation, acc):
    panel, (kh, kw, depth, _), n = on_stack(_ROOM), w.shape, w.shape[3] // groups
    for part in range(groups):
        for c in range(0, depth, _PANEL):
            lanes = min(_PANEL, depth - c)
            _turn_panel(panel, w, part, c, lanes, n)
            _gather(
                (dx.shape, address(dx) + 4 * (part * depth + c)),
                (g.shape, address(g) + 4 * part * n),
                *(panel, n * lanes, (lanes, n, lanes, 0)),
                *((kh, kw), stride, padding, dilation, acc),
            )


@njit(cache=True, error_model="numpy")
def _pointwise_vjp_x(dx, g, w, tap, groups, acc):
    """Of a 1 x 1 convolution at stride 1: with one tap, no zero has to be stored first."""
    c, o, (n, ki) = dx.shape[3], g.shape[3], (w.shape[2], tap.shape[0])
    for part in range(groups):
        _transpose_tap(tap, w, 0, 0, part)
        y, a = address(dx) + 4 * part * n, address(g) + 4 * part * ki
        gemm(dx.size // c, n, int(acc), y, c, a, o, 0, 1, address(tap), 0, n, 1, ki, 0, 0, 0, 0)


@njit(cache=True, error_model="numpy")
def conv2d_vjp_x(dx, g, w, tap, size, stride, padding, groups, dilation, acc):
    images, c, o = dx.shape[0], dx.shape[3], g.shape[3]
    kh, kw, depth, _ = w.shape
    deep = depth == 1 and groups == o
    plain = stride[0] * stride[1] == 1 or dilation[0] * dilation[1] == 1
    if deep and plain:
        last = address(w) + 4 * (kh * kw - 1) * c
        outs, ins = (dx.shape, address(dx)), (g.shape, address(g))
        _gather(outs, ins, last, -c, (c, 1, c, 1), (kh, kw), stride, padding, dilation, acc)
        return
    if kh * kw * stride[0] * stride[1] == 1 and not deep and sum(padding) == 0:
        _pointwise_vjp_x(dx, g, w, tap, groups, acc)
        return
    if plain and kh * kw * (o // groups) * _PANEL <= _ROOM:
        _gather_dense(dx, g, w, stride, padding, groups, dilation, acc)
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
def _of_taps(y, x, g, i, j, count, part, h0, h1, acc, less, rate, shape, window):
    """What output rows [h0, h1) of some images give to `count` taps, from (i, j) down, one below
    the other; y, x, g and less are addresses. More than one only if a group has one channel."""
    (_, wd, c), (_, wo, o), (kw, depth, n, deep) = shape
    stride, padding, dilation = window
    w0, w1, column = _tap_range(j, wd, wo, stride[1], padding[2], dilation[1])
    ko, ki = max(0, h1 - h0), w1 - w0
    if ko * ki == 0 and acc:
        return
    row = h0 * stride[0] + i * dilation[0] - padding[0]
    a = x + 4 * ((row * wd + column) * c + part * depth)
    b = g + 4 * ((h0 * wo + w0) * o + part * n)
    m, c_rs, a_rs = depth, o, 1
    if depth == 1:  # the taps are the rows of the product
        m, c_rs, a_rs = count, kw * o, dilation[0] * wd * c
    steps = (stride[0] * wd * c, stride[1] * c, b, wo * o, o, ko, ki, 0)
    y, less = y + 4 * part * n, less + 4 * part * n if less != 0 else 0
    if deep:
        lanewise(m, n, acc, y, c_rs, a, a_rs, *steps, less, rate, 0)
    else:
        gemm(m, n, acc, y, c_rs, a, a_rs, *steps, less, rate, 0)


@njit(cache=True, error_model="numpy")
def _of_column(y, x, g, j, part, begin, end, kh, shape, window):
    """dw += what output rows [begin, end) of one image and group give to kernel column j."""
    (h, _, _), (ho, _, o), (kw, depth, _, _) = shape
    step, before, apart = window[0][0], window[1][0], window[2][0]
    lo, hi = _inside(h, ho, kh, step, before, apart)  # the rows that every tap reads inside
    lo, hi = max(lo, begin), min(hi, end)
    together = depth == 1 and hi > lo
    for i in range(kh):
        h0, h1, _ = _tap_range(i, h, ho, step, before, apart)
        to, h0, h1 = y + 4 * (i * kw + j) * depth * o, max(h0, begin), min(h1, end)
        _of_taps(to, x, g, i, j, 1, part, h0, lo if together else h1, 1, 0, 0, shape, window)
    if together:
        _of_taps(y + 4 * j * o, x, g, 0, j, kh, part, lo, hi, 1, 0, 0, shape, window)
        for i in range(kh):
            h1 = min(end, _tap_range(i, h, ho, step, before, apart)[1])
            to = y + 4 * (i * kw + j) * o
            _of_taps(to, x, g, i, j, 1, part, hi, h1, 1, 0, 0, shape, window)


@njit(cache=True, error_model="numpy")
def conv2d_vjp_w(dw, x, g, kernel, stride, padding, groups, dilation, acc):
    (images, h, wd, c), (_, ho, wo, o) = x.shape, g.shape
    if not acc:
        zero(address(dw), dw.size)
    kh, kw, depth, _ = dw.shape
    deep = depth == 1 and groups == o
    parts, n = (1, o) if deep else (groups, o // groups)
    shape = (h, wd, c), (ho, wo, o), (kw, depth, n, int(deep))
    window = stride, padding, dilation
    # All taps of a few rows before the next rows: both operands stay in the cache.
    block = max(1, _L1_BLOCK // (4 * (stride[0] * wd * c + wo * o)))
    for image in range(images):
        at, source = address(x) + 4 * image * h * wd * c, address(g) + 4 * image * ho * wo * o
        for begin in range(0, ho, block):
            end = min(ho, begin + block)
            for k in range(kw * parts):
                j, part = k // parts, k % parts
                _of_column(address(dw), at, source, j, part, begin, end, kh, shape, window)


@njit(cache=True, error_model="numpy")
def conv2d_vjp_w_sgd(y, p, x, g, lr, tap, kernel, stride, padding, groups, dilation):
    (images, h, wd, c), (_, ho, wo, o) = x.shape, g.shape
    kh, kw, depth, _ = p.shape
    deep = depth == 1 and groups == o
    parts, n = (1, o) if deep else (groups, o // groups)
    if kh * kw * stride[0] * stride[1] == 1 and sum(padding) == 0:
        images, h, wd, ho, wo = 1, 1, images * h * wd, 1, images * ho * wo  # one long row
    shape = (h, wd, c), (ho, wo, o), (kw, depth, n, int(deep))
    window = stride, padding, dilation
    for place in range(kh * kw):
        i, j = place // kw, place % kw
        h0, h1, _ = _tap_range(i, h, ho, stride[0], padding[0], dilation[0])
        shift = 4 * place * tap.size
        if images > 1:
            zero(address(tap), tap.size)
        for k in range(images * parts):
            image, part = k // parts, k % parts
            # With one image a tap is one product, which meets its weights in registers.
            to, less = address(tap), 0
            if images == 1:
                to, less = address(y) + shift, address(p) + shift
            at, source = address(x) + 4 * image * h * wd * c, address(g) + 4 * image * ho * wo * o
            rest = int(images > 1), less, address(lr), shape, window
            _of_taps(to, at, source, i, j, 1, part, h0, h1, *rest)
        if images > 1:
            descend(address(y) + shift, address(p) + shift, address(tap), lr[()], tap.size)
