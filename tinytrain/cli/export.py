"""`tinytrain export`: a saved model for a board, to train on there."""

from __future__ import annotations

import argparse
import os

from tinytrain.cli.given import restored, spill_elsewhere
from tinytrain.cli.output import emit


def run(arguments: argparse.Namespace) -> None:
    given = {"batch": arguments.batch, "ram": arguments.ram, "backend": "numpy"}
    changes = {name: value for name, value in given.items() if value is not None}
    changes |= spill_elsewhere(arguments.file)
    trainer = restored(arguments.file, arguments.model, changes)
    trainer.export(arguments.to, arguments.out, arguments.flash)
    plan = trainer.plan
    report = {
        "port": arguments.to,
        "folder": arguments.out,
        "arena_bytes": plan.arena_bytes,
        "microbatch": plan.microbatch,
        "files": sorted(os.listdir(arguments.out)),
    }
    text = f"{arguments.to}: {plan.arena_bytes:,} bytes of arena; written to {arguments.out}"
    emit(arguments, report, text)
