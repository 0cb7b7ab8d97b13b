"""Checkpoints: one `.npz` with every persistent array and a JSON header. Never pickled.

A file is written aside and renamed, so that a reader finds the old one or the new one, whole.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from tinytrain import losses, optim
from tinytrain.errors import InputError

if TYPE_CHECKING:
    from tinytrain.nn.module import Module
    from tinytrain.trainer import Trainer

FORMAT = 1
HEADER = "tinytrain.json"


def save(trainer: Trainer, path: str) -> None:
    """Write everything that resuming needs."""
    header = {
        "format": FORMAT,
        "model": getattr(trainer.net, "recipe", None),
        "loss": losses.name_of(trainer.loss),
        "optimizer": trainer.optimizer.config(),
        "batch": trainer.batch,
        "seed": trainer.seed,
        "settings": trainer.settings,
        "input_shape": [[list(s.shape), s.dtype] for s in trainer.samples],
        "position": {"steps": trainer.steps, "epoch": trainer.epoch, "within": trainer.within},
    }
    arrays = {HEADER: np.frombuffer(json.dumps(header).encode(), np.uint8), **trainer.state()}
    path = os.fspath(path)
    aside = f"{path}.{os.getpid()}.part"
    try:
        with open(aside, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); nothing was changed"
        ) from error
    finally:
        if os.path.exists(aside):
            os.remove(aside)


def read(path: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays of a checkpoint; InputError if it is not a whole one."""
    import zipfile

    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(arrays.pop(HEADER).tobytes().decode())
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file") from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise InputError(f"{path}: not a whole tinytrain checkpoint ({error})") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise InputError(f"{path}: not a checkpoint of format {FORMAT}; save it again")
    return header, arrays


def restore(make: type[Trainer], path: str, net: Module | None, changes: dict[str, Any]) -> Trainer:
    """`make`, called as it was for the trainer that wrote this file but for the `changes`."""
    from tinytrain.spec import Spec

    header, arrays = read(path)
    if net is None:
        if header["model"] is None:
            raise InputError(f"{path}: its network is not from the zoo; give it as net=")
        from tinytrain import models

        net = models.from_recipe(header["model"])
    loss = changes.pop("loss", header["loss"])
    if loss is None:
        raise InputError(f"{path}: its loss is a function of yours; give it as loss=")
    arguments = {
        "optimizer": optim.from_config(header["optimizer"]),
        "batch": header["batch"],
        "seed": header["seed"],
        "input_shape": [Spec(tuple(shape), dtype) for shape, dtype in header["input_shape"]],
        **header["settings"],
        **changes,
    }
    trainer = make(net, loss, **arguments)
    apply(trainer, path, header, arrays)
    return trainer


def apply(
    trainer: Trainer, path: str, header: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
    """Take over the arrays and the position of a checkpoint, if all of them fit."""
    state = trainer.state()
    if set(state) != set(arrays):
        odd = sorted(set(state) ^ set(arrays))[0]
        raise InputError(f"{path}: does not fit this network ({odd!r} is on one side only)")
    for name, view in state.items():
        if arrays[name].shape != view.shape or arrays[name].dtype != view.dtype:
            raise InputError(f"{path}: {name} is {arrays[name].shape}, the network's {view.shape}")
    for name, view in state.items():
        view[...] = arrays[name]
    for name, value in header["position"].items():
        setattr(trainer, name, int(value))
