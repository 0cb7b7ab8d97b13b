"""Faults done to training on purpose: what is killed, cut, flipped or has no room left must find
the last saved state again, or the last but one, and say which. It needs fork, so POSIX.

Every state that is found is compared, bit for bit, with the run that nothing happened to.
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tinytrain import InputError, Trainer, checkpoint, durable, models, optim
from tinytrain.bench.machine import where_and_when
from tinytrain.ports import c99

STEPS = 400  # of the run that is killed again and again
BATCH, SAMPLES = 4, 22
ENDED = ("durable.py", "checkpoint.py", "zipfile.py")  # where a save is ended, line by line
PROGRAMS = Path(__file__).resolve().parent.parent / "tests" / "ports"
HEAD = ("fault", "tries", "last", "last but one", "lost")


@dataclass
class Fault:
    """How often a fault was done, and what was there afterwards."""

    name: str
    tries: int = 0
    last: int = 0
    before: int = 0  # the last but one
    lost: list[str] = field(default_factory=list)

    def count(self, found: str, what: str = "") -> None:
        """`found` is "last", "before", or anything else: lost."""
        self.tries += 1
        if found in ("last", "before"):
            setattr(self, found, getattr(self, found) + 1)
        else:
            self.lost.append(f"{what}: {found}")


def run(
    data: str | None = None, json: bool = False, quick: bool = False, only: str | None = None
) -> dict[str, Any]:
    """Do every fault (or the kinds whose name contains `only`), print a table unless `json`;
    `quick`: a few of each."""
    n = 30 if quick else 1
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        kinds: dict[str, Callable[[], list[Fault]]] = {
            "kill": lambda: [kills(place / b, 70 // n, b) for b in backends()],
            "port": lambda: _port(place / "port", 60 // n),
            "line": lambda: _lines(place, n),
            "room": lambda: [
                no_room(place / "room", 113 * n),
                full_disk(place / "full", n),
                read_only(place / "ro"),
            ],
            "damage": lambda: [
                flips(place / "flips", 23 * n),
                cuts(place / "cuts", 23 * n),
            ],
        }
        chosen = [kind for kind in kinds if only is None or only in kind]
        faults = [fault for kind in chosen for fault in kinds[kind]()]
    if not json:
        print(_table(faults))
        print(f"\n{where_and_when()}")
    return {**where_and_when(), "faults": [asdict(f) for f in faults]}


def _port(folder: Path, tries: int) -> list[Fault]:
    build(folder)
    return [port_kills(folder, tries), *flash(folder)]


def _lines(place: Path, n: int) -> list[Fault]:
    every = 1 + n // 10
    linked = [lines(place / f"link{k}", every, k, ENDED[:1]) for k in (True, False)]
    return [*linked, lines(place / "lines", 61 * n, True, ENDED)]


def _table(faults: list[Fault]) -> str:
    rows = [(f.name, f.tries, f.last, f.before, len(f.lost)) for f in faults]
    lines = [" | ".join(map(str, row)) for row in (HEAD, ("---",) * len(HEAD), *rows)]
    said = [f"\n{f.name}: {what}" for f in faults for what in f.lost]
    return "\n".join([f"| {line} |" for line in lines] + said)


def backends() -> list[str]:
    """Those that run here."""
    found = ["numpy"]
    with contextlib.suppress(ImportError):
        from tinytrain.kernels import numba_  # noqa: F401

        found.append("numba")
    with contextlib.suppress(ImportError):
        from tinytrain.kernels import c_

        c_.library()
        found.append("c")
    return found


# ---------------------------------------------------------------------------- what is trained


def trainer(backend: str = "numpy") -> Trainer:
    """Batch norm, dropout, momentum and a schedule, small."""
    net = models.build("ds_cnn", classes=3, input_shape=(8, 6, 1), channels=4, seed=1)
    rate = optim.CosineLR(0.05, STEPS)
    return Trainer(net, optimizer=optim.SGD(rate, 0.9), batch=BATCH, backend=backend, seed=3)


def samples() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((SAMPLES, 8, 6, 1)).astype(np.float32), np.arange(SAMPLES) % 3


def mark(t: Trainer) -> int:
    """CRC-32 of everything that persists, and of the position."""
    crc = zlib.crc32(repr((t.steps, t.epoch, t.within)).encode())
    for name, view in sorted(t.state().items()):
        crc = zlib.crc32(view.tobytes(), zlib.crc32(name.encode(), crc))
    return crc


class Over(Exception):
    """The run has made its steps."""


def train(t: Trainer, on_step: Callable[[], None], steps: int = STEPS) -> None:
    """On to `steps` updates, from wherever it stands, in the middle of an epoch too."""

    def each(step: int, loss: float) -> None:
        on_step()
        if step >= steps:
            raise Over

    with contextlib.suppress(Over):
        while t.steps < steps:
            t.fit(*samples(), epochs=1, on_step=each, progress=False)


def marks(backend: str, steps: int = STEPS) -> dict[int, int]:
    """step -> mark of the run that nothing happens to."""
    t = trainer(backend)
    found = {0: mark(t)}
    train(t, lambda: found.__setitem__(t.steps, mark(t)), steps)
    return found


def found_at(path: Path) -> tuple[Trainer, bool]:
    """What a restart finds, and whether it said that this is the last but one."""
    t = _reader()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        checkpoint.apply(t, str(path), *checkpoint.read(str(path)))
    return t, any(durable.previous(str(path)) in str(w.message) for w in said)


@functools.cache
def _reader() -> Trainer:
    """Planned once, for thousands of files."""
    return trainer()


# ---------------------------------------------------------------------------- killed


@contextlib.contextmanager
def child(work: Callable[[], Any]) -> Iterator[int]:
    """`work` in a process of its own, which is waited for at the end."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    try:
        yield pid
    finally:
        os.waitpid(pid, 0)


