"""Tensor: what a user computes with. Eager when it holds an array, shape-only when it does not.

Every op leaves a Record; `tape_of` turns the records behind some results into a Tape. Nothing is
recorded twice: the same records serve `backward()` here and the planner there.
"""

from __future__ import annotations

import itertools
import sys
import zlib
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinytrain import run
from tinytrain.errors import InputError
from tinytrain.lower import backward_of
from tinytrain.op import OPS
from tinytrain.spec import ITEMSIZE, Spec
from tinytrain.tape import Tape

_order = itertools.count()
_backend = "numpy"
_recording: Recording | None = None


class Recording:
    """What one recording collects beside the records: assignments to state, and what draws."""

    def __init__(self) -> None:
        self.assigned: dict[int, tuple[Tensor, Tensor]] = {}  # by id: (state, its newest value)
        self.key = Tensor.symbol(Spec((3,), "uint32"), "hyper", "key")
        self.streams = itertools.count()

    def newest(self, t: Tensor | None) -> Tensor | None:
        """t, or what was assigned to it since."""
        return self.assigned[id(t)][1] if id(t) in self.assigned else t


@contextmanager
def recording():
    """Within the block ops only record shapes: nothing is computed, no value can be read."""
    global _recording
    before, _recording = _recording, Recording()
    try:
        yield _recording
    finally:
        _recording = before


@contextmanager
def backend(name: str):
    """Run eager ops on this backend within the block."""
    global _backend
    before, _backend = _backend, run.choose_backend(name)
    try:
        yield
    finally:
        _backend = before


class Record:
    """One applied op: its inputs as Tensors, its outputs' specs and, if eager, the arrays of both
    as they were then (a state may be assigned anew before backward)."""

    __slots__ = ("attrs", "data", "held", "ins", "op", "order", "specs")

    def __init__(self, op, ins, attrs, specs, held, data):
        self.op, self.ins, self.attrs, self.specs = op, ins, attrs, specs
        self.held, self.data = held, data
        self.order = next(_order)


