"""The spill file: where spilled values lie while the arena has no room for them.

One background thread moves bytes between the arena and the file, in the order in which transfers
were begun. The file is scratch: it is made anew or reused, never kept, and a file that is not one
of ours is never touched. Every value's checksum is remembered, so that what comes back is what
went out, or an error that names the file. It knows no plan and no step.
"""

from __future__ import annotations

import os
import stat
import threading
import time
import weakref
import zlib
from collections import deque
from io import FileIO
from typing import Any

import numpy as np

from tinytrain.errors import InputError, SpillError

MAGIC = b"tinytrain spill file, scratch\n"
HEADER = 4096  # bytes in front of the first slot, so that slots lie on pages
# What a file system that cannot reserve space answers: a write will tell, then.
CANNOT_RESERVE = ("EINVAL", "EOPNOTSUPP", "ENOSYS", "ENODEV", "ESPIPE")


class SpillFile:
    """A file open for transfers.

    path      made if it is not there, removed when the file is closed. InputError if it cannot be
              opened, or holds anything but an earlier run's spilled values.
    threaded  False: a transfer is done when it is begun, without a thread.
    """

    def __init__(self, path: str | os.PathLike[str], threaded: bool = True):
        self.path = os.fspath(path)
        self.nbytes = 0  # that the plans in use want
        self.changed = False  # for who runs a step: has it changed anything that persists?
        self.lane = _Lane(_open(self.path))
        if threaded:
            self.lane.start()
        self.close = weakref.finalize(self, _close, self.lane, self.path)

    def change(self) -> None:
        """Told by who runs a step, in front of what changes anything that persists."""
        self.changed = True

    def make_room(self) -> None:
        """Before a step: the file is as long as it has to be. SpillError if the disk is full."""
        file = self.lane.file
        try:
            held = os.fstat(file.fileno())
            if not stat.S_ISREG(held.st_mode) or held.st_size >= HEADER + self.nbytes:
                return
            file.seek(0)
            file.write(MAGIC)
            _reserve(file.fileno(), HEADER + self.nbytes)
        except (OSError, ValueError) as error:
            raise _failure(self.path, "made as long as the plan wants", error) from error

    @property
    def seconds(self) -> tuple[float, float]:
        """What transfers have taken so far, and how much of it a step stood still for."""
        return self.lane.moving, self.lane.waiting

    def settle(self) -> None:
        """Forget what was begun and not waited for; no byte moves any more."""
        lane = self.lane
        with lane.turn:
            lane.todo.clear()
            while lane.busy:
                lane.turn.wait()

    def writing(self, array: np.ndarray, offset: int) -> Transfer:
        """A transfer of the array to the slot at `offset`."""
        return Transfer(self.lane, self.path, array, offset)

    def reading(self, array: np.ndarray, source: Transfer) -> Transfer:
        """A transfer to the array of what `source` wrote."""
        return Transfer(self.lane, self.path, array, source.offset, source)


class Transfer:
    """One value on its way, made once and begun in every step."""

    def __init__(
        self, lane: _Lane, path: str, array: np.ndarray, offset: int, source: Transfer | None = None
    ):
        self.lane, self.path, self.offset, self.source = lane, path, offset, source
        self.bytes = array.reshape(-1).view(np.uint8).data
        self.sum = 0
        self.done = True
        self.error: Exception | None = None

    def begin(self) -> None:
        """Take its place behind the transfers already begun."""
        self.done, self.error = False, None
        lane = self.lane
        if lane.thread is None or not lane.thread.is_alive():
            begin = lane.moving
            self.move()
            self.done = True
            lane.waiting += lane.moving - begin
            return
        with lane.turn:
            lane.todo.append(self)
            lane.turn.notify_all()

    def wait(self, status: np.ndarray) -> None:
        """Until it has ended. SpillError, with the path, if it failed."""
        lane = self.lane
        with lane.turn:
            begin = time.perf_counter()
            lane.turn.wait_for(lambda: self.done)
            lane.waiting += time.perf_counter() - begin
        if self.error is not None:
            what = "written" if self.source is None else "read back"
            raise _failure(self.path, what, self.error) from self.error
        status[...] = 0

    def move(self) -> None:
        """Move the bytes, and remember what went wrong."""
        file, begin = self.lane.file, time.perf_counter()
        try:
            file.seek(HEADER + self.offset)
            if self.source is None:
                self.sum = zlib.crc32(self.bytes)
                _write(file, self.bytes)
            else:
                _read(file, self.bytes)
                if zlib.crc32(self.bytes) != self.source.sum:
                    raise ValueError("it holds other bytes than were written")
        except Exception as error:  # told by `wait`, in the thread that runs the step
            self.error = error
        self.lane.moving += time.perf_counter() - begin


