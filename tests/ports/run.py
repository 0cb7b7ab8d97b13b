"""Port tests like MicroPython's own: a script runs on the host and on a port, and the lines that it
prints must agree, numbers to within 0.001 (`lines.py`).

    python tests/ports/run.py [--port host|c99|rpizero|micropython] [CASE...]

host         MicroPython's runtime under this interpreter; the exported C, built for this machine
c99          the exported C on emulated processors and Cortex-M boards
rpizero      tinytrain itself on an emulated ARM1176, in 64 MiB of address space
micropython  MicroPython built for this machine (unix), and on an emulated bare Cortex-M3 (qemu)

A CASE is a part of a job's name. A tool that is missing is named as SKIP; with
TINYTRAIN_REQUIRE_PORTS=1 that is a failure. Builds are kept in TINYTRAIN_PORTS_CACHE, else in the
user's cache.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# Run as a script, it finds the checkout too.
sys.path[:0] = [str(HERE), str(HERE / "micropython"), str(ROOT)]

import boards
import scripts
from feed import host_figures, write_feed
from lines import Missing, difference, need
from rpizero import board as zero

import tinytrain as tt
from tinytrain.kernels import c_

Job = Callable[[], tuple[str, str]]  # what the port prints, and what the host does
RAM, STEPS, ASKED = 64 * 1024, 5, 20
FIGURES = ("losses", "state", "overflows", "right")  # that `c99_program.c` prints, in this order


@functools.cache
def _exported() -> tuple[Path, str]:
    """The demo's network and its data as C, and what that must print, by the C backend."""
    if not c_.is_there():
        raise Missing("a C compiler")
    train, test = tt.data.digits()
    fed = [
        (train.x[k : k + 4], train.y[k : k + 4].astype(np.int32)) for k in range(0, 4 * STEPS, 4)
    ]
    asked = [(test.x[k], int(test.y[k])) for k in range(ASKED)]
    optimizer = tt.optim.SGD(lr=0.01, momentum=0.9)
    given = {"batch": 4, "ram": "60K", "backend": "c", "seed": 7}
    trainer = tt.Trainer(tt.models.build("digits_cnn"), optimizer=optimizer, **given)
    folder = Path(tempfile.mkdtemp(dir=boards.PLACE))
    trainer.export("c99", str(folder))
    write_feed(folder / "feed.bin", trainer, fed, asked)
    figures = host_figures(trainer, fed, asked)
    return folder, "".join(f"{name} {figures[name]:08x}\n" for name in FIGURES)


def _in_c(name: str) -> tuple[str, str]:
    """With a compiler for this machine, on an emulated processor, or on a board of 64 KiB."""
    folder, want = _exported()
    if name in boards.BOARDS:
        need("arm-none-eabi-gcc", "qemu-system-arm")
        program = boards.flash(name, folder, folder / name, RAM)
        command = boards.qemu(name, program)
    elif name in boards.PROCESSORS:
        cc, emulator, flags = boards.PROCESSORS[name]
        need(cc, emulator)
        command = [emulator, *flags, boards.build(cc, ["-O2", "-static"], folder)]
    else:
        need(name)
        command = [boards.build(name, ["-O2"], folder)]
    printed = boards.run(command, folder, 250).splitlines(keepends=True)
    # Ticks and the depth of the stack are the board's own affair.
    own = ("" if line.split()[0] in FIGURES else "# " for line in printed)
    return "".join(f"{a}{b}" for a, b in zip(own, printed, strict=True)), want


def _session() -> tuple[str, str]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return zero.session(zero.command(ROOT, folder / "cache"), folder)


def jobs(port: str) -> dict[str, Job]:
    """What is run on a port, by name."""
    if port == "rpizero":
        return {"session": _session}
    if port == "c99":
        names = [*boards.PROCESSORS, *boards.BOARDS]
        return {f"digits {name}": functools.partial(_in_c, name) for name in names}
    found: dict[str, Job] = {
        f"{case} {interpreter}": functools.partial(scripts.run, case, interpreter)
        for interpreter in (("cpython",) if port == "host" else ("unix", "qemu"))
        for case in scripts.CASES
        if interpreter in scripts.CASES[case].ports
    }
    if port == "host":
        found |= {f"digits {cc}": functools.partial(_in_c, cc) for cc in ("gcc", "clang")}
    return found


PORTS = ("host", "c99", "rpizero", "micropython")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", choices=PORTS, action="append")
    parser.add_argument("case", nargs="*")
    given = parser.parse_args()
    failed = 0
    for port in given.port or PORTS:
        for name, job in jobs(port).items():
            if given.case and not any(case in name for case in given.case):
                continue
            notes: list[str] = []
            try:
                got, want = job()
                wrong = difference(got, want)
                notes = [line for line in got.splitlines() if line.startswith("#")]
            except Missing as error:
                print(f"SKIP {port} {name}: there is no {error}", flush=True)
                failed += os.environ.get("TINYTRAIN_REQUIRE_PORTS") == "1"
                continue
            except AssertionError as error:  # it did not end well
                wrong = str(error)
            print(f"{'FAIL' if wrong else 'PASS'} {port} {name}", wrong, *notes, flush=True)
            failed += bool(wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