class Tensor:
    """An array with a memory of where it came from.

    array          anything numeric; Python numbers and float16 become float32, wider integers
                   int32, booleans float32. float64 stays (for gradient checks).
    requires_grad  collect `.grad` (an ndarray) here when something computed from it calls
                   `backward()`.
    """

    kind = "constant"
    name = ""
    __array_ufunc__ = None  # an ndarray on the left leaves the operation to the Tensor

    def __init__(self, array: Any, requires_grad: bool = False):
        self._record: Record | None = None
        self._index = 0
        self._data: np.ndarray | None = as_array(array)
        self.spec = Spec(self._data.shape, str(self._data.dtype))
        if requires_grad and not self.spec.is_float:
            raise InputError(f"requires_grad: a tensor of {self.spec.dtype} has no gradient")
        self.requires_grad = requires_grad
        self.grad: np.ndarray | None = None

    @classmethod
    def symbol(cls, spec: Spec, kind: str, name: str) -> Tensor:
        """A value of known shape and no content, as recording uses it."""
        made = cls._from(None, 0, spec)
        made.kind, made.name = kind, name
        return made

    @classmethod
    def _from(cls, record: Record | None, index: int, spec: Spec) -> Tensor:
        made = Tensor.__new__(Tensor)
        made._record, made._index, made._data, made.spec = record, index, None, spec
        made.requires_grad, made.grad = False, None
        return made

    # ------------------------------------------------------------------ looking at it

    def _held(self) -> np.ndarray | None:
        """The array, or None while only shapes are known."""
        if _recording is not None and self.kind != "constant":
            return None
        if self._record is not None:
            return None if self._record.data is None else self._record.data[self._index]
        return self._data

    @property
    def data(self) -> np.ndarray:
        """The values; raises while a plan is recorded, for no values exist then."""
        held = self._held()
        if held is None:
            raise InputError(
                f"{_user_line()}: a value is read while the step is recorded, but a plan is made "
                f"from shapes alone; use tensor ops instead of Python control flow on values"
            )
        return held

    def numpy(self) -> np.ndarray:
        """The values as an ndarray (shared, not copied)."""
        return self.data

    def item(self) -> float | int:
        """The value of a tensor of one element."""
        return self.data.item()

    def __array__(self, dtype=None, copy=None):
        return np.array(self.data, dtype=dtype, copy=True if copy is None else copy)

    def __float__(self) -> float:
        return float(self.data)

    def __bool__(self) -> bool:
        return bool(self.data)

    def __int__(self) -> int:
        return int(self.data)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a tensor without dimensions")
        return self.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.spec.shape

    @property
    def dtype(self) -> str:
        return self.spec.dtype

    @property
    def ndim(self) -> int:
        return self.spec.ndim

    @property
    def size(self) -> int:
        return self.spec.size

    def __iter__(self):
        return (self[k] for k in range(len(self)))

    def __repr__(self) -> str:
        held = self._held()
        what = f"shape={self.shape}, dtype={self.dtype}" if held is None else repr(held)
        return f"Tensor({what}{', requires_grad=True' if self.requires_grad else ''})"

    def detach(self) -> Tensor:
        """The same values without their history."""
        return Tensor(self.data)

    # ------------------------------------------------------------------ gradients

    def backward(self) -> None:
        """Add d self / d leaf to `.grad` of every leaf that requires it. A scalar only."""
        if self.size != 1:
            raise InputError(f"backward: wants a scalar, this has shape {self.shape}; sum it first")
        tape, leaves = tape_of(loss=self)
        wrt = {v for v, t in leaves.items() if t.requires_grad}
        if not wrt:
            raise InputError("backward: nothing that this was computed from requires a gradient")
        program = backward_of(tape, wrt)
        values = _eager_values(tape, self)
        run.run_fresh(program, values, _backend, begin=program.forward_end)
        for v, g in program.grads.items():
            t = leaves[v]
            t.grad = values[g].copy() if t.grad is None else np.asarray(t.grad + values[g])

    # ------------------------------------------------------------------ arithmetic

    def __add__(self, other):
        return apply("add", *_pair(self, other))

    __radd__ = __add__

    def __sub__(self, other):
        return apply("sub", *_pair(self, other))

    def __rsub__(self, other):
        return apply("sub", *reversed(_pair(self, other)))

    def __mul__(self, other):
        if _is_number(other) and self.spec.is_float:
            return apply("scale", self, factor=other)
        return apply("mul", *_pair(self, other))

    __rmul__ = __mul__

    def __truediv__(self, other):
        if _is_number(other) and self.spec.is_float and other:
            return apply("scale", self, factor=1.0 / other)
        return apply("div", *_pair(self, other))

    def __rtruediv__(self, other):
        return apply("div", *reversed(_pair(self, other)))

    def __neg__(self):
        return apply("neg", self)

    def __pow__(self, exponent):
        return apply("pow", self, exponent=exponent)

    def __matmul__(self, other):
        return apply("matmul", *_pair(self, other))

    def __rmatmul__(self, other):
        return apply("matmul", *reversed(_pair(self, other)))

    def __getitem__(self, key):
        return _getitem(self, key)

    def reshape(self, *shape):
        """The same elements under another shape; one size may be -1."""
        return apply("reshape", self, shape=shape[0] if _is_sequence(shape[0]) else shape)

    def transpose(self, *axes):
        """Axes in another order (default: reversed)."""
        return apply(
            "transpose", self, axes=(axes[0] if _is_sequence(axes[0]) else axes) if axes else None
        )

    @property
    def T(self):
        return self.transpose()

    def flatten(self, start: int = 1):
        """Axes from `start` on as one."""
        return self.reshape(*self.shape[:start], -1)


def _is_sequence(x: Any) -> bool:
    return isinstance(x, tuple | list)


