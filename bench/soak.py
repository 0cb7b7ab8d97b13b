"""What holds for a long time: memory that does not grow, a demo within a limit that the system
enforces, and a hundred thousand steps of the C99 port under sanitizers and under valgrind.
"""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np

from tinytrain import InputError, Trainer, models, optim, report
from tinytrain.bench import faults
from tinytrain.bench.machine import where_and_when

CHUNKS = 8
STEPS, PORT_STEPS, VALGRIND_STEPS = 10_000, 100_000, 2_000
ROOMS = range(4, 33)  # MB of address space beside NumPy and the arena, tried in turn
HEAD = ("what", "backend", "steps", "found", "allowed")
LIMITED = """
import resource, sys
import numpy
numpy.ones((256, 256), numpy.float32) @ numpy.ones((256, 256), numpy.float32)  # its own buffers
backend, arena, room, epochs = sys.argv[1], *map(int, sys.argv[2:])
with open("/proc/self/statm") as file:
    held = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + arena + room,) * 2)
from tinytrain.cli import main
sys.exit(main(["demo", "--json", "--backend", backend, "--epochs", str(epochs)]))
"""


def run(data: str | None = None, json: bool = False, quick: bool = False) -> dict[str, Any]:
    """Do all of it, print a table unless `json`; `quick`: a fiftieth of the steps."""
    share = 50 if quick else 1
    rows = []
    for backend in faults.backends():
        rows += grown(backend, STEPS // share)
    for backend in [b for b in faults.backends() if b != "numba"]:  # its compiler needs 125 MB
        rows.append(limited(backend, 1 if quick else 15))
    with tempfile.TemporaryDirectory() as folder:
        rows.append(sanitized(Path(folder) / "asan", PORT_STEPS // share))
        rows.append(checked(Path(folder) / "valgrind", VALGRIND_STEPS // share))
    if not json:
        print(report.table(HEAD, [tuple(r.values()) for r in rows]))
        print(f"\n{where_and_when()}")
    return {**where_and_when(), "rows": rows}


def _row(what: str, backend: str, steps: int, found: Any, allowed: Any) -> dict[str, Any]:
    return {"what": what, "backend": backend, "steps": steps, "found": found, "allowed": allowed}


def rss() -> int:
    """Bytes of this process in memory; InputError where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError as error:
        raise InputError("/proc/self/statm is missing: this wants Linux") from error


def grown(backend: str, steps: int) -> list[dict[str, Any]]:
    """Bytes more after `steps` steps than after a hundredth of them, as the system counts; and as
    Python counts over as many again, in parts: the first still fill the interpreter's free lists,
    a leak shows in each."""
    net = models.build("digits_cnn")
    t = Trainer(net, batch=4, optimizer=optim.SGD(0.01, momentum=0.9), backend=backend)
    rng = np.random.default_rng(0)
    x, y = rng.random((4, 8, 8, 1), np.float32), np.arange(4)
    for _ in range(max(steps // 100, 100)):
        t.step(x, y)
    before = rss()
    for _ in range(steps):
        t.step(x, y)
    more = rss() - before
    traced: list[int] = []
    tracemalloc.start()
    try:
        for _ in range(CHUNKS):
            gc.collect()
            start = tracemalloc.get_traced_memory()[0]
            for _ in range(steps // CHUNKS):
                t.step(x, y)
            gc.collect()
            traced.append(tracemalloc.get_traced_memory()[0] - start)
    finally:
        tracemalloc.stop()
    return [
        _row("RSS more, bytes", backend, steps, more, 1 << 20),
        _row("traced more, least of 8 parts", backend, steps, min(traced), 2048),
    ]


def limited(backend: str, epochs: int, rooms: range = ROOMS) -> dict[str, Any]:
    """The demo in a process that may have what NumPy has taken once it has multiplied, the arena of
    64 KB, and so many MB: the least of `rooms` in which it trains."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(p) for p in sys.path)}
    found = "more"
    for room in rooms:
        sizes = map(str, (1 << 16, room << 20, epochs))
        command = [sys.executable, "-c", LIMITED, backend, *sizes]
        done = subprocess.run(command, capture_output=True, text=True, env=env)
        if done.returncode == 0 and '"test_accuracy"' in done.stdout:
            found = str(room)
            break
    return _row("demo beside NumPy and 64K, MB", backend, epochs, found, "8")


def sanitized(folder: Path, steps: int) -> dict[str, Any]:
    """The port, trained and saved into slots, with AddressSanitizer and UBSan."""
    faults.build(folder, "address,undefined")
    done = _port(["./c99_resume"], folder, steps)
    return _row("C99 port, ASan and UBSan", "c99", steps, _outcome(done), "clean")


def checked(folder: Path, steps: int) -> dict[str, Any]:
    """The same in valgrind, which is slower, and finds reads of what was never written."""
    if shutil.which("valgrind") is None:
        return _row("C99 port, valgrind", "c99", 0, "valgrind is missing", "clean")
    faults.build(folder, "")
    command = ["valgrind", "--quiet", "--error-exitcode=99", "--leak-check=full", "./c99_resume"]
    done = _port(command, folder, steps)
    return _row("C99 port, valgrind", "c99", steps, _outcome(done), "clean")


def _port(command: list[str], folder: Path, steps: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, str(steps), "state"], cwd=folder, capture_output=True, text=True
    )


def _outcome(done: subprocess.CompletedProcess[str]) -> str:
    return "clean" if done.returncode == 0 else (done.stdout + done.stderr).strip()[-200:]
