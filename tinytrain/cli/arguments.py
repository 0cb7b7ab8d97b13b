"""The arguments of every command, as argparse reads them; it runs none."""

from __future__ import annotations

import argparse
import os
from typing import Any

BATCH = 32
DEMO_RAM, DEMO_BATCHES, DEMO_EPOCHS, DEMO_LR = "64K", (4, 2, 1), 15, 0.01
BENCHES = (
    *("arena", "plans", "memory", "solver", "spill", "ports", "imports"),
    *("fashion", "pruning", "accuracy", "speed", "process", "cost", "growth", "learn", "ways"),
    "kernels",
    *("faults", "mutations", "fuzz", "soak", "gradients"),
)


class _Help(argparse.HelpFormatter):
    """As wide as the terminal. argparse asks shutil, and with it loads bz2 and lzma: a board has
    better uses for half a megabyte."""

    def __init__(self, prog: str):
        try:
            width = int(os.environ.get("COLUMNS") or os.get_terminal_size().columns)
        except (OSError, ValueError):
            width = 0
        super().__init__(prog, width=(width if width > 0 else 80) - 2)


class _Parser(argparse.ArgumentParser):
    def __init__(self, **given: Any):
        super().__init__(**{"formatter_class": _Help, **given})

    def error(self, message: str) -> Any:
        """One line and status 2, as every other error."""
        self.exit(2, f"tinytrain: error: {message}; see {self.prog} --help\n")


def make_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="tinytrain", description="Train neural networks within a RAM budget.")
    from tinytrain import __version__

    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)

    def command(name: str, text: str, **more: Any) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, **more)
        made.add_argument("--json", action="store_true", help="print one JSON object on stdout")
        return made

    demo = command("demo", "learn handwritten digits within a RAM budget")
    demo.add_argument("--ram", default=DEMO_RAM, help=f"budget, such as 64K (default {DEMO_RAM})")
    demo.add_argument("--epochs", type=int, default=DEMO_EPOCHS)
    demo.add_argument("--backend", default="auto", help="auto, numpy, numba or c")
    demo.add_argument("--svg", help="write a picture of the arena to this file")

    plan = command("plan", "say how many bytes a training step needs, and for what")
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

    train = command("train", "train a model on data and save it")
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

    evaluate = command("eval", "measure a saved model on data")
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

    export = command("export", "write a saved model for a board, to train on there")
    export.add_argument("file", help="checkpoint written by train --save")
    export.add_argument("--to", required=True, help="c99 or micropython")
    export.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    export.add_argument("--ram", help="another budget than the checkpoint's")
    export.add_argument("--flash", help="bytes that tables and parameters may take, as 256K")
    export.add_argument("--batch", type=int, help="another batch than the checkpoint's")
    export.add_argument("--model", help="file.py:function that makes the network, as for eval")

    command("backend", "say which kernels run here, and why")

    command("models", "list the models of the zoo")

    bench = command("bench", "run the benchmarks")
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


def _samples(text: str) -> int | str:
    if text != "auto" and not text.removeprefix("-").isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: wants auto or a number of samples")
    return text if text == "auto" else int(text)
