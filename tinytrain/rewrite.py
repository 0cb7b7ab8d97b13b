"""Rewrites of a recorded tape that change no bit of what it computes; nothing is lowered here.

A gate (ReLU) and max pooling are both monotone, so they commute. Behind the pool the gate works on,
and backward keeps, a window's share of the elements, and nobody reads the large output any more.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from tinytrain.tape import Tape

GATES = ("relu", "relu6")


def gates_behind_pools(tape: Tape) -> Tape:
    """The tape with each gate that only a max pool reads moved behind that pool. A window without
    a positive element passes no gradient either way; in the others the first maximum is the same,
    but where relu6 cuts several elements: there the pool names another one, and the gate, which
    passes nothing at 6, stops its gradient too."""
    uses = Counter(v for n in tape.nodes for v in n.ins)
    uses.update((*tape.outputs, tape.loss, *(v for _, v in tape.assigns)))
    gates = {n.outs[0]: k for k, n in enumerate(tape.nodes) if n.op in GATES}
    specs, nodes = list(tape.specs), list(tape.nodes)
    for k, pool in enumerate(tape.nodes):
        y = pool.ins[0] if pool.ins else None
        if pool.op != "max_pool2d" or y not in gates or uses[y] != 1:
            continue
        at, (pooled, index) = gates[y], pool.outs
        gate = nodes[at]
        specs[y] = specs[pooled]
        nodes[at] = replace(pool, ins=gate.ins, outs=(y, index))
        nodes[k] = replace(gate, ins=(y,), outs=(pooled,))
    return replace(tape, specs=specs, nodes=nodes)
