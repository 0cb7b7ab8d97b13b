"""What spilling costs in time: a step under keep, and with every large value in a file that is
slowed down to an SD card's published speed, with and without lookahead. It wears no real card.

The card is POET's: 4.6 MB/s in, 4.4 MB/s out. This machine computes far faster beside it than a
board does; "board" rows sleep behind every step of the plan as long as a board of
`stash.spill.MACS` multiply-accumulates a second would compute.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from typing import Any

import numpy as np

from tinytrain import Trainer, models, report
from tinytrain.bench.machine import where_and_when
from tinytrain.run import Executor, choose_backend
from tinytrain.stash import spill
from tinytrain.steps import TRANSFERS

NETS = ("vgg6", "resnet8")
SPEEDS = (("here", 32, 3, 2), ("board", 4, 1, 1))  # who computes, batch, steps, steps before
BYTES = ("net", "batch", "keep arena", "spill arena", "file", "written a step", "read a step")
HEAD = (
    "net",
    "computes",
    "keep ms",
    "file ms",
    "card ms",
    "no lookahead ms",
    "moving ms",
    "hidden",
)


class Card:
    """An open file that takes as long as POET's SD card."""

    def __init__(self, file: Any):
        self.file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, data: memoryview) -> int:
        time.sleep(len(data) / spill.WRITE)
        return self.file.write(data)

    def readinto(self, data: memoryview) -> int:
        time.sleep(len(data) / spill.READ)
        return self.file.readinto(data)


def run(data: str | None = None, json: bool = False) -> dict[str, Any]:
    """Measure every net, print tables unless `json`, return the figures: bytes, seconds a step, and
    the share of the transfers' time in which the step did not stand still."""
    rows = [_measure(name, *speed) for name in NETS for speed in SPEEDS]
    result = {**where_and_when(), "backend": choose_backend(), "rows": rows}
    if not json:
        print(report.table(BYTES, [(r["net"], r["batch"], *r["bytes"].values()) for r in rows]))
        print(f"\n{result['backend']}; 'here' is the median of 3 steps")
        print(report.table(HEAD, [_cells(r) for r in rows]))
        print(f"{result['machine']}; {result['date']}")
    return result


def _measure(name: str, computes: str, batch: int, steps: int, before: int) -> dict[str, Any]:
    def seconds(t: Trainer) -> float:
        """The median of some steps, behind those that compile and paint."""
        rng = np.random.default_rng(0)
        x = rng.random((batch, *t.net.input_shape), np.float32)
        y = rng.integers(0, 10, batch)
        times = []
        for _ in range(before + steps):
            begin = time.perf_counter()
            t.step(x, y)
            times.append(time.perf_counter() - begin)
        return statistics.median(times[before:])

    def trainer(**more: Any) -> Trainer:
        t = Trainer(models.build(name), batch=batch, optimizer="momentum", **more)
        if computes == "board":
            _slow_down(t._train.executor)
        return t

    keep = trainer(policy="keep")
    with tempfile.TemporaryDirectory() as folder:
        t = trainer(policy="spill", spill=os.path.join(folder, "values"))
        found = {"keep_seconds": seconds(keep), "file_seconds": seconds(t)}
        file = t._spill
        assert file is not None
        file.lane.file = Card(file.lane.file)  # type: ignore[assignment]
        moving, stood = file.seconds
        found["card_seconds"] = seconds(t)
        moving, stood = file.seconds[0] - moving, file.seconds[1] - stood
        found["hidden_share"] = 1 - stood / moving
        found["moving_seconds"] = moving / (before + steps)
        file.lane.join()
        found["waiting_seconds"] = seconds(t)
        t.close()
    plan = t.plan
    nbytes = (keep.plan.arena_bytes, plan.arena_bytes, plan.spill_file_bytes)
    sizes = (*nbytes, plan.spill_written_bytes, plan.spill_read_bytes)
    named = dict(zip(("keep", "spill", "file", "written", "read"), sizes, strict=True))
    return {"net": name, "computes": computes, "batch": batch, "bytes": named, **found}


def _slow_down(executor: Executor) -> None:
    """Let every step that computes take a board's time."""
    program = executor.plan.program
    for k in range(*executor.body):
        s = program.steps[k]
        if s.op not in TRANSFERS:
            work = program.macs_of(s.op, s.ins, s.outs, s.attrs)
            size = max((program.specs[v].size for v in s.outs if v is not None), default=0)
            executor._calls[k].append((time.sleep, ((work or size) / spill.MACS,)))


def _cells(r: dict[str, Any]) -> tuple[Any, ...]:
    names = ("keep", "file", "card", "waiting", "moving")
    times = [round(1000 * r[f"{name}_seconds"]) for name in names]
    return r["net"], r["computes"], *times, f"{100 * r['hidden_share']:.0f} %"
