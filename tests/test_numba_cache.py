"""What Numba has compiled is compiled anew when the source of anything it may call has changed, and
loaded without what only compiling needs."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba", reason="numba is missing")

GONE = """
import os, sys
sys.path.insert(0, sys.argv[1])
from tinytrain.kernels import numba_
with open(os.path.join(sys.argv[1], "theirs.py"), "w") as file:
    file.write("from numba import njit\\n@njit(cache=True)\\ndef f(x):\\n    return x + 1\\n")
import theirs
os.remove(theirs.__file__)
assert theirs.f(3) == 4
"""
CALL = """
import sys
from kernels_copy import numba_
from kernels_copy.numba_conv import _tap_range
_tap_range(1, 8, 8, 1, 1, 1)
found = _tap_range.stats
print(sum(found.cache_hits.values()) > 0, sum(found.cache_misses.values()) > 0, end=" ")
print("numba.np.linalg" in sys.modules)
"""


def hit_missed_and_refreshed(folder: Path) -> str:
    """Of the disk's cache, in a process of its own; and whether all of Numba was imported."""
    done = subprocess.run(
        [sys.executable, "-c", CALL], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_change_in_another_file_is_noticed_and_else_little_is_loaded(
    checkout, tmp_path, monkeypatch
):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    copy = tmp_path / "kernels_copy"
    shutil.copytree(checkout / "kernels", copy, ignore=shutil.ignore_patterns("__pycache__"))
    assert hit_missed_and_refreshed(tmp_path) == "False True True"
    assert hit_missed_and_refreshed(tmp_path) == "True False False"
    with open(copy / "numba_gemm.py", "a") as file:
        file.write("# another product\n")
    assert hit_missed_and_refreshed(tmp_path) == "False True True"


def test_what_others_compile_is_left_to_numba(tmp_path):
    """Also where its source is gone by the first call."""
    done = subprocess.run(
        [sys.executable, "-c", GONE, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
