"""Tape: one recorded step as data. Specs and Nodes over value ids; no arrays, no closures.

A recorded value is assigned once. What a value is (an input, a parameter, a constant) is said by
its Leaf; every other value is made by exactly one Node.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tinytrain.op import OPS
from tinytrain.spec import Spec


@dataclass(frozen=True, slots=True)
class Node:
    """`outs = op(*ins, **attrs)`; an absent optional input is None."""

    op: str
    ins: tuple[int | None, ...]
    outs: tuple[int, ...]
    attrs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value that no node makes.

    kind: input, label, parameter, state (running statistics), constant, hyper (learning rate,
    counters), optimizer.
    """

    kind: str
    name: str
    trainable: bool = False


@dataclass
class Tape:
    """Values (`specs`), what makes them (`nodes`, in program order) and where they come from.

    `outputs` are the model's, `loss` the scalar to minimise; `assigns` pairs a state leaf with the
    value it takes once the step has been found good.
    """

    specs: list[Spec] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    leaves: dict[int, Leaf] = field(default_factory=dict)
    outputs: tuple[int, ...] = ()
    loss: int | None = None
    assigns: list[tuple[int, int]] = field(default_factory=list)

    def leaf(self, spec: Spec, kind: str, name: str, trainable: bool = False) -> int:
        """A new leaf's value id."""
        self.specs.append(spec)
        self.leaves[len(self.specs) - 1] = Leaf(kind, name, trainable)
        return len(self.specs) - 1

    def add(self, op: str, ins: tuple[int | None, ...], attrs: dict[str, Any]) -> tuple[int, ...]:
        """Record one node by its shape rule; the ids of its outputs."""
        specs, attrs = OPS[op].infer(
            tuple(None if i is None else self.specs[i] for i in ins), attrs
        )
        outs = tuple(range(len(self.specs), len(self.specs) + len(specs)))
        self.specs.extend(specs)
        self.nodes.append(Node(op, ins, outs, attrs))
        return outs

    def signature(self) -> str:
        """Everything recorded as text: two recordings of one program must have the same."""
        leaves = sorted(self.leaves.items())
        return repr((self.specs, self.nodes, leaves, self.outputs, self.loss, self.assigns))

    def trainable(self) -> list[int]:
        """The ids of the trainable parameters."""
        return [v for v, leaf in self.leaves.items() if leaf.trainable]

    def depends_on(self, wrt: set[int]) -> set[int]:
        """Every value through which a gradient flows back to one of `wrt`."""
        need = set(wrt)
        for node in self.nodes:
            op = OPS[node.op]
            if any(i in need and op.vjp_of(k) is not None for k, i in enumerate(node.ins)):
                need.add(node.outs[0])
        return need

    def made_from(self, kind: str) -> set[int]:
        """The leaves of a kind and every value that is computed from one of them."""
        found = {v for v, leaf in self.leaves.items() if leaf.kind == kind}
        for node in self.nodes:
            if found & set(node.ins):
                found.update(node.outs)
        return found

    def dump(self) -> str:
        """The tape as text, a line a node."""
        lines = [f"%{v}: {self.specs[v]} = {x.kind} {x.name}" for v, x in self.leaves.items()]
        for n in self.nodes:
            outs = ", ".join(f"%{o}: {self.specs[o]}" for o in n.outs)
            ins = ", ".join("-" if i is None else f"%{i}" for i in n.ins)
            attrs = "".join(f" {k}={v}" for k, v in n.attrs.items())
            lines.append(f"{outs} = {n.op}({ins}){attrs}")
        return "\n".join(lines)
