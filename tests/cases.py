"""The case list: every public op with the shapes, attrs and values it is tried with. It asserts
nothing; `test_cases.py` asks its questions of every line.

A new op gets one line in CASES: its name, and a strategy of `Call`s. `one(...)` serves an op of one
array, `pair()` an op of two that broadcast; what needs more has a strategy of its own below.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import numpy as np
from hypothesis.extra.numpy import mutually_broadcastable_shapes
from hypothesis.strategies import SearchStrategy

from tinytrain import functions, ops, tensor
from tinytrain.op import OPS

Values = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


@dataclass(frozen=True)
class Call:
    """One application. Gradients flow to the floating `arrays`, not to integers, nor to `fixed`."""

    arrays: tuple[np.ndarray, ...]
    fixed: dict[str, np.ndarray] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """An op and the calls it is tried with; `apply` where it is not simply `tt.ops.<op>`."""

    op: str
    calls: SearchStrategy[Call]
    label: str = ""
    apply: Callable[..., Any] | None = None

    def __str__(self) -> str:
        return f"{self.op}-{self.label}" if self.label else self.op

    def function(self, call: Call, dtype: str = "float64") -> Callable[..., tensor.Tensor]:
        """The op over the tensors of `call.arrays`, the rest filled in as `dtype`."""
        apply = self.apply or getattr(ops, self.op)
        fixed = {name: tensor.Tensor(as_dtype(a, dtype)) for name, a in call.fixed.items()}
        for t in fixed.values():
            t.kind, t.name = "input", "fixed"
        return lambda *tensors: apply(*tensors, **fixed, **call.attrs)


def as_dtype(a: np.ndarray, dtype: str) -> np.ndarray:
    """Floating arrays in `dtype`, others as they are."""
    return a.astype(dtype) if a.dtype.kind == "f" else a


# ------------------------------------------------------------------------- where values lie


def normal(rng, shape):
    return rng.standard_normal(shape)


def positive(rng, shape):
    return rng.uniform(0.5, 2.5, shape)


def distinct(rng, shape):
    """No two closer than 0.1: the largest stays the largest, and no variance is tiny."""
    count = int(np.prod(shape))
    return ((rng.permutation(count) - count / 2) * 0.1 + 0.03).reshape(shape)


def away_from(*kinks: float) -> Values:
    """At least 0.05 away from each kink, on both sides of it."""

    def values(rng, shape):
        x = rng.uniform(min(kinks) - 2, max(kinks) + 2, shape)
        for kink in kinks:
            x = np.where(np.abs(x - kink) < 0.05, kink + np.where(x < kink, -0.05, 0.05), x)
        return x

    return values


# ------------------------------------------------------------------------- drawing calls


def generators() -> SearchStrategy[np.random.Generator]:
    return st.integers(0, 2**16).map(np.random.default_rng)


def shapes(least: int = 0, most: int = 3, side: int = 4) -> SearchStrategy[tuple[int, ...]]:
    """Between `least` and `most` dimensions of 1 to `side`."""
    return st.lists(st.integers(1, side), min_size=least, max_size=most).map(tuple)


@st.composite
def drawn(draw, strategies: dict[str, Any]) -> dict[str, Any]:
    """The same with strategies replaced by what they give."""
    return {
        name: draw(value) if isinstance(value, SearchStrategy) else value
        for name, value in strategies.items()
    }


@st.composite
def one(draw, values: Values = normal, least: int = 0, most: int = 3, side: int = 4, **attrs):
    """An op of one array; attrs may be strategies."""
    shape = draw(shapes(least, most, side))
    return Call((values(draw(generators()), shape),), {}, draw(drawn(attrs)))


@st.composite
def pair(draw, a: Values = normal, b: Values = normal):
    """An op of two arrays that broadcast."""
    both = mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=4)
    shape_a, shape_b = draw(both).input_shapes
    rng = draw(generators())
    return Call((a(rng, shape_a), b(rng, shape_b)))


@st.composite
def with_axis(draw, values: Values = normal):
    """A softmax: one axis, maybe counted from the end."""
    shape = draw(shapes(1))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    return Call((values(draw(generators()), shape),), {}, {"axis": axis})


@st.composite
def reductions(draw, values: Values = normal):
    """All axes, one, or several in any order."""
    shape = draw(shapes(0, 4))
    axis: Any = None
    if shape:
        each = st.integers(-len(shape), len(shape) - 1)
        several = st.lists(
            each, min_size=1, max_size=len(shape), unique_by=lambda a: a % len(shape)
        )
        axis = draw(st.none() | each | several.map(tuple))
    attrs = {"axis": axis, "keepdims": draw(st.booleans())}
    return Call((values(draw(generators()), shape),), {}, attrs)


@st.composite
def matrices(draw):
    """Products of matrices and of batches that broadcast."""
    lead = mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=3)
    lead_a, lead_b = draw(lead).input_shapes
    m, k, n = draw(st.tuples(*[st.integers(1, 4)] * 3))
    rng = draw(generators())
    return Call((normal(rng, (*lead_a, m, k)), normal(rng, (*lead_b, k, n))))


SIDES = st.integers(1, 3)


@st.composite
def windows(draw, kernel: tuple[int, int], stride, dilation=(1, 1), most=None):
    """A padding in one of its spellings, and an image size that it makes large enough."""
    most = (2, 2) if most is None else most
    before = [draw(st.integers(0, m)) for m in most]
    after = [draw(st.integers(0, m)) for m in most]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    spellings: list[tuple[Any, list[int]]] = [
        ("same", [0, 0]),
        (
            ((before[0], after[0]), (before[1], after[1])),
            [before[0] + after[0], before[1] + after[1]],
        ),
        ((before[0], before[1]), [2 * b for b in before]),
        (min(before), [2 * min(before)] * 2),
    ]
    padding, added = draw(st.sampled_from(spellings))
    room = [1 if padding == "same" else max(1, r - p) for r, p in zip(reach, added, strict=True)]
    size = tuple(draw(st.integers(n, n + 4)) for n in room)
    return padding, size


@st.composite
def convolutions(draw, depthwise: bool = False):
    """Channels last; every spelling of stride, padding and dilation, with and without a bias."""
    groups = draw(SIDES)
    cin, cout = (1, draw(st.integers(1, 2))) if depthwise else (draw(SIDES), draw(SIDES))
    kernel = (draw(SIDES), draw(SIDES))
    stride = draw(SIDES | st.tuples(SIDES, SIDES))
    dilation = draw(st.integers(1, 2) | st.tuples(st.integers(1, 2), st.integers(1, 2)))
    both = (dilation, dilation) if isinstance(dilation, int) else dilation
    padding, size = draw(windows(kernel, stride, both))
    rng = draw(generators())
    x = normal(rng, (draw(st.integers(1, 2)), *size, groups * cin))
    w = normal(rng, (*kernel, cin, groups * cout))
    b = [normal(rng, (groups * cout,))] if draw(st.booleans()) else []
    attrs = {"stride": stride, "padding": padding, "groups": groups, "dilation": dilation}
    return Call((x, w, *b), {}, attrs)


@st.composite
def convolutions_1d(draw):
    """Sequences, causal padding among them."""
    groups, cin, cout, k, stride = (draw(SIDES) for _ in range(5))
    dilation = draw(st.integers(1, 2))
    causal = ((k - 1) * dilation, 0)
    padding = draw(st.sampled_from(["same", causal, (1, 2), 1, 0]))
    rng = draw(generators())
    length = draw(st.integers((k - 1) * dilation + 1, 8))
    x = normal(rng, (draw(st.integers(1, 2)), length, groups * cin))
    w = normal(rng, (k, cin, groups * cout))
    b = [normal(rng, (groups * cout,))] if draw(st.booleans()) else []
    attrs = {"stride": stride, "padding": padding, "groups": groups, "dilation": dilation}
    return Call((x, w, *b), {}, attrs)


@st.composite
def pools(draw, values: Values = normal):
    """Windows that overlap, that leave gaps, and that reach into the padding."""
    kernel = (draw(SIDES), draw(SIDES))
    stride = draw(st.none() | SIDES | st.tuples(SIDES, SIDES))
    most = (kernel[0] // 2, kernel[1] // 2)
    padding, size = draw(windows(kernel, stride, most=most))
    shape = (draw(st.integers(1, 2)), *size, draw(SIDES))
    attrs = {"kernel_size": kernel, "stride": stride, "padding": padding}
    return Call((values(draw(generators()), shape),), {}, attrs)


def _affine(draw, rng, channels: int) -> list[np.ndarray]:
    """Neither, or gamma, or gamma and beta."""
    return [positive(rng, (channels,)) for _ in range(draw(st.integers(0, 2)))]


EPS = st.sampled_from([1e-5, 1e-3])


@st.composite
def batch_norms(draw, frozen: bool = False):
    channels = draw(st.integers(1, 4))
    shape = (*draw(shapes(0, 2)), draw(st.integers(3, 5)), channels)
    rng = draw(generators())
    affine = _affine(draw, rng, channels)
    fixed = {}
    if frozen:
        fixed = {"mean": normal(rng, (channels,)), "var": positive(rng, (channels,))}
    return Call((distinct(rng, shape), *affine), fixed, {"eps": draw(EPS)})


@st.composite
def group_norms(draw):
    groups = draw(SIDES)
    channels = groups * draw(st.integers(3, 4))  # of two, next to nothing is left in float32
    shape = (draw(SIDES), *draw(shapes(0, 2, 3)), channels)
    rng = draw(generators())
    attrs = {"groups": groups, "eps": draw(EPS)}
    return Call((distinct(rng, shape), *_affine(draw, rng, channels)), {}, attrs)


@st.composite
def layer_norms(draw):
    channels = draw(st.integers(3, 6))
    rng = draw(generators())
    x = distinct(rng, (*draw(shapes(0, 3, 3)), channels))
    return Call((x, *_affine(draw, rng, channels)), {}, {"eps": draw(EPS)})


def _mask(draw, rng, shape) -> dict[str, np.ndarray]:
    """Perhaps a mask; all of it may be zero."""
    if not draw(st.booleans()):
        return {}
    return {"mask": rng.integers(0, 2, shape).astype(np.float64)}


@st.composite
def classifications(draw):
    """Logits and labels with any leading shape, smoothed or not, masked or not."""
    lead, classes = draw(shapes(0, 2)), draw(st.integers(2, 5))
    rng = draw(generators())
    labels = rng.integers(0, classes, lead).astype(np.int32)
    attrs = {"label_smoothing": draw(st.sampled_from([0.0, 0.1]))}
    return Call((2 * normal(rng, (*lead, classes)), labels), _mask(draw, rng, lead), attrs)


@st.composite
def regressions(draw, targets: Values):
    shape = draw(shapes(0, 3))
    rng = draw(generators())
    return Call((normal(rng, shape),), {"targets": targets(rng, shape), **_mask(draw, rng, shape)})


@st.composite
def dropouts(draw):
    shape = draw(shapes(0, 3))
    rng = draw(generators())
    key = rng.integers(0, 2**32, 3, dtype=np.uint32)
    attrs = {"p": draw(st.sampled_from([0.0, 0.3, 0.9])), "stream": draw(st.integers(0, 3))}
    return Call((normal(rng, shape),), {"key": key}, attrs)


@st.composite
def look_ups(draw):
    rows, width, shape = draw(st.integers(1, 5)), draw(SIDES), draw(shapes(0, 2))
    rng = draw(generators())
    return Call((normal(rng, (rows, width)), rng.integers(0, rows, shape).astype(np.int32)))


@st.composite
def reshapes(draw):
    shape = draw(shapes(0, 4))
    rest = draw(st.permutations(shape))
    cut = draw(st.integers(0, len(rest)))
    target = (*rest[:cut], int(np.prod(rest[cut:])))
    if draw(st.booleans()):
        known = draw(st.integers(0, len(target) - 1))
        target = (*target[:known], -1, *target[known + 1 :])
    return Call((normal(draw(generators()), shape),), {}, {"shape": target})


@st.composite
def transposes(draw):
    shape = draw(shapes(0, 4))
    axes = draw(st.none() | st.permutations(range(len(shape))).map(tuple))
    return Call((normal(draw(generators()), shape),), {}, {"axes": axes})


@st.composite
def concats(draw):
    """One to three parts that differ along the axis."""
    shape = draw(shapes(1))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    parts = [list(shape) for _ in range(draw(SIDES))]
    for part in parts:
        part[axis] = draw(SIDES)
    rng = draw(generators())
    return Call(tuple(normal(rng, tuple(part)) for part in parts), {}, {"axis": axis})


@st.composite
def splits(draw):
    shape = list(draw(shapes(1)))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    sizes: Any = draw(st.lists(SIDES, min_size=1, max_size=3))
    shape[axis] = sum(sizes)
    if draw(st.booleans()):
        shape[axis], sizes = 2 * len(sizes), len(sizes)
    x = normal(draw(generators()), tuple(shape))
    return Call((x,), {}, {"sections": sizes, "axis": axis})


@st.composite
def cuts(draw):
    shape = draw(shapes(0, 4))
    begin = tuple(draw(st.integers(0, n - 1)) for n in shape)
    end = tuple(draw(st.integers(b + 1, n)) for b, n in zip(begin, shape, strict=True))
    return Call((normal(draw(generators()), shape),), {}, {"begin": begin, "end": end})


@st.composite
def paddings(draw):
    shape = draw(shapes(0, 3))
    widths = tuple(draw(st.tuples(st.integers(0, 2), st.integers(0, 2))) for _ in shape)
    value = draw(st.sampled_from([0.0, -1.5]))
    return Call((normal(draw(generators()), shape),), {}, {"widths": widths, "value": value})


@st.composite
def blocks(draw, deep: bool):
    n, h, w, c, block = (draw(SIDES) for _ in range(5))
    shape = (n, h, w, c * block * block) if deep else (n, h * block, w * block, c)
    return Call((normal(draw(generators()), shape),), {}, {"block": block})


@st.composite
def broadcasts(draw):
    both = mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=4)
    shape, other = draw(both).input_shapes
    attrs = {"shape": np.broadcast_shapes(shape, other)}
    return Call((normal(draw(generators()), shape),), {}, attrs)


@st.composite
def images(draw):
    return Call((normal(draw(generators()), draw(shapes(4, 4))),))


# ------------------------------------------------------------------------- ops of lists


def _concat(*xs, axis):
    return ops.concat(xs, axis=axis)


def _split(x, sections, axis):
    """Every part with a weight of its own, in another order."""
    parts = ops.split(x, sections, axis=axis)
    return ops.concat([part * (k + 1) for k, part in enumerate(parts)][::-1], axis=axis)


# ------------------------------------------------------------------------- the list

EXPONENTS = st.sampled_from([-1.5, -1.0, 0.5, 1.0, 2.0, 2.5])
SLOPES = st.sampled_from([0.01, 0.3])

CASES = [
    Case("add", pair()),
    Case("sub", pair()),
    Case("mul", pair()),
    Case("div", pair(b=positive)),
    Case("div", pair(positive, away_from(0.0)), "signs"),
    Case("neg", one()),
    Case("exp", one()),
    Case("log", one(positive)),
    Case("sqrt", one(positive)),
    Case("tanh", one()),
    Case("sigmoid", one()),
    Case("relu", one(away_from(0.0))),
    Case("relu6", one(away_from(0.0, 6.0))),
    Case("abs", one(away_from(0.0))),
    Case("silu", one()),
    Case("gelu", one()),
    Case("leaky_relu", one(away_from(0.0), negative_slope=SLOPES)),
    Case("pow", one(positive, exponent=EXPONENTS)),
    Case("pow", one(exponent=st.sampled_from([1, 2, 3])), "whole"),
    Case("scale", one(factor=st.floats(-3, 3, width=32))),
    Case("matmul", matrices()),
    Case("embedding", look_ups()),
    Case("conv2d", convolutions()),
    Case("conv2d", convolutions(depthwise=True), "depthwise"),
    Case("conv1d", convolutions_1d()),
    Case("max_pool2d", pools(distinct)),
    Case("avg_pool2d", pools()),
    Case("global_avg_pool", images()),
    Case("reshape", reshapes()),
    Case("transpose", transposes()),
    Case("concat", concats(), apply=_concat),
    Case("split", splits(), apply=_split),
    Case("slice", cuts()),
    Case("pad", paddings()),
    Case("space_to_depth", blocks(deep=False)),
    Case("depth_to_space", blocks(deep=True)),
    Case("broadcast_to", broadcasts()),
    Case("sum", reductions()),
    Case("mean", reductions()),
    Case("max", reductions(distinct)),
    Case("softmax", with_axis()),
    Case("log_softmax", with_axis()),
    Case("cross_entropy", classifications()),
    Case("binary_cross_entropy_with_logits", regressions(lambda rng, s: rng.random(s))),
    Case("mse", regressions(normal)),
    Case("batch_norm", batch_norms()),
    Case("batch_norm_frozen", batch_norms(frozen=True), apply=ops.batch_norm),
    Case("group_norm", group_norms()),
    Case("layer_norm", layer_norms()),
    Case(
        "weight_standardize", one(distinct, least=3, most=4).filter(lambda c: c.arrays[0].size > 8)
    ),
    Case("dropout", dropouts()),
]


# ------------------------------------------------------------------------- rows without a gradient


@dataclass(frozen=True)
class Update:
    """A row of the update, which `run.call` applies to arrays of these kinds: "v" a vector,
    "+" one without negatives, "" a number in (0, 1], "m" the bits of a vector, "n" a count."""

    op: str
    ins: Sequence[str | None]
    attrs: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.op


MOMENTS = {"b1": 0.9, "b2": 0.99, "eps": 1e-8, "decoupled": 0.01}

UPDATES = [
    Update("decay", "vv", {"momentum": 0.9, "weight_decay": 1e-2}),
    Update("decay", ["v", None], {"momentum": 0.9, "weight_decay": 0.0}),
    Update("sgd", ["v", "v", ""]),
    Update("nesterov", ["v", "v", "v", ""], {"momentum": 0.9}),
    Update("adam", ["v", "v", "+", "v", "", "2"], MOMENTS),
    Update("add_scaled", "vv", {"factor": 0.3}),
    Update("zero_pruned", "vv"),
    Update("square_sum", "v"),
    Update("clip_factor", [""], {"max_norm": 0.5}),
    Update("clip_factor", [""], {"max_norm": 50.0}),
    Update("running_average", "vv", {"momentum": 0.1, "correction": 1.25}),
    Update("copy", "v"),
    Update("spill", "v"),
    Update("spill_wait", "vv"),
    Update("fetch", "v"),
    Update("fetch_wait", "vv"),
    Update("snap", "v", {"bits": 3}),
    Update("gate_mask", "v", {"gate": "relu"}),
    Update("gate_mask", "v", {"gate": "relu6"}),
    Update("bitmap_pack", "v", {"capacity": 1}),
    Update("topk_pack", "v", {"k": 1}),
    Update("bitmap_unpack", "mv", {"shape": (1,)}),
    Update("index_pack", "m", {"bits": 2}),
    Update("index_pack", "m", {"bits": 4}),
    Update("index_unpack", "m", {"shape": (1, 3), "bits": 2}),
    Update("index_unpack", "m", {"shape": (2,), "bits": 4}),
    Update("check_capacity", "nn", {"capacities": (3, 50)}),
    Update("check_finite", "vvv"),
    Update("fill", "", {"shape": (3, 2), "value": 0.5}),
]


# Steps of a staircase: their gradient is not the slope, by definition (see test_invert.py).
STRAIGHT_THROUGH = {"snap"}


def needed() -> set[str]:
    """The names that owe a gradient case: every row with a vjp, and every composite."""
    rows = {name for name, row in OPS.items() if row.vjp is not None} - STRAIGHT_THROUGH
    return rows | {function.__name__ for function in functions.COMPOSITES}
