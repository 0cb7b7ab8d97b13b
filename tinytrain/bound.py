"""Bound: a frozen step, its plan and an arena, with views of what the host writes and reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinytrain.errors import InputError
from tinytrain.freeze import Frozen
from tinytrain.lower import lower
from tinytrain.op import OPS
from tinytrain.plan import Plan
from tinytrain.run import Executor, HighWater, run_fresh
from tinytrain.tensor import check_range

# Ops that leave every value as it is, so that the range of an index can be told at its leaf.
MOVES = ("reshape", "transpose", "concat", "slice", "pad", "broadcast_to")


class Bound:
    """A frozen step bound to the arena: views of what the host writes and reads.

    floor  where the bytes end that persist there, those of the optimizer too, of which a plan for
           inference knows nothing.
    """

    def __init__(self, frozen: Frozen, plan: Plan, executor: Executor, floor: int):
        self.frozen, self.plan, self.executor = frozen, plan, executor
        view, tape = executor.view, frozen.tape
        self.inputs = [view(v) for v in frozen.inputs]
        self.labels = [view(v) for v in frozen.labels]
        self.outputs = [view(v) for v in tape.outputs] if not plan.program.marks else []
        self.loss = view(tape.loss) if tape.loss is not None else np.zeros((), np.float32)
        leaves = plan.program.leaves
        self.hyper = {x.name: view(v) for v, x in leaves.items() if x.kind == "hyper"}
        stays = plan.layout.offsets
        self.constants = [
            (view(v), frozen.leaves[v].data)
            for v, x in leaves.items()
            if x.kind == "constant" and (x.kind, x.name) not in stays
        ]
        self.water = HighWater(executor.arena, floor)
        limits = index_limits(frozen)
        self.input_limits = [limits.get(v) for v in frozen.inputs]
        self.label_limits = [limits.get(v) for v in frozen.labels]
        self.written = [*self.inputs, *self.labels, *(v for v, _ in self.constants)]
        # What is told apart in every step, where looking at an array's attributes takes its time.
        limited = zip(self.written, (*self.input_limits, *self.label_limits), strict=False)
        self._wanted = [(a.shape[1:], a.ndim, a.dtype, limit) for a, limit in limited]
        self._counts = len(self.inputs), len(self.labels)

    def check(self, xs: Sequence[np.ndarray], ys: Sequence[np.ndarray]) -> None:
        """InputError unless these inputs and labels fit the step; there may be more samples."""
        if (len(xs), len(ys)) != self._counts:
            second = int(len(xs) == self._counts[0])
            given, wanted = (len(xs), len(ys))[second], self._counts[second]
            raise InputError(f"{'xy'[second]}: {given} arrays given, the network wants {wanted}")
        for k, a in enumerate((*xs, *ys)):
            shape, ndim, dtype, limit = self._wanted[k]
            if a.dtype is not dtype or a.ndim != ndim or a.shape[1:] != shape:
                check("x" if k < len(xs) else "y", a, self.written[k], limit)
            elif limit is not None:
                check_range("x" if k < len(xs) else "y", a, limit)

    def fill(self, xs: Sequence[np.ndarray], ys: Sequence[np.ndarray]) -> None:
        """Copy inputs and labels that were checked into the arena, and its constants."""
        for k, a in enumerate((*xs, *ys)):
            if a.dtype is self._wanted[k][2]:
                self.written[k][...] = a
            else:
                fill("x" if k < len(xs) else "y", a, self.written[k])
        for view, array in self.constants:
            view[...] = array

    def run(self, first: bool = True, last: bool = True) -> None:
        """One slice, with what comes once in the first and behind the last."""
        self.executor.run(first, last)

    def measured(self, run: Callable[[], Any]) -> Any:
        """`run()` over an arena that is painted the first times, to see how high it writes."""
        self.water.before(self.written)
        result = run()
        self.water.after()
        return result


def index_limits(frozen: Frozen) -> dict[int, int]:
    """For each leaf of integers, the bound that the ops reading it set. InputError for indices
    that are computed, for nobody could check them before a step."""
    limits: dict[int, int] = {}
    specs = frozen.tape.specs
    maker = {n.outs[0]: n for n in frozen.tape.nodes}
    for node in frozen.tape.nodes:
        rule = OPS[node.op].indexes
        if rule is None:
            continue
        bound = rule[1]([None if v is None else specs[v] for v in node.ins], node.attrs)
        todo = [node.ins[rule[0]]]
        while todo:
            v = todo.pop()
            if v in maker:
                if maker[v].op not in MOVES:
                    raise InputError(
                        f"{node.op}: its indices come from {maker[v].op}; give them as an input"
                    )
                todo += maker[v].ins
            elif v is not None:
                limits[v] = min(limits.get(v, bound), bound)
                if frozen.tape.leaves[v].kind == "constant":
                    check_range(f"{node.op}: indices", frozen.leaves[v].data, bound)
    return limits


def check(what: str, a: np.ndarray, view: np.ndarray, limit: int | None) -> None:
    """InputError unless samples of a's shape, dtype and range fit `view`, which may hold fewer."""
    if a.shape[1:] != view.shape[1:] or a.ndim != view.ndim:
        wants = (*a.shape[:1], *view.shape[1:])
        raise InputError(f"{what}: got shape {a.shape}, the network wants {wants}")
    if a.dtype.kind not in "fiub":
        raise InputError(f"{what}: dtype {a.dtype} is not a number; convert it first")
    if view.dtype.kind in "iu":
        if a.dtype.kind == "f":
            raise InputError(f"{what}: wants integers (class numbers), got {a.dtype}")
        if limit is not None:
            check_range(what, a, limit)


def fill(what: str, a: np.ndarray, view: np.ndarray) -> None:
    """Copy an array that was checked into the arena; bytes of an image become shares of 255."""
    if a.dtype == view.dtype or view.dtype.kind in "iu":
        view[...] = a
    elif a.dtype == np.uint8 and what == "x":
        np.divide(a, np.float32(255), out=view)
    else:
        with np.errstate(over="ignore"):  # what overflows is infinite, which the guard finds
            view[...] = a


def is_finite(a: np.ndarray) -> bool:
    """Whether every element is a finite float32; it copies nothing."""
    if a.dtype.kind != "f" or not a.size:
        return True
    with np.errstate(over="ignore"):
        return bool(np.isfinite(np.float32(a.min())) and np.isfinite(np.float32(a.max())))


def densities(frozen: Frozen, xs: Sequence[np.ndarray], backend: str) -> dict[int, float]:
    """The share of non-zeros in each value of a forward pass over these inputs, by tape value."""
    program = lower(frozen.tape)
    values = {}
    for v, leaf in program.leaves.items():
        if leaf.kind in ("parameter", "state", "constant"):
            values[v] = frozen.leaves[v].data
        else:  # labels change the loss alone
            values[v] = np.zeros(program.specs[v].shape, program.specs[v].dtype)
    limits = index_limits(frozen)
    for v, a in zip(frozen.inputs, xs, strict=True):
        check("x", a, values[v], limits.get(v))
        fill("x", a, values[v])
    run_fresh(program, values, backend)
    made = [n.outs[0] for n in frozen.tape.nodes if not OPS[n.op].view]
    return {
        v: np.count_nonzero(values[v]) / values[v].size
        for v in made
        if v != frozen.tape.loss and v in values and program.specs[v].is_float and values[v].size
    }
