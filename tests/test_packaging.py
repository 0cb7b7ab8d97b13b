"""One top-level package by every way in: wheel, sdist, editable install and bare checkout."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

FOLDERS = ("kernels", "models", "bench", "ports")

BUILD = """
import sys
from setuptools import build_meta
print(getattr(build_meta, sys.argv[1])(sys.argv[2]))
"""

IMPORT_ALL = """
import importlib, pathlib, sys
import tinytrain
for name in ("kernels", "models", "bench", "ports"):
    module = importlib.import_module(f"tinytrain.{name}")
    print(pathlib.Path(module.__file__).resolve())
assert "numba" not in sys.modules, "import tinytrain must not import numba"
"""


def python(executable: Path | str, *arguments: str, cwd: Path, path: Path | None = None) -> str:
    """Run an interpreter that sees nothing of this process' environment; return what it prints."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [str(executable), *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def copy(
    tmp_path_factory: pytest.TempPathFactory, checkout: Path, checkout_files: list[Path]
) -> Path:
    """A copy of the checkout, so that building leaves nothing behind in it."""
    root = tmp_path_factory.mktemp("checkout")
    for name in checkout_files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(checkout / name, root / name)
    return root


def build(hook: str, source: Path, into: Path) -> Path:
    """Call one hook of the build backend, as pip does; return the archive."""
    pytest.importorskip("setuptools", minversion="70.1")
    into.mkdir(exist_ok=True)
    printed = python(sys.executable, "-c", BUILD, hook, str(into), cwd=source)
    return into / printed.splitlines()[-1]


