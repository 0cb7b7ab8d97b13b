"""What an argument may be, so that a layer or a schedule that cannot be is refused where it is
made, by one clear error."""

from __future__ import annotations

from typing import Any

from tinytrain.errors import InputError
from tinytrain.number import is_number, is_whole


def check_sizes(where: str, **given: Any) -> None:
    """InputError unless each is a whole number of at least 1."""
    for name, value in given.items():
        if not is_whole(value) or value < 1:
            raise InputError(f"{where}: {name} is {value!r}; wants a whole number of at least 1")


def check_divides(where: str, into: str, parts: Any, **given: Any) -> None:
    """InputError unless each size divides into so many `parts`; `into` is what those are called."""
    check_sizes(where, **{into: parts}, **given)
    for name, value in given.items():
        if value % parts:
            raise InputError(f"{where}: {name} is {value}, not a multiple of {into} ({parts})")


def check_numbers(where: str, below: float = 1.0, **given: Any) -> None:
    """InputError unless each is a number in [0, below)."""
    for name, value in given.items():
        if not is_number(value) or not 0 <= value < below:
            raise InputError(f"{where}: {name} is {value!r}; wants a number in [0, {below})")
