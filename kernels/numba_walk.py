"""Runs of Numba calls as one walk over a table of addresses; it computes nothing itself.

A call from Python costs a microsecond or more: each array is looked at and unpacked. Here that is
done once. A call becomes a *record* of int64: its kernel's address and its arguments, an array as
address, shape and strides, a float by its bits. For each list of argument types there is one
*entry*, compiled once and cached on disk, that takes a record apart and makes the call; kernels are
called by their address, so no entry holds a kernel's code and no network is compiled.
"""

import functools
import os
import queue
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, typeof, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from .numba_ import compiling
from .numba_lanes import I64, pointer
from .parts import Together, paying
from .parts import threads as _threads

Bound = tuple[Callable[..., Any], tuple[Any, ...]]


class Choice:
    """A kernel that is one of several: `choose(*args)` gives the call that its arguments want."""

    def __init__(self, choose: Callable[..., Bound]):
        self.bind = choose
        functools.update_wrapper(self, choose)

    def __call__(self, *args: Any) -> None:
        function, given = self.bind(*args)
        function(*given)


# ---------------------------------------------------------------------------- records


def _slots(kind: Any, value: Any) -> Iterator[int]:
    """An argument as int64; TypeError for a type that has no such form."""
    if isinstance(kind, types.Array):
        yield from (value.__array_interface__["data"][0], *value.shape, *value.strides)
    elif isinstance(kind, types.BaseTuple):
        for each, part in zip(kind.types, value, strict=True):
            yield from _slots(each, part)
    elif isinstance(kind, types.Float):
        yield struct.unpack("<q", struct.pack("<d", value))[0]
    elif isinstance(kind, types.Integer | types.Boolean):
        yield int(value)
    elif kind != types.none:
        raise TypeError(f"no record holds {kind}")


def _value(context, builder, kind, slots):
    """The argument of that type from the next of its slots, as LLVM values."""
    if isinstance(kind, types.Array):
        array = context.make_array(kind)(context, builder)
        element = context.get_data_type(kind.dtype)
        at = pointer(builder, next(slots), element)
        shape, strides = ([next(slots) for _ in range(kind.ndim)] for _ in range(2))
        size = I64(context.get_abi_sizeof(element))
        populate_array(array, at, shape, strides, size, None)
        return array._getvalue()
    if isinstance(kind, types.BaseTuple):
        parts = [_value(context, builder, each, slots) for each in kind.types]
        return context.make_tuple(builder, kind, parts)
    if isinstance(kind, types.Float):
        return builder.bitcast(next(slots), ir.DoubleType())
    if isinstance(kind, types.Boolean):
        return builder.icmp_signed("!=", next(slots), I64(0))
    return context.get_dummy_value() if kind == types.none else next(slots)


def _loaded(builder, at):
    """The int64 behind one another from a pointer on."""
    k = 0
    while True:
        yield builder.load(builder.gep(at, [I64(k)]))
        k += 1


def _call(context, builder, address, result, kinds, values):
    """Call a function of Numba's convention by its address: what it returned, and whether it
    raised."""
    shape = context.call_conv.get_function_type(result, kinds)
    outs = [cgutils.alloca_once(builder, kind.pointee, zfill=True) for kind in shape.args[:2]]
    given = context.get_arg_packer(kinds).as_arguments(builder, values)
    status = builder.call(builder.inttoptr(address, shape.as_pointer()), [*outs, *given])
    return outs[0], builder.zext(builder.icmp_signed("!=", status, status.type(0)), I64)


@intrinsic
def _apply(typing, record):
    """Make the call of a record, a pointer to the tuple of its arguments; 1 if it raised."""

    def codegen(context, builder, sig, args):
        kinds = sig.args[0].dtype.types
        slots = _loaded(builder, builder.bitcast(args[0], I64.as_pointer()))
        address = next(slots)
        values = [_value(context, builder, kind, slots) for kind in kinds]
        return _call(context, builder, address, types.none, kinds, values)[1]

    return types.int64(record), codegen


