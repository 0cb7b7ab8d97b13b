"""Places MiniMalloc's published instances in 1 MiB each and checks them; downloads none.

Run `python -m tinytrain.bench.arena [FOLDER] [--json]`. FOLDER holds CSV files with the columns
id, lower, upper, size (a buffer lives in [lower, upper)), which come with google/minimalloc as
its "challenging" benchmarks; without FOLDER they are looked for in $TINYTRAIN_DATA/minimalloc.
"""

from __future__ import annotations

import csv
import datetime
import json as json_text
import os
import platform
import sys
import time
from itertools import combinations
from pathlib import Path
from typing import Any

from tinytrain import arena, packing
from tinytrain.errors import InputError, TinytrainError

CAPACITY = 1 << 20  # bytes; all instances are known to fit
SECONDS = 10.0
ALIGN = 16  # bytes

Lifetime = tuple[int, int]


def run(args: list[str] | None = None, json: bool = False) -> dict[str, Any]:
    """Place every instance, print a table unless `json`, and return the figures.

    args: at most the folder. Returns machine, date, compile_seconds (0.0: interpreted),
    capacity_bytes, seconds_limit and instances: a list of instance, buffers, lower_bound_bytes,
    greedy_bytes, total_bytes, fits, seconds. Raises InputError when the folder or a column is
    missing, AssertionError when a placement is wrong.
    """
    args = args or []
    if len(args) > 1:
        raise InputError(f"bench arena: one folder at most, not {' '.join(args)}")
    files = instance_files(args[0] if args else None)
    compile_seconds = packing.prepare() if packing.compiled_search() else 0.0
    result = {
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        "compile_seconds": round(compile_seconds, 2),
        "capacity_bytes": CAPACITY,
        "seconds_limit": SECONDS,
        "instances": [place(file) for file in files],
    }
    if not json:
        print(table(result))
    return result


def instance_files(folder: str | None = None) -> list[Path]:
    """The CSV files of a folder, or of $TINYTRAIN_DATA/minimalloc; InputError without any."""
    mend = "give a folder of MiniMalloc's CSV files, or set TINYTRAIN_DATA to one with minimalloc/"
    if folder is None:
        data = os.environ.get("TINYTRAIN_DATA")
        if not data:
            raise InputError(f"bench arena: no instances named: {mend}")
        folder = os.path.join(data, "minimalloc")
    files = sorted(Path(folder).glob("*.csv"))
    if not files:
        raise InputError(f"bench arena: no CSV file in {folder}: {mend}")
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


def machine() -> str:
    """This machine in a line: processor, cores, Python, and Numba or its absence."""
    try:
        import numba

        engine = f"Numba {numba.__version__}"
    except ImportError:
        engine = "no Numba, interpreted"
    name = platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            model = next(line for line in stream if line.startswith("model name"))
        name += " " + model.split(":", 1)[1].strip()
    except (OSError, StopIteration):
        pass  # not Linux, or a processor that does not name itself there
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}, {engine}"


def table(result: dict[str, Any]) -> str:
    """The figures as aligned text; sizes in bytes."""
    head = ("instance", "buffers", "lower bound", "greedy", "final", "fits", "seconds")
    rows = [
        (
            row["instance"],
            str(row["buffers"]),
            f"{row['lower_bound_bytes']:,}",
            f"{row['greedy_bytes']:,}",
            f"{row['total_bytes']:,}",
            "yes" if row["fits"] else "NO",
            f"{row['seconds']:.2f}",
        )
        for row in result["instances"]
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (head, *rows)
    ]
    fit = sum(row["fits"] for row in result["instances"])
    return "\n".join(
        [
            f"arena: {fit} of {len(rows)} instances placed in {result['capacity_bytes']:,} bytes, "
            f"at most {result['seconds_limit']:g} s each",
            *lines,
            f"compiling or loading the search, not in the above: {result['compile_seconds']:.2f} s",
            f"{result['machine']}; {result['date']}",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """Print the table, or one JSON object with --json; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    json = "--json" in argv
    try:
        result = run([arg for arg in argv if arg != "--json"], json=json)
    except TinytrainError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    if json:
        print(json_text.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
