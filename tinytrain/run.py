"""The interpreter: the same Steps over fresh arrays (eager) or over one arena (planned).

The two differ in one thing: where the buffer of a value comes from.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from tinytrain.errors import CapacityError, InputError, NotFiniteError, SpillError
from tinytrain.lifetime import STORED
from tinytrain.op import OPS
from tinytrain.plan import Plan
from tinytrain.spec import Spec
from tinytrain.steps import OVERFLOW, TRANSFERS, Program, Step

if TYPE_CHECKING:
    from tinytrain.spillfile import SpillFile, Transfer

Call = tuple[Callable[..., None], tuple[Any, ...]]

POISON = 0xFF  # a NaN in float32, so that a dead byte that is read shows
CANARIES = (0xA5, 0x5A)
PIECE = 2**14  # bytes of an arena that are looked at together
ALIGNMENT = 64  # of an arena's memory: a line of the cache
BACKENDS = ("numpy", "numba", "c")
NUMBA_NEEDS = 2**30  # bytes of memory, below which its compiler (125 MB) is too much


def choose_backend(name: str = "auto") -> str:
    """`auto`: what `automatic` says. InputError for an unknown name."""
    if name == "auto":
        return automatic()[0]
    if name not in BACKENDS:
        raise InputError(f"unknown backend {name!r}; there are auto, {', '.join(BACKENDS)}")
    return name


def at_hand(name: str) -> str:
    """The backend of this name if this machine has it, else "auto"."""
    if name in ("auto", "numpy"):
        return name
    try:
        kernel("relu", name)
    except InputError:
        return "auto"
    return name


def automatic() -> tuple[str, str]:
    """The backend that `auto` stands for, and why: C where it is built or can be (it is built now),
    else Numba where it is installed and has room, else NumPy."""
    from tinytrain.kernels import c_

    try:
        return "c", f"the C kernels are built: {c_.library()._name}"
    except ImportError as error:
        why = str(error)
    import importlib.util

    if importlib.util.find_spec("numba") is None:
        return "numpy", f"{why}; and numba is not installed"
    if (memory := _memory()) < NUMBA_NEEDS:
        return "numpy", f"{why}; and {memory:,} bytes of memory are too few for numba"
    return "numba", f"{why}; numba is installed"


def _memory() -> int:
    """This machine's memory in bytes; without an answer, plenty."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return NUMBA_NEEDS


def kernel(op: str, backend: str, dtype: str = "float32") -> Callable[..., None]:
    """The kernel of a row. Numba and C serve float32 and leave what they lack to the reference."""
    families = [_family("numpy")]
    if backend == "c" or (backend != "numpy" and dtype == "float32"):  # C looks at each operand
        families.insert(0, _family(backend))
    for family in families:
        try:
            found = getattr(family, op, None) or getattr(family, op + "_", None)
        except ImportError as error:
            raise InputError(f"backend {backend}: {error}, or use backend='numpy'") from error
        if found is not None:
            return found
    raise InputError(f"backend {backend} has no kernel for {op}")


def _family(backend: str) -> Any:
    """The kernels of a backend, which may not be there."""
    try:
        if backend == "numpy":
            from tinytrain.kernels import numpy_

            return numpy_
        if backend == "c":
            from tinytrain.kernels import c_

            return c_
        from tinytrain.kernels import numba_

        return numba_
    except ImportError as error:
        raise InputError(
            f"backend {backend}: {error}; pip install numba, or backend='numpy'"
        ) from error


def bind(
    program: Program, steps: list[Step], array: Callable[[int], np.ndarray], backend: str
) -> list[tuple[Callable[..., None], tuple[Any, ...]]]:
    """The steps as calls with their arrays and attrs in place, in parts where there are threads."""
    from tinytrain.kernels.parts import Together, parts_of, work_of

    threads = getattr(_family(backend), "threads", int)()
    calls: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
    for step in steps:
        outs, ins, work = (
            [None if v is None else array(v) for v in vs] for vs in (step.outs, step.ins, step.work)
        )
        args = [*outs, *ins, *work, *step.attrs.values()]
        if OPS[step.op].acc:
            args.append(step.acc is not None)
        if step.acc is not None and not _same_bytes(outs[0], array(step.acc)):
            calls.append((np.copyto, (outs[0], array(step.acc))))
        dtype = program.specs[next(v for v in step.outs if v is not None)].dtype
        dtype = next((str(x.dtype) for x in ins if x is not None and x.dtype.kind == "f"), dtype)
        found = kernel(step.op, backend, dtype)
        whole = _bound(found, tuple(args))
        cut = [_bound(found, part) for part in parts_of(step.op, args, threads)]
        calls.append((Together(cut, whole, work_of(step.op, args)), ()) if cut else whole)
    return calls


