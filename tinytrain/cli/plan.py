"""`tinytrain plan`: how many bytes a training step needs, and for what."""

from __future__ import annotations

import argparse
import functools
from typing import Any

from tinytrain.cli.given import build, optimizer_of, settings_of
from tinytrain.cli.output import emit, write
from tinytrain.errors import InputError


def run(arguments: argparse.Namespace) -> None:
    import tinytrain as tt
    from tinytrain.report import plan_figures

    net = build(arguments)
    optimizer = optimizer_of(arguments, net)
    if arguments.compare:
        return _compare(arguments, net, optimizer)
    if arguments.adapt:
        return _plan_adapt(arguments, net)
    with tt.models.users_errors(arguments.model):
        given = {"optimizer": optimizer, **settings_of(arguments)}
        trainer = tt.Trainer(net, **given) if arguments.seconds else None
        plan = tt.plan(net, **given) if trainer is None else trainer.plan
    if arguments.svg:
        plan.to_svg(arguments.svg)
    figures = {"model": arguments.model, **plan_figures(plan), "density": arguments.density}
    text = str(plan)
    if trainer is not None:
        figures |= {"seconds_per_step": trainer.seconds_per_step(), "backend": trainer.backend}
        text += f"\n\n{figures['seconds_per_step']:.4g} s a step, measured ({trainer.backend})"
    emit(arguments, figures, text)


def _compare(arguments: argparse.Namespace, net: Any, optimizer: Any) -> None:
    """A row for each policy and budget; while they are planned, progress on stderr."""
    import tinytrain as tt
    from tinytrain.compare import Comparison, as_table
    from tinytrain.picture import bars_svg

    if arguments.policy is not None:
        raise InputError("--policy: --compare shows every policy; leave it out")
    given = settings_of(arguments)
    ram, density, spill = (given.pop(name, None) for name in ("ram", "density", "spill"))
    with tt.models.users_errors(arguments.model):
        plan = functools.partial(tt.plan, net, optimizer=optimizer, **given)
        found = Comparison(plan, ram, density, spill)
        rows = found.all(quiet=arguments.json)
    title = f"{arguments.model}, batch {found.keep.batch}, {optimizer}"
    if arguments.svg:
        write(arguments.svg, bars_svg(title, rows))
    report = {"model": arguments.model, "batch": found.keep.batch, "rows": rows}
    emit(arguments, report, f"{title}\n\n{as_table(rows)}")


def _plan_adapt(arguments: argparse.Namespace, net: Any) -> None:
    """A row for each way to adapt."""
    from tinytrain import models
    from tinytrain.learn import adaptplan

    adaptplan.check_model(net)
    given = settings_of(arguments)
    if arguments.optimizer is not None:
        given["optimizer"] = arguments.optimizer
    with models.users_errors(arguments.model):
        found = adaptplan.rows(net, given.pop("ram", None), **given)
    report = {"model": arguments.model, "rows": found}
    emit(arguments, report, adaptplan.text(found, f"{arguments.model}, ways to adapt it"))
