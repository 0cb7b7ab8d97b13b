"""Numba's cache on disk, keyed by all our sources; it compiles nothing and chooses no folder.

A cached function holds the code of what it calls, from other files too. Numba looks only at the
function's own file, so that after an upgrade old code would run with new: here each function's
stamp is of the whole family. And what is in the cache is loaded without all that compiling needs.
"""

import glob
import os
import zlib
from typing import Any

from llvmlite import binding as llvm
from numba.core.caching import Cache, CacheImpl
from numba.core.runtime import _nrt_python as runtime

HERE = os.path.dirname(os.path.abspath(__file__))


def stamp() -> str:
    """What the sources of all Numba kernels say, as one text."""
    key = 0
    for path in sorted(glob.glob(os.path.join(glob.escape(HERE), "numba_*.py"))):
        with open(path, "rb") as file:
            key = zlib.crc32(file.read(), key)
    return f"tinytrain {key:08x}"


class Locator:
    """For functions of this folder, the place that Numba's own locators choose, our stamp."""

    stamp = stamp()
    others = tuple(CacheImpl._locator_classes)

    @classmethod
    def from_function(cls, function: Any, path: str) -> Any:
        """The locator of a function, or None for one that is not ours."""
        if os.path.dirname(os.path.abspath(path)) != HERE:
            return None
        found = next(
            filter(None, (each.from_function(function, path) for each in cls.others)), None
        )
        if found is not None:
            found.get_source_stamp = lambda: cls.stamp
            found.ours = True
        return found


CacheImpl._locator_classes = [Locator, *CacheImpl._locator_classes]


# ---------------------------------------------------------------------------- loading

# Of Numba's run time, what the code of kernels calls.
_CALLED = ("NRT_MemInfo_call_dtor", "NRT_adapt_ndarray_from_python", "NRT_Free")
_refreshed = Cache.load_overload


def _runtime_is_known() -> bool:
    """Name the run time's C functions to LLVM, as the run time does before it is compiled."""
    for name, address in getattr(runtime, "c_helpers", {}).items():
        llvm.add_symbol(name if name.startswith("_") else f"NRT_{name}", address)
    return all(map(llvm.address_of_symbol, _CALLED))


def load_overload(self: Any, sig: Any, target_context: Any) -> Any:
    """Numba's, but what is ours is loaded into the context as it is. Numba refreshes that first:
    it imports its 190 modules of typing (and SciPy) and compiles its run time, which cost a warm
    process 42 MB and a quarter of a second. Whatever has to be compiled refreshes it itself."""
    if not (_KNOWN and getattr(self._impl.locator, "ours", False)):  # theirs may be gone by now
        return _refreshed(self, sig, target_context)
    with self._guard_against_spurious_io_errors():
        return self._load_overload(sig, target_context)


_KNOWN = _runtime_is_known()
Cache.load_overload = load_overload
