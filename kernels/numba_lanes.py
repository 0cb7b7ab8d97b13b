"""A vector of float32 as a Numba value, for kernels that say themselves what runs in lanes.

LLVM's own vectoriser guards short loops with overlap checks and finishes them in scalars, which
is most of the time when a layer has 3 or 16 channels. A `Lanes` value is one vector register
(or as many as the target needs for it): loaded from an address, computed with + - * /, stored.
A shorter run of lanes is loaded and stored under a mask. Nothing here contracts or reorders.
"""

import operator

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.core.registry import cpu_target
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

_FEATURES = cpu_target.target_context.codegen().magic_tuple()[2].split(",")

# Lanes of a vector, rows of the product's tile (what registers hold without spilling), and
# whether a masked load is one instruction.
if "+avx512f" in _FEATURES:
    LANES, ROWS, MASKS = 16, 8, True
elif "+avx" in _FEATURES:
    LANES, ROWS, MASKS = 8, 4, True
elif "aarch64" in llvm.get_default_triple() or "arm64" in llvm.get_default_triple():
    LANES, ROWS, MASKS = 4, 8, False
else:
    LANES, ROWS, MASKS = 4, 4, False

I32, I64, F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()


def pointer(builder, address, pointee):
    """An address (int64) as an LLVM pointer."""
    return builder.inttoptr(address, pointee.as_pointer())


def offset(builder, address, *parts):
    """`address` moved by a sum of parts: float32 counts, or pairs that are multiplied."""
    for part in parts:
        count = builder.mul(*part) if isinstance(part, tuple) else part
        address = builder.add(address, builder.shl(count, I64(2)))
    return address


def broadcast(builder, scalar, lanes):
    """`lanes` copies of a float."""
    undefined = ir.Constant(ir.VectorType(F32, lanes), ir.Undefined)
    one = builder.insert_element(undefined, scalar, I32(0))
    return builder.shuffle_vector(
        one, undefined, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
    )


def mask_of(builder, count, lanes):
    """True in the first `count` (int64) lanes."""
    vector = ir.VectorType(I32, lanes)
    undefined = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(undefined, builder.trunc(count, I32), I32(0))
    copies = builder.shuffle_vector(one, undefined, ir.Constant(vector, [0] * lanes))
    return builder.icmp_signed("<", ir.Constant(vector, list(range(lanes))), copies)


def masked(builder, kind, vector):
    """LLVM's masked load or store of this vector type: (function, pointer type)."""
    lanes = vector.count
    mask, to = ir.VectorType(ir.IntType(1), lanes), vector.as_pointer()
    # The suffix names the pointer too; LLVM mends the older spelling when it reads the module.
    name = f"llvm.masked.{kind}.v{lanes}f32.p0"
    if kind == "load":
        shape = ir.FunctionType(vector, [to, I32, mask, vector])
    else:
        shape = ir.FunctionType(ir.VoidType(), [vector, to, I32, mask])
    return cgutils.get_or_insert_function(builder.module, shape, name)


def load_lanes(builder, address, vector, mask=None):
    """A vector from memory; lanes outside the mask are +0 and not touched."""
    at = pointer(builder, address, vector)
    if mask is None:
        return builder.load(at, align=4)
    zero = ir.Constant(vector, [0.0] * vector.count)
    return builder.call(masked(builder, "load", vector), [at, I32(4), mask, zero])


def store_lanes(builder, value, address, mask=None):
    """A vector to memory; lanes outside the mask are not touched."""
    at = pointer(builder, address, value.type)
    if mask is None:
        builder.store(value, at, align=4)
    else:
        builder.call(masked(builder, "store", value.type), [value, at, I32(4), mask])


# ---------------------------------------------------------------------------- addresses


@intrinsic
def address(typing, array):
    """The address of an array's first element, as int64."""

    def codegen(context, builder, sig, args):
        view = context.make_array(sig.args[0])(context, builder, args[0])
        return builder.ptrtoint(view.data, I64)

    return types.int64(array), codegen


@intrinsic
def zero(typing, at, count):
    """+0 to `count` float32 from an address on."""

    def codegen(context, builder, sig, args):
        to = pointer(builder, args[0], ir.IntType(8))
        cgutils.memset(builder, to, builder.shl(args[1], I64(2)), 0)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic(prefer_literal=True)
def on_stack(typing, count):
    """The address of `count` (a constant) float32, the calling function's until it returns."""

    def codegen(context, builder, sig, args):
        room = cgutils.alloca_once(builder, F32, size=sig.args[0].literal_value)
        return builder.ptrtoint(room, I64)

    if not isinstance(count, types.IntegerLiteral):
        raise TypingError("the size must be a constant")
    return types.int64(count), codegen