@pytest.fixture(scope="session")
def wheel(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("build_wheel", copy, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def sdist(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("build_sdist", copy, tmp_path_factory.mktemp("sdist"))


def install(archive: Path, root: Path) -> tuple[Path, Path]:
    """Install a wheel into a new environment that borrows this one's NumPy; return its python and
    its site-packages."""
    pytest.importorskip("pip")
    venv.create(root, with_pip=False, symlinks=os.name != "nt")
    executable = root / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    (site,) = root.glob("Lib/site-packages" if os.name == "nt" else "lib/python*/site-packages")
    # Behind the environment's own site-packages; a .pth file in there is not followed.
    (site / "borrowed.pth").write_text(f"{Path(np.__file__).parent.parent}\n")
    options = ["--no-deps", "--no-index", "--ignore-installed", "--quiet"]
    command = ["-m", "pip", "--disable-pip-version-check", "--python", str(executable), "install"]
    python(sys.executable, *command, *options, str(archive), cwd=root)
    return executable, site


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return install(wheel, tmp_path_factory.mktemp("installed"))


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def places(printed: str) -> list[Path]:
    return [Path(line).parent for line in printed.splitlines()]


def test_wheel_has_one_top_level_package(wheel: Path) -> None:
    assert {name.split("/")[0] for name in names(wheel)} == {
        "tinytrain",
        "tinytrain-0.1.0.dist-info",
    }


def test_wheel_holds_every_file_of_the_packages(wheel: Path, checkout_files: list[Path]) -> None:
    expected = set()
    for name in checkout_files:
        if name.parts[:2] == ("bench", "results"):
            continue  # what benchmarks printed stays with the checkout
        if name.parts[0] in FOLDERS:
            expected.add(f"tinytrain/{name.as_posix()}")
        elif name.parts[0] == "tinytrain":
            expected.add(name.as_posix())
    held = {name for name in names(wheel) if ".dist-info/" not in name}
    assert held == expected, "see packages and package_data in setup.cfg"


def test_wheel_holds_the_demo_data(wheel: Path) -> None:
    assert [n for n in names(wheel) if re.fullmatch(r"tinytrain/data/\w+\.zlib", n)]


def test_wheel_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        told = archive.read("tinytrain-0.1.0.dist-info/METADATA").decode()
        commands = archive.read("tinytrain-0.1.0.dist-info/entry_points.txt").decode()
        assert "tinytrain-0.1.0.dist-info/licenses/LICENSE" in archive.namelist()
    metadata = email.message_from_string(told)
    assert metadata["Requires-Python"] == ">=3.11"
    requirements = metadata.get_all("Requires-Dist", [])
    assert [line for line in requirements if ";" not in line] == ["numpy>=1.24"]
    assert "tinytrain = tinytrain.cli:main" in commands


@pytest.mark.parametrize(
    ("system", "machine", "implementation", "version", "wanted"),
    [
        ("linux", "x86_64", "cpython", "3.11", {"numpy", "numba", "tqdm"}),
        ("linux", "aarch64", "cpython", "3.13", {"numpy", "numba", "tqdm"}),
        ("darwin", "arm64", "cpython", "3.12", {"numpy", "numba", "tqdm"}),
        ("win32", "AMD64", "cpython", "3.12", {"numpy", "numba", "tqdm"}),
        ("linux", "armv6l", "cpython", "3.11", {"numpy"}),
        ("linux", "armv7l", "cpython", "3.11", {"numpy"}),
        ("linux", "riscv64", "cpython", "3.13", {"numpy"}),
        ("linux", "x86_64", "pypy", "3.11", {"numpy"}),
        ("linux", "x86_64", "cpython", "3.16", {"numpy"}),
    ],
)
def test_requirements_by_machine(
    wheel: Path, system: str, machine: str, implementation: str, version: str, wanted: set[str]
) -> None:
    requirements = pytest.importorskip("packaging.requirements")
    with zipfile.ZipFile(wheel) as archive:
        told = archive.read("tinytrain-0.1.0.dist-info/METADATA").decode()
    place = {
        "sys_platform": system,
        "platform_machine": machine,
        "implementation_name": implementation,
        "python_version": version,
        "extra": "",
    }
    found = set()
    for line in email.message_from_string(told).get_all("Requires-Dist", []):
        requirement = requirements.Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(place):
            found.add(requirement.name)
    assert found == wanted


def test_sdist_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        # Debian 12's Python 3.11.2 has no filters yet; from 3.12 on doing without one warns.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(tmp_path)
    (source,) = tmp_path.iterdir()
    for name in ("tests/conftest.py", "Makefile", "ruff.toml", "LICENSE"):
        assert (source / name).is_file()
    assert names(build("build_wheel", source, tmp_path / "wheel")) == names(wheel)


def test_installed_wheel_imports(installed: tuple[Path, Path], tmp_path: Path) -> None:
    executable, site = installed
    found = places(python(executable, "-c", IMPORT_ALL, cwd=tmp_path))
    assert found == [site.resolve() / "tinytrain" / name for name in FOLDERS]


def test_installed_wheel_leaves_no_bare_folders(installed: tuple[Path, Path]) -> None:
    _, site = installed
    assert (site / "tinytrain").is_dir()
    assert not [name for name in FOLDERS if (site / name).exists()]


def test_installed_command(installed: tuple[Path, Path], tmp_path: Path) -> None:
    executable, _ = installed
    command = shutil.which("tinytrain", path=str(executable.parent))
    assert command is not None
    assert "demo" in python(executable, command, "--help", cwd=tmp_path)


def test_editable_install_imports(copy: Path, tmp_path: Path) -> None:
    archive = build("build_editable", copy, tmp_path / "wheel")
    executable, site = install(archive, tmp_path / "installed")
    found = places(python(executable, "-c", IMPORT_ALL, cwd=tmp_path))
    assert found == [copy.resolve() / name for name in FOLDERS]
    assert not [name for name in ("tinytrain", *FOLDERS) if (site / name).exists()]


def test_bare_checkout_imports(copy: Path, tmp_path: Path) -> None:
    found = places(python(sys.executable, "-c", IMPORT_ALL, cwd=tmp_path, path=copy))
    assert found == [copy.resolve() / name for name in FOLDERS]


@pytest.mark.parametrize("name", FOLDERS)
def test_bare_names_are_refused(copy: Path, name: str) -> None:
    told = f"""
try:
    import {name}
except ImportError as error:
    print(error)
"""
    assert f"import tinytrain.{name}" in python(sys.executable, "-c", told, cwd=copy)
