"""Sixteen elements at a time of a packed value, for the processors that have an instruction for it;
loops over one element for the rest and for the others. Values are moved, nothing is computed.

A byte of the mask is eight elements, the first in its lowest bit. To and from memory by a register:
straight from memory these instructions are slow on some processors.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from .numba_lanes import (
    F32,
    I32,
    I64,
    LANES,
    MANY,
    address,
    load,
    load_lanes,
    pointer,
    splat,
    store,
    store_lanes,
    where_positive,
)

GROUP = 16
GROUPS = LANES == GROUP  # AVX-512
_VECTOR, _BITS = ir.VectorType(F32, GROUP), ir.IntType(16)
_MASK = ir.VectorType(ir.IntType(1), GROUP)


def _moved(builder, kind, value, mask):
    """The lanes of the mask side by side (compress), or the first lanes where it is set (expand);
    +0 in the others."""
    shape = ir.FunctionType(_VECTOR, [_VECTOR, _VECTOR, _MASK])
    name = f"llvm.x86.avx512.mask.{kind}.v16f32"
    function = cgutils.get_or_insert_function(builder.module, shape, name)
    return builder.call(function, [value, ir.Constant(_VECTOR, [0.0] * GROUP), mask])


def _first(builder, count):
    """The mask of the first `count` (int64) lanes."""
    ones = builder.sub(builder.shl(I32(1), builder.trunc(count, I32)), I32(1))
    return builder.bitcast(builder.trunc(ones, _BITS), _MASK)


def _count(builder, bits):
    return builder.zext(builder.ctpop(bits), I64)


@intrinsic
def count16(typing, mask):
    """How many of the sixteen bits at an address are set."""

    def codegen(context, builder, sig, args):
        bits = builder.load(pointer(builder, args[0], _BITS), align=1)
        return _count(builder, bits)

    return types.int64(types.int64), codegen


@intrinsic
def unpack16(typing, mask, values):
    """The sixteen elements whose bits are at `mask`; the first non-zero is at `values`."""

    def codegen(context, builder, sig, args):
        bits = builder.load(pointer(builder, args[0], _BITS), align=1)
        held = _first(builder, _count(builder, bits))
        packed = load_lanes(builder, args[1], _VECTOR, held)
        return _moved(builder, "expand", packed, builder.bitcast(bits, _MASK))

    return MANY(types.int64, types.int64), codegen


@intrinsic
def pack16(typing, mask, values, room, x):
    """Sixteen elements at x: their bits to `mask`, and those that are not +0 to `values`, as far as
    there is room; how many they are."""

    def codegen(context, builder, sig, args):
        mask, values, room, x = args
        value = load_lanes(builder, x, _VECTOR)
        whole = ir.VectorType(I32, GROUP)
        held = builder.icmp_unsigned(
            "!=", builder.bitcast(value, whole), ir.Constant(whole, [0] * GROUP)
        )
        bits = builder.bitcast(held, _BITS)
        builder.store(bits, pointer(builder, mask, _BITS), align=1)
        packed, count = _moved(builder, "compress", value, held), _count(builder, bits)
        plenty = builder.icmp_signed(">=", room, I64(GROUP))
        with builder.if_else(plenty) as (all_of_it, some):
            with all_of_it:
                store_lanes(builder, packed, values)
            with some:
                none = builder.icmp_signed("<", room, I64(0))
                left = builder.select(none, I64(0), room)
                store_lanes(builder, packed, values, _first(builder, left))
        return count

    return types.int64(*[types.int64] * 4), codegen


@intrinsic
def where_below(typing, a, most, value):
    """value where a is not `most` or above (all, where that is NaN), else +0."""

    def codegen(context, builder, sig, args):
        nothing = ir.Constant(args[0].type, [0.0] * LANES)
        return builder.select(builder.fcmp_unordered("<", args[0], args[1]), args[2], nothing)

    return MANY(MANY, MANY, MANY), codegen


@intrinsic
def mark16(typing, mask, y, most):
    """The bits of sixteen lanes to an address: above 0 and not `most` (NaN: no bound) or above."""

    def codegen(context, builder, sig, args):
        mask, y, most = args
        above = builder.fcmp_ordered(">", y, ir.Constant(_VECTOR, [0.0] * GROUP))
        held = builder.and_(above, builder.fcmp_unordered("<", y, most))
        builder.store(builder.bitcast(held, _BITS), pointer(builder, mask, _BITS), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, MANY, MANY), codegen


@intrinsic
def ones16(typing, mask):
    """1 in the lanes whose bits are set, else +0."""

    def codegen(context, builder, sig, args):
        bits = builder.load(pointer(builder, args[0], _BITS), align=1)
        one, nothing = (ir.Constant(_VECTOR, [x] * GROUP) for x in (1.0, 0.0))
        return builder.select(builder.bitcast(bits, _MASK), one, nothing)

    return MANY(types.int64), codegen


if GROUPS:

    @njit(cache=True, error_model="numpy")
    def _mark_groups(mask, y, most, end):
        top = splat(np.float32(most))
        for k in range(0, end, GROUP):
            mark16(address(mask) + (k >> 3), load(address(y) + 4 * k, GROUP), top)

    @njit(cache=True, error_model="numpy")
    def _through_groups(dx, g, mask, end):
        for k in range(0, end, GROUP):
            value = load(address(g) + 4 * k, GROUP) * ones16(address(mask) + (k >> 3))
            store(value, address(dx) + 4 * k, GROUP)

    @njit(cache=True, error_model="numpy")
    def _unpack_groups(out, to, mask, values, begin, end, at):
        for k in range(begin, end, GROUP):
            bits = address(mask) + (k >> 3)
            lanes = unpack16(bits, address(values) + 4 * at)
            store(lanes, address(out) + 4 * (to + k - begin), GROUP)
            at += count16(bits)
        return at

    @njit(cache=True, error_model="numpy")
    def _pack_groups(mask, values, x, end):
        at = 0
        for k in range(0, end, GROUP):
            to = address(values) + 4 * min(at, values.size)
            room = values.size - at
            at += pack16(address(mask) + (k >> 3), to, room, address(x) + 4 * k)
        return at

    @njit(cache=True, error_model="numpy")
    def _gate_groups(dx, g, mask, values, most, end):
        at, one, top = 0, splat(np.float32(1)), splat(np.float32(most))
        for k in range(0, end, GROUP):
            bits = address(mask) + (k >> 3)
            y = unpack16(bits, address(values) + 4 * at)
            passes = where_below(y, top, where_positive(y, one))
            value = load(address(g) + 4 * k, GROUP) * passes
            store(value, address(dx) + 4 * k, GROUP)
            at += count16(bits)
        return at

else:

    @njit(cache=True)
    def _mark_groups(mask, y, most, end):
        pass

    @njit(cache=True)
    def _through_groups(dx, g, mask, end):
        pass

    @njit(cache=True)
    def _unpack_groups(out, to, mask, values, begin, end, at):
        return at

    @njit(cache=True)
    def _pack_groups(mask, values, x, end):
        return 0

    @njit(cache=True)
    def _gate_groups(dx, g, mask, values, most, end):
        return 0


@njit(cache=True)
def _groups(begin, end):
    """Where the groups of [begin, end), which begins with a byte, end."""
    return begin + (end - begin) // GROUP * GROUP if GROUPS else begin


@njit(cache=True, error_model="numpy")
def _unpack_each(out, to, mask, values, begin, end, at):
    for k in range(begin, end):  # without a branch: what is zero is as good as random
        bit = np.int64((mask[k >> 3] >> (k & 7)) & 1)
        out[to + k - begin] = values[at * bit] * np.uint32(bit)
        at += bit
    return at


@njit(cache=True, error_model="numpy")
def unpack(out, to, mask, values, begin, end, at):
    """Elements [begin, end) to out[to:], the next non-zero being values[at]; the one after. Both
    are uint32."""
    start = min(end, begin + (-begin & 7))
    stop = _groups(start, end)
    at = _unpack_each(out, to, mask, values, begin, start, at)
    at = _unpack_groups(out, to + start - begin, mask, values, start, stop, at)
    return _unpack_each(out, to + stop - begin, mask, values, stop, end, at)


@njit(cache=True, error_model="numpy")
def pack(mask, values, x):
    """The mask of x and, as far as there is room, its non-zeros in order; how many they are. Both
    are uint32."""
    start = _groups(0, x.size)
    at = _pack_groups(mask, values, x, start)
    for k in range(start, x.size):
        bit = np.int64(x[k] != 0)
        if at < values.size:
            values[at] = x[k]  # the next one lies over a zero
        mask[k >> 3] = (mask[k >> 3] if k & 7 else 0) | bit << (k & 7)
        at += bit
    return at


@njit(cache=True, error_model="numpy")
def gate(dx, g, mask, values, most):
    """g where the packed value is above 0 and below `most` (NaN: no bound), else its product with
    0, as in `relu_vjp`."""
    start = _groups(0, g.size)
    at = _gate_groups(dx, g, mask, values, most, start)
    for k in range(start, g.size):
        bit = np.int64((mask[k >> 3] >> (k & 7)) & 1)
        y = values[at * bit]
        passes = bit & np.int64(y > np.float32(0)) & np.int64(not y >= np.float32(most))
        dx[k] = g[k] * np.float32(passes)
        at += bit


@njit(cache=True, error_model="numpy")
def mark(mask, y, most):
    """The mask of what a gate let pass: above 0 and below `most` (NaN: no bound)."""
    start = _groups(0, y.size)
    _mark_groups(mask, y, most, start)
    for k in range(start, y.size):
        bit = np.int64(y[k] > np.float32(0)) & np.int64(not y[k] >= np.float32(most))
        mask[k >> 3] = (mask[k >> 3] if k & 7 else 0) | bit << (k & 7)


@njit(cache=True, error_model="numpy")
def through(dx, g, mask):
    """g times the bits of a mask: a product, as in `relu_vjp`."""
    start = _groups(0, g.size)
    _through_groups(dx, g, mask, start)
    for k in range(start, g.size):
        dx[k] = g[k] * np.float32((mask[k >> 3] >> (k & 7)) & 1)
