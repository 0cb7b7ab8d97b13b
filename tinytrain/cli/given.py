"""What the arguments of a command name: data, networks, optimizers, settings, checkpoints."""

from __future__ import annotations

import argparse
import os
from typing import Any

from tinytrain.errors import InputError


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


def build(arguments: argparse.Namespace, found: Any = None) -> Any:
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


def optimizer_of(arguments: argparse.Namespace, net: Any) -> Any:
    """The one that is asked for, or the model's own, or plain SGD."""
    from tinytrain import optim

    chosen = arguments.optimizer or getattr(net, "optimizer", None) or "sgd"
    return optim.by_name(chosen) if isinstance(chosen, str) else chosen


def settings_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments that every plan takes, where they are given."""
    names = ("batch", "ram", "policy", "microbatch", "density", "spill")
    given = {name: getattr(arguments, name) for name in names}
    return {name: value for name, value in given.items() if value is not None}


def read_data(path: str, part: str | None = None) -> Any:
    """The data at `path`; `part` where it has a training and a test part."""
    from tinytrain import data

    try:
        return data.load(path, part=part)
    except InputError as error:
        if part is None or "part" not in str(error):
            raise
        return data.load(path)


def labels_of(trainer: Any, found: Any, path: str) -> Any:
    """What the outputs are compared with: the labels, or the input where the loss allows it."""
    from tinytrain import losses
    from tinytrain.freeze import compares_with_input

    if compares_with_input(trainer.net, trainer.label_spec):
        return None
    if found.y is None and losses.takes_classes(trainer.loss):
        raise InputError(f"{path}: holds no labels (y), and this network tells classes apart")
    return found.x if found.y is None else found.y


def restored(path: str, model: str | None, changes: dict[str, Any]) -> Any:
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


def spill_elsewhere(file: str) -> dict[str, str]:
    """A spill file of our own where the checkpoint has one, whose disk may be elsewhere."""
    from tinytrain import checkpoint

    if not checkpoint.setting_of(file, "spill"):
        return {}
    import tempfile  # which takes a megabyte

    return {"spill": os.path.join(tempfile.gettempdir(), f"tinytrain-{os.getpid()}.spill")}