# Called by address alone: without the wrappers for Python and C it compiles in half the time.
@njit(cache=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _entry(record):
    return _apply(record)


_RECORD = types.CPointer(types.int64)


@intrinsic
def _enter(typing, entry, record):
    """What the entry at this address returns for this record."""

    def codegen(context, builder, sig, args):
        at = pointer(builder, args[1], I64)
        result, _ = _call(context, builder, args[0], types.int64, (_RECORD,), [at])
        return builder.load(result)

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def _flag(typing, at):
    """The four bytes at an address, as int64."""

    def codegen(context, builder, sig, args):
        return builder.zext(builder.load(pointer(builder, args[0], ir.IntType(32))), I64)

    return types.int64(types.int64), codegen


@intrinsic
def _seen(typing, at):
    """The int64 at an address that other threads change."""

    def codegen(context, builder, sig, args):
        return builder.load_atomic(pointer(builder, args[0], I64), "seq_cst", 8)

    return types.int64(types.int64), codegen


@intrinsic
def _raised(typing, at, by):
    """Add to the int64 at an address at once; what it was."""

    def codegen(context, builder, sig, args):
        return builder.atomic_rmw("add", pointer(builder, args[0], I64), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def _claimed(typing, at, part):
    """Put part + 1 for `part` at an address, if nobody else has; whether that was so."""

    def codegen(context, builder, sig, args):
        to, part = pointer(builder, args[0], I64), args[1]
        both = builder.cmpxchg(to, part, builder.add(part, I64(1)), "seq_cst")
        return builder.extract_value(both, 1)

    return types.boolean(types.int64, types.int64), codegen


# What threads share of a walk, int64 at these places: how many parts may be begun, how many were
# begun, done and failed, and whether the walk has ended.
_OPEN, _NEXT, _DONE, _FAILED, _END = (8 * k for k in range(5))
_WATCH = 256  # looks for more to do before others get the processor


@njit(cache=True, nogil=True)
def _help(table, shared):
    """Do a part that may be begun; whether there was one. Parts are rows of the table."""
    part = _seen(shared + _NEXT)
    if part >= _seen(shared + _OPEN) or not _claimed(shared + _NEXT, part):
        return False
    _raised(shared + _FAILED, _enter(table[part, 0], table[part, 1]))
    _raised(shared + _DONE, 1)
    return True


if os.name == "posix":
    _let_others_run = types.ExternalFunction("sched_yield", types.int32())
else:

    @njit
    def _let_others_run():
        return 0


@njit(cache=True, nogil=True)
def _serve(table, shared):
    """Help until the walk has ended."""
    idle = 0
    while _seen(shared + _END) == 0:
        idle = 0 if _help(table, shared) else idle + 1
        if idle >= _WATCH:
            _let_others_run()


@njit(cache=True, nogil=True)
def _walk(table, widths, parts, shared):
    """1 at the first flag that is not 0, which is where it stops. A stage of more than one is the
    next so many rows of `parts`, which all threads do together."""
    begun = 0
    for k in range(table.shape[0]):
        if widths[k] > 1:
            begun += widths[k]
            _raised(shared + _OPEN, widths[k])
            idle = 0
            while _seen(shared + _DONE) < begun:
                idle = 0 if _help(parts, shared) else idle + 1
                if idle >= _WATCH:
                    _let_others_run()
            if _seen(shared + _FAILED) != 0:
                raise RuntimeError("a kernel of the walk raised an error")
        elif table[k, 0] == 0:
            if _flag(table[k, 1]) != 0:
                return 1
        elif _enter(table[k, 0], table[k, 1]) != 0:
            raise RuntimeError("a kernel of the walk raised an error")
    return 0


# ---------------------------------------------------------------------------- walks


def threads() -> int:
    """$NUMBA_NUM_THREADS, or 1: Numba's own default is every core, which is no choice of anyone."""
    return _threads("NUMBA_NUM_THREADS")


def joined(calls: Iterable[Bound]) -> list[Bound]:
    """The same calls with each run of compiled ones as one walk. A function that has `arrays`,
    flags of four bytes that must read 0, is looked at by the walk; where one does not it is
    called."""
    done: list[Bound] = []
    run: list[Bound] = []
    for call in [*paying(list(calls)), None]:
        if call is not None and _fits(call):
            run.append(call)
            continue
        alone = len(run) == 1 and not isinstance(run[0][0], Together)
        done += run if alone or not run else [(_Walk(run), ())]
        run = []
        if call is not None:
            done.append(call)
    compiling("")
    return done


def _fits(call: Bound) -> bool:
    """Whether a record can hold it."""
    function, given = call
    if isinstance(function, Together):
        return all(map(_fits, function.calls))
    if hasattr(function, "arrays"):
        return True
    if not hasattr(function, "overloads"):
        return False
    try:
        for value in given:
            for _ in _slots(typeof(value), value):
                pass
    except TypeError:
        return False
    return True


def _address(dispatcher: Any, kinds: tuple[Any, ...]) -> int:
    """Of the machine code for these types, compiled or read from the cache if need be."""
    if kinds not in dispatcher.overloads:
        compiling(dispatcher.__name__.strip("_"))
        dispatcher.compile(kinds)
    made = dispatcher.overloads[kinds]
    return made.library.get_pointer_to_function(made.fndesc.llvm_func_name)


class _Records:
    """Rows of entries and records, an int64 table: a call each."""

    def __init__(self) -> None:
        self.words: list[int] = []
        self.rows: list[tuple[int, int]] = []  # an entry and where its record begins

    def add(self, call: Bound) -> None:
        function, given = call
        kinds = tuple(map(typeof, given))
        record = types.CPointer(types.BaseTuple.from_types(kinds))
        self.rows.append((_address(_entry, (record,)), 8 * len(self.words)))
        self.words.append(_address(function, kinds))
        for kind, value in zip(kinds, given, strict=True):
            self.words += _slots(kind, value)

    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows, and the records that they point to."""
        records = np.array(self.words, np.int64)
        table = np.array(self.rows, np.int64).reshape(-1, 2)
        table[table[:, 0] != 0, 1] += records.__array_interface__["data"][0]
        return table, records


class _Walk:
    """A run of calls as one call of `_walk`."""

    def __init__(self, run: list[Bound]):
        whole, parts, widths = _Records(), _Records(), []
        for function, given in run:
            if isinstance(function, Together):
                widths.append(len(function.calls))
                whole.rows.append((0, 0))
                for part in function.calls:
                    parts.add(part)
            elif hasattr(function, "arrays"):
                widths += [1] * len(function.arrays)
                places = (a.__array_interface__["data"][0] for a in function.arrays)
                whole.rows += [(0, place) for place in places]
            else:
                widths.append(1)
                whole.add((function, given))
        self.kept, self.widths = run, np.array(widths, np.int64)
        (self.table, self.records), (self.parts, self.others) = whole.table(), parts.table()
        self.alone = max(widths) == 1  # then nothing is shared
        self.helpers = min(threads(), max(widths)) - 1
        self.stops = [function for function, _ in run if hasattr(function, "arrays")]

    def __call__(self) -> None:
        if self._walked():
            for stop in self.stops:
                stop()

    def _walked(self) -> int:
        if self.alone:
            return _walk(self.table, self.widths, self.parts, 0)
        shared = np.zeros(5, np.int64)  # its own for each walk: a helper may still leave the last
        at = shared.__array_interface__["data"][0]
        for _ in range(self.helpers):
            _helpers.put((self.parts, shared, at), self.helpers)
        try:
            return _walk(self.table, self.widths, self.parts, at)
        finally:
            shared[_END // 8] = 1


class _Helpers:
    """Threads that help with walks; started when there is one to help with."""

    def __init__(self) -> None:
        self.jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.count, self.home = 0, 0

    def put(self, job: Any, wanted: int) -> None:
        if self.home != os.getpid():  # a fork has none of them
            self.jobs, self.count, self.home = queue.SimpleQueue(), 0, os.getpid()
        while self.count < wanted:
            threading.Thread(target=self._serve, args=(self.jobs,), daemon=True).start()
            self.count += 1
        self.jobs.put(job)

    @staticmethod
    def _serve(jobs: Any) -> None:
        while True:
            parts, shared, at = jobs.get()
            _serve(parts, at)
            del parts, shared


_helpers = _Helpers()
