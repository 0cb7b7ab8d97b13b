"""Optimizers and learning-rate schedules, as what they add to a lowered step.

An optimizer says what a parameter's gradient is added to (`begin`) and what follows once it is
complete (`update`); the numbers it needs from outside (`numbers`) are values in the arena, written
before each step. Weight decay is PyTorch's: added to the gradient in SGD and Adam, decoupled in
AdamW.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from tinytrain.errors import InputError
from tinytrain.lower import Lowering
from tinytrain.nn.arguments import check_numbers, check_sizes
from tinytrain.number import is_number
from tinytrain.steps import Program

# ---------------------------------------------------------------------------- schedules


@dataclass(frozen=True)
class ConstantLR:
    """The same rate at every step."""

    lr: float

    def __post_init__(self) -> None:
        check_numbers("ConstantLR", math.inf, lr=self.lr)

    def __call__(self, step: int) -> float:
        return self.lr


@dataclass(frozen=True)
class StepLR:
    """`lr`, times `gamma` after every `step_size` steps."""

    lr: float
    step_size: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        check_numbers("StepLR", math.inf, lr=self.lr, gamma=self.gamma)
        check_sizes("StepLR", step_size=self.step_size)

    def __call__(self, step: int) -> float:
        return self.lr * self.gamma ** (step // self.step_size)


@dataclass(frozen=True)
class CosineLR:
    """Half a cosine from `lr` to `lr_min` over `steps` steps (Loshchilov and Hutter 2017)."""

    lr: float
    steps: int
    lr_min: float = 0.0

    def __post_init__(self) -> None:
        check_numbers("CosineLR", math.inf, lr=self.lr, lr_min=self.lr_min)
        check_sizes("CosineLR", steps=self.steps)

    def __call__(self, step: int) -> float:
        done = min(step / self.steps, 1.0)
        return self.lr_min + (self.lr - self.lr_min) * 0.5 * (1 + math.cos(math.pi * done))


@dataclass(frozen=True)
class WarmupLR:
    """Linear from lr / steps up to the schedule's rate over the first `steps` steps."""

    after: Any
    steps: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "after", _schedule(self.after))
        check_sizes("WarmupLR", steps=self.steps)

    def __call__(self, step: int) -> float:
        return self.after(step) * min(1.0, (step + 1) / self.steps)


@dataclass(frozen=True)
class ScaledLR:
    """`factor` times another schedule."""

    after: Any
    factor: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "after", _schedule(self.after))
        check_numbers("ScaledLR", math.inf, factor=self.factor)

    def __call__(self, step: int) -> float:
        return self.factor * self.after(step)


SCHEDULES = {c.__name__: c for c in (ConstantLR, StepLR, CosineLR, WarmupLR, ScaledLR)}
AROUND = (WarmupLR, ScaledLR)  # another schedule, `after`


def _schedule(lr: Any) -> Callable[[int], float]:
    """A number as a schedule, a schedule as it is."""
    if callable(lr):
        return lr
    if is_number(lr):
        return ConstantLR(float(lr))
    raise InputError(
        f"lr is {lr!r}; wants a number or a schedule such as CosineLR(0.1, steps=1000)"
    )


def _schedule_config(schedule: Any) -> dict[str, Any]:
    if type(schedule) not in SCHEDULES.values():
        raise InputError(
            f"{schedule!r} cannot be saved, being none of tinytrain.optim's; to save what it has "
            f"trained: trainer.optimizer = trainer.optimizer.with_lr(0.01), or another schedule"
        )
    config = {"name": type(schedule).__name__, **asdict(schedule)}
    if isinstance(schedule, AROUND):
        config["after"] = _schedule_config(schedule.after)
    return config


def _schedule_from(config: dict[str, Any]) -> Any:
    config = dict(config)
    kind = SCHEDULES[config.pop("name")]
    if kind in AROUND:
        config["after"] = _schedule_from(config["after"])
    return kind(**config)


# ---------------------------------------------------------------------------- optimizers


