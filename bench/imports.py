"""Time and peak memory of `import tinytrain` beside NumPy's own, each in fresh processes."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from typing import Any

from tinytrain import report
from tinytrain.bench.machine import where_and_when
from tinytrain.errors import InputError

REPEATS = 7
CASES = {"python": "pass", "numpy": "import numpy", "tinytrain": "import tinytrain"}
PROBE = """
import sys, time
begin = time.perf_counter()
{code}
seconds = time.perf_counter() - begin
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(seconds, status["VmHWM"].split()[0], "numba" in sys.modules)
"""


def run(data: str | None = None, json: bool = False) -> dict[str, Any]:
    """Medians of interleaved fresh processes; peak RSS in KiB, from Linux's /proc."""
    if not os.path.exists("/proc/self/status"):
        raise InputError("bench imports: reads /proc, which this system lacks; run it on Linux")
    seen: dict[str, list[tuple[float, int, bool]]] = {name: [] for name in CASES}
    for repeat in range(REPEATS + 1):
        for name, code in CASES.items():
            sample = _probe(code)
            if repeat:  # the first round warms the file cache
                seen[name].append(sample)
    rows = {
        name: {
            "seconds": statistics.median(s for s, _, _ in samples),
            "peak_rss_kib": int(statistics.median(r for _, r, _ in samples)),
            "imports_numba": any(n for _, _, n in samples),
        }
        for name, samples in seen.items()
    }
    more = int(rows["tinytrain"]["peak_rss_kib"]) - int(rows["numpy"]["peak_rss_kib"])
    if not json:
        cells = [(n, f"{r['seconds']:.3f}", r["peak_rss_kib"]) for n, r in rows.items()]
        print(report.table(("import", "seconds", "peak RSS, KiB"), cells))
        print(f"tinytrain takes {more / 1024:.1f} MiB more than NumPy alone")
    return {**where_and_when(), "imports": rows, "more_than_numpy_kib": more}


def _probe(code: str) -> tuple[float, int, bool]:
    command = [sys.executable, "-c", PROBE.format(code=code)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, rss, numba = done.stdout.split()
    return float(seconds), int(rss), numba == "True"
