"""The reference kernels: clear NumPy in any float dtype, no cleverness, one function a row.

Destination first: `kernel(*outs, *ins, *work, *attrs[, acc])`. Outs, ins and work are arrays,
attrs plain numbers and tuples; nothing is returned. What NumPy allocates for itself within a call
is gone when the call returns and is not part of a plan. Names follow the rows; where one would
hide a Python builtin it ends in an underscore.
"""

import numpy as np
from numpy.lib.stride_tricks import as_strided

SQRT_2_OVER_PI = 0.7978845608028654
GELU_CUBIC = 0.044715  # Hendrycks and Gimpel 2016, tanh form


def _put(out, value, acc):
    if acc:
        np.add(out, value, out=out)
    else:
        out[...] = value


# ---------------------------------------------------------------------------- elementwise


def add(y, a, b):
    np.add(a, b, out=y)


def sub(y, a, b):
    np.subtract(a, b, out=y)


def mul(y, a, b):
    np.multiply(a, b, out=y)


def div(y, a, b):
    np.divide(a, b, out=y)


def div_vjp_b(dx, g, y, b):
    np.divide(-g * y, b, out=dx)


def neg(y, x):
    np.negative(x, out=y)


def scale(y, x, factor):
    np.multiply(x, x.dtype.type(factor), out=y)


def pow_(y, x, exponent):
    # Not into y at once: NumPy 1.24 takes another loop, with other bits, where y lies over x.
    y[...] = np.power(x, x.dtype.type(exponent))


def pow_vjp(dx, g, x, exponent):
    e = x.dtype.type(exponent)
    np.multiply(g, e * np.power(x, e - 1) if e else 0, out=dx)


def exp(y, x):
    np.exp(x, out=y)


def log(y, x):
    np.log(x, out=y)


def sqrt(y, x):
    np.sqrt(x, out=y)


def sqrt_vjp(dx, g, y):
    np.divide(g, 2 * y, out=dx)


def abs_(y, x):
    np.abs(x, out=y)


def abs_vjp(dx, g, x):
    np.multiply(g, np.sign(x), out=dx)


def tanh(y, x):
    np.tanh(x, out=y)


def tanh_vjp(dx, g, y):
    np.multiply(g, 1 - y * y, out=dx)


