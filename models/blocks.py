"""Pieces that several networks share: the choice of norm, convolution + norm + activation, and the
pre-activation residual block."""

from tinytrain import nn
from tinytrain.errors import InputError

CHANNELS_A_GROUP = 8


def norm_of(kind: str, channels: int) -> nn.Module:
    """ "batch", "group" (eight channels a group where they divide) or "none"."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "group":
        width = CHANNELS_A_GROUP if channels % CHANNELS_A_GROUP == 0 else 1
        return nn.GroupNorm(channels // width if width > 1 else 1, channels)
    if kind == "none":
        return nn.Identity()
    raise InputError(f"unknown norm {kind!r}; there are batch, group and none")


def conv_norm(
    norm: str,
    in_channels: int,
    out_channels: int,
    kernel_size=3,
    stride=1,
    padding="same",
    groups: int = 1,
    bias: bool = True,
    activation: nn.Module | None = None,
) -> list[nn.Module]:
    """Convolution, norm and activation (ReLU unless given) as a list of layers."""
    conv = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=bias
    )
    return [conv, norm_of(norm, out_channels), activation or nn.ReLU()]


def preactivated(
    norm: str,
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    stride: int = 1,
    standardize: bool = False,
) -> list[nn.Module]:
    """Norm, ReLU and convolution (He et al. 2016, the second paper) as a list of three layers. The
    convolution has a bias only where there is no norm to have one."""
    conv = nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride,
        padding=kernel_size // 2,
        bias=norm == "none",
        standardize=standardize,
    )
    return [norm_of(norm, in_channels), nn.ReLU(), conv]


class Preactivated(nn.Module):
    """shortcut(x) + branch(x): a 1x1 convolution where the shapes differ, else x itself."""

    def __init__(self, branch: nn.Module, in_channels: int, out_channels: int, stride: int):
        self.branch = branch
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x):
        return self.shortcut(x) + self.branch(x)
