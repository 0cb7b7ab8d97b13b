"""The C kernels, float32 only, built once with the system's compiler and called through ctypes.

Names, argument order and rules are the reference's; what no instruction serves (other dtypes, odd
shapes) is left to `numpy_`. The build lies in the user's cache folder under a key of sources,
flags and processor. It imports nothing heavy: on a board, memory is what this backend saves.
"""

import ctypes
import os
import sys
import zlib
from collections.abc import Callable, Iterable
from typing import Any, cast

from . import geometry, numpy_
from .parts import Together, paying
from .parts import threads as _threads

_SOURCES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "c")
# Every product is rounded before it is added: the same bits on every machine. TINYTRAIN_FMA=1 in
# the environment gives that up: products are fused into their sums where the processor can.
_FLAGS = (
    "-std=gnu99",
    "-O3",
    "-DTT_VECTORS",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fPIC",
    *(["-DTT_FMA"] if os.environ.get("TINYTRAIN_FMA") == "1" else []),
    "-pthread",
)
_NATIVE = (("-march=native",), ("-mcpu=native",), ())  # the first that the compiler takes
# Of single sources, if the compiler takes them. GCC for x86 would keep a product's addresses in
# vector registers, where they queue up behind the sums: 1 x 1 convolutions of 16 channels lose a
# fifth by that. Elementwise loops gain nothing by -O3 but twice the time to compile.
_OWN = {
    "tt_vectors.c": ("-mtune-ctrl=^inter_unit_moves_from_vec",),
    "tt_elementwise.c": ("-O2", "-ftree-vectorize", "-fvect-cost-model=dynamic"),
}
# A Pi Zero under Debian's armel, whose floats are in software: the kernels use the unit it has.
_VFP = ("-mfpu=vfp", "-mfloat-abi=softfp")
_AT_HWCAP, _HWCAP_VFP = 16, 64  # of Linux on 32-bit ARM


class Call(ctypes.Structure):
    """`tt_call` of tt_kernels.h."""

    _fields_ = [
        ("kernel", ctypes.c_void_p),
        ("operands", ctypes.c_void_p),
        ("words", ctypes.c_void_p),
    ]


# ---------------------------------------------------------------------------- building


def compiler() -> str | None:
    """The path of the C compiler: $CC, or cc, gcc or clang on the PATH; None if there is none."""
    for name in filter(None, (os.environ.get("CC"), "cc", "gcc", "clang")):
        for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
            path = os.path.join(folder, name)
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return path
    return None


