"""The MicroPython port: a trainer as one file of words, and the runtime that trains it there.

It makes no code: what differs from network to network is the table (`ports/table.py`) alone.
"""

from __future__ import annotations

import os
from typing import Any

from tinytrain.ports import table
from tinytrain.ports.micropython.tinytrain_mp import table as runtime

PLAN = "plan.tt"
ALWAYS = ("__init__", "basic", "product", "stream", "table", "viper")


def export(trainer: Any, folder: str) -> list[str]:
    """Write `folder/plan.tt` and the files of the runtime that this plan needs, `folder/
    tinytrain_mp/`: copy both to the board. The files written, relative to the folder.

    InputError names an op or a dtype that the runtime lacks.
    """
    words = table.encode(trainer, "MicroPython", lacks())
    codes = used(words)
    os.makedirs(os.path.join(folder, "tinytrain_mp"), exist_ok=True)
    with open(os.path.join(folder, PLAN), "wb") as file:
        file.write(table.as_bytes(words))
    written = [PLAN]
    for name in files(codes):
        source = os.path.join(os.path.dirname(runtime.__file__), name)
        with open(source, encoding="utf-8") as file:
            text = file.read()
        with open(os.path.join(folder, "tinytrain_mp", name), "w", encoding="utf-8") as file:
            file.write(text)
        written.append(f"tinytrain_mp/{name}")
    return written


def lacks() -> list[str]:
    """The instructions that the runtime has no kernel for."""
    where = runtime._FILE_OF.ljust(len(table.INSTRUCTIONS), "-")
    pairs = zip(table.INSTRUCTIONS, where, strict=True)
    return [name for name, file in pairs if file == "-" and name != "stop"]


def files(codes: set[int]) -> list[str]:
    """The files of the runtime that these instructions need."""
    letters = {runtime._FILE_OF[code] for code in codes if code}
    names = {*ALWAYS, *(runtime._FILES[letter] for letter in letters)}
    return sorted(f"{name}.py" for name in names)


def used(words: list[int]) -> set[int]:
    """The instructions of a table's programs."""
    return {table.INSTRUCTIONS.index(name) for name, _, _ in table.steps_of(words)}
