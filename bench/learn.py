"""What a pretrained network learns of a user's few examples, on real data, in every kind of data:
ours beside a classical baseline and the goal. Splits are by speaker, alphabet or group; what is
tested on chooses nothing.

Networks are trained here, minutes each. With --nets FOLDER they are kept there, and those that are
there already are not trained again: remove the folder after changing how they are trained.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinytrain import nn, report
from tinytrain.bench.machine import where_and_when
from tinytrain.errors import InputError
from tinytrain.models import shipped

PARTS = (
    *("spoken", "words", "characters", "clothes", "strokes", "surfaces", "anomaly", "text"),
    *("attention", "steps"),
)


@dataclass
class Row:
    """One figure, a share from 0 to 1 (or seconds, of which fewer are better), beside what it is
    compared with."""

    task: str
    ours: float
    baseline: float | None
    goal: float | None
    seeds: str
    more: str = ""
    seconds: bool = False

    def shown(self, value: float | None) -> str:
        """Per cent or milliseconds, or "-"."""
        if value is None:
            return "-"
        return f"{1000 * value:.1f} ms" if self.seconds else f"{100 * value:.1f} %"

    @property
    def missed(self) -> bool:
        """Whether there is a goal that was not reached, to the last digit shown."""
        if self.goal is None:
            return False
        short = self.goal - self.ours
        return round(-short if self.seconds else short, 4) > 0


class Nets:
    """Networks by name, trained where they are not in the folder."""

    def __init__(self, folder: str | None):
        self.folder = None if folder is None else Path(folder)
        self.seconds: dict[str, float] = {}  # of this process, by name; none for those found

    def __call__(self, name: str, make: Callable[[], nn.Module]) -> nn.Module:
        """The network of this name, or what `make` trains."""
        path = None if self.folder is None else self.folder / f"{name}.npz"
        if path is not None and path.is_file():
            return shipped.read(path)
        begin = time.process_time()
        net = make()
        self.seconds[name] = time.process_time() - begin
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            shipped.save(net, path)
        return net


def run(
    data: str | None = None, json: bool = False, only: str | None = None, nets: str | None = None
) -> dict[str, Any]:
    """Every part, or those whose name contains `only`; a table of each unless `json`."""
    parts = [p for p in PARTS if only is None or only in p]
    if not parts:
        raise InputError(f"no part is called {only!r}; there are {', '.join(PARTS)}")
    kept, rows = Nets(nets), {}
    for part in parts:
        module = importlib.import_module(f"tinytrain.bench.learn_{part}")
        rows[part] = module.rows(data, kept)
        if not json:
            print(
                f"{part}: {(module.__doc__ or '').splitlines()[0]}\n{text(rows[part])}\n",
                flush=True,
            )
    if not json and kept.seconds:
        spent = ", ".join(f"{name} {s:.0f} s" for name, s in kept.seconds.items())
        print(f"processor time of training: {spent}")
    if not json:
        print("; ".join(where_and_when().values()))
    found = {part: [asdict(r) for r in each] for part, each in rows.items()}
    return {**where_and_when(), "rows": found, "seconds": kept.seconds}


def text(rows: list[Row]) -> str:
    """A table; a goal that was missed is marked."""
    head = ("task", "ours", "baseline", "goal", "seeds", "")
    cells = [
        (
            *(r.task, *map(r.shown, (r.ours, r.baseline, r.goal)), r.seeds),
            ("missed; " if r.missed else "") + r.more,
        )
        for r in rows
    ]
    return report.table(head, cells)
