"""Lowering: a tape and decisions become one list of single-assignment Steps. No offsets here.

Forward is emitted in program order. Backward walks the tape in reverse and is driven by demand: a
vjp asks `get(v)` for a residual and v's policy emits what brings it back. Updates go right behind
their gradient, or behind the last step that reads the parameter, whichever is later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from tinytrain.fuse import fuse_updates
from tinytrain.op import OPS
from tinytrain.rewrite import GATES
from tinytrain.segment import Segment, cut_up
from tinytrain.spec import Spec
from tinytrain.stash import POLICIES
from tinytrain.steps import OVERFLOW, Group, Program, Step, finish, place
from tinytrain.tape import Leaf, Node, Tape


@dataclass(frozen=True)
class Decisions:
    """What the budget decides: a policy for each residual (tape value); for each node, by its
    output, whether its weight gradient comes before its data gradient; and the outputs of gates
    (ReLU) whose sign is kept as one bit, for the gate's own gradient. `densities` are the nominal
    shares of non-zeros that bitmaps get room for. `lean` are outputs of products that run in the
    form that needs the fewest bytes: over their own input a few lines at a time, and, where the
    input came through a gate, with its bits taken once the weights have read it. `segment` says
    how far the first layers run part by part."""

    policies: dict[int, str] = field(default_factory=dict)
    weight_first: dict[int, bool] = field(default_factory=dict)
    masks: frozenset[int] = frozenset()
    densities: dict[int, float] = field(default_factory=dict)
    lean: frozenset[int] = frozenset()
    segment: Segment | None = None

    def with_policy(self, values: Iterable[int], policy: str) -> Decisions:
        """These, with another policy for some values."""
        return replace(self, policies={**self.policies, **dict.fromkeys(values, policy)})

    def flipped(self, products: list[int]) -> Decisions:
        """These, with the products in their lean form, or, if the first is, in the usual one."""
        lean = self.lean - {*products} if products[0] in self.lean else self.lean | {*products}
        return replace(self, lean=lean)

    def turned(self, v: int) -> Decisions:
        """These, with the other order of gradients at the node that makes v."""
        return replace(self, weight_first={**self.weight_first, v: not self.weight_first.get(v)})


@lru_cache(maxsize=16384)
def infer(op: str, specs: tuple[Spec | None, ...], attrs: tuple[tuple[str, Any], ...]):
    """A row's output specs and canonical attrs; remembered, for a solver lowers many times."""
    return OPS[op].infer(specs, dict(attrs))


