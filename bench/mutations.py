"""How many seeded faults the tests notice: each of `mutants.MUTANTS` is done to a copy of the
checkout, alone, and the tests that it names are run. It wants a checkout, git and pytest.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tinytrain import report
from tinytrain.bench.machine import where_and_when
from tinytrain.bench.mutants import MUTANTS, Mutant
from tinytrain.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
KILLED, SURVIVED = "killed", "survived"
HEAD = ("file", "what is changed", "into", "outcome")
SECONDS = 900


def run(
    data: str | None = None, json: bool = False, only: str | None = None, quick: bool = False
) -> dict[str, Any]:
    """Do every fault (or those in files whose name contains `only`), print a table unless `json`.
    The tests are first run without any, for those must pass; `quick`: that is known already."""
    chosen = [m for m in MUTANTS if only is None or only in m.file]
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        _copy(tree)
        rows = []
        sound: dict[str, bool] = {}
        for m in chosen:
            if m.tests not in sound:
                sound[m.tests] = quick or _pass(tree, m.tests)
            if (tree / m.file).read_text(encoding="utf-8").count(m.old) != 1:
                found = "is not there once: mend bench/mutants.py"
            else:
                found = _try(tree, m) if sound[m.tests] else "its tests fail without it"
            rows.append((m, found))
            print(f"{len(rows)}/{len(chosen)} {m.file}: {rows[-1][1]}", file=sys.stderr, flush=True)
    score = sum(found == KILLED for _, found in rows)
    if not json:
        cells = [(m.file, _line(m.old), _line(m.new), found) for m, found in rows]
        print(report.table(HEAD, cells))
        print(f"\n{score} of {len(rows)} noticed\n{where_and_when()}")
    listed = [{**m._asdict(), "outcome": found} for m, found in rows]
    return {**where_and_when(), "noticed": score, "of": len(rows), "mutants": listed}


def _line(text: str) -> str:
    return " ".join(text.split())[:60] or "(nothing)"


def _copy(tree: Path) -> None:
    """What git tracks or would track."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)


def _try(tree: Path, m: Mutant) -> str:
    file = tree / m.file
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace(m.old, m.new), encoding="utf-8")
    try:
        return SURVIVED if _pass(tree, m.tests) else KILLED
    finally:
        file.write_text(text, encoding="utf-8")


def _pass(tree: Path, tests: str) -> bool:
    """Whether these tests pass; a hang is a failure. InputError if there are none."""
    own = {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "HYPOTHESIS_PROFILE": "dev"}
    own["XDG_CACHE_HOME"] = str(tree.parent / "cache")  # no mutant's build outlives it
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(
            [*command, *shlex.split(tests)],
            cwd=tree,
            env={**os.environ, **own},
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return False
    if done.returncode not in (0, 1, 2):
        raise InputError(f"pytest {tests}: {(done.stdout + done.stderr).strip()[-300:]}")
    return done.returncode == 0
