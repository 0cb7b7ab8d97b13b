"""Calls cut into parts that can run at the same time: each over some of the samples, or some of a
kernel's taps, so that every output is one part's and no sum is cut. It runs nothing itself, and
decides by sizes alone."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

# The arguments that have samples as their first axis, outputs first, and the scratch of each part.
_BY_SAMPLE: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "conv2d": ((0, 1), ()),
    "conv2d_vjp_x": ((0, 1), (3,)),
    "matmul": ((0, 1), ()),
    "matmul_nt": ((0, 1), ()),
    "relu": ((0, 1), ()),
    "relu6": ((0, 1), ()),
    "relu_vjp": ((0, 1, 2), ()),
    "relu6_vjp": ((0, 1, 2), ()),
    "max_pool2d": ((0, 1, 2), ()),
    "max_pool2d_vjp": ((0, 1, 2), ()),
    "avg_pool2d": ((0, 1), ()),
    "avg_pool2d_vjp": ((0, 1), ()),
    "group_norm": ((0, 1, 2, 3), ()),
    "group_norm_vjp_x": ((0, 1, 2, 3, 4), ()),
}
_PRODUCTS = {"conv2d": 2, "conv2d_vjp_x": 2, "matmul": 2, "matmul_nt": 2}  # where the weights are
# Below these a part takes no longer than waiting for it, some microseconds.
LEAST_WORK, LEAST_SIZE = 400_000, 100_000  # multiply-accumulates of a product, elements of a pass
LEAST_SAMPLES = 8
LEAST_TOTAL = 16  # times the least: below, a step is done before another thread has woken

Bound = tuple[Callable[..., None], tuple[Any, ...]]


def threads(*names: str) -> int:
    """The first of these environment variables that is a whole number of at least 1; else 1."""
    for name in names:
        text = os.environ.get(name, "")
        if text.isdigit() and int(text) > 0:
            return int(text)
    return 1


class Together:
    """Calls that may run at the same time, or one after the other, in place of a whole one. work:
    how many times the least that pays that is."""

    def __init__(self, calls: Sequence[Bound], whole: Bound, work: float):
        self.calls, self.whole, self.work = calls, whole, work

    def __call__(self) -> None:
        for function, given in self.calls:
            function(*given)


def paying(calls: Sequence[Bound]) -> Iterator[Bound]:
    """The calls of a step, each whole if all their parts together are too small."""
    total = sum(function.work for function, _ in calls if isinstance(function, Together))
    for function, given in calls:
        if isinstance(function, Together) and total < LEAST_TOTAL:
            yield function.whole
        else:
            yield function, given


def parts_of(op: str, args: Sequence[Any], count: int) -> Iterator[tuple[Any, ...]]:
    """The arguments of the parts of a call for `count` threads, or of none: where its row is not
    cut, where it is too small, or where one part would write what another reads."""
    if count < 2:
        return
    if op == "conv2d_vjp_w":
        yield from _of_taps(args, count)
    if op not in _BY_SAMPLE:
        return
    places, scratch = _BY_SAMPLE[op]
    arrays = [args[k] for k in places]
    if any(a is None or not a.ndim or not a.flags.c_contiguous for a in arrays):
        return
    samples = len(arrays[0])
    if samples < max(LEAST_SAMPLES, count) or any(len(a) != samples for a in arrays):
        return
    if work_of(op, args) < 1 or not _apart(arrays):
        return
    edges = [samples * k // count for k in range(count + 1)]
    for k in range(count):
        part = list(args)
        for place in places:
            part[place] = args[place][edges[k] : edges[k + 1]]
        for place in scratch if k else ():  # the plan's own is the first part's
            part[place] = args[place].copy()
        yield tuple(part)


def _of_taps(args: Sequence[Any], count: int) -> Iterator[tuple[Any, ...]]:
    """conv2d_vjp_w for an even share of the taps each, as rectangles of them, the large ones first.
    Not where a group has one channel: there taps are summed together."""
    dw, x, g, (kh, kw), stride, padding, groups, dilation, acc = args
    arrays = dw, x, g
    if kh * kw < count or dw.shape[2] == 1 or not all(a.flags.c_contiguous for a in arrays):
        return
    if work_of("conv2d_vjp_w", args) < 1 or not _apart(arrays):
        return
    blocks = []
    for k in range(count):
        at, end = kh * kw * k // count, kh * kw * (k + 1) // count
        while at < end:
            i, j = divmod(at, kw)
            rows = (end - at) // kw if j == 0 else 0
            size = (rows, kw) if rows else (1, min(kw - j, end - at))
            blocks.append((i, j, *size))
            at += size[0] * size[1]
    for i, j, down, across in sorted(blocks, key=lambda b: -b[2] * b[3]):
        top, bottom, left, right = padding
        around = top - i * dilation[0], bottom, left - j * dilation[1], right
        to = dw[i : i + down, j : j + across]
        yield to, x, g, (down, across), stride, around, groups, dilation, acc


def work_of(op: str, args: Sequence[Any]) -> float:
    """How many times the least that pays a call is."""
    if op == "conv2d_vjp_w":
        return args[0].size * (args[2].size // args[2].shape[-1]) / LEAST_WORK
    size = max(args[0].size, args[1].size)
    if op not in _PRODUCTS:
        return size / LEAST_SIZE
    weights = args[_PRODUCTS[op]]
    if weights.ndim == 2:
        return args[0].size * args[1].shape[-1] / LEAST_WORK
    if weights.ndim != 4:
        return 0.0  # a product of stacks
    kh, kw, depth, outs = weights.shape
    pixels = min(args[0].size // args[0].shape[-1], args[1].size // args[1].shape[-1])
    return pixels * kh * kw * depth * outs / LEAST_WORK


def _apart(arrays: Sequence[Any]) -> bool:
    """Whether arrays that overlap do so sample by sample."""
    spans = [(a.__array_interface__["data"][0], a.nbytes) for a in arrays]
    for k, (a, n) in enumerate(spans):
        for b, m in spans[:k]:
            if a < b + m and b < a + n and (a, n) != (b, m):
                return False
    return True