def _logistic(x):
    """1 / (1 + exp(-x)) without overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def sigmoid(y, x):
    y[...] = _logistic(x)


def sigmoid_vjp(dx, g, y):
    np.multiply(g, y * (1 - y), out=dx)


def relu(y, x):
    np.maximum(x, 0, out=y)


def relu_vjp(dx, g, y):
    np.multiply(g, y > 0, out=dx)


def relu6(y, x):
    np.clip(x, 0, 6, out=y)


def relu6_vjp(dx, g, y):
    np.multiply(g, (y > 0) & (y < 6), out=dx)


def gate_mask(mask, y, gate):
    passes = (y > 0) & (y < 6) if gate == "relu6" else y > 0
    mask[...] = np.packbits(passes.reshape(-1), bitorder="little")


def gate_mask_vjp(dx, g, mask):
    passes = np.unpackbits(mask, count=g.size, bitorder="little").reshape(g.shape)
    np.multiply(g, passes, out=dx)


def _bits(x):
    return x.reshape(-1).view(f"u{x.itemsize}")


def bitmap_pack(mask, values, count, x, capacity):
    nonzero = _bits(x) != 0  # +0 alone is zero; -0 and NaN have bits
    mask[...] = np.packbits(nonzero, bitorder="little")
    count[...] = np.count_nonzero(nonzero)
    kept = _bits(x)[nonzero][:capacity]
    _bits(values)[: kept.size] = kept


def topk_pack(mask, values, x, histogram, k):
    bits = _bits(x)
    size = bits << 1  # in the order of magnitudes, the sign dropped
    least = np.partition(size, size.size - k)[size.size - k]
    kept = size > least
    kept[np.flatnonzero(size == least)[: k - np.count_nonzero(kept)]] = True
    kept &= bits != 0
    mask[...] = np.packbits(kept, bitorder="little")
    _bits(values)[: np.count_nonzero(kept)] = bits[kept]


def bitmap_unpack(y, mask, values, shape):
    nonzero = np.unpackbits(mask, count=y.size, bitorder="little").view(bool)
    bits = _bits(y)
    bits[...] = 0
    bits[nonzero] = _bits(values)[: np.count_nonzero(nonzero)]


def bitmap_gate_vjp(dx, g, mask, values, gate):
    y = np.empty(g.shape, values.dtype)
    bitmap_unpack(y, mask, values, g.shape)
    passes = (y > 0) & (y < 6) if gate == "relu6" else y > 0
    np.multiply(g, passes, out=dx)


def bitmap_conv2d_vjp_w(
    dw, mask, values, g, rows, shape, kernel, stride, padding, groups, dilation, acc
):
    x = np.empty(shape, values.dtype)  # whole, for the order of `conv2d_vjp_w`'s sums
    bitmap_unpack(x, mask, values, shape)
    conv2d_vjp_w(dw, x, g, kernel, stride, padding, groups, dilation, acc)


def bitmap_matmul_tn(y, mask, values, g, rows, shape, flat, acc):
    x = np.empty(shape, values.dtype)
    bitmap_unpack(x, mask, values, shape)
    matmul_tn(y, x, g, flat, acc)


def leaky_relu(y, x, negative_slope):
    y[...] = np.where(x > 0, x, x * x.dtype.type(negative_slope))


def leaky_relu_vjp(dx, g, y, negative_slope):
    dx[...] = np.where(y > 0, g, g * g.dtype.type(negative_slope))


def silu(y, x):
    np.multiply(x, _logistic(x), out=y)


def silu_vjp(dx, g, x):
    s = _logistic(x)
    np.multiply(g, s * (1 + x * (1 - s)), out=dx)


def gelu(y, x):
    c, k = x.dtype.type(SQRT_2_OVER_PI), x.dtype.type(GELU_CUBIC)
    np.multiply(0.5 * x, 1 + np.tanh(c * (x + k * x * x * x)), out=y)


def gelu_vjp(dx, g, x):
    c, k = x.dtype.type(SQRT_2_OVER_PI), x.dtype.type(GELU_CUBIC)
    t = np.tanh(c * (x + k * x * x * x))
    slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + 3 * k * x * x)
    np.multiply(g, slope, out=dx)


def snap(y, x, bits):
    step = x.dtype.type(2.0**bits)
    np.multiply(np.rint(x * step), 1 / step, out=y)


# ---------------------------------------------------------------------------- moving values


def transpose(y, x, axes):
    y[...] = x.transpose(axes)


def concat(y, *args):
    *xs, axis = args
    np.concatenate(xs, axis=axis, out=y)


def slice_(y, x, begin, end):
    y[...] = x[tuple(slice(s, t) for s, t in zip(begin, end, strict=True))]


def slice_vjp(dx, g, shape, begin, acc):
    region = tuple(slice(s, s + n) for s, n in zip(begin, g.shape, strict=True))
    if acc:
        dx[region] += g
    else:
        dx[...] = 0
        dx[region] = g


def pad(y, x, widths, value):
    y[...] = value
    y[tuple(slice(w[0], w[0] + n) for w, n in zip(widths, x.shape, strict=True))] = x


def space_to_depth(y, x, block):
    n, h, w, c = y.shape
    blocks = x.reshape(n, h, block, w, block, c // (block * block))
    y.reshape(n, h, w, block, block, -1)[...] = blocks.transpose(0, 1, 3, 2, 4, 5)


def depth_to_space(y, x, block):
    n, h, w, c = x.shape
    blocks = x.reshape(n, h, w, block, block, c // (block * block))
    y.reshape(n, h, block, w, block, -1)[...] = blocks.transpose(0, 1, 3, 2, 4, 5)


def broadcast_to(y, x, shape):
    y[...] = x


def fill(y, shape, value, dtype):
    y[...] = value


# ---------------------------------------------------------------------------- reductions


def sum_(y, x, axis, keepdims):
    np.sum(x, axis=axis, keepdims=keepdims, out=y)


def mean(y, x, axis, keepdims):
    np.mean(x, axis=axis, keepdims=keepdims, out=y)


def max_(y, x, axis, keepdims):
    np.max(x, axis=axis, keepdims=keepdims, out=y)


def max_vjp(dx, g, x, axis):
    """All of g to the first of the largest."""
    rest = [k for k in range(x.ndim) if k not in axis]
    order = (*rest, *axis)
    moved = x.transpose(order)
    flat = moved.reshape(*moved.shape[: len(rest)], -1)
    hit = np.arange(flat.shape[-1]) == flat.argmax(axis=-1, keepdims=True)
    np.multiply(g, hit.reshape(moved.shape).transpose(np.argsort(order)), out=dx)


def sum_to(y, g, shape, acc):
    lead = g.ndim - len(shape)
    ones = tuple(lead + k for k, n in enumerate(shape) if n == 1 and g.shape[lead + k] != 1)
    total = np.sum(g, axis=(*range(lead), *ones), dtype=g.dtype)
    _put(y, total.reshape(shape), acc)


def softmax(y, x, axis):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    np.divide(e, e.sum(axis=axis, keepdims=True), out=y)


def softmax_vjp(dx, g, y, axis):
    np.multiply(y, g - (g * y).sum(axis=axis, keepdims=True), out=dx)


def log_softmax(y, x, axis):
    z = x - x.max(axis=axis, keepdims=True)
    np.subtract(z, np.log(np.exp(z).sum(axis=axis, keepdims=True)), out=y)


def log_softmax_vjp(dx, g, y, axis):
    np.subtract(g, np.exp(y) * g.sum(axis=axis, keepdims=True), out=dx)


# ---------------------------------------------------------------------------- products


def matmul(y, a, b):
    np.matmul(a, b, out=y)


def matmul_nt(y, a, b, acc):
    bt = b.swapaxes(-1, -2)
    if acc:
        y += np.matmul(a, bt)
    else:
        np.matmul(a, bt, out=y)


def matmul_tn(y, a, b, flat, acc):
    if flat:
        a, b = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
    at = a.swapaxes(-1, -2)
    if acc:
        y += np.matmul(at, b)
    else:
        np.matmul(at, b, out=y)


def matmul_tn_sgd(y, p, a, b, lr, block, flat):
    """The reference makes the gradient whole, so that its bits are those of `matmul_tn`."""
    gradient = np.empty_like(p)
    matmul_tn(gradient, a, b, flat, False)
    sgd(y, p, gradient, lr)


def matmul_tn_momentum(v1, p1, v, p, a, b, lr, momentum, weight_decay, flat):
    decay(v1, v, p, momentum, weight_decay)
    matmul_tn(v1, a, b, flat, True)
    sgd(p1, p, v1, lr)


def embedding(y, table, indices):
    np.take(table, indices, axis=0, out=y, mode="clip")  # bounds are checked before a step


def embedding_vjp(dtable, g, indices, rows, acc):
    if not acc:
        dtable[...] = 0
    np.add.at(dtable, indices.reshape(-1), g.reshape(-1, g.shape[-1]))


# ---------------------------------------------------------------------------- convolution


def _tap_range(k, size, out, stride, before, dilation):
    """Output positions [lo, hi) at which tap k reads inside, and the first input position."""
    shift = k * dilation - before
    lo = max(0, -(shift // stride))
    hi = min(out, (size - 1 - shift) // stride + 1)
    return lo, max(lo, hi), lo * stride + shift


def _taps(x_size, y_size, kernel, stride, padding, dilation):
    """(i, j, output region, input region) of every kernel tap that touches the image."""
    for i in range(kernel[0]):
        h0, h1, r = _tap_range(i, x_size[0], y_size[0], stride[0], padding[0], dilation[0])
        rows = slice(r, r + (h1 - h0 - 1) * stride[0] + 1, stride[0])
        for j in range(kernel[1]):
            w0, w1, c = _tap_range(j, x_size[1], y_size[1], stride[1], padding[2], dilation[1])
            cols = slice(c, c + (w1 - w0 - 1) * stride[1] + 1, stride[1])
            if h1 > h0 and w1 > w0:
                yield i, j, (slice(h0, h1), slice(w0, w1)), (rows, cols)


def _patches(x, size, kernel, stride, padding, dilation):
    """One image's windows as a matrix (Ho * Wo, kh * kw * C); a copy."""
    top, bottom, left, right = padding
    if any(padding):
        h, w, c = x.shape
        padded = np.zeros((h + top + bottom, w + left + right, c), x.dtype)
        padded[top : top + h, left : left + w] = x
        x = padded
    sh, sw, sc = x.strides
    window = as_strided(
        x,
        (*size, *kernel, x.shape[2]),
        (sh * stride[0], sw * stride[1], sh * dilation[0], sw * dilation[1], sc),
        writeable=False,
    )
    return window.reshape(size[0] * size[1], -1)


