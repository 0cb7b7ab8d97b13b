"""Rows as instructions: what a kernel without array objects is told. It computes nothing.

`instruction(op, operands, attrs)` gives the name of an instruction and its words: sizes and flags
as ints, constants as floats (already rounded to float32), worked out here once, so that neither the
C kernels nor MicroPython ever see a shape, a Python attr or a double. The operands go with it, in
the order of the reference kernel (outs, ins, work), as addresses; absent ones are null.

The words of each instruction are named where they are made. A *block* is a strided walk: rank,
where the output and the input begin, then rank sizes, rank output and rank input strides, all in
elements; neighbouring axes that lie behind one another on both sides are one.
"""

import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

RANK = 6  # the most axes a block may have once it is merged
Words = list[int | float]
_RULES: dict[str, tuple[str, int, Callable[..., Words]]] = {}


class Unknown(LookupError):
    """An op, a dtype or a shape that no instruction serves; the text says which."""


def _float32(x: float) -> float:
    try:
        return struct.unpack("<f", struct.pack("<f", x))[0]
    except OverflowError:
        return math.copysign(math.inf, x)


def instruction(op: str, operands: Sequence[Any], attrs: Sequence[Any]) -> tuple[str, Words]:
    """(name, words) for a row's call. Operands have `shape`, `size` and `dtype`, or are None;
    `attrs` are the values in the row's order, and last the accumulating form's flag, if it has one.
    Raises Unknown."""
    if op not in _RULES:
        raise Unknown(f"there is no kernel for {op}")
    name, _, rule = _RULES[op]
    for x in operands:
        if x is not None and str(x.dtype) not in ("float32", "int32", "uint32", "uint8"):
            raise Unknown(f"{op}: there is no kernel for {x.dtype}")
    words = rule(*operands, *attrs)
    return name, [_float32(w) if isinstance(w, float) else int(w) for w in words]


def attrs_of(op: str) -> int:
    """How many of a kernel's arguments follow its operands (the accumulating flag included)."""
    if op not in _RULES:
        raise Unknown(f"there is no kernel for {op}")
    return _RULES[op][1]


def names() -> list[str]:
    """Every instruction, in alphabetical order."""
    return sorted({name for name, _, _ in _RULES.values()})


def ops() -> list[str]:
    """Every row that an instruction serves."""
    return sorted(_RULES)


def pack(words: Words) -> list[int]:
    """The words as unsigned 32-bit integers: floats by their bits, negatives modulo 2^32."""
    return [
        struct.unpack("<I", struct.pack("<f", w))[0] if isinstance(w, float) else w & 0xFFFFFFFF
        for w in words
    ]


def _rule(op: str, attrs: int, name: str | None = None):
    def add(rule):
        _RULES[op] = (name or op, attrs, rule)
        return rule

    return add


# ---------------------------------------------------------------------------- strided walks


def _strides(shape: Sequence[int]) -> list[int]:
    steps, size = [], 1
    for n in reversed(shape):
        steps.append(size)
        size *= n
    return steps[::-1]


def _merged(sizes: Sequence[int], *strides: Sequence[int]) -> tuple[list[int], list[list[int]]]:
    """The same walk with as few axes as can be; at least one."""
    axes = [(n, *s) for n, *s in zip(sizes, *strides, strict=True) if n != 1]
    done: list[tuple[int, ...]] = []
    for axis in axes:
        n, *steps = axis
        if done and all(u == n * s for u, s in zip(done[-1][1:], steps, strict=True)):
            done[-1] = (done[-1][0] * n, *steps)
        else:
            done.append(axis)
    done = done or [(1, *[1] * len(strides))]
    if len(done) > RANK:
        raise Unknown(f"a walk over {len(done)} axes; at most {RANK} are served")
    return [a[0] for a in done], [[a[k + 1] for a in done] for k in range(len(strides))]


def _block(sizes, out_steps, in_steps, out_at=0, in_at=0) -> Words:
    sizes, (outs, ins) = _merged(sizes, out_steps, in_steps)
    return [len(sizes), out_at, in_at, *sizes, *outs, *ins]


def _spread(x, shape) -> list[int]:
    """Strides of x where it is broadcast to `shape`."""
    own = [0 if n == 1 else s for n, s in zip(x.shape, _strides(x.shape), strict=True)]
    return [0] * (len(shape) - len(own)) + own


