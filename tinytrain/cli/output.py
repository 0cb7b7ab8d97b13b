"""How a command answers: one JSON object or a text on stdout, files where it is asked to."""

from __future__ import annotations

import argparse
from typing import Any


def emit(arguments: argparse.Namespace, result: dict[str, Any], text: str) -> None:
    from tinytrain.report import as_json

    print(as_json(result) if arguments.json else text)


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def words(result: dict[str, float]) -> str:
    accuracy = result.get("accuracy")
    more = "" if accuracy is None else f", accuracy {100 * accuracy:.1f} %"
    return f"loss {result['loss']:.4f}{more}"
