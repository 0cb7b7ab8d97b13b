"""Rows of the spill policy: a value goes to storage outside the arena and comes back.

`spill` and `fetch` only begin a transfer; `spill_wait` and `fetch_wait` end it. What is moved must
stay as it is in between, which is why the waits read both ends. A port may move everything at
once and let the waits do nothing. None has a gradient.
"""

from __future__ import annotations

from tinytrain.op import register
from tinytrain.spec import Spec


def _spill(x: Spec):
    return x


register("spill", _spill)  # its output has kind "spill": a slot of the file, not of the arena


def _fetch(stored: Spec):
    return stored


register("fetch", _fetch)


def _status(x: Spec, stored: Spec):
    return Spec((), "uint32")


register("spill_wait", _status)  # 0: done. A host raises, a port stops the step
register("fetch_wait", _status)