def _depthwise(w, groups):
    return w.shape[2] == 1 and groups == w.shape[3]


def _groups(x, w, groups):
    """(input channels, output channels) of each group, as slices."""
    c, o = w.shape[2], w.shape[3] // groups
    return [(slice(k * c, k * c + c), slice(k * o, k * o + o)) for k in range(groups)]


def conv2d(y, x, w, b, stride, padding, groups, dilation):
    kh, kw = w.shape[:2]
    if _depthwise(w, groups):
        y[...] = 0
        for i, j, out, into in _taps(
            x.shape[1:3], y.shape[1:3], (kh, kw), stride, padding, dilation
        ):
            y[(slice(None), *out)] += x[(slice(None), *into)] * w[i, j, 0]
    else:
        o = w.shape[3] // groups
        for cin, cout in _groups(x, w, groups):
            matrix = np.ascontiguousarray(w[..., cout]).reshape(-1, o)
            for image, target in zip(x, y, strict=True):
                patches = _patches(
                    image[..., cin], y.shape[1:3], (kh, kw), stride, padding, dilation
                )
                target[..., cout] = (patches @ matrix).reshape(*y.shape[1:3], o)
    if b is not None:
        y += b


def conv2d_vjp_x(dx, g, w, tap, size, stride, padding, groups, dilation, acc):
    if not acc:
        dx[...] = 0
    taps = list(_taps(size, g.shape[1:3], w.shape[:2], stride, padding, dilation))
    for i, j, out, into in reversed(taps):
        part = g[(slice(None), *out)]
        target = dx[(slice(None), *into)]
        if _depthwise(w, groups):
            target += part * w[i, j, 0]
            continue
        for cin, cout in _groups(dx, w, groups):
            tap[...] = w[i, j, :, cout].T
            target[..., cin] += part[..., cout] @ tap


