"""Text: vocabularies, sentence pairs as rows of numbers, BLEU against figures worked by hand."""

from __future__ import annotations

import gzip
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytrain.data.pairs import Rows, by_length, encode, pack, pad, phrases, read_pairs
from tinytrain.data.vocabulary import BEGIN, END, PAD, UNKNOWN, Vocabulary, plain
from tinytrain.errors import InputError
from tinytrain.learn.bleu import bleu, tokens

TEXTS = [side for pair in phrases() for side in pair]
LEARNED = Vocabulary.learn(TEXTS, size=300)

# ------------------------------------------------------------------ vocabularies


def test_merges_as_worked_by_hand() -> None:
    """Of "aaab aaab ab": aa (4 times), then ab (3), then aa + ab (2); the rest is there once."""
    learned = Vocabulary.learn(["aaab aaab ab"], size=100)
    assert learned.pieces == ("a", "b", " ", "aa", "ab", "aaab")
    assert [learned.names[k] for k in learned.encode("aab aaab")] == ["aa", "b", " ", "aaab"]


@given(st.text(alphabet="".join(sorted({c for t in TEXTS for c in t.lower()})), max_size=40))
def test_text_of_known_characters_comes_back(text: str) -> None:
    known = set("".join(p for p in LEARNED.pieces if len(p) == 1))
    text = "".join(c for c in text if c in known or c == " ")
    assert LEARNED.decode(LEARNED.encode(text)) == plain(text)


def test_the_order_of_texts_does_not_matter() -> None:
    shuffled = TEXTS[:]
    random.Random(3).shuffle(shuffled)
    for kind in ("bpe", "word"):
        found = [Vocabulary.learn(t, 300, kind).pieces for t in (TEXTS, shuffled)]
        assert found[0] == found[1] and len(found[0]) <= 296


def test_what_is_unknown_is_said() -> None:
    assert LEARNED.encode("ж") == [UNKNOWN]
    assert LEARNED.unknown("He is жук.") == ["жук"]
    assert LEARNED.decode(LEARNED.encode("he is ж")) == "he is <unk>"
    words = Vocabulary.learn(TEXTS, 300, "word")
    assert words.unknown("He is zymurgical.") == ["zymurgical"] and words.unknown("He is.") == []


def test_a_text_ends_at_its_end() -> None:
    numbers = LEARNED.encode("he is tired.")
    assert LEARNED.decode([BEGIN, *numbers, END, *numbers, PAD]) == "he is tired."


@pytest.mark.parametrize(
    "make",
    [
        lambda: Vocabulary.learn(TEXTS, size=10),
        lambda: Vocabulary.learn(TEXTS, kind="letters"),
        lambda: Vocabulary(["a", "a"]),
        lambda: LEARNED.decode([999]),
    ],
)
def test_what_is_no_vocabulary(make) -> None:
    with pytest.raises(InputError, match="Vocabulary"):
        make()


# ------------------------------------------------------------------ pairs


def test_pairs_of_a_file(tmp_path) -> None:
    lines = "train\tGo.\tVa !\ntest\tHi.\tSalut !\ntrain\tRun!\tCours\u202f!\n"
    (tmp_path / "a.tsv").write_text(lines, encoding="utf-8")
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(lines.encode()))
    for name in ("a.tsv", "a.tsv.gz"):
        assert read_pairs(tmp_path / name, "train") == [("Go.", "Va !"), ("Run!", "Cours\u202f!")]
    assert len(phrases()) == 200


@pytest.mark.parametrize(
    ("content", "part", "says"),
    [
        (b"one text\n", None, "line 1"),
        (b"a\tb\n\n", None, "line 2"),
        (b"train\ta\tb\n", None, "part="),
        (b"train\ta\tb\n", "dev", "no pair of part 'dev'"),
        (b"", None, "no pair"),
        (b"\xff\xfe\t\x00", None, "cannot be read"),
    ],
)
def test_files_of_something_else(tmp_path, content, part, says) -> None:
    place = tmp_path / "a.tsv"
    place.write_bytes(content)
    with pytest.raises(InputError, match=says):
        read_pairs(place, part)


def test_files_that_are_not_whole(tmp_path) -> None:
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"a\tb\n" * 99)[:-4])
    for name in ("b.gz", "nowhere.tsv"):
        with pytest.raises(InputError, match=f"{name}: cannot be read"):
            read_pairs(tmp_path / name)


