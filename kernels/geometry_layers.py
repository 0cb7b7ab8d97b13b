"""The rest of `geometry.py`: products, windows, norms, losses and updates as instructions.

It is imported by that module alone, and adds its rules to the same list.
"""

from .geometry import Words, _floats, _integers, _merged, _rule, _strides

# ---------------------------------------------------------------------------- products


def _product(y, a, b, m, n, k, acc, a_steps, b_steps) -> Words:
    """m, n, k, accumulate, strides of A by (m, k), of B by (k, n); rank, sizes, strides of A and B
    of the leading axes."""
    words = [m, n, k, bool(acc), *a_steps, *b_steps]
    if m * n == y.size:
        return [*words, 1, 1, 0, 0]
    lead = y.shape[:-2]

    def steps(x):
        size = x.shape[-1] * x.shape[-2]
        own = [
            0 if c == 1 else s * size
            for c, s in zip(x.shape[:-2], _strides(x.shape[:-2]), strict=True)
        ]
        return [0] * (len(lead) - len(own)) + own

    place = [s * m * n for s in _strides(lead)]
    sizes, (_, left, right) = _merged(lead, place, steps(a), steps(b))
    return [*words, len(sizes), *sizes, *left, *right]


@_rule("matmul", 0)
def _matmul(y, a, b):
    _floats("matmul", y, a, b)
    k, n = b.shape[-2:]
    m = y.size // max(n, 1) if len(b.shape) == 2 else y.shape[-2]
    return _product(y, a, b, m, n, k, False, (k, 1), (n, 1))


@_rule("matmul_nt", 1, "matmul")
def _matmul_nt(y, a, b, acc):
    _floats("matmul_nt", y, a, b)
    n, k = b.shape[-2:]
    m = y.size // max(n, 1) if len(b.shape) == 2 else y.shape[-2]
    return _product(y, a, b, m, n, k, acc, (k, 1), (1, k))


@_rule("matmul_tn", 2, "matmul")
def _matmul_tn(y, a, b, flat, acc):
    _floats("matmul_tn", y, a, b)
    m, n = a.shape[-1], b.shape[-1]
    k = a.size // max(m, 1) if flat or len(y.shape) == 2 else a.shape[-2]
    return _product(y, a, b, m, n, k, acc, (1, m), (n, 1))


