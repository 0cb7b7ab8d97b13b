"""What every benchmark says beside its figures: the machine and the day; and where data lies."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path

import numpy

from tinytrain.errors import InputError


def machine() -> str:
    """This machine in a line: processor, cores, Python, NumPy, and Numba or its absence."""
    try:
        import numba

        engine = f"Numba {numba.__version__}"
    except ImportError:
        engine = "no Numba"
    name = platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            model = next(line for line in stream if line.startswith("model name"))
        name += " " + model.split(":", 1)[1].strip()
    except (OSError, StopIteration):
        pass  # not Linux, or a processor that does not name itself there
    return (
        f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"NumPy {numpy.__version__}, {engine}"
    )


def where_and_when() -> dict[str, str]:
    """{"machine": ..., "date": ...}."""
    return {"machine": machine(), "date": datetime.date.today().isoformat()}


def data_folder(data: str | None, name: str) -> Path:
    """`data`/`name`, or $TINYTRAIN_DATA/`name`; InputError where there is no such folder."""
    folder = _place(data, f"{name}/")
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; --data names the one that holds it")
    return folder


def data_file(data: str | None, name: str) -> Path:
    """The same for a file."""
    file = _place(data, name)
    if not file.is_file():
        raise InputError(f"{file}: there is no such file; --data names the folder that holds it")
    return file


def _place(data: str | None, name: str) -> Path:
    root = data or os.environ.get("TINYTRAIN_DATA")
    if not root:
        raise InputError(f"this benchmark wants {name}: give --data FOLDER or set TINYTRAIN_DATA")
    return Path(root) / name