def sentences(rows: Rows) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The pairs that the rows hold, from the numbers of source and labels alone."""
    found = []
    for k in range(len(rows.source)):
        for s in sorted(set(rows.target_in[k][rows.mask[k] > 0])):
            source, target = (rows.source_in[k] == s), (rows.target_in[k] == s)
            assert rows.source_at[k][source].tolist() == list(range(source.sum()))
            assert rows.target_at[k][target].tolist() == list(range(target.sum()))
            reads, labels = rows.target[k][target], rows.labels[k][target]
            assert reads[0] == BEGIN and (reads[1:] == labels[:-1]).all()
            found.append((tuple(rows.source[k][source]), tuple(labels)))
    return found


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_every_pair_is_in_one_row(seed) -> None:
    pairs = encode(phrases(), LEARNED)
    rows = pack(pairs, (40, 48), seed=seed)
    assert sorted(sentences(rows)) == sorted((tuple(a), tuple(b)) for a, b in pairs)
    assert rows.mask.mean() > 0.8 and (rows.target_in[rows.mask == 0] == 15).all()
    again = pack(pairs, (40, 48), seed=seed)
    assert all((a == b).all() for a, b in zip(rows, again, strict=True))


def test_padded_pairs_stay_in_order() -> None:
    pairs = encode(phrases()[:9], LEARNED)
    rows = pad(pairs, (24, 24))
    assert sentences(rows) == [(tuple(a), tuple(b)) for a, b in pairs]
    with pytest.raises(InputError, match="pair 0: its source has"):
        pad(pairs, (2, 24))
    with pytest.raises(InputError, match="none are given"):
        pack([], (24, 24))


def test_rows_hold_no_more_sentences_than_told() -> None:
    rows = pack(encode(phrases(), LEARNED), (40, 48), sentences=3)
    assert rows.source_in.max() == 2 and len(rows.source) == 100


def test_batches_of_like_lengths() -> None:
    found = by_length([5, 1, 5, 2, 1], 2)
    assert [b.tolist() for b in found] == [[1, 4], [3, 0], [2]]


# ------------------------------------------------------------------ BLEU


def test_tokens() -> None:
    assert tokens("L'été, 3 jours !") == ["l", "'", "été", ",", "3", "jours", "!"]


@pytest.mark.parametrize(
    ("text", "references", "figure"),
    [
        ("The cat sat on the mat.", ["the cat sat on the MAT ."], 100),
        # 5/6 of the words, 3/5, 2/4 and 1/3 of the longer ones: (1/12) ** (1/4).
        ("the cat sat on a mat", ["the cat sat on the mat"], 100 * (1 / 12) ** 0.25),
        # All of it is there, but four words stand for six: exp(1 - 6/4).
        ("the cat sat on", ["the cat sat on the mat"], 100 * math.exp(-0.5)),
        # Every n-gram is in one reference or the other.
        ("the cat sat on the mat today", ["the cat sat on the mat", "on the mat today"], 100),
        # "the" counts twice, as in the reference with most of it; no pair of words is there.
        ("the the the", ["the cat", "the dog the"], 0),
        # Four and six words are as near to five: the shorter counts, and nothing is taken off.
        ("a b c d e", ["a b c d e f", "b c d e"], 100),
    ],
)
def test_bleu_of_one(text, references, figure) -> None:
    assert bleu([text], [references]) == pytest.approx(figure)


def test_bleu_adds_up_before_it_divides() -> None:
    """10/11 of the words, 7/9, 5/7, 3/5: not the mean of two figures."""
    texts = ["the cat sat on a mat", "a b c d e"]
    references = [["the cat sat on the mat"], ["a b c d e"]]
    hits = (10 / 11) * (7 / 9) * (5 / 7) * (3 / 5)
    assert bleu(texts, references) == pytest.approx(100 * hits**0.25)


def test_what_bleu_refuses() -> None:
    for texts, references in ((["a"], []), (["a"], [[]]), (["a"], ["a"])):
        with pytest.raises(InputError, match="bleu"):
            bleu(texts, references)


def test_bleu_of_nothing() -> None:
    assert bleu(["", "x"], [["a b c d"], ["y"]]) == 0
    assert np.isfinite(bleu([""], [["a"]]))
