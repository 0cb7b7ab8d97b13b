"""Pooling over windows, channels last. Max pooling keeps a one-byte index, average nothing."""

from __future__ import annotations

from tinytrain.errors import InputError
from tinytrain.op import register
from tinytrain.ops.conv import padding_of, pair, windows
from tinytrain.spec import Spec


def _canon(name):
    def canon(attrs, x):
        if x.ndim != 4:
            raise InputError(f"{name}: x wants (N, H, W, C), got {x.shape}")
        kernel = pair(name, "kernel_size", attrs["kernel_size"], 1)
        stride = kernel if attrs["stride"] is None else pair(name, "stride", attrs["stride"], 1)
        padding = padding_of(name, attrs["padding"], x.shape[1:3], kernel, stride)
        if any(
            2 * p > k for p, k in zip(padding, (kernel[0],) * 2 + (kernel[1],) * 2, strict=True)
        ):
            raise InputError(f"{name}: padding {padding} is more than half the kernel {kernel}")
        return {"kernel_size": kernel, "stride": stride, "padding": padding}

    return canon


def _pooled(name, x, kernel_size, stride, padding):
    size = windows(name, x.shape[1:3], kernel_size, stride, padding)
    return x.with_shape((x.shape[0], *size, x.shape[3]))


def _max_pool2d(x: Spec, kernel_size=2, stride=None, padding=0):
    y = _pooled("max_pool2d", x, kernel_size, stride, padding)
    taps = kernel_size[0] * kernel_size[1]
    return y, Spec(y.shape, "uint8" if taps <= 256 else "int32")


def _avg_pool2d(x: Spec, kernel_size=2, stride=None, padding=0):
    return _pooled("avg_pool2d", x, kernel_size, stride, padding)


def _max_pool2d_vjp(g: Spec, index: Spec, size, kernel_size, stride, padding):
    return g.with_shape((g.shape[0], *size, g.shape[3]))


def _avg_pool2d_vjp(g: Spec, size, kernel_size, stride, padding):
    return g.with_shape((g.shape[0], *size, g.shape[3]))


def _size(b, n):
    return b.spec(n.ins[0]).shape[1:3]


register(
    "max_pool2d",
    _max_pool2d,
    canon=_canon("max_pool2d"),
    vjp=(
        lambda b, n, g: b.grad("max_pool2d_vjp", g, b.get(n.outs[1]), size=_size(b, n), **n.attrs),
    ),
    saves=("y1",),
    drops=(1,),
)
register("max_pool2d_vjp", _max_pool2d_vjp, acc=True)


def index_bits(kernel_size: tuple[int, int]) -> int | None:
    """The bits that tell the taps of such a window apart, where several share a byte evenly."""
    taps = kernel_size[0] * kernel_size[1]
    return next((bits for bits in (2, 4) if taps <= 1 << bits), None)


def _index_pack(index: Spec, bits):
    return Spec((-(-index.size * bits // 8),), "uint8")


def _index_unpack(packed: Spec, shape, bits):
    return Spec(tuple(shape), "uint8")


# The low `bits` (2 or 4) of each byte of an index, the first in a byte's lowest bits, and back.
register("index_pack", _index_pack)
register("index_unpack", _index_unpack)
register(
    "avg_pool2d",
    _avg_pool2d,
    canon=_canon("avg_pool2d"),
    vjp=(lambda b, n, g: b.grad("avg_pool2d_vjp", g, size=_size(b, n), **n.attrs),),
)
register("avg_pool2d_vjp", _avg_pool2d_vjp, acc=True)
