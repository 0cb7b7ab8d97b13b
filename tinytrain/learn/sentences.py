"""Sentence pairs of a file as rows for a network that translates (`models.text`), its vocabulary
learned or the network's own; it makes no network and trains none.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytrain.data.pairs import Pair, encode, pack, read_pairs
from tinytrain.data.vocabulary import Vocabulary
from tinytrain.errors import InputError


@dataclass
class Sentences:
    """The pairs, the vocabulary, and rows as `Trainer.fit` takes them."""

    pairs: list[Pair]
    vocabulary: Vocabulary
    x: tuple[np.ndarray, ...]
    y: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.pairs)

    def references(self) -> dict[str, list[str]]:
        """Each source once, and all of its targets."""
        return references(self.pairs)


def references(pairs: Sequence[Pair]) -> dict[str, list[str]]:
    """Each source once, and all of its targets."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for source, target in pairs:
        found[source].append(target)
    return dict(found)


def read(path: Any, part: str, net: Any) -> Sentences:
    """The pairs of a file, `source<TAB>target` a line, or those of `part` where a line begins with
    one, in rows as wide as the network's.

    A pair that is too long is left out, with a warning. The vocabulary is the network's, or, where
    it has none, learned from these pairs, as large as its table.
    """
    pairs = _pairs(path, part)
    vocabulary = net.vocabulary
    if vocabulary is None:
        texts = (text for pair in pairs for text in pair)
        vocabulary = Vocabulary.learn(texts, net.table.shape[0])
    source, target = (net.input_shape[k].shape[0] for k in (0, 3))
    numbers = encode(pairs, vocabulary)
    fits = [len(a) <= source and len(b) <= target for a, b in numbers]
    if not any(fits):
        raise InputError(f"{path}: every pair is longer than {source} and {target} pieces")
    if not all(fits):
        warnings.warn(
            f"{path}: {fits.count(False):,} of {len(fits):,} pairs are longer than {source} and "
            f"{target} pieces; they are left out",
            stacklevel=2,
        )
    kept = [n for n, fit in zip(numbers, fits, strict=True) if fit]
    rows = pack(kept, (source, target), len(net.one_hot.data), seed=0)
    left = [p for p, fit in zip(pairs, fits, strict=True) if fit]
    return Sentences(left, vocabulary, rows.x, rows.y)


def _pairs(path: Any, part: str) -> list[Pair]:
    """Of a file that names parts, those of `part`; of another all."""
    try:
        return read_pairs(path)
    except InputError as plain:
        try:
            return read_pairs(path, part)
        except InputError as named:
            raise (named if "no pair of part" in str(named) else plain) from None
