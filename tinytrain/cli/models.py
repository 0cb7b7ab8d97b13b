"""`tinytrain models`: the zoo."""

from __future__ import annotations

import argparse

from tinytrain.cli.output import emit


def run(arguments: argparse.Namespace) -> None:
    from tinytrain import models
    from tinytrain.freeze import sample_specs
    from tinytrain.report import table

    rows = []
    for name in models.names():
        net = models.build(name)
        shapes = ["x".join(map(str, s.shape)) for s in sample_specs(net)]
        rows.append((name, ", ".join(shapes), net.count_parameters()))
    listed = [{"name": n, "input_shape": s, "parameters": p} for n, s, p in rows]
    emit(arguments, {"models": listed}, table(("model", "input", "parameters"), rows))
