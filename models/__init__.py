"""The zoo: networks built from tinytrain's public names alone.

`build(name)` makes a network with its default shapes, classes, loss and optimizer; every argument
can be given instead. A network remembers its recipe, so that a checkpoint can build it again.
"""

if __name__ == "models":
    raise ImportError("models is a folder of tinytrain's checkout: import tinytrain.models instead")

import inspect
from typing import Any

from tinytrain.errors import InputError
from tinytrain.models.audio import DSCNN, Autoencoder
from tinytrain.models.image import VGG6, DigitsCNN, LeNet5, MobileNetV2, ResNet8
from tinytrain.models.mlp import MLP
from tinytrain.nn import Module, seeded

ZOO = {
    "mlp": MLP,
    "lenet5": LeNet5,
    "vgg6": VGG6,
    "resnet8": ResNet8,
    "ds_cnn": DSCNN,
    "autoencoder": Autoencoder,
    "mobilenetv2": MobileNetV2,
    "digits_cnn": DigitsCNN,
}


def names() -> list[str]:
    """The models that `build` knows."""
    return list(ZOO)


def build(
    name: str,
    classes: int | None = None,
    input_shape: tuple[int, ...] | None = None,
    seed: int = 0,
    **options: Any,
) -> Module:
    """A network of the zoo.

    classes, input_shape  of one sample, channels last; default: the model's own.
    seed                  of the initial weights.
    options               the model's further arguments, such as norm="group" or width=0.5.
    """
    if name not in ZOO:
        import difflib

        close = difflib.get_close_matches(str(name), ZOO, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ";"
        raise InputError(f"unknown model {name!r}{hint} there are {', '.join(ZOO)}")
    kind = ZOO[name]
    given = {"classes": classes, "input_shape": input_shape}
    arguments = {**{k: v for k, v in given.items() if v is not None}, **options}
    known = inspect.signature(kind).parameters
    for argument in arguments:
        if argument not in known:
            raise InputError(f"{name} takes no {argument!r}; it takes {', '.join(known)}")
    if input_shape is not None:
        arguments["input_shape"] = _shape(name, input_shape, known["input_shape"].default)
    with seeded(seed):
        net = kind(**arguments)
    net.input_shape = arguments.get("input_shape", known["input_shape"].default)
    net.recipe = {"name": name, "seed": seed, **arguments}
    return net


def _shape(name: str, shape: Any, default: tuple[int, ...]) -> tuple[int, ...]:
    shape = tuple(shape)
    if len(shape) != len(default) or not all(isinstance(n, int) and n > 0 for n in shape):
        wants = "(H, W, C)" if len(default) == 3 else f"{len(default)} sizes"
        raise InputError(f"{name}: input_shape is {shape}, wants {wants} such as {default}")
    return shape


def from_recipe(recipe: dict[str, Any]) -> Module:
    """The network that a checkpoint's header describes."""
    recipe = dict(recipe)
    if "input_shape" in recipe:
        recipe["input_shape"] = tuple(recipe["input_shape"])
    return build(recipe.pop("name"), **recipe)
