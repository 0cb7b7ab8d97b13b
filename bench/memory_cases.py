"""The memory benchmark's cases: networks, budgets, and what others published; measures nothing.

A case says which bytes count (`measure`), how many they may be (`goal`), and how much work may be
added (`extra`, as a share of keep's). Published figures carry their unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from tinytrain import models, nn
from tinytrain.bench.memory_bytes import Bytes
from tinytrain.nn import Module

KIB, MIB = 1024, 1024**2


@dataclass(frozen=True)
class Case:
    """One row.

    measure   which of `memory_bytes.MEASURES`: "arena", "beside" (parameters and optimizer state),
              "kept" (activations alive between forward and backward).
    goal      bytes, or a function of the Bytes of `reference`'s keep plan; None: the figure alone.
    extra     most extra work, a share of keep's; None: no limit.
    policy    one that is forced; with a goal, "auto" gets it as its budget.
    twin      the network whose keep is the reference; default: the same.
    published of others, for the same case, as text.
    execute   run a step of the plan, where this machine has room for it.
    timed     compare the time of a step with keep's.
    """

    name: str
    section: str
    make: Callable[[], Module]
    goal: int | Callable[[Bytes], int] | None = None
    measure: str = "arena"
    extra: float | None = None
    batch: int = 32
    microbatch: int | str = "auto"
    optimizer: str = "sgd"
    loss: str | None = None
    policy: str = "auto"
    density: float | None = None
    twin: Callable[[], Module] | None = None
    published: str = ""
    execute: bool = True
    timed: bool = False


def cases() -> list[Case]:
    """Every row, in the order they are printed."""
    return [
        *_reversible(),
        *_bitmaps(),
        *_wide(),
        *_components(),
        *_small(),
        *_boards(),
        *_halves(),
    ]


def _build(name: str, **options) -> Callable[[], Module]:
    return partial(models.build, name, **options)


def _reversible() -> Iterator[Case]:
    yield Case(
        "irevnet-18-18-18",
        "i-RevNet 18/18/18, batch and micro-batch 128, momentum: bytes beside parameters and "
        "optimizer state",
        _build("irevnet"),
        *(56 * MIB, "beside", 0.34, 128, 128, "momentum"),
        policy="invert",
        published="966 + 966 MiB (OnDeviceTrain)",
    )
    published = {3: "85.6 of 238.6 MB", 9: "85.7 of 810.7 MB", 18: "none"}
    for n in (3, 9, 18):
        yield Case(
            f"revnet-{n}-{n}-{n}",
            "RevNet, batch and micro-batch 100, momentum: bytes beside parameters and optimizer "
            "state; the reference is the plain twin's keep; published (MemCNN): RevNet of ResNet",
            _build("revnet", units=(n, n, n)),
            (lambda plain: int(plain.beside / 25)) if n == 18 else None,
            *("beside", None, 100, 100, "momentum"),
            policy="invert",
            twin=_build("revnet", units=(n, n, n), plain=True),
            published=published[n],
        )


def _bitmaps() -> Iterator[Case]:
    """Without norms: a norm's input is dense, and a bitmap cannot help it."""
    networks: dict[str, dict[str, Any]] = {
        "resnet18": {"norm": "none"},
        "vgg16": {},
        "mobilenetv2": {"norm": "none", "width": 1.0},
    }
    goals = {  # less, of what is kept and of the arena; and published of the whole
        0.5: (0.47, 0.46, 0.34),
        0.3: (0.66, 0.55, 0.56),
    }
    section = (
        "bitmaps, batch and micro-batch 8, no norms, plain SGD; nominal bytes, the capacity's "
        "margin apart; published: BitTrain"
    )
    for name, options in networks.items():
        for side in (224, 32):
            make = _build(name, input_shape=(side, side, 3), **options)
            for density, (kept, arena, share) in goals.items():
                common: dict[str, Any] = {
                    "section": section,
                    "make": make,
                    "batch": 8,
                    "microbatch": 8,
                    "policy": "bitmap",
                    "density": density,
                    "published": f"{round(100 * share)} % less in total",
                }
                here = f"{name}-{side}-{round(100 * (1 - density))}%"
                yield Case(
                    name=f"bitmap-kept-{here}",
                    measure="kept",
                    goal=partial(_less, "kept", kept),
                    execute=side == 32,
                    timed=side == 32 and density == 0.5,
                    **common,
                )
                if side == 224:
                    yield Case(
                        name=f"bitmap-arena-{here}", goal=partial(_less, "arena", arena), **common
                    )


def _less(measure: str, share: float, keep: Bytes) -> int:
    return int(getattr(keep, measure) * (1 - share))