def _bound(found: Any, args: tuple[Any, ...]) -> Call:
    """A kernel's call, by its own rule where it has one."""
    ahead = getattr(found, "bind", None)
    return (found, args) if ahead is None else ahead(*args)


def call(
    op: str,
    ins: list[np.ndarray | None],
    outs: tuple[Spec, ...],
    attrs: dict[str, Any],
    backend: str,
) -> tuple[np.ndarray, ...]:
    """One op at once over arrays, as eager execution runs it: fresh outputs."""
    row = OPS[op]
    if row.view:
        assert ins[0] is not None
        return (ins[0].reshape(outs[0].shape),)
    made = [np.empty(s.shape, s.dtype) for s in outs]
    specs = [None if x is None else Spec(x.shape, str(x.dtype)) for x in ins]
    work = [] if row.work is None else row.work(specs, list(outs), attrs)
    scratch = [np.empty(s.shape, s.dtype) for s in work]
    dtype = next((str(x.dtype) for x in ins if x is not None and x.dtype.kind == "f"), "float32")
    args = [*made, *ins, *scratch, *attrs.values()]
    with np.errstate(all="ignore"):
        kernel(op, backend, dtype)(*args, *([False] if row.acc else []))
    return tuple(made)


def _same_bytes(a: Any, b: np.ndarray) -> bool:
    return a.__array_interface__["data"][0] == b.__array_interface__["data"][0]


def run_fresh(
    program: Program,
    values: dict[int, np.ndarray],
    backend: str = "numpy",
    begin: int = 0,
    end: int | None = None,
) -> dict[int, np.ndarray]:
    """Run the steps with a fresh array for every value; `values` holds the leaves and gains the
    rest. Flags are checked at their marks."""

    def array(v: int) -> np.ndarray:
        if v not in values:
            spec = program.specs[v]
            if v in program.views:
                values[v] = array(program.views[v]).reshape(spec.shape)
            else:
                values[v] = np.empty(spec.shape, spec.dtype)
        return values[v]

    stops = dict(program.marks)
    last = len(program.steps) if end is None else end
    with np.errstate(all="ignore"):
        for k in range(begin, last):
            raise_flags((values[v], what) for v, what in stops.get(k, ()))
            for call, args in bind(program, program.steps[k : k + 1], array, backend):
                call(*args)
    for v in program.views:
        if program.root(v) in values:
            array(v)
    return values


def raise_flags(flags: Iterable[tuple[np.ndarray, str]]) -> None:
    """NotFiniteError, or CapacityError, for the first raised flag."""
    for flag, what in flags:
        if flag[()]:
            if what == OVERFLOW:
                raise CapacityError(
                    "more non-zeros than the bitmaps have room for; nothing was updated. Run this "
                    "slice under the guaranteed plan, or plan with a larger density"
                )
            raise not_finite(what)


class Stop:
    """A call that looks at flags: a backend's walk may look at `arrays` itself, and stop there."""

    def __init__(self, flags: list[tuple[np.ndarray, str]]):
        self.flags = flags
        self.arrays = [flag for flag, _ in flags]  # one uint32 each, that must read 0

    def __call__(self) -> None:
        raise_flags(self.flags)


def not_finite(what: str) -> NotFiniteError:
    """The error for a bad value that was found before anything had changed."""
    return NotFiniteError(
        f"{what} is NaN or infinite; nothing was updated. Check the data's scale, or lower the "
        f"learning rate",
        what,
    )


