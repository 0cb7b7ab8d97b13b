"""What `trainer.export` and `tinytrain export` call: a port by its name."""

from __future__ import annotations

import importlib
from typing import Any

from tinytrain.errors import InputError
from tinytrain.ports import table

PORTS = ("c99", "micropython")


def export(trainer: Any, port: str, folder: str, flash: int | None = None) -> None:
    """Write the trainer's step for a port into a folder. InputError names what does not go, or how
    many bytes of tables and parameters are more than `flash`."""
    if port not in PORTS:
        raise InputError(f"unknown port {port!r}; there are {', '.join(PORTS)}")
    if flash is not None:
        nbytes = 4 * len(table.encode(trainer, port))
        if nbytes > flash:
            raise InputError(
                f"{port}: tables and parameters take {nbytes:,} bytes, flash is {flash:,}: "
                f"{nbytes - flash:,} are missing, and code comes on top"
            )
    importlib.import_module(f"tinytrain.ports.{port}").export(trainer, folder)