class Lowering:
    """The builder handed to vjps, policies and optimizers (`b`)."""

    def __init__(self, tape: Tape, decisions: Decisions | None = None):
        self.tape = tape
        self.decisions = decisions or Decisions()
        kinds = ["activation"] * len(tape.specs)
        for v, leaf in tape.leaves.items():
            kinds[v] = leaf.kind
        self.program = Program(tape, list(tape.specs), kinds, dict(tape.leaves))
        self.kind = "activation"
        self.grads: dict[int, int] = {}
        self.memo: dict[int, int] = {}
        self.busy: set[int] = set()
        self.shared: dict[str, Any] = {}
        self.into: int | None = None
        self.into_spec: Spec | None = None
        self.producer = {o: n for n in tape.nodes for o in n.outs}
        self.inverses: list[int] = self.program.inverses
        self.readers: dict[int, list[Node]] = {}
        for node in tape.nodes:
            for i in set(node.ins) - {None}:
                self.readers.setdefault(i, []).append(node)  # type: ignore[arg-type]
        self.states: dict[tuple[int | None, str], int] = {}
        self.accumulates = False
        self.late = self._only_for_assigns()
        self.masks: dict[int, int] = {}
        self.early: dict[int, int] = {}  # gates' bits taken in backward
        self.packed: dict[int, tuple[int, ...]] = {}  # value -> its mask and non-zeros, or its bits
        self.spilled: dict[int, int] = {}  # value -> where it is stored
        self.counts: dict[int, int] = {}  # count of non-zeros -> the capacity
        self.passing: list[int] = []
        self.seed: int | None = None  # the gradient of the loss, where it is not 1

    # ------------------------------------------------------------------ emitting

    def spec(self, v: int) -> Spec:
        """The spec of any value."""
        return self.program.specs[v]

    def new(self, spec: Spec, kind: str | None = None) -> int:
        """A fresh value."""
        return self.program.new(spec, kind or self.kind)

    def emit(self, op: str, *ins: int | None, **attrs: Any) -> Any:
        """Emit `op(*ins)`; its output value, or a tuple of them."""
        specs, attrs = self._infer(op, ins, attrs)
        outs = tuple(self.new(s) for s in specs)
        self.step(op, outs, ins, attrs)
        return outs if len(outs) > 1 else outs[0]

    def grad(self, op: str, *ins: int | None, **attrs: Any) -> int:
        """Emit the last step of a contribution; adds onto what the target holds, if it can."""
        specs, attrs = self._infer(op, ins, attrs)
        out = self.new(specs[0])
        if OPS[op].acc and self.into is not None and specs[0] == self.into_spec:
            self.step(op, (out,), ins, attrs, acc=self.into)
            self.into = None
        else:
            self.step(op, (out,), ins, attrs)
        return out

    def step(self, op, outs, ins, attrs, acc=None) -> None:
        """Append one step with its scratch; a view only gives a value another shape."""
        if OPS[op].view:
            self.program.views[outs[0]] = ins[0]
            return
        work = self.program.scratch(op, ins, outs, attrs)
        self.program.steps.append(Step(op, tuple(outs), tuple(ins), attrs, work, acc))

    def once(self, key: str, make: Callable[[], Any]) -> Any:
        """`make()`, emitted once for the node whose gradient is being lowered."""
        if key not in self.shared:
            self.shared[key] = make()
        return self.shared[key]

    def _infer(self, op, ins, attrs):
        specs = tuple(None if v is None else self.spec(v) for v in ins)
        return infer(op, specs, tuple(attrs.items()))

    # ------------------------------------------------------------------ leaves of the update

    def state(self, p: int | None, name: str, spec: Spec | None = None) -> int:
        """The optimizer's leaf `name` for parameter p (or, without p, for all): zero at start."""
        if (p, name) not in self.states:
            spec = spec or self.spec(p)  # type: ignore[arg-type]
            v = self.new(spec, "optimizer" if p is not None else "hyper")
            of = "" if p is None else self.program.leaves[p].name + "."
            self.program.leaves[v] = Leaf(self.program.kinds[v], of + name)
            self.states[p, name] = v
        return self.states[p, name]

    def hyper(self, name: str, shape: tuple[int, ...] = ()) -> int:
        """A number the host writes before a step: the rate, Adam's corrections."""
        return self.state(None, name, Spec(shape))

    def accumulator(self, p: int) -> int:
        """A persistent leaf for p's gradient, summed over the slices of a batch."""
        leaf = self.state(p, "gradient")
        self.program.kinds[leaf] = "accumulator"
        self.program.leaves[leaf] = replace(self.program.leaves[leaf], kind="accumulator")
        return leaf

    def zeros_at(self, leaf: int) -> int:
        """Zero in the leaf's own buffer."""
        s = self.spec(leaf)
        return self.keep_at(self.emit("fill", shape=s.shape, value=0.0, dtype=s.dtype), leaf)

    def reached(self, wrt: set[int]) -> set[int]:
        """Those of `wrt` that the loss depends on."""
        need, seen = self.tape.depends_on(wrt), {self.tape.loss}
        for node in reversed(self.tape.nodes):
            if node.outs[0] in seen and node.outs[0] in need:
                row = OPS[node.op]
                seen |= {v for i, v in enumerate(node.ins) if v in need and row.vjp_of(i)}
        return wrt & seen

    def holds(self, made: int, v: int, kind: str) -> int:
        """Say that `made`, a value of this kind, holds v or a part of it; `made`."""
        self.program.kinds[made] = kind
        self.program.stands_for[made] = v
        return made

    def keep_at(self, value: int, leaf: int) -> int:
        """Say that `value` is written to the leaf's own buffer."""
        self.program.home[value] = leaf
        self.program.kinds[value] = self.program.kinds[leaf]
        return value

    # ------------------------------------------------------------------ forward

    def forward(self, guard: bool) -> None:
        """Every node that the loss or an output needs. A value is saved in front of its last
        reader, which may then write over it."""
        flags: list[tuple[int, str]] = []
        last: dict[int, int] = {}
        for k, node in enumerate(self.tape.nodes):
            for v in (*node.ins, *node.outs):
                if v is not None:
                    last[v] = k
        due: dict[int, list[int]] = {}
        for v in self.decisions.policies:
            due.setdefault(last[v], []).append(v)
        if guard:
            inputs = [v for v, x in self.tape.leaves.items() if x.kind == "input"]
            flags += self.check(inputs, "the input")
        for k, node in enumerate(self.tape.nodes):
            if k not in self.late:
                self._save(v for v in due.get(k, ()) if v not in node.outs)
                self.step(self.form(node), node.outs, node.ins, node.attrs)
                if guard and node.outs[0] in self.tape.outputs:
                    flags += self.check([node.outs[0]], "the network's output")
                if node.outs[0] in self.decisions.masks:
                    self.masks[node.outs[0]] = self._mask(node, node.outs[0])
                self._save(v for v in due.get(k, ()) if v in node.outs)
        if guard and self.tape.loss is not None:
            flags += self.check([self.tape.loss], "the loss")
        if self.counts:
            flag = self.emit("check_capacity", *self.counts, capacities=(*self.counts.values(),))
            flags.append(self._flag(flag, OVERFLOW))
        if flags or self.spilled:  # every write has ended before anything changes
            self.mark(flags)

    def _save(self, values: Iterable[int]) -> None:
        for v in values:
            POLICIES[self.decisions.policies[v]].save(self, v)

    def _mask(self, node: Node, held: int) -> int:
        """One bit for each element of a gate's output, which `held` is: does the gradient pass?"""
        mask = self.emit("gate_mask", held, gate=node.op)
        return self.holds(mask, node.outs[0], "stash")

    def is_lean(self, node: Node) -> bool:
        """Whether the node runs in the form that needs the fewest bytes."""
        return node.outs[0] in self.decisions.lean

    def form(self, node: Node) -> str:
        """The row that runs for this node."""
        rule = OPS[node.op].lean
        if rule is None or not self.is_lean(node):
            return node.op
        ins = [None if v is None else self.spec(v) for v in node.ins]
        return rule(ins, [self.spec(v) for v in node.outs], node.attrs) or node.op

    def commit(self) -> list[Group]:
        """Running statistics and other assignments. Where nothing else reads the leaf or the
        value, it is made in the leaf's own buffer; else it is copied there, once nobody reads
        what the leaf held."""
        late = [self.tape.nodes[k] for k in sorted(self.late)]
        read_before = {self.program.root(v) for s in self.program.steps for v in s.reads()}
        for node in late:
            self.step(node.op, node.outs, node.ins, node.attrs)
        uses = Counter(v for n in late for v in n.ins) + Counter(v for _, v in self.tape.assigns)
        made = {n.outs[0]: n for n in late if not OPS[n.op].view}
        groups = []
        for leaf, value in self.tape.assigns:
            alone = value in made and uses[value] == 1 and leaf not in read_before
            if alone and self._may_overwrite(made[value], leaf):
                self.keep_at(value, leaf)
            else:
                at = len(self.program.steps)
                self.keep_at(self.emit("copy", value), leaf)
                groups.append(Group(leaf, at, self.take(at)))
        return groups

    def _may_overwrite(self, node: Node, leaf: int) -> bool:
        """Whether the node may write its output over what it reads of the leaf."""
        allowed = [i for o, i in OPS[node.op].inplace if o == 0]
        return all(
            v is None or self.program.root(v) != leaf or i in allowed
            for i, v in enumerate(node.ins)
        )

    def take(self, at: int) -> list[Step]:
        """The steps emitted since `at`, taken out of the list."""
        steps = self.program.steps[at:]
        del self.program.steps[at:]
        return steps

    def check(self, values: list[int], what: str) -> list[tuple[int, str]]:
        """Emit the check that these are finite; its flag and what it tells of."""
        values = [v for v in values if self.spec(v).is_float]
        if not values:
            return []
        flag = self.emit("check_finite", *values)
        return [self._flag(flag, what)]

    def _flag(self, flag: int, what: str) -> tuple[int, str]:
        self.program.kinds[flag] = "io"
        self.program.kept.append(flag)
        return flag, what

    def mark(self, flags: list[tuple[int, str]]) -> None:
        """Here the step stops if a flag is raised."""
        self.program.marks.append((len(self.program.steps), flags))

    def _only_for_assigns(self) -> set[int]:
        """Nodes whose outputs only an assignment reads: they wait for the guard."""
        wanted = {*self.tape.outputs, self.tape.loss}
        late = set()
        for k in range(len(self.tape.nodes) - 1, -1, -1):
            node = self.tape.nodes[k]
            if wanted & set(node.outs):
                wanted.update(v for v in node.ins if v is not None)
            else:
                late.add(k)
        return late

    # ------------------------------------------------------------------ backward

    def get(self, v: int) -> int:
        """The residual v, brought back by its policy; memoised."""
        if v not in self.memo:
            if v in self.busy:
                raise RecursionError(f"value {v} is needed to bring itself back")
            self.busy.add(v)
            try:
                self.memo[v] = self._restore(v)
            finally:
                self.busy.discard(v)
        return self.memo[v]

    def _restore(self, v: int) -> int:
        node = self.producer.get(v)
        if node is not None and OPS[node.op].view:
            base = node.ins[0]
            assert base is not None
            held = self.get(base)
            return v if held == base else self.emit(node.op, held, **node.attrs)
        return POLICIES[self.decisions.policies.get(v, "keep")].restore(self, v)

    def clone(self, v: int) -> int:
        """Run v's producer again on its inputs, which are got in turn; the new v. What else the
        node makes is an input where it is kept and a row wants it so, and is taken over where it
        is to be recomputed as well."""
        node = self.producer[v]
        policies, again = self.decisions.policies, OPS[node.op].again
        kept = all(policies.get(o, "keep") == "keep" for o in node.outs[1:])
        short = again is not None and kept and v == node.outs[0]
        olds = node.outs[:1] if short else node.outs
        given = (*node.ins, *node.outs[1:]) if short else node.ins
        ins = [None if i is None else self.get(i) for i in given]
        outs = [self.new(self.spec(o), "activation") for o in olds]
        self.step(again if short else self.form(node), outs, ins, node.attrs)
        for old, new in zip(olds, outs, strict=True):
            self.program.stands_for[new] = old
            if old != v and policies.get(old, "keep") != "keep":
                self.memo.setdefault(old, new)
        return outs[olds.index(v)]

    def inverted(self, v: int) -> int:
        """v from the last node on the tape that can give it back."""
        node, inverse = self.inverse_of(v)
        value = self.holds(inverse(self, node), v, "activation")
        self.inverses.append(value)
        return value

    def inverse_of(self, v: int) -> tuple[Node, Callable[..., int]]:
        """The node whose inverse gives v back, and that inverse."""
        for node in reversed(self.readers.get(v, [])):
            inverse = OPS[node.op].inverse_of(node.ins.index(v))
            if inverse is not None:
                return node, inverse
        raise ValueError(f"value {v} has no reader with an inverse")

    def _invert_early(self, node: Node) -> None:
        """Bring back at once what only this node's inverse gives: its output dies here, and what
        the inverse runs forward again serves the gradients that follow."""
        policies = self.decisions.policies
        for v in [v for v in node.ins if v is not None and policies.get(v) == "invert"]:
            if self.inverse_of(v)[0] is node:
                self.get(v)

    def passes(self, v: int) -> None:
        """Forget how v was brought back once the present node is done: the next reader does it
        again."""
        self.passing.append(v)

    def gate(self, op: str, g: int, y: int) -> int:
        """The gradient through a gate that asks for y's sign alone: by its mask if there is one."""
        if y in self.early:
            return self.grad("gate_mask_vjp", g, self.early[y])
        if y in self.masks and y not in self.memo:
            return self.grad("gate_mask_vjp", g, self.masks[y])
        if y in self.packed:
            gate = self.producer[y].op
            return self.grad("bitmap_gate_vjp", g, *self.packed[y], gate=gate)
        return self.grad(op, g, self.get(y))

    def _mask_early(self, node: Node) -> None:
        """The bits of the gate that the node's input came through, now that the weights have read
        it: its bytes are free for the gradient. Only its last reader can do so."""
        v = node.ins[0]
        assert v is not None
        gate = self.producer.get(v)
        last = self.readers[v][0] is node and v not in self.packed and v not in self.masks
        if gate is not None and gate.op in GATES and last and self.memo.get(v) is not None:
            self.early[v] = self._mask(gate, self.memo[v])

    def weight_grad(self, op: str, x: int, g: int, **attrs: Any) -> int:
        """A weight's gradient, which reads x a few rows at a time where x is packed: unless x is
        smaller than the gradient, which may never be whole where x is dense (`fuse`)."""
        held = self.program.root(x)
        whole = self.into is None and self.into_spec.nbytes > self.spec(x).nbytes  # type: ignore[union-attr]
        if held in self.packed and x not in self.memo and not whole:
            shape = self.spec(x).shape
            return self.grad("bitmap_" + op, *self.packed[held], g, shape=shape, **attrs)
        return self.grad(op, self.get(x), g, **attrs)

    def backward(self, wrt: set[int], begin: Callable[[int], int | None], done) -> None:
        """Walk back from the loss. `begin(p)` gives the value that p's gradient is added to, or
        None; `done(p)` is called when `grads[p]` is complete."""
        self.kind = "gradient"
        need = self.tape.depends_on(wrt)
        assert self.tape.loss is not None
        waiting = Counter(
            v
            for n in self.tape.nodes
            for i, v in enumerate(n.ins)
            if v in wrt and n.outs[0] in need and OPS[n.op].vjp_of(i) is not None
        )
        loss = self.spec(self.tape.loss)
        one = {"shape": loss.shape, "value": 1.0, "dtype": loss.dtype}
        self.grads[self.tape.loss] = self.emit("fill", **one) if self.seed is None else self.seed
        for k in range(len(self.tape.nodes) - 1, -1, -1):
            node = self.tape.nodes[k]
            if node.outs[0] not in need:
                continue
            g = self.grads.pop(node.outs[0], None)
            self.shared.clear()
            if OPS[node.op].inverse is not None:
                self._invert_early(node)
            for i in self._gradient_order(node, need):
                if g is not None and i == 0 and self.is_lean(node):
                    self._mask_early(node)
                if g is not None:
                    self._contribute(node, i, g, wrt, begin)
                v = node.ins[i]
                if v in wrt:
                    waiting[v] -= 1
                    if waiting[v] == 0 and v in self.grads:
                        done(v)
            for v in self.passing:
                self.memo.pop(v, None)
            self.passing.clear()

    def _gradient_order(self, node: Node, need: set[int]) -> list[int]:
        """Positions of the inputs that get a gradient, in the order decided for this node."""
        op = OPS[node.op]
        order = [i for i, v in enumerate(node.ins) if v in need and op.vjp_of(i) is not None]
        first = self.decisions.weight_first.get(node.outs[0])
        if first is None and len(order) > 1:
            first = self.is_lean(node) or self._weight_first(node)
        if len(order) > 1:
            self.program.orders[node.outs[0]] = bool(first)
        return order[::-1] if first else order

    def _weight_first(self, node: Node) -> bool:
        """Weights first where the gradient is added to a leaf (no new buffer), or is smaller than
        the data's gradient; else the input dies before its gradient is made."""
        x, w = node.ins[0], node.ins[1]
        if w is None or x is None:
            return False
        return self.accumulates or self.spec(w).nbytes < self.spec(x).nbytes

    def _contribute(self, node: Node, i: int, g: int, wrt: set[int], begin) -> None:
        """Add node's gradient of its i-th input to what is there: the one place where gradients
        are summed, and where broadcasting is undone."""
        v = node.ins[i]
        assert v is not None
        held = self.grads.get(v)
        if held is None and v in wrt:
            held = begin(v)
        spec = self.spec(v)
        self.into, self.into_spec = held, spec
        vjp = OPS[node.op].vjp_of(i)
        assert vjp is not None
        value = vjp(self, node, g)
        if self.spec(value).shape != spec.shape:
            value = self.grad("sum_to", value, shape=spec.shape)
        if self.into is not None:
            value = self.emit("add", self.into, value)
            self.into = None
        if held in self.program.home:
            self.keep_at(value, self.program.home[held])
        self.grads[v] = value