# ---------------------------------------------------------------------------- the value


class _Lanes(types.Type):
    def __init__(self, count):
        self.count = count
        super().__init__(name=f"Lanes({count})")


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, ir.VectorType(F32, kind.count))


MANY = _Lanes(LANES)
# Sums along the lanes have their width in their definition, on every machine.
EIGHT = MANY if LANES == 8 else _Lanes(8)
_KINDS = tuple(dict.fromkeys((MANY, EIGHT)))


def _arithmetic(function, name):
    """`function` of two vectors is LLVM's instruction `name`."""

    @infer_global(function)
    class _Template(ConcreteTemplate):
        cases = tuple(signature(kind, kind, kind) for kind in _KINDS)

    for kind in _KINDS:

        @lower_builtin(function, kind, kind)
        def _lower(context, builder, sig, args):
            return getattr(builder, name)(*args)


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")
_arithmetic(operator.truediv, "fdiv")


def _splat(kind):
    @intrinsic
    def splat(typing, x):
        def codegen(context, builder, sig, args):
            return broadcast(builder, args[0], kind.count)

        return kind(types.float32), codegen

    return splat


def _load(kind):
    @intrinsic
    def load(typing, at, count):
        def codegen(context, builder, sig, args):
            (at, count), vector = args, ir.VectorType(F32, kind.count)
            result = cgutils.alloca_once(builder, vector)
            every = builder.icmp_signed(">=", count, I64(kind.count))
            with builder.if_else(every) as (whole, part):
                with whole:
                    builder.store(load_lanes(builder, at, vector), result)
                with part:
                    mask = mask_of(builder, count, kind.count)
                    builder.store(load_lanes(builder, at, vector, mask), result)
            return builder.load(result)

        return kind(types.int64, types.int64), codegen

    return load


splat, splat8 = _splat(MANY), _splat(EIGHT)  # the same float32 in every lane


@intrinsic
def splat_at(typing, at):
    """The float32 at an address in every lane."""

    def codegen(context, builder, sig, args):
        one = builder.load(pointer(builder, args[0], F32), align=4)
        return broadcast(builder, one, LANES)

    return MANY(types.int64), codegen


# load(at, count): `count` float32 from an address; lanes from count on are +0 and not read.
load, load8 = _load(MANY), _load(EIGHT)


@intrinsic
def store(typing, value, at, count):
    """The first `count` lanes of value to address `at`."""

    def codegen(context, builder, sig, args):
        value, at, count = args
        every = builder.icmp_signed(">=", count, I64(LANES))
        with builder.if_else(every) as (whole, part):
            with whole:
                store_lanes(builder, value, at)
            with part:
                store_lanes(builder, value, at, mask_of(builder, count, LANES))
        return context.get_dummy_value()

    return types.void(MANY, types.int64, types.int64), codegen


@intrinsic
def root(typing, value):
    """The square root of every lane, correctly rounded."""

    def codegen(context, builder, sig, args):
        vector = ir.VectorType(F32, LANES)
        name = f"llvm.sqrt.v{LANES}f32"
        function = ir.FunctionType(vector, [vector])
        return builder.call(cgutils.get_or_insert_function(builder.module, function, name), args)

    return MANY(MANY), codegen


@intrinsic
def first8(typing, value, count):
    """value with +0 in the lanes from count on."""

    def codegen(context, builder, sig, args):
        nothing = ir.Constant(args[0].type, [0.0] * 8)
        return builder.select(mask_of(builder, args[1], 8), args[0], nothing)

    return EIGHT(EIGHT, types.int64), codegen


@intrinsic
def total8(typing, value):
    """The sum of eight lanes by a fixed tree: ((0+4)+(2+6)) + ((1+5)+(3+7))."""

    def codegen(context, builder, sig, args):
        part = args[0]
        for width in (4, 2, 1):
            low, high = (
                ir.Constant(ir.VectorType(I32, width), list(range(start, start + width)))
                for start in (0, width)
            )
            undefined = ir.Constant(part.type, ir.Undefined)
            part = builder.fadd(
                builder.shuffle_vector(part, undefined, low),
                builder.shuffle_vector(part, undefined, high),
            )
        return builder.extract_element(part, I32(0))

    return types.float32(EIGHT), codegen


# ---------------------------------------------------------------------------- choices and indexes