def new_arena(nbytes: int, line: int = 0) -> np.ndarray:
    """`nbytes` of memory, filled with a canary, of which the byte `line` (16-byte aligned, a plan's
    `base`) begins a 64-byte line. InputError if this machine has not as much."""
    try:
        raw = np.full(nbytes + ALIGNMENT, CANARIES[0], np.uint8)
    except (MemoryError, ValueError) as error:
        raise InputError(
            f"the plan wants {nbytes:,} bytes, more memory than this machine has; use a smaller "
            f"batch, or name a budget with ram="
        ) from error
    start = -(raw.__array_interface__["data"][0] + line) % ALIGNMENT
    return raw[start : start + nbytes]


LASTING = ("parameter", "state", "optimizer")  # kinds that a step must not change by halves


class Executor:
    """A plan bound to an arena: `run()` is one step.

    arena   uint8, at least `plan.arena_bytes`; made here if not given.
    poison  after each step fill every byte that died with 0xFF.
    spill   the open spill file, for a plan that spills; without it, spilled values lie in memory
            beside the arena.
    """

    def __init__(
        self,
        plan: Plan,
        backend: str = "numpy",
        arena: np.ndarray | None = None,
        poison: bool = False,
        spill: SpillFile | None = None,
    ):
        self.plan = plan
        self.spill = spill if plan.slots else None
        self.store = np.empty(plan.spill_file_bytes if self.spill is None else 0, np.uint8)
        self._transfers: dict[int, Transfer] = {}
        if self.spill is not None:
            self.spill.nbytes = max(self.spill.nbytes, plan.spill_file_bytes)
        self.arena = new_arena(plan.arena_bytes, plan.base) if arena is None else arena
        self.poison = poison
        self._views: dict[int, np.ndarray] = {}
        program = plan.program
        self._joined = getattr(_family(backend), "joined", list)
        self._calls = [
            bind(program, [step], self.view, backend) if moves is None else [moves]
            for step, moves in ((step, self._transfer(step)) for step in program.steps)
        ]
        self.body = program.body or (0, len(program.steps))
        self._lists: dict[tuple[bool, bool], list[Call]] = {}
        self._dying: dict[int, list[np.ndarray]] = {}
        for buffer in plan.buffers:
            if not buffer.persistent and buffer.end < len(program.steps):
                region = self.arena[buffer.offset : buffer.offset + buffer.nbytes]
                self._dying.setdefault(buffer.end - 1, []).append(region)
        for slot in plan.slots:
            region = self.store[slot.offset : slot.offset + slot.nbytes]
            self._dying.setdefault(slot.end - 1, []).append(region)

    def view(self, v: int) -> np.ndarray:
        """The array of value v inside the arena."""
        if v not in self._views:
            spec: Spec = self.plan.program.specs[v]
            start = self.plan.offset(v)
            space = self.store if self.plan.program.kinds[v] == STORED else self.arena
            flat = space[start : start + spec.nbytes].view(spec.dtype)
            self._views[v] = flat.reshape(spec.shape)
        return self._views[v]

    def _transfer(self, step: Step) -> Call | None:
        """The call of a step that moves a value to or from the spill file."""
        if self.spill is None or step.op not in TRANSFERS:
            return None
        made, read, (out, *_) = self._transfers, step.reads(), step.writes()
        if step.op == "spill":
            made[out] = self.spill.writing(self.view(read[0]), self.plan.offset(out))
        elif step.op == "fetch":
            made[out] = self.spill.reading(self.view(out), made[read[0]])
        else:
            key = read[1] if step.op == "spill_wait" else read[0]
            return made[key].wait, (self.view(out),)
        return made[out].begin, ()

    def calls(self, first: bool, last: bool) -> list[Call]:
        """What a slice runs, as one flat list: the steps, looks at flags, and what `poison` and
        `spill` ask for. Made when it is first asked for. No call holds the executor: the arena
        goes with the last name for it, and a board has no room for two."""
        if (first, last) not in self._lists:
            self._lists[first, last] = self._joined(list(self._flat(first, last)))
        return self._lists[first, last]

    def _flat(self, first: bool, last: bool) -> Iterator[Call]:
        stops: dict[int, list[tuple[int, str]]] = {}
        for at, flags in self.plan.program.marks:
            stops[at] = stops.get(at, []) + flags
        lasting = False
        for begin, end in self._stretches(first, last):
            for k in range(begin, end + 1):
                if k in stops:
                    yield Stop([(self.view(v), what) for v, what in stops.pop(k)]), ()
                if k == end:
                    break
                if self.spill is not None and not lasting and self._lasts(k):
                    lasting = True
                    yield self.spill.change, ()
                yield from self._calls[k]
                if self.poison:
                    yield from ((region.fill, (POISON,)) for region in self._dying.get(k, ()))

    def _stretches(self, first: bool, last: bool) -> list[tuple[int, int]]:
        """Steps [begin, end) in the order they are run. What comes once, before the first slice,
        runs behind the body's first mark, so that a slice refused there has changed nothing."""
        program, (once, end) = self.plan.program, self.body
        end = len(program.steps) if last else end
        if not first or not once:
            return [(once, end)]
        touched = {v for s in program.steps[:once] for v in (*s.writes(), *s.reads())}
        held = (self.plan.buffers[self.plan.buffer_of[v]] for v in touched)
        assert all(b.persistent for b in held), "what comes once must leave the slice's bytes alone"
        at = next((at for at, _ in program.marks if once <= at <= self.body[1]), once)
        return [(once, at), (0, once), (at, end)]

    def _lasts(self, k: int) -> bool:
        """Whether step k changes a parameter, a statistic or the optimizer's state."""
        program = self.plan.program
        homes = (program.home.get(v) for v in program.steps[k].writes())
        return any(h is not None and program.kinds[h] in LASTING for h in homes)

    def run(self, first: bool = True, last: bool = True) -> None:
        """One slice whose inputs are loaded; with `first` what comes once for the first slice of a
        batch, with `last` the update. NotFiniteError at a raised flag, CapacityError, SpillError:
        in a step of one slice before anything persistent was changed, but for a fetch."""
        calls = self.calls(first, last)
        if self.spill is None:
            self._run(calls)
            return
        self.spill.settle()
        try:
            self._run(calls)
        finally:
            self.spill.settle()

    def first_bad_step(self, end: int) -> int | None:
        """The first step in front of `end` that makes a NaN or an infinity, of a slice whose inputs
        are loaded: its body runs again in the same arena, step by step, but for what persists and
        for flags. None if all is finite, or a spilled value cannot be had."""
        program = self.plan.program
        try:
            for k in range(self.body[0], end):
                step = program.steps[k]
                if self._lasts(k) or step.op.startswith("check_"):
                    continue
                self._run(self._calls[k])
                if step.op in TRANSFERS:  # on its way, and it was looked at when it was made
                    continue
                made = [self.view(v) for v in step.outs if v is not None]
                if not all(np.isfinite(a).all() for a in made if a.dtype.kind == "f"):
                    return k
        except SpillError:
            pass
        finally:
            if self.spill is not None:
                self.spill.settle()
        return None

    def _run(self, calls: list[Call]) -> None:
        if len(calls) == 1 and hasattr(calls[0][0], "stops"):  # one walk: NumPy has no part in it
            calls[0][0]()
            return
        with np.errstate(all="ignore"):
            for call, args in calls:
                call(*args)


class HighWater:
    """The highest arena byte ever written, measured: what lies free is painted before a step and
    looked at after it. Two paints, so that a byte which happens to equal one shows in the other.
    """

    def __init__(self, arena: np.ndarray, floor: int):
        self.arena = arena
        self.floor = floor  # persistent bytes below are written from the start
        self.nbytes = floor
        self.paints = list(CANARIES)

    def before(self, keep: list[np.ndarray]) -> None:
        """Paint all but the arrays in `keep` (the step's inputs), while paints are left."""
        if self.paints:
            saved = [a.copy() for a in keep]
            self.arena[self.floor :] = self.paints[0]
            for a, s in zip(keep, saved, strict=True):
                a[...] = s

    def after(self) -> None:
        """After a whole step: look how far up the paint is gone, and use it up."""
        if self.paints:
            paint, end = self.paints.pop(0), len(self.arena)
            while end > self.nbytes:  # a piece at a time: to look at all takes nine times as much
                begin = max(self.nbytes, end - PIECE)
                touched = np.flatnonzero(self.arena[begin:end] != paint)
                if touched.size:
                    self.nbytes = begin + int(touched[-1]) + 1
                end = begin
