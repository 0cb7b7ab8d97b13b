"""What Numba has compiled is compiled anew when the source of anything it may call has changed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba", reason="numba is missing")

CALL = """
from kernels_copy import numba_
from kernels_copy.numba_conv import _tap_range
_tap_range(1, 8, 8, 1, 1, 1)
found = _tap_range.stats
print(sum(found.cache_hits.values()) > 0, sum(found.cache_misses.values()) > 0)
"""


def hit_and_missed(folder: Path) -> str:
    """Of the disk's cache, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", CALL], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_change_in_another_file_is_noticed(checkout, tmp_path, monkeypatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    copy = tmp_path / "kernels_copy"
    shutil.copytree(checkout / "kernels", copy, ignore=shutil.ignore_patterns("__pycache__"))
    assert hit_and_missed(tmp_path) == "False True"
    assert hit_and_missed(tmp_path) == "True False"
    with open(copy / "numba_gemm.py", "a") as file:
        file.write("# another product\n")
    assert hit_and_missed(tmp_path) == "False True"
