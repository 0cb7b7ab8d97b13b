"""Reads .npy and .npz arrays of numbers, headers by NumPy's own parser; it never unpickles."""

import math
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from tinytrain.data.bounded import DEFLATE_LIMIT, affordable, at_end, exactly
from tinytrain.data.dataset import Dataset, arrays
from tinytrain.errors import InputError

Array = NDArray[Any]

MAX_DIMS = 32
"""NumPy 1's limit; NumPy 2 has 64."""


def read_npz(path: Path) -> Dataset:
    """x (needed), y and classes (names; both optional) of an .npz; raises InputError."""
    found = read_members(path, ("x", "y", "classes"))
    if "x" not in found:
        raise InputError(f"{path}: has no array x; write it with np.savez(path, x=x, y=y)")
    classes = _names(found["classes"], path) if "classes" in found else None
    return arrays(found["x"], found.get("y"), classes, where=str(path))


def read_members(path: Path, names: tuple[str, ...] | None = None) -> dict[str, Array]:
    """All arrays that an .npz holds, or those of these names, as they were stored; raises
    InputError."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            wanted = [name for name in (infos if names is None else names) if name in infos]
            _refuse_bombs([infos[name] for name in wanted], path)
            return {name: _member(archive, infos[name], path) for name in wanted}
    except (InputError, MemoryError, PermissionError, FileNotFoundError):
        raise
    except Exception as error:  # zipfile raises a dozen kinds for damage: all mean one thing
        raise InputError(
            f"{path}: not a whole .npz file ({error}); is it truncated? write it again"
        ) from error


def read_x(path: Path) -> Dataset:
    """An .npy's array as x, without labels."""
    return arrays(read_npy(path), where=str(path))


def read_npy(path: Path) -> Array:
    """The array of an .npy file, any dtype but objects; its size is checked before it is read."""
    with open(path, "rb") as stream:
        return _array(stream, path.stat().st_size, str(path))


def _refuse_bombs(infos: list[zipfile.ZipInfo], path: Path) -> None:
    """Sizes that no such file can hold (members that overlap), or that no memory here can; nothing
    is unpacked to find out. np.savez stores or deflates: what unpacks further is refused."""
    for info in infos:
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(
                f"{path}: {info.filename} is packed by method {info.compress_type}, not stored or "
                "deflated; write it again with np.savez"
            )
    declared, size = sum(info.file_size for info in infos), path.stat().st_size
    if declared > size * DEFLATE_LIMIT:
        raise InputError(
            f"{path}: declares {declared:,} bytes, more than a file of {size:,} can hold; write it "
            "again with np.savez"
        )
    affordable(declared, str(path))


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> Array:
    with archive.open(info) as stream:
        return _array(stream, info.file_size, f"{path}: {info.filename}")


def _array(stream: IO[bytes], size: int, where: str) -> Array:
    """The array of an .npy stream that is `size` bytes long."""
    shape, fortran, dtype = _header(stream, where)
    nbytes = math.prod(shape) * dtype.itemsize
    real = size - stream.tell()
    if nbytes != real:
        raise InputError(
            f"{where}: its header declares {dtype} {shape}, {nbytes:,} bytes, but {real:,} follow; "
            "is it truncated? write it again"
        )
    data = exactly(stream, nbytes, where)
    at_end(stream, where)
    if not nbytes:
        return np.empty(shape, dtype)
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _header(stream: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, Fortran order and dtype; objects are refused, for reading them would be unpickling."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a header from Python 2 or with odd escapes is refused
            version = np.lib.format.read_magic(stream)
            reader = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran, dtype = reader(stream)
    except Exception as error:  # a header is a Python literal: anything may be wrong with it
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{where}: not an .npy array ({reason}); write it with np.save or np.savez"
        ) from error
    if dtype.hasobject:
        raise InputError(
            f"{where}: holds Python objects (dtype {dtype}), which are never unpickled; "
            "save an array of numbers, all samples of one shape"
        )
    if len(shape) > MAX_DIMS or any(n < 0 for n in shape):
        raise InputError(f"{where}: its header declares the shape {shape}; write it again")
    return shape, fortran, dtype


def _names(names: Array, path: Path) -> list[str]:
    if names.dtype.kind != "U" or names.ndim != 1:
        raise InputError(
            f"{path}: classes has dtype {names.dtype} and shape {names.shape}; "
            "it holds one name for each label: np.array(['cat', 'dog'])"
        )
    return [str(name) for name in names]
