"""Convolution, channels last: x (N, H, W, C), w (kh, kw, C/groups, O), y (N, Ho, Wo, O).

Depthwise is groups = C. conv1d is conv2d over a height of one (see `tensor.py`).
"""

from __future__ import annotations

from tinytrain.errors import InputError
from tinytrain.op import register
from tinytrain.spec import Spec

SHARE = 16  # of its rows that a convolution over its own input may hold in scratch


def pair(name: str, what: str, value, least: int) -> tuple[int, int]:
    """`2` or `(2, 3)` as two ints of at least `least`."""
    two = (value, value) if isinstance(value, int) else value
    if (
        not isinstance(two, tuple | list)
        or len(two) != 2
        or not all(isinstance(k, int) and k >= least for k in two)
    ):
        raise InputError(f"{name}: {what} is {value!r}, wants one int or two, at least {least}")
    return tuple(two)


def padding_of(name, padding, size, kernel, stride, dilation=(1, 1)):
    """(top, bottom, left, right) of a padding given as int, pair, pairs or "same"."""
    if padding == "same":  # the smaller half comes first, as TensorFlow has it
        whole = [
            max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
            for n, k, s, d in zip(size, kernel, stride, dilation, strict=True)
        ]
        return tuple(part for p in whole for part in (p // 2, p - p // 2))
    if isinstance(padding, tuple | list) and len(padding) == 4:
        four = tuple(padding)
    elif isinstance(padding, tuple | list) and all(isinstance(p, tuple | list) for p in padding):
        four = tuple(k for p in padding for k in pair(name, "padding", p, 0))
    else:
        h, w = pair(name, "padding", padding, 0)
        four = (h, h, w, w)
    if len(four) != 4 or any(not isinstance(k, int) or k < 0 for k in four):
        raise InputError(f"{name}: padding is {padding!r}; an int, (h, w), pairs of them or 'same'")
    return four


def windows(name, size, kernel, stride, padding, dilation=(1, 1)):
    """Output height and width of a sliding window."""
    out = []
    for axis in (0, 1):
        span = size[axis] + padding[2 * axis] + padding[2 * axis + 1]
        reach = (kernel[axis] - 1) * dilation[axis] + 1
        if span < reach:
            raise InputError(
                f"{name}: the {'height' if axis == 0 else 'width'} {size[axis]} with its padding "
                f"is {span}, the kernel reaches {reach}; pad more or use a smaller kernel"
            )
        out.append((span - reach) // stride[axis] + 1)
    return tuple(out)


def _canon(attrs, x, w, b=None):
    if x.ndim != 4 or w.ndim != 4:
        raise InputError(
            f"conv2d: x wants (N, H, W, C) and weight (kh, kw, C/groups, O), got {x.shape} and "
            f"{w.shape}"
        )
    stride = pair("conv2d", "stride", attrs["stride"], 1)
    dilation = pair("conv2d", "dilation", attrs["dilation"], 1)
    padding = padding_of("conv2d", attrs["padding"], x.shape[1:3], w.shape[:2], stride, dilation)
    return {
        "stride": stride,
        "padding": padding,
        "groups": int(attrs["groups"]),
        "dilation": dilation,
    }


def _conv2d(x: Spec, w: Spec, b: Spec | None = None, stride=1, padding=0, groups=1, dilation=1):
    kh, kw, c, o = w.shape
    if groups < 1 or o % groups:
        raise InputError(f"conv2d: {o} output channels do not divide into {groups} groups")
    if c * groups != x.shape[3]:
        hint = "is x channels-last?" if x.shape[1] == c * groups else f"(groups={groups})"
        raise InputError(
            f"conv2d: weight expects {c * groups} input channels, x has {x.shape[3]} "
            f"(shape {x.shape}); {hint}"
        )
    if x.dtype != w.dtype:
        raise InputError(f"conv2d: x is {x.dtype}, weight {w.dtype}; convert one of them")
    if b is not None and b.shape != (o,):
        raise InputError(f"conv2d: bias has shape {b.shape}, wants ({o},)")
    ho, wo = windows("conv2d", x.shape[1:3], (kh, kw), stride, padding, dilation)
    return x.with_shape((x.shape[0], ho, wo, o))


def _conv2d_vjp_x(g: Spec, w: Spec, size, stride, padding, groups, dilation):
    return g.with_shape((g.shape[0], *size, w.shape[2] * groups))


def _tap(ins, outs, attrs):
    """One tap of a group's weights, transposed: lanes run over input channels. Depthwise needs
    none, nor does a kernel that sees padding alone."""
    g, w = ins
    shape = (w.shape[3] // attrs["groups"], w.shape[2])
    seen = all(touches(w.shape[k], attrs["size"][k], g.shape[1 + k], attrs, k) for k in (0, 1))
    return (Spec(shape if seen and shape != (1, 1) else (0, 0), w.dtype),)


def touches(kernel: int, size: int, out: int, attrs, axis: int) -> bool:
    """Whether any tap along this axis ever reads inside the image."""
    stride, dilation = attrs["stride"][axis], attrs["dilation"][axis]
    before = attrs["padding"][2 * axis]
    return any(
        0 <= o * stride + k * dilation - before < size for k in range(kernel) for o in range(out)
    )


def _lines(image: Spec, ahead: int, least: int) -> Spec:
    """Output rows of an image that wait until the input rows below them have been read: those
    that later rows look back at (`ahead`), and a strip of at least so many."""
    images, height, width, channels = image.shape
    strip = max(least, images * height // SHARE - ahead)
    return Spec((min(height, strip + min(ahead, height - 1)), width, channels), image.dtype)


def _lines_of_output(ins, outs, attrs):
    return (_lines(outs[0], attrs["padding"][0], 1),)


def _lines_of_gradient(ins, outs, attrs):
    """At least two, for each of its strips transposes all taps."""
    return _lines(outs[0], attrs["padding"][1], 2), *_tap(ins, outs, attrs)


def _conv2d_vjp_w(x: Spec, g: Spec, kernel, stride, padding, groups, dilation):
    return x.with_shape((*kernel, x.shape[3] // groups, g.shape[3]))


def _vjp_x(b, n, g):
    x = b.spec(n.ins[0])
    lean = b.is_lean(n) and b.into is None and may_overwrite(b.spec(g), x, n.attrs)
    op = "conv2d_vjp_x_lines" if lean else "conv2d_vjp_x"
    return b.grad(op, g, b.get(n.ins[1]), size=x.shape[1:3], **n.attrs)


def may_overwrite(x: Spec, y: Spec, attrs) -> bool:
    """Whether rows become as many rows of the same size."""
    return x.shape == y.shape and attrs["stride"] == (1, 1)


def _lean(ins, outs, attrs):
    return "conv2d_lines" if may_overwrite(ins[0], outs[0], attrs) else None


def _vjp_w(b, n, g):
    kernel = b.spec(n.ins[1]).shape[:2]
    return b.weight_grad("conv2d_vjp_w", n.ins[0], g, kernel=kernel, **n.attrs)


def _macs(ins, outs, attrs):
    """Taps x input channels of a group, for every output element."""
    kh, kw, c, _ = ins[1].shape
    return outs[0].size * kh * kw * c


def _macs_vjp_x(ins, outs, attrs):
    kh, kw, c, _ = ins[1].shape
    return ins[0].size * kh * kw * c


def _macs_vjp_w(ins, outs, attrs):
    kh, kw, c, _ = outs[0].shape
    return ins[1].size * kh * kw * c


register(
    "conv2d",
    _conv2d,
    canon=_canon,
    vjp=(_vjp_x, _vjp_w, lambda b, n, g: b.grad("sum_to", g, shape=b.spec(n.ins[2]).shape)),
    saves=("x0", "x1"),
    macs=_macs,
    lean=_lean,
)
# The same sums, row by row through a few lines of scratch, so that the output may be written over
# the input (MCUNet's in-place depthwise convolution, Lin et al. 2020, for every kind).
register(
    "conv2d_lines",
    _conv2d,
    canon=_canon,
    inplace=((0, 0),),
    work=_lines_of_output,
    macs=_macs,
)
register(
    "conv2d_vjp_x_lines",
    _conv2d_vjp_x,
    inplace=((0, 0),),
    work=_lines_of_gradient,
    macs=_macs_vjp_x,
)
register("conv2d_vjp_x", _conv2d_vjp_x, work=_tap, acc=True, macs=_macs_vjp_x)
register("conv2d_vjp_w", _conv2d_vjp_w, acc=True, macs=_macs_vjp_w)


def _conv2d_vjp_w_sgd(
    p: Spec, x: Spec, g: Spec, lr: Spec, kernel, stride, padding, groups, dilation
):
    return p


# p - lr * gradient, a tap at a time: the gradient is never whole.
register(
    "conv2d_vjp_w_sgd",
    _conv2d_vjp_w_sgd,
    inplace=((0, 0),),
    work=lambda ins, outs, attrs: (Spec(outs[0].shape[2:], outs[0].dtype),),
    macs=lambda ins, outs, attrs: _macs_vjp_w(ins[1:], outs, attrs),
)
