"""Layers: convolution, dense, norms, pooling, activations. Defaults are PyTorch's.

Weights start uniform within 1 / sqrt(fan in), as PyTorch's Linear and Conv do.
"""

from __future__ import annotations

import math

import numpy as np

from tinytrain import ops, tensor
from tinytrain.errors import InputError
from tinytrain.nn.arguments import check_divides, check_numbers, check_sizes
from tinytrain.nn.init import constant, normal, uniform
from tinytrain.nn.module import Buffer, Module, Parameter
from tinytrain.ops.conv import pair
from tinytrain.tensor import Tensor


class Linear(Module):
    """(..., in_features) -> (..., out_features); weight (in_features, out_features)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        check_sizes("Linear", in_features=in_features, out_features=out_features)
        bound = 1 / math.sqrt(in_features)
        self.weight = Parameter((in_features, out_features), uniform(bound))
        self.bias = Parameter((out_features,), uniform(bound)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or x.shape[-1] != self.weight.shape[0]:
            raise InputError(
                f"Linear: weight expects {self.weight.shape[0]} features, x has shape {x.shape}"
            )
        y = x @ self.weight
        return y if self.bias is None else y + self.bias


class Conv2d(Module):
    """(N, H, W, in_channels) -> (N, Ho, Wo, out_channels); weight (kh, kw, in/groups, out).

    padding: an int, (h, w), ((top, bottom), (left, right)) or "same". With `standardize` the
    weights are standardized on the fly (Qiao et al. 2019), for group norm at batch 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size=3,
        stride=1,
        padding=0,
        dilation=1,
        groups: int = 1,
        bias: bool = True,
        standardize: bool = False,
    ):
        check_divides(
            "Conv2d", "groups", groups, in_channels=in_channels, out_channels=out_channels
        )
        kernel = pair("Conv2d", "kernel_size", kernel_size, 1)
        for what, value in (("stride", stride), ("dilation", dilation)):
            pair("Conv2d", what, value, 1)
        fan_in = kernel[0] * kernel[1] * in_channels // groups
        shape = (*kernel, in_channels // groups, out_channels)
        self.weight = Parameter(shape, uniform(1 / math.sqrt(fan_in)))
        self.bias = Parameter((out_channels,), uniform(1 / math.sqrt(fan_in))) if bias else None
        self.attrs = {"stride": stride, "padding": padding, "groups": groups, "dilation": dilation}
        self.standardize = 1 / math.sqrt(fan_in) if standardize else 0.0

    def forward(self, x: Tensor) -> Tensor:
        w: Tensor = self.weight
        if self.standardize:
            w = ops.weight_standardize(w) * self.standardize
        return ops.conv2d(x, w, self.bias, **self.attrs)


class Conv1d(Module):
    """(N, L, in_channels) -> (N, Lo, out_channels); weight (k, in/groups, out)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding=0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ):
        check_divides(
            "Conv1d", "groups", groups, in_channels=in_channels, out_channels=out_channels
        )
        check_sizes("Conv1d", kernel_size=kernel_size, stride=stride, dilation=dilation)
        bound = 1 / math.sqrt(kernel_size * in_channels // groups)
        shape = (kernel_size, in_channels // groups, out_channels)
        self.weight = Parameter(shape, uniform(bound))
        self.bias = Parameter((out_channels,), uniform(bound)) if bias else None
        self.attrs = {"stride": stride, "padding": padding, "groups": groups, "dilation": dilation}

    def forward(self, x: Tensor) -> Tensor:
        return ops.conv1d(x, self.weight, self.bias, **self.attrs)


class BatchNorm2d(Module):
    """Per channel over the batch; running statistics for inference, committed once a step.

    Where neither weight nor bias is trainable, or `stored` is set, training uses the running
    statistics as well and leaves them alone (as Keras has it): a frozen part computes what it
    computes in inference."""

    stored = False

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1):
        check_sizes(type(self).__name__, num_features=num_features)
        check_numbers(type(self).__name__, math.inf, eps=eps, momentum=momentum)
        self.weight = Parameter((num_features,), constant(1.0))
        self.bias = Parameter((num_features,), constant(0.0))
        self.running_mean = Buffer((num_features,), constant(0.0))
        self.running_var = Buffer((num_features,), constant(1.0))
        self.eps, self.momentum = eps, momentum

    def forward(self, x: Tensor) -> Tensor:
        own = (self.weight, self.bias)
        frozen = all(isinstance(p, Parameter) and not p.requires_grad for p in own)
        if self.stored or frozen or not self.training:
            stored = self.running_mean, self.running_var
            return ops.batch_norm(x, self.weight, self.bias, *stored, eps=self.eps)
        y, mean, var = tensor.apply_all("batch_norm", x, self.weight, self.bias, eps=self.eps)
        count = x.size // x.shape[-1]
        for held, new, correction in (
            (self.running_mean, mean, 1.0),
            (self.running_var, var, count / max(count - 1, 1)),
        ):
            attrs = {"momentum": self.momentum, "correction": correction}
            held.assign(tensor.apply("running_average", held, new, **attrs))
        return y


class BatchNorm1d(BatchNorm2d):
    """The same over (N, C) or (N, L, C)."""


class GroupNorm(Module):
    """Per sample and group of channels: the same at batch 1 as at any other."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5):
        check_divides("GroupNorm", "num_groups", num_groups, num_channels=num_channels)
        check_numbers("GroupNorm", math.inf, eps=eps)
        self.weight = Parameter((num_channels,), constant(1.0))
        self.bias = Parameter((num_channels,), constant(0.0))
        self.groups, self.eps = num_groups, eps

    def forward(self, x: Tensor) -> Tensor:
        return ops.group_norm(x, self.weight, self.bias, groups=self.groups, eps=self.eps)


class LayerNorm(Module):
    """Over the last axis."""

    def __init__(self, normalized_shape: int, eps: float = 1e-5):
        check_sizes("LayerNorm", normalized_shape=normalized_shape)
        check_numbers("LayerNorm", math.inf, eps=eps)
        self.weight = Parameter((normalized_shape,), constant(1.0))
        self.bias = Parameter((normalized_shape,), constant(0.0))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return ops.layer_norm(x, self.weight, self.bias, eps=self.eps)


class Dropout(Module):
    """Zero with probability p while training, scaled by 1 / (1 - p); a replay draws the same."""

    def __init__(self, p: float = 0.5):
        check_numbers("Dropout", p=p)
        self.p = p
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        held = tensor._recording
        if held is not None:
            return ops.dropout(x, held.key, p=self.p, stream=next(held.streams))
        self.calls += 1
        return ops.dropout(x, Tensor(np.array([0, self.calls, 0], np.uint32)), p=self.p)


class Embedding(Module):
    """Integers (...) -> rows of a table (..., embedding_dim)."""

    def __init__(self, num_embeddings: int, embedding_dim: int):
        check_sizes("Embedding", num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        self.weight = Parameter((num_embeddings, embedding_dim), normal(1.0))

    def forward(self, indices: Tensor) -> Tensor:
        return ops.embedding(self.weight, indices)


class MaxPool2d(Module):
    def __init__(self, kernel_size=2, stride=None, padding=0):
        pair(type(self).__name__, "kernel_size", kernel_size, 1)
        self.attrs = {"kernel_size": kernel_size, "stride": stride, "padding": padding}

    def forward(self, x: Tensor) -> Tensor:
        return ops.max_pool2d(x, **self.attrs)


class AvgPool2d(MaxPool2d):
    def forward(self, x: Tensor) -> Tensor:
        return ops.avg_pool2d(x, **self.attrs)


class GlobalAvgPool2d(Module):
    """(N, H, W, C) -> (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.global_avg_pool(x)


class GlobalAvgMaxPool2d(Module):
    """(N, H, W, C) -> (N, 2 C): each channel's mean, and behind them each channel's maximum."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.concat([ops.global_avg_pool(x), ops.max(x, axis=(1, 2))], axis=1)


class Flatten(Module):
    """(N, ...) -> (N, features)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten()


class Identity(Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class LeakyReLU(Module):
    def __init__(self, negative_slope: float = 0.01):
        self.negative_slope = negative_slope

    def forward(self, x: Tensor) -> Tensor:
        return ops.leaky_relu(x, negative_slope=self.negative_slope)


class Softmax(Module):
    def __init__(self, dim: int = -1):
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return ops.softmax(x, axis=self.dim)


class ReLU(Module):
    def forward(self, x: Tensor) -> Tensor:
        return ops.relu(x)


class ReLU6(Module):
    def forward(self, x: Tensor) -> Tensor:
        return ops.relu6(x)


class Tanh(Module):
    def forward(self, x: Tensor) -> Tensor:
        return ops.tanh(x)


class Sigmoid(Module):
    def forward(self, x: Tensor) -> Tensor:
        return ops.sigmoid(x)


class SiLU(Module):
    def forward(self, x: Tensor) -> Tensor:
        return ops.silu(x)


class GELU(Module):
    """The tanh form."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.gelu(x)
