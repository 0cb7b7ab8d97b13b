"""Module and Parameter: a tree of layers whose arrays are made late, or never while planning."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinytrain import philox, tensor
from tinytrain.errors import InputError
from tinytrain.nn.init import Init, constant
from tinytrain.spec import Spec
from tinytrain.tensor import Tensor

SEEDS = 1 << 63  # seeds lie below this, as those of data's shuffling do


class _Seeds:
    """Keys of the generators that fill parameters: (seed, how many were made since)."""

    def __init__(self, seed: int):
        self.seed, self.made = seed, 0

    def next(self) -> tuple[int, int]:
        self.made += 1
        return self.seed, self.made


_seeds = _Seeds(0)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Parameters made within the block depend on `seed` (0 to 2**63 - 1) and their order alone."""
    global _seeds
    before, _seeds = _seeds, _Seeds(_seed(seed))
    try:
        yield
    finally:
        _seeds = before


def _seed(seed: Any) -> int:
    try:
        number = operator.index(seed)
    except TypeError:
        number = -1
    if not 0 <= number < SEEDS:
        raise InputError(f"seed is {seed!r}; wants a whole number from 0 to 2**63 - 1")
    return number


class Parameter(Tensor):
    """A float32 leaf that training changes; zero unless `init` (of `nn.init`) fills it otherwise.
    Its array is made when somebody looks at it, or inside a Trainer's arena, where `data` is then
    a view."""

    kind = "parameter"
    placed = False  # in a Trainer's arena

    def __init__(self, shape: Iterable[int], init: Init | None = None):
        self._record, self._index, self._data = None, 0, None
        self.spec = Spec(tuple(int(n) for n in shape))
        self.init = init or constant(0.0)
        self.key = _seeds.next()
        self.requires_grad = True
        self.grad = None

    def fill(self, out: np.ndarray) -> np.ndarray:
        """Write the initial values to `out` (float32, of this shape)."""
        self.init(philox.Generator(self.key), out)
        return out

    def _held(self) -> np.ndarray | None:
        if tensor._recording is not None:
            return None
        if self._data is None:
            self._data = self.fill(np.empty(self.shape, np.float32))
        return self._data

    @property
    def data(self) -> np.ndarray:
        """The values; raises while a plan is recorded."""
        return super().data

    @data.setter
    def data(self, value: Any) -> None:
        a = np.asarray(value)
        if a.shape != self.shape or a.dtype.kind not in "fiu":
            raise InputError(f"{self.name or 'parameter'}: got {a.dtype}{a.shape}, is {self.spec}")
        if self._data is None:
            self._data = np.array(a, np.float32)
        else:
            self._data[...] = a

    def move_to(self, place: np.ndarray) -> None:
        """Live in `place` from now on, with the present values or (never looked at) the first."""
        if self._data is None:
            self.fill(place)
        else:
            place[...] = self._data
        self._data, self.placed = place, True


class Buffer(Parameter):
    """A leaf that a forward pass changes by `assign`: running statistics."""

    kind = "state"

    def __init__(self, shape: Iterable[int], init: Init | None = None):
        super().__init__(shape, init)
        self.requires_grad = False

    def assign(self, value: Tensor) -> None:
        """Take `value`: now, or in a recorded step once it has been found good."""
        if tensor._recording is not None:
            tensor._recording.assigned[id(self)] = (self, value)
        elif self.placed:
            self.data = value.data
        else:
            self._data = np.array(value.data, np.float32)  # backward may still read the old one


