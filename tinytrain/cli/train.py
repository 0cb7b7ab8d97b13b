"""`tinytrain train`: a model learns from data and is saved; pauses, signals, resuming."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
import warnings
from typing import Any

from tinytrain.cli.given import build, labels_of, optimizer_of, read_data, restored, settings_of
from tinytrain.cli.output import emit, words
from tinytrain.errors import InputError


def run(arguments: argparse.Namespace) -> None:
    from tinytrain.report import table

    found = _training_data(arguments)
    if arguments.classes is None:  # the loader has named a class without a sample
        warnings.filterwarnings("ignore", "y: no sample of class")
    if arguments.save:
        _check_place(arguments.save)
    trainer = _resumed(arguments) if arguments.resume else _new_trainer(arguments, found)
    y = labels_of(trainer, found, arguments.data)
    heading = f"{trainer.plan}\n\n"
    if sys.stdout.isatty() and not arguments.json:  # elsewhere nothing is printed unless it works
        print(heading, end="", flush=True)
        heading = ""
    begin = time.perf_counter()
    with _watch(trainer, arguments) as watch:
        losses = fit(trainer, found.x, y, arguments, watch)
    seconds = time.perf_counter() - begin
    result = trainer.evaluate(found.x, y)
    if arguments.save:
        trainer.save(arguments.save)
        with contextlib.suppress(FileNotFoundError):
            os.remove(_paused(arguments))
    report = {
        "train_loss": losses[-1] if losses else result["loss"],
        "train_accuracy": result.get("accuracy"),
        "arena_bytes": trainer.plan.arena_bytes,
        "ram_bytes": trainer.plan.ram,
        "high_water_bytes": trainer.high_water_bytes,
        "seconds": seconds,
        "steps": trainer.steps,
        "epochs": trainer.epoch,
        "microbatch": trainer.plan.microbatch,
        "density": trainer.settings["density"],
        "overflows": trainer.overflows,
        "backend": trainer.backend,
        "saved": arguments.save,
        "pauses": watch.paused,
    }
    first = trainer.epoch - len(losses) + 1
    rows = [(f"epoch {first + k}", f"{v:.4f}") for k, v in enumerate(losses)]
    text = (
        f"{heading}{table(('epoch', 'mean loss'), rows)}\n\n{trainer.steps:,} updates, "
        f"{seconds:.1f} s ({trainer.backend}), on the training data {words(result)}"
        + (f"\nsaved to {arguments.save}" if arguments.save else "")
    )
    emit(arguments, report, text)


def _training_data(arguments: argparse.Namespace) -> Any:
    """What --data holds; for a network that translates, rows of its sentence pairs."""
    from tinytrain import checkpoint, models

    if not models.takes(arguments.model, "pieces"):
        return read_data(arguments.data, "train")
    from tinytrain.learn import sentences

    held = arguments.resume and checkpoint.read(arguments.resume)[0]["model"]
    net = models.from_recipe(held) if held else models.build(arguments.model)
    return sentences.read(arguments.data, "train", net)


def _paused(arguments: argparse.Namespace) -> str:
    """Where the state lies while training rests: what --save names is for what is done."""
    return f"{arguments.save}.paused"


def _watch(trainer: Any, arguments: argparse.Namespace) -> Any:
    """What to do after each step: rest while --when or --max-temp say so, and heed signals."""
    from tinytrain import when

    conditions = when.Conditions(arguments.when is not None, arguments.max_temp, arguments.sysfs)
    if arguments.nice is not None:
        when.be_nice(arguments.nice)

    def save() -> str | None:
        if not arguments.save:
            return None
        trainer.save(_paused(arguments))
        return f"{_paused(arguments)} (--resume goes on from there)"

    return when.Watch(conditions, save, lambda line: print(line, file=sys.stderr, flush=True))


def _check_place(path: str) -> None:
    """InputError where a file could not be written, before hours of training."""
    folder = os.path.dirname(os.path.realpath(path))
    if os.path.isdir(path):
        raise InputError(f"--save {path}: this is a folder; name a file in it")
    if not os.path.isdir(folder):
        raise InputError(f"--save {path}: the folder does not exist; make it first")
    if not os.access(folder, os.W_OK):
        raise InputError(f"--save {path}: the folder cannot be written to; choose another")


def _new_trainer(arguments: argparse.Namespace, found: Any) -> Any:
    import tinytrain as tt

    net = build(arguments, found)
    optimizer = optimizer_of(arguments, net)
    if arguments.lr is not None:
        optimizer = optimizer.with_lr(arguments.lr)
    more: dict[str, Any] = {"backend": arguments.backend or "auto", "seed": arguments.seed or 0}
    with tt.models.users_errors(arguments.model):
        return tt.Trainer(net, optimizer=optimizer, **settings_of(arguments), **more)


def _resumed(arguments: argparse.Namespace) -> Any:
    """The trainer of --resume, with what may be changed changed."""
    for name in ("optimizer", "seed", "input", "classes", "norm"):
        if getattr(arguments, name) is not None:
            raise InputError(f"--{name}: the checkpoint of --resume says this; leave it out")
    more = settings_of(arguments)
    if arguments.backend is not None:
        more["backend"] = arguments.backend
    trainer = restored(arguments.resume, arguments.model, more)
    if arguments.lr is not None:
        trainer.optimizer = trainer.optimizer.with_lr(arguments.lr)
    return trainer


def fit(
    trainer: Any, x: Any, y: Any, arguments: argparse.Namespace, on_step: Any = None
) -> list[float]:
    """Each epoch's mean loss; where nobody sees a progress bar, a line for each on stderr."""
    if arguments.epochs < 0:
        raise InputError(f"--epochs {arguments.epochs}: wants 0 or more")
    losses = []
    more = _fitting(trainer, arguments)
    if on_step is not None:
        on_step(trainer.steps, 0.0)  # before the first step, too
        others = more.get("on_step")
        calls = [on_step] if others is None else [others, on_step]
        more["on_step"] = lambda step, loss: [call(step, loss) for call in calls]
    if more.get("on_divergence") is not None:  # it looks at all epochs together
        return trainer.fit(x, y, epochs=arguments.epochs, **more)
    for _ in range(arguments.epochs):
        losses += trainer.fit(x, y, epochs=1, **more)
        if not (arguments.json or sys.stderr.isatty()):
            print(f"epoch {trainer.epoch}: mean loss {losses[-1]:.4f}", file=sys.stderr, flush=True)
    return losses


def _fitting(trainer: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """What --save-every and --on-divergence mean to `fit`."""
    every, path = getattr(arguments, "save_every", None), getattr(arguments, "save", None)
    more = {"on_divergence": getattr(arguments, "on_divergence", None)}
    if every is None:
        return more
    if every < 1 or path is None:
        raise InputError(f"--save-every {every}: wants a number from 1, and --save with a file")

    def on_step(step: int, loss: float) -> None:
        if step % every == 0:
            trainer.save(path)

    return {**more, "on_step": on_step}