def _user_line() -> str:
    """file:line of the innermost caller outside this package."""
    frame = sys._getframe(1)
    while (
        frame.f_back is not None
        and frame.f_globals.get("__name__", "").split(".")[0] == "tinytrain"
    ):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def as_array(array: Any) -> np.ndarray:
    """A C-contiguous array in one of the engine's dtypes; InputError if it is not numeric."""
    if isinstance(array, Tensor):
        return array.data
    plain = not isinstance(array, np.ndarray | np.generic)
    if isinstance(array, list | tuple) and any(isinstance(t, Tensor) for t in array):
        raise InputError("a list of Tensors is no tensor; join them with tt.ops.concat")
    try:
        a = np.asarray(array)
    except ValueError as error:
        raise InputError(f"a tensor wants a rectangular array of numbers: {error}") from error
    if a.dtype.kind not in "fiub":
        raise InputError(f"a tensor wants numbers, got dtype {a.dtype}; convert it first")
    if a.dtype.kind == "b" or a.dtype == np.float16 or (plain and a.dtype.kind == "f"):
        a = a.astype(np.float32)
    elif not a.dtype.isnative:
        a = a.astype(a.dtype.newbyteorder("="))
    if str(a.dtype) not in ITEMSIZE:
        if a.dtype.kind == "f":
            a = a.astype(np.float64)
        else:
            if a.size and (a.max() > 2**31 - 1 or a.min() < -(2**31)):
                raise InputError("a tensor of integers holds 32 bits; these values do not fit")
            a = a.astype(np.int32)
    # Not ascontiguousarray, which gives a scalar one dimension.
    return np.asarray(a, order="C")


def as_tensor(x: Any, like: Tensor | None = None) -> Tensor:
    """x as a Tensor; a plain number takes the dtype of `like`, if that can hold it."""
    if isinstance(x, Tensor):
        return x
    if like is not None and _is_number(x) and (like.dtype[0] == "f" or x == int(x)):
        return Tensor(np.asarray(x, like.dtype))
    return Tensor(x)


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float | np.number)


def _pair(a: Any, b: Any) -> tuple[Tensor, Tensor]:
    a = as_tensor(a, b if isinstance(b, Tensor) else None)
    return a, as_tensor(b, a)


# ---------------------------------------------------------------------- applying ops


def apply_all(op: str, *ins: Tensor | None, **attrs: Any) -> tuple[Tensor, ...]:
    """Apply a row; all its outputs."""
    row = OPS[op]
    if _recording is not None:
        ins = tuple(_recording.newest(t) for t in ins)
    specs, attrs = row.infer(tuple(None if t is None else t.spec for t in ins), attrs)
    held = [None if t is None else t._held() for t in ins]
    eager = _recording is None and all(
        t is None or h is not None for t, h in zip(ins, held, strict=True)
    )
    data = None
    if eager:
        if row.indexes is not None:
            _check_indexes(op, row, ins, held, attrs)
        data = run.call(op, held, specs, attrs, _backend)
    record = Record(op, ins, attrs, specs, held if eager else (), data)
    return tuple(Tensor._from(record, k, s) for k, s in enumerate(specs))


def apply(op: str, *ins: Tensor | None, **attrs: Any) -> Tensor:
    """Apply a row; its first output."""
    return apply_all(op, *ins, **attrs)[0]


def _check_indexes(op, row, ins, held, attrs) -> None:
    position, bound = row.indexes
    limit = bound([None if t is None else t.spec for t in ins], attrs)
    check_range(f"{op}: {row.inputs[position]}", held[position], limit)


FEW = 64  # elements


def check_range(what: str, a: np.ndarray, limit: int) -> None:
    """InputError unless all of a lies in [0, limit)."""
    if a.size <= FEW:  # a batch of labels, in every step: Python's own is faster
        given = sorted(a.tolist() if a.ndim == 1 else a.ravel().tolist())
        if not given or (given[0] >= 0 and given[-1] < limit):
            return
    elif a.min() >= 0 and a.max() < limit:
        return
    bad = np.flatnonzero((a < 0) | (a >= limit))
    if bad.size:
        raise InputError(
            f"{what}: value {a.reshape(-1)[bad[0]]} at position {bad[0]} is out of range, "
            f"wants 0 to {limit - 1}"
        )


