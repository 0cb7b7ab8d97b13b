"""Where `tinytrain.kernels` and its sisters lie: inside the package, or in a checkout beside it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def search_path(package_path: Iterable[str]) -> list[str]:
    """Return tinytrain's `__path__`, with the checkout's root behind it where that is needed.

    A wheel holds `tinytrain/kernels`; a bare checkout (PYTHONPATH, no pip) and an editable install
    have `kernels` beside `tinytrain`, and there the import system must look one folder higher.
    """
    path = list(package_path)
    package = Path(__file__).resolve().parent
    root = str(package.parent)
    if not (package / "kernels").is_dir() and root not in path:
        path.append(root)
    return path