def _wide() -> Iterator[Case]:
    for optimizer in ("momentum", "sgd"):
        yield Case(
            f"wrn-28-2-{optimizer}",
            "WRN-28-2 with group norm, logical batch 128: whole arena; published: a report, its "
            "denominator unknown",
            _build("wrn", norm="group"),
            *(int(12.6 * MIB), "arena", 0.08, 128, "auto", optimizer),
            published="60.7x less",
        )


def _same(channels: int = 3) -> nn.Conv2d:
    return nn.Conv2d(channels, 3, 3, stride=2, padding="same")


def _net(shape: tuple[int, ...], *layers: Callable[[], Module]) -> Module:
    """Layers over samples of this shape, with the weights of seed 0."""
    with nn.seeded(0):
        net = nn.Sequential(*(layer() for layer in layers))
    net.input_shape = shape
    return net


def _components() -> Iterator[Case]:
    image = (224, 224, 3)
    long = (150528,)
    dense = partial(nn.Linear, 150528, 300), partial(nn.Linear, 150528, 10)
    a, b, c = (partial(nn.Linear, *s) for s in ((784, 4096), (4096, 2048), (2048, 100)))
    networks = {  # layers and KiB of NNTrainer and PyTorch
        "Linear": (partial(_net, long, dense[0]), 390_659, 390_659),
        "Conv2D": (partial(_net, image, _same), 65_857, 116_034),
        "A_Conv": (partial(_net, image, _same, _same, _same), 51_157, 98_396),
        "C_Conv": (partial(_net, image, _same, nn.ReLU, nn.Flatten), 65_857, 116_034),
        "C_Linear": (partial(_net, long, dense[1], nn.ReLU, nn.Flatten), 49_400, 49_400),
        "A_Linear": (partial(_net, (784,), a, b, c), 80_669, 93_543),
    }
    for name, (make, theirs, torchs) in networks.items():
        yield Case(
            f"component-{name}",
            "NNTrainer's component cases, batch 64, plain SGD, mean squared error: whole arena "
            "under the smaller of NNTrainer's and PyTorch's; published: both",
            make,
            215 * MIB if name == "Linear" else min(theirs, torchs) * KIB - 1,
            batch=64,
            loss="mse",
            published=f"{theirs:,} and {torchs:,} KiB",
        )


SMALL = {"lenet5": 2_066, "vgg6": 10_841, "resnet8": 23_449, "resnet18": 219_088}  # KiB


def _small() -> Iterator[Case]:
    section = (
        "batch 32, plain SGD: whole arena against the smaller of NNTrainer's and PyTorch's "
        "(published), half of it with at most 10 % extra work, 0.9 of it by keep alone"
    )
    for name, theirs in SMALL.items():
        published = f"{theirs:,} KiB"
        make = _build(name)
        yield Case(f"{name}-half", section, make, theirs * KIB // 2, "arena", 0.10, 32,
                   published=published)  # fmt: skip
        yield Case(f"{name}-keep", section, make, int(theirs * KIB * 0.9), policy="keep",
                   published=published)  # fmt: skip
    for name, theirs in {"vgg6": 7_336, "resnet8": 8_374}.items():
        yield Case(
            f"{name}-frozen",
            "the same with features frozen (all but the dense layers): 0.45 of the published",
            partial(_frozen, name),
            *(int(theirs * KIB * 0.45), "arena", 0.10),
            published=f"{theirs:,} KiB",
        )


def _frozen(name: str) -> Module:
    net = models.build(name)
    net.requires_grad_(False)
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            layer.requires_grad_(True)
    return net


def _boards() -> Iterator[Case]:
    for optimizer, goal in (("sgd", 200), ("momentum", 290)):
        yield Case(
            f"ds_cnn-{optimizer}",
            "DS-CNN, every layer trained, batch 1: whole arena; published: what PyTorch saves",
            _build("ds_cnn"),
            *(goal * KIB, "arena", None, 1, "auto", optimizer),
            published="574 KiB beside 3 x 93",
        )
    for batch, theirs in ((1, 592), (32, 18_829)):
        for goal, extra in ((240, 0.30), (210, 0.50)):
            yield Case(
                f"resnet8-group-{batch}-{goal}K",
                "ResNet-8 with group norm, momentum: bytes beside parameters and optimizer state; "
                "published: what PyTorch saves",
                _build("resnet8", norm="group"),
                *(goal * KIB, "beside", extra, batch, "auto", "momentum"),
                published=f"{theirs:,} KiB",
            )


def _halves() -> Iterator[Case]:
    for name in models.names():
        yield Case(
            f"half-{name}",
            "every model of the zoo, batch 32, momentum, in its parameters and optimizer state and "
            "half of the rest of keep",
            _build(name),
            lambda keep: keep.persistent + (keep.arena - keep.persistent) // 2,
            *("arena", 0.35, 32, "auto", "momentum"),
        )
