"""Policies and budgets side by side: every row is a plan of its own, or says why it cannot be."""

from __future__ import annotations

import functools
import json
import xml.etree.ElementTree as ET

import pytest

import tinytrain as tt
from tinytrain import models
from tinytrain.cli import main
from tinytrain.compare import HEAD, SHARES, Comparison, as_table
from tinytrain.picture import HATCHES, bars_svg

SLOW = {"digits_cnn": 4, "revnet": 2}


@functools.cache
def compared(name: str, **more) -> tuple[Comparison, list[dict]]:
    options = {"units": (1, 2, 1), "widths": (8, 8, 8, 8), "norm": "group"}
    net = models.build(name, **(options if name == "revnet" else {}))
    plan = functools.partial(tt.plan, net, batch=SLOW[name], microbatch=SLOW[name])
    found = Comparison(plan, **more)
    return found, found.all(quiet=True)


def test_every_row_is_the_plan_that_it_names():
    found, rows = compared("digits_cnn", ram="40K")
    net = models.build("digits_cnn")
    assert len(rows) == found.total == 11
    keep = tt.plan(net, batch=4, policy="keep")
    assert rows[0]["arena_bytes"] == keep.arena_bytes
    assert rows[0]["of_keep"] == 1
    for row in rows:
        if row["cannot"]:
            continue
        given = {"batch": 4, "microbatch": 4, "policy": row["policy"], "ram": row["ram_bytes"]}
        given["density"] = 0.5 if row["policy"] == "bitmap" else None
        given["spill"] = "never opened" if row["policy"] == "spill" else None
        plan = tt.plan(net, **given)
        assert row["arena_bytes"] == plan.arena_bytes
        assert row["breakdown"] == plan.breakdown()
        assert row["policies"] == plan.policies
        assert row["extra_macs_ratio"] == plan.extra_macs_ratio
        assert row["of_keep"] == plan.arena_bytes / keep.arena_bytes
        largest, _, v = plan.alive(plan.peak())[0]
        assert row["largest_at_peak"] == {"name": plan.name(v), "nbytes": largest}


def test_budgets_are_shares_of_what_keep_takes_beyond_what_persists():
    found, rows = compared("digits_cnn", ram="40K")
    keep = found.keep
    for share, row in zip(SHARES, rows[6:9], strict=True):
        ram = keep.persistent_bytes + int(share * (keep.arena_bytes - keep.persistent_bytes))
        assert f"{ram:,}" in row["name"]
        if row["cannot"]:
            assert "bytes are missing" in row["cannot"]
            assert rows[9]["arena_bytes"] > ram, "the smallest found is larger"
        else:
            assert row["arena_bytes"] <= ram == row["ram_bytes"]
    smallest = min(r["arena_bytes"] for r in rows if not r["cannot"])
    assert rows[9]["arena_bytes"] == smallest
    assert rows[10]["ram_bytes"] == 40 * 1024


def test_a_policy_that_cannot_be_says_why():
    _, rows = compared("digits_cnn", ram="40K")
    invert = next(r for r in rows if r["policy"] == "invert")
    assert "layer 0 (conv2d)" in invert["cannot"]
    net = tt.nn.Sequential(tt.nn.Linear(4, 3))
    net.input_shape = (4,)
    rows = Comparison(functools.partial(tt.plan, net, batch=2)).all(quiet=True)
    bitmap = next(r for r in rows if r["policy"] == "bitmap")
    assert "smaller as a bitmap" in bitmap["cannot"]
    spill = next(r for r in rows if r["policy"] == "spill")
    assert "4,096 bytes" in spill["cannot"]


def test_a_reversible_network_takes_every_policy():
    _, rows = compared("revnet", density=0.3)
    assert not [r["cannot"] for r in rows[:5] if r["cannot"]]
    assert rows[2]["name"] == "bitmap at density 0.3"
    assert rows[3]["policies"]["invert"] > 0
    assert rows[2]["bitmap"]["nominal"] > 0


def test_the_table_lines_up():
    _, rows = compared("digits_cnn", ram="40K")
    lines = as_table(rows).splitlines()
    assert len(lines) == 2 + len(rows)
    assert all(column in lines[0] for column in HEAD)
    columns = [lines[0].index(name) + len(name) for name in HEAD[1:-1]]
    for line in lines[2:]:
        for end in columns:
            assert line[end - 1] != " ", "figures end below their heading"
            assert line[end] == " "
    assert f"{rows[0]['arena_bytes']:,}" in lines[2]
    assert "cannot: nothing in this network can be inverted" in lines[5]


