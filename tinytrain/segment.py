"""A segment: the first layers of a tape, run part by part while the rest runs whole.

Parts are slices of the batch (a mixed micro-batch) or tiles of rows (a tiled stem), recomputed one
after the other in backward. It only rewrites tapes; what a part is worth the solver finds out.
Sources: MCUNetV2's patches (Lin et al. 2021), here for the training step.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from tinytrain.tape import Node, Tape

# Ops that treat samples alike and apart from each other, and those that also look at rows nearby.
BY_SAMPLE = (
    *("add", "sub", "mul", "relu", "relu6", "leaky_relu", "silu", "gelu", "tanh", "sigmoid"),
    *("conv2d", "max_pool2d", "avg_pool2d", "group_norm", "batch_norm_frozen"),
)
BY_ROW = ("relu", "relu6", "conv2d", "max_pool2d", "avg_pool2d", "batch_norm_frozen")
WINDOWS = ("conv2d", "max_pool2d", "avg_pool2d")


@dataclass(frozen=True)
class Segment:
    """Everything up to the value `end`, in so many `parts` along an axis: "samples" or "rows"."""

    along: str
    end: int
    parts: int


def may_be_cut(tape: Tape, along: str, end: int) -> bool:
    """Whether the nodes that `end` comes from can run part by part, and alone make it."""
    nodes = _nodes_before(tape, end)
    inputs = {v for v, leaf in tape.leaves.items() if leaf.kind == "input"}
    inside = {o for n in nodes for o in n.outs}
    rest = [n for n in tape.nodes if not inside & {*n.outs}]
    wanted = {*tape.outputs, tape.loss, *(v for pair in tape.assigns for v in pair)}
    read = {v for n in rest for v in n.ins} | wanted
    data = {n.ins[0] for n in nodes if n.ins} & inputs
    if not nodes or len(data) != 1 or read & (inside - {end}) or read & data:
        return False
    if along == "samples":
        return all(n.op in BY_SAMPLE and _per_sample(tape, n) for n in nodes)
    chain = all(b.ins[:1] == a.outs[:1] for a, b in itertools.pairwise(nodes))
    return chain and all(n.op in BY_ROW for n in nodes)


def _per_sample(tape: Tape, node: Node) -> bool:
    """Whether what is not a parameter has the batch as its first axis."""
    batch = tape.specs[node.outs[0]].shape[:1]
    data = [v for v in node.ins if v is not None and v not in tape.leaves]
    return all(tape.specs[v].shape[:1] == batch for v in data)


def _nodes_before(tape: Tape, end: int) -> list[Node]:
    """The nodes that `end` is computed by, in program order."""
    wanted, found = {end}, []
    for n in reversed(tape.nodes):
        if wanted & {*n.outs}:
            found.append(n)
            wanted |= {v for v in n.ins if v is not None}
    return found[::-1]


def cut_up(tape: Tape, segment: Segment) -> tuple[Tape, list[int]]:
    """The tape with the segment in parts, and the values inside these.

    Parts stand in descending order, so that backward, which goes the other way, adds the weights'
    gradients in the order of the samples. The border rows of a tile are computed twice. Gradients
    are exact; a bias's, and with tiles a weight's, is summed by parts, so last bits may differ.
    """
    nodes = _nodes_before(tape, segment.end)
    axis = 0 if segment.along == "samples" else 1
    made = replace(tape, specs=list(tape.specs), nodes=[])
    size = tape.specs[segment.end].shape[axis]
    bounds = [size * k // segment.parts for k in range(segment.parts + 1)]
    spans = [(a, b) for a, b in itertools.pairwise(bounds) if a < b]
    parts = []
    for span in reversed(spans):
        needed = dict(_rows(tape, nodes, span)) if axis else {}
        parts.append(_part(made, nodes, axis, span, needed))
    inside = list(range(len(tape.specs), len(made.specs)))
    made.nodes.append(Node("concat", (*reversed(parts),), (segment.end,), {"axis": axis}))
    gone = {o for n in nodes for o in n.outs}
    made.nodes += [n for n in tape.nodes if not gone & {*n.outs}]
    return made, inside


def _part(made: Tape, nodes: list[Node], axis: int, span: tuple[int, int], rows: dict) -> int:
    """Append the segment's nodes for one part; its last value."""
    held: dict[int, int] = {}

    def of(v: int | None) -> int | None:
        if v is None or v in held:
            return v if v is None else held[v]
        if v in made.leaves and made.leaves[v].kind != "input":
            return v
        begin, end = rows.get(v, span)
        shape = made.specs[v].shape
        low = tuple(begin if k == axis else 0 for k in range(len(shape)))
        high = tuple(end if k == axis else n for k, n in enumerate(shape))
        (held[v],) = made.add("slice", (v,), {"begin": low, "end": high})
        return held[v]

    for n in nodes:
        attrs = n.attrs if not axis else _within(made, n, rows)
        outs = made.add(n.op, tuple(of(v) for v in n.ins), attrs)
        held.update(zip(n.outs, outs, strict=True))
    return held[nodes[-1].outs[0]]


def _rows(tape: Tape, nodes: list[Node], span: tuple[int, int]) -> Iterator[tuple[int, Any]]:
    """For each value of a chain the rows [begin, end) that rows `span` of its end come from."""
    for n in reversed(nodes):
        yield n.outs[0], span
        if n.op in WINDOWS:
            first, last = _window(tape, n, span)
            span = max(first, 0), min(last, tape.specs[n.ins[0]].shape[1])  # type: ignore[index]
    yield nodes[0].ins[0], span  # type: ignore[misc]


def _window(tape: Tape, n: Node, span: tuple[int, int]) -> tuple[int, int]:
    """The input rows that a window over the output rows `span` reads, padding included."""
    if n.op == "conv2d":
        taps = tape.specs[n.ins[1]].shape[0]  # type: ignore[index]
        reach = (taps - 1) * n.attrs["dilation"][0] + 1
    else:
        reach = n.attrs["kernel_size"][0]
    stride, top = n.attrs["stride"][0], n.attrs["padding"][0]
    return span[0] * stride - top, (span[1] - 1) * stride - top + reach


def _within(tape: Tape, n: Node, rows: dict[int, tuple[int, int]]) -> dict[str, Any]:
    """The node's attrs for its rows: padded above and below only where the image ends."""
    if n.op not in WINDOWS:
        return n.attrs
    first, last = _window(tape, n, rows[n.outs[0]])
    height = tape.specs[n.ins[0]].shape[1]  # type: ignore[index]
    _, _, left, right = n.attrs["padding"]
    return {**n.attrs, "padding": (max(-first, 0), max(last - height, 0), left, right)}