def kills(folder: Path, tries: int, backend: str) -> Fault:
    """kill -9 at random moments of training that saves after every update, then on from there."""
    folder.mkdir()
    path, log = folder / "net.npz", folder / "log"
    want, fault = marks(backend), Fault(f"kill -9 while training and saving ({backend})")
    rng = np.random.default_rng(1)

    def work() -> None:
        there = path.exists()
        t = Trainer.restore(str(path), backend=backend) if there else trainer(backend)
        with open(log, "ab", buffering=0) as file:

            def on_step() -> None:
                t.save(str(path))
                file.write(b"%d\n" % t.steps)

            train(t, on_step)

    log.touch()
    while fault.tries < tries:
        with child(work) as pid:
            begun = _last_line(log)
            while _last_line(log) == begun and not _is_over(pid):  # restored, and training again
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.02))
            os.kill(pid, signal.SIGKILL)
        done = _last_line(log)
        t, before = found_at(path)
        right = done <= t.steps <= done + 1 and not before and mark(t) == want[t.steps]
        fault.count("last" if right else f"step {t.steps}", f"killed behind step {done}")
        if t.steps >= STEPS:
            path.unlink()
            log.write_bytes(b"")
    return fault


def _last_line(log: Path) -> int:
    return int((log.read_bytes().split() or [b"0"])[-1])


