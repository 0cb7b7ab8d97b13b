"""Pruning during training: the smallest weights become zero on a schedule, and stay so.

A weight that is exactly +0 is pruned: there is no mask, neither in the arena nor in a checkpoint,
and a network that was pruned elsewhere stays as sparse as it came. A step leaves such weights
alone: in front of its update a parameter's gradient (or the momentum that it was added to) is
zeroed where the weight is +0, by one row that every port can run (`zero_pruned`). The host prunes
between two steps, as it sets the learning rate. A parameter of zeros alone would never learn and
is refused.

Sources: Zhu and Gupta 2017 for the schedule; BitTrain (Hosny et al. 2021) for pruning as a way to
sparser activations.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinytrain.errors import InputError
from tinytrain.lower import Lowering
from tinytrain.nn.arguments import check_numbers, check_sizes
from tinytrain.optim import OPTIMIZERS, Optimizer, from_config
from tinytrain.steps import Program

PRODUCTS = ("conv2d", "matmul")  # what they multiply by is pruned, where nothing else is said


class MagnitudePruning(Optimizer):
    """`optimizer`, with the smallest weights of each parameter set to zero as training goes on.

    sparsity    the share of zeros in the end, in [0, 1).
    start, end  updates after which the share begins to grow and is reached: after update t it is
                sparsity * (1 - (1 - (t - start) / (end - start))^3).
    every       updates from one pruning to the next.
    parameters  names of what is pruned; None: the weights of convolutions and matrix products, not
                biases, norms and embeddings.

    The optimizer's state of a pruned weight is zero, too. What `clip_norm` bounds is the norm of
    all gradients, before they are zeroed. Pruning allocates on the host, for the magnitudes of one
    parameter at a time; a step does not, and nothing more persists. But plain SGD's update is then
    a step of its own, so that a gradient which it would have taken piece by piece is whole.
    """

    settings = ("sparsity", "start", "end", "every", "parameters")

    def __init__(
        self,
        optimizer: Optimizer,
        sparsity: float,
        start: int,
        end: int,
        every: int = 100,
        parameters: Sequence[str] | None = None,
    ):
        where = "MagnitudePruning"
        if not isinstance(optimizer, Optimizer):
            raise InputError(f"{where}: {optimizer!r} is no optimizer, such as optim.SGD(lr=0.1)")
        check_numbers(where, sparsity=sparsity)
        check_numbers(where, float("inf"), start=start)
        check_sizes(where, end=end, every=every)
        if end <= start:
            raise InputError(f"{where}: end is {end}, start {start}; it wants steps in between")
        if isinstance(parameters, str):
            raise InputError(f"{where}: parameters is {parameters!r}; wants a list of names")
        super().__init__(optimizer.schedule)
        self.optimizer, self.accumulates = optimizer, optimizer.accumulates
        self.sparsity, self.start, self.end, self.every = float(sparsity), start, end, every
        self.parameters = None if parameters is None else tuple(parameters)

    # ------------------------------------------------------------------ in the step

    def begin(self, b: Lowering, p: int) -> int:
        return self.optimizer.begin(b, p)

    def update(self, b: Lowering, p: int, g: int) -> None:
        if self._prunes(b, p):
            left = b.emit("zero_pruned", g, p)
            g = b.keep_at(left, b.program.home[g]) if g in b.program.home else left
        self.optimizer.update(b, p, g)

    def _prunes(self, b: Lowering, p: int) -> bool:
        if self.parameters is not None:
            return b.tape.leaves[p].name in self.parameters
        return any(n.op in PRODUCTS and n.ins[1] == p for n in b.readers.get(p, ()))

    def numbers(self, step: int) -> dict[str, Any]:
        return self.optimizer.numbers(step)

    # ------------------------------------------------------------------ between steps

    def share(self, step: int) -> float:
        """The share of zeros that is wanted after `step` updates."""
        done = min(max((step - self.start) / (self.end - self.start), 0.0), 1.0)
        return self.sparsity * (1 - (1 - done) ** 3)

    def due(self, step: int) -> bool:
        """Whether weights are pruned after `step` updates."""
        at = step - self.start
        return step == self.end or (0 < at < self.end - self.start and at % self.every == 0)

    def check(self, program: Program, state: dict[str, np.ndarray]) -> None:
        """InputError for a name that is no parameter's, or a parameter that is zeros alone."""
        names = pruned(program)
        for name in self.parameters or ():
            if name not in names:
                raise InputError(f"MagnitudePruning: no parameter that learns is called {name!r}")
        for name in names:
            if not state[name].any():
                raise InputError(
                    f"MagnitudePruning: {name} is zeros alone and would stay so; name the others "
                    f"with parameters="
                )

    def after_update(
        self, step: int, program: Program, state: Callable[[], dict[str, np.ndarray]]
    ) -> None:
        """Zero the smallest weights where that is due after `step` updates."""
        if not self.due(step):
            return
        arrays = state()
        for name in pruned(program):
            weight = arrays[name]
            out = smallest(weight, int(self.share(step) * weight.size))
            weight.reshape(-1)[out] = 0
            for other, array in arrays.items():
                if other.startswith(f"optimizer/{name}.") and array.shape == weight.shape:
                    array.reshape(-1)[out] = 0

    # ------------------------------------------------------------------ as data

    def with_lr(self, lr: Any) -> MagnitudePruning:
        made = copy.copy(self)
        made.optimizer = self.optimizer.with_lr(lr)
        made.schedule = made.optimizer.schedule
        return made

    def config(self) -> dict[str, Any]:
        return {
            "name": type(self).__name__,
            "optimizer": self.optimizer.config(),
            **{name: getattr(self, name) for name in self.settings},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MagnitudePruning:
        return cls(**{**config, "optimizer": from_config(config["optimizer"])})

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={getattr(self, name)}" for name in self.settings[:4])
        return f"{type(self).__name__}({self.optimizer!r}, {given})"


OPTIMIZERS[MagnitudePruning.__name__.lower()] = MagnitudePruning


def pruned(program: Program) -> list[str]:
    """The names of the parameters whose zeros a step leaves alone."""
    found = (program.leaves[s.ins[1]].name for s in program.steps if s.op == "zero_pruned")  # type: ignore[index]
    return list(dict.fromkeys(found))


def smallest(x: np.ndarray, count: int) -> np.ndarray:
    """Where the `count` elements of smallest magnitude are, of equal ones the first: bool (size,).
    The same on every machine: magnitudes are compared as whole numbers."""
    size = x.reshape(-1).view(f"u{x.itemsize}") << 1  # without the sign
    if not count:
        return np.zeros(size.size, bool)
    most = np.partition(size, count - 1)[count - 1]
    out = size < most
    out[np.flatnonzero(size == most)[: count - np.count_nonzero(out)]] = True
    return out
