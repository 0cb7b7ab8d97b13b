"""Rows of the bitmap policy: a value as one bit an element and its non-zeros, in two passes, and
the gradients that read it so.

Only +0 is dropped: -0 and NaN are kept, so that what is unpacked has the bits of what was packed.
None has a gradient. The packed size depends on the data, so a plan gives `capacity` elements to
the non-zeros; what does not fit is not written, and `count` tells. Source: the bitmap format of
BitTrain (Hosny et al. 2021).
"""

from __future__ import annotations

import math

from tinytrain.op import register
from tinytrain.spec import Spec


def _bitmap_pack(x: Spec, capacity):
    bits = Spec((-(-x.size // 8),), "uint8")
    return bits, Spec((capacity,), x.dtype), Spec((), "uint32")


# mask (bit k of byte j is element 8 j + k), the first `capacity` non-zeros, how many there are.
register("bitmap_pack", _bitmap_pack)


def _topk_pack(x: Spec, k):
    return Spec((-(-x.size // 8),), "uint8"), Spec((k,), x.dtype)


# The k elements of largest magnitude, of equal ones the first, and of these all but +0: a mask and
# values as of bitmap_pack. NaN is larger than any number. Scratch: a histogram.
register("topk_pack", _topk_pack, work=lambda ins, outs, attrs: (Spec((256,), "uint32"),))


def _bitmap_unpack(mask: Spec, values: Spec, shape):
    return Spec(tuple(shape), values.dtype)


register("bitmap_unpack", _bitmap_unpack)


def _bitmap_gate_vjp(g: Spec, mask: Spec, values: Spec, gate):
    return g


# The gradient of a gate (relu, relu6) from its packed output, which is never dense again.
register("bitmap_gate_vjp", _bitmap_gate_vjp, inplace=((0, 0),))


WINDOW = 16 * 1024  # bytes of dense rows that pay; more where one window of a kernel is larger


def _rows(row_bytes: int, least: int, most: int) -> int:
    return min(most, max(least, WINDOW // max(1, row_bytes)))


def _bitmap_conv2d_vjp_w(
    mask: Spec, values: Spec, g: Spec, shape, kernel, stride, padding, groups, dilation
):
    return values.with_shape((*kernel, shape[3] // groups, g.shape[3]))


def _rows_of_image(ins, outs, attrs):
    """Rows of one image, dense: at least those that one row of the gradient reads. Under a stride
    as many times more, or too few rows of the gradient meet them at a time."""
    _, h, w, c = attrs["shape"]
    extent = (attrs["kernel"][0] - 1) * attrs["dilation"][0] + 1
    row_bytes = w * c * ins[1].nbytes // max(1, ins[1].size)
    rows = _rows(row_bytes // attrs["stride"][0], extent, h)
    return (ins[1].with_shape((rows, w, c)),)


# conv2d_vjp_w of a packed input, of which only a few rows are dense at a time.
register(
    "bitmap_conv2d_vjp_w",
    _bitmap_conv2d_vjp_w,
    work=_rows_of_image,
    acc=True,
    macs=lambda ins, outs, attrs: ins[2].size * math.prod(outs[0].shape[:3]),
)


def _bitmap_matmul_tn(mask: Spec, values: Spec, g: Spec, shape, flat):
    return values.with_shape((shape[-1], g.shape[-1]))


def _rows_of_matrix(ins, outs, attrs):
    m = attrs["shape"][-1]
    rows = _rows(m * ins[1].nbytes // max(1, ins[1].size), 1, math.prod(attrs["shape"][:-1]))
    return (ins[1].with_shape((rows, m)),)


# matmul_tn of a packed left operand, always `flat`: leading axes are rows too.
register(
    "bitmap_matmul_tn",
    _bitmap_matmul_tn,
    work=_rows_of_matrix,
    acc=True,
    macs=lambda ins, outs, attrs: math.prod(attrs["shape"]) * ins[2].shape[-1],
)


def _check_capacity(*counts: Spec, capacities):
    return Spec((), "uint32")


register("check_capacity", _check_capacity)  # 0, or 1 + the position of the first above its own
