"""Every job of `ports/run.py`: what a script prints on a port is what it prints on the host.

A tool that is missing is a SKIP that names it, or, with TINYTRAIN_REQUIRE_PORTS=1, a failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PORTS = Path(__file__).parent / "ports"
sys.path.insert(0, str(PORTS))
import run as runner  # noqa: E402
from lines import Missing, difference  # noqa: E402

REQUIRED = os.environ.get("TINYTRAIN_REQUIRE_PORTS") == "1"
RUNS = [(port, name) for port in runner.PORTS for name in runner.jobs(port)]


@pytest.mark.parametrize(("port", "name"), RUNS)
def test_a_port_prints_what_the_host_prints(port: str, name: str) -> None:
    try:
        got, want = runner.jobs(port)[name]()
    except Missing as error:
        (pytest.fail if REQUIRED else pytest.skip)(f"there is no {error}")
    assert want.strip()
    assert not (wrong := difference(got, want)), wrong


def test_a_difference_is_seen() -> None:
    assert not difference("# 5\n1.0001 a\n", "1.0004 a\n")
    assert difference("1.002\n", "1.0\n")
    assert difference("1.0 b\n", "1.0 a\n")
    assert difference("1.0\n", "1.0\n2.0\n")
    assert difference("7\n", "8\n")


def test_the_runner_tells_what_passed_and_what_is_missing(tmp_path: Path) -> None:
    """With `timeout` alone there is no compiler: a SKIP, or, where it is required, a failure."""
    (tmp_path / "timeout").symlink_to(str(shutil.which("timeout")))
    command = [sys.executable, str(PORTS / "run.py"), "--port", "host", "clang"]
    told = {**os.environ, "PATH": str(tmp_path), "TINYTRAIN_REQUIRE_PORTS": "0"}
    done = subprocess.run([*command, "refuse"], capture_output=True, text=True, env=told)
    assert done.returncode == 0, done.stderr
    assert "PASS host refuse cpython" in done.stdout
    assert "SKIP host digits clang: there is no " in done.stdout
    told["TINYTRAIN_REQUIRE_PORTS"] = "1"
    assert subprocess.run(command, capture_output=True, env=told).returncode == 1
