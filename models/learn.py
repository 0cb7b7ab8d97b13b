"""Small networks that learn a user's few examples: spoken words, characters, gestures, surfaces.

All normalise within a sample (group norm), so that one example at a time is learned as many are.
"""

import itertools
import math

from tinytrain import nn, ops
from tinytrain.nn.init import constant

GROUPS = 8


def _block(in_channels: int, out_channels: int, stride: int = 1, kernel: int = 3) -> list:
    """Convolution without a bias, group norm in eight groups, ReLU."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
    return [conv, nn.GroupNorm(GROUPS, out_channels), nn.ReLU()]


def _pooled_blocks(*widths: int) -> list[nn.Module]:
    """A block and 2x2 max pooling for each step of the widths; the last is not pooled."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [*_block(a, b), nn.MaxPool2d(2)]
    return layers[:-1]


class SpokenCNN(nn.Sequential):
    """Isolated words from a log-mel picture: four convolutions, each channel's mean and maximum
    over time and pitch, an embedding and a head."""

    loss = "cross_entropy"

    def __init__(
        self,
        classes: int = 10,
        input_shape: tuple[int, ...] = (48, 32, 1),
        widths: tuple[int, ...] = (24, 40, 48, 48),
        embedding: int = 48,
        dropout: float = 0.2,
    ):
        a, b, c, d = widths
        super().__init__(
            *_block(input_shape[2], a, 2, 5),
            *_block(a, b, 2),
            *_block(b, c),
            *_block(c, d, 2),
            nn.GlobalAvgMaxPool2d(),
            nn.Dropout(dropout),
            nn.Linear(2 * d, embedding),
            nn.ReLU(),
            nn.Linear(embedding, classes),
        )

    def embed(self, x):
        """What utterances are compared by: the embedding before its ReLU."""
        for layer in self.layers[:-2]:
            x = layer(x)
        return x


class SurfaceCNN(nn.Sequential):
    """Textures, the same anywhere: 50,094 parameters at 64x64x1 and 6 classes."""

    loss = "cross_entropy"

    def __init__(self, classes: int = 6, input_shape: tuple[int, ...] = (64, 64, 1)):
        super().__init__(
            *_block(input_shape[2], 24, 2, 5),
            *_block(24, 32, 2),
            *_block(32, 48),
            nn.MaxPool2d(2),
            *_block(48, 64),
            nn.GlobalAvgMaxPool2d(),
            nn.Linear(128, classes),
        )


class StrokeCNN(nn.Sequential):
    """Gestures as pictures with channels for ink, time and direction: 39,098 parameters at
    24x24x4, 10 classes."""

    loss = "cross_entropy"

    def __init__(
        self,
        classes: int = 10,
        input_shape: tuple[int, ...] = (24, 24, 4),
        dropout: float = 0.3,
    ):
        h, w, c = input_shape
        super().__init__(
            *_pooled_blocks(c, 24, 32, 48),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(h // 4 * (w // 4) * 48, classes),
        )


class StrokeGRU(nn.Module):
    """Gestures as sequences (T, features): two GRUs, one from either end, and the mean of what
    both have seen at every step."""

    loss = "cross_entropy"

    def __init__(
        self,
        classes: int = 10,
        input_shape: tuple[int, ...] = (16, 4),
        hidden: int = 48,
        dropout: float = 0.2,
    ):
        self.ahead = nn.GRU(input_shape[1], hidden)
        self.back = nn.GRU(input_shape[1], hidden)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * hidden, classes)

    def forward(self, x):
        steps = range(x.shape[1] - 1, -1, -1)
        reversed_ = ops.concat([x[:, t : t + 1] for t in steps], axis=1)
        means = [self.ahead(x).mean(axis=1), self.back(reversed_).mean(axis=1)]
        return self.head(self.dropout(ops.concat(means, axis=1)))


class ClothesCNN(nn.Sequential):
    """A small backbone for grey pictures of things (Fashion-MNIST): two convolutions at each of
    three scales, each channel's mean and maximum, a head; 73,306 parameters at 28x28x1, 10
    classes."""

    loss = "cross_entropy"

    def __init__(
        self,
        classes: int = 10,
        input_shape: tuple[int, ...] = (28, 28, 1),
        widths: tuple[int, ...] = (16, 32, 64),
        dropout: float = 0.2,
    ):
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise((input_shape[2], *widths)):
            layers += [*_block(a, b), *_block(b, b), nn.MaxPool2d(2)]
        super().__init__(
            *layers[:-1],
            nn.GlobalAvgMaxPool2d(),
            nn.Dropout(dropout),
            nn.Linear(2 * widths[-1], classes),
        )


class CharacterCNN(nn.Sequential):
    """Characters as points in space, near for the same one (Snell et al. 2017): 69,793 parameters
    at 28x28x1. It has no classes: what is near which example is the answer."""

    embeds = True
    metric = "euclidean"
    loss = "mse"

    def __init__(
        self,
        input_shape: tuple[int, ...] = (28, 28, 1),
        widths: tuple[int, ...] = (32, 48, 64, 48),
    ):
        h, w, c = input_shape
        a, b, third, last = widths
        super().__init__(
            *_pooled_blocks(c, a, b, third),
            *_block(third, last),
            nn.MaxPool2d(2),
            nn.Flatten(),
            Scale(4 / math.sqrt(h // 8 * (w // 8) * last)),
        )


class Scale(nn.Module):
    """All features times one learned number, `first` to begin with: what a distance counts for."""

    def __init__(self, first: float):
        self.log = nn.Parameter((1,), constant(0.0))
        self.first = first

    def forward(self, x):
        return x * (ops.exp(self.log) * self.first)


class WaveNet(nn.Module):
    """Causal dilated convolutions over a sequence (T, features) (van den Oord et al. 2016): the
    skips of all blocks and the last output are summed, and the class is read off their mean over
    time."""

    loss = "cross_entropy"

    def __init__(
        self,
        classes: int = 10,
        input_shape: tuple[int, ...] = (48, 32),
        channels: int = 24,
        blocks: int = 4,
    ):
        self.first = nn.CausalConv1d(input_shape[1], channels, 2)
        self.blocks = [nn.WaveNetBlock(channels, channels, 2, 2**k) for k in range(blocks)]
        self.head = nn.Linear(channels, classes)

    def forward(self, x):
        x, total = self.first(x), None
        for block in self.blocks:
            x, skip = block(x)
            total = skip if total is None else total + skip
        return self.head((total + x).relu().mean(axis=1))
