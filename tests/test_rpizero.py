"""The Raspberry Pi Zero port: tinytrain on an emulated ARM1176 with Debian 12's Python 3.11 and
NumPy 1.24 and nothing else. `test_ports.py` runs a session there in 64 MiB of address space.

A tool that is missing is a SKIP that names it, or, with TINYTRAIN_REQUIRE_PORTS=1, a failure.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

PORTS = Path(__file__).parent / "ports"
SCRIPTS = PORTS / "rpizero"
sys.path.insert(0, str(PORTS))
from rpizero import board as zero  # noqa: E402
from rpizero.board import lines, printed  # noqa: E402

REQUIRED = os.environ.get("TINYTRAIN_REQUIRE_PORTS") == "1"
ALLOWED_KIB = 5 * 1024  # more than NumPy's own


@pytest.fixture(scope="module")
def board(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that runs Python there, with the checkout to import from."""
    try:
        return zero.command(checkout, tmp_path_factory.mktemp("zero"))
    except lines.Missing as error:
        (pytest.fail if REQUIRED else pytest.skip)(f"there is no {error}")
        raise


def test_what_importing_takes(board: list[str]) -> None:
    """NumPy's own peak memory and at most 5 MB more; the emulator's is in both."""
    (_, numpy), (_, both) = (
        map(float, printed(board, SCRIPTS / "imports.py", *names).split())
        for names in (("numpy",), ("numpy", "tinytrain"))
    )
    assert both - numpy <= ALLOWED_KIB


def test_the_demo(board: list[str]) -> None:
    """With the C kernels, which give the bits that they give here; NumPy has the session above."""
    if shutil.which(cc := "arm-linux-gnueabi-gcc") is None:
        (pytest.fail if REQUIRED else pytest.skip)(f"there is no {cc}")
    zero.cross_build(board)
    demo = ["-m", "tinytrain", "demo", "--epochs", 1, "--json", "--backend", "c"]
    told, here = json.loads(printed(board, *demo)), json.loads(printed([sys.executable], *demo))
    assert told["backend"] == "c"
    assert told["arena_bytes"] == told["high_water_bytes"] <= told["ram_bytes"] == 64 << 10
    assert told["test_accuracy"] > 0.8
    same = ("test_accuracy", "train_loss", "arena_bytes", "steps")
    assert [told[name] for name in same] == [here[name] for name in same]