def _getitem(x: Tensor, key: Any) -> Tensor:
    keys = list(key) if isinstance(key, tuple) else [key]
    dots = [k for k, each in enumerate(keys) if each is Ellipsis]
    if dots:
        keys[dots[0] : dots[0] + 1] = [slice(None)] * (x.ndim - len(keys) + 1)
    keys += [slice(None)] * (x.ndim - len(keys))
    if len(keys) > x.ndim:
        raise InputError(f"index {key!r} has {len(keys)} places, {x.shape} has {x.ndim}")
    begin, end, shape = [], [], []
    for k, n in zip(keys, x.shape, strict=True):
        if isinstance(k, slice) and k.step in (None, 1):
            s, t, _ = k.indices(n)
            shape.append(t - s)
        elif isinstance(k, int) and -n <= k < n:
            s, t = k % n, k % n + 1
        else:
            raise InputError(f"index {k!r} into {x.shape}: only whole numbers and plain slices")
        begin.append(s)
        end.append(t)
    cut = apply("slice", x, begin=tuple(begin), end=tuple(end))
    return cut if len(shape) == x.ndim else cut.reshape(tuple(shape))


# ---------------------------------------------------------------------- from records to a tape


def tape_of(
    outputs: Sequence[Tensor] = (),
    loss: Tensor | None = None,
    assigns: Sequence[tuple[Tensor, Tensor]] = (),
    inputs: Sequence[Tensor] = (),
) -> tuple[Tape, dict[int, Tensor]]:
    """The tape behind these results, in program order, and the Tensor of each leaf.

    `inputs` become leaves even if nothing reads them; what `assigns` pairs up are state leaves
    and their next values.
    """
    tape, ids, leaves = Tape(), {}, {}
    ends = [*outputs, *([] if loss is None else [loss]), *(t for pair in assigns for t in pair)]

    def leaf(t: Tensor) -> None:
        kind = "parameter" if t.requires_grad and t.kind == "constant" else t.kind
        name = t.name or (f"constant {_digest(t)}" if kind == "constant" else kind)
        v = tape.leaf(t.spec, kind, name, t.requires_grad)
        ids[id(t)], leaves[v] = v, t

    def value(t: Tensor) -> int:
        if t._record is not None:
            return made[t._record][t._index]
        if id(t) not in ids:
            leaf(t)
        return ids[id(t)]

    for t in inputs:
        leaf(t)
    made: dict[Record, tuple[int, ...]] = {}
    for record in _records(ends):
        ins = tuple(None if t is None else value(t) for t in record.ins)
        made[record] = tape.add(record.op, ins, record.attrs)
    tape.outputs = tuple(value(t) for t in outputs)
    tape.loss = None if loss is None else value(loss)
    tape.assigns = [(value(t), value(new)) for t, new in assigns]
    return tape, leaves


def _records(ends: Sequence[Tensor]) -> list[Record]:
    """Every record behind these tensors, in the order in which they were made."""
    found: dict[Record, None] = {}
    todo = [t._record for t in ends if t._record is not None]
    while todo:
        record = todo.pop()
        if record not in found:
            found[record] = None
            todo += [t._record for t in record.ins if t is not None and t._record is not None]
    return sorted(found, key=lambda r: r.order)


def _digest(t: Tensor) -> str:
    """A checksum of a constant, so that recordings that differ in one are told apart."""
    held = t._held()
    return "?" if held is None else f"{zlib.crc32(np.ascontiguousarray(held).tobytes()):08x}"


def _eager_values(tape: Tape, loss: Tensor) -> dict[int, np.ndarray]:
    """The arrays of every value on the tape, as the eager pass left them."""
    values: dict[int, np.ndarray] = {}
    for node, record in zip(tape.nodes, _records([loss]), strict=True):
        arrays = (
            *zip(node.ins, record.held, strict=True),
            *zip(node.outs, record.data, strict=True),
        )
        values.update((v, a) for v, a in arrays if v is not None)
    return values
