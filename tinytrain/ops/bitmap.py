"""Rows of the bitmap policy: a value as one bit an element and its non-zeros, in two passes.

Only +0 is dropped: -0 and NaN are kept, so that what is unpacked has the bits of what was packed.
None has a gradient. The packed size depends on the data, so a plan gives `capacity` elements to
the non-zeros; what does not fit is not written, and `count` tells. Source: the bitmap format of
BitTrain (Hosny et al. 2021).
"""

from __future__ import annotations

from tinytrain.op import register
from tinytrain.spec import Spec


def _bitmap_pack(x: Spec, capacity):
    bits = Spec((-(-x.size // 8),), "uint8")
    return bits, Spec((capacity,), x.dtype), Spec((), "uint32")


# mask (bit k of byte j is element 8 j + k), the first `capacity` non-zeros, how many there are.
register("bitmap_pack", _bitmap_pack)


def _bitmap_unpack(mask: Spec, values: Spec, shape):
    return Spec(tuple(shape), values.dtype)


register("bitmap_unpack", _bitmap_unpack)


def _bitmap_gate_vjp(g: Spec, mask: Spec, values: Spec, gate):
    return g


# The gradient of a gate (relu, relu6) from its packed output, which is never dense again.
register("bitmap_gate_vjp", _bitmap_gate_vjp, inplace=((0, 0),))


def _check_capacity(*counts: Spec, capacities):
    return Spec((), "uint32")


register("check_capacity", _check_capacity)  # 0, or 1 + the position of the first above its own