def conv2d_lines(y, x, w, b, lines, stride, padding, groups, dilation):
    """As `conv2d`, over its own input if need be. The reference holds a whole image, not lines."""
    for k in range(len(x)):
        conv2d(y[k : k + 1], x[k : k + 1].copy(), w, b, stride, padding, groups, dilation)


def conv2d_vjp_x_lines(dx, g, w, lines, tap, size, stride, padding, groups, dilation):
    geometry = (size, stride, padding, groups, dilation)
    for k in range(len(g)):
        conv2d_vjp_x(dx[k : k + 1], g[k : k + 1].copy(), w, tap, *geometry, False)


def conv2d_vjp_w(dw, x, g, kernel, stride, padding, groups, dilation, acc):
    if not acc:
        dw[...] = 0
    if _depthwise(dw, groups):
        for i, j, out, into in _taps(x.shape[1:3], g.shape[1:3], kernel, stride, padding, dilation):
            product = x[(slice(None), *into)] * g[(slice(None), *out)]
            dw[i, j, 0] += product.sum(axis=(0, 1, 2))
        return
    o = dw.shape[3] // groups
    for cin, cout in _groups(x, dw, groups):
        for image, part in zip(x, g, strict=True):
            patches = _patches(image[..., cin], g.shape[1:3], kernel, stride, padding, dilation)
            product = patches.T @ part[..., cout].reshape(-1, o)
            dw[..., cout] += product.reshape(*dw.shape[:3], o)


