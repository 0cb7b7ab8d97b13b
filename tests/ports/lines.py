"""What the port tests share: printed lines that must agree, tools that may be missing, and where
what is built for them is kept. It runs nothing."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

TOLERANCE = 1e-3


class Missing(Exception):
    """A tool that this machine lacks."""


def need(*tools: str) -> None:
    """Missing names those of these tools that are not here."""
    lacking = [tool for tool in tools if shutil.which(tool) is None]
    if lacking:
        raise Missing(", ".join(lacking))


def cache() -> Path:
    """Where builds are kept: TINYTRAIN_PORTS_CACHE, else the user's cache."""
    named = os.environ.get("TINYTRAIN_PORTS_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named) if named else Path(base) / "tinytrain" / "ports"


def difference(got: str, want: str) -> str:
    """Empty if the lines agree, numbers with a point to within TOLERANCE; lines that begin with #
    are for people."""
    both = [[a for a in text.splitlines() if not a.startswith("#")] for text in (got, want)]
    if len(both[0]) != len(both[1]):
        return f"{len(both[0])} lines, not {len(both[1])}:\n{got[-2000:]}"
    for a, b in zip(*both, strict=True):
        if not _agree(a.split(), b.split()):
            return f"printed {a!r}, the host {b!r}"
    return ""


def _agree(got: list[str], want: list[str]) -> bool:
    if len(got) != len(want):
        return False
    return all(
        a == b or (_is_number(a) and _is_number(b) and abs(float(a) - float(b)) <= TOLERANCE)
        for a, b in zip(got, want, strict=True)
    )


def _is_number(word: str) -> bool:
    return re.fullmatch(r"-?\d+\.\d+", word) is not None
