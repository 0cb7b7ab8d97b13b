"""Arena, lower bound and their ratio for every zoo model at batch 1, 8 and 32; runs none."""

from __future__ import annotations

import time
from typing import Any

from tinytrain import models, optim, plan, report
from tinytrain.bench.machine import where_and_when

BATCHES = (1, 8, 32)


def run(data: str | None = None, json: bool = False) -> dict[str, Any]:
    """Plan everything with SGD with momentum, print a table unless `json`, return the figures."""
    rows = []
    for name in models.names():
        for batch in BATCHES:
            net = models.build(name)
            begin = time.perf_counter()
            made = plan(net, batch=batch, optimizer=optim.SGD(lr=0.01, momentum=0.9))
            seconds = time.perf_counter() - begin
            made.check()
            rows.append(
                {
                    "model": name,
                    "batch": batch,
                    "arena_bytes": made.arena_bytes,
                    "lower_bound_bytes": made.lower_bound,
                    "ratio": made.arena_bytes / made.lower_bound,
                    "steps": len(made.program.steps),
                    "seconds": seconds,
                }
            )
    if not json:
        head = ("model", "batch", "arena", "lower bound", "ratio", "steps", "seconds")
        cells = [
            (*list(r.values())[:4], f"{r['ratio']:.4f}", r["steps"], f"{r['seconds']:.2f}")
            for r in rows
        ]
        print(report.table(head, cells))
    return {**where_and_when(), "plans": rows}
