"""What `trainer.export` and `tinytrain export` call: a port by its name."""

from __future__ import annotations

import importlib
from typing import Any

from tinytrain.errors import InputError

PORTS = ("c99", "micropython")


def export(trainer: Any, port: str, folder: str) -> None:
    """Write the trainer's step for a port into a folder. InputError names what does not go."""
    if port not in PORTS:
        raise InputError(f"unknown port {port!r}; there are {', '.join(PORTS)}")
    importlib.import_module(f"tinytrain.ports.{port}").export(trainer, folder)
