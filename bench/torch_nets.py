"""The speed benchmark's networks as people write them in PyTorch, channels first; it times nothing.

Each has as many parameters as ours of that name, which `build` checks. Imported by the process of
the peers alone, for it needs PyTorch.
"""

from __future__ import annotations

import torch
from torch import nn

from tinytrain import models


def _conv_norm(
    i: int, o: int, kernel: int | tuple[int, int] = 3, stride: int = 1, **more: object
) -> list[nn.Module]:
    """Convolution, batch norm and activation; half the kernel as padding."""
    activation = more.pop("activation", None) or nn.ReLU()
    sizes = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (sizes[0] // 2, (sizes[1] - 1) // 2)
    conv = nn.Conv2d(i, o, sizes, stride, padding, **more)
    return [conv, nn.BatchNorm2d(o), activation]


def mlp() -> nn.Module:
    """784-128-10."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def lenet5() -> nn.Module:
    """With average pooling and ReLU."""
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def ds_cnn() -> nn.Module:
    """MLPerf Tiny's keyword spotter."""
    layers = [*_conv_norm(1, 64, (10, 4), 2), nn.Dropout(0.2)]
    for _ in range(4):
        layers += [*_conv_norm(64, 64, groups=64), *_conv_norm(64, 64, 1)]
    return nn.Sequential(
        *layers, nn.Dropout(0.4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 12)
    )


class _Residual(nn.Module):
    def __init__(self, i: int, o: int, stride: int):
        super().__init__()
        self.branch = nn.Sequential(*_conv_norm(i, o, 3, stride), *_conv_norm(o, o)[:2])
        self.shortcut = nn.Identity() if i == o else nn.Conv2d(i, o, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.branch(x) + self.shortcut(x))


def resnet8() -> nn.Module:
    """MLPerf Tiny's image classifier."""
    return nn.Sequential(
        *_conv_norm(3, 16),
        *(_Residual(16, 16, 1), _Residual(16, 32, 2), _Residual(32, 64, 2)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
    )


class _Inverted(nn.Module):
    def __init__(self, i: int, o: int, stride: int, expand: int):
        super().__init__()
        width, more = i * expand, {"bias": False, "activation": nn.ReLU6()}
        layers = _conv_norm(i, width, 1, **more) if expand > 1 else []
        layers += _conv_norm(width, width, 3, stride, groups=width, **more)
        self.branch = nn.Sequential(*layers, *_conv_norm(width, o, 1, bias=False)[:2])
        self.residual = stride == 1 and i == o

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.branch(x) if self.residual else self.branch(x)


def mobilenetv2() -> nn.Module:
    """At a width of 0.35."""
    stages = (
        *((1, 8, 1, 1), (6, 8, 2, 2), (6, 16, 3, 2), (6, 24, 4, 2)),
        *((6, 32, 3, 1), (6, 56, 3, 2), (6, 112, 1, 1)),
    )
    c = 16
    layers = _conv_norm(3, c, 3, 2, bias=False, activation=nn.ReLU6())
    for expand, o, blocks, first in stages:
        for k in range(blocks):
            layers.append(_Inverted(c, o, first if k == 0 else 1, expand))
            c = o
    layers += _conv_norm(c, 1280, 1, bias=False, activation=nn.ReLU6())
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 10))


NETS = {"mlp": mlp, "lenet5": lenet5, "ds_cnn": ds_cnn, "resnet8": resnet8}
NETS["mobilenetv2"] = mobilenetv2


def build(name: str) -> nn.Module:
    """The twin of the zoo's network of this name."""
    torch.manual_seed(0)
    net = NETS[name]()
    count, ours = sum(p.numel() for p in net.parameters()), models.build(name).count_parameters()
    assert count == ours, f"{name}: {count:,} parameters here, {ours:,} in the zoo"
    return net
