"""Embeddings: a network as inference only, up to its embedding, in an arena of its own or inside a
trainer's. Nothing here learns, and no activation is kept."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytrain import data
from tinytrain.bound import Bound
from tinytrain.freeze import Frozen, freeze
from tinytrain.learn.partial import Embedding, embedding_value, has_embed
from tinytrain.lower import lower
from tinytrain.nn.module import Module, Parameter
from tinytrain.plan import Plan, make_plan
from tinytrain.run import Executor, choose_backend, new_arena
from tinytrain.spec import Spec
from tinytrain.tape import Tape


def record(net: Module, samples: list[Spec], n: int, head: bool = False) -> Frozen:
    """The tape from n samples to their embeddings: the network's own, or, with `head`, what its
    last dense layer reads."""
    own = has_embed(net) and not head
    frozen = freeze(Embedding(net) if own else net, samples, n, None, False)
    if own:
        strip = "net."
        for v, leaf in list(frozen.tape.leaves.items()):
            name = leaf.name.removeprefix(strip)
            frozen.tape.leaves[v] = type(leaf)(leaf.kind, name, leaf.trainable)
            frozen.leaves[v].name = frozen.leaves[v].name.removeprefix(strip)
        return frozen
    cut(frozen.tape, embedding_value(frozen))
    return frozen


def cut(tape: Tape, v: int) -> None:
    """Make v the tape's output, and leave out what it does not need but the inputs."""
    wanted = {v}
    for node in reversed(tape.nodes):
        if wanted & set(node.outs):
            wanted.update(i for i in node.ins if i is not None)
    tape.nodes = [n for n in tape.nodes if wanted & set(n.outs)]
    tape.leaves = {
        i: leaf for i, leaf in tape.leaves.items() if i in wanted or leaf.kind == "input"
    }
    tape.outputs = (v,)


class Embedder:
    """Embeds samples, `batch` at a time.

    inside  a Trainer, in whose arena it then runs, on its parameters as they are.
    """

    def __init__(
        self,
        net: Module,
        samples: list[Spec],
        batch: int = 1,
        backend: str = "auto",
        inside: Any = None,
    ):
        self.batch, self.inside = batch, inside
        self.backend = choose_backend(backend) if inside is None else inside.backend
        self.frozen = record(net, samples, batch, inside is not None)
        layout = None if inside is None else inside.plan.layout
        self.plan: Plan = make_plan(lower(self.frozen.tape), batch, layout=layout)
        self._bound: Bound | None = None  # until somebody wants an embedding, it is shapes alone

    @property
    def size(self) -> int:
        """Numbers in an embedding."""
        tape = self.plan.program.tape
        return tape.specs[tape.outputs[0]].shape[-1]

    def _bind(self) -> Bound:
        plan, inside = self.plan, self.inside
        arena = new_arena(plan.arena_bytes, plan.base) if inside is None else inside.arena
        executor = Executor(plan, self.backend, arena)
        if inside is None:
            for v, leaf in plan.program.leaves.items():
                tensor = self.frozen.leaves.get(v)
                if isinstance(tensor, Parameter):
                    tensor.move_to(executor.view(v))
                elif leaf.kind == "constant" and tensor is not None:
                    executor.view(v)[...] = tensor.data
        floor = (plan if inside is None else inside.plan).layout.end
        return Bound(self.frozen, plan, executor, floor)

    def __call__(self, x: Any) -> np.ndarray:
        """Embeddings (N, size), float32, of samples (N, ...). InputError for another shape, an
        empty set or what is not finite."""
        x = data.dataset.to_array(x, "x", "x")
        data.check(x, where="x")
        self._bound = self._bound or self._bind()
        found = np.empty((len(x), self.size), np.float32)
        for begin in range(0, len(x), self.batch):
            part = x[begin : begin + self.batch]
            missing = self.batch - len(part)
            if missing:
                part = np.concatenate([part, np.zeros((missing, *x.shape[1:]), x.dtype)])
            found[begin : begin + self.batch] = self._run(self._bound, part)[: len(x) - begin]
        return found

    @staticmethod
    def _run(bound: Bound, part: np.ndarray) -> np.ndarray:
        bound.check((part,), ())
        bound.fill((part,), ())
        bound.measured(bound.run)
        return bound.outputs[0]

    @property
    def high_water_bytes(self) -> int:
        """The highest byte of the arena ever written, measured."""
        return 0 if self._bound is None else self._bound.water.nbytes
