"""The log-mel front end for a board: the tables of a LogMel as a header beside tt_logmel.c.

It writes numbers alone; the code is kernels/c/tt_logmel.c, which every export carries.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from tinytrain.data.sound import LogMel
from tinytrain.ports import c99

PER_LINE = 6


def export(front: LogMel, folder: str | os.PathLike[str]) -> None:
    """Write front_end.h and the sources it needs into `folder`, which is made: the `src` of a
    step's export, or another. `tt_log_mel(&front_end, sound, n, work, x)` then fills the network's
    input.
    """
    folder = os.fspath(folder)
    c99.write_sources(folder, ("tt_logmel.c", "tt_logmel.h", "tt_math.h"))
    c99.write(folder, "front_end.h", header(front))


def header(front: LogMel) -> str:
    """The C tables: one cosine, and each band as a run of bins."""
    turn = np.cos(2 * np.pi / front.window * np.arange(front.window // 2))
    filters = front.filters()
    runs = [np.flatnonzero(filters[:, band]) for band in range(front.bands)]
    weights = np.concatenate([filters[run, band] for band, run in enumerate(runs)])
    first = [int(run[0]) if len(run) else 0 for run in runs]
    quiet = 10 ** (-front.quiet / 10)
    numbers = ", ".join(_float(v) for v in (front.emphasis, quiet, front.floor))
    size = f"{front.frames} frames of {front.bands} bands"
    return f"""/* The front end's tables: {size} at {front.rate} Hz.
   int status = tt_log_mel(&front_end, sound, samples, front_end_work, x); */
#ifndef FRONT_END_H
#define FRONT_END_H
#include "tt_logmel.h"

#define FRONT_END_RATE {front.rate} /* samples a second, int16 */
#define FRONT_END_SIZE {front.frames * front.bands} /* floats of a picture */

{_table("float", "cosine", turn)}
{_table("int16_t", "first", first)}
{_table("int16_t", "count", [len(run) for run in runs])}
{_table("float", "weights", weights)}
static float front_end_work[{2 * front.window}];
static const tt_front_end front_end = {{
    {front.window}, {front.hop}, {front.bands}, {front.frames}, {numbers},
    front_end_cosine, front_end_first, front_end_count, front_end_weights}};
#endif
"""


def _table(kind: str, name: str, values: Any) -> str:
    write = _float if kind == "float" else str
    said = [write(v) for v in values]
    lines = [", ".join(said[k : k + PER_LINE]) for k in range(0, len(said), PER_LINE)]
    return f"static const {kind} front_end_{name}[] = {{\n    " + ",\n    ".join(lines) + "};"


def _float(value: float) -> str:
    """Nine digits give the same float32 back."""
    return f"{np.float32(value):.9e}f"