def _is_over(pid: int) -> bool:
    """Without taking its status away from who waits for it."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def lines(folder: Path, every: int, links: bool, files: tuple[str, ...]) -> Fault:
    """Ended at every `every`-th line of these files that Python runs in a save."""
    folder.mkdir()
    path = folder / "net.npz"
    name = f"ended at every {every}. line of a save in {files[-1]}"
    name += "" if links else ", without hard links (FAT)"
    fault, t, x, y = Fault(name), trainer(), *samples()
    ready = []
    for k in range(3):
        t.step(x[:BATCH] + k, y[:BATCH])
        ready.append(mark(t))
        if k < 2:
            t.save(str(path))
    kept = {p: p.read_bytes() for p in (path, Path(durable.previous(str(path))))}

    def save(stop: int) -> None:
        left = [stop]

        def trace(frame: Any, event: str, arg: Any) -> Any:
            if not frame.f_code.co_filename.endswith(files):
                return None
            left[0] -= event == "line"
            return trace if left[0] > 0 else os._exit(9)

        if not links:
            os.link = _no_links  # type: ignore[assignment]
        sys.settrace(trace)
        t.save(str(path))

    for stop in range(1, 100_000, every):
        for p, content in kept.items():
            p.write_bytes(content)
        with child(functools.partial(save, stop)) as pid:
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        got, said = found_at(path)
        found = {ready[1]: "before" if said else "last", ready[2]: "last"}.get(mark(got), "mixed")
        fault.count(found, f"line {stop}")
        if ended is not None and ended.si_status == 0:
            break
    return fault


def _no_links(*_: Any) -> None:
    raise OSError(95, "Operation not supported")


def port_kills(folder: Path, tries: int) -> Fault:
    """kill -9 of the C99 port, which saves into slots of a file after every update."""
    rng, fault = np.random.default_rng(2), Fault("kill -9 while training and saving (c99 port)")
    command = [str(folder / "c99_resume"), "4000"]
    begin = time.perf_counter()
    whole = _state(subprocess.run([*command, str(folder / "whole")], **_TEXT))
    seconds, file = time.perf_counter() - begin, folder / "killed"
    reached, left = 0, tries
    while left:
        process = subprocess.Popen([*command, str(file)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        words = process.stdout.readline().split()
        time.sleep(rng.uniform(0, 3 * seconds / tries))
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        right = int(words[1]) >= reached and (not rest or _state(rest) == whole)
        found = "before" if words[3] == "1" else "last"
        fault.count(found if right else "lost", str(words))
        reached, left = int(words[1]), left - 1
        if rest:
            file.unlink()
            reached = 0
    right = _state(subprocess.run([*command, str(file)], **_TEXT)) == whole
    fault.count("last" if right else "another state", "the end of the run")
    return fault


_TEXT: dict[str, Any] = {"capture_output": True, "text": True, "check": True}


def _state(done: Any) -> str:
    printed = done if isinstance(done, str) else done.stdout
    return next(line for line in printed.splitlines() if line.startswith("state"))


# ---------------------------------------------------------------------------- no room


def _two_saves(folder: Path) -> tuple[Path, Trainer, dict[str, int]]:
    """A file and the one before it, the trainer that wrote both, and their marks."""
    folder.mkdir(exist_ok=True)
    path, t, (x, y) = folder / "net.npz", trainer(), samples()
    found = {}
    for what in ("before", "last"):
        t.step(x[:BATCH], y[:BATCH])
        t.save(str(path))
        found[what] = mark(t)
    return path, t, found


def _refused(t: Trainer, path: Path, last: int) -> str:
    """A save that must fail: what is found after it."""
    listed = sorted(p.name for p in path.parent.iterdir())
    try:
        t.save(str(path))
        return "it was saved"
    except InputError as error:
        if "nothing was changed" not in str(error):
            return str(error)
    if sorted(p.name for p in path.parent.iterdir()) != listed:
        return "files were left"
    got, said = found_at(path)
    return "last" if mark(got) == last and not said else "mixed"


def no_room(folder: Path, every: int) -> Fault:
    """The disk takes so many bytes of a file and no more."""
    path, t, want = _two_saves(folder)
    fault = Fault(f"no room for more than n bytes of a file (every {every}.)")
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    for n in range(0, path.stat().st_size, every):
        resource.setrlimit(resource.RLIMIT_FSIZE, (n, most[1]))
        try:
            found = _refused(t, path, want["last"])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, most)
        fault.count(found, f"{n} bytes")
    return fault


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[bool]:
    """A disk in memory, if this machine lets one be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    there = shutil.which("mount") and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield bool(there)
    finally:
        if there:
            subprocess.run(["umount", str(folder)], check=True)


