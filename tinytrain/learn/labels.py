"""Labels as users give them: whole numbers or strings. They are checked and listed here, and
turned into columns by the learner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinytrain.errors import InputError
from tinytrain.number import is_whole


def plain(label: Any) -> Any:
    """A label as Python's value; InputError unless it is a whole number or a string."""
    value = label.item() if isinstance(label, np.generic) else label
    if not isinstance(value, int | str):
        raise InputError(f"a label is {label!r}; wants whole numbers or strings")
    return value


def labels_of(y: Any) -> list[Any]:
    """Those of samples; InputError unless they are one row of such."""
    if isinstance(y, str) or not np.ndim(y) == 1:
        raise InputError(f"y: got shape {np.shape(y)}; wants one label a sample, (N,)")
    return [plain(label) for label in y]


def labels_given(classes: Any) -> list[Any] | None:
    """What `classes=` says: labels, each once, or how many; None says nothing."""
    if classes is None:
        return None
    if is_whole(classes):
        if classes < 1:
            raise InputError(f"classes is {classes}; wants at least 1")
        return list(range(int(classes)))
    labels = labels_of(list(classes))
    if len(set(labels)) != len(labels):
        raise InputError("classes: a label is there twice")
    return labels


def as_array(labels: Sequence[Any]) -> np.ndarray:
    """Labels as an array of numbers or strings; of both, as objects."""
    same = len({type(c) for c in labels}) == 1
    return np.array(labels) if same else np.array(labels, object)


def listed(labels: Sequence[Any], say: Any = repr) -> str:
    """The first eight in words, and how many more."""
    shown = ", ".join(say(c) for c in labels[:8])
    return shown + (f" and {len(labels) - 8} more" if len(labels) > 8 else "") or "none"


def fewest(labels: Sequence[Any]) -> int:
    """Examples of the rarest class."""
    return min(labels.count(c) for c in set(labels))
