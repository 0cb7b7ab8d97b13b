"""What a layer's arguments may be, so that one that cannot be is refused where it is made."""

from __future__ import annotations

import numbers
from typing import Any

from tinytrain.errors import InputError


def check_sizes(layer: str, **given: Any) -> None:
    """InputError unless each is a whole number of at least 1."""
    for name, value in given.items():
        if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
            raise InputError(f"{layer}: {name} is {value!r}; wants a whole number of at least 1")


def check_divides(layer: str, into: str, parts: Any, **given: Any) -> None:
    """InputError unless each size divides into so many `parts`; `into` is what those are called."""
    check_sizes(layer, **{into: parts}, **given)
    for name, value in given.items():
        if value % parts:
            raise InputError(f"{layer}: {name} is {value}, not a multiple of {into} ({parts})")


def check_shares(layer: str, **given: Any) -> None:
    """InputError unless each is a number in [0, 1]."""
    for name, value in given.items():
        if not isinstance(value, numbers.Real) or not 0 <= value <= 1:
            raise InputError(f"{layer}: {name} is {value!r}; wants a number from 0 to 1")
