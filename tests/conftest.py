"""What every test may rely on: Hypothesis profiles, the checkout's place and its files."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

# No deadlines: the first call of a kernel may compile it, and a board is slow.
settings.register_profile("dev", deadline=None, max_examples=25)
settings.register_profile(
    "ci", deadline=None, max_examples=100, derandomize=True, database=None, print_blob=True
)
settings.register_profile(
    "thorough", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

# Commands that a test starts (`python -m tinytrain`) find an uninstalled checkout too.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
)


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The checkout's root."""
    return ROOT


@pytest.fixture(scope="session")
def checkout_files(checkout: Path) -> list[Path]:
    """Every file of the checkout, relative to its root, that git tracks or would track."""
    if shutil.which("git") is None:
        pytest.skip("git is missing")
    if not (checkout / ".git").exists():
        pytest.skip("not a git checkout")
    # A checkout that belongs to another user (a container's mount) is fine to read.
    command = ["git", "-c", f"safe.directory={checkout}", "ls-files", "-z"]
    listed = subprocess.run(
        [*command, "--cached", "--others", "--exclude-standard"],
        cwd=checkout,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    names = sorted(set(filter(None, listed.split("\0"))))
    return [Path(name) for name in names if (checkout / name).is_file()]
