"""The speed benchmark's own arithmetic, and that its sides train."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from tinytrain.bench import bars, speed, speed_turns
from tinytrain.errors import InputError


def test_ratios_are_of_the_same_round_against_the_fastest_variant():
    seconds = {"PyTorch eager": [4.0, 8.0, 4.0], "PyTorch fused SGD": [9.0, 9.0, 9.0]}
    row = speed._row("mlp", 8, 1, {**seconds, "c": [1.0, 4.0, 2.0], "autograd": [8.0] * 3})
    assert row["best"] == "PyTorch eager" and row["goal"] == 6
    assert row["ratios"]["c"] == (2.0, 2.0, 3.0)  # median and quartiles of 4, 2 and 2
    assert row["seconds"]["c"] == (2.0, 1.5, 3.0)
    said = speed.text([row], 1)
    assert "x2.00 missed" in said and "autograd 8000.000 ms (c x4.0 faster)" in said
    assert "0 of 1 goals met" in said
    alone = speed._row("mlp", 8, 1, {"c": [1.0, 4.0, 2.0]})
    assert alone["best"] == "" and alone["ratios"] == {}
    assert "mlp-8  x6    -" in speed.text([alone], 1)


def test_a_turn_is_two_steps_at_least_and_tells_the_median():
    times = iter([0.0, 1.0, 3.0, 3.5, 9.0])
    assert speed_turns.turn(lambda: 0.0, 3.2, lambda: next(times)) == 1.0
    times = iter([0.0, 5.0, 6.0])
    assert speed_turns.turn(lambda: 0.0, 0.0, lambda: next(times)) == 3.0


def test_both_sides_train_the_same_data(monkeypatch):
    monkeypatch.setattr(speed_turns, "RATE", 1e-5)  # the benchmark's own moves no loss to be seen
    steps = speed_turns.peers("mlp", 8)
    steps |= speed_turns.ours("mlp", 8, ["c"])
    assert "c" in steps
    for step in steps.values():
        first = step()
        assert all(step() < first for _ in range(3))
    with pytest.raises(InputError, match="no case is called 'nonsense'"):
        speed.run(only="nonsense")


def test_bars_are_as_long_as_their_numbers():
    groups = [("a < b", {"c": 2.0, "numba": 4.0}, 3.0), ("d", {"c": 1.0}, None)]
    tree = ET.fromstring(bars.bars("title", "times", groups, 1.0))
    drawn = [float(e.get("width")) for e in tree.iter() if e.get("height") == str(bars.BAR - 1)]
    assert drawn[1] == pytest.approx(2 * drawn[0], abs=0.2) and drawn[0] == 2 * drawn[2]
    assert bars.LEFT + drawn[1] <= bars.WIDTH
