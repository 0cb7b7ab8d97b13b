"""A vocabulary of words or of byte-pair pieces: text to numbers and back; it refuses to guess.

Byte-pair pieces (Sennrich et al. 2016) are learned from words and joined by rank: of all
neighbours whose union is a piece, the one that was learned first. A space belongs to the word
behind it, so that joining the pieces gives the text back. What was never seen is `<unk>`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise

from tinytrain.errors import InputError

PAD, BEGIN, END, UNKNOWN = range(4)
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
WORD = re.compile(r" ?\w+| ?[^\w\s]+")  # every character but white space lies in one
REMEMBERED = 1 << 16  # words whose pieces are kept at hand


def plain(text: str, lower: bool = True) -> str:
    """One space for any white space, none at the ends; French puts thin ones before its marks."""
    text = " ".join(text.replace("\u200b", "").replace("\xad", "").split())
    return text.lower() if lower else text


class Vocabulary:
    """Pieces by number: four special ones, then `pieces` in the order in which they were learned.

    pieces  strings that begin with a space where a word does; each once.
    kind    "bpe": a word that is no piece is put together of smaller ones; "word": it is `<unk>`.
    lower   whether text is lower-cased first.
    """

    def __init__(self, pieces: Iterable[str], kind: str = "bpe", lower: bool = True):
        self.pieces = tuple(pieces)
        self.kind, self.lower = _check_kind(kind), bool(lower)
        self.names = (*SPECIAL, *self.pieces)
        self.number = {p: k + len(SPECIAL) for k, p in enumerate(self.pieces)}
        if len(self.number) < len(self.pieces) or "" in self.number:
            raise InputError("Vocabulary: a piece is empty, or is there twice")
        self._known: dict[str, tuple[int, ...]] = {}

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def learn(
        cls,
        texts: Iterable[str],
        size: int = 4000,
        kind: str = "bpe",
        lower: bool = True,
        least: int = 2,
    ) -> Vocabulary:
        """The vocabulary of at most `size` numbers that these texts call for.

        Characters (words, for kind="word") seen fewer than `least` times stay unknown. Ties go to
        what sorts first: the same texts in any order give the same vocabulary.
        InputError if the characters alone are more than `size`.
        """
        words = Counter(w for t in texts for w in WORD.findall(plain(t, lower)))
        room = size - len(SPECIAL)
        if _check_kind(kind) == "word":
            often = sorted((w for w in words if words[w] >= least), key=lambda w: (-words[w], w))
            return cls(often[:room], kind, lower)
        seen: Counter[str] = Counter()
        for word, n in words.items():
            for c in word:
                seen[c] += n
        letters = sorted((c for c in seen if seen[c] >= least), key=lambda c: (-seen[c], c))
        if len(letters) > room:
            raise InputError(f"Vocabulary: {len(letters)} characters do not fit into size {size}")
        return cls([*letters, *_merges(words, set(letters), room - len(letters))], kind, lower)

    def encode(self, text: str) -> list[int]:
        """The numbers of a text, without begin and end."""
        return [k for w in WORD.findall(plain(text, self.lower)) for k in self._word(w)]

    def unknown(self, text: str) -> list[str]:
        """The words of a text that `<unk>` stands in, wholly or in part."""
        words = WORD.findall(plain(text, self.lower))
        return [w.strip() for w in words if UNKNOWN in self._word(w)]

    def decode(self, numbers: Iterable[int]) -> str:
        """The text of these numbers up to the first `</s>`; `<unk>` is written out."""
        found: list[str] = []
        for k in numbers:
            if not 0 <= k < len(self.names):
                raise InputError(f"Vocabulary: there is no piece {k}, only {len(self.names)}")
            if k == END:
                break
            if k not in (PAD, BEGIN):
                found.append(self.names[k])
        return "".join(found).strip()

    def _word(self, word: str) -> tuple[int, ...]:
        if word not in self._known:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            parts = [word] if self.kind == "word" else self._join(word)
            self._known[word] = tuple(self.number.get(p, UNKNOWN) for p in parts)
        return self._known[word]

    def _join(self, word: str) -> list[str]:
        """The pieces of a word: neighbours are joined in the order in which that was learned."""
        parts, none = list(word), len(self.names)
        while len(parts) > 1:
            ranks = [self.number.get(a + b, none) for a, b in pairwise(parts)]
            best = min(ranks)
            if best == none:
                break
            k = ranks.index(best)
            parts[k : k + 2] = [parts[k] + parts[k + 1]]
        return parts


def _check_kind(kind: str) -> str:
    if kind not in ("bpe", "word"):
        raise InputError(f'Vocabulary: kind is {kind!r}; wants "bpe" or "word"')
    return kind


def _merges(words: Counter[str], letters: set[str], room: int) -> list[str]:
    """At most `room` pieces, each the union of the commonest neighbours at that point."""
    parts = [[c if c in letters else "" for c in w] for w in words]
    counts = list(words.values())
    often: Counter[tuple[str, str]] = Counter()
    where: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for k, part in enumerate(parts):
        for pair in _pairs(part):
            often[pair] += counts[k]
            where[pair].add(k)
    heap = [(-n, pair) for pair, n in often.items()]
    heapify(heap)
    found: dict[str, None] = {}
    while heap and len(found) < room:
        n, best = heappop(heap)
        if often[best] != -n:  # counted anew since: that entry is in the heap as well
            continue
        if n > -2:
            break
        found[best[0] + best[1]] = None
        changed: Counter[tuple[str, str]] = Counter()
        for k in where.pop(best):
            changed.subtract({p: m * counts[k] for p, m in Counter(_pairs(parts[k])).items()})
            parts[k] = _united(parts[k], best)
            for pair in _pairs(parts[k]):
                changed[pair] += counts[k]
                where[pair].add(k)
        for pair, more in changed.items():
            if more:
                often[pair] += more
                heappush(heap, (-often[pair], pair))
    return list(found)


def _pairs(part: Sequence[str]) -> list[tuple[str, str]]:
    """The neighbours in a word; "" is an unknown character, which nothing is joined to."""
    return [(a, b) for a, b in pairwise(part) if a and b]


def _united(part: list[str], pair: tuple[str, str]) -> list[str]:
    """The parts with every such pair as one, from the left."""
    made: list[str] = []
    for p in part:
        if made and made[-1] == pair[0] and p == pair[1]:
            made[-1] = pair[0] + pair[1]
        else:
            made.append(p)
    return made
