"""The benchmarks' own arithmetic: which bytes they count, what they call met, what they draw."""

from __future__ import annotations

import importlib.util
import shlex
import xml.etree.ElementTree as ET
from functools import partial

import numpy as np
import pytest

import tinytrain as tt
from tinytrain import models
from tinytrain.bench import (
    cifar,
    curves,
    memory,
    memory_cases,
    memory_run,
    mutations,
    torch_peer,
)
from tinytrain.bench.memory_bytes import bytes_of, forward_bytes
from tinytrain.bench.mutants import MUTANTS
from tinytrain.errors import InputError
from tinytrain.freeze import Recorder, sample_specs

FLOAT = 4  # bytes


def test_the_bytes_of_a_plan_counted_by_hand():
    net = models.build("mlp")  # 784-128-10
    parameters = 784 * 128 + 128 + 128 * 10 + 10
    plan = tt.plan(net, batch=8, optimizer=tt.optim.SGD(lr=0.1, momentum=0.9), policy="keep")
    found = bytes_of(plan)
    hidden, logits = 8 * 128, 8 * 10
    # Kept: the hidden activation, the gradient over the logits, and the loss.
    assert found.kept == FLOAT * (hidden + logits + 1)
    slack = found.arena - found.beside - FLOAT * (2 * parameters + 1)  # 1: the rate
    assert slack == 0
    # Dense, bias and ReLU of one layer, dense and bias of the other, the loss and its gradient.
    assert forward_bytes(plan) == FLOAT * (3 * hidden + 2 * logits + 1 + logits)


def test_margins_are_counted_where_they_are_alive():
    net = models.build("vgg6")
    plan = tt.plan(net, batch=2, policy="bitmap", density=0.5)
    found = bytes_of(plan)
    assert found.margins["kept"] == plan.bitmap_bytes()["margin"] > 0
    assert found.nominal("kept") == found.kept - found.margins["kept"]
    assert found.nominal("arena") <= found.arena


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is missing")
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_pytorch_saves_what_its_documentation_says(device):
    net = models.build("mlp")
    frozen = Recorder(net, sample_specs(net), tt.losses.cross_entropy)(32)
    images, hidden, probabilities = 784 * 32, 128 * 32, 10 * 32
    labels, weight = 8 * 32, 4  # int64; the divisor of the mean
    want = FLOAT * (images + hidden + probabilities) + labels + weight
    assert torch_peer.saved_bytes(frozen.tape, device) == want


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is missing")
@pytest.mark.parametrize("name", ["lenet5", "vgg6", "resnet8", "ds_cnn", "revnet", "irevnet"])
def test_every_kind_of_network_has_a_twin(name):
    options = {"units": (2, 2, 2)} if name.endswith("revnet") else {}
    net = models.build(name, **options)
    frozen = Recorder(net, sample_specs(net), tt.losses.cross_entropy)(1)
    assert torch_peer.saved_bytes(frozen.tape) == torch_peer.saved_bytes(frozen.tape, "cpu") > 0


def test_a_row_is_met_or_says_by_how_much_it_is_not():
    row = {"met": False, "ours_bytes": 110, "goal_bytes": 100, "extra_limit": 0.1}
    assert memory.verdict({**row, "extra_macs_ratio": 0.05}) == "10.0 % over"
    dear = {**row, "ours_bytes": 90, "extra_macs_ratio": 0.25}
    assert memory.verdict(dear) == "15.0 % too dear"
    assert memory.verdict({**row, "ours_bytes": None}) == "no plan"
    assert memory.verdict({"met": True}) == "met"


def test_a_case_is_planned_run_and_judged(capsys):
    result = memory.run(only="lenet5-keep")
    (row,) = result["rows"]
    plan = tt.plan(models.build("lenet5"), batch=32, policy="keep")
    assert row["ours_bytes"] == row["keep_bytes"] == row["high_water_bytes"] == plan.arena_bytes
    assert row["high_water_right"]
    assert row["met"] == (plan.arena_bytes <= 0.9 * 2_066 * 1024)
    assert "lenet5-keep" in capsys.readouterr().out


def test_what_cannot_be_met_is_not_called_met():
    make = partial(models.build, "lenet5")
    case = memory_cases.Case("impossible", "", make, goal=1000, extra=0.1)
    row = memory._row(case, quick=True)
    assert not row["met"] and row["ours_bytes"] > 1000
    assert "needs" in row["at_goal"]
    assert row["extra_macs_ratio"] <= 0.1


def test_cases_have_names_of_their_own_and_known_measures():
    cases = memory_cases.cases()
    assert len({c.name for c in cases}) == len(cases)
    assert {c.name for c in cases} >= {f"half-{name}" for name in models.names()}
    with pytest.raises(InputError, match="no case is called 'nonsense'"):
        memory.run(only="nonsense")


def test_frozen_features_leave_the_dense_layers():
    net = memory_cases._frozen("vgg6")
    trained = [name for name, p in net.named_parameters() if p.requires_grad]
    assert len(trained) == 4  # two weights, two biases


def test_a_made_plan_is_run_as_it_is():
    case = next(c for c in memory_cases.cases() if c.name == "lenet5-half")
    plan = tt.plan(case.make(), batch=32, ram=case.goal)
    found = memory_run.executed(case, plan)
    assert found["high_water_right"] and found["high_water_bytes"] == plan.arena_bytes


def test_a_chart_draws_every_curve_within_its_frame():
    points = {"a": [(0.0, 1.0), (1.0, 0.5)], "b < c": [(0.0, 2.0), (1.0, 0.25), (2.0, 0.0)]}
    tree = ET.fromstring(curves.chart("title", "step", "loss", points))
    lines = [e.get("points") for e in tree.iter() if e.tag.endswith("polyline")]
    assert [len(line.split()) for line in lines] == [2, 3]
    for x, y in (p.split(",") for line in lines for p in line.split()):
        assert 0 <= float(x) <= curves.WIDTH and 0 <= float(y) <= curves.HEIGHT
    assert "b < c" in {e.text for e in tree.iter()}


def test_augmented_images_are_shifted_and_mirrored_alone():
    x = np.arange(2 * 32 * 32 * 3, dtype=np.float32).reshape(2, 32, 32, 3) + 1
    out = cifar.augmented(x, np.random.default_rng(0))
    assert out.shape == x.shape
    for image, made in zip(x, out, strict=True):
        assert set(np.unique(made)) <= {0.0, *np.unique(image)}
        assert (made != 0).mean() > 0.7  # at most four rows and four columns are gone


def test_every_mutant_changes_one_place_and_names_tests_that_are_there(checkout):
    """Who changes such a line mends bench/mutants.py, and has that fault done again."""
    for m in MUTANTS:
        assert (checkout / m.file).read_text(encoding="utf-8").count(m.old) == 1, (m.file, m.old)
        assert m.old != m.new
        files = [word for word in shlex.split(m.tests) if word.endswith(".py")]
        assert files and all((checkout / name).is_file() for name in files), m.tests


def test_the_results_of_the_mutants_are_of_this_list():
    """Each was noticed, so far as the results in the checkout say."""
    found = mutations._former()
    assert {found.get(mutations._cells(m)) for m in MUTANTS} == {mutations.KILLED}
