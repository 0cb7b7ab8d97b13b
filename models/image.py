"""Networks over images: LeNet-5, VGG-6, ResNet-8, MobileNetV2 and the demo's digits_cnn."""

from tinytrain import nn
from tinytrain.models.blocks import conv_norm, norm_of


class LeNet5(nn.Sequential):
    """LeCun et al. 1998 with average pooling and ReLU; 61,706 parameters at 28x28x1, 10 classes."""

    loss = "cross_entropy"

    def __init__(
        self, classes: int = 10, input_shape: tuple[int, ...] = (28, 28, 1), norm: str = "none"
    ):
        h, w, c = input_shape
        rows, columns = (h // 2 - 4) // 2, (w // 2 - 4) // 2
        super().__init__(
            *conv_norm(norm, c, 6, 5, padding=2),
            nn.AvgPool2d(2),
            *conv_norm(norm, 6, 16, 5, padding=0),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * rows * columns, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, classes),
        )


class VGG6(nn.Sequential):
    """Three stages of two 3x3 convolutions (16, 32, 64) and max pooling, then 128 and classes;
    204,570 parameters at 32x32x3, 10 classes, without a norm."""

    loss = "cross_entropy"

    def __init__(
        self, classes: int = 10, input_shape: tuple[int, ...] = (32, 32, 3), norm: str = "none"
    ):
        h, w, c = input_shape
        layers: list[nn.Module] = []
        for width in (16, 32, 64):
            layers += [*conv_norm(norm, c, width), *conv_norm(norm, width, width), nn.MaxPool2d(2)]
            h, w, c = h // 2, w // 2, width
        super().__init__(
            *layers, nn.Flatten(), nn.Linear(h * w * c, 128), nn.ReLU(), nn.Linear(128, classes)
        )


class _Residual(nn.Module):
    """relu(shortcut(x) + norm(conv(relu(norm(conv(x))))))."""

    def __init__(self, norm: str, in_channels: int, out_channels: int, stride: int):
        first = conv_norm(norm, in_channels, out_channels, stride=stride)
        second = conv_norm(norm, out_channels, out_channels)[:2]
        self.branch = nn.Sequential(*first, *second)
        plain = stride == 1 and in_channels == out_channels
        self.shortcut = (
            nn.Identity()
            if plain
            else nn.Conv2d(in_channels, out_channels, 1, stride, padding="same")
        )

    def forward(self, x):
        return (self.branch(x) + self.shortcut(x)).relu()


class ResNet8(nn.Sequential):
    """MLPerf Tiny's image classifier: stages of 16, 32 and 64 channels with one residual block
    each; 78,186 parameters at 32x32x3, 10 classes, with batch norm."""

    loss = "cross_entropy"

    def __init__(
        self, classes: int = 10, input_shape: tuple[int, ...] = (32, 32, 3), norm: str = "batch"
    ):
        super().__init__(
            *conv_norm(norm, input_shape[2], 16),
            _Residual(norm, 16, 16, 1),
            _Residual(norm, 16, 32, 2),
            _Residual(norm, 32, 64, 2),
            nn.GlobalAvgPool2d(),
            nn.Linear(64, classes),
        )


class _Inverted(nn.Module):
    """MobileNetV2's block: expand, depthwise, project; added to x where the shapes agree."""

    def __init__(self, norm: str, in_channels: int, out_channels: int, stride: int, expand: int):
        width = in_channels * expand
        layers: list[nn.Module] = []
        if expand > 1:
            layers += conv_norm(norm, in_channels, width, 1, bias=False, activation=nn.ReLU6())
        layers += conv_norm(
            norm, width, width, 3, stride, groups=width, bias=False, activation=nn.ReLU6()
        )
        project = nn.Conv2d(width, out_channels, 1, bias=False)
        self.branch = nn.Sequential(*layers, project, norm_of(norm, out_channels))
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x):
        return x + self.branch(x) if self.residual else self.branch(x)


def _eights(channels: float) -> int:
    """Rounded to a multiple of 8, by at most a tenth down (the authors' rule)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class MobileNetV2(nn.Sequential):
    """Sandler et al. 2018 at a width of 0.35."""

    loss = "cross_entropy"
    STAGES = (  # expansion, channels, blocks, first stride
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

    def __init__(
        self,
        classes: int = 10,
        input_shape: tuple[int, ...] = (48, 48, 3),
        width: float = 0.35,
        norm: str = "batch",
    ):
        c = _eights(32 * width)
        layers = conv_norm(norm, input_shape[2], c, 3, 2, bias=False, activation=nn.ReLU6())
        for expand, channels, blocks, first in self.STAGES:
            out = _eights(channels * width)
            for k in range(blocks):
                layers.append(_Inverted(norm, c, out, first if k == 0 else 1, expand))
                c = out
        last = _eights(1280 * max(width, 1.0))
        layers += conv_norm(norm, c, last, 1, bias=False, activation=nn.ReLU6())
        super().__init__(*layers, nn.GlobalAvgPool2d(), nn.Linear(last, classes))


class DigitsCNN(nn.Sequential):
    """The demo's network for 8x8 digits: two 3x3 convolutions with max pooling and two dense
    layers, with group norm (or none), so that a board can learn one image at a time."""

    loss = "cross_entropy"

    def __init__(
        self, classes: int = 10, input_shape: tuple[int, ...] = (8, 8, 1), norm: str = "group"
    ):
        h, w, c = input_shape
        super().__init__(
            *conv_norm(norm, c, 8),
            nn.MaxPool2d(2),
            *conv_norm(norm, 8, 16),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(h // 4 * (w // 4) * 16, 32),
            nn.ReLU(),
            nn.Linear(32, classes),
        )
