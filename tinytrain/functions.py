"""The public functions `tt.ops.*`: one for each row with a gradient, and those made of several.

Importing this file puts them into `tinytrain.ops` and makes the common ones methods of Tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tinytrain.ops as _ops
from tinytrain.errors import InputError
from tinytrain.op import OPS
from tinytrain.tensor import Tensor, apply, as_tensor


def _public(op: str) -> Callable[..., Tensor]:
    """The function `tt.ops.<op>`: inputs first, then attrs, by position or by name."""
    row = OPS[op]

    def function(*args: Any, **named: Any) -> Tensor:
        names = [*row.inputs, *row.attrs]
        if len(args) > len(names):
            raise InputError(f"{op}: takes {len(names)} arguments ({', '.join(names)})")
        given = dict(zip(names, args, strict=False))
        twice = set(given) & set(named)
        if twice:
            raise InputError(f"{op}: argument {sorted(twice)[0]!r} is given twice")
        given.update(named)
        first = given.get(row.inputs[0]) if row.inputs else None
        like = first if isinstance(first, Tensor) else None
        ins = [None if given.get(n) is None else as_tensor(given.pop(n), like) for n in row.inputs]
        if any(t is None for t in ins[: row.required]):
            missing = row.inputs[ins.index(None)]
            raise InputError(f"{op}: missing argument {missing!r}")
        attrs = {k: v for k, v in given.items() if k not in row.inputs}
        return apply(op, *ins, **attrs)

    function.__name__ = function.__qualname__ = op
    function.__doc__ = (
        f"{op}({', '.join([*row.inputs, *row.attrs])}), see the row in tinytrain.ops."
    )
    return function


def concat(tensors: Sequence[Any], axis: int = 0) -> Tensor:
    """Tensors one behind the other along `axis`."""
    return apply("concat", *(as_tensor(t) for t in tensors), axis=axis)


def split(x: Tensor, sections: int | Sequence[int], axis: int = -1) -> list[Tensor]:
    """Equal parts (an int) or parts of the given sizes along `axis`."""
    axis = _ops.shape.axis_of("split", axis, x.ndim)
    size = x.shape[axis]
    if isinstance(sections, int):
        if sections < 1 or size % sections:
            raise InputError(f"split: axis {axis} of {x.shape} does not divide into {sections}")
        sections = [size // sections] * sections
    if sum(sections) != size:
        raise InputError(f"split: {list(sections)} do not sum to {size}, axis {axis} of {x.shape}")
    parts, at = [], 0
    for n in sections:
        begin, end = [0] * x.ndim, list(x.shape)
        begin[axis], end[axis] = at, at + n
        parts.append(apply("slice", x, begin=tuple(begin), end=tuple(end)))
        at += n
    return parts


def conv1d(x, w, b=None, stride=1, padding=0, groups=1, dilation=1) -> Tensor:
    """x (N, L, C), w (k, C/groups, O) -> (N, Lo, O): conv2d over a height of one.

    padding is an int, a pair (before, after) or "same"; (k - 1) * dilation before and none after
    makes it causal.
    """
    x, w = as_tensor(x), as_tensor(w)
    if x.ndim != 3 or w.ndim != 3:
        raise InputError(f"conv1d: wants (N, L, C) and (k, C/groups, O), got {x.shape}, {w.shape}")
    if x.shape[2] != w.shape[1] * groups:
        raise InputError(
            f"conv1d: weight expects {w.shape[1] * groups} input channels, x has {x.shape[2]} "
            f"(shape {x.shape}); is x channels-last?"
        )
    if padding != "same":
        pair = (padding, padding) if isinstance(padding, int) else padding
        if not isinstance(pair, tuple | list):
            raise InputError(f"conv1d: padding is {padding!r}; an int, (before, after) or 'same'")
        padding = ((0, 0), pair)
    y = apply(
        "conv2d",
        x.reshape(x.shape[0], 1, *x.shape[1:]),
        w.reshape(1, *w.shape),
        None if b is None else as_tensor(b),
        stride=(1, stride),
        padding=padding,
        groups=groups,
        dilation=(1, dilation),
    )
    return y.reshape(y.shape[0], *y.shape[2:])


def batch_norm(x, gamma=None, beta=None, mean=None, var=None, eps=1e-5) -> Tensor:
    """Normalise each channel (the last axis) over all other axes: by its own statistics, or,
    frozen, by a stored `mean` and `var`."""
    x, gamma, beta = as_tensor(x), _maybe(gamma), _maybe(beta)
    if (mean is None) != (var is None):
        raise InputError("batch_norm: frozen it wants both mean and var; give both or neither")
    if mean is None:
        return apply("batch_norm", x, gamma, beta, eps=eps)
    frozen = as_tensor(mean), as_tensor(var)
    return apply("batch_norm_frozen", x, gamma, beta, *frozen, eps=eps)


def layer_norm(x, gamma=None, beta=None, eps=1e-5) -> Tensor:
    """Normalise over the last axis (Ba et al. 2016): group_norm with one group of one pixel."""
    x = as_tensor(x)
    if x.ndim < 1:
        raise InputError("layer_norm: x wants at least one dimension")
    rows = x.reshape(-1, 1, x.shape[-1])
    y = apply("group_norm", rows, _maybe(gamma), _maybe(beta), groups=1, eps=eps)
    return y.reshape(x.shape)


def weight_standardize(w, eps=1e-5) -> Tensor:
    """Each output channel (the last axis) with mean 0 and variance 1 (Qiao et al. 2019)."""
    return apply("batch_norm", as_tensor(w), None, None, eps=eps)


def global_avg_pool(x) -> Tensor:
    """(N, H, W, C) -> (N, C)."""
    x = as_tensor(x)
    if x.ndim != 4:
        raise InputError(f"global_avg_pool: wants (N, H, W, C), got {x.shape}")
    return apply("mean", x, axis=(1, 2))


def _maybe(x: Any) -> Tensor | None:
    return None if x is None else as_tensor(x)


COMPOSITES = (
    concat,
    split,
    conv1d,
    batch_norm,
    layer_norm,
    weight_standardize,
    global_avg_pool,
)
PRIVATE = ("batch_norm_frozen",)
METHODS = (
    *(
        "exp",
        "log",
        "sqrt",
        "abs",
        "tanh",
        "sigmoid",
        "relu",
        "relu6",
        "leaky_relu",
        "silu",
        "gelu",
    ),
    *("sum", "mean", "max", "softmax", "log_softmax"),
)


def _publish() -> None:
    """Make `tt.ops.*` and the Tensor methods from the rows."""
    for name, row in OPS.items():
        if row.vjp is not None and name not in PRIVATE:
            setattr(_ops, name, _public(name))
    for function in COMPOSITES:
        setattr(_ops, function.__name__, function)
    for name in METHODS:
        setattr(Tensor, name, getattr(_ops, name))


_publish()