@_rule("matmul_tn_sgd", 1)
def _matmul_tn_sgd(y, p, a, b, lr, block, flat):
    """m, n, k, rows of a block."""
    _floats("matmul_tn_sgd", y, p, a, b, lr)
    m, n = p.shape
    return [m, n, a.size // max(m, 1), block.shape[0]]


@_rule("matmul_tn_momentum", 3)
def _matmul_tn_momentum(v1, p1, v, p, a, b, lr, momentum, weight_decay, flat):
    """m, n, k, momentum, weight decay."""
    _floats("matmul_tn_momentum", v1, p1, v, p, a, b, lr)
    m, n = p.shape
    return [m, n, a.size // max(m, 1), float(momentum), float(weight_decay)]


@_rule("bitmap_matmul_tn", 3)
def _bitmap_matmul_tn(y, mask, values, g, rows, shape, flat, acc):
    """m, n, k, rows that are dense at a time, accumulate."""
    _floats("bitmap_matmul_tn", y, values, g)
    m, n = shape[-1], g.shape[-1]
    return [m, n, g.size // max(n, 1), rows.shape[0], bool(acc)]


@_rule("embedding", 0)
def _embedding(y, table, indices):
    """look-ups, rows of the table, width."""
    _integers("embedding", indices)
    return [indices.size, table.shape[0], table.shape[1]]


@_rule("embedding_vjp", 2)
def _embedding_vjp(dtable, g, indices, rows, acc):
    """look-ups, rows of the table, width, accumulate."""
    _integers("embedding_vjp", indices)
    return [indices.size, rows, dtable.shape[1], bool(acc)]


# ---------------------------------------------------------------------------- windows


def _windows(x_shape, y_shape, kernel, stride, padding) -> Words:
    """images, height, width, channels in; height, width, channels out; kernel height, width;
    strides down, across; padding above, left."""
    return [*x_shape, *y_shape[1:], *kernel, *stride, padding[0], padding[2]]


@_rule("conv2d", 4)
def _conv2d(y, x, w, b, stride, padding, groups, dilation):
    """the window's words, groups, dilation down, across."""
    _floats("conv2d", y, x, w, b)
    return [*_windows(x.shape, y.shape, w.shape[:2], stride, padding), groups, *dilation]


@_rule("conv2d_vjp_x", 6)
def _conv2d_vjp_x(dx, g, w, tap, size, stride, padding, groups, dilation, acc):
    """the window's words, groups, dilation down, across, accumulate."""
    _floats("conv2d_vjp_x", dx, g, w)
    words = _windows(dx.shape, g.shape, w.shape[:2], stride, padding)
    return [*words, groups, *dilation, bool(acc)]


@_rule("conv2d_vjp_w", 6)
def _conv2d_vjp_w(dw, x, g, kernel, stride, padding, groups, dilation, acc):
    """the window's words, groups, dilation down, across, accumulate."""
    _floats("conv2d_vjp_w", dw, x, g)
    return [*_windows(x.shape, g.shape, kernel, stride, padding), groups, *dilation, bool(acc)]


@_rule("conv2d_lines", 4)
def _conv2d_lines(y, x, w, b, lines, stride, padding, groups, dilation):
    """the window's words, groups, dilation down, across, rows in `lines`."""
    return [*_conv2d(y, x, w, b, stride, padding, groups, dilation), lines.shape[0]]


@_rule("conv2d_vjp_x_lines", 5)
def _conv2d_vjp_x_lines(dx, g, w, lines, tap, size, stride, padding, groups, dilation):
    """the window's words, groups, dilation down, across, rows in `lines`."""
    words = _conv2d_vjp_x(dx, g, w, tap, size, stride, padding, groups, dilation, False)
    return [*words[:-1], lines.shape[0]]


@_rule("conv2d_vjp_w_sgd", 5)
def _conv2d_vjp_w_sgd(y, p, x, g, lr, tap, kernel, stride, padding, groups, dilation):
    """the window's words, groups, dilation down, across."""
    _floats("conv2d_vjp_w_sgd", y, p, lr)
    return _conv2d_vjp_w(y, x, g, kernel, stride, padding, groups, dilation, False)[:-1]


@_rule("bitmap_conv2d_vjp_w", 7)
def _bitmap_conv2d_vjp_w(
    dw, mask, values, g, rows, shape, kernel, stride, padding, groups, dilation, acc
):
    """the window's words, groups, dilation down, across, accumulate, rows that are dense."""
    _floats("bitmap_conv2d_vjp_w", dw, values, g)
    words = _windows(shape, g.shape, kernel, stride, padding)
    return [*words, groups, *dilation, bool(acc), rows.shape[0]]


@_rule("max_pool2d", 3)
def _max_pool2d(y, index, x, kernel_size, stride, padding):
    """the window's words, bytes of an index."""
    _floats("max_pool2d", y, x)
    wide = kernel_size[0] * kernel_size[1] > 256
    return [*_windows(x.shape, y.shape, kernel_size, stride, padding), 4 if wide else 1]


@_rule("max_pool2d_vjp", 5)
def _max_pool2d_vjp(dx, g, index, size, kernel_size, stride, padding, acc):
    """the window's words, bytes of an index, accumulate."""
    _floats("max_pool2d_vjp", dx, g)
    wide = kernel_size[0] * kernel_size[1] > 256
    words = _windows(dx.shape, g.shape, kernel_size, stride, padding)
    return [*words, 4 if wide else 1, bool(acc)]


@_rule("index_pack", 1)
def _index_pack(y, index, bits):
    """numbers, bits of each."""
    return [index.size, bits]


@_rule("index_unpack", 2)
def _index_unpack(index, y, shape, bits):
    return [index.size, bits]


@_rule("avg_pool2d", 3)
def _avg_pool2d(y, x, kernel_size, stride, padding):
    """the window's words, 1 / taps."""
    _floats("avg_pool2d", y, x)
    factor = 1 / (kernel_size[0] * kernel_size[1])
    return [*_windows(x.shape, y.shape, kernel_size, stride, padding), factor]


@_rule("avg_pool2d_vjp", 5)
def _avg_pool2d_vjp(dx, g, size, kernel_size, stride, padding, acc):
    """the window's words, 1 / taps, accumulate."""
    _floats("avg_pool2d_vjp", dx, g)
    factor = 1 / (kernel_size[0] * kernel_size[1])
    return [*_windows(dx.shape, g.shape, kernel_size, stride, padding), factor, bool(acc)]


# ---------------------------------------------------------------------------- norms


def _rows(x) -> Words:
    """rows, channels."""
    return [x.size // max(x.shape[-1], 1), x.shape[-1]]


@_rule("batch_norm", 1)
def _batch_norm(y, mean, var, x, gamma, beta, eps):
    """rows, channels, eps."""
    _floats("batch_norm", y, x)
    return [*_rows(x), float(eps)]


@_rule("batch_norm_vjp_params", 1)
def _batch_norm_vjp_params(dgamma, dbeta, g, x, mean, var, eps):
    _floats("batch_norm_vjp_params", g, x)
    return [*_rows(x), float(eps)]


@_rule("batch_norm_vjp_x", 1)
def _batch_norm_vjp_x(dx, g, x, mean, var, gamma, dgamma, dbeta, eps):
    _floats("batch_norm_vjp_x", g, x)
    return [*_rows(x), float(eps)]


@_rule("batch_norm_frozen", 1)
def _batch_norm_frozen(y, x, gamma, beta, mean, var, eps):
    _floats("batch_norm_frozen", y, x)
    return [*_rows(x), float(eps)]


@_rule("batch_norm_frozen_vjp_x", 1)
def _batch_norm_frozen_vjp_x(dx, g, gamma, var, eps):
    _floats("batch_norm_frozen_vjp_x", dx, g)
    return [*_rows(g), float(eps)]


def _grouped(x, groups, eps) -> Words:
    """images, pixels, channels, groups, eps."""
    images, c = x.shape[0], x.shape[-1]
    return [images, x.size // max(images * c, 1), c, groups, float(eps)]


@_rule("group_norm", 2)
def _group_norm(y, mean, var, x, gamma, beta, groups, eps):
    _floats("group_norm", y, x)
    return _grouped(x, groups, eps)


@_rule("group_norm_vjp_params", 2)
def _group_norm_vjp_params(dgamma, dbeta, g, x, mean, var, groups, eps):
    _floats("group_norm_vjp_params", g, x)
    return _grouped(x, groups, eps)


@_rule("group_norm_vjp_x", 2)
def _group_norm_vjp_x(dx, g, x, mean, var, gamma, groups, eps):
    _floats("group_norm_vjp_x", g, x)
    return _grouped(x, groups, eps)


@_rule("running_average", 2)
def _running_average(y, old, new, momentum, correction):
    """elements, momentum, correction."""
    _floats("running_average", y)
    return [y.size, float(momentum), float(correction)]


# ---------------------------------------------------------------------------- losses and dropout


@_rule("cross_entropy", 1)
def _cross_entropy(loss, dlogits, logits, labels, mask, label_smoothing):
    """rows, classes, smoothing. Labels are int32, the mask float32."""
    _floats("cross_entropy", logits, mask)
    _integers("cross_entropy", labels)
    classes = logits.shape[-1]
    return [logits.size // max(classes, 1), classes, float(label_smoothing)]


@_rule("binary_cross_entropy_with_logits", 0)
def _binary_cross_entropy(loss, dx, x, targets, mask):
    """elements."""
    _floats("binary_cross_entropy_with_logits", x, targets, mask)
    return [x.size]


@_rule("mse", 0)
def _mse(loss, dx, x, targets, mask):
    """elements."""
    _floats("mse", x, targets, mask)
    return [x.size]


@_rule("dropout", 2)
def _dropout(y, x, key, p, stream):
    """rows, elements of a row, the least draw that stays, 1 / (1 - p), the node's number."""
    _floats("dropout", y, x)
    rows = max(x.shape[0], 1) if len(x.shape) else 1
    least = min(int(p * 2**32), 2**32 - 1)
    return [rows, x.size // rows, least, 1 / (1 - p), stream]


# ---------------------------------------------------------------------------- updates


@_rule("decay", 2)
def _decay(y, v, p, momentum, weight_decay):
    """elements, momentum, weight decay."""
    _floats("decay", y, v, p)
    return [v.size, float(momentum), float(weight_decay)]


@_rule("sgd", 0)
def _sgd(y, p, g, lr):
    """elements."""
    _floats("sgd", y, p, g, lr)
    return [p.size]


@_rule("nesterov", 1)
def _nesterov(y, p, g, v, lr, momentum):
    """elements, momentum."""
    _floats("nesterov", y, p, g, v, lr)
    return [p.size, float(momentum)]


@_rule("adam", 4)
def _adam(p1, m1, v1, p, m, v, g, lr, corrections, b1, b2, eps, decoupled):
    """elements, b1, 1 - b1, b2, 1 - b2, eps, decoupled weight decay."""
    _floats("adam", p, m, v, g)
    return [
        p.size,
        float(b1),
        float(1 - b1),
        float(b2),
        float(1 - b2),
        float(eps),
        float(decoupled),
    ]


@_rule("add_scaled", 1)
def _add_scaled(y, g, p, factor):
    """elements, factor."""
    _floats("add_scaled", y, g, p)
    return [g.size, float(factor)]


@_rule("square_sum", 1)
def _square_sum(y, g, acc):
    """elements, accumulate."""
    _floats("square_sum", y, g)
    return [g.size, bool(acc)]


@_rule("clip_factor", 1)
def _clip_factor(y, total, max_norm):
    """largest norm."""
    _floats("clip_factor", y, total)
    return [float(max_norm)]


@_rule("check_finite", 0)
def _check_finite(flag, *xs):
    """operands, then the elements of each (0 for integers, which are always finite)."""
    return [len(xs), *(x.size if str(x.dtype) == "float32" else 0 for x in xs)]


@_rule("check_capacity", 1)
def _check_capacity(flag, *counts_capacities):
    """operands, then the capacity of each."""
    *counts, capacities = counts_capacities
    return [len(counts), *capacities]
