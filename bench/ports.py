"""The ports side by side: what a network takes there, how much work a step is, what it learns, and
how far that is from the host. It emulates every board, so it times none of them.

It wants a checkout with its tests, and the compilers and emulators that `.ci/run` installs.
"keywords" also wants fsdd.npz (the Free Spoken Digit Dataset). "suite" times the ports' tests from
nothing: MicroPython and the root file system are fetched and built again.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tinytrain import Trainer, data, models, optim, report
from tinytrain.bench.machine import data_file, where_and_when
from tinytrain.data.sound import LogMel
from tinytrain.errors import InputError
from tinytrain.models import train_spoken

TESTS = Path(__file__).resolve().parent.parent / "tests"
HEAD = ("port", "network", "arena", "stack", "flash", "work of a step", "steps", "learned", "off")
EPOCH = 360  # updates of the digits at batch 4
BOARD_STEPS = {"M0": 300, "M3": EPOCH}  # where floats are software; else three epochs
KIB = 1024
SPEAKER, HELD = 4, 20  # theo; the first 20 utterances of a digit are the test
LEVEL = 0.6  # brings the pictures to about unit variance
ZERO = (1, 4), 20  # batches and steps on the ARM1176
SUITE = ("ports", "port_table", "port_c99", "port_losses", "micropython", "rpizero")

Row = tuple[str, ...]


def run(data: str | None = None, json: bool = False, only: str | None = None) -> dict[str, Any]:
    """Run the parts whose names contain `only`, print their tables unless `json`, return the rows
    by part. InputError if there is no such part, or a tool is missing."""
    parts = {
        "digits": _digits,
        "keywords": _keywords,
        "micropython": _micropython,
        "rpizero": _rpizero,
        "suite": _suite,
    }
    chosen = [name for name in parts if only is None or only in name]
    if not chosen:
        raise InputError(f"no part is called {only!r}; there are {', '.join(parts)}")
    if not (TESTS / "ports").is_dir():
        raise InputError(f"{TESTS}: a checkout with its tests is wanted")
    _need("gcc", "arm-none-eabi-gcc", "qemu-system-arm", "qemu-arm-static")
    sys.path[:0] = [str(TESTS / "ports"), str(TESTS / "ports" / "micropython")]
    result: dict[str, Any] = where_and_when()
    for name in chosen:
        rows = result[name] = list(parts[name](data))
        if not json:
            print(f"{name}\n{report.table(HEAD, rows)}\n", flush=True)
    if not json:
        print(f"{result['machine']}; {result['date']}")
    return result


def _need(*tools: str) -> None:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        raise InputError(f"missing: {', '.join(missing)}; .ci/run says what installs them")


# ---------------------------------------------------------------------------- c99


def _board(name: str, trainer: Trainer, fed: Any, asked: Any, ram: int, seconds: int) -> Row:
    """Export, run on a board and here, and compare."""
    boards, feed = (importlib.import_module(module) for module in ("boards", "feed"))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        trainer.export("c99", str(folder / "out"))
        feed.write_feed(folder / "feed.bin", trainer, fed, asked)
        program = boards.flash(name, folder / "out", folder / "built", ram)
        got = boards.emulate(name, program, folder, seconds=seconds)
        want = feed.host_figures(trainer, fed, asked)
        sizes = boards.run(["arm-none-eabi-size", str(program)], folder).split()[-6:]
    same = all(got[key] == want[key] for key in want)
    return (
        f"c99, {name}",
        type(trainer.net).__name__,
        f"{trainer.plan.arena_bytes:,}",
        f"{got['stack']:,}",
        f"{int(sizes[0]) + int(sizes[1]):,}",
        f"{got['instructions'] / 1e6:.2f} M instr.",
        str(len(fed)),
        f"{100 * got['right'] / len(asked):.1f} %",
        "0 bits" if same else "OTHER BITS",
    )


def _digits(root: str | None) -> Iterator[Row]:
    """The demo's network at batch 4 within 64 KiB of RAM and 256 KiB of flash."""
    train, test = data.digits()
    assert train.y is not None and test.y is not None
    asked = [(x, int(y)) for x, y in zip(test.x, test.y, strict=True)]
    order = [p for epoch in range(3) for p in data.batches(len(train), 4, 7, epoch, True)]
    for name in importlib.import_module("boards").BOARDS:
        count = BOARD_STEPS.get(name, 3 * EPOCH)
        optimizer = optim.SGD(lr=optim.CosineLR(0.01, count), momentum=0.9)
        net = models.build("digits_cnn")
        trainer = Trainer(net, optimizer=optimizer, batch=4, ram="60K", backend="c", seed=7)
        fed = [(train.x[p], train.y[p].astype(np.int32)) for p in order[:count]]
        yield _board(name, trainer, fed, asked, 64 * KIB, 900)


