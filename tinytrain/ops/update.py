"""Rows of the update: optimizer steps, clipping and the guard. None has a gradient.

Sources: SGD with momentum as Sutskever et al. 2013 in PyTorch's form; Adam, Kingma and Ba 2015;
AdamW, Loshchilov and Hutter 2019.
"""

from __future__ import annotations

from tinytrain.op import register
from tinytrain.spec import Spec


def _decay(v: Spec, p: Spec | None, momentum, weight_decay):
    return v


# momentum * v + weight_decay * p: what the step's gradients are then added to.
register("decay", _decay, inplace=((0, 0),))


def _sgd(p: Spec, g: Spec, lr: Spec):
    return p


register("sgd", _sgd, inplace=((0, 0),))  # p - lr * g


def _nesterov(p: Spec, g: Spec, v: Spec, lr: Spec, momentum):
    return p


register("nesterov", _nesterov, inplace=((0, 0),))  # p - lr * (g + momentum * v)


def _adam(p: Spec, m: Spec, v: Spec, g: Spec, lr: Spec, corrections: Spec, b1, b2, eps, decoupled):
    return p, m, v


# corrections = (1 - b1^t, 1 - b2^t), written by the host with the rate.
register("adam", _adam, inplace=((0, 0), (1, 1), (2, 2)))


def _add_weights(g: Spec, p: Spec, factor):
    return g


register("add_scaled", _add_weights, inplace=((0, 0),))  # g + factor * p


def _square_sum(g: Spec):
    return g.with_shape(())


register("square_sum", _square_sum, acc=True)


def _clip_factor(total: Spec, max_norm):
    return total


register("clip_factor", _clip_factor, inplace=((0, 0),))  # min(1, max_norm / sqrt(total))


def _zero_pruned(g: Spec, p: Spec):
    return g


register("zero_pruned", _zero_pruned, inplace=((0, 0),))  # g, but +0 where p is +0


def _copy(x: Spec):
    return x


register("copy", _copy, inplace=((0, 0),))


def _check_finite(*xs: Spec):
    return Spec((), "uint32")


register("check_finite", _check_finite)  # 0, or 1 + the position of the first that is not
