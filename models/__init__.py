"""The zoo: networks built from tinytrain's public names alone.

`build(name)` makes a network with its default shapes, classes, loss and optimizer; every argument
can be given instead. `from_file("file.py:function")` makes one of your own. A network remembers
its recipe, so that a checkpoint can build it again.
"""

if __name__ == "models":
    raise ImportError("models is a folder of tinytrain's checkout: import tinytrain.models instead")

import importlib
import inspect
import operator
from typing import Any

from tinytrain.errors import InputError
from tinytrain.models.from_file import from_file, is_file, users_errors
from tinytrain.models.shipped import card, pretrained, pretrained_names
from tinytrain.nn import Module, seeded
from tinytrain.nn.arguments import check_sizes

__all__ = [
    "ZOO",
    "build",
    "card",
    "from_file",
    "from_recipe",
    "is_file",
    "names",
    "pretrained",
    "pretrained_names",
    "takes",
    "users_errors",
]

ZOO = {  # the module and the class; imported when it is first asked for
    "mlp": "mlp.MLP",
    "lenet5": "image.LeNet5",
    "vgg6": "image.VGG6",
    "resnet8": "image.ResNet8",
    "ds_cnn": "audio.DSCNN",
    "autoencoder": "audio.Autoencoder",
    "mobilenetv2": "image.MobileNetV2",
    "digits_cnn": "image.DigitsCNN",
    "revnet": "reversible.RevNet",
    "irevnet": "reversible.IRevNet",
    "wrn": "deep.WRN",
    "vgg16": "deep.VGG16",
    "resnet18": "deep.ResNet18",
    "spoken_cnn": "learn.SpokenCNN",
    "wavenet": "learn.WaveNet",
    "character_cnn": "learn.CharacterCNN",
    "surface_cnn": "learn.SurfaceCNN",
    "stroke_cnn": "learn.StrokeCNN",
    "stroke_gru": "learn.StrokeGRU",
    "clothes_cnn": "learn.ClothesCNN",
    "transformer": "text.Transformer",
    "attention_gru": "text.AttentionGRU",
}
FLATTENING = ("mlp", "autoencoder")  # these take samples of any shape


def names() -> list[str]:
    """The models that `build` knows."""
    return list(ZOO)


def _kind(name: str) -> Any:
    """The class of a model of the zoo."""
    place, _, kind = ZOO[name].partition(".")
    return getattr(importlib.import_module(f"tinytrain.models.{place}"), kind)


def takes(name: str, argument: str) -> bool:
    """Whether this model of the zoo has such an argument."""
    return name in ZOO and argument in inspect.signature(_kind(name)).parameters


def build(
    name: str,
    classes: int | None = None,
    input_shape: tuple[int, ...] | None = None,
    seed: int = 0,
    **options: Any,
) -> Module:
    """A network of the zoo.

    classes, input_shape  of one sample, channels last; default: the model's own.
    seed                  of the initial weights, 0 to 2**63 - 1.
    options               the model's further arguments, such as norm="group" or width=0.5.
    InputError for an unknown name or argument, and for sizes of which no network can be made.
    """
    if name not in ZOO:
        import difflib

        close = difflib.get_close_matches(str(name), ZOO, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ";"
        raise InputError(f"unknown model {name!r}{hint} there are {', '.join(ZOO)}")
    kind = _kind(name)
    given = {"classes": classes, "input_shape": input_shape}
    arguments = {**{k: v for k, v in given.items() if v is not None}, **options}
    known = inspect.signature(kind).parameters
    for argument in arguments:
        if argument not in known:
            raise InputError(f"{name} takes no {argument!r}; it takes {', '.join(known)}")
    if input_shape is not None:
        arguments["input_shape"] = _shape(name, input_shape, known["input_shape"].default)
    if classes is not None:
        check_sizes(name, classes=classes)
    with seeded(seed):
        try:
            net = kind(**arguments)
        except (InputError, TypeError) as error:
            said = ", ".join(f"{k}={v!r}" for k, v in arguments.items())
            raise InputError(f"{name}({said}) cannot be made: {error}") from error
    if "input_shape" in known:  # the others say it themselves
        net.input_shape = arguments.get("input_shape", known["input_shape"].default)
    net.recipe = {"name": name, "seed": seed, **arguments}
    return net


def _shape(name: str, shape: Any, default: tuple[int, ...]) -> tuple[int, ...]:
    try:
        sizes = tuple(operator.index(n) for n in shape)
    except TypeError:
        sizes = ()
    fits = len(sizes) == len(default) or (sizes and name in FLATTENING)
    if not fits or min(sizes) < 1:
        wants = "(H, W, C)" if len(default) == 3 else f"{len(default)} sizes"
        raise InputError(f"{name}: input_shape is {shape!r}, wants {wants} such as {default}")
    return sizes


def from_recipe(recipe: dict[str, Any]) -> Module:
    """The network of the zoo that a checkpoint's header describes."""
    recipe = dict(recipe)
    return build(recipe.pop("name"), **recipe)
