"""A network of one's own, named as `file.py:function`. This runs the file: name only your own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tinytrain.errors import InputError, TinytrainError
from tinytrain.nn import Module, seeded

MODULE = "user_model"  # its name in sys.modules, where dataclasses and the like look it up


def is_file(name: str) -> bool:
    """Whether a MODEL is `file.py:function` (or a model of the zoo)."""
    return ":" in name


def from_file(name: str, input_shape: tuple[int, ...] | None = None, seed: int = 0) -> Module:
    """The Module that the function returns, called without arguments and seeded.

    input_shape is one sample's; where neither it nor the function says, it stays open. InputError
    if there is no such file or function, or if it fails.
    """
    path, _, function = name.rpartition(":")
    if not os.path.isfile(path):
        raise InputError(f"{path}: there is no such file; MODEL is a zoo name or file.py:function")
    with users_errors(name), seeded(seed), _beside(path):
        net = getattr(_module(path), function)()
    if not isinstance(net, Module):
        raise InputError(f"{name}: returned {type(net).__name__}, wants a tinytrain.nn.Module")
    if input_shape is not None:
        net.input_shape = input_shape
    net.recipe = {"name": name, "seed": seed}
    return net


def _module(path: str) -> Any:
    import importlib.util

    spec = importlib.util.spec_from_file_location(MODULE, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path}: not a Python file")
    module = sys.modules[MODULE] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def _beside(path: str) -> Iterator[None]:
    """Within the block, what lies beside the file can be imported."""
    folder = os.path.dirname(os.path.realpath(path))
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.path.remove(folder)


@contextmanager
def users_errors(name: str | None) -> Iterator[None]:
    """Within the block, whatever the code of this `file.py:function` raises is an InputError that
    names its line. Errors of the zoo's models (and of a network without a name) pass."""
    try:
        yield
    except (TinytrainError, MemoryError, KeyboardInterrupt):
        raise
    except BaseException as error:  # SystemExit too: an import that ends the program is a mistake
        if name is None or not is_file(name):
            raise
        import traceback

        path = os.path.realpath(name.rpartition(":")[0])
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f.lineno for f in frames if os.path.realpath(f.filename) == path]
        where = f"{name}, line {lines[-1]}" if lines else name
        raise InputError(f"{where}: {type(error).__name__}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]