def lower(
    tape: Tape,
    optimizer: Any = None,
    decisions: Decisions | None = None,
    guard: str | None = "loss",
    clip_norm: float | None = None,
    sliced: bool = False,
) -> Program:
    """One training step (or, without a loss or an optimizer, the forward pass alone).

    optimizer  an `optim` object; its `begin`, `update` are called with the lowering.
    guard      "loss": inputs, outputs and loss are checked before anything is changed; "step":
               the gradients too, so they all live until the end; None: no checks.
    clip_norm  scale all gradients so that their joint 2-norm is at most this.
    sliced     the tape is a slice of the batch: `body` is run once for each, adds its share of
               the gradient, and the update comes once, behind the last.
    """
    decisions = decisions or Decisions()
    if decisions.segment is not None:
        tape, inside = cut_up(tape, decisions.segment)
        there = {*tape.leaves, *(o for n in tape.nodes for o in n.outs)}
        policies = {v: p for v, p in decisions.policies.items() if v in there}
        policies.update(dict.fromkeys(inside, "recompute"))
        decisions = replace(decisions, policies=policies)
    b = Lowering(tape, decisions)
    if optimizer is None:
        b.forward(guard=False)
        b.program.kept += [v for v in (*tape.outputs, tape.loss) if v is not None]
        return finish(b.program)
    assert tape.loss is not None
    hold = clip_norm is not None or guard == "step"
    b.accumulates = optimizer.accumulates and not hold
    b.program.kept.append(tape.loss)
    if sliced:
        return finish(_sliced(b, optimizer, guard, clip_norm, hold))
    wrt = set(tape.trainable())
    updates: list[Group] = []

    def done(p: int) -> None:
        if not hold:
            at = len(b.program.steps)
            optimizer.update(b, p, b.grads[p])
            updates.append(Group(p, at, b.take(at)))

    b.forward(guard is not None)
    commits = [] if guard == "step" else b.commit()
    b.backward(wrt, (lambda p: optimizer.begin(b, p)) if b.accumulates else lambda p: None, done)
    if hold:
        commits += _update_together(b, optimizer, sorted(wrt & set(b.grads)), guard, clip_norm)
    moved = place(b.program, commits)
    place(b.program, [Group(g.leaf, moved[g.ready], g.steps) for g in updates])
    return finish(fuse_updates(b.program))


