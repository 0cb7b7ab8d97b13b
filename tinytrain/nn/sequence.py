"""Modules over sequences, made of the other ops: LSTM, GRU, attention, causal convolutions.

Sequences are (N, T, features). Sources: LSTM, Hochreiter and Schmidhuber 1997 in PyTorch's gate
order; GRU, Cho et al. 2014; attention, Vaswani et al. 2017; WaveNet, van den Oord et al. 2016.
"""

from __future__ import annotations

import math

import numpy as np

from tinytrain import ops, tensor
from tinytrain.errors import InputError
from tinytrain.nn.arguments import check_divides, check_sizes
from tinytrain.nn.init import uniform
from tinytrain.nn.layers import Conv1d, Linear
from tinytrain.nn.module import Module, Parameter
from tinytrain.tensor import Tensor


class _Cell(Module):
    """Weights of a recurrent cell: `gates` blocks side by side."""

    def __init__(self, input_size: int, hidden_size: int, gates: int):
        check_sizes(type(self).__name__, input_size=input_size, hidden_size=hidden_size)
        start = uniform(1 / math.sqrt(hidden_size))
        self.weight_ih = Parameter((input_size, gates * hidden_size), start)
        self.weight_hh = Parameter((hidden_size, gates * hidden_size), start)
        self.bias_ih = Parameter((gates * hidden_size,), start)
        self.bias_hh = Parameter((gates * hidden_size,), start)
        self.hidden_size = hidden_size

    def zeros(self, x: Tensor) -> Tensor:
        """The state before the first step."""
        return tensor.apply("fill", shape=(x.shape[0], self.hidden_size), value=0.0, dtype=x.dtype)


class LSTMCell(_Cell):
    """x (N, input), (h, c) (N, hidden) each -> the next (h, c)."""

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size, 4)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None):
        h, c = state or (self.zeros(x), self.zeros(x))
        z = x @ self.weight_ih + self.bias_ih + h @ self.weight_hh + self.bias_hh
        i, f, g, o = ops.split(z, 4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class GRUCell(_Cell):
    """x (N, input), h (N, hidden) -> the next h."""

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size, 3)

    def forward(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        h = self.zeros(x) if h is None else h
        ri, zi, ni = ops.split(x @ self.weight_ih + self.bias_ih, 3)
        rh, zh, nh = ops.split(h @ self.weight_hh + self.bias_hh, 3)
        z = (zi + zh).sigmoid()
        n = (ni + (ri + rh).sigmoid() * nh).tanh()
        return n + z * (h - n)


class _Recurrent(Module):
    """A cell over the steps of (N, T, input): all hidden states (N, T, hidden), or the last."""

    def __init__(self, cell: Module, last_only: bool):
        self.cell, self.last_only = cell, last_only

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 3:
            raise InputError(f"{type(self).__name__}: wants (N, T, features), got {x.shape}")
        state, seen = None, []
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
            h = state[0] if isinstance(state, tuple) else state
            seen.append(h)
        if self.last_only:
            return seen[-1]
        return ops.concat([h.reshape(h.shape[0], 1, -1) for h in seen], axis=1)


class LSTM(_Recurrent):
    def __init__(self, input_size: int, hidden_size: int, last_only: bool = False):
        super().__init__(LSTMCell(input_size, hidden_size), last_only)


class GRU(_Recurrent):
    def __init__(self, input_size: int, hidden_size: int, last_only: bool = False):
        super().__init__(GRUCell(input_size, hidden_size), last_only)


class MultiheadAttention(Module):
    """Scaled dot-product attention of (N, T, embed_dim) over (N, S, embed_dim).

    causal      position t sees no later one.
    mask        (N, 1, 1, S) or (N, 1, T, S) float32, added to the scores (-1e9 hides a padded one).
    """

    def __init__(self, embed_dim: int, num_heads: int, causal: bool = False):
        check_divides("MultiheadAttention", "num_heads", num_heads, embed_dim=embed_dim)
        self.query = Linear(embed_dim, embed_dim)
        self.key = Linear(embed_dim, embed_dim)
        self.value = Linear(embed_dim, embed_dim)
        self.out = Linear(embed_dim, embed_dim)
        self.heads, self.causal = num_heads, causal

    def _split(self, x: Tensor) -> Tensor:
        n, t, e = x.shape
        return x.reshape(n, t, self.heads, e // self.heads).transpose(0, 2, 1, 3)

    def forward(
        self, x: Tensor, memory: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        memory = x if memory is None else memory
        q, k, v = self._split(self.query(x)), self._split(self.key(memory)), self.value(memory)
        scores = (q @ k.transpose(0, 1, 3, 2)) * (1 / math.sqrt(q.shape[-1]))
        if self.causal:
            hidden = np.triu(np.full((x.shape[1], memory.shape[1]), -1e9, x.dtype), 1)
            scores = scores + Tensor(hidden)
        if mask is not None:
            scores = scores + mask
        mixed = scores.softmax() @ self._split(v)
        return self.out(mixed.transpose(0, 2, 1, 3).reshape(x.shape))


class CausalConv1d(Conv1d):
    """A convolution whose output at t sees no input after t; the length stays."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1):
        check_sizes("CausalConv1d", kernel_size=kernel_size, dilation=dilation)
        before = (kernel_size - 1) * dilation
        super().__init__(
            in_channels, out_channels, kernel_size, padding=(before, 0), dilation=dilation
        )


class WaveNetBlock(Module):
    """Gated dilated causal convolution with a residual and a skip output: x -> (x, skip)."""

    def __init__(self, channels: int, skip_channels: int, kernel_size: int = 2, dilation: int = 1):
        self.gated = CausalConv1d(channels, 2 * channels, kernel_size, dilation)
        self.residual = Conv1d(channels, channels, 1)
        self.skip = Conv1d(channels, skip_channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        filtered, gate = ops.split(self.gated(x), 2)
        h = filtered.tanh() * gate.sigmoid()
        return x + self.residual(h), self.skip(h)
