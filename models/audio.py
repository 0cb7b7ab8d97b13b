"""Networks over sound features: MLPerf Tiny's keyword spotter and anomaly detector."""

import itertools
import math

from tinytrain import nn
from tinytrain.models.blocks import conv_norm


class DSCNN(nn.Sequential):
    """Keyword spotting (Zhang et al. 2017, MLPerf Tiny): a 10x4 convolution and four depthwise
    separable blocks of 64 channels over 49x10 features."""

    loss = "cross_entropy"

    def __init__(
        self,
        classes: int = 12,
        input_shape: tuple[int, ...] = (49, 10, 1),
        channels: int = 64,
        norm: str = "batch",
        dropout: float = 0.2,
    ):
        layers = [*conv_norm(norm, input_shape[2], channels, (10, 4), 2), nn.Dropout(dropout)]
        for _ in range(4):
            layers += conv_norm(norm, channels, channels, 3, groups=channels)
            layers += conv_norm(norm, channels, channels, 1)
        super().__init__(
            *layers, nn.Dropout(2 * dropout), nn.GlobalAvgPool2d(), nn.Linear(channels, classes)
        )


class Autoencoder(nn.Sequential):
    """Anomaly detection (MLPerf Tiny): 640-128-128-128-128-8-128-128-128-128-640, each hidden
    layer with a norm and ReLU; any input shape is flattened, and given back: there is no `y`."""

    loss = "mse"
    reconstructs = True

    def __init__(
        self,
        input_shape: tuple[int, ...] = (640,),
        hidden: int = 128,
        code: int = 8,
        norm: str = "batch",
    ):
        size = math.prod(input_shape)
        widths = [size, *(hidden,) * 4, code, *(hidden,) * 4]
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(widths):
            layers.append(nn.Linear(a, b))
            if norm == "batch":
                layers.append(nn.BatchNorm1d(b))
            elif norm == "group":
                layers.append(nn.LayerNorm(b))
            layers.append(nn.ReLU())
        super().__init__(*layers, nn.Linear(widths[-1], size))

    def forward(self, x):
        return super().forward(x.flatten()).reshape(x.shape)