def _sliced(b: Lowering, optimizer, guard, clip_norm, hold: bool) -> Program:
    """Prologue (what the gradients are added to), body (a slice forward and backward), epilogue
    (the update). Without an optimizer that accumulates, a buffer for each gradient persists."""
    parameters = sorted(b.reached(set(b.tape.trainable())))
    for p in parameters:
        b.grads[p] = optimizer.begin(b, p) if b.accumulates else b.zeros_at(b.accumulator(p))
    start = len(b.program.steps)
    b.forward(guard is not None)
    commits = b.commit()
    b.seed = b.hyper("share")
    b.backward(set(parameters), b.grads.get, lambda p: None)
    place(b.program, commits)
    b.program.body = (start, len(b.program.steps))
    if hold:
        _update_together(b, optimizer, parameters, guard, clip_norm)
    else:
        for p in parameters:
            optimizer.update(b, p, b.grads[p])
    return b.program


def backward_of(tape: Tape, wrt: set[int]) -> Program:
    """Forward and backward with every residual kept and no update; `grads` names the results."""
    b = Lowering(tape)
    b.forward(guard=False)
    b.program.forward_end = len(b.program.steps)
    b.backward(wrt, lambda p: None, lambda p: None)
    b.program.grads = {p: b.grads[p] for p in wrt if p in b.grads}
    b.program.kept += list(b.program.grads.values())
    return b.program


def _update_together(b: Lowering, optimizer, parameters, guard, clip_norm) -> list[Group]:
    """Updates behind all gradients: clipped by their joint norm, checked, or both. With them go
    the commits that waited for the check."""
    commits: list[Group] = []
    grads = [b.grads[p] for p in parameters]
    if clip_norm is not None:
        total = b.emit("fill", shape=(), value=0.0, dtype=b.spec(grads[0]).dtype)
        for g in grads:
            b.into, b.into_spec = total, b.spec(total)
            total = b.grad("square_sum", g)
        factor = b.emit("clip_factor", total, max_norm=float(clip_norm))
        grads = [b.emit("mul", g, factor) for g in grads]
    if guard == "step":
        b.mark(b.check(grads, "a gradient"))
        if b.program.body is None:
            commits = b.commit()
    for p, g in zip(parameters, grads, strict=True):
        if optimizer.accumulates:
            v = optimizer.begin(b, p)
            g = b.emit("add", v, g)
            if v in b.program.home:
                b.keep_at(g, b.program.home[v])
        optimizer.update(b, p, g)
    return commits
