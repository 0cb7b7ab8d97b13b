"""Losses as functions of (outputs, labels[, mask]), each saying what labels it wants.

A mask (float32, 1 counts and 0 does not) has the labels' shape; padded sequences are trained by
giving `y` as the pair (labels, mask). The mean is over what counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinytrain import ops
from tinytrain.errors import InputError
from tinytrain.nn.arguments import check_numbers
from tinytrain.spec import Spec
from tinytrain.tensor import Tensor


class CrossEntropy:
    """Mean of -log softmax(outputs)[label]; integer labels. Outputs (..., classes)."""

    def __init__(self, label_smoothing: float = 0.0):
        check_numbers("CrossEntropy", label_smoothing=label_smoothing)
        self.label_smoothing = float(label_smoothing)

    def __call__(self, outputs: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
        return ops.cross_entropy(outputs, labels, mask, label_smoothing=self.label_smoothing)

    @staticmethod
    def label_spec(outputs: Spec) -> Spec:
        """int32, one for each row of outputs."""
        return Spec(outputs.shape[:-1], "int32")

    def config(self) -> dict[str, Any]:
        """Everything needed to make it again, as plain data."""
        return {"name": "cross_entropy", "label_smoothing": self.label_smoothing}

    def __repr__(self) -> str:
        more = f"label_smoothing={self.label_smoothing}" if self.label_smoothing else ""
        return f"CrossEntropy({more})"


class SoftCrossEntropy:
    """Mean of -sum over classes of label * log softmax(outputs); labels are shares, float32 of the
    outputs' shape (..., classes), as mixing makes them."""

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        rows = outputs.size // outputs.shape[-1]
        return (ops.log_softmax(outputs) * labels).sum() * (-1 / rows)

    @staticmethod
    def label_spec(outputs: Spec) -> Spec:
        """float32, one for each output."""
        return outputs

    def config(self) -> dict[str, Any]:
        """Everything needed to make it again, as plain data."""
        return {"name": "soft_cross_entropy"}

    def __repr__(self) -> str:
        return "SoftCrossEntropy()"


class _Pointwise:
    op = ""

    def __call__(self, outputs: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
        return getattr(ops, self.op)(outputs, labels, mask)

    @staticmethod
    def label_spec(outputs: Spec) -> Spec:
        """float32, one for each element of outputs."""
        return outputs

    def config(self) -> dict[str, Any]:
        """Everything needed to make it again, as plain data."""
        return {"name": self.op}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class MSE(_Pointwise):
    """Mean of (outputs - labels)^2."""

    op = "mse"


class BCEWithLogits(_Pointwise):
    """Mean of binary cross-entropy; labels in [0, 1], outputs before the sigmoid."""

    op = "binary_cross_entropy_with_logits"


KINDS: dict[str, Callable[..., Any]] = {
    "cross_entropy": CrossEntropy,
    "soft_cross_entropy": SoftCrossEntropy,
    "mse": MSE,
    "binary_cross_entropy_with_logits": BCEWithLogits,
}
LOSSES: dict[str, Callable[..., Tensor]] = {name: kind() for name, kind in KINDS.items()}

cross_entropy = LOSSES["cross_entropy"]
soft_cross_entropy = LOSSES["soft_cross_entropy"]
mse = LOSSES["mse"]
binary_cross_entropy_with_logits = LOSSES["binary_cross_entropy_with_logits"]


def resolve(loss: Any) -> Callable[..., Tensor]:
    """A loss by name, or the function itself."""
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise InputError(f"unknown loss {loss!r}; there are {', '.join(LOSSES)}, or a function")
    return LOSSES[loss]


def config_of(loss: Callable[..., Tensor]) -> dict[str, Any] | None:
    """What `from_config` makes this loss of again; None for a function of somebody's own."""
    return loss.config() if type(loss) in KINDS.values() else None  # type: ignore[attr-defined]


def from_config(config: dict[str, Any]) -> Callable[..., Tensor]:
    """The loss that `config()` described."""
    config = dict(config)
    return KINDS[config.pop("name")](**config)


def takes_mask(loss: Callable[..., Tensor]) -> bool:
    """Whether a second label of this loss is a mask."""
    return isinstance(loss, CrossEntropy | _Pointwise)


def takes_classes(loss: Callable[..., Tensor]) -> bool:
    """Whether the labels of this loss are class numbers, as they are unless it says otherwise."""
    rule = getattr(loss, "label_spec", CrossEntropy.label_spec)
    return not rule(Spec((1, 1))).is_float
