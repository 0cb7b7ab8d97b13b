"""Freezing: a model and a loss become tapes, for one batch size, without computing anything.

Python control flow is baked in, so the step is recorded twice and both recordings must agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinytrain import budget, losses
from tinytrain.errors import InputError
from tinytrain.nn.module import Module
from tinytrain.plan import Plan
from tinytrain.rewrite import gates_behind_pools
from tinytrain.spec import ITEMSIZE, Spec
from tinytrain.tape import Tape
from tinytrain.tensor import Tensor, recording, tape_of


@dataclass
class Frozen:
    """A tape, the Tensor of each of its leaves, and which leaves the host writes or reads."""

    tape: Tape
    leaves: dict[int, Tensor]
    inputs: list[int]
    labels: list[int]
    key: int | None  # of dropout's generator, if anything draws


def sample_specs(net: Module, input_shape: Any = None) -> list[Spec]:
    """The specs of one sample's inputs: a shape, a Spec, or a list of these for several inputs."""
    shape = net.input_shape if input_shape is None else input_shape
    if shape is None:
        raise InputError(
            f"{type(net).__name__}: the shape of a sample is not known; give input_shape=(H, W, C)"
        )
    try:
        one = isinstance(shape, Spec) or all(isinstance(n, int) for n in shape)
        specs = [s if isinstance(s, Spec) else Spec(tuple(s)) for s in ([shape] if one else shape)]
    except TypeError:
        specs = []
    sizes = [n for s in specs for n in s.shape]
    known = all(s.dtype in ITEMSIZE for s in specs)
    if not specs or not known or not all(isinstance(n, int) and n > 0 for n in sizes):
        raise InputError(f"input_shape is {shape!r}; give sizes such as (32, 32, 3)")
    return specs


def _batched(spec: Spec, batch: int) -> Spec:
    return spec.with_shape((batch, *spec.shape))


def freeze(
    net: Module,
    samples: Sequence[Spec],
    batch: int,
    loss: Callable[..., Tensor] | None,
    training: bool,
    label_spec: Any = None,
) -> Frozen:
    """Record `loss(net(inputs), labels)` (or `net(inputs)` alone) for `batch` samples."""
    if not isinstance(batch, int) or batch < 1:
        raise InputError(f"batch is {batch!r}; wants a whole number of at least 1")
    once = _record(net, samples, batch, loss, training, label_spec)
    again = _record(net, samples, batch, loss, training, label_spec)
    if once.tape.signature() != again.tape.signature():
        raise InputError(
            "two recordings of the step differ, so it cannot be frozen; does forward depend on "
            "something that changes from call to call?"
        )
    once.tape = gates_behind_pools(once.tape)
    return once


def _record(net, samples, batch, loss, training, label_spec) -> Frozen:
    for name, p in net.named_leaves().items():
        p.name = name
    modes = [(m, m.training) for m in net.modules()]
    net.train(training)
    try:
        with recording() as held:
            names = ["x"] if len(samples) == 1 else [f"x{k}" for k in range(len(samples))]
            inputs = [
                Tensor.symbol(_batched(s, batch), "input", name)
                for s, name in zip(samples, names, strict=True)
            ]
            outputs = net(*inputs)
            if not isinstance(outputs, Tensor):
                raise InputError(f"forward returned {type(outputs).__name__}, wants one Tensor")
            labels, value = [], None
            if loss is not None:
                own = compares_with_input(net, label_spec)
                labels = [] if own else _labels(loss, outputs, batch, label_spec)
                value = loss(outputs, *(inputs if own else labels))
                if value.size != 1:
                    raise InputError(f"the loss has shape {value.shape}, wants a scalar")
            assigns = list(held.assigned.values()) if training else []
            tape, leaves = tape_of([outputs], value, assigns, [*inputs, *labels])
    finally:
        for m, mode in modes:
            m.training = mode
    ids = {id(t): v for v, t in leaves.items()}
    return Frozen(
        tape,
        leaves,
        [ids[id(t)] for t in inputs],
        [ids[id(t)] for t in labels],
        ids.get(id(held.key)),
    )


def compares_with_input(net: Module, label_spec: Any) -> bool:
    """Whether the network gives back its input (`reconstructs`), so that there are no labels."""
    return bool(getattr(net, "reconstructs", False)) and label_spec is None


