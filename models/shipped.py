"""Pretrained networks that ship with the package: `models.pretrained("spoken_digits")`.

Each is an `.npz` of arrays and a recipe beside a card in words (data, licence, split, accuracy).
Never pickled; nothing is fetched.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from tinytrain.errors import InputError
from tinytrain.nn import Module

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "weights")
RECIPE = "recipe.json"


def pretrained_names() -> list[str]:
    """What `pretrained` knows."""
    return sorted(f.removesuffix(".npz") for f in os.listdir(FOLDER) if f.endswith(".npz"))


def card(name: str) -> str:
    """The card of one: what it was trained on, under which licence, how, and how well it does."""
    _known(name)
    with open(os.path.join(FOLDER, f"{name}.md"), encoding="utf-8") as file:
        return file.read()


def pretrained(name: str) -> Module:
    """The network, its weights as they were trained; `net.classes` names its classes, if any."""
    _known(name)
    return read(os.path.join(FOLDER, f"{name}.npz"))


def _known(name: str) -> None:
    if name not in pretrained_names():
        raise InputError(
            f"no pretrained network {name!r}; there are {', '.join(pretrained_names())}"
        )


def read(path: Any) -> Module:
    """The network that `save` wrote; InputError if it is not one."""
    import json  # these cost more than the rest of importing the zoo
    from pathlib import Path

    from tinytrain.data.npz import read_members
    from tinytrain.models import from_recipe

    try:
        arrays = read_members(Path(path))
        recipe = json.loads(arrays.pop(RECIPE).tobytes().decode())
        classes = recipe.pop("labels", None)
        net = from_recipe(recipe)
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a pretrained network ({error})") from error
    net.load_state_dict(arrays)
    if classes is not None:
        net.classes = classes
    return net


def save(net: Module, path: Any, classes: Any = None) -> None:
    """Write a network of the zoo: its recipe, its parameters and running statistics as float32,
    and the names of its classes."""
    import json

    if net.recipe is None:
        raise InputError("only networks of the zoo have a recipe to be made again by")
    recipe = {**net.recipe, **({} if classes is None else {"labels": list(classes)})}
    text = np.frombuffer(json.dumps(recipe, sort_keys=True).encode(), np.uint8)
    arrays: dict[str, Any] = {RECIPE: text, **net.state_dict()}
    np.savez(path, **arrays)