def conv2d_vjp_w_sgd(y, p, x, g, lr, tap, kernel, stride, padding, groups, dilation):
    """The reference makes the gradient whole, so that its bits are those of `conv2d_vjp_w`."""
    gradient = np.empty_like(p)
    conv2d_vjp_w(gradient, x, g, kernel, stride, padding, groups, dilation, False)
    sgd(y, p, gradient, lr)


# ---------------------------------------------------------------------------- pooling


def max_pool2d(y, index, x, kernel_size, stride, padding):
    y[...] = -np.inf
    if index is not None:
        index[...] = 0
    taps = _taps(x.shape[1:3], y.shape[1:3], kernel_size, stride, padding, (1, 1))
    for i, j, out, into in taps:
        seen, value = y[(slice(None), *out)], x[(slice(None), *into)]
        if index is not None:
            better = (value > seen) | (np.isnan(value) & ~np.isnan(seen))
            index[(slice(None), *out)][better] = i * kernel_size[1] + j
        np.maximum(seen, value, out=seen)


def max_pool2d_vjp(dx, g, index, size, kernel_size, stride, padding, acc):
    if not acc:
        dx[...] = 0
    for i, j, out, into in _taps(size, g.shape[1:3], kernel_size, stride, padding, (1, 1)):
        hit = index[(slice(None), *out)] == i * kernel_size[1] + j
        dx[(slice(None), *into)] += g[(slice(None), *out)] * hit


def index_pack(y, index, bits):
    y[...] = 0
    share = 8 // bits
    for k in range(share):
        low = index.reshape(-1)[k::share] & (1 << bits) - 1
        y[: low.size] |= low << k * bits


def index_unpack(index, y, shape, bits):
    share, flat = 8 // bits, index.reshape(-1)
    for k in range(share):
        part = flat[k::share]
        part[...] = y[: part.size] >> k * bits & (1 << bits) - 1


def avg_pool2d(y, x, kernel_size, stride, padding):
    y[...] = 0
    taps = _taps(x.shape[1:3], y.shape[1:3], kernel_size, stride, padding, (1, 1))
    for _, _, out, into in taps:
        y[(slice(None), *out)] += x[(slice(None), *into)]
    y *= y.dtype.type(1 / (kernel_size[0] * kernel_size[1]))


def avg_pool2d_vjp(dx, g, size, kernel_size, stride, padding, acc):
    if not acc:
        dx[...] = 0
    factor = g.dtype.type(1 / (kernel_size[0] * kernel_size[1]))
    for _, _, out, into in _taps(size, g.shape[1:3], kernel_size, stride, padding, (1, 1)):
        dx[(slice(None), *into)] += g[(slice(None), *out)] * factor


# ---------------------------------------------------------------------------- norms


def _affine(y, xhat, gamma, beta):
    if gamma is not None:
        xhat = xhat * gamma
    y[...] = xhat if beta is None else xhat + beta


def _rows(x):
    return tuple(range(x.ndim - 1))


def batch_norm(y, mean, var, x, gamma, beta, eps):
    np.mean(x, axis=_rows(x), out=mean)
    np.var(x, axis=_rows(x), out=var)
    _affine(y, (x - mean) / np.sqrt(var + var.dtype.type(eps)), gamma, beta)