@pytest.mark.parametrize("name", SLOW)
def test_the_bars_are_as_long_as_the_arenas(name):
    more = {"ram": "40K"} if name == "digits_cnn" else {"density": 0.3}
    _, rows = compared(name, **more)
    root = ET.fromstring(bars_svg("a <title> & more", rows))
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    bars: dict[float, float] = {}
    for r in root.iter():
        if r.tag.endswith("rect") and len(r):
            y = float(r.attrib["y"])
            bars[y] = bars.get(y, 0) + float(r.attrib["width"])
            assert float(r.attrib["x"]) + float(r.attrib["width"]) <= width
            assert y + float(r.attrib["height"]) <= height
    arenas = [r["arena_bytes"] for r in rows if not r["cannot"]]
    drawn = [bars[y] for y in sorted(bars)]
    assert len(drawn) == len(arenas)
    for length, nbytes in zip(drawn, arenas, strict=True):
        assert length / drawn[0] == pytest.approx(nbytes / arenas[0], abs=1e-3)
    words = [t.text for t in root.iter() if t.tag.endswith("text")]
    assert "a <title> & more" in words
    assert words.count("cannot") == len(rows) - len(arenas)


def test_the_command_prints_one_object_and_draws(tmp_path, capsys):
    picture = tmp_path / "bars.svg"
    arguments = ["plan", "digits_cnn", "--compare", "--batch", "1", "--svg", str(picture)]
    assert main([*arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    got = json.loads(out)
    assert (got["model"], got["batch"]) == ("digits_cnn", 1)
    for row in got["rows"]:
        figures = ("arena_bytes", "of_keep", "microbatch", "extra_macs_ratio")
        assert row["cannot"] or all(isinstance(row[name], int | float) for name in figures)
    ET.parse(picture)
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert err.count("planned ") == len(got["rows"]) == err.count("\n")
    assert f"{got['rows'][0]['arena_bytes']:,}" in out


# ------------------------------------------------------------------------- one plan's picture


@pytest.mark.parametrize(
    ("name", "given", "hatched", "words"),
    [
        ("digits_cnn", {"policy": "keep"}, set(), {"forward", "backward"}),
        ("digits_cnn", {"policy": "recompute"}, {"recomputed"}, {"forward"}),
        ("digits_cnn", {"policy": "bitmap", "density": 0.3}, {"bitmap", "unpacked"}, set()),
        ("revnet", {"policy": "invert"}, {"inverted", "recomputed", "bitmap"}, set()),
        (
            "digits_cnn",
            {"microbatch": 1, "policy": "keep"},
            set(),
            {"forward, for every slice", "backward, for every slice"},
        ),
    ],
)
def test_what_policies_made_is_hatched_and_explained(name, given, hatched, words):
    options = {"units": (1, 2, 1), "widths": (8, 8, 8, 8)} if name == "revnet" else {}
    net = models.build(name, norm="group", **options) if name == "revnet" else models.build(name)
    plan = tt.plan(net, **{"batch": 2, "microbatch": 2, "optimizer": "momentum", **given})
    root = ET.fromstring(plan.to_svg())
    fills = [r.attrib.get("fill", "") for r in root.iter() if r.tag.endswith("rect")]
    used = {f.removeprefix("url(#").removesuffix(")") for f in fills if f.startswith("url")}
    assert used == hatched
    assert used <= set(HATCHES)
    assert {p.attrib["id"] for p in root.iter() if p.tag.endswith("pattern")} == set(HATCHES)
    texts = {t.text for t in root.iter() if t.tag.endswith("text")}
    assert hatched | words <= texts
    peak = plan.program.steps[plan.peak()].op
    assert any(t.startswith(f"peak: {peak}, {plan.lower_bound:,}") for t in texts if t)


def test_a_budget_is_a_line_unless_it_lies_far_above():
    def words(ram):
        plan = tt.plan(models.build("digits_cnn"), batch=2, ram=ram)
        return {t.text for t in ET.fromstring(plan.to_svg()).iter() if t.tag.endswith("text")}, plan

    need = tt.plan(models.build("digits_cnn"), batch=2).arena_bytes
    near, plan = words(need + 1000)
    assert f"ram {plan.ram:,}" in near
    far, plan = words(10 * need)
    assert not any(t and t.startswith("ram ") for t in far)
    assert f"arena {plan.arena_bytes:,}" in far
    assert any(f"of {plan.ram:,} allowed" in t for t in far if t)
