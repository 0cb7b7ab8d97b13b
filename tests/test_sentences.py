"""Sentence pairs from a file: rows for a network that translates, at the command line too."""

from __future__ import annotations

import json

import pytest

from tinytrain import models
from tinytrain.cli import main
from tinytrain.data.pairs import phrases
from tinytrain.errors import InputError
from tinytrain.learn import sentences

PAIRS = phrases()[:40]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{a}\t{b}\n" for a, b in PAIRS), encoding="utf-8")
    return path


def net(**more):
    return models.build("attention_gru", **{"pieces": 150, "dim": 8, **more})


def test_pairs_become_rows_of_the_network_s_width(file):
    found = sentences.read(file, "train", net())
    assert len(found) == 40 and len(found.vocabulary) == 150
    assert [a.shape[1] for a in found.x] == [20] * 3 + [24] * 3
    again = sentences.read(file, "train", net(pieces=list(found.vocabulary.pieces)))
    assert again.vocabulary.pieces == found.vocabulary.pieces
    assert all((a == b).all() for a, b in zip(again.x, found.x, strict=True))
    assert sum(map(len, found.references().values())) == 40


def test_parts_are_told_apart(tmp_path):
    path = tmp_path / "parts.tsv"
    lines = [f"{'test' if k < 9 else 'train'}\t{a}\t{b}\n" for k, (a, b) in enumerate(PAIRS)]
    path.write_text("".join(lines), encoding="utf-8")
    assert [len(sentences.read(path, part, net())) for part in ("train", "test")] == [31, 9]
    with pytest.raises(InputError, match="no pair of part 'dev'"):
        sentences.read(path, "dev", net())


def test_long_pairs_are_left_out(file):
    with pytest.warns(UserWarning, match="longer than 6 and 24 pieces"):
        found = sentences.read(file, "train", net(width=(6, 24)))
    assert 0 < len(found) < 40
    with pytest.raises(InputError, match="every pair is longer"):
        sentences.read(file, "train", net(width=(1, 1)))


def test_a_network_is_trained_measured_and_trained_on(file, tmp_path, capsys):
    saved = str(tmp_path / "net.npz")
    some = ("--data", str(file), "--epochs", "1", "--batch", "4", "--json")
    more = ("--optimizer", "adamw", "--lr", "3e-3", "--save", saved)
    assert main(["train", "attention_gru", *some, *more]) == 0
    first = json.loads(capsys.readouterr().out)
    assert main(["eval", saved, "--data", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["samples"] == 40 and 0 <= found["bleu"] <= 100 and found["loss"] < 7
    assert main(["train", "attention_gru", *some, "--resume", saved]) == 0
    assert json.loads(capsys.readouterr().out)["train_loss"] < first["train_loss"]


def test_what_adapts_wants_one_input(capsys):
    assert main(["plan", "transformer", "--adapt"]) == 2
    assert "Transformer reads 6 inputs" in capsys.readouterr().err
