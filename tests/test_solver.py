"""The solver: near the optimum, never worse for annealing, the same everywhere, and as good as its
word about the smallest budget."""

from __future__ import annotations

import pytest
from test_budget import SMALL, recorded

import tinytrain as tt
from tinytrain import models
from tinytrain.anneal import Draw, anneal
from tinytrain.bench import solver as bench
from tinytrain.lower import Decisions, lower
from tinytrain.solver import Solver, costs_of, work_of

WITHIN = 0.03  # of keep's work above the optimum


@pytest.mark.parametrize(("net", "shares"), [("chain of 3", (0.4,)), ("mlp", (0.0,))])
def test_the_solver_is_near_the_optimum(net, shares):
    pytest.importorskip("scipy", reason="SciPy (HiGHS) is not installed")
    for row in bench.compare(net, shares, seconds=60.0):
        assert row["fits"], row
        assert row["bound_extra_macs_ratio"] <= row["extra_macs_ratio"] + 1e-9, row
        assert row["extra_macs_ratio"] <= row["optimum_extra_macs_ratio"] + WITHIN, row
        assert row["optimum_extra_macs_ratio"] <= row["bound_extra_macs_ratio"] + WITHIN, row


def test_keep_is_what_the_optimum_starts_from():
    """At keep's own peak nothing is run again, and below it something is: both sides count the
    same bytes."""
    pytest.importorskip("scipy", reason="SciPy (HiGHS) is not installed")
    from tinytrain.bench import optimum

    keep = bench.solver_of("mlp").trial(Decisions())
    program, costs = keep.program, costs_of(keep.program)
    assert sum(costs) == keep.work == work_of(program)
    at, below = (optimum.least_work(program, costs, keep.peak - k) for k in (0, 1))
    assert at.value == pytest.approx(keep.work, rel=optimum.GAP)
    assert below is None or below.value > keep.work


@pytest.fixture(scope="module")
def solved():
    """A solver over a small network, everything cheap recomputed, and what that needs."""
    _, frozen, optimizer = recorded("ds_cnn", 4)

    def make():
        return Solver(frozen.tape, lambda d: lower(frozen.tape, optimizer, d))

    solver = make()
    trial = solver.trial(solver.start("recompute"))
    return make, trial.decisions, trial.peak


def test_annealing_saves_work_within_the_budget(solved):
    make, decisions, budget = solved
    solver = make()
    trial = solver.trial(decisions)
    found = anneal(solver, trial, budget, 20_000)
    assert found.peak <= budget
    assert found.work < trial.work


def test_annealing_is_bounded_and_the_same_twice(solved):
    make, decisions, budget = solved
    found = []
    for _ in range(2):
        solver = make()
        before = solver.trial(decisions)
        found.append(anneal(solver, before, budget, 20_000).decisions)
        assert solver.spent <= 20_000 + 3 * len(before.live)
    assert found[0] == found[1]


def test_annealing_lowers_the_peak_where_nothing_fits(solved):
    make, _, _ = solved
    solver = make()
    keep = solver.trial(Decisions())
    found = anneal(solver, keep, 1, 20_000)
    assert found.peak < keep.peak


def test_nothing_left_to_spend_changes_nothing(solved):
    make, decisions, budget = solved
    solver = make()
    trial = solver.trial(decisions)
    assert anneal(solver, trial, budget, 0) is trial


def test_the_generator_draws_what_was_written_down():
    """Knuth's MMIX generator from 0: the same numbers on every machine and Python."""
    draw = Draw(0)
    assert [draw.below(1000) for _ in range(5)] == [807, 424, 937, 236, 125]


EACH = [("digits_cnn", "sgd"), ("lenet5", "momentum"), ("resnet8", "sgd"), ("ds_cnn", "momentum")]


@pytest.mark.parametrize(("name", "optimizer"), EACH)
def test_the_smallest_budget_that_is_promised_is_found_again(name, optimizer):
    def planned(ram):
        net = models.build(name, **SMALL[name])
        return tt.plan(net, batch=4, optimizer=optimizer, ram=ram)

    smallest = planned(None).smallest_ram_bytes
    assert planned(smallest).fits
    with pytest.raises(tt.BudgetError) as caught:
        planned(smallest // 2)
    assert planned(caught.value.smallest).fits


def test_slices_are_as_large_as_the_budget_allows():
    """Under the same decisions larger slices run faster, and cost no more."""
    keep = tt.plan(models.build("lenet5"), batch=16, optimizer="momentum")
    sizes = []
    for share in (1, 0.6, 0.3):
        ram = int(keep.persistent_bytes + share * (keep.arena_bytes - keep.persistent_bytes))
        made = tt.plan(models.build("lenet5"), batch=16, optimizer="momentum", ram=ram)
        assert made.extra_macs_ratio < 1e-4  # what is done once a slice
        sizes.append(made.microbatch)
    assert sizes == [16, 8, 4]
