"""What a data set is, and the one check that every array passes; it never mends data by itself."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinytrain.errors import InputError

Array = NDArray[Any]

CHUNK = 1 << 20
"""Elements looked at in one go: the search for NaN needs 1 MiB, however large the array."""

INT32 = np.iinfo(np.int32)
PIXEL_MAX = 255
SHOWN = 5
"""Classes that a warning names before it only counts."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples and what they are; `arrays` makes one from arrays, `load` from a file.

    x: float32, (N, ...) channels last, or int32 for tokens. y: int32 labels or float32 targets,
    (N, ...), or None. classes: the name of each label, or None.
    """

    x: Array
    y: Array | None = None
    classes: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: Array) -> "Dataset":
        """The samples at `index` (integers, as `split` and `batches` give them), copied."""
        return Dataset(self.x[index], None if self.y is None else self.y[index], self.classes)


def arrays(
    x: ArrayLike,
    y: ArrayLike | None = None,
    classes: Sequence[str] | None = None,
    where: str = "arrays",
) -> Dataset:
    """A Dataset from arrays: converted, then checked; x and y are shared when they already fit.

    x becomes float32, or int32 when it holds integers (tokens). uint8 is pixels: scaled to [0, 1],
    and (N, H, W) becomes (N, H, W, 1). y becomes int32 labels when it holds integers or booleans,
    else float32 targets. `where` opens every message. Raises InputError; warns (UserWarning) of a
    class without a sample.
    """
    data = to_inputs(to_array(x, where, "x"), where)
    target = None if y is None else _to_targets(to_array(y, where, "y"), where)
    check(data, target, classes, where, each_class=True)
    return Dataset(data, target, None if classes is None else tuple(map(str, classes)))


def check(
    x: ArrayLike,
    y: ArrayLike | None = None,
    classes: int | Sequence[str] | None = None,
    where: str = "data",
    each_class: bool = False,
) -> None:
    """Raise InputError unless x and y can be trained on; nothing is converted.

    x: (N, ...), numbers, finite, N > 0. y: None, or (N, ...): finite floats (targets), or integers
    from 0 (labels). `classes`, a number of classes or their names: y must then be integers below
    it. `where` opens every message. `each_class=True` warns (UserWarning) of a class without a
    sample: for a whole data set, not for a batch.
    """
    data = to_array(x, where, "x")
    refuse_not_finite(data, where, "x")
    if y is None:
        return
    target = to_array(y, where, "y")
    if len(target) != len(data):
        raise InputError(
            f"{where}: x has {len(data)} samples, y has {len(target)}; one y for each x is wanted"
        )
    refuse_not_finite(target, where, "y")
    _check_labels(target, classes, where)
    if each_class and target.ndim == 1 and target.dtype.kind in "iu":
        _warn_of_empty_classes(target, classes, where)


def to_array(values: ArrayLike, where: str, name: str) -> Array:
    """`values` as an ndarray of numbers with samples along axis 0, none of them empty."""
    try:
        array = np.asarray(values)
    except (ValueError, TypeError):
        raise InputError(
            f"{where}: {name} is no regular array (are its rows of different lengths?); "
            "all samples must have one shape"
        ) from None
    if array.dtype.kind not in "fiub":
        raise InputError(
            f"{where}: {name} has dtype {array.dtype}, which is not a real number; "
            "give floats or integers (names of classes become 0, 1, ...)"
        )
    if array.ndim == 0:
        raise InputError(f"{where}: {name} is one number; give an array, samples along axis 0")
    if array.size == 0:
        raise InputError(
            f"{where}: {name} is empty (shape {array.shape}); at least one sample is wanted"
        )
    return array


def to_inputs(array: Array, where: str) -> Array:
    """Inputs (N, ...) in a Dataset's dtypes: pixels scaled, integers to int32, else float32."""
    if array.dtype == np.uint8:
        if array.ndim == 3:
            array = array[..., np.newaxis]
        return np.asarray(np.divide(array, PIXEL_MAX, dtype=np.float32))
    if array.dtype.kind in "iu":
        return _to_int32(array, where, "x")
    return to_float32(array)


def to_float32(array: Array) -> Array:
    """float32 in this machine's byte order; what is too large becomes infinite, and is refused."""
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False)


def refuse_not_finite(array: Array, where: str, name: str) -> None:
    """Raise InputError at the first NaN or infinity of (N, ...), with its index."""
    if array.dtype.kind != "f":
        return
    rows = max(1, CHUNK // array[0].size)
    for start in range(0, len(array), rows):
        finite = np.isfinite(array[start : start + rows])
        if not finite.all():
            first = [int(i) for i in np.unravel_index(np.argmin(finite), finite.shape)]
            first[0] += start
            value = array[tuple(first)]
            raise InputError(
                f"{where}: {name}{first} is {value} in {array.dtype}; "
                f"mend or drop sample {first[0]}"
            )


def _to_targets(array: Array, where: str) -> Array:
    return to_float32(array) if array.dtype.kind == "f" else _to_int32(array, where, "y")


def _to_int32(array: Array, where: str, name: str) -> Array:
    for value in (int(array.min()), int(array.max())):
        if not INT32.min <= value <= INT32.max:
            raise InputError(f"{where}: {name} holds {value}, which does not fit int32")
    return array.astype(np.int32, copy=False)


def _check_labels(y: Array, classes: int | Sequence[str] | None, where: str) -> None:
    """Labels are integers in [0, classes); floats are targets, which have no classes."""
    if y.dtype.kind == "f":
        if classes is not None:
            raise InputError(
                f"{where}: y has dtype {y.dtype}, but labels of classes are integers; "
                "y.astype('int32') if these are class numbers"
            )
        return
    number = _number_of(classes)
    if number is not None and number < 1:
        raise InputError(f"{where}: classes={number}; at least one class is wanted")
    bad = y < 0 if number is None else (y < 0) | (y >= number)
    if not bad.any():
        return
    first = [int(i) for i in np.unravel_index(np.argmax(bad), bad.shape)]
    allowed = "0 or more" if number is None else f"0 to {number - 1} ({number} classes)"
    mend = "class numbers count from 0" if number else "regression targets are floats"
    raise InputError(f"{where}: y{first} is {int(y[tuple(first)])}, labels are {allowed}; {mend}")


def _number_of(classes: int | Sequence[str] | None) -> int | None:
    if classes is None:
        return None
    return int(classes) if isinstance(classes, (int, np.integer)) else len(classes)


def _distinct(y: Array) -> Array:
    """np.unique, which loads numpy.ma: another megabyte."""
    ordered = np.sort(y)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])]


def _warn_of_empty_classes(y: Array, classes: int | Sequence[str] | None, where: str) -> None:
    """Without `classes`, the largest label says how many there are."""
    present = _distinct(y)
    number = _number_of(classes)
    if number is None:
        number = int(present[-1]) + 1
    missing = number - len(present)
    if not missing:
        return
    # The first few gaps lie below this bound, however large one stray label is.
    some = np.setdiff1d(np.arange(min(number, len(present) + SHOWN)), present)[:SHOWN].tolist()
    names = [classes[i] if isinstance(classes, Sequence) else str(i) for i in some]
    more = f" and {missing - len(names)} more" if missing > len(names) else ""
    warnings.warn(
        f"{where}: no sample of class {', '.join(names)}{more} ({number} classes); "
        "a network cannot learn what it never sees",
        UserWarning,
        stacklevel=3,
    )
