"""The command line: `tinytrain demo | plan | train | eval | models | bench`.

Results go to stdout, progress to stderr. Exit status 0 done, 2 bad usage or input, 3 the plan
does not fit; an error is one line, never a traceback.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
import time
from pathlib import Path
from typing import Any

from tinytrain.errors import BudgetError, InputError, TinytrainError

DEMO_RAM, DEMO_BATCHES, DEMO_EPOCHS, DEMO_LR = "64K", (4, 2, 1), 15, 0.01
BENCHES = ("arena", "plans", "imports", "fashion")


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments) or 0
    except TinytrainError as error:
        print(f"tinytrain: error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("tinytrain: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        print(f"tinytrain: error: {error.filename or ''}: {error.strerror}", file=sys.stderr)
        return 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        """One line and status 2, as every other error."""
        self.exit(2, f"tinytrain: error: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="tinytrain", description="Train neural networks within a RAM budget.")
    from tinytrain import __version__

    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)

    def command(name: str, run, text: str, **more: Any) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, **more)
        made.set_defaults(run=run)
        made.add_argument("--json", action="store_true", help="print one JSON object on stdout")
        return made

    demo = command("demo", _demo, "learn handwritten digits within a RAM budget")
    demo.add_argument("--ram", default=DEMO_RAM, help=f"budget, such as 64K (default {DEMO_RAM})")
    demo.add_argument("--epochs", type=int, default=DEMO_EPOCHS)
    demo.add_argument("--backend", default="auto", help="auto, numpy or numba")
    demo.add_argument("--svg", help="write a picture of the arena to this file")

    plan = command("plan", _plan, "say how many bytes a training step needs, and for what")
    _model_arguments(plan)
    plan.add_argument("--svg", help="write a picture of the arena to this file")

    train = command("train", _train, "train a model on data and save it")
    _model_arguments(train)
    train.add_argument("--data", required=True, help="folder, .npz, IDX or CSV file")
    train.add_argument("--epochs", type=int, default=5)
    train.add_argument("--lr", type=float, help="learning rate")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--backend", default="auto", help="auto, numpy or numba")
    train.add_argument("--save", help="file to write when done (.npz)")
    train.add_argument("--resume", help="checkpoint to go on from")

    evaluate = command("eval", _eval, "measure a saved model on data")
    evaluate.add_argument("file", help="checkpoint written by train --save")
    evaluate.add_argument("--data", required=True, help="folder, .npz, IDX or CSV file")
    evaluate.add_argument("--backend", default="auto", help="auto, numpy or numba")

    command("models", _models, "list the models of the zoo")

    bench = command("bench", _bench, "run the benchmarks")
    bench.add_argument("case", nargs="*", help=f"any of {', '.join(BENCHES)} (default: all)")
    bench.add_argument("--data", help="folder of benchmark data")
    return parser


def _model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a zoo name, or file.py:function")
    parser.add_argument("--input", help="shape of one sample, such as 32,32,3")
    parser.add_argument("--classes", type=int, help="number of classes")
    parser.add_argument("--norm", help="batch, group or none, for convolutional nets of the zoo")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--ram", help="budget, such as 256K (default: no limit)")
    parser.add_argument("--policy", default="auto", help="auto or keep")
    parser.add_argument("--optimizer", help="sgd, momentum, adam or adamw")


# ---------------------------------------------------------------------------- models


def _shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise InputError(f"--input {text!r}: write a shape such as 32,32,3")
    return shape


def _build(arguments: argparse.Namespace, **found: Any) -> Any:
    """The model that MODEL names; `found` are values read from the data."""
    from tinytrain import models

    name, shape = arguments.model, _shape(arguments.input) or found.get("input_shape")
    classes = arguments.classes or found.get("classes")
    if ":" in name:
        net = _from_file(name)
        if shape is not None:
            net.input_shape = shape
        return net
    options = {} if arguments.norm is None else {"norm": arguments.norm}
    if name == "autoencoder":
        classes = None
    seed = getattr(arguments, "seed", 0)
    return models.build(name, classes=classes, input_shape=shape, seed=seed, **options)


def _from_file(name: str) -> Any:
    """`file.py:function`: the Module that the function returns."""
    from tinytrain.nn import Module

    path, _, function = name.rpartition(":")
    if not Path(path).is_file():
        raise InputError(f"{path}: there is no such file; MODEL is a zoo name or file.py:function")
    spec = importlib.util.spec_from_file_location("tinytrain_user_model", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        make = getattr(module, function)
        net = make()
    except TinytrainError:
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise InputError(f"{name}: could not be made ({what})") from error
    if not isinstance(net, Module):
        raise InputError(f"{name}: returned {type(net).__name__}, wants a tinytrain.nn.Module")
    return net


# ---------------------------------------------------------------------------- commands


def _emit(arguments: argparse.Namespace, result: dict[str, Any], text: str) -> None:
    print(json.dumps(result) if arguments.json else text)


def plan_json(plan: Any) -> dict[str, Any]:
    """A plan's figures, in bytes and counts, under the public keys."""
    return {
        "arena_bytes": plan.arena_bytes,
        "lower_bound_bytes": plan.lower_bound,
        "persistent_bytes": plan.persistent_bytes,
        "breakdown": plan.breakdown(),
        "fits": plan.fits,
        "ram_bytes": plan.ram,
        "smallest_ram_bytes": plan.smallest_ram_bytes,
        "microbatch": plan.batch,
        "policies": plan.policies,
        "steps": len(plan.program.steps),
        "macs": plan.macs,
        "extra_macs_ratio": plan.extra_macs_ratio,
    }


