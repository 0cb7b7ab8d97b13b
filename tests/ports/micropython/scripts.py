"""The scripts of the MicroPython port: what each is run with, and how, on the host and on three
interpreters: `cpython`, the runtime under this one; `unix`, MicroPython built for this machine;
`qemu`, MicroPython on an emulated bare Cortex-M3, its heap of an exact size, the code in flash (a
read-only file system, or the firmware). Where the host cannot run a script, `script.exp` has its
lines. It compares nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from lines import Missing, cache, need
from nets import made

SECONDS = 300  # that an emulated board may take
FLASH = 0x21000000  # memory of mps2-an385 that the firmware leaves alone
STEPS = 50


class Case(NamedTuple):
    """A script and the net it is run with; the board's heap, and whether the runtime is frozen
    into its firmware."""

    script: str
    net: str
    heap: int = 128 << 10
    frozen: bool = False
    ports: tuple[str, ...] = ("cpython", "unix", "qemu")


CASES = {
    "mlp": Case("learn", "mlp", 32 << 10, frozen=True),
    "digits": Case("learn", "digits"),
    "slices": Case("learn", "slices", ports=("cpython", "qemu")),
    "adam": Case("learn", "adam", ports=("cpython", "qemu")),
    "topk": Case("learn", "topk", ports=("cpython", "qemu")),
    "files": Case("files", "slices"),
    "refuse": Case("refuse", "slices", ports=("cpython", "qemu")),
    "paths": Case("paths", "slices", ports=("cpython", "unix")),
}
PORTS = ("cpython", "unix", "qemu")


def build(*target: str) -> Path:
    """What `build.sh` makes; Missing names the tools that it wants."""
    need("make", "gcc", "apt-get", "dpkg-source", "xz")
    if target[0] == "qemu":
        need("arm-none-eabi-gcc", "qemu-system-arm")
    if target[0] == "unix" and not _compiles_32_bits():
        raise Missing("a gcc that compiles for 32 bits (libc6-dev-i386, lib32gcc-12-dev)")
    command = [str(HERE / "build.sh"), str(cache()), *target]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Missing(f"MicroPython, which could not be built: {done.stderr.strip()[-400:]}")
    return Path(done.stdout.strip())


def _compiles_32_bits() -> bool:
    command = ["gcc", "-m32", "-x", "c", "-", "-o", os.devnull]
    return not subprocess.run(
        command, input=b"int main(void){return 0;}", capture_output=True
    ).returncode


# ------------------------------------------------------------------------- a folder to run in


def prepare(case: str, folder: Path) -> None:
    """Export the case's network into the folder, with its data and its script."""
    script, net = CASES[case].script, CASES[case].net
    trainer, x, y = made(net)
    trainer.export("micropython", str(folder))
    slices, classes = trainer.batch // trainer.plan.microbatch, y.dtype.kind == "i"
    labels = trainer._train.labels[0].size * (1 if classes else -1)
    sizes = trainer._train.inputs[0].size, labels, x[0].size, slices, STEPS
    order = np.arange(STEPS * trainer.batch) % len(x)
    x[order].tofile(folder / "x.bin")
    y[order].astype(np.uint8 if classes else np.float32).tofile(folder / "y.bin")
    (folder / "sizes.txt").write_text(" ".join(map(str, sizes)))
    (folder / "net.txt").write_text(net)
    shutil.copy(HERE / f"{script}.py", folder / "job.py")


def compiled(folder: Path, chip: str) -> None:
    """Replace the folder's Python by MicroPython's byte code, and machine code for the chip."""
    cross = cache() / "src/mpy-cross/build/mpy-cross"
    for file in [*folder.glob("tinytrain_mp/*.py"), folder / "job.py"]:
        subprocess.run([cross, f"-march={chip}", file.name], cwd=file.parent, check=True)
        file.unlink()


# ------------------------------------------------------------------------- running there


def _ran(command: list[str], seconds: float = SECONDS, **more) -> str:
    """What a command prints; its errors too if it fails."""
    done = subprocess.run(
        ["timeout", "-k", "5", str(seconds), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **more,
    )
    return done.stdout


def on_host(case: str, folder: Path) -> str:
    """The script over a Trainer, or the lines that were written down."""
    expected = HERE / f"{CASES[case].script}.exp"
    if expected.exists():
        return expected.read_text()
    code = "import sys, host; sys.modules['tinytrain_mp'] = host; import job"
    return _python(folder, code, HERE)


def on_cpython(case: str, folder: Path) -> str:
    return _python(folder, "import job")


def _python(folder: Path, code: str, *path: Path) -> str:
    places = os.pathsep.join(map(str, [*path, folder, ROOT]))
    return _ran([sys.executable, "-c", code], cwd=folder, env={**os.environ, "PYTHONPATH": places})


def on_unix(case: str, folder: Path) -> str:
    interpreter = build("unix")
    compiled(folder, "x86")
    code = "import sys; sys.path.insert(0, ''); import job"
    return _ran([str(interpreter), "-X", "heapsize=1m", "-c", code], cwd=folder)


BOOT = """\r\x03\x01
import machine, os, sys, uctypes, vfs
vfs.mount(vfs.VfsRom(uctypes.bytearray_at({address}, {size})), "/rom")
os.chdir("/rom")
try:
    import job
except BaseException as error:
    sys.print_exception(error)
machine.reset()
\x04"""


def on_qemu(case: str, folder: Path, counted: bool = False) -> str:
    """With `counted`, an instruction takes a nanosecond, and `learn` tells how many a step has."""
    frozen = [str(ROOT / "ports/micropython/manifest.py")] if CASES[case].frozen else []
    firmware = build("qemu", str(CASES[case].heap), *frozen)
    compiled(folder, "armv7m")
    if frozen:
        shutil.rmtree(folder / "tinytrain_mp")
    image = folder.with_suffix(".romfs")
    image.write_bytes(read_only(folder))
    loader = f"loader,file={image},addr={FLASH:#x},force-raw=on"
    boot = BOOT.format(address=FLASH, size=image.stat().st_size)
    command = ["qemu-system-arm", "-machine", "mps2-an385", "-kernel", str(firmware)]
    command += ["-device", loader, "-nographic", "-monitor", "null", "-serial", "stdio"]
    command += ["-semihosting", *(["-icount", "shift=0"] if counted else [])]
    text = _ran(command, input=boot)
    return text.partition("to exit\n>OK")[2].replace("\r", "") or text


def read_only(folder: Path) -> bytes:
    """The folder as an image of MicroPython's read-only file system, by MicroPython's writer."""
    sys.path.insert(0, str(cache() / "src/tools/mpremote/mpremote"))
    try:
        from romfs import VfsRomWriter
    finally:
        del sys.path[0]
    image = VfsRomWriter()
    for file in sorted(folder.iterdir()):
        if file.is_dir():
            image.opendir(file.name)
            for inner in sorted(file.iterdir()):
                image.mkfile(inner.name, inner.read_bytes())
            image.closedir()
        else:
            image.mkfile(file.name, file.read_bytes())
    return bytes(image.finalise())


RUN = {"cpython": on_cpython, "unix": on_unix, "qemu": on_qemu}


def run(case: str, port: str) -> tuple[str, str]:
    """What a case prints there and on the host; Missing if a tool is."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "port"
        folder.mkdir()
        prepare(case, folder)
        want = on_host(case, folder)
        return RUN[port](case, folder), want