def _four_bytes(*operands) -> None:
    for x in operands:
        if str(x.dtype) == "uint8":
            raise Unknown("uint8 values are not moved")


@_rule("transpose", 1, "move")
def _transpose(y, x, axes):
    _four_bytes(y)
    steps = _strides(x.shape)
    return _block(y.shape, _strides(y.shape), [steps[a] for a in axes])


@_rule("slice", 2, "move")
def _slice(y, x, begin, end):
    _four_bytes(y)
    steps = _strides(x.shape)
    at = sum(b * s for b, s in zip(begin, steps, strict=True))
    return _block(y.shape, _strides(y.shape), steps, 0, at)


@_rule("broadcast_to", 1, "move")
def _broadcast_to(y, x, shape):
    _four_bytes(y)
    return _block(y.shape, _strides(y.shape), _spread(x, y.shape))


def _blocks(deep, block):
    """Sizes of a walk over a value with its blocks in depth, and its strides with them in space."""
    n, h, w, c = deep.shape
    depth = c // (block * block)
    a = _strides((n, h, block, w, block, depth))
    return (n, h, w, block, block, depth), [a[0], a[1], a[3], a[2], a[4], a[5]]


@_rule("space_to_depth", 1, "move")
def _space_to_depth(y, x, block):
    _four_bytes(y)
    sizes, wide = _blocks(y, block)
    return _block(sizes, _strides(sizes), wide)


@_rule("depth_to_space", 1, "move")
def _depth_to_space(y, x, block):
    _four_bytes(y)
    sizes, wide = _blocks(x, block)
    return _block(sizes, wide, _strides(sizes))


@_rule("copy", 0, "move")
def _copy(y, x):
    _four_bytes(y)
    return _block((x.size,), (1,), (1,))


@_rule("concat", 1)
def _concat(y, *xs_axis):
    """parts, then a block for each."""
    *xs, axis = xs_axis
    _four_bytes(y)
    steps, at = _strides(y.shape), 0
    words: Words = [len(xs)]
    for x in xs:
        words += _block(x.shape, steps, _strides(x.shape), at * steps[axis])
        at += x.shape[axis]
    return words


@_rule("pad", 2)
def _pad(y, x, widths, value):
    """elements, value, block."""
    if str(y.dtype) != "float32":
        raise Unknown(f"pad: there is no kernel for {y.dtype}")
    steps = _strides(y.shape)
    at = sum(w[0] * s for w, s in zip(widths, steps, strict=True))
    return [y.size, float(value), *_block(x.shape, steps, _strides(x.shape), at)]


@_rule("slice_vjp", 3)
def _slice_vjp(dx, g, shape, begin, acc):
    """accumulate, elements, block."""
    steps = _strides(dx.shape)
    at = sum(b * s for b, s in zip(begin, steps, strict=True))
    return [bool(acc), dx.size, *_block(g.shape, steps, _strides(g.shape), at)]


@_rule("fill", 3)
def _fill(y, shape, value, dtype):
    """elements, value (as the bits of the dtype)."""
    _four_bytes(y)
    return [y.size, float(value) if str(y.dtype) == "float32" else int(value)]


# ---------------------------------------------------------------------------- elementwise


def _floats(op, *operands) -> None:
    for x in operands:
        if x is not None and str(x.dtype) != "float32":
            raise Unknown(f"{op}: there is no kernel for {x.dtype}")


def _integers(op, x) -> None:
    if str(x.dtype) not in ("int32", "uint32"):
        raise Unknown(f"{op}: there is no kernel for {x.dtype} where it wants int32")


def _binary(op):
    @_rule(op, 0)
    def rule(y, a, b):
        """rank, sizes, strides of a, strides of b; the output is contiguous."""
        _floats(op, y, a, b)
        out = _strides(y.shape)
        sizes, (_, left, right) = _merged(y.shape, out, _spread(a, y.shape), _spread(b, y.shape))
        return [len(sizes), *sizes, *left, *right]


def _each(op, attrs=0, words=lambda *attrs: [], name=None):
    @_rule(op, attrs, name)
    def rule(y, *rest):
        """elements, then constants."""
        operands = rest[: len(rest) - attrs]
        _floats(op, y, *operands)
        return [y.size, *words(*rest[len(operands) :])]


for _op in ("add", "sub", "mul", "div"):
    _binary(_op)
for _op in ("neg", "exp", "log", "sqrt", "abs", "tanh", "sigmoid", "relu", "relu6", "silu", "gelu"):
    _each(_op)
