"""Data for training: load a file or a folder, take the embedded digits, draw batches.

Nothing here fetches, unpickles, or guesses around a broken file: whatever does not fit raises one
`tinytrain.errors.InputError` that names the file, the place and the mend. Importing this package
needs NumPy alone; a reader is imported when a file of its kind is loaded.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tinytrain.data.dataset import Dataset, arrays, check
from tinytrain.data.embedded import digits
from tinytrain.data.order import balanced, batches, split
from tinytrain.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Dataset", "arrays", "balanced", "batches", "check", "digits", "load", "split"]

FORMATS = (
    "a folder of class folders (.npy, images or .wav), the four MNIST-named IDX files or their "
    "folder, .npz with x and y, .npy (x alone), or .csv"
)


def load(
    path: str | os.PathLike[str], part: str | None = None, label: str | None = None
) -> Dataset:
    """The data set that a file or a folder holds; the kind is told by the name.

    `.npz` with arrays x, y (optional) and classes (optional, names); `.npy` with x alone; IDX files
    (`*-ubyte`, `*.idx`, also `.gz`), one images file with its labels file beside it, or a folder of
    the four MNIST-named ones; a folder with one folder a class, of `.npy`, images (needs Pillow) or
    PCM `.wav`; `.csv` with the label in the last column.

    `part` is "train" or "test", for a folder that holds both: MNIST-named IDX files (None means
    "train") or two folders of class folders named so. `label` names a CSV's label column, whose
    first row is then its header.

    x is float32, channels last, or int32 (tokens: any integers but uint8). uint8 is pixels, and is
    scaled to [0, 1]; grey images get a channel axis, (N, H, W, 1). A WAV is (samples, 1), in
    [-1, 1). y is int32 labels, float32 targets or None. Raises InputError for whatever cannot be
    read; warns (UserWarning) of a class without a sample.
    """
    if part not in (None, "train", "test"):
        raise InputError(f'load: part is "train" or "test", not {part!r}')
    from pathlib import Path  # a fifth of what importing tinytrain would cost

    try:
        place = Path(path)
    except TypeError:
        kind = type(path).__name__
        raise InputError(f"load: a path is wanted, not {kind}; arrays go to arrays(x, y)") from None
    try:
        return _read(place, part, label)
    except MemoryError:
        raise InputError(
            f"{place}: does not fit in this machine's memory; load less of it"
        ) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"{error.filename or place}: cannot be read ({reason}); is the path right, "
            "and may you read it?"
        ) from error


def _read(place: Path, part: str | None, label: str | None) -> Dataset:
    """The reader for the kind of file; imported here so that `import tinytrain` stays light."""
    if not place.exists():
        raise InputError(f"{place}: no such file or folder; is the path right?")
    if not (place.is_file() or place.is_dir()):
        raise InputError(f"{place}: is neither a file nor a folder; copy its contents to a file")
    kind = _kind(place)
    if label is not None and kind != "csv":
        raise InputError(f"{place}: label={label!r} names a column of a .csv; leave it out here")
    if part is not None and kind not in ("mnist", "classes"):
        raise InputError(f"{place}: has no parts, so part={part!r} means nothing; leave it out")
    if kind == "mnist":
        from tinytrain.data.idx import read_mnist

        return read_mnist(place, part or "train")
    if kind == "classes":
        from tinytrain.data.folder import read_folder

        return read_folder(place, part)
    if kind == "csv":
        from tinytrain.data.table import read_csv

        return read_csv(place, label)
    if kind == "idx":
        from tinytrain.data.idx import read_pair

        return read_pair(place)
    from tinytrain.data.npz import read_npz, read_x

    return read_npz(place) if kind == "npz" else read_x(place)


def _kind(place: Path) -> str:
    """npz, npy, csv, idx, mnist (a folder of IDX files) or classes (a folder of class folders)."""
    name = place.name.lower()
    if place.is_dir():
        idx = any("images" in p.name and "ubyte" in p.name for p in place.iterdir())
        return "mnist" if idx else "classes"
    if name.endswith((".npz", ".npy", ".csv")):
        return name[-3:]
    if name.removesuffix(".gz").endswith(("ubyte", ".idx")):
        return "idx"
    raise InputError(f"{place}: not a kind of data that is read; give {FORMATS}")
