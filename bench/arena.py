"""Places MiniMalloc's published instances in 1 MiB each and checks them; downloads none.

The data folder holds minimalloc/*.csv with the columns id, lower, upper, size (a buffer lives in
[lower, upper)), which come with google/minimalloc as its "challenging" benchmarks.
"""

from __future__ import annotations

import csv
import time
from itertools import combinations
from pathlib import Path
from typing import Any

from tinytrain import arena, packing, report
from tinytrain.bench.machine import data_folder, where_and_when
from tinytrain.errors import InputError

CAPACITY = 1 << 20  # bytes; all instances are known to fit
SECONDS = 10.0
ALIGN = 16  # bytes

Lifetime = tuple[int, int]


def run(data: str | None = None, json: bool = False) -> dict[str, Any]:
    """Place every instance, print a table unless `json`, and return the figures.

    Returns machine, date, compile_seconds (0.0: interpreted), capacity_bytes, seconds_limit and
    instances: a list of instance, buffers, lower_bound_bytes, greedy_bytes, total_bytes, fits,
    seconds. Raises InputError when the folder or a column is missing, AssertionError when a
    placement is wrong.
    """
    files = instance_files(data)
    compile_seconds = packing.prepare() if packing.compiled_search() else 0.0
    result = {
        **where_and_when(),
        "compile_seconds": round(compile_seconds, 2),
        "capacity_bytes": CAPACITY,
        "seconds_limit": SECONDS,
        "instances": [place(file) for file in files],
    }
    if not json:
        print(table(result))
    return result


def instance_files(data: str | None = None) -> list[Path]:
    """The CSV files of the data folder; InputError without any."""
    folder = data_folder(data, "minimalloc")
    files = sorted(folder.glob("*.csv"))
    if not files:
        raise InputError(f"{folder}: no CSV file; MiniMalloc's instances belong there")
    return files


def read(file: Path) -> tuple[list[int], list[Lifetime]]:
    """(sizes in bytes, lifetimes) of one instance."""
    with open(file, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    try:
        sizes = [int(row["size"]) for row in rows]
        return sizes, [(int(row["lower"]), int(row["upper"])) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{file}: {error!r}: give the columns id,lower,upper,size in whole numbers"
        ) from None


def place(file: Path) -> dict[str, Any]:
    """The figures of one instance; reading and checking are not timed."""
    sizes, lifetimes = read(file)
    _, greedy = arena.assign(sizes, lifetimes, ALIGN, CAPACITY, steps=0)
    begun = time.perf_counter()
    offsets, total = arena.assign(sizes, lifetimes, ALIGN, CAPACITY, seconds=SECONDS)
    seconds = time.perf_counter() - begun
    verify(sizes, lifetimes, offsets, total)
    return {
        "instance": file.stem,
        "buffers": len(sizes),
        "lower_bound_bytes": arena.lower_bound(sizes, lifetimes),
        "greedy_bytes": greedy,
        "total_bytes": total,
        "fits": total <= CAPACITY,
        "seconds": round(seconds, 2),
    }


def verify(sizes: list[int], lifetimes: list[Lifetime], offsets: list[int], total: int) -> None:
    """Raise AssertionError unless every two buffers that live together lie apart.

    Compares all pairs, with nothing taken from the code that placed them.
    """
    rows = list(zip(range(len(sizes)), sizes, lifetimes, offsets, strict=True))
    for (i, size, (a, b), low), (j, other, (c, d), place) in combinations(rows, 2):
        if a < d and c < b and low < place + other and place < low + size:
            raise AssertionError(f"buffers {i} and {j} live together and overlap")
    if any(low % ALIGN or low < 0 for low in offsets):
        raise AssertionError(f"an offset is no multiple of {ALIGN}")
    if total != max(low + size for _, size, _, low in rows):
        raise AssertionError(f"the last buffer does not end at {total}")


def table(result: dict[str, Any]) -> str:
    """The figures as aligned text; sizes in bytes."""
    head = ("instance", "buffers", "lower bound", "greedy", "final", "fits", "seconds")
    rows = [
        (
            *(row["instance"], row["buffers"], row["lower_bound_bytes"], row["greedy_bytes"]),
            *(row["total_bytes"], "yes" if row["fits"] else "NO", f"{row['seconds']:.2f}"),
        )
        for row in result["instances"]
    ]
    fit = sum(row["fits"] for row in result["instances"])
    return "\n".join(
        [
            f"{fit} of {len(rows)} instances placed in {result['capacity_bytes']:,} bytes, "
            f"at most {result['seconds_limit']:g} s each",
            report.table(head, rows),
            f"compiling or loading the search, not in the above: {result['compile_seconds']:.2f} s",
            f"{result['machine']}; {result['date']}",
        ]
    )
