"""Deep networks that others published figures for: WideResNet, VGG-16 and ResNet-18."""

import math

from tinytrain import nn
from tinytrain.errors import InputError
from tinytrain.models.blocks import Preactivated, conv_norm, norm_of, preactivated
from tinytrain.nn.arguments import check_sizes

LARGE = 128  # pixels a side; from here on ResNet-18 begins with a 7x7 convolution and a max pool


class _Wide(nn.Module):
    """A pre-activation block that widens or strides: its shortcut reads the activation too."""

    def __init__(self, norm: str, in_channels: int, channels: int, stride: int, standardize: bool):
        head = preactivated(norm, in_channels, channels, 3, stride, standardize=standardize)
        tail = preactivated(norm, channels, channels, standardize=standardize)
        self.activation = nn.Sequential(*head[:2])
        self.branch = nn.Sequential(head[2], *tail)
        self.shortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, x):
        h = self.activation(x)
        return self.shortcut(h) + self.branch(h)


class WRN(nn.Sequential):
    """WideResNet (Zagoruyko and Komodakis 2016), WRN-28-2 unless said otherwise; 1.47 M parameters.

    depth is 6n + 4 for n blocks in each of three stages, of 16, 32 and 64 times `width` channels.
    norm is "batch", "group" or "none"; standardize also standardizes the blocks' 3x3 weights.
    """

    loss = "cross_entropy"

    def __init__(
        self,
        classes: int = 10,
        input_shape: tuple[int, ...] = (32, 32, 3),
        depth: int = 28,
        width: int = 2,
        norm: str = "batch",
        standardize: bool = False,
    ):
        check_sizes("wrn", depth=depth, width=width)
        if depth < 10 or (depth - 4) % 6:
            raise InputError(f"wrn: depth is {depth}; wants 6n + 4, such as 10, 16, 28 or 40")
        c = 16
        layers: list[nn.Module] = [nn.Conv2d(input_shape[2], c, 3, padding=1, bias=False)]
        for k in range(3):
            out = 16 * width * 2**k
            for j in range((depth - 4) // 6):
                stride = 2 if k and not j else 1
                if stride == 1 and c == out:
                    pairs = [preactivated(norm, c, c, standardize=standardize) for _ in range(2)]
                    layers.append(Preactivated(nn.Sequential(*pairs[0], *pairs[1]), c, c, 1))
                else:
                    layers.append(_Wide(norm, c, out, stride, standardize))
                c = out
        layers += [norm_of(norm, c), nn.ReLU(), nn.GlobalAvgPool2d(), nn.Linear(c, classes)]
        super().__init__(*layers)


class VGG16(nn.Sequential):
    """The thirteen convolutions of VGG-16 (Simonyan and Zisserman 2015) and a small head: global
    average and one dense layer. Images under 32 pixels a side skip the last max pools. Weights
    start as He et al. 2015 say, for without a norm thirteen layers would shrink the signal."""

    loss = "cross_entropy"
    STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, convolutions

    def __init__(
        self, classes: int = 10, input_shape: tuple[int, ...] = (32, 32, 3), norm: str = "none"
    ):
        h, w, c = input_shape
        layers: list[nn.Module] = []
        for width, count in self.STAGES:
            for _ in range(count):
                conv = nn.Conv2d(c, width, 3, padding=1)
                conv.weight.init = nn.init.normal(math.sqrt(2 / (9 * c)))
                layers += [conv, norm_of(norm, width), nn.ReLU()]
                c = width
            if min(h, w) >= 2:
                layers.append(nn.MaxPool2d(2))
                h, w = h // 2, w // 2
        super().__init__(*layers, nn.GlobalAvgPool2d(), nn.Linear(c, classes))


class _Basic(nn.Module):
    """relu(shortcut(x) + norm(conv(relu(norm(conv(x)))))), the shortcut a 1x1 convolution and a
    norm where shapes differ."""

    def __init__(self, norm: str, in_channels: int, channels: int, stride: int):
        bias = norm == "none"
        first = conv_norm(norm, in_channels, channels, 3, stride, padding=1, bias=bias)
        second = conv_norm(norm, channels, channels, 3, padding=1, bias=bias)[:2]
        self.branch = nn.Sequential(*first, *second)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            made = conv_norm(norm, in_channels, channels, 1, stride, padding=0, bias=bias)
            self.shortcut = nn.Sequential(*made[:2])

    def forward(self, x):
        return (self.shortcut(x) + self.branch(x)).relu()


class ResNet18(nn.Sequential):
    """He et al. 2016; 11.2 M parameters.

    stem  "small": a 3x3 convolution, as is usual at 32x32; "large": the paper's 7x7 of stride 2 and
          a max pool; "auto": large from 128 pixels a side on.
    """

    loss = "cross_entropy"

    def __init__(
        self,
        classes: int = 100,
        input_shape: tuple[int, ...] = (32, 32, 3),
        norm: str = "batch",
        stem: str = "auto",
    ):
        if stem not in ("auto", "small", "large"):
            raise InputError(f"resnet18: stem is {stem!r}; there are auto, small and large")
        h, w, c = input_shape
        bias = norm == "none"
        if stem == "large" or (stem == "auto" and min(h, w) >= LARGE):
            layers = conv_norm(norm, c, 64, 7, 2, padding=3, bias=bias)
            layers.append(nn.MaxPool2d(3, stride=2, padding=1))
        else:
            layers = conv_norm(norm, c, 64, 3, padding=1, bias=bias)
        c = 64
        for k, width in enumerate((64, 128, 256, 512)):
            for j in range(2):
                layers.append(_Basic(norm, c, width, 2 if k and not j else 1))
                c = width
        super().__init__(*layers, nn.GlobalAvgPool2d(), nn.Linear(c, classes))
