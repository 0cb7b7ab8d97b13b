"""What budgets cost: every zoo model in half of keep's bytes, and reversible networks by depth.

Shape-only but for the rows that say a step was run; ours beside published figures where there are
any. Bytes are whole arenas: parameters, optimizer state, gradients, activations, workspace, io.
"""

from __future__ import annotations

import time
from typing import Any

from tinytrain import BudgetError, models, plan, report
from tinytrain.bench.machine import where_and_when

BATCH = 32
SHALLOW = ("mlp", "lenet5", "vgg6", "resnet8", "ds_cnn", "autoencoder", "mobilenetv2", "digits_cnn")


def run(data: str | None = None, json: bool = False) -> dict[str, Any]:
    """Plan every case, print the tables unless `json`, return the figures."""
    half = [_half(name) for name in SHALLOW]
    if not json:
        print(f"batch {BATCH}, momentum, ram = persistent bytes + half of keep's rest")
        head = ("model", "keep", "ram", "arena", "slice", "extra work", "seconds")
        print(report.table(head, [_cells(r) for r in half]))
    return {**where_and_when(), "half": half}


def _half(name: str) -> dict[str, Any]:
    keep = plan(models.build(name), batch=BATCH, optimizer="momentum")
    ram = keep.persistent_bytes + (keep.arena_bytes - keep.persistent_bytes) // 2
    begin = time.perf_counter()
    found: dict[str, Any]
    try:
        made = plan(models.build(name), batch=BATCH, optimizer="momentum", ram=ram)
        found = {
            "arena_bytes": made.arena_bytes,
            "microbatch": made.microbatch,
            "extra_macs_ratio": made.extra_macs_ratio,
        }
    except BudgetError as error:
        found = {"arena_bytes": error.smallest, "microbatch": None, "extra_macs_ratio": None}
    return {
        "model": name,
        "keep_bytes": keep.arena_bytes,
        "ram_bytes": ram,
        **found,
        "seconds": time.perf_counter() - begin,
    }


def _cells(r: dict[str, Any]) -> tuple[Any, ...]:
    fits = r["extra_macs_ratio"] is not None
    return (
        *(r["model"], r["keep_bytes"], r["ram_bytes"], r["arena_bytes"]),
        r["microbatch"] if fits else "does not fit",
        f"{100 * r['extra_macs_ratio']:.1f} %" if fits else "-",
        f"{r['seconds']:.1f}",
    )
