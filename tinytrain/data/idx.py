"""Reads IDX files, plain or gzipped (the format of MNIST); writes none, and fetches none.

The format: two zero bytes, a type code, the number of dimensions, each dimension as a big-endian
uint32, then the values, big-endian (LeCun, Cortes and Burges, "The MNIST database", 1998).
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from tinytrain.data.bounded import DEFLATE_LIMIT, affordable, at_end, exactly
from tinytrain.data.dataset import Dataset, arrays
from tinytrain.errors import InputError

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAX_DIMS = 8
PREFIX = {"train": "train", "test": "t10k"}


def read_mnist(folder: Path, part: str) -> Dataset:
    """One part, "train" or "test", of a folder of the four MNIST-named files."""
    images = _find(folder, f"{PREFIX[part]}-images", 3)
    labels = _find(folder, f"{PREFIX[part]}-labels", 1)
    return _pair(images, labels)


def read_pair(path: Path) -> Dataset:
    """An IDX file as x; a name with "images" takes y from the "labels" file beside it, if any."""
    if "labels" in path.name:
        raise InputError(f"{path}: holds labels by its name; give the images file, or the folder")
    name = path.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
    for candidate in (path.with_name(name), path.with_name(name + ".gz")):
        if "images" in path.name and candidate.exists():
            return _pair(path, candidate)
    return arrays(read_idx(path), where=str(path))


def read_idx(path: Path) -> NDArray[Any]:
    """The array of one IDX file, in the file's type; the name's `.gz` tells that it is gzipped."""
    zipped = path.suffix == ".gz"
    try:
        with open(path, "rb") as file:
            stream = cast(IO[bytes], gzip.GzipFile(fileobj=file)) if zipped else file
            return _values(stream, path, zipped)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{path}: not a whole gzip file ({error}); is it truncated? copy it again"
        ) from error


def _values(stream: IO[bytes], path: Path, zipped: bool) -> NDArray[Any]:
    where = str(path)
    zero, code, dims = struct.unpack(">HBB", exactly(stream, 4, where))
    if zero or code not in TYPES or not 1 <= dims <= MAX_DIMS:
        magic = (zero << 16) | (code << 8) | dims
        raise InputError(
            f"{path}: is no IDX file: its magic number is 0x{magic:08x}, "
            "images have 0x00000803 and labels 0x00000801"
        )
    shape = struct.unpack(f">{dims}I", exactly(stream, 4 * dims, where))
    dtype = np.dtype(TYPES[code])
    nbytes = math.prod(shape) * dtype.itemsize
    size = path.stat().st_size
    if nbytes > size * DEFLATE_LIMIT if zipped else nbytes != size - stream.tell():
        raise InputError(
            f"{path}: its header declares {dtype} {shape}, {nbytes:,} bytes, "
            f"but the file has {size:,}; is it truncated? copy it again"
        )
    affordable(nbytes, where)
    data = exactly(stream, nbytes, where)
    at_end(stream, where)
    return np.frombuffer(data, dtype).reshape(shape) if nbytes else np.empty(shape, dtype)


def _pair(images: Path, labels: Path) -> Dataset:
    x, y = read_idx(images), read_idx(labels)
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise InputError(f"{labels}: holds {y.dtype} {y.shape}; labels are integers, one a sample")
    return arrays(x, y, where=f"{images} with {labels.name}")


def _find(folder: Path, stem: str, dims: int) -> Path:
    """The file, plain or gzipped; some mirrors write a dot where the original has a dash."""
    name = f"{stem}-idx{dims}-ubyte"
    for candidate in (name, name + ".gz", f"{stem}.idx{dims}-ubyte", f"{stem}.idx{dims}-ubyte.gz"):
        if (folder / candidate).is_file():
            return folder / candidate
    raise InputError(f"{folder}: has no {name}, nor {name}.gz; put it beside the others")