def _plan(arguments: argparse.Namespace) -> None:
    import tinytrain as tt

    net = _build(arguments)
    plan = tt.plan(
        net,
        optimizer=arguments.optimizer,
        batch=arguments.batch,
        ram=arguments.ram,
        policy=arguments.policy,
    )
    if arguments.svg:
        plan.to_svg(arguments.svg)
    _emit(arguments, {"model": arguments.model, **plan_json(plan)}, str(plan))


def _demo(arguments: argparse.Namespace) -> None:
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
    losses = trainer.fit(train.x, train.y, epochs=arguments.epochs)
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
    _emit(arguments, report, text)


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


def _read_data(path: str, part: str | None = None) -> Any:
    """The data at `path`; `part` where it has a training and a test part."""
    from tinytrain import data

    try:
        return data.load(path, part=part)
    except InputError as error:
        if part is None or "part" not in str(error):
            raise
        return data.load(path)


def _train(arguments: argparse.Namespace) -> None:
    import tinytrain as tt

    found = _read_data(arguments.data, "train")
    if arguments.save and not Path(arguments.save).resolve().parent.is_dir():
        raise InputError(f"--save {arguments.save}: the folder does not exist; make it first")
    if arguments.resume:
        trainer = tt.Trainer.restore(arguments.resume, backend=arguments.backend)
    else:
        trainer = _new_trainer(arguments, found)
    y = found.x if found.y is None else found.y
    begin = time.perf_counter()
    losses = trainer.fit(found.x, y, epochs=arguments.epochs)
    seconds = time.perf_counter() - begin
    result = trainer.evaluate(found.x, y)
    if arguments.save:
        trainer.save(arguments.save)
    report = {
        "train_loss": losses[-1] if losses else result["loss"],
        "train_accuracy": result.get("accuracy"),
        "arena_bytes": trainer.plan.arena_bytes,
        "ram_bytes": trainer.plan.ram,
        "high_water_bytes": trainer.high_water_bytes,
        "seconds": seconds,
        "steps": trainer.steps,
        "epochs": trainer.epoch,
        "backend": trainer.backend,
        "saved": arguments.save,
    }
    rows = [
        (f"epoch {trainer.epoch - len(losses) + k + 1}", f"{v:.4f}") for k, v in enumerate(losses)
    ]
    from tinytrain.report import table

    text = (
        f"{trainer.plan}\n\n{table(('epoch', 'mean loss'), rows)}\n\n{trainer.steps:,} updates, "
        f"{seconds:.1f} s ({trainer.backend}), on the training data {_words(result)}"
        + (f"\nsaved to {arguments.save}" if arguments.save else "")
    )
    _emit(arguments, report, text)


def _new_trainer(arguments: argparse.Namespace, found: Any) -> Any:
    import tinytrain as tt

    classes = None if found.y is None or found.y.dtype.kind == "f" else int(found.y.max()) + 1
    if found.classes is not None:
        classes = len(found.classes)
    net = _build(arguments, input_shape=found.x.shape[1:], classes=classes)
    optimizer = arguments.optimizer or getattr(net, "optimizer", None) or "momentum"
    if isinstance(optimizer, str):
        optimizer = tt.optim.by_name(optimizer)
    if arguments.lr is not None:
        optimizer = tt.optim.from_config(
            {**optimizer.config(), "lr": {"name": "ConstantLR", "lr": arguments.lr}}
        )
    return tt.Trainer(
        net,
        optimizer=optimizer,
        batch=arguments.batch,
        ram=arguments.ram,
        policy=arguments.policy,
        backend=arguments.backend,
        seed=arguments.seed,
    )


def _words(result: dict[str, float]) -> str:
    accuracy = result.get("accuracy")
    more = "" if accuracy is None else f", accuracy {100 * accuracy:.1f} %"
    return f"loss {result['loss']:.4f}{more}"


def _eval(arguments: argparse.Namespace) -> None:
    import tinytrain as tt

    trainer = tt.Trainer.restore(arguments.file, backend=arguments.backend)
    found = _read_data(arguments.data, "test")
    result = trainer.evaluate(found.x, found.x if found.y is None else found.y)
    report = {**result, "samples": len(found), "backend": trainer.backend}
    _emit(arguments, report, f"{len(found):,} samples: {_words(result)}")


def _models(arguments: argparse.Namespace) -> None:
    from tinytrain import models
    from tinytrain.report import table

    rows = []
    for name in models.names():
        net = models.build(name)
        rows.append((name, "x".join(map(str, net.input_shape)), net.count_parameters()))
    listed = [{"name": n, "input_shape": s, "parameters": p} for n, s, p in rows]
    _emit(arguments, {"models": listed}, table(("model", "input", "parameters"), rows))


def _bench(arguments: argparse.Namespace) -> None:
    cases = arguments.case or list(BENCHES)
    for case in cases:
        if case not in BENCHES:
            raise InputError(f"unknown benchmark {case!r}; there are {', '.join(BENCHES)}")
    results = {}
    for case in cases:
        if not arguments.json:
            print(f"== {case}", flush=True)
        module = importlib.import_module(f"tinytrain.bench.{case}")
        results[case] = module.run(arguments.data, json=arguments.json)
    if arguments.json:
        print(json.dumps(results))


if __name__ == "__main__":
    sys.exit(main())
