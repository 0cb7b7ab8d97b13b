"""What of a network learns: its layers in the order of use, its head, and which parameters each way
to adapt trains. It changes copies of a network; it trains nothing.

Sources: biases alone, TinyTL (Cai et al. 2020); chosen layers and input channels, the sparse
update of MCUNetV3 (Lin et al. 2022).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinytrain import ops
from tinytrain.errors import InputError
from tinytrain.freeze import Frozen, freeze, sample_specs
from tinytrain.nn.layers import BatchNorm2d, Conv1d, Conv2d, Linear
from tinytrain.nn.module import Module, Parameter
from tinytrain.number import is_number, is_whole
from tinytrain.op import OPS
from tinytrain.tape import Tape
from tinytrain.tensor import Tensor

TRAINED = ("head", "biases", "last", "sparse", "all")
LAST = 3  # layers that "last" trains: a last convolution, an embedding and the head


@dataclass
class Layer:
    """A weight, and the bias and the norm that follow it: `parameters` are dotted names, `name`
    is the weight's without its last part."""

    name: str
    parameters: list[str] = field(default_factory=list)


def layers_of(net: Module, input_shape: Any = None) -> list[Layer]:
    """The layers of a network in the order in which they are used; a weight is a parameter with
    two axes or more, and what has one axis belongs to the weight before it."""
    frozen = freeze(net, sample_specs(net, input_shape), 1, None, False)
    specs, leaves = frozen.tape.specs, frozen.tape.leaves
    found: list[Layer] = []
    seen: set[int] = set()
    for node in frozen.tape.nodes:
        read = [v for v in node.ins if v is not None and v in leaves and v not in seen]
        for v in sorted(read, key=lambda v: -specs[v].ndim):  # a bias behind its weight
            if leaves[v].kind != "parameter":
                continue
            seen.add(v)
            name = leaves[v].name
            if specs[v].ndim > 1 or not found:
                found.append(Layer(name.rpartition(".")[0] or name))
            found[-1].parameters.append(name)
    if not found:
        raise InputError(f"{type(net).__name__}: has no parameters, so nothing of it can learn")
    return found


# ---------------------------------------------------------------------------- the head


def head_value(tape: Tape) -> int | None:
    """The input of the dense layer that makes the tape's output, if one does."""
    maker = {n.outs[0]: n for n in tape.nodes}
    v: int | None = tape.outputs[0]
    while v in maker:
        node = maker[v]
        leaf = None if len(node.ins) < 2 else tape.leaves.get(node.ins[1])  # type: ignore[arg-type]
        if node.op == "matmul" and leaf is not None and leaf.kind == "parameter":
            return node.ins[0]
        if node.op != "add" and not OPS[node.op].view:
            return None
        v = node.ins[0]
    return None


def embedding_value(frozen: Frozen) -> int:
    """What a network without an `embed` of its own embeds its input as: the input of its last
    dense layer, or its output if no dense layer makes that. InputError unless it is (N, size)."""
    v = head_value(frozen.tape)
    v = frozen.tape.outputs[0] if v is None else v
    if frozen.tape.specs[v].ndim != 2:
        raise InputError(
            f"the embedding would be {frozen.tape.specs[v]}, wants (N, size); give the network "
            f"a method embed(x) that says what to take"
        )
    return v


class WithHead(Module):
    """A network that embeds its input, and a dense layer over that."""

    def __init__(self, body: Module, head: Linear):
        self.body, self.head = body, head
        self.input_shape = body.input_shape

    def forward(self, x: Any) -> Any:
        """Outputs (N, classes)."""
        return self.head(_embed(self.body)(x))


def _embed(net: Module) -> Callable[[Any], Any]:
    """The network's own `embed`, or all of it."""
    return getattr(net, "embed", None) or net


def copy_of(net: Module) -> Module:
    """A network of its own with the same values, nothing of which is trainable, and whose batch
    norms use their stored statistics in training too."""
    made = copy.deepcopy(net)
    made.requires_grad_(False)
    for m in made.modules():
        if isinstance(m, BatchNorm2d):
            m.stored = True
    return made