class _Lane:
    """What the thread shares with those who begin transfers; it keeps no one of them alive."""

    def __init__(self, file: FileIO):
        self.file = file
        self.todo: deque[Transfer] = deque()
        self.turn = threading.Condition()
        self.busy = self.closed = False
        self.moving = self.waiting = 0.0  # seconds
        self.thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; where the system has none left, transfers are done when begun."""
        self.thread = threading.Thread(target=self.serve, name="tinytrain spill", daemon=True)
        try:
            self.thread.start()
        except RuntimeError:
            self.thread = None

    def serve(self) -> None:
        """The thread: one transfer after the other until the lane is closed."""
        while True:
            with self.turn:
                while not (self.todo or self.closed):
                    self.turn.wait()
                if self.closed:
                    return
                transfer = self.todo.popleft()
                self.busy = True
            transfer.move()
            with self.turn:
                transfer.done, self.busy = True, False
                self.turn.notify_all()
            del transfer

    def join(self) -> None:
        """End the thread; transfers are done when begun from now on."""
        with self.turn:
            self.closed = True
            self.todo.clear()
            self.turn.notify_all()
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join()
        self.thread = None


def _write(file: FileIO, data: memoryview) -> None:
    at = 0
    while at < len(data):
        at += file.write(data[at:])


def _read(file: FileIO, data: memoryview) -> None:
    at = 0
    while at < len(data):
        got = file.readinto(data[at:])
        if not got:
            raise ValueError("it is shorter than what was written to it")
        at += got


def _open(path: str) -> FileIO:
    """The file, for reading and writing."""
    try:
        # Without O_TRUNC, so that a file that is not ours stays as it is.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        file = FileIO(handle, "r+")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: the spill file cannot be opened ({_reason(error)}); name a file in a folder "
            f"that exists and can be written to"
        ) from error
    if stat.S_ISREG(os.fstat(handle).st_mode) and file.read(len(MAGIC)) not in (b"", MAGIC):
        file.close()
        raise InputError(
            f"{path}: the file exists and is no spill file, so it is left as it is; name another "
            f"as spill"
        )
    return file


def _reserve(handle: int, nbytes: int) -> None:
    """Make the file so long, on disk and not in name only where the system can."""
    if hasattr(os, "posix_fallocate"):
        import errno

        try:
            os.posix_fallocate(handle, 0, nbytes)
            return
        except OSError as error:
            if errno.errorcode.get(error.errno or 0) not in CANNOT_RESERVE:
                raise
    os.ftruncate(handle, nbytes)


def _close(lane: _Lane, path: str) -> None:
    """End the thread, close and remove the file."""
    lane.join()
    try:
        held = os.fstat(lane.file.fileno())
        if stat.S_ISREG(held.st_mode) and os.path.samestat(held, os.stat(path)):
            os.remove(path)
    except (OSError, ValueError):
        pass  # it is gone already, or another trainer has put its own there
    lane.file.close()


def _reason(error: Any) -> str:
    return getattr(error, "strerror", None) or str(error)


def _failure(path: str, what: str, error: Exception) -> SpillError:
    return SpillError(
        f"{path}: the spill file cannot be {what} ({_reason(error)}); see to that disk, or name a "
        f"file on another as spill"
    )
