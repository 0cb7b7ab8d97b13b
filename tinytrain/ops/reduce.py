"""Reductions: sum, mean, max, softmax and the sum that undoes broadcasting."""

from __future__ import annotations

import math

from tinytrain.errors import InputError
from tinytrain.op import register
from tinytrain.ops.shape import axis_of
from tinytrain.spec import Spec


def _axes_canon(name):
    def canon(attrs, x):
        axis = attrs["axis"]
        axes = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
        axes = tuple(sorted({axis_of(name, a, x.ndim) for a in axes}))
        if math.prod(x.shape[a] for a in axes) == 0:
            raise InputError(f"{name}: nothing to reduce in shape {x.shape}")
        return {"axis": axes, "keepdims": bool(attrs["keepdims"])}

    return canon


def _reduced(x: Spec, axis=None, keepdims=False):
    if keepdims:
        return x.with_shape(tuple(1 if k in axis else n for k, n in enumerate(x.shape)))
    return x.with_shape(tuple(n for k, n in enumerate(x.shape) if k not in axis))


def _kept(b, n):
    """The reduced shape with ones for the axes that were summed."""
    shape = b.spec(n.ins[0]).shape
    return tuple(1 if k in n.attrs["axis"] else m for k, m in enumerate(shape))


def _spread(b, n, g):
    """g over the summed axes again."""
    g = b.emit("reshape", g, shape=_kept(b, n))
    return b.grad("broadcast_to", g, shape=b.spec(n.ins[0]).shape)


def _mean_vjp(b, n, g):
    count = math.prod(b.spec(n.ins[0]).shape[a] for a in n.attrs["axis"])
    return _spread(b, n, b.emit("scale", g, factor=1.0 / count))


register("sum", _reduced, canon=_axes_canon("sum"), vjp=(_spread,), integers=True)
register("mean", _reduced, canon=_axes_canon("mean"), vjp=(_mean_vjp,))
register(
    "max",
    _reduced,
    canon=_axes_canon("max"),
    vjp=(
        lambda b, n, g: b.grad(
            "max_vjp",
            b.emit("reshape", g, shape=_kept(b, n)),
            b.get(n.ins[0]),
            axis=n.attrs["axis"],
        ),
    ),
    saves=("x0",),
    integers=True,
)


def _max_vjp(g: Spec, x: Spec, axis):
    return x


register("max_vjp", _max_vjp)


def _sum_to(g: Spec, shape):
    return g.with_shape(tuple(shape))


register("sum_to", _sum_to, acc=True)


def _softmax_canon(attrs, x):
    return {"axis": axis_of("softmax", attrs["axis"], x.ndim)}


def _softmax(x: Spec, axis=-1):
    return x


def _softmax_vjp(g: Spec, y: Spec, axis):
    return g


for _name in ("softmax", "log_softmax"):
    register(
        _name,
        _softmax,
        canon=_softmax_canon,
        vjp=(lambda b, n, g, vjp=f"{_name}_vjp": b.grad(vjp, g, b.get(n.outs[0]), **n.attrs),),
        saves=("y0",),
        inplace=((0, 0),),
    )
    register(f"{_name}_vjp", _softmax_vjp, inplace=((0, 0), (0, 1)))
