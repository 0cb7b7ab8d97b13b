"""Reads a folder that has one folder a class, one file a sample; it never resizes or resamples."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytrain.data.bounded import affordable
from tinytrain.data.dataset import Dataset, arrays, refuse_not_finite, to_array, to_inputs
from tinytrain.errors import InputError

Array = NDArray[Any]

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
KINDS = {".npy": "npy", ".wav": "wav", **dict.fromkeys(IMAGES, "image")}

GREY_MODES = {"1": "L", "L": "L", "LA": "L"}
COLOUR_MODES = dict.fromkeys(("P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB"), "RGB")
MODES = GREY_MODES | COLOUR_MODES
"""Pillow's 8-bit modes and what they are read as; alpha is left out."""


def read_folder(root: Path, part: str | None) -> Dataset:
    """x and y of a folder of class folders; labels count the classes in the order of their names.

    Folders `train` and `test`, alone, hold class folders each; `part` chooses. Hidden files and
    files beside the class folders are passed over. Raises InputError; warns of an empty class.
    """
    classes = _folders(root)
    if {folder.name for folder in classes} == {"train", "test"}:
        root = root / (part or "train")
        classes = _folders(root)
    elif part is not None:
        raise InputError(f"{root}: has no folders train and test for part={part!r}; leave it out")
    if len(classes) < 2:
        found = f"one class only, {classes[0].name}" if classes else "no class folder"
        raise InputError(
            f"{root}: holds {found}; make one folder for each class, two or more, "
            "with its samples inside"
        )
    files = [(label, file) for label, folder in enumerate(classes) for file in _files(folder)]
    if not files:
        raise InputError(f"{root}: its class folders hold no file; put samples into them")
    x = _samples([file for _, file in files])
    y = np.array([label for label, _ in files], np.int32)
    return arrays(x, y, [folder.name for folder in classes], where=str(root))


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _files(folder: Path) -> list[Path]:
    files = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    for file in files:
        if not file.is_file() or file.suffix.lower() not in KINDS:
            raise InputError(
                f"{file}: is no sample; a class folder holds .npy, .wav or images "
                f"({' '.join(IMAGES)}): move it away"
            )
    return files


def _samples(files: list[Path]) -> Array:
    """All samples as one array, filled file by file: never two copies of the data."""
    first, rate = _sample(files[0])
    affordable(len(files) * first.nbytes, str(files[0].parent.parent))
    x = np.empty((len(files), *first.shape), first.dtype)
    for i, file in enumerate(files):
        if KINDS[file.suffix.lower()] != KINDS[files[0].suffix.lower()]:
            raise InputError(f"{file}: another kind than {files[0]}; keep one kind of file")
        sample, its_rate = _sample(file)
        for what, own, other in (
            ("shape", sample.shape, first.shape),
            ("dtype", sample.dtype, first.dtype),
            ("rate in Hz", its_rate, rate),
        ):
            if own != other:
                raise InputError(
                    f"{file}: its {what} is {own}, but {files[0]} has {other}; "
                    "cut, resize or convert them to be alike"
                )
        x[i] = sample
    return x


def _sample(file: Path) -> tuple[Array, int]:
    """One sample in a Dataset's dtype, and its rate (0 unless it is sound)."""
    kind = KINDS[file.suffix.lower()]
    if kind == "wav":
        from tinytrain.data.wav import read_wav

        return read_wav(file)
    if kind == "image":
        raw = _image(file)
    else:
        from tinytrain.data.npz import read_npy

        raw = read_npy(file)
    batch = to_inputs(to_array(raw[np.newaxis], str(file), "the array"), str(file))
    # Without the axis of samples, the index in a message is the one inside this file.
    refuse_not_finite(batch[0] if batch.ndim > 1 else batch, str(file), "the array")
    return batch[0], 0


def _image(file: Path) -> Array:
    """uint8 (H, W) or (H, W, 3), upright by its EXIF tag, through Pillow."""
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise InputError(
            f"{file}: reading images needs Pillow: pip install pillow, "
            "or save the images as .npy files"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Pillow only warns of a header that declares gigabytes
            with Image.open(file) as image:
                mode = image.mode
                if mode in MODES:
                    return np.asarray(ImageOps.exif_transpose(image).convert(MODES[mode]))
    except MemoryError:
        raise
    except Exception as error:  # each of Pillow's formats fails in its own way
        raise InputError(f"{file}: a broken image ({error}); make it again or remove it") from error
    raise InputError(
        f"{file}: its pixels are of Pillow's mode {mode}, not 8-bit; "
        "convert it to 8-bit grey or colour, or save it as .npy"
    )
