"""Contribution: what it would bring to let a layer learn, for the bytes that it takes. It scores
and chooses layers for the sparse update; it trains nothing.

The idea is MCUNetV3's (Lin et al. 2022), which measures by many short runs off the device how much
accuracy each layer brings. Here the gain is a gradient's: the sum of its absolute values over a
layer's weights is, to first order, what a small step of Adam on that layer alone takes off the loss
for its rate, since Adam's first step moves every weight by the rate. (Of plain SGD it would be the
sum of squares, which measures worse here: it prefers first layers, of few weights and large
gradients; see the bench "ways". TinyTrain, Kwon et al. 2024, scores by squared gradients of
activations.) The bytes are the plan's own: parameters, optimizer state and activations that the
layer adds to a step in which the head learns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytrain import losses
from tinytrain.learn.partial import channels_of, layers_of
from tinytrain.nn.module import Module
from tinytrain.tensor import Tensor

SHARES = (0.25, 0.5, 1.0)  # of a layer's input channels, that are thought of
ENOUGH = 0.8  # of the whole gain, where no budget bounds what is chosen


@dataclass(frozen=True)
class Contribution:
    """A share of a layer's input channels: `gain` in loss for a unit of learning rate, `nbytes`
    that it adds to the plan of a step, `score` gain for a byte."""

    layer: str
    share: float
    gain: float
    nbytes: int

    @property
    def score(self) -> float:
        """Gain for a byte."""
        return self.gain / max(self.nbytes, 1)


def contributions(
    net: Module,
    x: np.ndarray,
    columns: np.ndarray,
    nbytes: Callable[[dict[str, float]], int],
    input_shape: Any = None,
) -> list[Contribution]:
    """Every layer but the head at several shares, the best score first.

    net      with a head that knows the classes (`Way.imprint`); its gradients are taken eagerly,
             a sample at a time, outside any arena: all activations and gradients of one sample.
    nbytes   of a step in which these shares of layers and the head learn.
    """
    grads = gradients(net, x, columns)
    known = layers_of(net, input_shape)
    least, found = nbytes({}), []
    for layer in known[:-1]:
        weight = grads[layer.parameters[0]]
        rest = sum(_size(grads[n]) for n in layer.parameters[1:])
        channels = channels_of(net, layer.parameters[0])
        for share in SHARES:
            count = round(share * channels)
            if share < 1 and not 0 < count < channels:
                continue
            part = weight if share == 1 else weight[..., :count, :]
            nbytes_more = nbytes({layer.name: share}) - least
            found.append(Contribution(layer.name, share, _size(part) + rest, nbytes_more))
    return sorted(found, key=lambda c: -c.score)


def _size(g: np.ndarray) -> float:
    """The sum of absolute values."""
    return float(np.abs(g).sum(dtype=np.float64))


def gradients(net: Module, x: np.ndarray, columns: np.ndarray) -> dict[str, np.ndarray]:
    """The gradient of the mean cross-entropy over these samples, by parameter name. Norms use
    their stored statistics, dropout is off."""
    mode = net.training
    before = {name: p.requires_grad for name, p in net.named_parameters()}
    net.eval().requires_grad_(True)
    for p in net.parameters():
        p.grad = None
    try:
        for k in range(len(x)):
            one = np.asarray(x[k : k + 1])
            if one.dtype == np.uint8:
                one = np.divide(one, 255, dtype=np.float32)
            loss = losses.cross_entropy(net(one), Tensor(columns[k : k + 1]))
            loss.backward()
        held = dict(net.named_parameters())
        zero = {n: np.zeros(p.shape, np.float32) for n, p in held.items() if p.grad is None}
        return {n: p.grad / len(x) if p.grad is not None else zero[n] for n, p in held.items()}
    finally:
        net.train(mode)
        for name, p in net.named_parameters():
            p.requires_grad, p.grad = before[name], None


def choose_layers(
    found: Iterable[Contribution], fits: Callable[[dict[str, float]], bool] | None
) -> dict[str, float]:
    """Shares of layers, best score first, as long as they fit; without a budget (None), until
    ENOUGH of the gain is there."""
    found = list(found)
    best = {c.layer: max(o.gain for o in found if o.layer == c.layer) for c in found}
    total, gains = sum(best.values()), {}
    chosen: dict[str, float] = {}
    for c in found:
        if c.share <= chosen.get(c.layer, 0) or c.gain <= 0:
            continue
        trial = {**chosen, c.layer: c.share}
        if fits is None or fits(trial):
            chosen, gains[c.layer] = trial, c.gain
        if fits is None and sum(gains.values()) >= ENOUGH * total:
            break
    return chosen
