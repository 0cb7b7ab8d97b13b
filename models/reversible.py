"""Reversible networks, RevNet and i-RevNet, and their plain twins, in ordinary ops.

Nothing here inverts anything: a planner finds the couplings by their `add` nodes.
"""

from collections.abc import Sequence

from tinytrain import nn, ops
from tinytrain.errors import InputError
from tinytrain.models.blocks import Preactivated, norm_of, preactivated
from tinytrain.nn.arguments import check_divides, check_sizes

EXPANSION = 4  # of a bottleneck: its ends have four times the channels of its middle


def _branch(
    c: int, out: int, stride: int, narrowing: int, norm: str, standardize: bool
) -> nn.Sequential:
    """F or G: two pre-activated 3x3 convolutions, or a 1x1, a 3x3 and a 1x1 that narrow between."""
    inner = out // narrowing
    shapes = [(c, out, 3, stride), (out, out, 3, 1)]
    if narrowing > 1:
        shapes = [(c, inner, 1, 1), (inner, inner, 3, stride), (inner, out, 1, 1)]
    layers: list[nn.Module] = []
    for shape in shapes:
        layers += preactivated(norm, *shape, standardize=standardize)
    return nn.Sequential(*layers)


class _Coupling(nn.Module):
    """y1 = x1 + F(x2), y2 = x2 + G(y1): Gomez et al. 2017."""

    def __init__(self, f: nn.Module, g: nn.Module):
        self.f, self.g = f, g

    def forward(self, x1, x2):
        y1 = x1 + self.f(x2)
        return y1, x2 + self.g(y1)


class _Stage(nn.Module):
    """Perhaps a first block over all channels, then couplings of the two halves."""

    def __init__(self, first: nn.Module | None, couplings: Sequence[nn.Module]):
        self.first, self.couplings = first, list(couplings)

    def forward(self, x):
        if self.first is not None:
            x = self.first(x)
        if not self.couplings:
            return x
        x1, x2 = ops.split(x, 2)
        for coupling in self.couplings:
            x1, x2 = coupling(x1, x2)
        return ops.concat([x1, x2], axis=-1)


class RevNet(nn.Sequential):
    """Gomez et al. 2017, for images of CIFAR's size; RevNet-38 unless said otherwise.

    units        blocks of each stage; every stage but the first halves height and width.
    widths       channels of the stem and of each stage, both halves together.
    bottleneck   branches of 1x1, 3x3, 1x1 instead of two 3x3, in stages four times as wide.
    norm         "batch", "group" or "none"; standardize: the branches' weights too.
    plain        the twin to compare with: the same widths and units, all blocks plain residuals.

    RevNet-110 has units (9, 9, 9) and widths (32, 32, 64, 128); RevNet-164 is that with
    `bottleneck`. A stage's first block is a plain residual where it strides or widens. The paper's
    couples two narrower branches there, so that its networks have fewer parameters.
    """

    loss = "cross_entropy"

    def __init__(
        self,
        classes: int = 10,
        input_shape: tuple[int, ...] = (32, 32, 3),
        units: Sequence[int] = (3, 3, 3),
        widths: Sequence[int] = (32, 32, 64, 112),
        bottleneck: bool = False,
        norm: str = "batch",
        standardize: bool = False,
        plain: bool = False,
    ):
        _check_stages("revnet", units, widths, len(units) + 1)
        narrowing = EXPANSION if bottleneck else 1

        def branch(c: int, out: int, stride: int = 1) -> nn.Module:
            return _branch(c, out, stride, narrowing, norm, standardize)

        c = widths[0]
        layers: list[nn.Module] = [nn.Conv2d(input_shape[2], c, 3, padding=1, bias=False)]
        for k, (count, width) in enumerate(zip(units, widths[1:], strict=True)):
            out, stride = width * narrowing, 1 if k == 0 else 2
            check_divides("revnet", "streams", 2 * narrowing, width=out)
            whole = stride == 2 or c != out
            if plain:
                starts = [(c, stride)] + [(out, 1)] * (count - 1)
                layers += [Preactivated(branch(a, out, s), a, out, s) for a, s in starts]
            else:
                first = Preactivated(branch(c, out, stride), c, out, stride) if whole else None
                half = out // 2
                couplings = [
                    _Coupling(branch(half, half), branch(half, half)) for _ in range(count - whole)
                ]
                layers.append(_Stage(first, couplings))
            c = out
        layers += [norm_of(norm, c), nn.ReLU(), nn.GlobalAvgPool2d(), nn.Linear(c, classes)]
        super().__init__(*layers)


