"""Normalisation, channels last. Residuals are z and its two saved statistics, mean and variance.

layer_norm and weight_standardize are these rows over other shapes (see `tensor.py`).
Sources: batch norm, Ioffe and Szegedy 2015; group norm, Wu and He 2018.
"""

from __future__ import annotations

from tinytrain.errors import InputError
from tinytrain.op import register
from tinytrain.spec import Spec


def _check(name, x, *channels):
    if x.ndim < 2:
        raise InputError(f"{name}: x wants at least two dimensions, got {x.shape}")
    for s in channels:
        if s is not None and s.shape != (x.shape[-1],):
            raise InputError(
                f"{name}: a parameter has shape {s.shape}, x has {x.shape[-1]} channels "
                f"(shape {x.shape})"
            )


def _batch_norm(x: Spec, gamma: Spec | None = None, beta: Spec | None = None, eps=1e-5):
    _check("batch_norm", x, gamma, beta)
    channel = x.with_shape((x.shape[-1],))
    return x, channel, channel


def _batch_norm_vjp_x(
    g: Spec, x: Spec, mean: Spec, var: Spec, gamma: Spec | None, dgamma: Spec, dbeta: Spec, eps
):
    return x


def _batch_norm_vjp_params(g: Spec, x: Spec, mean: Spec, var: Spec, eps):
    return mean, mean


def _batch_params(b, n, g, x, mean, var):
    """(dgamma, dbeta), computed once for the node: the gradient of x needs both sums too."""
    return b.once(
        "params",
        lambda: b.emit("batch_norm_vjp_params", g, b.get(x), mean, var, eps=n.attrs["eps"]),
    )


def _bn_params(b, n, g):
    mean, var = b.get(n.outs[1]), b.get(n.outs[2])
    return _batch_params(b, n, g, n.ins[0], mean, var)


def _bn_x(b, n, g):
    dgamma, dbeta = _bn_params(b, n, g)
    gamma = None if n.ins[1] is None else b.get(n.ins[1])
    stats = b.get(n.outs[1]), b.get(n.outs[2])
    return b.grad("batch_norm_vjp_x", g, b.get(n.ins[0]), *stats, gamma, dgamma, dbeta, **n.attrs)


register(
    "batch_norm",
    _batch_norm,
    vjp=(
        _bn_x,
        lambda b, n, g: _bn_params(b, n, g)[0],
        lambda b, n, g: _bn_params(b, n, g)[1],
    ),
    saves=("x0", "x1", "y1", "y2"),
    inplace=((0, 0),),
    again="batch_norm_frozen",
)
register("batch_norm_vjp_x", _batch_norm_vjp_x, inplace=((0, 0), (0, 1)))
register("batch_norm_vjp_params", _batch_norm_vjp_params)


def _batch_norm_frozen(
    x: Spec, gamma: Spec | None, beta: Spec | None, mean: Spec, var: Spec, eps=1e-5
):
    _check("batch_norm", x, gamma, beta, mean, var)
    return x


def _frozen_x(b, n, g):
    gamma = None if n.ins[1] is None else b.get(n.ins[1])
    return b.grad("batch_norm_frozen_vjp_x", g, gamma, b.get(n.ins[4]), **n.attrs)


def _frozen_beta(b, n, g):
    """A bias that learns alone needs no x (TinyTL, Cai et al. 2020)."""
    gamma = b.tape.leaves.get(n.ins[1])
    alone = gamma is None or (gamma.kind == "parameter" and not gamma.trainable)
    return g if alone and n.ins[1] not in b.producer else _frozen_params(b, n, g)[1]


def _frozen_params(b, n, g):
    return _batch_params(b, n, g, n.ins[0], b.get(n.ins[3]), b.get(n.ins[4]))


def _batch_norm_frozen_vjp_x(g: Spec, gamma: Spec | None, var: Spec, eps):
    return g


register(
    "batch_norm_frozen",
    _batch_norm_frozen,
    vjp=(
        _frozen_x,
        lambda b, n, g: _frozen_params(b, n, g)[0],
        _frozen_beta,
        None,
        None,
    ),
    saves=("x0", "x1", "x3", "x4"),
    inplace=((0, 0),),
)
register("batch_norm_frozen_vjp_x", _batch_norm_frozen_vjp_x, inplace=((0, 0),))


def _group_norm(x: Spec, gamma: Spec | None = None, beta: Spec | None = None, groups=1, eps=1e-5):
    _check("group_norm", x, gamma, beta)
    if groups < 1 or x.shape[-1] % groups:
        raise InputError(f"group_norm: {x.shape[-1]} channels do not divide into {groups} groups")
    stats = x.with_shape((x.shape[0], groups))
    return x, stats, stats


def _group_norm_vjp_x(g: Spec, x: Spec, mean: Spec, var: Spec, gamma: Spec | None, groups, eps):
    return x


def _group_norm_vjp_params(g: Spec, x: Spec, mean: Spec, var: Spec, groups, eps):
    channel = x.with_shape((x.shape[-1],))
    return channel, channel


def _gn_params(b, n, g):
    return b.once(
        "params",
        lambda: b.emit(
            "group_norm_vjp_params",
            g,
            b.get(n.ins[0]),
            b.get(n.outs[1]),
            b.get(n.outs[2]),
            **n.attrs,
        ),
    )


def _gn_x(b, n, g):
    gamma = None if n.ins[1] is None else b.get(n.ins[1])
    stats = b.get(n.outs[1]), b.get(n.outs[2])
    return b.grad("group_norm_vjp_x", g, b.get(n.ins[0]), *stats, gamma, **n.attrs)


register(
    "group_norm",
    _group_norm,
    vjp=(
        _gn_x,
        lambda b, n, g: _gn_params(b, n, g)[0],
        lambda b, n, g: _gn_params(b, n, g)[1],
    ),
    saves=("x0", "x1", "y1", "y2"),
    inplace=((0, 0),),
)
register("group_norm_vjp_x", _group_norm_vjp_x, inplace=((0, 0), (0, 1)))
register("group_norm_vjp_params", _group_norm_vjp_params)


def _running_average(old: Spec, new: Spec, momentum, correction=1.0):
    return old


# old + momentum * (correction * new - old): running statistics, committed once a step.
register("running_average", _running_average, inplace=((0, 0),))
