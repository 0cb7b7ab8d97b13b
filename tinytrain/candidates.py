"""Candidates: which values of a tape some policies can be thought of for. It chooses none."""

from __future__ import annotations

from tinytrain.op import OPS
from tinytrain.rewrite import GATES
from tinytrain.stash import bitmap, spill
from tinytrain.tape import Node, Tape

# What makes the streams of a reversible network; the branches added to them are made again.
STREAM = ("add", "slice", "pad", "space_to_depth", "depth_to_space")


def sparse_values(tape: Tape) -> list[int]:
    """Outputs of gates, and of max pooling over these: what is mostly zero after a ReLU. Not the
    loss, should it be one."""
    found: dict[int, bool] = {}  # and whether it is a value of its own, not a view
    for n in tape.nodes:
        passes = OPS[n.op].view or n.op == "max_pool2d"
        if n.op in GATES or (passes and n.ins[0] in found):
            found[n.outs[0]] = not OPS[n.op].view
    return [v for v, owns in found.items() if owns and v != tape.loss]


def small_indices(tape: Tape) -> frozenset[int]:
    """Indices of max pools of which several fit into a byte."""
    return frozenset(v for n in tape.nodes for v in n.outs[1:] if bitmap.bits_of(n, v))


def spillable(tape: Tape) -> frozenset[int]:
    """Values that are large enough to be spilled; a network's inputs are among them."""
    inputs = [v for v, leaf in tape.leaves.items() if leaf.kind in ("input", "label")]
    made = [v for n in tape.nodes if not OPS[n.op].view for v in n.outs]
    large = (v for v in (*inputs, *made) if tape.specs[v].nbytes >= spill.SMALLEST)
    return frozenset(v for v in large if v != tape.loss)


def invertible(tape: Tape) -> set[int]:
    """Values that their last invertible reader gives back without asking for them again, if what
    sums make on the way there is kept or inverted in its turn."""
    last: dict[int, tuple[Node, int]] = {}
    for node in tape.nodes:
        for i, v in enumerate(node.ins):
            if v is not None and OPS[node.op].inverse_of(i) is not None:
                last[v] = node, i
    producer = {o: n for n in tape.nodes for o in n.outs}
    found: set[int] = set()
    for v, (node, i) in last.items():
        same = tape.specs[node.outs[0]].size == tape.specs[v].size  # not broadcast
        others = [u for k, u in enumerate(node.ins) if k != i]
        stream = v in producer and producer[v].op in STREAM
        if same and stream and not found & {*others} and not _asks_for(v, others, producer):
            found.add(v)
    return found


def _asks_for(v: int, values: list[int | None], producer: dict[int, Node]) -> bool:
    """Whether making `values` again comes upon v, sums not being made again."""
    todo, seen = list(values), set()
    while todo:
        u = todo.pop()
        if u == v:
            return True
        if u in producer and u not in seen and producer[u].op != "add":
            seen.add(u)
            todo += producer[u].ins
    return False
