"""How many seeded faults the tests notice: each of `mutants.MUTANTS` is done to a copy of the
checkout, alone, and the tests that it names are run. It wants a checkout, git and pytest.

`--only TEXT` runs those whose file, line or tests contain it ("survived", "not run yet": those of
which the last results say so), and takes the outcome of the others from bench/results.
"""

from __future__ import annotations

import os
import re
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
RESULTS = ROOT / "bench" / "results" / "mutations.txt"
KILLED, SURVIVED, MISSING = "killed", "survived", "not run yet"
HEAD = ("file", "what is changed", "into", "outcome")
SECONDS = 900


def run(
    data: str | None = None, json: bool = False, only: str | None = None, quick: bool = False
) -> dict[str, Any]:
    """Do every fault (or those that `only` names), print a table of all unless `json`. The tests
    are first run without any, for those must pass; `quick`: that is known already."""
    found = {} if only is None else _former()
    chosen = [m for m in MUTANTS if only is None or _is_named(m, only, found)]
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        _copy(tree)
        sound: dict[str, bool] = {}
        for k, m in enumerate(chosen, 1):
            if m.tests not in sound:
                sound[m.tests] = quick or _pass(tree, m.tests)
            if (tree / m.file).read_text(encoding="utf-8").count(m.old) != 1:
                outcome = "is not there once: mend bench/mutants.py"
            else:
                outcome = _try(tree, m) if sound[m.tests] else "its tests fail without it"
            found[_cells(m)] = outcome
            print(f"{k}/{len(chosen)} {m.file}: {outcome}", file=sys.stderr, flush=True)
    rows = [(m, found.get(_cells(m), MISSING)) for m in MUTANTS]
    score = sum(outcome == KILLED for _, outcome in rows)
    if not json:
        print(report.table(HEAD, [(*_cells(m), outcome) for m, outcome in rows]))
        print(f"\n{score} of {len(rows)} noticed\n{'; '.join(where_and_when().values())}")
    listed = [{**m._asdict(), "outcome": outcome} for m, outcome in rows]
    return {**where_and_when(), "noticed": score, "of": len(rows), "mutants": listed}


def _is_named(m: Mutant, only: str, former: dict[tuple[str, ...], str]) -> bool:
    """By its file, what it changes or its tests; or by what came of it."""
    return only == former.get(_cells(m), MISSING) or any(only in text for text in m)


def _former() -> dict[tuple[str, ...], str]:
    """Outcomes of the table in bench/results, by the cells of their rows."""
    if not RESULTS.is_file():
        return {}
    lines = [re.split(r"  +", line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    return {(*cells[:3],): cells[3] for cells in lines if len(cells) == len(HEAD)}


def _cells(m: Mutant) -> tuple[str, str, str]:
    return m.file, _line(m.old), _line(m.new)


def _line(text: str) -> str:
    return " ".join(text.split())[:60].rstrip() or "(nothing)"


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
