"""`tinytrain backend`: which kernels run here, and why."""

from __future__ import annotations

import argparse

from tinytrain.cli.output import emit


def run(arguments: argparse.Namespace) -> None:
    from tinytrain import run

    name, why = run.automatic()
    emit(arguments, {"backend": name, "why": why}, f"{name}: {why}")
