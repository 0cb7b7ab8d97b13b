"""Rows that move values without computing: reshape, transpose, concat, slice, pad, blocks."""

from __future__ import annotations

import math

from tinytrain.errors import InputError
from tinytrain.op import register
from tinytrain.spec import Spec


def axis_of(name: str, axis: int, ndim: int) -> int:
    """A possibly negative axis as one in [0, ndim)."""
    if not isinstance(axis, int) or not -ndim <= axis < ndim:
        raise InputError(f"{name}: axis {axis!r} does not exist in {ndim} dimensions")
    return axis % ndim


def _reshape_canon(attrs, x):
    shape = attrs["shape"]
    shape = (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape)
    if shape.count(-1) > 1 or min(shape, default=0) < -1:
        raise InputError(f"reshape: {shape} wants sizes, at most one of them -1")
    if -1 in shape:
        known = math.prod(n for n in shape if n != -1)
        if known == 0 or x.size % known:
            raise InputError(f"reshape: {x.shape} has {x.size} elements, not a multiple of {known}")
        shape = tuple(x.size // known if n == -1 else n for n in shape)
    return {"shape": shape}


def _reshape(x: Spec, shape):
    if math.prod(shape) != x.size:
        raise InputError(f"reshape: {x.shape} has {x.size} elements, {shape} wants another number")
    return x.with_shape(shape)


register(
    "reshape",
    _reshape,
    canon=_reshape_canon,
    vjp=(lambda b, n, g: b.emit("reshape", g, shape=b.spec(n.ins[0]).shape),),
    view=True,
    integers=True,
)


def _transpose_canon(attrs, x):
    axes = attrs["axes"]
    axes = tuple(reversed(range(x.ndim))) if axes is None else tuple(axes)
    return {"axes": tuple(axis_of("transpose", a, x.ndim) for a in axes)}


def _transpose(x: Spec, axes=None):
    if sorted(axes) != list(range(x.ndim)):
        raise InputError(f"transpose: axes {axes} are no permutation of {x.ndim} dimensions")
    return x.with_shape(tuple(x.shape[a] for a in axes))


def _transpose_vjp(b, n, g):
    axes = n.attrs["axes"]
    return b.grad("transpose", g, axes=tuple(axes.index(k) for k in range(len(axes))))


register("transpose", _transpose, canon=_transpose_canon, vjp=(_transpose_vjp,), integers=True)


def _concat_canon(attrs, *xs):
    if not xs:
        raise InputError("concat: no tensors given")
    return {"axis": axis_of("concat", attrs["axis"], xs[0].ndim)}


def _concat(*xs: Spec, axis=0):
    def rest(s):
        return (s.dtype, s.shape[:axis], s.shape[axis + 1 :], s.ndim)

    for x in xs[1:]:
        if rest(x) != rest(xs[0]):
            raise InputError(f"concat: {x} does not go with {xs[0]} along axis {axis}")
    shape = list(xs[0].shape)
    shape[axis] = sum(x.shape[axis] for x in xs)
    return xs[0].with_shape(tuple(shape))


def _concat_vjp(b, n, g, i):
    axis = n.attrs["axis"]
    begin = [0] * b.spec(g).ndim
    begin[axis] = sum(b.spec(v).shape[axis] for v in n.ins[:i])
    end = [s + t for s, t in zip(begin, b.spec(n.ins[i]).shape, strict=True)]
    return b.grad("slice", g, begin=tuple(begin), end=tuple(end))


register("concat", _concat, canon=_concat_canon, vjp=_concat_vjp, integers=True)


def _slice_canon(attrs, x):
    begin, end = tuple(attrs["begin"]), tuple(attrs["end"])
    if len(begin) != x.ndim or len(end) != x.ndim:
        raise InputError(f"slice: begin {begin} and end {end} want {x.ndim} numbers each")
    for s, t, n in zip(begin, end, x.shape, strict=True):
        if not 0 <= s < t <= n:
            raise InputError(f"slice: {begin} to {end} does not lie within {x.shape}")
    return {"begin": begin, "end": end}


def _slice(x: Spec, begin, end):
    return x.with_shape(tuple(t - s for s, t in zip(begin, end, strict=True)))


def _slice_vjp(g: Spec, shape, begin):
    return g.with_shape(shape)


register(
    "slice",
    _slice,
    canon=_slice_canon,
    vjp=(
        lambda b, n, g: b.grad(
            "slice_vjp", g, shape=b.spec(n.ins[0]).shape, begin=n.attrs["begin"]
        ),
    ),
    integers=True,
)
register("slice_vjp", _slice_vjp, acc=True)


def _pad_canon(attrs, x):
    try:
        widths = tuple(tuple(int(k) for k in w) for w in attrs["widths"])
    except TypeError:
        widths = (attrs["widths"],)
    if widths and not isinstance(widths[0], tuple):
        raise InputError(f"pad: widths {widths[0]} want {x.ndim} pairs (before, after)")
    if len(widths) != x.ndim or any(len(w) != 2 or min(w) < 0 for w in widths):
        raise InputError(f"pad: widths {widths} want {x.ndim} pairs (before, after), none negative")
    return {"widths": widths, "value": float(attrs["value"])}


def _pad(x: Spec, widths, value=0.0):
    return x.with_shape(tuple(n + sum(w) for n, w in zip(x.shape, widths, strict=True)))


def _pad_vjp(b, n, g):
    begin = tuple(w[0] for w in n.attrs["widths"])
    end = tuple(s + t for s, t in zip(begin, b.spec(n.ins[0]).shape, strict=True))
    return b.grad("slice", g, begin=begin, end=end)


register("pad", _pad, canon=_pad_canon, vjp=(_pad_vjp,), integers=True)


def _space_to_depth(x: Spec, block=2):
    if x.ndim != 4 or block < 1 or x.shape[1] % block or x.shape[2] % block:
        raise InputError(f"space_to_depth: {x.shape} wants (N, H, W, C), H and W in {block}s")
    n, h, w, c = x.shape
    return x.with_shape((n, h // block, w // block, c * block * block))


def _depth_to_space(x: Spec, block=2):
    if x.ndim != 4 or block < 1 or x.shape[3] % (block * block):
        raise InputError(f"depth_to_space: {x.shape} wants (N, H, W, C), C in {block * block}s")
    n, h, w, c = x.shape
    return x.with_shape((n, h * block, w * block, c // (block * block)))


register(
    "space_to_depth",
    _space_to_depth,
    vjp=(lambda b, n, g: b.grad("depth_to_space", g, **n.attrs),),
    inverse=(lambda b, n: b.emit("depth_to_space", b.get(n.outs[0]), **n.attrs),),
    integers=True,
)
register(
    "depth_to_space",
    _depth_to_space,
    vjp=(lambda b, n, g: b.grad("space_to_depth", g, **n.attrs),),
    inverse=(lambda b, n: b.emit("space_to_depth", b.get(n.outs[0]), **n.attrs),),
    integers=True,
)


def _broadcast_to_canon(attrs, x):
    shape = attrs["shape"]
    return {"shape": (shape,) if isinstance(shape, int) else tuple(shape)}


def _broadcast_to(x: Spec, shape):
    tail = shape[len(shape) - x.ndim :] if x.ndim else ()
    if len(shape) < x.ndim or any(m not in (1, n) for m, n in zip(x.shape, tail, strict=True)):
        raise InputError(f"broadcast_to: {x.shape} does not broadcast to {shape}")
    return x.with_shape(shape)


register("broadcast_to", _broadcast_to, canon=_broadcast_to_canon, vjp=(lambda b, n, g: g,))


def _fill(shape, value, dtype="float32"):
    return Spec(tuple(shape), dtype)


register("fill", _fill)