@intrinsic
def larger(typing, value, seen):
    """1 where value > seen, or where value is the first NaN; else 0, lane by lane."""

    def codegen(context, builder, sig, args):
        value, seen = args
        better = builder.and_(
            builder.fcmp_unordered(">", value, seen), builder.fcmp_ordered("ord", seen, seen)
        )
        return builder.uitofp(better, seen.type)

    return MANY(MANY, MANY), codegen


@intrinsic
def select(typing, test, value, other):
    """value where test is not 0, else other."""

    def codegen(context, builder, sig, args):
        nothing = ir.Constant(args[0].type, [0.0] * LANES)
        return builder.select(builder.fcmp_unordered("!=", args[0], nothing), args[1], args[2])

    return MANY(MANY, MANY, MANY), codegen


@intrinsic
def where_equal(typing, a, b, value):
    """value where a == b, else +0."""

    def codegen(context, builder, sig, args):
        nothing = ir.Constant(args[0].type, [0.0] * LANES)
        return builder.select(builder.fcmp_ordered("==", args[0], args[1]), args[2], nothing)

    return MANY(MANY, MANY, MANY), codegen


def _integer(typ):
    """The LLVM type of an index array's elements: uint8, or int32 for large windows."""
    return ir.IntType(typ.dtype.bitwidth)


@intrinsic
def load_index(typing, array, place, count):
    """`count` integers of an array, from flat position `place` on, as float32 lanes (exact)."""

    def codegen(context, builder, sig, args):
        kind = _integer(sig.args[0])
        view = context.make_array(sig.args[0])(context, builder, args[0])
        start = builder.gep(view.data, [args[1]])
        result = cgutils.alloca_once_value(
            builder, ir.Constant(ir.VectorType(kind, LANES), [0] * LANES)
        )
        every = builder.icmp_signed(">=", args[2], I64(LANES))
        with builder.if_else(every) as (whole, part):
            with whole:
                vector = ir.VectorType(kind, LANES)
                at = builder.bitcast(start, vector.as_pointer())
                builder.store(builder.load(at, align=kind.width // 8), result)
            with part:
                lane = builder.bitcast(result, kind.as_pointer())
                with cgutils.for_range(builder, args[2]) as loop:
                    one = builder.load(builder.gep(start, [loop.index]))
                    builder.store(one, builder.gep(lane, [loop.index]))
        return builder.uitofp(builder.load(result), ir.VectorType(F32, LANES))

    return MANY(array, types.int64, types.int64), codegen


@intrinsic
def store_index(typing, value, array, place, count):
    """The first `count` lanes, as integers, to an array from flat position `place` on."""

    def codegen(context, builder, sig, args):
        kind = _integer(sig.args[1])
        view = context.make_array(sig.args[1])(context, builder, args[1])
        start = builder.gep(view.data, [args[2]])
        vector = ir.VectorType(kind, LANES)
        whole_value = builder.fptoui(args[0], vector)
        every = builder.icmp_signed(">=", args[3], I64(LANES))
        with builder.if_else(every) as (whole, part):
            with whole:
                at = builder.bitcast(start, vector.as_pointer())
                builder.store(whole_value, at, align=kind.width // 8)
            with part:
                lane = builder.bitcast(
                    cgutils.alloca_once_value(builder, whole_value), kind.as_pointer()
                )
                with cgutils.for_range(builder, args[3]) as loop:
                    one = builder.load(builder.gep(lane, [loop.index]))
                    builder.store(one, builder.gep(start, [loop.index]))
        return context.get_dummy_value()

    return types.void(MANY, array, types.int64, types.int64), codegen


@intrinsic
def where_positive(typing, test, value):
    """value where test > 0, else +0."""

    def codegen(context, builder, sig, args):
        nothing = ir.Constant(args[0].type, [0.0] * LANES)
        return builder.select(builder.fcmp_ordered(">", args[0], nothing), args[1], nothing)

    return MANY(MANY, MANY), codegen


@intrinsic
def no_nan(typing, value):
    """Whether no lane is a NaN."""

    def codegen(context, builder, sig, args):
        bits = builder.bitcast(builder.fcmp_ordered("ord", args[0], args[0]), ir.IntType(LANES))
        return builder.icmp_signed("==", bits, ir.Constant(ir.IntType(LANES), -1))

    return types.boolean(MANY), codegen


@intrinsic
def float_of(typing, bits):
    """The float32 with these bits (int32)."""
    return types.float32(types.int32), lambda context, builder, sig, args: builder.bitcast(
        args[0], F32
    )


@intrinsic
def bits_of(typing, x):
    """The bits of a float32 (int32)."""
    return types.int32(types.float32), lambda context, builder, sig, args: builder.bitcast(
        args[0], I32
    )