def _labels(loss, outputs: Tensor, batch: int, label_spec: Any) -> list[Tensor]:
    """Placeholders for what the loss compares with: as given for one sample, or as it says."""
    if label_spec is None:
        rule = getattr(loss, "label_spec", losses.CrossEntropy.label_spec)
        specs = [rule(outputs.spec)]
    else:
        given = [label_spec] if isinstance(label_spec, Spec) else label_spec
        if not isinstance(given, list | tuple) or not all(isinstance(s, Spec) for s in given):
            raise InputError(
                f"label_spec is {label_spec!r}; give the Spec of one sample's label, such as "
                f'Spec((), "int32"), or a list of these'
            )
        most = 2 if losses.takes_mask(loss) else 1
        if losses.config_of(loss) is not None and not 1 <= len(given) <= most:
            mask = " and perhaps a mask" if most == 2 else ""
            raise InputError(f"label_spec has {len(given)} Specs; {loss} takes labels{mask}")
        specs = [_batched(s, batch) for s in given]
    for s in specs:
        sound = s.dtype in ITEMSIZE and all(isinstance(n, int) and n > 0 for n in s.shape)
        if not sound:
            raise InputError(
                f"label_spec: a batch of labels is {s}; sizes are positive, and the dtype one of "
                f"{', '.join(ITEMSIZE)} (int32 for class numbers)"
            )
    names = ["y"] if len(specs) == 1 else [f"y{k}" for k in range(len(specs))]
    return [Tensor.symbol(s, "label", n) for s, n in zip(specs, names, strict=True)]


def add_missing_leaves(frozen: Frozen, other: Frozen) -> None:
    """Give `frozen` the parameters and state that only `other` reads, so that one layout of
    persistent bytes serves both."""
    have = {leaf.name for leaf in frozen.tape.leaves.values()}
    for v, leaf in other.tape.leaves.items():
        if leaf.name not in have and leaf.kind in ("parameter", "state"):
            mine = frozen.tape.leaf(other.tape.specs[v], leaf.kind, leaf.name, leaf.trainable)
            frozen.leaves[mine] = other.leaves[v]


@dataclass
class Recorder:
    """Frozen training steps of one network by the number of samples, each recorded once."""

    net: Module
    samples: Sequence[Spec]
    loss: Callable[..., Tensor]
    label_spec: Any = None
    known: dict[int, Frozen] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.label_spec is None:
            self.label_spec = getattr(self.net, "label_spec", None)

    def tape(self, n: int) -> Tape:
        """The tape alone."""
        return self(n).tape

    def __call__(self, n: int) -> Frozen:
        """The training step of n samples, with the leaves that inference will want as well."""
        if n not in self.known:
            self.known[n] = self._record(n)
        return self.known[n]

    def _record(self, n: int) -> Frozen:
        frozen = freeze(self.net, self.samples, n, self.loss, True, self.label_spec)
        held = {id(p) for p in self.net.named_leaves().values()}
        for v, leaf in frozen.tape.leaves.items():
            if leaf.kind in ("parameter", "state") and id(frozen.leaves[v]) not in held:
                raise InputError(
                    f"a {leaf.kind} {frozen.tape.specs[v]} is used that the network does not hold; "
                    f"make it an nn.Parameter in an attribute of a Module"
                )
        add_missing_leaves(frozen, freeze(self.net, self.samples, 1, None, False))
        if not frozen.tape.trainable():
            raise InputError("nothing in this network is trainable (requires_grad is False)")
        return frozen


def plan(
    net: Module,
    loss: Any = None,
    optimizer: Any = None,
    batch: int = 32,
    ram: Any = None,
    policy: str = "auto",
    microbatch: Any = "auto",
    guard: str | None = "loss",
    clip_norm: float | None = None,
    backend: str = "auto",
    seed: int = 0,
    density: float | None = None,
    spill: str | None = None,
    input_shape: Any = None,
    label_spec: Any = None,
) -> Plan:
    """The plan of one training step, from shapes alone: no tensor is allocated.

    The arguments are Trainer's (backend and seed change no plan). BudgetError if it does not fit
    `ram`.
    """
    loss, optimizer = defaults(net, loss, optimizer)
    record = Recorder(net, sample_specs(net, input_shape), loss, label_spec)
    return budget.choose(
        record.tape, optimizer, batch, ram, policy, microbatch, guard, clip_norm, density, spill
    )


def defaults(net: Module, loss: Any, optimizer: Any) -> tuple[Callable[..., Tensor], Any]:
    """The loss and optimizer given, or the model's own, or cross-entropy and plain SGD."""
    from tinytrain import optim

    loss = losses.resolve(loss or getattr(net, "loss", None) or "cross_entropy")
    optimizer = optimizer or getattr(net, "optimizer", None) or "sgd"
    return loss, optim.by_name(optimizer) if isinstance(optimizer, str) else optimizer