def full_disk(folder: Path, every: int) -> Fault:
    """A disk of 96 KiB that fills up with something else, page by page."""
    fault = Fault("full disk (tmpfs)")
    with mounted(folder, "size=96k") as there:
        if there:
            path, t, want = _two_saves(folder)
            for n in range(0, 24, every):
                with (
                    open(folder / "other", "wb", buffering=0) as file,
                    contextlib.suppress(OSError),
                ):
                    file.write(bytes(4096 * (24 - n)))
                free = os.statvfs(folder).f_bavail * 4096
                if free < path.stat().st_size:
                    fault.count(_refused(t, path, want["last"]), f"{free} bytes free")
        else:
            fault.name += ": not done, nothing can be mounted here"
    return fault


def read_only(folder: Path) -> Fault:
    fault = Fault("read-only disk (tmpfs)")
    with mounted(folder, "size=1m") as there:
        if there:
            path, t, want = _two_saves(folder)
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
            fault.count(_refused(t, path, want["last"]))
        else:
            fault.name += ": not done, nothing can be mounted here"
    return fault


# ---------------------------------------------------------------------------- damaged


def flips(folder: Path, every: int) -> Fault:
    """A flipped bit in every byte of the newest file."""
    path, _, want = _two_saves(folder)
    whole, rng = path.read_bytes(), np.random.default_rng(3)
    fault = Fault(f"a flipped bit in every {every}. byte")
    for at in range(0, len(whole), every):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        fault.count(_one_of_two(path, want), f"byte {at}")
    return fault


def cuts(folder: Path, every: int) -> Fault:
    """The newest file cut at every length."""
    path, _, want = _two_saves(folder)
    whole, fault = path.read_bytes(), Fault(f"cut at every {every}. length")
    for n in range(0, len(whole), every):
        path.write_bytes(whole[:n])
        fault.count(_one_of_two(path, want), f"{n} bytes")
    return fault


def _one_of_two(path: Path, want: dict[str, int]) -> str:
    """Which state is found: the one that is said, or a mix of both."""
    try:
        t, said = found_at(path)
    except InputError as error:
        return str(error)
    found = "before" if said else "last"
    return found if mark(t) == want[found] else "mixed"


# ---------------------------------------------------------------------------- a board's flash


def build(folder: Path, sanitize: str = "undefined") -> Path:
    """A small export with the tests' programs, compiled with these sanitizers."""
    if not PROGRAMS.is_dir() or shutil.which("gcc") is None:
        raise InputError(f"{PROGRAMS}: a checkout with its tests is wanted, and gcc")
    net = models.build("mlp", classes=3, input_shape=(2, 2, 1), hidden=(5,), seed=1)
    t = Trainer(net, batch=2, microbatch=1, optimizer=optim.SGD(0.1, 0.9), backend="numpy")
    c99.export(t, folder)
    flags = [f"-fsanitize={sanitize}", "-fno-sanitize-recover"] if sanitize else []
    gcc = ["gcc", "-std=c99", "-ffp-contract=off", "-O1", "-g", *flags, f"-I{folder / 'src'}"]
    files = [str(p) for p in folder.glob("src/*.c")]
    subprocess.run([*gcc, "-c", *files], cwd=folder, check=True)
    objects = [p.name for p in folder.glob("*.o")]
    for name in ("c99_slots", "c99_resume"):
        source = str(PROGRAMS / f"{name}.c")
        strict = [*gcc, "-Wall", "-Wextra", "-Werror", source, *objects, "-o", name]
        subprocess.run(strict, cwd=folder, check=True)
    return folder


def flash(folder: Path) -> list[Fault]:
    """Every event of the flash driver: see the program."""
    done = subprocess.run([str(folder / "c99_slots")], capture_output=True, text=True)
    if done.returncode:
        return [Fault("flash driver", 1, 0, 0, [done.stdout])]
    faults = []
    for line in done.stdout.splitlines():
        name, tries, last, before = line.split()
        faults.append(Fault(f"flash driver: {name}", int(tries), int(last), int(before)))
    return faults