class Optimizer:
    """What `lower` asks of an optimizer. `accumulates`: the gradient may be summed straight into
    a buffer of state, so that none is ever made for it. The rate `lr` is a number, a schedule, or
    any function of the step; only numbers and the schedules above can be saved."""

    accumulates = False
    settings: tuple[str, ...] = ()

    def __init__(self, lr: Any):
        self.schedule = _schedule(lr)

    def begin(self, b: Lowering, p: int) -> int:
        """The value that p's gradient is added to."""
        raise NotImplementedError

    def update(self, b: Lowering, p: int, g: int) -> None:
        """Emit the steps that turn a complete gradient into new parameters."""
        raise NotImplementedError

    def numbers(self, step: int) -> dict[str, Any]:
        """The arena's values for update number `step` (from 0)."""
        rate = self.schedule(step)
        if not is_number(rate) or not 0 <= rate < math.inf:
            raise InputError(f"{self.schedule!r} gives the learning rate {rate!r} at step {step}")
        return {"lr": rate}

    def check(self, program: Program, state: dict[str, Any]) -> None:
        """InputError if this step, with these arrays by name, is none that it can train."""

    def after_update(
        self, step: int, program: Program, state: Callable[[], dict[str, Any]]
    ) -> None:
        """What the host does behind update number `step` (from 1) to the arrays by name."""

    def with_lr(self, lr: Any) -> Optimizer:
        """The same optimizer at another rate or schedule."""
        made = copy.copy(self)
        made.schedule = _schedule(lr)
        return made

    def config(self) -> dict[str, Any]:
        """Everything needed to make it again, as plain data."""
        if type(self) not in OPTIMIZERS.values():
            raise InputError(f"{self!r} cannot be saved, being none of tinytrain.optim's")
        return {
            "name": type(self).__name__,
            "lr": _schedule_config(self.schedule),
            **{k: getattr(self, k) for k in self.settings},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Optimizer:
        """What `config` described, but for the name."""
        return cls(**{**config, "lr": _schedule_from(config["lr"])})

    def __repr__(self) -> str:
        rate = self.schedule.lr if isinstance(self.schedule, ConstantLR) else self.schedule
        more = "".join(f", {k}={getattr(self, k)}" for k in self.settings if getattr(self, k))
        return f"{type(self).__name__}(lr={rate}{more})"


class SGD(Optimizer):
    """v = momentum * v + g; p = p - lr * v. With `nesterov`, p = p - lr * (g + momentum * v)."""

    settings = ("momentum", "nesterov", "weight_decay")

    def __init__(
        self,
        lr: Any = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ):
        super().__init__(lr)
        check_numbers("SGD", momentum=momentum)
        check_numbers("SGD", math.inf, weight_decay=weight_decay)
        self.momentum = float(momentum)
        self.nesterov = bool(nesterov)
        self.weight_decay = float(weight_decay)
        if nesterov and not momentum:
            raise InputError("nesterov wants a momentum above 0")
        self.accumulates = bool(momentum) and not nesterov

    def begin(self, b: Lowering, p: int) -> int:
        v = b.state(p, "momentum")
        decayed = p if self.weight_decay else None
        attrs = {"momentum": self.momentum, "weight_decay": self.weight_decay}
        return b.keep_at(b.emit("decay", v, decayed, **attrs), v)

    def update(self, b: Lowering, p: int, g: int) -> None:
        lr = b.hyper("lr")
        if self.accumulates:
            b.keep_at(b.emit("sgd", p, g, lr), p)
            return
        if self.weight_decay:
            g = b.emit("add_scaled", g, p, factor=self.weight_decay)
        if self.nesterov:
            v = b.state(p, "momentum")
            v1 = b.emit("decay", v, None, momentum=self.momentum, weight_decay=0.0)
            v2 = b.emit("add", b.keep_at(v1, v), g)
            b.keep_at(v2, v)
            b.keep_at(b.emit("nesterov", p, g, v2, lr, momentum=self.momentum), p)
        else:
            b.keep_at(b.emit("sgd", p, g, lr), p)


class Adam(Optimizer):
    """Adaptive moments (Kingma and Ba 2015), bias-corrected."""

    settings = ("betas", "eps", "weight_decay")
    decoupled = False

    def __init__(
        self,
        lr: Any = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(lr)
        first, second = betas
        check_numbers(type(self).__name__, first_beta=first, second_beta=second)
        check_numbers(type(self).__name__, math.inf, eps=eps, weight_decay=weight_decay)
        self.betas = float(first), float(second)
        self.eps = float(eps)
        self.weight_decay = float(weight_decay)

    def update(self, b: Lowering, p: int, g: int) -> None:
        if self.weight_decay and not self.decoupled:
            g = b.emit("add_scaled", g, p, factor=self.weight_decay)
        leaves = p, b.state(p, "first_moment"), b.state(p, "second_moment")
        made = b.emit(
            "adam",
            *leaves,
            g,
            b.hyper("lr"),
            b.hyper("corrections", (2,)),
            b1=self.betas[0],
            b2=self.betas[1],
            eps=self.eps,
            decoupled=self.weight_decay if self.decoupled else 0.0,
        )
        for value, leaf in zip(made, leaves, strict=True):
            b.keep_at(value, leaf)

    def numbers(self, step: int) -> dict[str, Any]:
        corrections = [1 - beta ** (step + 1) for beta in self.betas]
        return {**super().numbers(step), "corrections": corrections}


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    decoupled = True

    def __init__(
        self,
        lr: Any = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ):
        super().__init__(lr, betas, eps, weight_decay)


OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}


def from_config(config: dict[str, Any]) -> Optimizer:
    """The optimizer that `config()` described."""
    config = dict(config)
    kind = OPTIMIZERS[config.pop("name").lower()]
    return kind.from_config(config)


def by_name(name: str) -> Optimizer:
    """An optimizer with settings to begin with; InputError for an unknown name.

    "sgd" at rate 0.1, with which most of the zoo learns at batch 32; "momentum", SGD at 0.01 with
    momentum 0.9, which moves as fast in the long run; "adam" and "adamw" as their classes have it.
    """
    named: dict[str, Callable[[], Optimizer]] = {
        "sgd": lambda: SGD(lr=0.1),
        "momentum": lambda: SGD(lr=0.01, momentum=0.9),
        "adam": Adam,
        "adamw": AdamW,
    }
    if name not in named:
        raise InputError(f"unknown optimizer {name!r}; there are {', '.join(named)}")
    return named[name]()
