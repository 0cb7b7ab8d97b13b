"""Op: one row of the calculus. Rows are data and small pure functions over Specs; no arrays here.

A row says what a kernel of that name takes and gives: the shape rule, the gradient (written in
other rows), which values the gradient reads, which output may take which input's buffer, and the
scratch it wants. The rows themselves are in `ops/`; kernels are looked up by the row's name.

Calling convention of every kernel: `kernel(*outs, *ins, *work, *attrs[, acc])`, where attrs come
in the order in which the shape rule declares them, and `acc` (only if the row has `acc=True`)
asks for `out += value` instead of `out = value`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tinytrain.errors import InputError
from tinytrain.spec import Spec

Attrs = dict[str, Any]


@dataclass(frozen=True)
class Op:
    """A row.

    shape    `(*input specs, **attrs) -> Spec | tuple[Spec, ...]`; raises InputError. Parameters
             annotated `Spec` are inputs, `Spec | None` optional inputs, the rest attrs. Only the
             first output carries a gradient; the others are residuals (statistics, an index).
    canon    `(attrs, *input specs) -> attrs` in the one form kernels see (`2` -> `(2, 2)`).
    vjp      one function per input, `(b, node, g) -> value`, None where no gradient flows; for a
             variadic row, one function with the input's position as a fourth argument.
    saves    what the vjp reads through `b.get`: "x0" is the first input, "y1" the second output.
    inplace  pairs (output, input): the output may be written over the input's buffer.
    work     `(input specs, output specs, attrs) -> tuple[Spec, ...]`: one-step scratch.
    acc      the kernel has an accumulating form.
    view     the output is the input's bytes under another shape; no kernel runs.
    indexes  (input, `(input specs, attrs) -> bound`): integers there must lie in [0, bound).
    drops    outputs that the kernel leaves out when nobody reads them (it is handed None).
    macs     `(input specs, output specs, attrs) -> int`: multiply-accumulates.
    inverse  one function per input, `(b, node) -> value` (variadic: the position comes last): the
             input from the output and the other inputs; None where it cannot be had back.
    lean     `(input specs, output specs, attrs) -> name` of the row with the same bits that may be
             written over its first input, or None.
    again    the row that makes the first output once more, with the same bits, when it is given
             the others as well, behind this row's inputs.
    integers the op is defined for integers too; else what carries a gradient must be floating.
    """

    name: str
    shape: Callable[..., Any]
    canon: Callable[..., Attrs] | None = None
    vjp: Any = None
    saves: tuple[str, ...] = ()
    inplace: tuple[tuple[int, int], ...] = ()
    work: Callable[..., tuple[Spec, ...]] | None = None
    acc: bool = False
    view: bool = False
    indexes: tuple[int, Callable[..., int]] | None = None
    drops: tuple[int, ...] = ()
    macs: Callable[..., int] | None = None
    inverse: Any = None
    lean: Callable[..., str | None] | None = None
    again: str | None = None
    integers: bool = False
    inputs: tuple[str, ...] = field(default=(), init=False)
    attrs: tuple[str, ...] = field(default=(), init=False)
    defaults: Attrs = field(default_factory=dict, init=False)
    variadic: bool = field(default=False, init=False)
    required: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        inputs, attrs, defaults, required = [], [], {}, 0
        for p in inspect.signature(self.shape).parameters.values():
            if p.kind is p.VAR_POSITIONAL or p.annotation in ("Spec", "Spec | None"):
                inputs.append(p.name)
                required += p.annotation == "Spec" and p.kind is not p.VAR_POSITIONAL
                if p.kind is p.VAR_POSITIONAL:
                    object.__setattr__(self, "variadic", True)
            else:
                attrs.append(p.name)
                if p.default is not p.empty:
                    defaults[p.name] = p.default
        object.__setattr__(self, "inputs", tuple(inputs))
        object.__setattr__(self, "attrs", tuple(attrs))
        object.__setattr__(self, "defaults", defaults)
        object.__setattr__(self, "required", required)

    def infer(self, ins: tuple[Spec | None, ...], attrs: Attrs) -> tuple[tuple[Spec, ...], Attrs]:
        """Output specs and canonical attrs for these inputs; InputError if they do not fit."""
        full = {**self.defaults, **attrs}
        unknown = set(full) - set(self.attrs)
        if unknown:
            raise InputError(f"{self.name}: unknown argument {sorted(unknown)[0]!r}")
        missing = [a for a in self.attrs if a not in full]
        if missing:
            raise InputError(f"{self.name}: missing argument {missing[0]!r}")
        self._check_dtypes(ins)
        if self.canon is not None:
            full = self.canon(full, *ins)
        out = self.shape(*ins, **full)
        outs = out if isinstance(out, tuple) else (out,)
        return outs, {name: full[name] for name in self.attrs}

    def _check_dtypes(self, ins: tuple[Spec | None, ...]) -> None:
        """Floating where a gradient flows, and one width of floats throughout."""
        first = next((s for s in ins if s is not None and s.is_float), None)
        for k, s in enumerate(ins):
            what = self.inputs[min(k, len(self.inputs) - 1)]
            if s is None:
                continue
            if not s.is_float and not self.integers and self.vjp_of(k) is not None:
                raise InputError(f"{self.name}: {what} is {s}, wants floats; convert it first")
            if first is not None and s.is_float and s.dtype != first.dtype:
                raise InputError(
                    f"{self.name}: dtypes differ, {what} is {s.dtype} beside {first.dtype}; "
                    f"convert one of them"
                )

    def vjp_of(self, i: int) -> Callable[..., int] | None:
        """The gradient function of input i: `(b, node, g) -> value`, or None."""
        if self.vjp is None:
            return None
        if self.variadic:
            return lambda b, node, g: self.vjp(b, node, g, i)
        return self.vjp[i] if i < len(self.vjp) else None

    def inverse_of(self, i: int) -> Callable[..., int] | None:
        """What brings input i back: `(b, node) -> value`, or None."""
        if self.inverse is None:
            return None
        if self.variadic:
            return lambda b, node: self.inverse(b, node, i)
        return self.inverse[i] if i < len(self.inverse) else None


OPS: dict[str, Op] = {}


def register(name: str, shape: Callable[..., Any], **row: Any) -> None:
    """Add a row; a name is taken once."""
    if name in OPS:
        raise ValueError(f"op {name!r} is registered twice")
    OPS[name] = Op(name, shape, **row)