class Module:
    """A node of the tree: Parameters and Modules in its attributes, or in lists, tuples and
    dictionaries there, belong to it. Subclasses write `forward`."""

    training = True
    input_shape: Any = None  # of one sample; set by the zoo, read by Trainer
    classes: Any = None  # names of the outputs, where they have names
    recipe: dict[str, Any] | None = None  # what made it; set by the zoo, kept in checkpoints

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """`forward` of these, with arrays made Tensors (floating ones float32, as parameters are).
        All else is passed on as it is."""
        return self.forward(
            *(_tensor(x) for x in inputs), **{name: _tensor(x) for name, x in named.items()}
        )

    def forward(self, *inputs: Any, **named: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def children(self) -> Iterator[tuple[str, Any]]:
        """(name, Parameter or Module) of this module's own attributes."""
        for name, item in vars(self).items():
            yield from _members(name, item)

    def modules(self) -> Iterator[Module]:
        """This module and all below it."""
        yield self
        for _, item in self.children():
            if isinstance(item, Module):
                yield from item.modules()

    def _leaves(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        for name, item in self.children():
            if isinstance(item, Parameter):
                yield prefix + name, item
            else:
                yield from item._leaves(f"{prefix}{name}.")

    def named_leaves(self) -> dict[str, Parameter]:
        """Every Parameter and Buffer by its dotted name; a shared one under its first name."""
        found: dict[str, Parameter] = {}
        seen: set[int] = set()
        for name, p in self._leaves():
            if id(p) in seen:
                continue
            if name in found:
                raise InputError(f"{type(self).__name__}: two parameters are called {name!r}")
            seen.add(id(p))
            found[name] = p
        return found

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(name, Parameter), running statistics not among them."""
        return ((n, p) for n, p in self.named_leaves().items() if p.kind == "parameter")

    def parameters(self) -> Iterator[Parameter]:
        return (p for _, p in self.named_parameters())

    def count_parameters(self) -> int:
        """Number of elements of all parameters."""
        return sum(p.size for p in self.parameters())

    def requires_grad_(self, value: bool = True) -> Module:
        """Train (or freeze) every parameter below."""
        for p in self.parameters():
            p.requires_grad = value
        return self

    def train(self, mode: bool = True) -> Module:
        """Batch norm and dropout as in training (or not)."""
        for m in self.modules():
            m.training = mode
        return self

    def eval(self) -> Module:
        return self.train(False)

    def state_dict(self) -> dict[str, np.ndarray]:
        """A copy of every parameter and running statistic by name."""
        return {name: p.data.copy() for name, p in self.named_leaves().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take these arrays. Names, shapes and dtypes are all checked before anything changes."""
        mine = self.named_leaves()
        missing, unknown = sorted(set(mine) - set(state)), sorted(set(state) - set(mine))
        if missing or unknown:
            raise InputError(f"load_state_dict: missing {missing}, unknown {unknown}")
        arrays = {name: np.asarray(state[name]) for name in mine}
        for name, a in arrays.items():
            if a.shape != mine[name].shape or a.dtype.kind not in "fiu":
                raise InputError(
                    f"load_state_dict: {name} is {a.dtype}{list(a.shape)}, wants {mine[name].spec}"
                )
        for name, a in arrays.items():
            mine[name].data = a


def _tensor(x: Any) -> Any:
    if not isinstance(x, np.ndarray):
        return x
    return Tensor(x.astype(np.float32, copy=False) if x.dtype.kind == "f" else x)


def _members(name: str, item: Any) -> Iterator[tuple[str, Any]]:
    """The Parameters and Modules of an attribute, through lists, tuples and dictionaries."""
    if isinstance(item, Parameter | Module):
        yield name, item
    elif isinstance(item, list | tuple | dict):
        pairs = item.items() if isinstance(item, dict) else enumerate(item)
        for key, each in pairs:
            yield from _members(f"{name}.{key}", each)


class ModuleList(Module):
    """A list of modules that belong to their owner, named by number; it has no forward."""

    def __init__(self, layers: Iterable[Module] = ()):
        self.layers = list(layers)

    def children(self) -> Iterator[tuple[str, Any]]:
        return ((name.removeprefix("layers."), item) for name, item in super().children())

    def append(self, layer: Module) -> None:
        self.layers.append(layer)

    def __iter__(self) -> Iterator[Module]:
        return iter(self.layers)

    def __getitem__(self, k: int) -> Module:
        return self.layers[k]

    def __len__(self) -> int:
        return len(self.layers)


class Sequential(ModuleList):
    """Modules one after the other."""

    def __init__(self, *layers: Module):
        super().__init__(layers)

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x
