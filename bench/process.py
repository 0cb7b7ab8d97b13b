"""What a whole training process takes, ours beside PyTorch's: seconds to its first update, peak
memory; and how long the kernels take to build. Every figure is of a fresh process."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from tinytrain import report
from tinytrain.bench.machine import where_and_when
from tinytrain.errors import InputError

NET, BATCHES, STEPS, REPEATS = "resnet8", (1, 8), 4, 3
GOALS = {("c", 1): 36, ("c", 8): 40, ("numba", 1): 170, ("numba", 8): 170}  # MB of peak RSS
OURS = """
import sys
import numpy as np, tinytrain as tt
side, batch, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
net = tt.models.build("resnet8")
sgd = tt.optim.SGD(lr=0.01, momentum=0.9)
t = tt.Trainer(net, optimizer=sgd, batch=batch, backend=side)
x, y = np.ones((batch, 32, 32, 3), np.float32), np.zeros(batch, np.int64)
step = lambda: t.step(x, y)
"""
THEIRS = """
import sys
import torch
batch, steps = int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
from tinytrain.bench import torch_nets
net = torch_nets.NETS["resnet8"]()
sgd = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
x, y = torch.ones(batch, 3, 32, 32), torch.zeros(batch, dtype=torch.int64)
def step():
    sgd.zero_grad(set_to_none=True)
    loss = torch.nn.functional.cross_entropy(net(x), y)
    loss.backward()
    sgd.step()
    return loss.item()
"""
MEASURE = """
import time
for k in range(steps):
    step()
    if k == 0:
        first = time.clock_gettime(time.CLOCK_MONOTONIC)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(first, status["VmHWM"].split()[0])
"""
BUILD = """
import time
from tinytrain.kernels import c_
begin = time.perf_counter()
c_.library()
print(time.perf_counter() - begin)
"""


def run(data: str | None = None, json: bool = False) -> dict[str, Any]:
    """Start processes, print the tables unless `json`, and return the figures. Reads Linux's
    /proc."""
    if not os.path.exists("/proc/self/status"):
        raise InputError("bench process: reads /proc, which this system lacks; run it on Linux")
    sides = [side for side in ("c", "numba", "PyTorch") if _is_there(side)]
    seen: dict[tuple[str, int], list[tuple[float, float, int]]] = {}
    for repeat in range(REPEATS + 1):
        for batch in BATCHES:
            for side in sides:
                found = _process(side, batch, {})
                if repeat:  # the first round fills caches, of files and of kernels
                    seen.setdefault((side, batch), []).append(found)
    rows = [_row(side, batch, found) for (side, batch), found in sorted(seen.items())]
    built = [_cold(side) for side in sides if side != "PyTorch"]
    if not json:
        print(f"{NET}, a process of {STEPS} updates, medians of {REPEATS}")
        head = ("side", "batch", "peak RSS, MB", "goal", "start s", "start CPU s")
        print(report.table(head, map(_cells, rows)))
        print("\nthe first process on a machine: kernels built or compiled, then one update")
        cold = ("side", "seconds", "CPU s", "building alone, s")
        print(report.table(cold, [tuple(r.values()) for r in built]))
        print("; ".join(where_and_when().values()))
    return {**where_and_when(), "rows": rows, "cold": built}


def _is_there(side: str) -> bool:
    import importlib.util

    return side == "c" or importlib.util.find_spec({"PyTorch": "torch"}.get(side, side)) is not None


def _process(side: str, batch: int, environment: dict[str, str]) -> tuple[float, float, int]:
    """Seconds until the first update is done, CPU seconds of the whole process (children's too),
    and KiB of peak RSS."""
    code = (THEIRS if side == "PyTorch" else OURS) + MEASURE
    before, begin = os.times(), time.clock_gettime(time.CLOCK_MONOTONIC)
    first, rss = _printed(code, (side, str(batch), str(STEPS)), environment)
    after = os.times()
    took = sum(after[2:4]) - sum(before[2:4])
    return float(first) - begin, took, int(rss)


def _printed(code: str, words: tuple[str, ...], environment: dict[str, str]) -> list[str]:
    """What a fresh process prints."""
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **threads, **environment},
    )
    return done.stdout.split()


def _row(side: str, batch: int, found: list[tuple[float, float, int]]) -> dict[str, Any]:
    seconds, cpu, rss = (statistics.median(column) for column in zip(*found, strict=True))
    return {
        "side": side,
        "batch": batch,
        "peak_rss_mb": rss / 1024,
        "goal_mb": GOALS.get((side, batch)),
        "start_seconds": seconds,
        "start_cpu_seconds": cpu,
    }


def _cells(r: dict[str, Any]) -> tuple[Any, ...]:
    goal = r["goal_mb"]
    missed = "" if goal is None or r["peak_rss_mb"] <= goal else " missed"
    return (
        *(r["side"], r["batch"], f"{r['peak_rss_mb']:.1f}", f"{goal or '-'}{missed}"),
        *(f"{r['start_seconds']:.2f}", f"{r['start_cpu_seconds']:.2f}"),
    )


def _cold(side: str) -> dict[str, Any]:
    """With empty caches; how long the build takes, where it is one, in another such process."""
    with tempfile.TemporaryDirectory() as folder:
        empty = {"XDG_CACHE_HOME": folder, "NUMBA_CACHE_DIR": folder}
        seconds, cpu, _ = _process(side, 1, empty)
    found = {"side": side, "seconds": f"{seconds:.2f}", "cpu_seconds": f"{cpu:.2f}"}
    found["build_seconds"] = "-"
    if side == "c":
        with tempfile.TemporaryDirectory() as folder:
            (built,) = _printed(BUILD, (), {"XDG_CACHE_HOME": folder})
            found["build_seconds"] = f"{float(built):.2f}"
    return found