class _Injective(nn.Module):
    """(x1, x2) -> (psi(x2), psi(x1) + F(x2)), or x -> psi(x) + F(x) for one stream; psi moves
    pixels into channels where the block strides. Jacobsen et al. 2018."""

    def __init__(self, norm: str, in_channels: int, channels: int, stride: int, first: bool):
        c, inner = in_channels, channels // EXPANSION
        layers: list[nn.Module] = []
        for a, b, s in ((c, inner, stride), (inner, inner, 1), (inner, channels, 1)):
            conv = nn.Conv2d(a, b, 3, s, padding=1, bias=False)
            layers += [conv] if first and not layers else [norm_of(norm, a), nn.ReLU(), conv]
        self.branch, self.stride = nn.Sequential(*layers), stride

    def forward(self, x1, x2=None):
        if x2 is None:
            return self.psi(x1) + self.branch(x1)
        return self.psi(x2), self.psi(x1) + self.branch(x2)

    def psi(self, x):
        return x if self.stride == 1 else ops.space_to_depth(x, self.stride)


class IRevNet(nn.Module):
    """Jacobsen et al. 2018 without norms, as trained on phones; 6.26 M parameters.

    units      blocks of each stage; every stage but the first halves height and width.
    channels   of each of the two streams in the first stage, four times as many in each next one.
    norm       "none" is the network that others measured; "batch" and "group" put a norm before
               each ReLU.
    plain      the twin to compare with: one stream x -> psi(x) + F(x) of the same units and widths.

    The image is padded with zero channels up to the first streams' width.
    """

    loss = "cross_entropy"

    def __init__(
        self,
        classes: int = 10,
        input_shape: tuple[int, ...] = (32, 32, 3),
        units: Sequence[int] = (18, 18, 18),
        channels: int = 16,
        norm: str = "none",
        plain: bool = False,
    ):
        _check_stages("irevnet", units, (channels,), 1)
        check_divides("irevnet", "a bottleneck's factor", EXPANSION, channels=channels)
        h, w, c = input_shape
        shrink = 2 ** (len(units) - 1)
        check_divides("irevnet", "the product of strides", shrink, height=h, width=w)
        self.streams = 1 if plain else 2
        self.added = self.streams * channels - c
        if self.added < 0:
            raise InputError(f"irevnet: {c} channels of the input do not fit {c + self.added}")
        self.blocks: list[nn.Module] = []
        before = channels
        for k, count in enumerate(units):
            width = channels * 4**k
            for j in range(count):
                stride = 2 if k and not j else 1
                first = not self.blocks
                self.blocks.append(_Injective(norm, before, width, stride, first))
                before = width
        self.norm = norm_of(norm, self.streams * before)
        self.dense = nn.Linear(self.streams * before, classes)

    def forward(self, x):
        x = ops.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.added)))
        if self.streams == 1:
            for block in self.blocks:
                x = block(x)
        else:
            x1, x2 = ops.split(x, 2)
            for block in self.blocks:
                x1, x2 = block(x1, x2)
            x = ops.concat([x1, x2], axis=-1)
        return self.dense(ops.global_avg_pool(self.norm(x).relu()))


def _check_stages(where: str, units: Sequence[int], widths: Sequence[int], count: int) -> None:
    """InputError unless there are so many widths, and at least one block in each stage."""
    if not units or len(widths) != count:
        raise InputError(f"{where}: {len(units)} stages of units want {count} widths: {widths}")
    for n in units:
        check_sizes(where, units=n)
    for n in widths:
        check_sizes(where, widths=n)
