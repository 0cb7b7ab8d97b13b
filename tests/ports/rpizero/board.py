"""The emulated Raspberry Pi Zero: the command that runs Python there, and the C kernels that are
built for it elsewhere, for it has no compiler. It tests nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import lines


def command(checkout: Path, cache: Path) -> list[str]:
    """Python on the board, with the checkout to import from and its cache in this folder.
    Missing, if a tool is, or Debian's packages cannot be had."""
    lines.need("qemu-arm-static", "apt-get", "dpkg-deb")
    root = lines.cache() / "armel"
    root.parent.mkdir(parents=True, exist_ok=True)
    made = subprocess.run([HERE / "root.sh", root], capture_output=True, text=True)
    if made.returncode:
        raise lines.Missing(f"way to have Debian's armel packages: {made.stderr[-400:]}")
    told = {
        "PYTHONHOME": root / "usr",
        "PYTHONPATH": os.pathsep.join(map(str, (checkout, HERE))),
        "PYTHONDONTWRITEBYTECODE": 1,
        "XDG_CACHE_HOME": cache,
    }
    given = [word for k, v in told.items() for word in ("-E", f"{k}={v}")]
    words = ["qemu-arm-static", "-cpu", "arm1176", "-L", str(root), *given]
    return ["timeout", "-k", "5", "400", *words, str(root / "usr/bin/python3")]


def printed(command: list[str], *arguments: object) -> str:
    """What a script prints there; AssertionError with what it says if it fails."""
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def session(command: list[str], folder: Path) -> tuple[str, str]:
    """What a session within 64 MiB of address space prints there, and one on the host."""
    for name in ("host", "board"):
        (folder / name).mkdir()
    want = printed([sys.executable], HERE / "session.py", folder / "host")
    got = printed(command, HERE / "session.py", folder / "board", 64)
    return got + ("" if "# the cap holds" in got else "the cap did not hold\n"), want


def cross_build(command: list[str]) -> None:
    """Put the C kernels where the board looks for them."""
    path, flags = printed(command, HERE / "backend.py", "--flags").splitlines()
    flags = flags.replace("-mcpu=native", "-mcpu=arm1176jzf-s")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    sources = map(str, (HERE.parents[2] / "kernels/c").glob("*.c"))
    command = ["arm-linux-gnueabi-gcc", *flags.split(), "-shared", "-o", path]
    subprocess.run([*command, *sources], check=True)


def measured(command: list[str], backend: str, batch: int, steps: int) -> tuple[float, float, str]:
    """(seconds of CPU a step, peak memory in KiB, CRC-32 of the weights) of `backend.py`."""
    words = printed(command, HERE / "backend.py", backend, batch, steps).split()
    return float(words[0]), float(words[1]), words[2]
