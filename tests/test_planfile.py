"""Plan files: a loaded plan answers all that the saved one did; what is not whole is refused."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import fields, replace

import pytest

import tinytrain as tt
from tinytrain import models
from tinytrain.planfile import FORMAT
from tinytrain.segment import Segment

CASES = {
    "keep": ("digits_cnn", {}, {"batch": 4}),
    "half": ("resnet8", {"input_shape": (16, 16, 3)}, {"batch": 4, "ram": "1M"}),
    "bitmap": ("vgg6", {"input_shape": (8, 8, 3)}, {"batch": 4, "policy": "bitmap"}),
    "slices": (
        "resnet8",
        {"norm": "group", "input_shape": (8, 8, 3)},
        {"batch": 6, "microbatch": 2, "density": 0.3, "policy": "bitmap"},
    ),
    "invert": ("revnet", {"units": (1, 1, 1)}, {"batch": 2, "microbatch": 2, "policy": "invert"}),
    "step guard": ("lenet5", {}, {"batch": 2, "guard": "step", "clip_norm": 1.0}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_loaded_plan_answers_as_the_one_that_was_saved(case, tmp_path):
    name, options, given = CASES[case]
    plan = tt.plan(models.build(name, **options), optimizer="momentum", **given)
    plan.save(str(tmp_path / "plan.json"))
    again = tt.Plan.load(str(tmp_path / "plan.json"))
    again.check()
    assert str(again) == str(plan)
    assert again.to_svg() == plan.to_svg()
    assert again.dump() == plan.dump()
    assert again.breakdown() == plan.breakdown()
    assert again.bitmap_bytes() == plan.bitmap_bytes()
    assert again.decisions == plan.decisions
    assert again.guaranteed == plan.guaranteed
    assert again.program.steps == plan.program.steps
    assert (again.macs, again.peak(), again.fits) == (plan.macs, plan.peak(), plan.fits)
    assert again.smallest_ram_bytes == again.arena_bytes == plan.arena_bytes
    assert again.require_fit() is again
    again.save(str(tmp_path / "again.json"))
    assert (tmp_path / "again.json").read_text() == (tmp_path / "plan.json").read_text()


def test_a_bitmap_plan_keeps_its_densities_and_the_guaranteed_decisions(tmp_path):
    name, options, given = CASES["bitmap"]
    plan = tt.plan(models.build(name, **options), **given)
    assert plan.guaranteed is not None
    assert plan.decisions.densities
    plan.save(str(tmp_path / "plan.json"))
    again = tt.Plan.load(str(tmp_path / "plan.json"))
    assert again.guaranteed == plan.guaranteed
    assert again.bitmap_bytes()["nominal"] > 0


def test_a_loaded_plan_that_does_not_fit_says_so(tmp_path):
    plan = tt.plan(models.build("digits_cnn"), batch=2)
    plan.ram = plan.arena_bytes - 5
    plan.save(str(tmp_path / "plan.json"))
    with pytest.raises(tt.BudgetError, match="5 bytes are missing"):
        tt.Plan.load(str(tmp_path / "plan.json")).require_fit()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda d: d.update(format=1), f"format {FORMAT}"),
        (lambda d: d.pop("format"), f"format {FORMAT}"),
        (lambda d: d.pop("decisions"), "decisions"),
        (lambda d: d.update(decisions=3), "not a whole plan"),
        (lambda d: d["decisions"].update(luck=[]), "not a whole plan"),
        (lambda d: d.pop("stands_for"), "stands_for"),
        (lambda d: d["steps"][0].__setitem__(0, "magic"), "magic"),
    ],
)
def test_what_is_not_a_whole_plan_is_refused(change, named, tmp_path):
    path = tmp_path / "plan.json"
    tt.plan(models.build("digits_cnn"), batch=2).save(str(path))
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(tt.InputError, match=named) as caught:
        tt.Plan.load(str(path))
    assert str(path) in str(caught.value)


def test_a_plan_is_synced_and_one_that_cannot_be_written_changes_nothing(tmp_path, monkeypatch):
    path, plan, synced = tmp_path / "plan.json", tt.plan(models.build("digits_cnn"), batch=2), []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(fsync(handle)))
    plan.save(str(path))
    assert len(synced) == 2  # the file, and the folder that has its name
    held = path.read_text()

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(tt.InputError, match=r"plan\.json: cannot be written \(No space"):
        plan.save(str(path))
    assert path.read_text() == held
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]


def test_a_file_that_is_no_plan_is_named(tmp_path):
    path = tmp_path / "plan.json"
    for text in ("", "[1]", "{", "\x00"):
        path.write_text(text)
        with pytest.raises(tt.InputError, match=r"plan\.json"):
            tt.Plan.load(str(path))
    with pytest.raises(tt.InputError, match="no such file"):
        tt.Plan.load(str(tmp_path / "missing.json"))


def test_a_segment_comes_back(tmp_path):
    plan = tt.plan(models.build("digits_cnn"), batch=2)
    given = {f.name: 1 for f in fields(Segment)}
    plan.decisions = replace(plan.decisions, segment=Segment(**given))
    plan.save(str(tmp_path / "plan.json"))
    assert tt.Plan.load(str(tmp_path / "plan.json")).decisions == plan.decisions