def cache_folder() -> str:
    """Where builds lie: $XDG_CACHE_HOME/tinytrain, or ~/.cache/tinytrain."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "tinytrain")


def build_path() -> str:
    """Where the build for these sources and this processor lies, or will lie."""
    text = " ".join([*_FLAGS, *_native()[0], *sum(_OWN.values(), ())]) + _processor()
    for name in sorted(os.listdir(_SOURCES)):
        if name.endswith((".c", ".h")):
            with open(os.path.join(_SOURCES, name), encoding="utf-8") as file:
                text += file.read()
    raw = text.encode()
    return os.path.join(cache_folder(), f"kernels-{zlib.crc32(raw):08x}{zlib.adler32(raw):08x}.so")


def _processor() -> str:
    """What -march=native depends on: a home may be shared by several machines."""
    found = f"{sys.platform} {os.uname().machine} {ctypes.sizeof(ctypes.c_void_p)}"
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            wanted = ("model name", "flags", "Features", "CPU part")
            lines = {line.strip() for line in file if line.startswith(wanted)}
    except OSError:
        return found
    return found + "".join(sorted(lines))


def _native() -> tuple[tuple[str, ...], ...]:
    """Flags for this processor, the best first."""
    soft = getattr(sys.implementation, "_multiarch", "") == "arm-linux-gnueabi"
    if soft and ctypes.CDLL(None).getauxval(_AT_HWCAP) & _HWCAP_VFP:
        return (("-mcpu=native", *_VFP), _VFP, ())
    return _NATIVE


def is_there() -> bool:
    """Whether the kernels are built, or can be."""
    return os.name == "posix" and (os.path.exists(build_path()) or compiler() is not None)


def _build(path: str) -> None:
    """Compile to `path`, whole or not at all. ImportError says what is missing."""
    cc = compiler()
    if cc is None:
        raise ImportError("there is no C compiler (cc, gcc or clang); install one")
    aside, said = f"{path}.{os.getpid()}.part", ""
    if sys.stderr.isatty():
        print("building the C kernels, once for this machine", file=sys.stderr, flush=True)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        for native in _native():
            said = _compile(cc, native, aside)
            if not said:
                os.replace(aside, path)
                return
    except OSError as error:
        raise ImportError(f"the C kernels cannot be built: {error}") from error
    finally:
        if os.path.exists(aside):
            os.remove(aside)
    raise ImportError(f"{cc} cannot build the C kernels: {said}")


def _compile(cc: str, native: tuple[str, ...], to: str) -> str:
    """Compile the sources, as many at once as there are processors, and link them; what the
    compiler says if it fails."""
    import tempfile
    from concurrent.futures import ThreadPoolExecutor

    nothing = ("-fsyntax-only", "-x", "c", os.devnull)
    if said := _run(cc, *native, *nothing):
        return said
    own = {name: more for name, more in _OWN.items() if not _run(cc, *native, *more, *nothing)}
    names = [name for name in os.listdir(_SOURCES) if name.endswith(".c")]
    names.sort(key=lambda name: -os.path.getsize(os.path.join(_SOURCES, name)))  # the long first
    with tempfile.TemporaryDirectory() as folder:
        objects = [os.path.join(folder, f"{name}.o") for name in names]

        def one(name: str, made: str) -> str:
            flags = (*native, *own.get(name, ()), "-c", "-o", made)
            return _run(cc, *flags, os.path.join(_SOURCES, name))

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            said = next(filter(None, pool.map(one, names, objects)), "")
        return said or _run(cc, *native, "-shared", "-o", to, *objects)


def _run(cc: str, *more: str) -> str:
    """What the compiler says if it fails."""
    import subprocess

    done = subprocess.run([cc, *_FLAGS, *more], capture_output=True, text=True)
    lines = (done.stderr.strip() or f"{cc} failed").splitlines()
    return lines[0] if done.returncode else ""


_loaded: list[ctypes.CDLL] = []


def library() -> ctypes.CDLL:
    """The kernels, built if need be. ImportError where that fails, or where this machine's
    arithmetic is not IEEE 754 as the kernels rely on."""
    if not _loaded:
        path = build_path()
        if not os.path.exists(path):
            _build(path)
        try:
            found = ctypes.CDLL(path)
        except OSError as error:
            raise ImportError(f"{path} does not load ({error}); remove it") from error
        if found.tt_selfcheck() != 0:
            raise ImportError(f"{path}: this machine's floats are not as they are promised to be")
        found.tt_walk.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t)
        found.tt_walk.restype = ctypes.c_int
        found.tt_walk_wide.argtypes = (ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_ssize_t] * 2)
        found.tt_walk_wide.restype = ctypes.c_int
        _loaded.append(found)
    return _loaded[0]


# ---------------------------------------------------------------------------- calling


class Kernel:
    """A row's kernel with the reference's arguments."""

    def __init__(self, op: str):
        self.op, self.attrs = op, geometry.attrs_of(op)
        self.reference = getattr(numpy_, op, None) or getattr(numpy_, f"{op}_")

    def bind(self, *args: Any) -> tuple[Callable[..., None], tuple[Any, ...]]:
        """The call as (function, arguments): C with addresses in place, or the reference. The
        arrays are kept alive by it, and must not move."""
        operands = args[: len(args) - self.attrs]
        if not all(a is None or a.flags.c_contiguous for a in operands):
            return self.reference, args
        try:
            name, words = geometry.instruction(self.op, operands, args[len(operands) :])
        except geometry.Unknown:
            return self.reference, args
        function = getattr(library(), f"tt_kernel_{name}")
        function.restype = None
        held = [None if a is None or not a.size else a.__array_interface__ for a in operands]
        places = [None if a is None else a["data"][0] for a in held]
        pointers = (ctypes.c_void_p * len(places))(*places)
        pointers.keep = operands  # type: ignore[attr-defined]
        packed = (ctypes.c_uint32 * len(words))(*geometry.pack(words))
        return function, (pointers, packed)

    def __call__(self, *args: Any) -> None:
        function, given = self.bind(*args)
        function(*given)


Bound = tuple[Callable[..., None], tuple[Any, ...]]


def threads() -> int:
    """$TINYTRAIN_THREADS, or 1."""
    return _threads("TINYTRAIN_THREADS")


def joined(calls: Iterable[Bound]) -> list[Bound]:
    """The same calls with each run of C calls as one walk. A call of a function that has `arrays`,
    flags of four bytes that must read 0, is looked at in C; only where one does not is it made."""
    done: list[Bound] = []
    run: list[Bound] = []
    for call in [*paying(list(calls)), None]:
        if call is not None and (_is_c(call) or hasattr(call[0], "arrays")):
            run.append(call)
            continue
        if len(run) > 1 or (run and isinstance(run[0][0], Together)):
            done.append((_Walk(run), ()))
        else:
            done += run
        run = []
        if call is not None:
            done.append(call)
    return done


def _is_c(call: Bound) -> bool:
    function, given = call
    if isinstance(function, Together):
        return all(map(_is_c, function.calls))
    return len(given) == 2 and isinstance(given[0], ctypes.Array)


class _Walk:
    """A run of calls as one call of `tt_walk`, or of `tt_walk_wide` where some have parts."""

    def __init__(self, run: list[Bound]):
        stages = [rows for call in run for rows in _stages(call)]
        rows = [row for stage in stages for row in stage]
        self.kept, self.table = run, (Call * len(rows))(*rows)
        self.walk: Callable[..., int] = library().tt_walk
        self.given: tuple[Any, ...] = self.table, len(rows)
        if len(rows) > len(stages):
            widths = (ctypes.c_int32 * len(stages))(*map(len, stages))
            self.walk = library().tt_walk_wide
            self.given = self.table, widths, len(stages), min(threads(), max(map(len, stages)))
        self.stops = [function for function, _ in run if hasattr(function, "arrays")]

    def __call__(self) -> None:
        if self.walk(*self.given):
            for stop in self.stops:
                stop()


def _stages(call: Bound) -> list[list[Call]]:
    """The rows of a call in the table, those in a list at the same time: a kernel, its parts, or
    a look at each flag."""
    function, given = call
    if isinstance(function, Together):
        return [[row for part in function.calls for row in _stages(part)[0]]]
    if hasattr(function, "arrays"):
        return [[Call(None, a.__array_interface__["data"][0], None)] for a in function.arrays]
    address = ctypes.cast(cast(Any, function), ctypes.c_void_p).value
    return [[Call(address, *map(ctypes.addressof, given))]]


def __getattr__(name: str) -> Kernel:
    if name not in geometry.ops():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    library()
    return Kernel(name)