def head_of(net: Module, input_shape: Any = None) -> Linear | None:
    """The dense layer that makes the network's output, if one does."""
    frozen = freeze(net, sample_specs(net, input_shape), 1, None, False)
    v = head_value(frozen.tape)
    if v is None:
        return None
    node = next(n for n in reversed(frozen.tape.nodes) if n.op == "matmul" and n.ins[0] == v)
    weight = frozen.leaves[node.ins[1]]  # type: ignore[index]
    owners = [m for m in net.modules() if isinstance(m, Linear) and m.weight is weight]
    return owners[0] if owners else None


def with_classes(net: Module, columns: Sequence[int | None], input_shape: Any = None) -> Module:
    """The network (a copy, to be changed) with a head of so many outputs: each is that column of
    the present head, or zeros."""
    old = head_of(net, input_shape)
    if old is None or getattr(net, "embeds", False):
        made = WithHead(net, Linear(embedding_size(net, input_shape), len(columns)))
        _columns(made.head, None, [None] * len(columns))
        return made
    if list(columns) != list(range(old.weight.shape[1])):
        new = Linear(old.weight.shape[0], len(columns), old.bias is not None)
        _columns(new, old, columns)
        substitute(net, old, new)
    return net


def embedding_size(net: Module, input_shape: Any = None) -> int:
    """Numbers in an embedding of one sample."""
    frozen = freeze(Embedding(net), sample_specs(net, input_shape), 1, None, False)
    v = frozen.tape.outputs[0] if has_embed(net) else embedding_value(frozen)
    return frozen.tape.specs[v].shape[-1]


def has_embed(net: Module) -> bool:
    """Whether the network itself says what it embeds a sample as."""
    return callable(getattr(net, "embed", None)) or bool(getattr(net, "embeds", False))


class Embedding(Module):
    """`net.embed` as a network, or the net itself where it has none."""

    def __init__(self, net: Module):
        self.net = net

    def forward(self, *inputs: Any) -> Any:
        """Embeddings (N, size), or the net's outputs."""
        return _embed(self.net)(*inputs)


def _columns(new: Linear, old: Linear | None, columns: Sequence[int | None]) -> None:
    """Fill a layer with these columns of another; zeros for None."""
    for name in ("weight", "bias"):
        p = getattr(new, name)
        if p is not None:
            values = np.zeros(p.shape, np.float32)
            for k, column in enumerate(columns):
                if column is not None and old is not None:
                    values[..., k] = getattr(old, name).data[..., column]
            p.data = values


def substitute(net: Module, old: Module, new: Module) -> None:
    """Put `new` wherever `old` is in the tree of `net`."""
    for m in net.modules():
        for name, item in list(vars(m).items()):
            vars(m)[name] = _put(item, old, new)


def _put(item: Any, old: Module, new: Module) -> Any:
    if item is old:
        return new
    if isinstance(item, list | tuple):
        return type(item)(_put(each, old, new) for each in item)
    if isinstance(item, dict):
        return {key: _put(each, old, new) for key, each in item.items()}
    return item


# ---------------------------------------------------------------------------- channels


class SomeChannels(Module):
    """A convolution or dense layer of which the weights that read the first `channels` input
    channels learn, and the others do not: backward keeps those channels of its input alone."""

    def __init__(self, layer: Conv2d | Conv1d | Linear, channels: int):
        w = layer.weight.data
        self.weight = Parameter((*w.shape[:-2], channels, w.shape[-1]))
        self.rest = Parameter((*w.shape[:-2], w.shape[-2] - channels, w.shape[-1]))
        self.weight.data, self.rest.data = w[..., :channels, :], w[..., channels:, :]
        self.rest.requires_grad = False
        self.bias = layer.bias
        self.channels = channels
        self.attrs: dict[str, Any] = getattr(layer, "attrs", {})
        self.product = {Conv2d: ops.conv2d, Conv1d: ops.conv1d, Linear: None}[type(layer)]

    def forward(self, x: Tensor) -> Tensor:
        """As the whole layer."""
        a, b = x[..., : self.channels], x[..., self.channels :]
        if self.product is None:
            y = a @ self.weight + b @ self.rest
            return y if self.bias is None else y + self.bias
        y = self.product(a, self.weight, None, **self.attrs)
        return y + self.product(b, self.rest, self.bias, **self.attrs)


