"""Imports point one way (the order is the design's): a room uses what lies below it alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

# From the ground up; rooms on one line may use each other.
FLOORS = """
    errors _layout number durable philox
    spec
    op
    ops
    tape
    rewrite segment steps
    stash fuse
    lower
    inplace lifetime ahead arena packing
    plan
    planfile report picture
    anneal candidates seeds solver
    budget
    run spillfile
    tensor
    functions
    nn optim prune losses check data augment
    freeze
    bound progress
    checkpoint diverge recover fitting trainer compare when
    learn
    cli
"""
FLOOR = {room: k for k, line in enumerate(FLOORS.strip().splitlines()) for room in line.split()}
# Upwards, but only inside a function: a plan is written, printed and drawn by rooms above it.
WHEN_CALLED = {("plan", "planfile"), ("plan", "report"), ("plan", "picture")}
# What a user writes, and so what models may use, besides the package's own names.
PUBLIC = {
    "arena",
    "augment",
    "check",
    "data",
    "errors",
    "losses",
    "models",
    "nn",
    "ops",
    "optim",
    "prune",
}
ENGINE = set(FLOOR) - PUBLIC


class Import(NamedTuple):
    """`name`, absolute and dotted; `inside` a function, or read at once with the file."""

    file: Path
    line: int
    name: str
    inside: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: imports {self.name}"


def imports(root: Path, folder: str) -> list[Import]:
    """Every import below a folder of the checkout, those inside functions too."""
    files = sorted((root / folder).rglob("*.py"))
    return [found for file in files for found in imports_of(file, file.relative_to(root))]


def imports_of(file: Path, shown: Path) -> list[Import]:
    """`from . import x` counts by its full name; kernels/ and its sisters lie in tinytrain."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    package = shown.parent.parts
    package = package if package[:1] == ("tinytrain",) else ("tinytrain", *package)
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*start, *filter(None, [node.module])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        found += [Import(shown, node.lineno, name, id(node) in inside) for name in names]
    return found


def room(name: str) -> str | None:
    """`tinytrain.ops.conv` lies in `ops`; what is not a module of the package lies in none."""
    parts = name.split(".")
    return parts[1] if parts[0] == "tinytrain" and len(parts) > 1 else None


def room_of_file(file: Path) -> str:
    """`tinytrain/ops/conv.py` lies in `ops`, `tinytrain/plan.py` in `plan`."""
    return file.parts[1].removesuffix(".py")


@pytest.fixture(scope="module")
def engine(checkout: Path) -> list[Import]:
    return imports(checkout, "tinytrain")


def test_the_reader_of_imports_reads(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text(
        "import a.b, c\nfrom d import e as f\nfrom . import g\ndef h():\n    from ..i import j\n"
    )
    found = {(i.name, i.inside) for i in imports_of(file, Path("tinytrain/ops/x.py"))}
    assert found == {
        ("a.b", False),
        ("c", False),
        ("d.e", False),
        ("tinytrain.ops.g", False),
        ("tinytrain.i.j", True),
    }
    (found,) = (i for i in imports_of(file, Path("kernels/x.py")) if i.name.endswith("g"))
    assert found.name == "tinytrain.kernels.g"


def test_every_module_has_its_floor(checkout: Path) -> None:
    """A new file under tinytrain/ goes into FLOORS (and into the design)."""
    rooms = {
        room_of_file(file.relative_to(checkout)) for file in (checkout / "tinytrain").rglob("*.py")
    }
    assert rooms - set(FLOOR) - {"__init__", "__main__"} == set()


def test_no_arrow_runs_back(engine: list[Import]) -> None:
    wrong = []
    for found in engine:
        here, there = room_of_file(found.file), room(found.name)
        if here not in FLOOR or there not in FLOOR or FLOOR[there] <= FLOOR[here]:
            continue
        if (here, there) not in WHEN_CALLED or not found.inside:
            wrong.append(f"{found}, which lies above {here}")
    assert wrong == []


def test_kernels_stand_alone(checkout: Path) -> None:
    """They know each other and no one else."""
    wrong = [
        str(found)
        for found in imports(checkout, "kernels")
        if found.name.split(".")[0] == "tinytrain" and room(found.name) != "kernels"
    ]
    assert wrong == []


def test_models_use_public_names_only(checkout: Path) -> None:
    wrong = [str(found) for found in imports(checkout, "models") if room(found.name) in ENGINE]
    assert wrong == []


def test_the_engine_knows_no_model_and_no_port(engine: list[Import]) -> None:
    """Only the front doors do, and what builds a saved model again."""
    doors = {"__init__", "__main__", "checkpoint", "trainer", "cli"}
    wrong = [
        str(found)
        for found in engine
        if room(found.name) in {"models", "ports", "bench"}
        and room_of_file(found.file) not in doors
    ]
    assert wrong == []


def test_kernels_are_looked_up_by_the_interpreter_alone(engine: list[Import]) -> None:
    wrong = [
        str(found)
        for found in engine
        if room(found.name) == "kernels" and (room_of_file(found.file) != "run" or not found.inside)
    ]
    assert wrong == []


def test_numba_is_imported_when_a_kernel_is_asked_for(checkout: Path) -> None:
    """At the top of kernels/numba_*.py, and nowhere else outside a function."""
    wrong = [
        str(found)
        for folder in ("tinytrain", "kernels", "models", "bench")
        for found in imports(checkout, folder)
        if found.name.split(".")[0] in {"numba", "llvmlite"}
        and not found.inside
        and not (folder == "kernels" and found.file.name.startswith("numba_"))
    ]
    assert wrong == []


@pytest.mark.parametrize("name", ["scipy", "torch", "pytest", "hypothesis", "sklearn"])
def test_the_engine_needs_numpy_alone(checkout: Path, name: str) -> None:
    wrong = [
        str(found)
        for folder in ("tinytrain", "kernels", "models")
        for found in imports(checkout, folder)
        if found.name.split(".")[0] == name
    ]
    assert wrong == []


def test_importing_tinytrain_costs_little_beside_numpy() -> None:
    """numpy.random and hashlib (OpenSSL) alone would take 10 MiB, Numba a hundred."""
    code = (
        "import sys, numpy; before = set(sys.modules); import tinytrain; "
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    dear = {
        "numba",
        "numpy.random",
        "hashlib",
        "zipfile",
        "tqdm",
        "argparse",
        "multiprocessing",
        "tempfile",
        "shutil",
        "pathlib",
        "json",
        "numpy.ma",
        "bz2",
        "lzma",
    }
    assert not dear & set(done.stdout.split())