def batch_norm_vjp_params(dgamma, dbeta, g, x, mean, var, eps):
    xhat = (x - mean) / np.sqrt(var + var.dtype.type(eps))
    np.sum(g * xhat, axis=_rows(x), out=dgamma)
    np.sum(g, axis=_rows(x), out=dbeta)


def batch_norm_vjp_x(dx, g, x, mean, var, gamma, dgamma, dbeta, eps):
    rstd = 1 / np.sqrt(var + var.dtype.type(eps))
    count = x.dtype.type(x.size // x.shape[-1])
    slope = rstd if gamma is None else rstd * gamma
    dx[...] = slope * (g - dbeta / count - (x - mean) * rstd * dgamma / count)


def batch_norm_frozen(y, x, gamma, beta, mean, var, eps):
    _affine(y, (x - mean) / np.sqrt(var + var.dtype.type(eps)), gamma, beta)


def batch_norm_frozen_vjp_x(dx, g, gamma, var, eps):
    rstd = 1 / np.sqrt(var + var.dtype.type(eps))
    np.multiply(g, rstd if gamma is None else rstd * gamma, out=dx)


def _grouped(x, groups):
    """(N, pixels, groups, channels of a group)."""
    return x.reshape(x.shape[0], -1, groups, x.shape[-1] // groups)


def _group_normed(x, mean, var, groups, eps):
    rstd = 1 / np.sqrt(var + var.dtype.type(eps))
    return (_grouped(x, groups) - mean[:, None, :, None]) * rstd[:, None, :, None]


def group_norm(y, mean, var, x, gamma, beta, groups, eps):
    np.mean(_grouped(x, groups), axis=(1, 3), out=mean)
    np.var(_grouped(x, groups), axis=(1, 3), out=var)
    _affine(y, _group_normed(x, mean, var, groups, eps).reshape(x.shape), gamma, beta)


def group_norm_vjp_params(dgamma, dbeta, g, x, mean, var, groups, eps):
    xhat = _group_normed(x, mean, var, groups, eps).reshape(x.shape)
    np.sum(g * xhat, axis=_rows(x), out=dgamma)
    np.sum(g, axis=_rows(x), out=dbeta)


def group_norm_vjp_x(dx, g, x, mean, var, gamma, groups, eps):
    xhat = _group_normed(x, mean, var, groups, eps)
    d = _grouped(g if gamma is None else g * gamma, groups)
    rstd = (1 / np.sqrt(var + var.dtype.type(eps)))[:, None, :, None]
    a = d.mean(axis=(1, 3), keepdims=True)
    b = (d * xhat).mean(axis=(1, 3), keepdims=True)
    dx[...] = (rstd * (d - a - xhat * b)).reshape(dx.shape)


def running_average(y, old, new, momentum, correction):
    t = old.dtype.type
    y[...] = old + t(momentum) * (t(correction) * new - old)


# ---------------------------------------------------------------------------- losses


def _share(mask, shape, dtype):
    """Each position's share of the mean."""
    count = np.prod(shape, dtype=int) if mask is None else max(mask.sum(), 1)
    one = dtype.type(1) / dtype.type(count)
    return one if mask is None else mask * one


def cross_entropy(loss, dlogits, logits, labels, mask, label_smoothing):
    z = logits - logits.max(axis=-1, keepdims=True)
    z -= np.log(np.exp(z).sum(axis=-1, keepdims=True))
    classes, smooth = z.shape[-1], z.dtype.type(label_smoothing)
    share = _share(mask, labels.shape, z.dtype)
    picked = np.take_along_axis(z, labels[..., None], axis=-1)[..., 0]
    loss[...] = -((picked * (1 - smooth) + z.mean(axis=-1) * smooth) * share).sum()
    if dlogits is not None:
        target = np.full_like(z, smooth / classes)
        np.put_along_axis(target, labels[..., None], 1 - smooth + smooth / classes, axis=-1)
        np.multiply(np.exp(z) - target, np.asarray(share)[..., None], out=dlogits)


def binary_cross_entropy_with_logits(loss, dx, x, targets, mask):
    share = _share(mask, x.shape, x.dtype)
    each = np.maximum(x, 0) - x * targets + np.log1p(np.exp(-np.abs(x)))
    loss[...] = (each * share).sum()
    if dx is not None:
        np.multiply(_logistic(x) - targets, share, out=dx)


def mse(loss, dx, x, targets, mask):
    share = _share(mask, x.shape, x.dtype)
    d = x - targets
    loss[...] = (d * d * share).sum()
    if dx is not None:
        np.multiply(2 * d, share, out=dx)


# ---------------------------------------------------------------------------- dropout


def _mix(h):
    """A 32-bit integer hash (lowbias32, C. Wellons 2018): every bit of h moves every other."""
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x7FEB352D)
    h ^= h >> np.uint32(15)
    h *= np.uint32(0x846CA68B)
    h ^= h >> np.uint32(16)
    return h


def dropout(y, x, key, p, stream):
    rows = max(x.shape[0], 1) if x.ndim else 1
    place = np.arange(x.size // rows, dtype=np.uint32)
    sample = np.arange(rows, dtype=np.uint32) + key[2]
    node = np.full(rows, stream, np.uint32)
    h = _mix(_mix(_mix(_mix(sample ^ key[0]) ^ key[1]) ^ node)[:, None] ^ place)
    keep = h >= np.uint32(min(int(p * 2**32), 2**32 - 1))
    np.multiply(x, keep.reshape(x.shape) * x.dtype.type(1 / (1 - p)), out=y)


# ---------------------------------------------------------------------------- updates


def decay(y, v, p, momentum, weight_decay):
    np.multiply(v, v.dtype.type(momentum), out=y)
    if p is not None and weight_decay:
        y += v.dtype.type(weight_decay) * p


def sgd(y, p, g, lr):
    np.subtract(p, lr * g, out=y)


def nesterov(y, p, g, v, lr, momentum):
    np.subtract(p, lr * (g + v.dtype.type(momentum) * v), out=y)


def adam(p1, m1, v1, p, m, v, g, lr, corrections, b1, b2, eps, decoupled):
    t = p.dtype.type
    m1[...] = t(b1) * m + t(1 - b1) * g
    v1[...] = t(b2) * v + t(1 - b2) * g * g
    step = lr / corrections[0] * m1 / (np.sqrt(v1 / corrections[1]) + t(eps))
    np.subtract(p * (1 - lr * t(decoupled)), step, out=p1)


def add_scaled(y, g, p, factor):
    np.add(g, g.dtype.type(factor) * p, out=y)


def zero_pruned(y, g, p):
    np.copyto(y, g)
    _bits(y)[_bits(p) == 0] = 0


def square_sum(y, g, acc):
    _put(y, np.sum(np.square(g)), acc)


def clip_factor(y, total, max_norm):
    t = total.dtype.type
    y[...] = np.minimum(t(1), t(max_norm) / np.maximum(np.sqrt(total), t(1e-12)))


def copy(y, x):
    y[...] = x


# Between arrays; where there is a file, the executor calls what moves to and from it instead.


def spill(stored, x):
    stored[...] = x


def spill_wait(status, x, stored):
    status[...] = 0


def fetch(x, stored):
    x[...] = stored


def fetch_wait(status, x, stored):
    status[...] = 0


def check_finite(flag, *xs):
    bad = (k for k, x in enumerate(xs, 1) if not np.isfinite(x).all())
    flag[...] = next(bad, 0)


def check_capacity(flag, *counts_capacities):
    *counts, capacities = counts_capacities
    over = (k for k, (n, most) in enumerate(zip(counts, capacities, strict=True), 1) if n > most)
    flag[...] = next(over, 0)
