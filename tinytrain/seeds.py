"""Seeds: the decisions from which a solver starts, and what a tape offers it. It compares none.

Sources: Chen et al. 2016 for keeping k values and recomputing between them, Gomez et al. 2017 for
inversion, Hosny et al. 2021 for bitmaps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from tinytrain.candidates import invertible, small_indices
from tinytrain.errors import InputError
from tinytrain.lower import Decisions
from tinytrain.op import OPS
from tinytrain.plan import residuals
from tinytrain.rewrite import GATES
from tinytrain.segment import Segment, may_be_cut
from tinytrain.steps import Program
from tinytrain.tape import Tape

DEAR = ("conv2d", "matmul")  # what recomputing it costs is worth a thought; the rest is cheap
JOINS = ("add", "concat")  # made again, they ask for all that was before them
WEIGHT_GRADIENTS = {
    *("conv2d_vjp_w", "conv2d_vjp_w_sgd"),
    *("matmul_tn", "matmul_tn_sgd", "matmul_tn_momentum"),
}
ENDS, PARTS = 3, (2, 4, 8)  # of a segment: how many ends are tried, in how many parts
CUTS = (0, 1, 2, 3, 4, 6, 8, 12, 16)
NOTHING = 256  # a value is nothing beside one so many times as large
REPEATS = 16  # forward steps that a seed may lower in place of one


class Seeds:
    """The values of a tape that decisions are about, and decisions to start from."""

    def __init__(
        self,
        tape: Tape,
        sparse: frozenset[int],
        spills: frozenset[int],
        orders: bool,
        masks: bool,
    ):
        self.tape = tape
        self.producer = {n.outs[0]: k for k, n in enumerate(tape.nodes)}
        self.dear = [n.outs[0] for n in tape.nodes if n.op in DEAR]
        self.groups: dict[tuple, list[int]] = {}
        self.values = [
            n.outs[0]
            for n in tape.nodes
            if n.outs[0] != tape.loss and not OPS[n.op].view and n.op != "fill"
        ]
        for v in self.values:
            self.groups.setdefault(self._likeness(v), []).append(v)
        nbytes = {v: tape.specs[v].nbytes for v in self.values}
        least = max(nbytes.values(), default=0) // NOTHING
        self.large = [v for v in self.values if nbytes[v] >= least]  # not statistics of a norm
        self.invertible = invertible(tape) & set(self.values)
        self.sparse = sparse  # values that a bitmap may be planned for
        self.indices = small_indices(tape)  # values that bits hold, whatever the data
        self.spills = spills  # values that may go to the spill file
        self.orders = orders  # whether the order of a node's gradients, and so of sums, may change
        self.masks = masks  # whether signs may be kept as bits, and products be lean

    def alike(self, v: int) -> list[int]:
        """v, and what repeated blocks have in its place."""
        return self.groups.get(self._likeness(v), [v])

    def _likeness(self, v: int) -> tuple:
        """What values of repeated blocks have in common."""
        node, specs = self.tape.nodes[self.producer[v]], self.tape.specs
        ins = tuple(None if i is None else specs[i] for i in node.ins)
        return node.op, ins, tuple(node.attrs.items())

    def seeds(self, clones: int = 0) -> Iterator[Decisions]:
        """Starting points, the cheapest in work first; `clones` that one may make, at most."""
        yield Decisions()
        cheap = self.start("recompute")
        yield cheap
        joined = {v for v in cheap.policies if self._op(v) in JOINS}
        yield replace(cheap, policies={v: p for v, p in cheap.policies.items() if v not in joined})
        if self.invertible:
            yield self.start("invert")
        if self.sparse:
            yield self.start("bitmap")
        if self.spills:
            yield self.start("spill")
        cuts = self._cuts()
        for k in CUTS:
            if k <= len(cuts):
                yield from self._between(self._spread(cuts, k), clones)
        if self.masks and self.orders:
            yield from self._in_parts(cuts)

    def _in_parts(self, cuts: list[int]) -> Iterator[Decisions]:
        """The first layers, up to where the data has shrunk, in slices of the batch, or of one
        sample in tiles of rows."""
        specs = self.tape.specs
        ends = [b for a, b in pairwise(cuts) if specs[b].nbytes < specs[a].nbytes]
        along = "rows" if all(specs[v].shape[:1] == (1,) for v in cuts) else "samples"
        for end in [v for v in ends if may_be_cut(self.tape, along, v)][:ENDS]:
            for parts in PARTS:
                yield Decisions(segment=Segment(along, end, parts))

    def _between(self, kept: set[int], clones: int) -> Iterator[Decisions]:
        """All but these recomputed: once for all readers; the cheap anew for each; all anew, where
        that does not grow beyond measure."""
        rest = [v for v in self.values if v not in kept]
        yield Decisions(dict.fromkeys(rest, "recompute"))
        each = {v: "recompute" if self._op(v) in DEAR else "recompute_each" for v in rest}
        yield Decisions(each)
        length = len(self.values) // (len(kept) + 1)
        if length * length * (len(kept) + 1) <= max(REPEATS * len(self.values), clones):
            yield Decisions(dict.fromkeys(rest, "recompute_near"))
            yield Decisions(dict.fromkeys(rest, "recompute_each"))

    def start(self, policy: str) -> Decisions:
        """The decisions that a policy forces: recompute takes all that is cheap to make again,
        invert all that can be had back, recomputing the rest but the ends of reversible chains."""
        if policy == "invert":
            if not self.invertible:
                raise InputError(
                    f"policy 'invert': nothing in this network can be inverted, for "
                    f"{self._first_layer()} cannot give its input back and no sum is a coupling "
                    f"(x1 + F(x2)); use policy 'auto', or a reversible network such as revnet"
                )
            chosen = {
                v: "invert" if v in self.invertible else "recompute"
                for v in self.values
                if v in self.invertible or self._op(v) != "add"
            }
            # Statistics and indices too, or their few bytes would add up with depth.
            more = [
                o
                for v in list(chosen)
                if chosen[v] == "recompute"
                for o in self.tape.nodes[self.producer[v]].outs[1:]
            ]
            return Decisions({**chosen, **dict.fromkeys(more, "recompute")})
        if policy == "bitmap":
            return self._packed()
        if policy == "topk":
            return self._largest()
        if policy == "spill":
            read = residuals(self.kept(), ("activation", "input", "label"))
            return Decisions(dict.fromkeys(sorted(read & self.spills), "spill"))
        if policy != "recompute":
            return Decisions()
        masks = frozenset(v for v in self.values if self._op(v) in GATES and self.masks)
        cheap = [v for v in self.values if self._op(v) not in DEAR]
        return Decisions(dict.fromkeys(cheap, "recompute"), masks=masks)

    def _first_layer(self) -> str:
        """The first layer with parameters, by their name, and its op."""
        leaves = self.tape.leaves
        for n in self.tape.nodes:
            for v in n.ins:
                if v in leaves and leaves[v].kind == "parameter":
                    return f"layer {leaves[v].name.rpartition('.')[0] or leaves[v].name} ({n.op})"
        return "this network"

    def _packed(self) -> Decisions:
        """A bitmap for each sparse value and each index that backward reads; where a value's only
        reader is its own gate, the mask."""
        readers = self._backward_readers()
        read = [v for v in self.values if v in self.sparse and v in readers]
        masks = {v for v in read if self._op(v) in GATES and readers[v] == {self._op(v) + "_vjp"}}
        packed = [v for v in read if v not in masks] + sorted(self.indices & readers.keys())
        return Decisions(dict.fromkeys(packed, "bitmap"), masks=frozenset(masks))

    def _largest(self) -> Decisions:
        """The largest elements of each value of which backward reads no more than its sign besides
        the gradients of weights; of all these gates the mask."""
        readers = self._backward_readers()
        root, data = self.kept().root, self.tape.made_from("input")
        products = [n for n in self.tape.nodes if n.op in DEAR]
        mixed = {root(n.ins[0]) for n in products if n.ins[1] in data}  # type: ignore[arg-type]
        chosen, masks = [], []
        for v in self.values:
            rest = readers.get(v, set()) - WEIGHT_GRADIENTS
            gate = self._op(v) + "_vjp" if self._op(v) in GATES else ""
            if v not in readers or rest - {gate} or v in mixed:
                continue
            if rest:
                masks.append(v)
            if rest != readers[v]:
                chosen.append(v)
        if not chosen:
            raise InputError("policy 'topk': no value here is read by weight gradients alone")
        return Decisions(dict.fromkeys(chosen, "topk"), masks=frozenset(masks))

    def _backward_readers(self) -> dict[int, set[str]]:
        """The ops of the backward pass that read each value, where all are kept."""
        keep = self.kept()
        readers: dict[int, set[str]] = {}
        for s in keep.steps:
            first = next(v for v in s.outs if v is not None)
            recorded = first < len(self.tape.specs)  # by the tape: a step of the forward pass
            if not recorded and s.op != "check_finite":
                for v in s.reads():
                    readers.setdefault(keep.root(v), set()).add(s.op)
        return readers

    def kept(self) -> Program:
        """The lowered program with everything kept."""
        raise NotImplementedError

    def _op(self, v: int) -> str:
        return self.tape.nodes[self.producer[v]].op

    def _cuts(self) -> list[int]:
        """Values that alone separate what comes before them from what comes after."""
        last: dict[int, int] = {}
        for k, n in enumerate(self.tape.nodes):
            last.update((v, k) for v in n.ins if v is not None)
        alive: set[int] = set()
        cuts = []
        for k, n in enumerate(self.tape.nodes):
            alive.add(n.outs[0])
            alive = {v for v in alive if last.get(v, -1) > k}
            if len(alive) == 1:
                cuts.append(next(iter(alive)))
        return [v for v in dict.fromkeys(cuts) if v in set(self.values)]

    def _spread(self, cuts: list[int], k: int) -> set[int]:
        """k cuts, evenly by the bytes of the forward pass before them."""
        sizes = {v: self.tape.specs[v].nbytes for v in self.values}
        marks = [sum(sizes.values()) * (i + 1) / (k + 1) for i in range(k)]
        seen, kept, wanted = 0, set(), set(cuts)
        for v in self.values:
            seen += sizes[v]
            if marks and seen >= marks[0] and v in wanted:
                kept.add(v)
                marks.pop(0)
        return kept
