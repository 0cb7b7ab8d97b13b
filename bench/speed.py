"""How fast a training step is, ours beside PyTorch's in the same run; it trains nothing.

Two processes, ours and the peers', take turns of some milliseconds each, so that what else the
machine does meets both. A step is a whole one: inputs and labels given as arrays, the loss read
back, SGD with momentum. With one thread it is timed by the process' own clock, with several by the
wall's. A ratio is PyTorch's time by ours in the same round, the median and quartiles of all rounds,
against the PyTorch variant with the smallest median.
"""

from __future__ import annotations

import json as json_
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from tinytrain import report
from tinytrain.bench.bars import bars
from tinytrain.bench.machine import where_and_when
from tinytrain.errors import InputError

GOALS = {  # how many times faster than PyTorch, one thread, at batch 1, 8 and 32
    "mlp": (8, 6, 3),
    "lenet5": (6, 1.8, 1.2),
    "ds_cnn": (8, 2.5, 1.5),
    "resnet8": (3, 1.5, 1.25),
    "mobilenetv2": (4, 1.5, 1.2),
}
BATCHES = (1, 8, 32)
ROUNDS, QUICK_ROUNDS = 11, 5
TURN = 0.02  # seconds
THREADS = (  # what each reads for its threads
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
    *("NUMBA_NUM_THREADS", "TINYTRAIN_THREADS"),
)


def run(
    data: str | None = None,
    json: bool = False,
    only: str | None = None,
    quick: bool = False,
    svg: str | None = None,
) -> dict[str, Any]:
    """Time every network at every batch, print the tables unless `json`, and return the figures.

    only   rows whose name ("ds_cnn-8") contains this alone; InputError if there is none.
    quick  one thread alone, a quarter of the rounds.
    svg    the file to draw the ratios with one thread to.
    """
    cases = [(net, b) for net in GOALS for b in BATCHES if only is None or only in f"{net}-{b}"]
    if not cases:
        names = ", ".join(f"{net}-{b}" for net in GOALS for b in BATCHES)
        raise InputError(f"no case is called {only!r}; there are {names}")
    every = os.cpu_count() or 1
    rows: list[dict[str, Any]] = []
    for threads in (1,) if quick or every == 1 else (1, every):
        found = _measure(cases, threads, QUICK_ROUNDS if quick else ROUNDS)
        if not json:
            print(text(found, threads), end="\n\n", flush=True)
        rows += found
    if svg is not None:
        Path(svg).write_text(_chart([r for r in rows if r["threads"] == 1]), encoding="utf-8")
    if not json:
        print("; ".join(where_and_when().values()))
    return {**where_and_when(), "rounds": QUICK_ROUNDS if quick else ROUNDS, "rows": rows}


class _Side:
    """A process that takes turns."""

    def __init__(self, side: str, threads: int):
        command = [sys.executable, "-m", "tinytrain.bench.speed_turns", side]
        given = {name: str(threads) for name in THREADS}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **given},
        )

    def ask(self, **what: Any) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json_.dumps(what) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise InputError(f"bench speed: its process ended early ({what})")
        return json_.loads(answer)

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def _measure(cases: list[tuple[str, int]], threads: int, rounds: int) -> list[dict[str, Any]]:
    """A row for each case."""
    sides = [_Side("ours", threads), _Side("peers", threads)]
    rows = []
    try:
        for net, batch in cases:
            print(f"{net}-{batch}, threads {threads}", file=sys.stderr, flush=True)
            turns = [(side, name) for side in sides for name in side.ask(net=net, batch=batch)]
            seconds: dict[str, list[float]] = {name: [] for _, name in turns}
            for k in range(rounds):
                first = k % len(turns)  # nobody is always behind the same one
                for side, name in turns[first:] + turns[:first]:
                    seconds[name].append(side.ask(turn=name, seconds=TURN))
            rows.append(_row(net, batch, threads, seconds))
    finally:
        for side in sides:
            side.close()
    return rows