for _op in ("sqrt", "abs", "tanh", "sigmoid", "relu", "relu6", "silu", "gelu"):
    _each(f"{_op}_vjp")
for _op in ("leaky_relu", "leaky_relu_vjp", "scale"):
    _each(_op, 1, lambda constant: [float(constant)])
for _op in ("pow", "pow_vjp"):
    _each(_op, 1, lambda exponent: [float(exponent)])
_each("snap", 1, lambda bits: [2.0**bits, 2.0**-bits])


@_rule("div_vjp_b", 0)
def _div_vjp_b(dx, g, y, b):
    """rank, sizes, strides of b; the others are contiguous."""
    _floats("div_vjp_b", dx, g, y, b)
    sizes, (_, steps) = _merged(dx.shape, _strides(dx.shape), _spread(b, dx.shape))
    return [len(sizes), *sizes, *steps]


_MOST = {"relu": math.inf, "relu6": 6.0}


@_rule("gate_mask", 1)
def _gate_mask(mask, y, gate):
    """elements, the least value that does not pass."""
    return [y.size, _MOST[gate]]


@_rule("gate_mask_vjp", 0)
def _gate_mask_vjp(dx, g, mask):
    return [g.size]


@_rule("bitmap_pack", 1)
def _bitmap_pack(mask, values, count, x, capacity):
    """elements, capacity."""
    _floats("bitmap_pack", x)
    return [x.size, capacity]


@_rule("bitmap_unpack", 1)
def _bitmap_unpack(y, mask, values, shape):
    return [y.size]


@_rule("bitmap_gate_vjp", 1)
def _bitmap_gate_vjp(dx, g, mask, values, gate):
    """elements, the least value that does not pass."""
    return [g.size, _MOST[gate]]


@_rule("topk_pack", 1)
def _topk_pack(mask, values, x, histogram, k):
    """elements, how many stay."""
    _floats("topk_pack", x)
    return [x.size, k]


@_rule("zero_pruned", 0)
def _zero_pruned(y, g, p):
    """elements."""
    _floats("zero_pruned", y, g, p)
    return [g.size]


# ---------------------------------------------------------------------------- reductions


def _reduction(shape, axis) -> Words:
    """rank, sizes and strides of the axes that stay, then of those that are reduced."""
    steps = _strides(shape)
    stay = [k for k in range(len(shape)) if k not in axis]
    words: Words = []
    for part in (stay, list(axis)):
        sizes, (own,) = _merged([shape[k] for k in part], [steps[k] for k in part])
        words += [len(sizes), *sizes, *own]
    return words


@_rule("sum", 2)
def _sum(y, x, axis, keepdims):
    """what to divide by (0: nothing), reduction."""
    _floats("sum", y)
    return [0, *_reduction(x.shape, axis)]


@_rule("mean", 2, "sum")
def _mean(y, x, axis, keepdims):
    _floats("mean", y)
    return [x.size // max(y.size, 1), *_reduction(x.shape, axis)]


@_rule("max", 2)
def _max(y, x, axis, keepdims):
    """reduction."""
    _floats("max", y)
    return _reduction(x.shape, axis)


@_rule("max_vjp", 1)
def _max_vjp(dx, g, x, axis):
    """reduction."""
    _floats("max_vjp", dx)
    return _reduction(x.shape, axis)


@_rule("sum_to", 2)
def _sum_to(y, g, shape, acc):
    """accumulate, rows, columns; rows 0: columns is 0 too, and a reduction follows."""
    _floats("sum_to", y, g)
    lead = len(g.shape) - len(y.shape)
    if tuple(g.shape[lead:]) == tuple(y.shape):
        return [bool(acc), g.size // max(y.size, 1), y.size]
    ones = [lead + k for k, n in enumerate(y.shape) if n == 1 and g.shape[lead + k] != 1]
    return [bool(acc), 0, 0, *_reduction(g.shape, [*range(lead), *ones])]


def _along(op):
    @_rule(op, 1)
    def rule(y, *rest):
        """outer, length of the axis, inner."""
        _floats(op, y, *rest[:-1])
        axis = rest[-1]
        return [math.prod(y.shape[:axis]), y.shape[axis], math.prod(y.shape[axis + 1 :])]


for _op in ("softmax", "softmax_vjp", "log_softmax", "log_softmax_vjp"):
    _along(_op)


from . import geometry_layers  # noqa: E402, F401  (adds its rules)
