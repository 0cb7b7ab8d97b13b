"""BLEU (Papineni et al. 2002) of translations against one or several references each.

Corpus BLEU-4 without smoothing. It prepares the text in one way only, which a figure must name:
lower-cased, a run of letters and digits is a token, and so is every other character but spaces.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from tinytrain.errors import InputError

TOKEN = re.compile(r"\w+|[^\w\s]")
MOST = 4  # tokens of the longest n-gram that counts


def tokens(text: str) -> list[str]:
    """What BLEU counts in a text: `L'été, 3 jours!` is l ' été , 3 jours !"""
    return TOKEN.findall(text.lower())


def bleu(translations: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU-4, 0 to 100: the geometric mean of the clipped precisions of 1- to 4-grams,
    times the brevity penalty.

    references  for each translation at least one. An n-gram counts at most as often as in the
                reference that has most of it; the length compared with is the nearest reference's,
                the shorter of two.
    InputError unless every translation has its references.
    """
    if len(translations) != len(references) or not all(len(r) for r in references):
        raise InputError(
            f"bleu: {len(translations)} translations want as many lists of references, none empty; "
            f"got {len(references)}"
        )
    if any(isinstance(r, str) for r in references):
        raise InputError("bleu: references are lists of texts, one list for each translation")
    hits, total, length, nearest = [0] * MOST, [0] * MOST, 0, 0
    for text, texts in zip(translations, references, strict=True):
        found, others = tokens(text), [tokens(t) for t in texts]
        length += len(found)
        nearest += min((abs(len(o) - len(found)), len(o)) for o in others)[1]
        for n in range(1, MOST + 1):
            grams, best = _grams(found, n), Counter[tuple[str, ...]]()
            for other in others:
                best |= _grams(other, n)
            hits[n - 1] += (grams & best).total()
            total[n - 1] += grams.total()
    if not all(hits):
        return 0.0
    mean = sum(math.log(h / t) for h, t in zip(hits, total, strict=True)) / MOST
    return 100 * math.exp(mean + min(0.0, 1 - nearest / length))


def _grams(found: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(found[k : k + n]) for k in range(len(found) - n + 1))
