"""The benchmark of translation, on 200 pairs: it goes on from where it was, bit for bit."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from tinytrain.bench import learn, learn_text
from tinytrain.data.pairs import phrases
from tinytrain.models.text import Transformer


@pytest.fixture(autouse=True)
def small(monkeypatch) -> None:
    for name, value in (("PIECES", 150), ("BATCH", 8), ("AT_ONCE", 8)):
        monkeypatch.setattr(learn_text, name, value)
    net = partial(Transformer, dim=32, hidden=32, layers=1)
    monkeypatch.setitem(learn_text.NETS, "translation", net)


def test_training_goes_on_bit_for_bit(tmp_path) -> None:
    pairs = phrases()
    whole = learn_text.Learner(pairs, pairs[:9], tmp_path / "whole", epochs=2)
    whole.train()
    for _ in range(3):
        part = learn_text.Learner(pairs, pairs[:9], tmp_path / "part", epochs=2)
        part.train(until=part.trainer.steps + 3)
    part.train()
    assert part.trainer.steps == whole.trainer.steps == whole.end > 6
    for name, values in whole.trainer.state().items():
        np.testing.assert_array_equal(part.trainer.state()[name], values, name)
    assert [c["validation"] for c in part.curve] == [c["validation"] for c in whole.curve]
    assert whole.curve[1]["validation"] < whole.curve[0]["validation"]
    assert 0 <= whole.bleu(pairs[:9], 1) <= 1


def test_the_row(tmp_path, monkeypatch) -> None:
    for name, value in (
        ("FILE", "a.tsv"),
        ("RATE", 2e-2),
        ("BATCH", 4),
        ("WARM", 8),
        ("LONGEST", 16),
    ):
        monkeypatch.setattr(learn_text, name, value)
    monkeypatch.setattr(learn_text, "EPOCHS", 16)
    lines = [f"train\t{a}\t{b}\n" for a, b in phrases()]
    lines += [f"{part}\t{a}\t{b}\n" for part in ("val", "test") for a, b in phrases()[::6]]
    (tmp_path / "a.tsv").write_text("".join(lines), encoding="utf-8")
    nets = learn.Nets(str(tmp_path / "nets"))
    (row,) = learn_text.rows(str(tmp_path), nets)
    assert row.task == "English to French" and 0 < row.ours <= 1 and nets.seconds["translation"]
    again = learn.Nets(str(tmp_path / "nets"))
    assert learn_text.rows(str(tmp_path), again)[0].ours == row.ours and not again.seconds
