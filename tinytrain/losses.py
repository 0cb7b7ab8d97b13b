"""Losses as functions of (outputs, labels[, mask]), each saying what labels it wants.

A mask (float32, 1 counts and 0 does not) has the labels' shape; padded sequences are trained by
giving `y` as the pair (labels, mask). The mean is over what counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinytrain import ops
from tinytrain.errors import InputError
from tinytrain.spec import Spec
from tinytrain.tensor import Tensor


class CrossEntropy:
    """Mean of -log softmax(outputs)[label]; integer labels. Outputs (..., classes)."""

    def __init__(self, label_smoothing: float = 0.0):
        self.label_smoothing = label_smoothing

    def __call__(self, outputs: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
        return ops.cross_entropy(outputs, labels, mask, label_smoothing=self.label_smoothing)

    @staticmethod
    def label_spec(outputs: Spec) -> Spec:
        """int32, one for each row of outputs."""
        return Spec(outputs.shape[:-1], "int32")

    def __repr__(self) -> str:
        more = f"label_smoothing={self.label_smoothing}" if self.label_smoothing else ""
        return f"CrossEntropy({more})"


class _Pointwise:
    op = ""

    def __call__(self, outputs: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
        return getattr(ops, self.op)(outputs, labels, mask)

    @staticmethod
    def label_spec(outputs: Spec) -> Spec:
        """float32, one for each element of outputs."""
        return outputs

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class MSE(_Pointwise):
    """Mean of (outputs - labels)^2."""

    op = "mse"


class BCEWithLogits(_Pointwise):
    """Mean of binary cross-entropy; labels in [0, 1], outputs before the sigmoid."""

    op = "binary_cross_entropy_with_logits"


cross_entropy = CrossEntropy()
mse = MSE()
binary_cross_entropy_with_logits = BCEWithLogits()

LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": cross_entropy,
    "mse": mse,
    "binary_cross_entropy_with_logits": binary_cross_entropy_with_logits,
}


def resolve(loss: Any) -> Callable[..., Tensor]:
    """A loss by name, or the function itself."""
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise InputError(f"unknown loss {loss!r}; there are {', '.join(LOSSES)}, or a function")
    return LOSSES[loss]


def name_of(loss: Callable[..., Tensor]) -> str | None:
    """The name under which `resolve` finds this loss, if it is one of those."""
    return next((name for name, known in LOSSES.items() if known is loss), None)
