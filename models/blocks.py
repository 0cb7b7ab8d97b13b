"""Pieces that several networks share: the choice of norm, and convolution + norm + activation."""

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
