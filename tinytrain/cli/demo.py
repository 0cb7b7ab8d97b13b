"""`tinytrain demo`: handwritten digits, learned within a RAM budget."""

from __future__ import annotations

import argparse
import time
from typing import Any

from tinytrain.cli.arguments import DEMO_BATCHES, DEMO_LR
from tinytrain.cli.output import emit
from tinytrain.cli.train import fit
from tinytrain.errors import BudgetError, InputError


def run(arguments: argparse.Namespace) -> None:
    import tinytrain as tt
    from tinytrain import data

    if arguments.epochs < 1:
        raise InputError(f"--epochs {arguments.epochs}: wants at least 1")
    train, test = data.digits()
    net = tt.models.build("digits_cnn")
    begin = time.perf_counter()
    trainer = _demo_trainer(net, len(train), arguments)
    if arguments.svg:
        trainer.plan.to_svg(arguments.svg)
    if not arguments.json:
        print(f"digits_cnn, {net.count_parameters():,} parameters, {trainer.optimizer}\n")
        print(f"{trainer.plan}\n", flush=True)
    losses = fit(trainer, train.x, train.y, arguments)
    result = trainer.evaluate(test.x, test.y)
    seconds = time.perf_counter() - begin
    report = {
        "test_accuracy": result["accuracy"],
        "test_loss": result["loss"],
        "train_loss": losses[-1],
        "arena_bytes": trainer.plan.arena_bytes,
        "ram_bytes": trainer.plan.ram,
        "high_water_bytes": trainer.high_water_bytes,
        "seconds": seconds,
        "steps": trainer.steps,
        "backend": trainer.backend,
    }
    text = (
        f"{trainer.steps:,} updates on {len(train):,} digits in {seconds:.1f} s "
        f"({trainer.backend})\n"
        f"measured high water {trainer.high_water_bytes:,} of {trainer.plan.arena_bytes:,} bytes "
        f"planned\ntest accuracy {100 * result['accuracy']:.1f} % on {len(test)} digits held out"
    )
    emit(arguments, report, text)


def _demo_trainer(net: Any, samples: int, arguments: argparse.Namespace) -> Any:
    """A trainer with the largest of the demo's batches whose plan fits the budget."""
    import tinytrain as tt

    for batch in DEMO_BATCHES:
        updates = arguments.epochs * -(-samples // batch)
        rate = DEMO_LR * batch / DEMO_BATCHES[0]
        optimizer = tt.optim.SGD(lr=tt.optim.CosineLR(rate, updates), momentum=0.9)
        try:
            return tt.Trainer(
                net,
                optimizer=optimizer,
                batch=batch,
                ram=arguments.ram,
                backend=arguments.backend,
            )
        except BudgetError:
            if batch == DEMO_BATCHES[-1]:
                raise
