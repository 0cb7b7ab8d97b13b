"""The command line: `tinytrain demo | plan | train | eval | export | backend | models | bench`.

Results go to stdout, progress to stderr. Exit status 0 done, 2 bad usage or input, 3 the plan
does not fit; an error is one line, never a traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import inspect
import os
import sys
import time
import warnings
from typing import Any

from tinytrain.errors import BudgetError, InputError, TinytrainError

BATCH = 32
DEMO_RAM, DEMO_BATCHES, DEMO_EPOCHS, DEMO_LR = "64K", (4, 2, 1), 15, 0.01
BENCHES = (
    *("arena", "plans", "memory", "solver", "spill", "ports", "imports"),
    *("fashion", "pruning", "accuracy", "speed", "process", "cost", "growth", "learn", "ways"),
    "kernels",
    *("faults", "mutations", "fuzz", "soak", "gradients"),
)


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: _warn(message)
            return arguments.run(arguments) or 0
    except TinytrainError as error:
        return _fail(str(error), error.exit_status)
    except MemoryError as error:
        return _fail(f"not enough memory on this machine ({error}); take a smaller --batch", 2)
    except KeyboardInterrupt:
        print("tinytrain: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        return _fail(f"{error.filename or ''}: {error.strerror}", 2)


def _fail(message: str, status: int) -> int:
    print(f"tinytrain: error: {message}", file=sys.stderr)
    return status


def _warn(message: Any) -> None:
    """One line, without the line of this package that it came from."""
    print(f"tinytrain: warning: {message}", file=sys.stderr)


class _Help(argparse.HelpFormatter):
    """As wide as the terminal. argparse asks shutil, and with it loads bz2 and lzma: a board has
    better uses for half a megabyte."""

    def __init__(self, prog: str):
        try:
            width = int(os.environ.get("COLUMNS") or os.get_terminal_size().columns)
        except (OSError, ValueError):
            width = 80
        super().__init__(prog, width=width - 2)


class _Parser(argparse.ArgumentParser):
    def __init__(self, **given: Any):
        super().__init__(**{"formatter_class": _Help, **given})

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
    demo.add_argument("--backend", default="auto", help="auto, numpy, numba or c")
    demo.add_argument("--svg", help="write a picture of the arena to this file")

    plan = command("plan", _plan, "say how many bytes a training step needs, and for what")
    _model_arguments(plan)
    plan.add_argument("--svg", help="write a picture of the arena to this file")
    plan.add_argument(
        "--seconds", action="store_true", help="also run a few steps here, and say how long one is"
    )
    plan.add_argument(
        "--compare",
        action="store_true",
        help="a table of keep, each policy alone and the solver at several budgets",
    )
    plan.add_argument(
        "--adapt",
        action="store_true",
        help="a table of what each way to adapt the trained network to a few examples takes",
    )

    train = command("train", _train, "train a model on data and save it")
    _model_arguments(train)
    train.add_argument("--data", required=True, help="folder, .npz, IDX or CSV file")
    train.add_argument("--epochs", type=int, default=5, help="so many (more) epochs; default 5")
    train.add_argument("--lr", type=float, help="learning rate")
    train.add_argument("--seed", type=int, help="of the weights and the shuffling; default 0")
    train.add_argument("--backend", help="auto (but what --resume says), numpy, numba or c")
    train.add_argument(
        "--save", help="file to write when done (.npz); an older one stays as .previous"
    )
    train.add_argument(
        "--when",
        choices=("charging",),
        help="train only while power comes from outside; on battery it rests",
    )
    train.add_argument(
        "--max-temp", type=float, metavar="C", help="rest while the machine is hotter, as 60"
    )
    train.add_argument("--nice", type=int, help="give way to other processes, 0 to 19")
    train.add_argument("--sysfs", default="/sys", help=argparse.SUPPRESS)
    train.add_argument(
        "--save-every", type=int, metavar="N", help="write it behind every N-th update, too"
    )
    train.add_argument(
        "--on-divergence",
        help="restore (end with the last good state) or lower_rate (go on from there at a tenth); "
        "default: an error",
    )
    train.add_argument(
        "--resume",
        metavar="F",
        help="checkpoint of MODEL to go on from; of the other arguments only --ram, --policy, "
        "--microbatch, --density, --spill, --batch, --lr and --backend can then be changed",
    )

    evaluate = command("eval", _eval, "measure a saved model on data")
    evaluate.add_argument("file", help="checkpoint written by train --save, or an adapted network")
    evaluate.add_argument("--data", required=True, help="folder, .npz, IDX or CSV file")
    evaluate.add_argument(
        "--model",
        help="file.py:function that makes the network; default: the one it was trained with, "
        "which is run",
    )
    evaluate.add_argument("--backend", default="auto", help="auto, numpy, numba or c")
    evaluate.add_argument(
        "--svg", help="write a picture of which classes are confused to this file"
    )

    export = command("export", _export, "write a saved model for a board, to train on there")
    export.add_argument("file", help="checkpoint written by train --save")
    export.add_argument("--to", required=True, help="c99 or micropython")
    export.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    export.add_argument("--ram", help="another budget than the checkpoint's")
    export.add_argument("--flash", help="bytes that tables and parameters may take, as 256K")
    export.add_argument("--batch", type=int, help="another batch than the checkpoint's")
    export.add_argument("--model", help="file.py:function that makes the network, as for eval")

    command("backend", _backend, "say which kernels run here, and why")

    command("models", _models, "list the models of the zoo")

    bench = command("bench", _bench, "run the benchmarks")
    bench.add_argument("case", nargs="*", help=f"any of {', '.join(BENCHES)} (default: all)")
    bench.add_argument("--data", help="folder of benchmark data")
    bench.add_argument("--only", help="cases whose name contains this (memory, accuracy, learn)")
    bench.add_argument(
        "--nets", metavar="FOLDER", help="trained networks are kept, and looked for, here (learn)"
    )
    bench.add_argument("--quick", action="store_true", help="plan, but run no step (memory)")
    bench.add_argument(
        "--svg", help="write a picture to this file (accuracy: losses of cifar; speed; growth)"
    )
    return parser


def _model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a zoo name, or file.py:function")
    parser.add_argument("--input", help="shape of one sample, such as 32,32,3")
    parser.add_argument("--classes", type=int, help="number of classes")
    parser.add_argument("--norm", help="batch, group or none, for convolutional nets of the zoo")
    parser.add_argument("--batch", type=int, help=f"samples of an update; default {BATCH}")
    parser.add_argument("--ram", help="budget, such as 256K (default: no limit)")
    parser.add_argument(
        "--policy",
        help="auto (the default), keep, recompute, bitmap, invert, spill or topk, for all values",
    )
    parser.add_argument(
        "--microbatch", type=_samples, help="samples of a slice of the batch, or auto (the default)"
    )
    parser.add_argument(
        "--spill", metavar="FILE", help="values may be put into this file between uses (an SD card)"
    )
    parser.add_argument(
        "--density",
        type=float,
        help="share of non-zeros expected in outputs of ReLU, 0 to 1: bitmaps may then be used; "
        "with topk the share that is kept",
    )
    parser.add_argument(
        "--optimizer", help="sgd, momentum, adam or adamw; default: the model's own, or sgd"
    )


# ---------------------------------------------------------------------------- models


def _samples(text: str) -> int | str:
    if text != "auto" and not text.removeprefix("-").isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: wants auto or a number of samples")
    return text if text == "auto" else int(text)


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


def _build(arguments: argparse.Namespace, found: Any = None) -> Any:
    """The model that MODEL names; what is not said is read from the data `found`."""
    from tinytrain import models

    name, shape, classes = arguments.model, _shape(arguments.input), arguments.classes
    seed = getattr(arguments, "seed", None) or 0
    of_data = found.x.shape[1:] if hasattr(found, "classes") else None
    if models.is_file(name):
        net = models.from_file(name, shape, seed)
        net.input_shape = net.input_shape or of_data
        if net.input_shape is None:
            raise InputError(f"{name}: the shape of a sample is not known; give it as --input")
        return net
    if classes is None and found is not None and models.takes(name, "classes"):
        classes = _classes(found)
    options = {} if arguments.norm is None else {"norm": arguments.norm}
    if models.takes(name, "pieces") and found is not None:
        options["pieces"] = list(found.vocabulary.pieces)
    return models.build(name, classes=classes, input_shape=shape or of_data, seed=seed, **options)


def _classes(found: Any) -> int | None:
    """The number of classes in the data, if it has labels."""
    if found.classes is not None:
        return len(found.classes)
    return None if found.y is None or found.y.dtype.kind == "f" else int(found.y.max()) + 1


def _optimizer(arguments: argparse.Namespace, net: Any) -> Any:
    """The one that is asked for, or the model's own, or plain SGD."""
    from tinytrain import optim

    chosen = arguments.optimizer or getattr(net, "optimizer", None) or "sgd"
    return optim.by_name(chosen) if isinstance(chosen, str) else chosen


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments that every plan takes, where they are given."""
    names = ("batch", "ram", "policy", "microbatch", "density", "spill")
    given = {name: getattr(arguments, name) for name in names}
    return {name: value for name, value in given.items() if value is not None}


# ---------------------------------------------------------------------------- commands


def _emit(arguments: argparse.Namespace, result: dict[str, Any], text: str) -> None:
    from tinytrain.report import as_json

    print(as_json(result) if arguments.json else text)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _plan(arguments: argparse.Namespace) -> None:
    import tinytrain as tt
    from tinytrain.report import plan_figures

    net = _build(arguments)
    optimizer = _optimizer(arguments, net)
    if arguments.compare:
        return _compare(arguments, net, optimizer)
    if arguments.adapt:
        return _plan_adapt(arguments, net)
    with tt.models.users_errors(arguments.model):
        given = {"optimizer": optimizer, **_settings(arguments)}
        trainer = tt.Trainer(net, **given) if arguments.seconds else None
        plan = tt.plan(net, **given) if trainer is None else trainer.plan
    if arguments.svg:
        plan.to_svg(arguments.svg)
    figures = {"model": arguments.model, **plan_figures(plan), "density": arguments.density}
    text = str(plan)
    if trainer is not None:
        figures |= {"seconds_per_step": trainer.seconds_per_step(), "backend": trainer.backend}
        text += f"\n\n{figures['seconds_per_step']:.4g} s a step, measured ({trainer.backend})"
    _emit(arguments, figures, text)


def _compare(arguments: argparse.Namespace, net: Any, optimizer: Any) -> None:
    """A row for each policy and budget; while they are planned, progress on stderr."""
    import tinytrain as tt
    from tinytrain.compare import Comparison, as_table
    from tinytrain.picture import bars_svg

    if arguments.policy is not None:
        raise InputError("--policy: --compare shows every policy; leave it out")
    given = _settings(arguments)
    ram, density, spill = (given.pop(name, None) for name in ("ram", "density", "spill"))
    with tt.models.users_errors(arguments.model):
        plan = functools.partial(tt.plan, net, optimizer=optimizer, **given)
        found = Comparison(plan, ram, density, spill)
        rows = found.all(quiet=arguments.json)
    title = f"{arguments.model}, batch {found.keep.batch}, {optimizer}"
    if arguments.svg:
        _write(arguments.svg, bars_svg(title, rows))
    report = {"model": arguments.model, "batch": found.keep.batch, "rows": rows}
    _emit(arguments, report, f"{title}\n\n{as_table(rows)}")


def _plan_adapt(arguments: argparse.Namespace, net: Any) -> None:
    """A row for each way to adapt."""
    from tinytrain import models
    from tinytrain.learn import adaptplan

    adaptplan.check_model(net)
    given = _settings(arguments)
    if arguments.optimizer is not None:
        given["optimizer"] = arguments.optimizer
    with models.users_errors(arguments.model):
        found = adaptplan.rows(net, given.pop("ram", None), **given)
    report = {"model": arguments.model, "rows": found}
    _emit(arguments, report, adaptplan.text(found, f"{arguments.model}, ways to adapt it"))


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
    losses = _fit(trainer, train.x, train.y, arguments)
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


def _training_data(arguments: argparse.Namespace) -> Any:
    """What --data holds; for a network that translates, rows of its sentence pairs."""
    from tinytrain import checkpoint, models

    if not models.takes(arguments.model, "pieces"):
        return _read_data(arguments.data, "train")
    from tinytrain.learn import sentences

    held = arguments.resume and checkpoint.read(arguments.resume)[0]["model"]
    net = models.from_recipe(held) if held else models.build(arguments.model)
    return sentences.read(arguments.data, "train", net)


def _train(arguments: argparse.Namespace) -> None:
    from tinytrain.report import table

    found = _training_data(arguments)
    if arguments.classes is None:  # the loader has named a class without a sample
        warnings.filterwarnings("ignore", "y: no sample of class")
    if arguments.save:
        _check_place(arguments.save)
    trainer = _resumed(arguments) if arguments.resume else _new_trainer(arguments, found)
    y = _labels(trainer, found, arguments.data)
    heading = f"{trainer.plan}\n\n"
    if sys.stdout.isatty() and not arguments.json:  # elsewhere nothing is printed unless it works
        print(heading, end="", flush=True)
        heading = ""
    begin = time.perf_counter()
    with _watch(trainer, arguments) as watch:
        losses = _fit(trainer, found.x, y, arguments, watch)
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
        f"{seconds:.1f} s ({trainer.backend}), on the training data {_words(result)}"
        + (f"\nsaved to {arguments.save}" if arguments.save else "")
    )
    _emit(arguments, report, text)


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

    net = _build(arguments, found)
    optimizer = _optimizer(arguments, net)
    if arguments.lr is not None:
        optimizer = optimizer.with_lr(arguments.lr)
    more: dict[str, Any] = {"backend": arguments.backend or "auto", "seed": arguments.seed or 0}
    with tt.models.users_errors(arguments.model):
        return tt.Trainer(net, optimizer=optimizer, **_settings(arguments), **more)


def _resumed(arguments: argparse.Namespace) -> Any:
    """The trainer of --resume, with what may be changed changed."""
    for name in ("optimizer", "seed", "input", "classes", "norm"):
        if getattr(arguments, name) is not None:
            raise InputError(f"--{name}: the checkpoint of --resume says this; leave it out")
    more = _settings(arguments)
    if arguments.backend is not None:
        more["backend"] = arguments.backend
    trainer = _restored(arguments.resume, arguments.model, more)
    if arguments.lr is not None:
        trainer.optimizer = trainer.optimizer.with_lr(arguments.lr)
    return trainer


def _restored(path: str, model: str | None, changes: dict[str, Any]) -> Any:
    """The trainer of a checkpoint; `model` says what made its network, if the user does."""
    import tinytrain as tt
    from tinytrain import checkpoint, models

    held = checkpoint.model_of(path)
    name = model or held
    if name is None:
        raise InputError(f"{path}: holds a network of your own; give file.py:function as --model")
    if not models.is_file(name) and name != held:
        raise InputError(f"{path}: holds {held}, not {name}; name the model that it was saved from")
    if model is None and models.is_file(name) and not os.path.isfile(name.rpartition(":")[0]):
        raise InputError(f"{path}: {name} made its network, but is not here; give it as --model")
    net = models.from_file(name) if models.is_file(name) else None
    with models.users_errors(name):
        return tt.Trainer.restore(path, net, **changes)


def _labels(trainer: Any, found: Any, path: str) -> Any:
    """What the outputs are compared with: the labels, or the input where the loss allows it."""
    from tinytrain import losses
    from tinytrain.freeze import compares_with_input

    if compares_with_input(trainer.net, trainer.label_spec):
        return None
    if found.y is None and losses.takes_classes(trainer.loss):
        raise InputError(f"{path}: holds no labels (y), and this network tells classes apart")
    return found.x if found.y is None else found.y


def _fit(
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


def _words(result: dict[str, float]) -> str:
    accuracy = result.get("accuracy")
    more = "" if accuracy is None else f", accuracy {100 * accuracy:.1f} %"
    return f"loss {result['loss']:.4f}{more}"


def _spill_elsewhere(file: str) -> dict[str, str]:
    """A spill file of our own where the checkpoint has one, whose disk may be elsewhere."""
    from tinytrain import checkpoint

    if not checkpoint.setting_of(file, "spill"):
        return {}
    import tempfile  # which takes a megabyte

    return {"spill": os.path.join(tempfile.gettempdir(), f"tinytrain-{os.getpid()}.spill")}


def _eval(arguments: argparse.Namespace) -> None:
    from tinytrain import checkpoint, models
    from tinytrain.learn import confusion
    from tinytrain.picture import confusion_svg

    if models.takes(checkpoint.model_of(arguments.file) or "", "pieces"):
        return _eval_translation(arguments)
    measure = _eval_adapted if checkpoint.is_adapted(arguments.file) else _eval_trained
    found = _read_data(arguments.data, "test")
    result, counted, names = measure(arguments, found)
    report = {**result, "samples": len(found)}
    text = f"{len(found):,} samples: {_words(result)}"
    if counted is not None:
        report |= {"confusion": counted.tolist(), "per_class": confusion.per_class(counted, names)}
        text += f"\n\n{confusion.text(counted, names)}"
    if arguments.svg:
        if counted is None:
            raise InputError("--svg: this network tells no classes apart; there is nothing to draw")
        title = f"{arguments.file}: {_words(result)}"
        _write(arguments.svg, confusion_svg(title, counted, names))
    _emit(arguments, report, text)


def _eval_translation(arguments: argparse.Namespace) -> None:
    """Loss, and BLEU-4 of what the network makes of each source, against all of its targets."""
    from tinytrain.learn import sentences
    from tinytrain.learn.bleu import bleu
    from tinytrain.learn.translate import Translator

    trainer = _restored(arguments.file, arguments.model, {"backend": arguments.backend})
    found = sentences.read(arguments.data, "test", trainer.net)
    wanted = found.references()
    translate = Translator(trainer.net, found.vocabulary, backend=trainer.backend)
    score = bleu(translate(list(wanted)), list(wanted.values()))
    result = {**trainer.evaluate(found.x, found.y), "bleu": score, "backend": trainer.backend}
    text = f"{len(found):,} pairs: {_words(result)}, BLEU-4 {score:.1f}"
    _emit(arguments, {**result, "samples": len(found)}, text)


def _eval_trained(arguments: argparse.Namespace, found: Any) -> tuple[dict[str, Any], Any, Any]:
    """Loss and accuracy of a trainer's file, its confusion (None without classes), their names."""
    from tinytrain.learn import confusion

    changes = {"backend": arguments.backend, **_spill_elsewhere(arguments.file)}
    trainer = _restored(arguments.file, arguments.model, changes)
    y = _labels(trainer, found, arguments.data)
    result = {**trainer.evaluate(found.x, y), "backend": trainer.backend}
    if "accuracy" not in result or y.ndim != 1:
        return result, None, None
    outputs = trainer.predict(found.x)
    names = found.classes or ()
    names = [*names, *(str(k) for k in range(len(names), outputs.shape[-1]))]
    return result, confusion.counts(y, outputs.argmax(axis=-1), len(names)), names