def _keywords(root: str | None) -> Iterator[Row]:
    """DS-CNN on a Cortex-M7 within 256 KiB of RAM: one epoch of 300 spoken digits of one speaker,
    from random weights, and from what 8 epochs of the five others left."""
    speech = train_spoken.load(data_file(root, "fsdd.npz"), LogMel(frames=49, bands=10))
    rng = np.random.default_rng(0)

    def parts(pick: Any) -> tuple[np.ndarray, np.ndarray]:
        return np.float32(LEVEL) * speech.pictures(pick), speech.digit[pick]

    x, y = parts(rng.permutation(speech.pick([SPEAKER], HELD)))
    held = [(a, int(b)) for a, b in zip(*parts(speech.pick([SPEAKER], 0, HELD)), strict=True)]
    others = parts(rng.permutation(speech.pick([k for k in range(6) if k != SPEAKER])))
    known = models.build("ds_cnn", norm="group", classes=10, seed=0)
    rate = optim.CosineLR(0.003, 8 * -(-len(others[0]) // 32))
    Trainer(known, optimizer=optim.AdamW(lr=rate), batch=32, seed=7).fit(*others, epochs=8)
    fed = [(x[k : k + 1], y[k : k + 1]) for k in range(len(x))]
    for learned, lr in ((False, 0.01), (True, 0.002)):
        net = models.build("ds_cnn", norm="group", classes=10, dropout=0.0, seed=0)
        if learned:
            net.load_state_dict(known.state_dict())
        trainer = Trainer(net, optimizer=optim.SGD(lr=lr), batch=1, ram="250K", backend="c", seed=7)
        tested = (np.stack([a for a, _ in held]), np.array([b for _, b in held]))
        before = 100 * trainer.evaluate(*tested)["accuracy"]
        row = _board("M7", trainer, fed, held, 256 * KIB, 2000)
        yield (*row[:7], f"{before:.1f} to {row[7]}", row[8])


# ---------------------------------------------------------------------------- the others


def _micropython(root: str | None) -> Iterator[Row]:
    """50 steps on MicroPython 1.25 on a bare Cortex-M3, everything in a heap of that size."""
    scripts = importlib.import_module("scripts")
    for case, heap in (("mlp", "32 KiB"), ("digits", "128 KiB")):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "port"
            folder.mkdir()
            scripts.prepare(case, folder)
            want = scripts.on_host(case, folder)
            got = scripts.on_qemu(case, folder, counted=True)
            flash = folder.with_suffix(".romfs").stat().st_size
        numbers = [
            np.array([float(a) for a in text.splitlines()[: scripts.STEPS]]) for text in (got, want)
        ]
        notes = dict(reversed(a[2:].split(" ", 1)) for a in got.splitlines() if a.startswith("# "))
        yield (
            f"micropython, {heap}",
            case,
            f"{notes['bytes of the heap held']} of heap",
            "-",
            f"{flash:,} + firmware",
            f"{int(notes['instructions a step']) / 1e6:.0f} M instr.",
            str(scripts.STEPS),
            f"loss {numbers[0][:10].mean():.2f} to {numbers[0][-10:].mean():.2f}",
            f"{max(np.abs(numbers[0] - numbers[1]).max(), 1e-5):.0e} at most",
        )


def _rpizero(root: str | None) -> Iterator[Row]:
    """The demo's network under the distribution's Python and NumPy 1.24 on an emulated ARM1176, and
    here; NumPy's backend and C, whose build is made with the cross-compiler."""
    zero = importlib.import_module("rpizero.board")
    _need("arm-linux-gnueabi-gcc")
    batches, steps = ZERO
    with tempfile.TemporaryDirectory() as cache:
        command = zero.command(TESTS.parent, Path(cache))
        zero.cross_build(command)
        for where, prefix in (("ARM1176", command), ("host", [sys.executable])):
            for batch in batches:
                yield from _both(zero, where, prefix, batch, steps)


def _both(zero: Any, where: str, prefix: list[str], batch: int, steps: int) -> Iterator[Row]:
    """NumPy's row and C's; the crc of C's weights is compared with the host's."""
    here = zero.measured([sys.executable], "c", batch, steps)
    first: dict[str, float] = {}
    for backend in ("numpy", "c"):
        seconds, memory, crc = zero.measured(prefix, backend, batch, steps)
        first = first or {"seconds": seconds, "memory": memory}
        ratio, more = first["seconds"] / seconds, memory - first["memory"]
        yield (
            f"{where}, {backend}",
            f"digits_cnn, batch {batch}",
            f"peak {memory:,.0f} KiB ({more:+,.0f})",
            "-",
            "-",
            f"{1000 * seconds:.2f} ms (x{ratio:.1f})",
            str(steps),
            "-",
            "-" if backend == "numpy" else "0 bits" if crc == here[2] else "OTHER BITS",
        )


def _suite(root: str | None) -> Iterator[Row]:
    """The ports' tests from nothing, on two processes where pytest-xdist is installed."""
    more = ["-n", "2"] if importlib.util.find_spec("xdist") else []
    files = [str(TESTS / f"test_{name}.py") for name in SUITE]
    with _fresh_cache():
        begin, used = time.perf_counter(), _used()
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *more, *files], cwd=TESTS.parent
        )
        seconds, cpu = time.perf_counter() - begin, _used() - used
    load = f"{seconds:.0f} s, {cpu:.0f} s of CPU, load {os.getloadavg()[1]:.1f}"
    told = "passed" if done.returncode == 0 else "FAILED"
    yield ("all", "the ports' tests", "-", "-", "-", load, "-", told, "-")


@contextlib.contextmanager
def _fresh_cache() -> Iterator[None]:
    """No build of anything at hand."""
    names = ("XDG_CACHE_HOME", "TINYTRAIN_PORTS_CACHE")
    held = {name: os.environ.get(name) for name in names}
    with tempfile.TemporaryDirectory() as place:
        os.environ.update(dict.fromkeys(names, place))
        try:
            yield
        finally:
            for name, value in held.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


def _used() -> float:
    """Seconds of CPU that children have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