def _row(net: str, batch: int, threads: int, seconds: dict[str, list[float]]) -> dict[str, Any]:
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    best = min((n for n in medians if n.startswith("PyTorch")), key=medians.__getitem__, default="")
    ratios = {
        name: quartiles([a / b for a, b in zip(seconds[best], seconds[name], strict=True)])
        for name in medians
        if best and not name.startswith("PyTorch")
    }
    return {
        "net": net,
        "batch": batch,
        "threads": threads,
        "goal": GOALS[net][BATCHES.index(batch)] if threads == 1 else None,
        "best": best,
        "ratios": ratios,
        "seconds": {name: quartiles(found) for name, found in seconds.items()},
    }


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Median, lower and upper quartile."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return middle, low, high


# ---------------------------------------------------------------------------- as text and picture


def text(rows: list[dict[str, Any]], threads: int) -> str:
    """Ratios first, then the milliseconds they are made of."""
    clock = "process time" if threads == 1 else "wall time"
    ours = list(dict.fromkeys(n for r in rows for n in r["seconds"] if n in ("c", "numba")))
    head = ["step", "goal", *(w for n in ours for w in (n, "quartiles")), "best PyTorch", "ms"]
    cells = []
    for r in rows:
        goal = "-" if r["goal"] is None else f"x{r['goal']:g}"
        line: list[Any] = [f"{r['net']}-{r['batch']}", goal]
        for name in ours:
            line += _ratio(r["ratios"].get(name), r["goal"])
        best = r["seconds"].get(r["best"])
        line += [r["best"].removeprefix("PyTorch ") or "-", _ms(best)]
        cells.append([*line, *(_ms(r["seconds"].get(n)) for n in ours)])
    made = [report.table([*head, *(f"{n} ms" for n in ours)], cells)]
    made += [_others(r) for r in rows if set(r["ratios"]) - set(ours)]
    judged = [
        r["ratios"][n][0] >= r["goal"]
        for r in rows
        for n in r["ratios"]
        if n in ours and r["goal"] is not None
    ]
    if judged:
        made.append(f"{sum(judged)} of {len(judged)} goals met")
    count = "one thread" if threads == 1 else f"{threads} threads"
    return "\n".join([f"a training step, {count}, {clock}; x: times faster than PyTorch", *made])


def _ratio(ratio: tuple[float, float, float] | None, goal: float | None) -> tuple[str, str]:
    if ratio is None:
        return "-", "-"
    met = "" if goal is None or ratio[0] >= goal else " missed"
    return f"x{ratio[0]:.2f}{met}", f"{ratio[1]:.2f} to {ratio[2]:.2f}"


def _ms(seconds: tuple[float, float, float] | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds[0]:.3f}"


def _others(r: dict[str, Any]) -> str:
    """A line on who is neither of ours nor PyTorch: how many times faster ours are."""
    said = []
    for name in r["ratios"]:
        if name not in ("c", "numba"):
            theirs = r["seconds"][name][0]
            times = (
                f"{n} x{theirs / r['seconds'][n][0]:.1f}"
                for n in ("c", "numba")
                if n in r["seconds"]
            )
            said.append(f"{name} {1000 * theirs:.3f} ms ({', '.join(times)} faster)")
    return f"  {r['net']}-{r['batch']}: {'; '.join(said)}"


def _chart(rows: list[dict[str, Any]]) -> str:
    """Times faster than the best PyTorch variant, by backend; the mark is the goal."""
    groups = [
        (
            f"{r['net']}, batch {r['batch']}",
            {n: r["ratios"][n][0] for n in ("c", "numba") if n in r["ratios"]},
            r["goal"],
        )
        for r in rows
    ]
    title = "A training step beside PyTorch's, one thread"
    return bars(title, "times faster; the dotted line is PyTorch, a mark the goal", groups, 1.0)
