"""Runs of Numba calls as one walk over a table of addresses; it computes nothing itself.

A call from Python costs a microsecond or more: each array is looked at and unpacked. Here that is
done once. A call becomes a *record* of int64: its kernel's address and its arguments, an array as
address, shape and strides, a float by its bits. For each list of argument types there is one
*entry*, compiled once and cached on disk, that takes a record apart and makes the call; kernels are
called by their address, so no entry holds a kernel's code and no network is compiled.
"""

import functools
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, typeof, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from .numba_lanes import I64, pointer

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


@njit(cache=True, nogil=True)
def _walk(table):
    """1 at the first flag that is not 0, which is where it stops."""
    for k in range(table.shape[0]):
        if table[k, 0] == 0:
            if _flag(table[k, 1]) != 0:
                return 1
        elif _enter(table[k, 0], table[k, 1]) != 0:
            raise RuntimeError("a kernel of the walk raised an error")
    return 0


# ---------------------------------------------------------------------------- walks


def joined(calls: Iterable[Bound]) -> list[Bound]:
    """The same calls with each run of compiled ones as one walk. A function that has `arrays`,
    flags of four bytes that must read 0, is looked at by the walk; where one does not it is
    called."""
    done: list[Bound] = []
    run: list[tuple[Bound, Any]] = []
    for call in [*calls, None]:
        kinds = None if call is None else _kinds(call)
        if call is not None and kinds is not None:
            run.append((call, kinds))
            continue
        done += [(_Walk(run), ())] if len(run) > 1 else [made for made, _ in run]
        run = []
        if call is not None:
            done.append(call)
    return done


def _kinds(call: Bound) -> tuple[Any, ...] | None:
    """The types of a call's arguments; None where a record cannot hold it."""
    function, given = call
    if hasattr(function, "arrays"):
        return ()
    if not hasattr(function, "overloads"):
        return None
    kinds = tuple(map(typeof, given))
    try:
        for kind, value in zip(kinds, given, strict=True):
            for _ in _slots(kind, value):
                pass
    except TypeError:
        return None
    return kinds


def _address(dispatcher: Any, kinds: tuple[Any, ...]) -> int:
    """Of the machine code for these types, compiled or read from the cache if need be."""
    dispatcher.compile(kinds)
    made = dispatcher.overloads[kinds]
    return made.library.get_pointer_to_function(made.fndesc.llvm_func_name)


class _Walk:
    """A run of calls as one call of `_walk`."""

    def __init__(self, run: list[tuple[Bound, Any]]):
        self.kept = [call for call, _ in run]
        self.stops = [function for function, _ in self.kept if hasattr(function, "arrays")]
        words: list[int] = []
        rows: list[tuple[int, int]] = []  # an entry and where its record begins, or 0 and a flag
        for (function, given), kinds in run:
            if hasattr(function, "arrays"):
                rows += [(0, a.__array_interface__["data"][0]) for a in function.arrays]
                continue
            record = types.CPointer(types.BaseTuple.from_types(kinds))
            rows.append((_address(_entry, (record,)), 8 * len(words)))
            words.append(_address(function, kinds))
            for kind, value in zip(kinds, given, strict=True):
                words += _slots(kind, value)
        self.records, self.table = np.array(words, np.int64), np.array(rows, np.int64)
        is_call = self.table[:, 0] != 0
        self.table[is_call, 1] += self.records.__array_interface__["data"][0]

    def __call__(self) -> None:
        if _walk(self.table):
            for stop in self.stops:
                stop()
