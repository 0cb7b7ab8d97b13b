"""Files that survive a power cut: written aside, synced, renamed, the one before kept beside it.
It never writes over a file that is in use, and it knows nothing of what a file holds.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import IO, Any

from tinytrain.errors import InputError

PART = ".part"  # of files that are not finished


def previous(path: str) -> str:
    """Where the file that `path` replaced lies."""
    return f"{path}.previous"


def write(path: str, fill: Callable[[IO[bytes]], Any], keep: bool) -> None:
    """Let `fill` write a file that takes the place of `path` only once it lies on the disk whole;
    with `keep`, what lay at `path` goes on as `previous(path)`.

    At any moment at least one of the two is whole. InputError if the disk is full or cannot be
    written; nothing was changed then.
    """
    path = os.fspath(path)
    aside, spare = (f"{path}.{os.getpid()}{end}" for end in (PART, f".old{PART}"))
    try:
        _sweep(path)
        with open(aside, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        kept = keep and _second_name(path, spare)
        os.replace(aside, path)
        if kept:
            os.replace(spare, previous(path))
        _sync_folder(path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); nothing was changed"
        ) from error
    finally:
        for name in (aside, spare):
            with contextlib.suppress(OSError):
                os.remove(name)


def _second_name(path: str, spare: str) -> bool:
    """Give the file at `path` a second name. Where there are no hard links (FAT) it becomes the
    previous one at once, and for a moment only that is there."""
    try:
        os.link(path, spare)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.replace(path, previous(path))
        return False
    return True


def _sync_folder(path: str) -> None:
    """Bring the new names to the disk, where the system can (Windows cannot)."""
    if os.name == "nt":
        return
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _sweep(path: str) -> None:
    """Remove what writers that were killed left beside `path`."""
    folder, name = os.path.split(path)
    with contextlib.suppress(OSError):
        for found in os.listdir(folder or "."):
            rest = found.removeprefix(f"{name}.")
            pid = rest.removesuffix(PART).removesuffix(".old")
            if rest != found and rest.endswith(PART) and pid.isdecimal() and not _runs(int(pid)):
                os.remove(os.path.join(folder, found))


def _runs(pid: int) -> bool:
    """Whether this process runs; in doubt, it does."""
    if os.name == "nt":  # os.kill would end it there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
