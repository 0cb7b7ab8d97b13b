"""Reads CSV tables of numbers with one label column; it does not guess separators or fill gaps."""

import csv
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tinytrain.data.dataset import INT32, Dataset, arrays
from tinytrain.errors import InputError

FLOAT32_MAX = float(np.finfo(np.float32).max)
MOST_NAMES = 8
"""Column names that a message lists."""

Row = tuple[int, list[str]]
"""A row's line in the file, from 1, and its cells."""


def read_csv(path: Path, label: str | None = None) -> Dataset:
    """x float32 (rows, features) and y of a comma-separated, UTF-8 file; quotes may hold commas.

    The label is the last column, or the one that `label` names. The first row is a header when
    `label` is given or when no cell of it is a number. Labels that are all written as integers are
    class numbers (int32); all numbers, targets (float32); else names, counted in sorted order
    (`classes`). Raises InputError with the line.
    """
    rows = _rows(path)
    first = next(rows, None)
    if first is None:
        raise InputError(f"{path}: is empty; give one row for each sample, its label last")
    width = len(first[1])
    if width < 2:
        raise InputError(
            f"{path}:{first[0]}: has one column; features and a label are wanted, "
            "separated by commas"
        )
    header = label is not None or all(_number(cell) is None for cell in first[1])
    column = width - 1 if label is None else _column(first[1], label, path)
    features, labels = array("f"), []
    for line, cells in rows if header else _chain(first, rows):
        if len(cells) != width:
            raise InputError(
                f"{path}:{line}: has {len(cells)} cells, the first row has {width}; mend that row"
            )
        labels.append((line, cells.pop(column)))
        features.extend(_features(cells, column, line, path))
    if not labels:
        raise InputError(f"{path}: has a header but no row below it; add the samples")
    x = np.frombuffer(features, np.float32).reshape(len(labels), width - 1)
    y, classes = _targets(labels, path)
    return arrays(x, y, classes, where=str(path))


def _chain(first: Row, rows: Iterator[Row]) -> Iterator[Row]:
    yield first
    yield from rows


def _rows(path: Path) -> Iterator[Row]:
    """Every row that is not blank, its cells stripped."""
    with open(path, newline="", encoding="utf-8-sig") as stream:
        reader = csv.reader(stream, strict=True, skipinitialspace=True)
        try:
            for cells in reader:
                stripped = [cell.strip() for cell in cells]
                if any(stripped):
                    yield reader.line_num, stripped
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}: near line {reader.line_num + 1}: is not UTF-8 text ({error.reason}); "
                "save it as UTF-8"
            ) from error
        except csv.Error as error:
            raise InputError(
                f"{path}:{reader.line_num}: cannot be read ({error}); mend its quotes"
            ) from error


def _column(header: list[str], label: str, path: Path) -> int:
    if header.count(label) == 1:
        return header.index(label)
    names = ", ".join(header[:MOST_NAMES]) + (", ..." if len(header) > MOST_NAMES else "")
    found = "several columns" if label in header else "no column"
    raise InputError(f"{path}:1: has {found} named {label!r}; its first row is {names}")


def _number(cell: str) -> float | None:
    """float() without Python's underscores."""
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _features(cells: list[str], column: int, line: int, path: Path) -> list[float]:
    values = []
    for i, cell in enumerate(cells):
        value = _number(cell)
        if value is None or not abs(value) <= FLOAT32_MAX:
            place = i + 1 + (i >= column)
            shown = "empty" if not cell else f"{cell[:40]!r}"
            what = "a number" if value is None else "a finite float32"
            raise InputError(
                f"{path}:{line}: column {place} is {shown}, not {what}; mend or drop that row"
            )
        values.append(value)
    return values


def _targets(labels: list[tuple[int, str]], path: Path) -> tuple[np.ndarray, list[str] | None]:
    """Class numbers, targets or names, whichever all labels are."""
    for line, cell in labels:
        if not cell:
            raise InputError(f"{path}:{line}: has no label; add it or drop that row")
    if all(_is_integer(cell) for _, cell in labels):
        return np.array([_class_number(cell, line, path) for line, cell in labels], np.int32), None
    numbers = [_number(cell) for _, cell in labels]
    if None not in numbers:
        for (line, cell), number in zip(labels, numbers, strict=True):
            if number is None or not abs(number) <= FLOAT32_MAX:
                raise InputError(
                    f"{path}:{line}: the target is {cell!r}, not a finite float32; "
                    "mend or drop that row"
                )
        return np.array(numbers, np.float32), None
    classes = sorted({cell for _, cell in labels})
    number_of = {name: i for i, name in enumerate(classes)}
    return np.array([number_of[cell] for _, cell in labels], np.int32), classes


def _is_integer(cell: str) -> bool:
    return cell.isascii() and cell.removeprefix("-").removeprefix("+").isdigit()


def _class_number(cell: str, line: int, path: Path) -> int:
    # A cell of thousands of digits would be slow to convert, or refused by int().
    number = int(cell) if len(cell) <= 20 else INT32.max + 1
    if not 0 <= number <= INT32.max:
        raise InputError(
            f"{path}:{line}: the label is {cell[:40]}; class numbers count from 0 "
            "(regression targets are written with a point)"
        )
    return number
