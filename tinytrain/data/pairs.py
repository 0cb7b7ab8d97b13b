"""Sentence pairs: read from lines, and packed or padded into arrays of numbers of one shape.

Packed, a row holds several short pairs one behind the other and hardly any padding; padded, it
holds one. Nothing is cut: a sentence that does not fit is an error, or left out if that is asked.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from tinytrain.data.vocabulary import BEGIN, END, PAD, Vocabulary
from tinytrain.errors import InputError

OPEN = 16  # rows that are being filled at a time
Pair = tuple[str, str]
Numbers = tuple[list[int], list[int]]


class Rows(NamedTuple):
    """N rows of S places for sources and T for targets; all int32 but the mask.

    source, target, labels  (N, S), (N, T), (N, T): pieces; a target begins with `<s>`, its labels
                            end with `</s>`, as its source does.
    *_at                    each piece's place in its sentence.
    *_in                    which sentence of the row it is of; padding is of the last, `sentences`
                            - 1, which holds nothing else.
    mask                    (N, T) float32, 1 where a label counts.
    """

    source: np.ndarray
    source_at: np.ndarray
    source_in: np.ndarray
    target: np.ndarray
    target_at: np.ndarray
    target_in: np.ndarray
    labels: np.ndarray
    mask: np.ndarray

    @property
    def x(self) -> tuple[np.ndarray, ...]:
        """The inputs of a network that translates."""
        return self[:6]

    @property
    def y(self) -> tuple[np.ndarray, np.ndarray]:
        """What it is compared with."""
        return self.labels, self.mask


def read_pairs(path: str | os.PathLike[str], part: str | None = None) -> list[Pair]:
    """(source, target) of each line of a tab-separated text file, UTF-8, perhaps gzipped.

    A line is `source<TAB>target`, or `part<TAB>source<TAB>target`, of which only those of `part`
    are given. InputError names the line that is neither, or says that there is none.
    """
    name = os.fspath(path)
    found: list[Pair] = []
    fields = 2 if part is None else 3
    try:
        opens = gzip.open if name.endswith(".gz") else open
        with opens(name, "rt", encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                cells = line.rstrip("\r\n").split("\t")
                if len(cells) != fields or not all(c.strip() for c in cells):
                    raise InputError(
                        f"{name}, line {number}: wants {fields} texts between tabs, has "
                        f"{len(cells)}" + (" (part=... picks of three)" if part is None else "")
                    )
                if part is None or cells[0] == part:
                    found.append((cells[-2], cells[-1]))
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{name}: cannot be read as text ({error})") from error
    if not found:
        raise InputError(f"{name}: no pair" + (f" of part {part!r}" if part else " in it"))
    return found


def encode(pairs: Iterable[Pair], vocabulary: Vocabulary) -> list[Numbers]:
    """The numbers of both sides, each ended by `</s>`."""
    return [tuple([*vocabulary.encode(t), END] for t in pair) for pair in pairs]  # type: ignore[misc]


def pack(
    pairs: Sequence[Numbers],
    width: tuple[int, int] = (56, 64),
    sentences: int = 16,
    seed: int | None = None,
) -> Rows:
    """Every pair in one of as few rows as first fit finds; shuffled if there is a seed.

    width      places of a row, for source and target. InputError for a pair that is longer.
    sentences  of a row at most, one of which is the padding.
    """
    _check_fits(pairs, width)
    order = np.arange(len(pairs))
    if seed is not None:
        np.random.default_rng(seed).shuffle(order)
    done: list[list[int]] = []
    rows: list[list[int]] = []  # open ones: the pairs in them
    used: list[tuple[int, int]] = []
    for k in order.tolist():
        source, target = (len(side) for side in pairs[k])
        for row, (s, t) in enumerate(used):
            if s + source <= width[0] and t + target <= width[1] and len(rows[row]) < sentences - 1:
                rows[row].append(k)
                used[row] = s + source, t + target
                break
        else:
            if len(rows) == OPEN:
                full = max(range(OPEN), key=lambda r: sum(used[r]))
                done.append(rows.pop(full))
                used.pop(full)
            rows.append([k])
            used.append((source, target))
    return _fill([[pairs[k] for k in row] for row in [*done, *rows]], width, sentences)


def pad(pairs: Sequence[Numbers], width: tuple[int, int], sentences: int = 16) -> Rows:
    """One pair a row, in the order given."""
    _check_fits(pairs, width)
    return _fill([[pair] for pair in pairs], width, sentences)


def by_length(lengths: Sequence[int], batch: int) -> list[np.ndarray]:
    """Indices in batches of about equal lengths, the shortest first; ties keep their order."""
    order = np.argsort(np.asarray(lengths), kind="stable")
    return [order[k : k + batch] for k in range(0, len(order), batch)]


def _check_fits(pairs: Sequence[Numbers], width: tuple[int, int]) -> None:
    if not pairs:
        raise InputError("pairs: none are given")
    for k, pair in enumerate(pairs):
        for what, side, room in zip(("source", "target"), pair, width, strict=True):
            if len(side) > room:
                raise InputError(f"pair {k}: its {what} has {len(side)} pieces, a row {room}")


def _fill(rows: list[list[Numbers]], width: tuple[int, int], sentences: int) -> Rows:
    n, (s, t) = len(rows), width
    left = (np.full((n, s), PAD, np.int32) for _ in range(3))
    right = (np.full((n, t), PAD, np.int32) for _ in range(4))
    made = Rows._make([*left, *right, np.zeros((n, t), np.float32)])
    made.source_in[...] = made.target_in[...] = sentences - 1
    for k, row in enumerate(rows):
        a = b = 0
        for number, (source, target) in enumerate(row):
            c, d = a + len(source), b + len(target)
            made.source[k, a:c], made.labels[k, b:d] = source, target
            made.target[k, b:d] = [BEGIN, *target[:-1]]
            made.source_at[k, a:c], made.target_at[k, b:d] = np.arange(c - a), np.arange(d - b)
            made.source_in[k, a:c] = made.target_in[k, b:d] = number
            made.mask[k, b:d] = 1
            a, b = c, d
    return made


def phrases() -> list[Pair]:
    """200 short sentences, English and French, that come with the package (`phrases.txt` says
    whose they are)."""
    return read_pairs(os.path.join(os.path.dirname(__file__), "phrases.tsv"))
