"""What counts as a number in an argument: Python's or NumPy's, never True or False, never text."""

from __future__ import annotations

from typing import Any

import numpy as np

_WHOLE, _REAL = int | np.integer, float | np.floating  # made once: this is asked in every step


def is_whole(value: Any) -> bool:
    """Whether it is a whole number, Python's or NumPy's."""
    return isinstance(value, _WHOLE) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is a real number, Python's or NumPy's (NaN and infinity are)."""
    return is_whole(value) or isinstance(value, _REAL)