def _eval_adapted(arguments: argparse.Namespace, found: Any) -> tuple[dict[str, Any], Any, Any]:
    """The same of an adapted network's file; labels go by name where the data has names."""
    import tinytrain as tt
    from tinytrain import checkpoint, models

    name = arguments.model or checkpoint.model_of(arguments.file)
    net = models.from_file(name) if name and models.is_file(name) else None
    learner = tt.Learner.restore(arguments.file, net, backend=arguments.backend)
    if found.y is None:
        raise InputError(f"{arguments.data}: holds no labels (y)")
    y: Any = found.y
    if found.classes is not None and any(isinstance(c, str) for c in learner.classes):
        y = [found.classes[k] for k in found.y]
    names = [str(c) for c in learner.classes]
    return learner.evaluate(found.x, y), learner.confusion(found.x, y), names


def _export(arguments: argparse.Namespace) -> None:
    given = {"batch": arguments.batch, "ram": arguments.ram, "backend": "numpy"}
    changes = {name: value for name, value in given.items() if value is not None}
    changes |= _spill_elsewhere(arguments.file)
    trainer = _restored(arguments.file, arguments.model, changes)
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
    _emit(arguments, report, text)


def _backend(arguments: argparse.Namespace) -> None:
    from tinytrain import run

    name, why = run.automatic()
    _emit(arguments, {"backend": name, "why": why}, f"{name}: {why}")


