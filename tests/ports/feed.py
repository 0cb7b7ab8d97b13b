"""What a board is fed and what the host makes of the same: one file, one list of figures."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

import tinytrain as tt


def write_feed(path: Path, trainer: tt.Trainer, steps, test=()) -> None:
    """`steps` are (x, y) of whole batches, y perhaps a tuple; `test` pairs of x and a label."""
    raw = struct.pack("<I", len(steps))
    size = trainer.plan.microbatch
    for k, (x, y) in enumerate(steps):
        raw += struct.pack("<f", trainer.optimizer.numbers(k)["lr"])
        for begin in range(0, len(x), size):
            arrays = (x, *(y if isinstance(y, tuple) else (y,)))
            raw += b"".join(a[begin : begin + size].tobytes() for a in arrays)
    raw += struct.pack("<I", len(test))
    for x, label in test:
        raw += x.tobytes() + struct.pack("<i", label)
    path.write_bytes(raw)


def host_figures(trainer: tt.Trainer, steps, test=()) -> dict[str, int]:
    """The same training here: CRC-32 of the state and of the losses (slice by slice only where a
    batch is one slice), and how many of the test samples are right."""
    losses = 0
    for x, y in steps:
        losses = zlib.crc32(np.float32(trainer.step(x, y)).tobytes(), losses)
    state = 0
    view = trainer._train.executor.view
    leaves = trainer.plan.program.leaves.items()
    held = [v for v, x in leaves if x.kind in ("parameter", "state", "optimizer")]
    for v in sorted(held, key=trainer.plan.offset):
        if trainer.plan.program.leaves[v].kind != "parameter" or is_trained(trainer, v):
            state = zlib.crc32(view(v).tobytes(), state)
    figures = {"state": state, "overflows": trainer.overflows}
    if trainer.plan.microbatch == trainer.plan.batch:
        figures["losses"] = losses
    if len(test):
        outputs = trainer.predict(np.stack([x for x, _ in test]))
        figures["right"] = int((outputs.argmax(-1) == [label for _, label in test]).sum())
    return figures


def is_trained(trainer: tt.Trainer, v: int) -> bool:
    return trainer.plan.program.leaves[v].trainable


def figures_of(printed: str) -> dict[str, int]:
    """What the program printed."""
    return {name: int(value, 16) for name, value in map(str.split, printed.splitlines())}
