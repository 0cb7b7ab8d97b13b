"""Where `tinytrain.kernels` and its sisters lie: inside the package, or in a checkout beside it."""

from __future__ import annotations

import os
from collections.abc import Iterable


def search_path(package_path: Iterable[str]) -> list[str]:
    """Return tinytrain's `__path__`, with the checkout's root behind it where that is needed.

    A wheel holds `tinytrain/kernels`; a bare checkout (PYTHONPATH, no pip) and an editable install
    have `kernels` beside `tinytrain`, and there the import system must look one folder higher.
    """
    path = list(package_path)
    package = os.path.dirname(os.path.realpath(__file__))
    root = os.path.dirname(package)
    if not os.path.isdir(os.path.join(package, "kernels")) and root not in path:
        path.append(root)
    return path
