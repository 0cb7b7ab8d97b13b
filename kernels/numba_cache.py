"""Numba's cache on disk, keyed by all our sources; it compiles nothing and chooses no folder.

A cached function holds the code of what it calls, from other files too. Numba looks only at the
function's own file, so that after an upgrade old code would run with new: here each function's
stamp is of the whole family.
"""

import glob
import os
import zlib
from typing import Any

from numba.core.caching import CacheImpl

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
        return found


CacheImpl._locator_classes = [Locator, *CacheImpl._locator_classes]