def _models(arguments: argparse.Namespace) -> None:
    from tinytrain import models
    from tinytrain.freeze import sample_specs
    from tinytrain.report import table

    rows = []
    for name in models.names():
        net = models.build(name)
        shapes = ["x".join(map(str, s.shape)) for s in sample_specs(net)]
        rows.append((name, ", ".join(shapes), net.count_parameters()))
    listed = [{"name": n, "input_shape": s, "parameters": p} for n, s, p in rows]
    _emit(arguments, {"models": listed}, table(("model", "input", "parameters"), rows))


def _bench(arguments: argparse.Namespace) -> None:
    cases = arguments.case or list(BENCHES)
    for case in cases:
        if case not in BENCHES:
            raise InputError(f"unknown benchmark {case!r}; there are {', '.join(BENCHES)}")
    given = {k: v for k in ("only", "quick", "svg", "nets") if (v := getattr(arguments, k))}
    results = {}
    for case in cases:
        run = importlib.import_module(f"tinytrain.bench.{case}").run
        for option in given:
            if option not in inspect.signature(run).parameters:
                raise InputError(f"bench {case} takes no --{option}; leave it out")
        if not arguments.json:
            print(f"== {case}", flush=True)
        results[case] = run(arguments.data, json=arguments.json, **given)
    if arguments.json:
        _emit(arguments, results, "")


if __name__ == "__main__":
    sys.exit(main())
