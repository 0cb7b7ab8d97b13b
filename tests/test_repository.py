"""What no file here may hold: package hosts, a machine's own paths, and pickle in the product."""

from __future__ import annotations

import ast
import configparser
import re
from pathlib import Path

import pytest

# Where a machine gets its packages is that machine's business. The brackets keep these lines from
# finding themselves.
HOSTS = re.compile(
    r"p[y]pi\.|python[h]osted|pi[w]heels|ana[c]onda|[c]onda-forge|(?:index-ur[l]|find-link[s])",
    re.I,
)
# An absolute path below somebody's home or workspace; `..` or a name before it makes none.
PATHS = re.compile(r"(?<![\w.\-*}\])])/(?:home|work|root|Users|mnt|media)/\w")
FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
PRODUCT = ("tinytrain", "kernels", "models", "ports", "bench")


def text(path: Path) -> str | None:
    """Return the file's text, or None for a binary file."""
    content = path.read_bytes()
    return None if b"\0" in content else content.decode("utf-8")


def matches(pattern: re.Pattern[str], root: Path, files: list[Path]) -> list[str]:
    found = []
    for name in files:
        for number, line in enumerate((text(root / name) or "").splitlines(), start=1):
            found += [f"{name}:{number}: {m.group()}" for m in pattern.finditer(line)]
    return found


def test_no_package_host_is_named(checkout: Path, checkout_files: list[Path]) -> None:
    assert matches(HOSTS, checkout, checkout_files) == []


def test_no_absolute_path_of_a_machine(checkout: Path, checkout_files: list[Path]) -> None:
    assert matches(PATHS, checkout, checkout_files) == []


@pytest.mark.parametrize("folder", ["home", "work", "root", "Users"])
def test_the_path_pattern_finds(folder: str) -> None:
    path = "/".join(["", folder, "anna"])
    assert PATHS.search(f"see {path}") and PATHS.search(f"open({path!r})")


@pytest.mark.parametrize("line", ["../home/x", "a/home/b", "{root}/home/b", "/home page"])
def test_the_path_pattern_passes(line: str) -> None:
    assert not PATHS.search(line)


def pickling(source: str) -> list[int]:
    """Return the lines on which Python source imports a pickle or lets NumPy read one."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        imported: list[str] = []
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported = [node.module or ""]
        if isinstance(node, ast.Call):  # __import__("pickle"), import_module("pickle")
            imported += [
                a.value for a in node.args if isinstance(a, ast.Constant) and a.value in FORBIDDEN
            ]
            by_place = {"np.load": 2, "numpy.load": 2}.get(ast.unparse(node.func))  # allow_pickle
            by_place = 1 if ast.unparse(node.func).endswith("read_array") else by_place
            lines += [node.lineno] if by_place is not None and len(node.args) > by_place else []
        if FORBIDDEN & {name.split(".")[0] for name in imported}:
            lines.append(node.lineno)
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            refused = isinstance(node.value, ast.Constant) and node.value.value is False
            lines += [] if refused else [node.value.lineno]
    return lines


def test_the_product_never_pickles(checkout: Path, checkout_files: list[Path]) -> None:
    found = []
    for name in checkout_files:
        if name.suffix == ".py" and name.parts[0] in PRODUCT:
            lines = pickling((checkout / name).read_text(encoding="utf-8"))
            found += [f"{name}:{line}" for line in lines]
    assert found == []


def test_pickling_is_found() -> None:
    source = "import pickle\nfrom joblib import load\nnp.load(f, allow_pickle=True)\n"
    assert pickling(source) == [1, 2, 3]
    hidden = "np.load(f, None, True)\nread_array(f, True)\nimport_module('pickle')\n"
    assert pickling(hidden + "__import__('dill')\n") == [1, 2, 3, 4]
    assert pickling("np.load(f, allow_pickle=False)\nimport json\ndata.load(p)\n") == []


def test_every_dependency_is_listed(checkout: Path) -> None:
    """SECURITY.md's table of what runs is setup.cfg's, and nothing else."""
    config = configparser.ConfigParser()
    config.read(checkout / "setup.cfg", encoding="utf-8")
    extras = config["options.extras_require"]
    lines = "\n".join([config["options"]["install_requires"], extras["progress"], extras["images"]])
    wanted = {re.split(r"[<>=; ]", line)[0].lower() for line in lines.splitlines() if line.strip()}
    table = (checkout / "SECURITY.md").read_text(encoding="utf-8").split("| package |")[1]
    listed = re.findall(r"^\| (\w+) \|", table, re.M)
    assert wanted == {name.lower() for name in listed} - {"llvmlite"}  # Numba's own