def channels_of(net: Module, name: str) -> int:
    """Input channels of the layer whose weight has this name, where a share of them can learn; 0
    where it learns whole or not at all (grouped, standardized or other layers)."""
    layer = _owner(net, name)
    if type(layer) not in (Conv2d, Conv1d, Linear) or getattr(layer, "standardize", False):
        return 0
    if getattr(layer, "attrs", {}).get("groups", 1) != 1:
        return 0
    return dict(net.named_parameters())[name].shape[-2]


def _owner(net: Module, name: str) -> Module | None:
    p = dict(net.named_parameters())[name]
    return next((m for m in net.modules() if getattr(m, "weight", None) is p), None)


def some_channels(net: Module, name: str, share: float) -> None:
    """Let a share of the input channels of the layer with this weight learn, its bias with them;
    the whole layer, where that cannot be."""
    layer, channels = _owner(net, name), channels_of(net, name)
    count = round(share * channels)
    if 0 < count < channels:
        assert isinstance(layer, Conv2d | Conv1d | Linear)
        substitute(net, layer, SomeChannels(layer, count))


# ---------------------------------------------------------------------------- what learns


def choose(
    net: Module, how: str, k: int = LAST, layers: Any = None, input_shape: Any = None
) -> Module:
    """Make trainable what this way trains, in a network with its head; the network.

    k       layers that "last" trains, from the end.
    layers  what "sparse" trains: names, or {name: share of its input channels}.
    """
    known = layers_of(net, input_shape)
    if how == "head":
        return _train(net, known[-1].parameters)
    if how == "biases":
        names = (n for layer in known for n in layer.parameters if n.rpartition(".")[2] == "bias")
        return _train(net, [*names, *known[-1].parameters])
    if how == "last":
        if not is_whole(k) or not 1 <= k <= len(known):
            raise InputError(f"k is {k!r}; this network has {len(known)} layers: 1 to {len(known)}")
        return _train(net, [n for layer in known[-k:] for n in layer.parameters])
    if how == "sparse":
        return _sparse(net, known, layers)
    return _train(net, [n for layer in known for n in layer.parameters])


def shares_of(layers: Mapping[str, float] | Iterable[str], known: list[Layer]) -> dict[str, float]:
    """Layers and the shares of them that learn, all checked; the head always learns whole."""
    given = dict(layers) if isinstance(layers, Mapping) else dict.fromkeys(layers, 1.0)
    names = [layer.name for layer in known]
    for name, share in given.items():
        if name not in names:
            raise InputError(f"layers: there is no layer {name!r}; there are {', '.join(names)}")
        if not is_number(share) or not 0 < share <= 1:
            raise InputError(f"layers: {name} is to learn {share!r}; wants a share above 0, to 1")
    return {**given, names[-1]: 1.0}


def _sparse(net: Module, known: list[Layer], layers: Any) -> Module:
    if layers is None or isinstance(layers, str):
        raise InputError("how='sparse' wants layers=, names or {name: share of input channels}")
    shares = shares_of(layers, known)
    chosen = [layer for layer in known if layer.name in shares]
    _train(net, [n for layer in chosen for n in layer.parameters])
    for layer in chosen:
        if shares[layer.name] < 1:
            some_channels(net, layer.parameters[0], shares[layer.name])
    return net


def _train(net: Module, names: list[str]) -> Module:
    held = dict(net.named_parameters())
    for name in names:
        held[name].requires_grad = True
    return net
