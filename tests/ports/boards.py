"""Emulated processors and microcontrollers: how an export is built for one, and run there. It tests
nothing."""

from __future__ import annotations

import atexit
import functools
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from feed import figures_of

from tinytrain.ports import c99

PROGRAMS = Path(__file__).resolve().parent
PLACE = Path(tempfile.mkdtemp(prefix="tinytrain-kernels-"))
atexit.register(shutil.rmtree, PLACE, ignore_errors=True)
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion"]
BITS = ["-ffp-contract=off", "-fno-math-errno", "-ffunction-sections", "-fdata-sections"]
M4, M7 = "-mcpu=cortex-m4 -mfpu=fpv4-sp-d16", "-mcpu=cortex-m7 -mfpu=fpv5-sp-d16"
HARD = " -mfloat-abi=hard"


# Emulated processors: compiler, flags, what runs the program.
PROCESSORS = {
    "armel": ("arm-linux-gnueabi-gcc", "qemu-arm-static", ["-cpu", "arm1176"]),
    "arm64": ("aarch64-linux-gnu-gcc", "qemu-aarch64-static", []),
}


class Board(NamedTuple):
    """An emulated microcontroller; clock of its SysTick in MHz."""

    machine: str
    cpu: str
    clock: float
    flash: str = "0x0"
    ram: str = "0x20000000"
    more: tuple[str, ...] = ()


BOARDS = {
    "M0": Board("microbit", "-mcpu=cortex-m0", 16, more=("-global", "nrf51-soc.sram-size=65536")),
    "M3": Board("mps2-an385", "-mcpu=cortex-m3", 25),
    "M4F": Board("mps2-an386", M4 + HARD, 25),
    "M7": Board("mps2-an500", M7 + HARD, 25),
    "M33": Board(
        "mps2-an505", "-mcpu=cortex-m33 -mfpu=fpv5-sp-d16" + HARD, 20, "0x10000000", "0x38000000"
    ),
    "M55": Board("mps3-an547", "-mcpu=cortex-m55" + HARD, 32),
}


def run(command: list[str], folder: Path, seconds: int = 120) -> str:
    """What a command prints, errors too (semihosting goes there); AssertionError if it fails."""
    pipe, both = subprocess.PIPE, subprocess.STDOUT
    ours = (
        "MAKEFLAGS",
        "MFLAGS",
        "MAKELEVEL",
        "ARGS",
        "PINS",
        "VENV",
    )  # of the make that runs this
    env = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run(
        command, cwd=folder, stdout=pipe, stderr=both, text=True, timeout=seconds, env=env
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stdout}"
    return done.stdout


def sources(folder: Path) -> list[str]:
    """All of an export but its main.c."""
    return [str(p) for p in sorted(folder.glob("src/*.c"))]


@functools.cache
def library(cc: str, flags: tuple[str, ...], place: Path) -> str:
    """The kernels, which every export has alike, compiled once for these flags."""
    into = place / re.sub(r"\W+", "-", " ".join([cc, *flags]))
    into.mkdir()
    kernels = sorted(Path(c99.kernel_sources()).glob("*.c"))
    run([cc, *STRICT, *BITS, *flags, "-c", *map(str, kernels)], into)
    run(["ar", "rcs", "libkernels.a", *(f"{k.stem}.o" for k in kernels)], into)
    return str(into / "libkernels.a")


def build(cc: str, flags: list[str], folder: Path, program: str = "c99_program.c") -> str:
    """Compile an export with a program of ours; the file's path."""
    into = folder / f"{cc}{''.join(flags)}-{program}.elf".replace("/", "")
    own = [str(PROGRAMS / program), *(str(folder / "src" / name) for name in ("model.c", "tt.c"))]
    kernels = library(cc, tuple(flags), PLACE)
    run([cc, *STRICT, *BITS, *flags, f"-I{folder}", "-o", str(into), *own, kernels], folder)
    return str(into)


def stated(folder: Path, name: str) -> int:
    """A figure of an export's model.h; where there are two, the one for 32 bits, which is last."""
    return int(re.findall(rf"{name} (\d+)", (folder / "model.h").read_text())[-1])


def linking(name: str, ram: int, stack: int) -> list[str]:
    """What links a program for a board of 256 KiB of flash, `ram` bytes of RAM, `stack` of it."""
    board = BOARDS[name]
    regions = {
        "FLASH_ORG": board.flash,
        "FLASH_LEN": "256K",
        "RAM_ORG": board.ram,
        "RAM_LEN": str(ram),
        "STACK": str(stack),
    }
    named = [f"-Wl,--defsym={key}={value}" for key, value in regions.items()]
    link = ["-nostartfiles", "--specs=nano.specs", "--specs=nosys.specs", "-Wl,--gc-sections"]
    return [*link, *named, "-T", str(PROGRAMS / "board.ld")]


def flash(name: str, folder: Path, into: Path, ram: int) -> Path:
    """Build an export for a board with `ram` bytes of RAM."""
    into.mkdir(exist_ok=True)
    program, cc = into / f"{name}.elf", "arm-none-eabi-gcc"
    cpu = ["-mthumb", *BOARDS[name].cpu.split(), "-O2"]
    own = [*(str(folder / "src" / name) for name in ("model.c", "tt.c"))]
    own.append(str(PROGRAMS / "c99_program.c"))
    flags = [*STRICT, *BITS, *cpu, "-DSEMIHOSTED", f"-I{folder}", f"-I{PROGRAMS}"]
    run([cc, *flags, "-c", *own], into)
    loose = ["-std=gnu99", "-Wall", "-Wextra", "-Werror", *BITS, *cpu]
    run([cc, *loose, "-c", str(PROGRAMS / "board.c")], into)
    objects = ["model.o", "tt.o", "c99_program.o", "board.o", library(cc, tuple(cpu), PLACE)]
    link = linking(name, ram, stated(folder, "TT_STACK_BYTES"))
    run([cc, *cpu, *objects, "-o", str(program), *link], into)
    return program


def qemu(name: str, program: Path, shift: int = 0, seconds: int = 240) -> list[str]:
    """The command that runs a board's program, beside its files; one instruction is 2^shift ns."""
    board = BOARDS[name]
    command = ["timeout", "-k", "5", str(seconds), "qemu-system-arm", "-M", board.machine]
    command += board.more
    command += ["-nographic", "-monitor", "none", "-serial", "null", "-icount", f"shift={shift}"]
    semihosting = ["-semihosting-config", "enable=on,target=native"]
    return [*command, *semihosting, "-kernel", str(program)]


def emulate(
    name: str, program: Path, folder: Path, shift: int = 0, seconds: int = 240
) -> dict[str, int]:
    """Run a board's program beside its feed.bin; its figures, with instructions of a step."""
    figures = figures_of(run(qemu(name, program, shift, seconds), folder, seconds + 10))
    figures["instructions"] = int(figures["ticks"] * 1000 / BOARDS[name].clock / 2**shift)
    return figures
