"""`tinytrain eval`: a saved model measured on data."""

from __future__ import annotations

import argparse
from typing import Any

from tinytrain.cli.given import labels_of, read_data, restored, spill_elsewhere
from tinytrain.cli.output import emit, words, write
from tinytrain.errors import InputError


def run(arguments: argparse.Namespace) -> None:
    from tinytrain import checkpoint, models
    from tinytrain.learn import confusion
    from tinytrain.picture import confusion_svg

    if models.takes(checkpoint.model_of(arguments.file) or "", "pieces"):
        return _eval_translation(arguments)
    measure = _eval_adapted if checkpoint.is_adapted(arguments.file) else _eval_trained
    found = read_data(arguments.data, "test")
    result, counted, names = measure(arguments, found)
    report = {**result, "samples": len(found)}
    text = f"{len(found):,} samples: {words(result)}"
    if counted is not None:
        report |= {"confusion": counted.tolist(), "per_class": confusion.per_class(counted, names)}
        text += f"\n\n{confusion.text(counted, names)}"
    if arguments.svg:
        if counted is None:
            raise InputError("--svg: this network tells no classes apart; there is nothing to draw")
        title = f"{arguments.file}: {words(result)}"
        write(arguments.svg, confusion_svg(title, counted, names))
    emit(arguments, report, text)


def _eval_translation(arguments: argparse.Namespace) -> None:
    """Loss, and BLEU-4 of what the network makes of each source, against all of its targets."""
    from tinytrain.learn import sentences
    from tinytrain.learn.bleu import bleu
    from tinytrain.learn.translate import Translator

    trainer = restored(arguments.file, arguments.model, {"backend": arguments.backend})
    found = sentences.read(arguments.data, "test", trainer.net)
    wanted = found.references()
    translate = Translator(trainer.net, found.vocabulary, backend=trainer.backend)
    score = bleu(translate(list(wanted)), list(wanted.values()))
    result = {**trainer.evaluate(found.x, found.y), "bleu": score, "backend": trainer.backend}
    text = f"{len(found):,} pairs: {words(result)}, BLEU-4 {score:.1f}"
    emit(arguments, {**result, "samples": len(found)}, text)


def _eval_trained(arguments: argparse.Namespace, found: Any) -> tuple[dict[str, Any], Any, Any]:
    """Loss and accuracy of a trainer's file, its confusion (None without classes), their names."""
    from tinytrain.learn import confusion

    changes = {"backend": arguments.backend, **spill_elsewhere(arguments.file)}
    trainer = restored(arguments.file, arguments.model, changes)
    y = labels_of(trainer, found, arguments.data)
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
