"""Checkpoints: one `.npz` with every persistent array and a JSON header. Never pickled.

A file is written aside and renamed, so that a reader finds the old one or the new one, whole; the
old one stays beside it as `.previous`, and is taken, with a warning, if the new one is damaged.
Reading one runs no code: a network that is not from the zoo is given by who restores it.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from tinytrain import durable, losses, optim, run
from tinytrain.errors import InputError
from tinytrain.spec import ITEMSIZE, Spec

if TYPE_CHECKING:
    from tinytrain.nn.module import Module
    from tinytrain.trainer import Trainer

FORMAT = 1
HEADER = "tinytrain.json"
ADAPTED = "adapted"  # the kind of a learner's file; a trainer's says none
POSITION = ("steps", "epoch", "within")

# ---------------------------------------------------------------------------- writing


def save(trainer: Trainer, path: str) -> None:
    """Write everything that resuming needs. InputError if something cannot be written as data:
    a schedule or an optimizer of one's own."""
    write(path, _header(trainer), trainer.state())


def write(path: str, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write a header and arrays aside and rename that: the whole file or none. InputError if it
    cannot be written, or the header is not plain data."""
    try:
        text = json.dumps({**header, "arrays": [*arrays]}, default=_plain)
    except TypeError as error:
        raise InputError(f"{path}: cannot be saved ({error})") from error
    arrays = {HEADER: np.frombuffer(text.encode(), np.uint8), **arrays}
    path = os.fspath(path)
    durable.write(path, lambda file: _write_npz(file, arrays), keep=_is_whole(path))


def _header(trainer: Trainer) -> dict[str, Any]:
    given = trainer.label_spec
    labels = [given] if isinstance(given, Spec) else given
    return {
        "format": FORMAT,
        "model": trainer.net.recipe,
        "trainable": [n for n, p in trainer.net.named_parameters() if p.requires_grad],
        "loss": losses.config_of(trainer.loss),
        "optimizer": trainer.optimizer.config(),
        "batch": trainer.batch,
        "seed": trainer.seed,
        "settings": {**trainer.settings, "backend": trainer.asked},
        "input_shape": [[s.shape, s.dtype] for s in trainer.samples],
        "label_spec": None if labels is None else [[s.shape, s.dtype] for s in labels],
        "position": {name: getattr(trainer, name) for name in POSITION},
    }


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{value!r} is no plain data")


def _write_npz(file: Any, arrays: dict[str, np.ndarray]) -> None:
    """As np.savez, which takes no array called "file"."""
    import zipfile

    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


# ---------------------------------------------------------------------------- reading


Contents = tuple[dict[str, Any], dict[str, np.ndarray]]


def read(path: str, names: tuple[str, ...] | None = None) -> Contents:
    """Header and arrays (all, or those of these names) of a checkpoint. A damaged or missing one
    is a UserWarning if the one saved before it is whole, which is read then; else InputError."""
    path = os.fspath(path)
    header: dict[str, Any] = {}
    try:
        header, arrays = _read_file(path, names)
    except InputError as error:
        held = durable.previous(path)
        with contextlib.suppress(InputError):
            header, arrays = _read_file(held, None)
            warnings.warn(f"{error}: took {held}, saved before it", UserWarning, stacklevel=2)
        if not header:
            raise
    if header.get("format") != FORMAT:
        raise InputError(f"{path}: not a checkpoint of format {FORMAT}; save it again")
    return header, arrays


def _is_whole(path: str) -> bool:
    """Whether a checkpoint, whatever its format, can be read to its end."""
    if not os.path.isfile(path):
        return False
    try:
        _read_file(path, ())  # what is none may be large
        _read_file(path, None)
    except InputError:
        return False
    return True


def _read_file(path: str, names: tuple[str, ...] | None) -> Contents:
    """This file's header and arrays; InputError if it is not a whole checkpoint."""
    from pathlib import Path

    from tinytrain.data.npz import read_members

    try:
        arrays = read_members(Path(path), None if names is None else (HEADER, *names))
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if HEADER not in arrays:
        raise InputError(f"{path}: not a tinytrain checkpoint (it has no {HEADER})")
    try:
        header = json.loads(arrays.pop(HEADER).tobytes().decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a whole tinytrain checkpoint ({error})") from error
    if not isinstance(header, dict):
        raise InputError(f"{path}: not a whole tinytrain checkpoint (its {HEADER} is no object)")
    # A flipped bit at the end of a zip file can hide members from its reader.
    listed = header.get("arrays", [*arrays])
    if names is None and {*map(str, listed if isinstance(listed, list) else [])} != {*arrays}:
        raise InputError(f"{path}: not a whole tinytrain checkpoint (arrays are missing)")
    return header, arrays


def is_adapted(path: str) -> bool:
    """Whether it holds an adapted network (`tt.Learner`), not a trainer."""
    return read(path, names=())[0].get("kind") == ADAPTED


def model_of(path: str) -> str | None:
    """What the network was made from: a name of the zoo, `file.py:function`, or None."""
    recipe = read(path, names=())[0].get("model")
    name = recipe.get("name") if isinstance(recipe, dict) else None
    return name if isinstance(name, str) else None


def setting_of(path: str, name: str) -> Any:
    """An argument of the trainer that wrote this file, or None."""
    settings = read(path, names=())[0].get("settings")
    return settings.get(name) if isinstance(settings, dict) else None


def restore(make: type[Trainer], path: str, net: Module | None, changes: dict[str, Any]) -> Trainer:
    """`make`, called as it was for the trainer that wrote this file but for the `changes`."""
    header, arrays = read(path)
    if header.get("kind") == ADAPTED:
        raise InputError(f"{path}: holds an adapted network; Learner.restore reads it")
    try:
        net = network(header["model"]) if net is None else net
        arguments = {**_arguments(make, header), **changes}
        if "backend" not in changes:  # what another machine had may be missing here
            arguments["backend"] = run.at_hand(arguments.get("backend", "auto"))
        _freeze(net, header["trainable"])
        _position(header)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise InputError(
            f"{path}: its header is not a checkpoint's ({what}); save it again"
        ) from error
    if arguments["loss"] is None:
        raise InputError(f"{path}: its loss is a function of yours; give it as loss=")
    try:
        trainer = make(net, **arguments)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    apply(trainer, path, header, arrays)
    return trainer


def network(recipe: dict[str, Any] | None) -> Module:
    from tinytrain import models

    if recipe is None:
        raise InputError("its network is not from the zoo; give it as net=")
    if models.is_file(recipe["name"]):
        raise InputError(f"its network is made by {recipe['name']}; make it and give it as net=")
    return models.from_recipe(recipe)


def _arguments(make: type[Trainer], header: dict[str, Any]) -> dict[str, Any]:
    """The arguments of Trainer that a header holds."""
    known, settings = inspect.signature(make).parameters, header["settings"]
    for name in settings:
        if name not in known:
            raise InputError(f"its header has a setting {name!r}, which this version does not know")
    labels = header["label_spec"]
    return {
        **settings,
        "loss": None if header["loss"] is None else losses.from_config(header["loss"]),
        "optimizer": optim.from_config(header["optimizer"]),
        "batch": header["batch"],
        "seed": int(header["seed"]),
        "input_shape": _specs(header["input_shape"]),
        "label_spec": None if labels is None else _specs(labels),
    }


def _specs(listed: list[Any]) -> list[Spec]:
    specs = [Spec(tuple(int(n) for n in shape), dtype) for shape, dtype in listed]
    for spec in specs:
        if spec.dtype not in ITEMSIZE:
            raise InputError(f"its header names the dtype {spec.dtype!r}, which is none of ours")
    return specs


def _freeze(net: Module, trainable: list[str]) -> None:
    parameters = dict(net.named_parameters())
    odd = sorted(set(trainable) - set(parameters))
    if odd:
        raise InputError(f"does not fit this network ({odd[0]!r} is in the file only)")
    for name, p in parameters.items():
        p.requires_grad = name in trainable


def _position(header: dict[str, Any]) -> dict[str, int]:
    position = {name: int(header["position"][name]) for name in POSITION}
    if min(position.values()) < 0:
        raise InputError(f"its header's position is {position}, wants numbers from 0")
    return position


def apply(
    trainer: Trainer, path: str, header: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
    """Take over the arrays and the position of a checkpoint, if all of them fit."""
    state = trainer.state()
    if set(state) != set(arrays):
        odd = sorted(set(state) ^ set(arrays))[0]
        raise InputError(f"{path}: does not fit this network ({odd!r} is on one side only)")
    for name, view in state.items():
        a = arrays[name]
        if a.shape != view.shape or a.dtype != view.dtype:
            raise InputError(
                f"{path}: {name} is {a.dtype}{list(a.shape)}, the network's "
                f"{view.dtype}{list(view.shape)}"
            )
    for name, view in state.items():
        view[...] = arrays[name]
    for name, value in _position(header).items():
        setattr(trainer, name, value)
