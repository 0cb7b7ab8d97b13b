"""Losses as rows: a scalar mean, and as their residual the gradient over the predictions.

An optional mask (1 counts, 0 does not) has the labels' shape; the mean is over what counts.
"""

from __future__ import annotations

from tinytrain.errors import InputError
from tinytrain.op import register
from tinytrain.spec import Spec


def _scalar(x):
    return x.with_shape(())


def _check_mask(name, mask, shape):
    if mask is not None and mask.shape != shape:
        raise InputError(f"{name}: the mask has shape {mask.shape}, wants {shape}")


def _cross_entropy(logits: Spec, labels: Spec, mask: Spec | None = None, label_smoothing=0.0):
    if logits.ndim < 1 or labels.shape != logits.shape[:-1]:
        raise InputError(
            f"cross_entropy: labels have shape {labels.shape}, logits {logits.shape} want "
            f"{logits.shape[:-1]}"
        )
    if labels.is_float:
        raise InputError(f"cross_entropy: labels are {labels.dtype}, want integers (class numbers)")
    if not 0 <= label_smoothing < 1:
        raise InputError(f"cross_entropy: label_smoothing {label_smoothing} is not within [0, 1)")
    _check_mask("cross_entropy", mask, labels.shape)
    return _scalar(logits), logits


def _pointwise(name):
    def shape(outputs: Spec, targets: Spec, mask: Spec | None = None):
        if outputs != targets:
            raise InputError(f"{name}: targets are {targets}, outputs {outputs}; they must agree")
        _check_mask(name, mask, outputs.shape)
        return _scalar(outputs), outputs

    return shape


def _vjp(b, n, g):
    return b.grad("mul", b.get(n.outs[1]), g)


register(
    "cross_entropy",
    _cross_entropy,
    vjp=(_vjp, None, None),
    saves=("y1",),
    inplace=((1, 0),),
    drops=(1,),
    indexes=(1, lambda specs, attrs: specs[0].shape[-1]),
)
for _name in ("binary_cross_entropy_with_logits", "mse"):
    register(
        _name,
        _pointwise(_name),
        vjp=(_vjp, None, None),
        saves=("y1",),
        inplace=((1, 0),),
        drops=(1,),
    )
