"""Spilled values come back as they went, transfers overlap steps without a byte more, and a disk
that fails costs the step and nothing else."""

from __future__ import annotations

import errno
import functools
import gc
import json
import os
import resource
import stat
import threading

import numpy as np
import pytest
import test_budget
from growth import growth
from test_budget import BACKENDS, SMALL, batch_of, recorded, run_poisoned

import tinytrain as tt
from tinytrain import models, nn
from tinytrain.ahead import draw_apart
from tinytrain.candidates import sparse_values
from tinytrain.errors import InputError, SpillError
from tinytrain.lifetime import live_of
from tinytrain.lower import Decisions, lower
from tinytrain.op import OPS
from tinytrain.plan import Plan, make_plan
from tinytrain.rewrite import GATES
from tinytrain.run import Executor
from tinytrain.solver import Solver
from tinytrain.spillfile import HEADER, MAGIC, SpillFile
from tinytrain.stash import spill

NETS = [
    ("lenet5", {"input_shape": (16, 16, 1)}, 8),
    ("lenet5", {"input_shape": (16, 16, 1)}, 3),
    ("resnet8", {"input_shape": (8, 8, 3)}, 8),
    ("resnet8", {"input_shape": (8, 8, 3), "norm": "group"}, 3),
    ("vgg6", {"input_shape": (8, 8, 3)}, 8),
]


@pytest.fixture
def anything(monkeypatch) -> None:
    """However small a value is, it is worth a transfer."""
    monkeypatch.setattr(spill, "SMALLEST", 1)


@pytest.fixture
def path(tmp_path) -> str:
    return str(tmp_path / "values.spill")


def ops_of(plan_or_program) -> list[str]:
    program = getattr(plan_or_program, "program", plan_or_program)
    return [s.op for s in program.steps]


def snapshot(t: tt.Trainer) -> dict[str, bytes]:
    return {k: v.tobytes() for k, v in t.state().items()}


def a_trainer(path: str | None, name: str = "lenet5", **options) -> tt.Trainer:
    given = {"optimizer": "momentum", "batch": 8, "policy": "spill", "backend": "numpy"}
    shape = {"lenet5": (16, 16, 1), "digits_cnn": (8, 8, 1)}.get(name, (8, 8, 3))
    net = models.build(name, input_shape=shape)
    return tt.Trainer(net, spill=path, **{**given, **options})


# ------------------------------------------------------------------------- a step's bits


def decisions_of(tape, rng) -> Decisions:
    """A random policy for every value, inputs too, with every kind among them."""
    sparse = sparse_values(tape)
    inputs = [v for v, leaf in tape.leaves.items() if leaf.kind == "input"]
    policies = {v: str(rng.choice(["keep", "spill"])) for v in inputs}
    for v in (v for n in tape.nodes for v in n.outs if v != tape.loss):
        kinds = ["keep", "recompute", "recompute_each", "spill", "spill"]
        policies[v] = str(rng.choice(kinds + ["bitmap"] * (v in sparse)))
    gates = (n.outs[0] for n in tape.nodes if n.op in GATES)
    masks = frozenset(v for v in gates if rng.random() < 0.3)
    return Decisions(policies, masks=masks, densities=dict.fromkeys(sparse, 0.9))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("where", ["file", "memory"])
@pytest.mark.parametrize("name", SMALL)
def test_any_mixture_gives_the_bits_of_keep(name, where, backend, path, anything, monkeypatch):
    """Everything spilled, then random policies; every dead byte is 0xFF, in memory every dead
    slot too."""
    _, frozen, optimizer = recorded(name, 2)
    tape = frozen.tape
    want = run_poisoned(frozen, lower(tape, optimizer), backend)
    if where == "file":
        file = SpillFile(path)
        bound = functools.partial(Executor, spill=file)
        monkeypatch.setattr(test_budget, "Executor", bound)
    made = [v for n in tape.nodes if not OPS[n.op].view for v in n.outs if v != tape.loss]
    rng = np.random.default_rng(11)
    for k in range(3):
        decisions = decisions_of(tape, rng) if k else Decisions(dict.fromkeys(made, "spill"))
        program = lower(tape, optimizer, decisions)
        assert "fetch" in ops_of(program)
        assert run_poisoned(frozen, program, backend) == want
    assert where == "memory" or os.path.getsize(path) > HEADER


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name, options, microbatch", NETS)
def test_training_gives_the_curve_of_keep(name, options, microbatch, backend, path, anything):
    """Losses and all that persists, bit for bit, also for a batch of fewer samples."""
    found = []
    for policy in ("keep", "spill"):
        net = models.build(name, **options)
        t = tt.Trainer(
            net,
            optimizer="momentum",
            batch=8,
            microbatch=microbatch,
            policy=policy,
            backend=backend,
            spill=path if policy == "spill" else None,
        )
        x, y = batch_of(net, 8)
        losses = [t.step(x, y) for _ in range(3)] + [t.step(x[:5], y[:5])]
        found.append((losses, snapshot(t)))
        assert t.high_water_bytes == t.plan.arena_bytes
    assert t.plan.policies["spill"] > 3
    assert found[1] == found[0]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("microbatch", [8, 3])
def test_dropout_draws_what_it_drew(backend, microbatch, path, anything):
    def losses(policy):
        with nn.seeded(0):
            net = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 10))
        net.input_shape = (6,)
        to = path if policy == "spill" else None
        more = {"policy": policy, "microbatch": microbatch, "backend": backend, "spill": to}
        t = tt.Trainer(net, batch=8, **more)
        assert (t.plan.policies["spill"] > 0) == (policy == "spill")
        x, y = batch_of(net, 8)
        return [t.step(x, y) for _ in range(4)], snapshot(t)

    assert losses("spill") == losses("keep")


@pytest.mark.parametrize("guard", ["loss", "step", None])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_under_every_guard(guard, clip, path, anything):
    found = []
    for policy in ("keep", "spill"):
        to = path if policy == "spill" else None
        t = a_trainer(to, "resnet8", policy=policy, guard=guard, clip_norm=clip)
        x, y = batch_of(t.net, 8)
        found.append(([t.step(x, y) for _ in range(3)], snapshot(t)))
    assert found[1] == found[0]


def test_a_slice_that_overflows_its_bitmaps_is_run_again_beside_spilled_values(path, anything):
    found = []
    for density, to in ((None, None), (0.02, path)):
        net = models.build("digits_cnn")
        policy = "keep" if to is None else "bitmap"
        more = {"density": density, "microbatch": 3, "backend": "numpy"}
        t = tt.Trainer(net, optimizer="momentum", batch=8, policy=policy, spill=to, **more)
        x, y = batch_of(net, 8)
        found.append(([t.step(x, y) for _ in range(3)], snapshot(t)))
    assert t.overflows == 9
    assert found[1] == found[0]


# ------------------------------------------------------------------------- the plan


def spilling(name: str = "resnet8", batch: int = 16, **options) -> Plan:
    given = {"optimizer": "momentum", "policy": "spill", "spill": "nowhere/x"}
    return tt.plan(models.build(name), batch=batch, **{**given, **options})


def test_spilled_values_take_no_room_in_between():
    keep = spilling(policy="keep", spill=None)
    plan = spilling()
    plan.check()
    assert plan.arena_bytes < 0.5 * keep.arena_bytes
    assert plan.policies["spill"] == ops_of(plan).count("spill") > 10
    assert sum(plan.breakdown().values()) == plan.arena_bytes
    sizes = [plan.program.specs[s.ins[0]].nbytes for s in plan.program.steps if s.op == "spill"]
    assert min(sizes) >= spill.SMALLEST
    assert plan.spill_written_bytes == plan.spill_read_bytes == sum(sizes)
    assert plan.spill_file_bytes == pytest.approx(sum(sizes), rel=0.01)
    assert plan.extra_macs_ratio == 0
    assert not os.path.exists("nowhere")
    assert not keep.slots
    assert keep.spill_file_bytes == keep.spill_written_bytes == keep.spill_read_bytes == 0


def test_what_is_small_stays():
    plan = spilling("lenet5", batch=4)
    moved = {s.ins[0] for s in plan.program.steps if s.op == "spill"}
    small = [v for v in range(len(plan.program.tape.specs)) if v not in moved]
    read = {v for s in plan.program.steps[plan.program.marks[0][0] :] for v in s.reads()}
    kept = [v for v in small if v in read and plan.program.kinds[v] == "activation"]
    assert kept
    assert all(plan.program.specs[v].nbytes < spill.SMALLEST for v in kept)


def test_slices_move_their_bytes_once_each():
    plan = spilling("lenet5", batch=32, microbatch=8)
    whole = spilling("lenet5", batch=8, microbatch=8)
    assert plan.spill_written_bytes == 4 * whole.spill_written_bytes
    assert plan.spill_file_bytes == whole.spill_file_bytes


def test_slots_that_never_meet_share_their_bytes():
    """Two values, the second written after the first came back."""
    _, frozen, optimizer = recorded("digits_cnn", 64)
    program = lower(frozen.tape, optimizer, Decisions(dict.fromkeys([0, *range(4, 30)], "spill")))
    plan = make_plan(program, 64)
    first = plan.slots[0]
    for s in plan.slots[1:]:
        s.first, s.end = first.end, first.end + 1
        s.offset = first.offset
    plan.slots[2:] = []
    plan.check()
    plan.slots[1].first = first.end - 1
    with pytest.raises(AssertionError, match="overlap"):
        plan.check()


@pytest.mark.parametrize("inplace", [True, False])
@pytest.mark.parametrize("guard, sliced", [("loss", True), ("step", False), (None, False)])
@pytest.mark.parametrize("name", SMALL)
def test_drawing_transfers_apart_costs_no_byte(name, guard, sliced, inplace, anything):
    _, frozen, optimizer = recorded(name, 3)
    tape = frozen.tape
    rng = np.random.default_rng(2)
    made = [v for n in tape.nodes if not OPS[n.op].view for v in n.outs if v != tape.loss]
    for k in range(3):
        decisions = decisions_of(tape, rng) if k else Decisions(dict.fromkeys(made, "spill"))
        decisions = Decisions({v: p for v, p in decisions.policies.items() if p != "bitmap"})
        program = lower(tape, optimizer, decisions, guard, None, sliced)
        apart = draw_apart(program, inplace)
        assert max(live_of(apart, inplace)) == max(live_of(program, inplace))
        assert sorted(map(id, apart.steps)) == sorted(map(id, program.steps))
        still, same = (
            [s for s in p.steps if s.op not in ("spill", "spill_wait", "fetch")]
            for p in (program, apart)
        )
        assert still == same
        where = {s.outs[0]: j for j, s in enumerate(apart.steps) if s.op in ("spill", "fetch")}
        mark = apart.marks[0][0]
        begun = []
        for j, s in enumerate(apart.steps):
            if s.op == "spill_wait":
                assert where[s.ins[1]] < j < mark
            if s.op == "fetch_wait":
                begun.append(where[s.ins[0]])
                assert mark <= begun[-1] < j
        assert begun == sorted(begun), "fetched in the order in which they are needed"


def test_transfers_have_steps_beside_them():
    plan = spilling("resnet8")
    at = {}
    for j, s in enumerate(plan.program.steps):
        if s.op in ("spill", "fetch"):
            at[s.outs[0]] = j
        if s.op in ("spill_wait", "fetch_wait"):
            at[s.ins[s.op == "spill_wait"]] = j - at[s.ins[s.op == "spill_wait"]]
    assert np.mean([n > 3 for n in at.values()]) > 0.5


def test_a_plan_says_what_it_spills(tmp_path):
    plan = spilling("lenet5")
    figures = (plan.spill_file_bytes, plan.spill_written_bytes, plan.spill_read_bytes)
    assert "spill file {:,} bytes; {:,} written and {:,} read".format(*figures) in str(plan)
    assert "spill" not in str(spilling("lenet5", policy="keep"))
    assert "@file+0 = spill(" in plan.dump()
    plan.save(str(tmp_path / "plan.json"))
    again = Plan.load(str(tmp_path / "plan.json"))
    again.check()
    assert again.dump() == plan.dump()
    assert figures == (again.spill_file_bytes, again.spill_written_bytes, again.spill_read_bytes)
    assert plan.to_svg().startswith("<svg")


def test_what_nobody_fetches_is_not_written():
    """A value that is spilled by decision but that no gradient reads."""
    _, frozen, optimizer = recorded("resnet8", 16)
    tape = frozen.tape
    made = [v for n in tape.nodes if not OPS[n.op].view for v in n.outs if v != tape.loss]
    program = lower(tape, optimizer, Decisions(dict.fromkeys(made, "spill")))
    ops = ops_of(program)
    assert ops.count("spill") == ops.count("spill_wait") == ops.count("fetch") < len(made)
    (at, _), *_ = program.marks
    assert "fetch" not in ops[:at]
    assert "spill_wait" not in ops[at:]


# ------------------------------------------------------------------------- the solver


def test_a_budget_that_asks_for_a_spill_file(path):
    """Less than what does without a file is enough with one, where the batch cannot be cut."""
    given = {"batch": 32, "microbatch": 32, "optimizer": "momentum"}
    keep = tt.plan(models.build("digits_cnn", norm="batch"), policy="keep", **given)
    ram = tt.plan(models.build("digits_cnn", norm="batch"), **given).smallest_ram_bytes - 1
    with pytest.raises(tt.BudgetError):
        tt.plan(models.build("digits_cnn", norm="batch"), ram=ram, **given)
    found = []
    for more in ({"policy": "keep"}, {"ram": ram, "spill": path}):
        t = tt.Trainer(models.build("digits_cnn", norm="batch"), backend="numpy", **given, **more)
        x, y = batch_of(t.net, 32)
        found.append([t.step(x, y) for _ in range(3)])
        assert t.high_water_bytes == t.plan.arena_bytes
    assert t.plan.arena_bytes <= ram < keep.arena_bytes
    assert t.plan.policies["spill"] > 0
    assert t.plan.spill_written_bytes > 0
    np.testing.assert_allclose(found[1], found[0], rtol=2e-4)


def test_spilling_is_dearer_than_making_cheap_values_again_and_cheaper_than_products():
    """A float to an SD card and back, in multiply-accumulates, beside what a value costs."""
    _, frozen, optimizer = recorded("resnet8", 16)
    tape = frozen.tape
    solver = Solver(tape, lambda d: lower(tape, optimizer, d))
    keep = solver.trial(Decisions())
    costs = {}
    for what, op in (("product", "conv2d"), ("cheap", "relu")):
        v = next(n.outs[0] for n in tape.nodes[3:] if n.op == op)
        for policy in ("spill", "recompute"):
            trial = solver.trial(Decisions({v: policy}))
            costs[what, policy] = (trial.work - keep.work) / tape.specs[v].size
    assert costs["cheap", "recompute"] < costs["cheap", "spill"]
    assert costs["product", "spill"] < costs["product", "recompute"]
    each = spill.MACS * 4 * (1 / spill.READ + 1 / spill.WRITE)
    assert costs["product", "spill"] == pytest.approx(each, rel=1e-3)


def test_without_a_file_nothing_is_spilled(tmp_path):
    with pytest.raises(InputError, match="name a file as spill"):
        tt.plan(models.build("digits_cnn"), policy="spill")
    for bad in (7, "", b"x"):
        with pytest.raises(InputError, match="name the file"):
            tt.plan(models.build("digits_cnn"), spill=bad)
    t = a_trainer(str(tmp_path / "x"), policy="keep")
    assert not os.path.exists(tmp_path / "x"), "a plan that spills nothing makes no file"
    t.close()
    assert tt.plan(models.build("vgg6"), policy="spill", spill=tmp_path / "x").slots


# ------------------------------------------------------------------------- the file


def array(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(n, np.float32)


@pytest.mark.parametrize("threaded", [True, False])
def test_transfers_end_when_they_are_waited_for(path, threaded):
    file = SpillFile(path, threaded)
    given = [array(n, n) for n in (1, 5000, 70_000)]
    back = [np.empty_like(a) for a in given]
    status = np.full((), 7, np.uint32)
    out = [file.writing(a, 1 << (20 * k)) for k, a in enumerate(given)]
    home = [file.reading(b, t) for b, t in zip(back, out, strict=True)]
    for _ in range(3):
        for moves in (out, home):
            for t in moves:
                t.begin()
            for t in moves[::-1]:
                status[...] = 7
                t.wait(status)
                assert status == 0
        for a, b in zip(given, back, strict=True):
            assert a.tobytes() == b.tobytes()
            a += 1
    file.settle()


def test_the_thread_and_the_file_end_with_the_trainer(path):
    count = threading.active_count()
    t = a_trainer(path)
    t.step(*batch_of(t.net, 8))
    assert os.path.getsize(path) == HEADER + t.plan.spill_file_bytes
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert threading.active_count() == count + 1
    net = t.net
    del t
    gc.collect()
    assert threading.active_count() == count
    assert not os.path.exists(path)
    assert net.count_parameters()


def test_a_closed_trainer_still_tells_but_does_not_train(path):
    t = a_trainer(path)
    x, y = batch_of(t.net, 8)
    t.step(x, y)
    t.close()
    t.close()
    assert not os.path.exists(path)
    before = snapshot(t)
    with pytest.raises(SpillError, match="nothing was updated"):
        t.step(x, y)
    assert snapshot(t) == before
    assert t.predict(x).shape == (8, 10)


def test_two_trainers_may_name_one_file(path, anything):
    a, b = a_trainer(path), a_trainer(path)
    x, y = batch_of(a.net, 8)
    assert [a.step(x, y), a.step(x, y)] == [b.step(x, y), b.step(x, y)]
    a.close()
    b.step(x, y)
    b.close()


@pytest.mark.parametrize("held", [b"", MAGIC, MAGIC + bytes(9000)])
def test_a_file_left_behind_is_used_again(path, held):
    with open(path, "wb") as file:
        file.write(held)
    t = a_trainer(path)
    t.step(*batch_of(t.net, 8))
    t.close()
    assert not os.path.exists(path)


@pytest.mark.parametrize("held", [b"my thesis", MAGIC[:7]])
def test_a_file_of_somebody_else_is_left_alone(path, held):
    with open(path, "wb") as file:
        file.write(held)
    with pytest.raises(InputError, match=path) as caught:
        a_trainer(path)
    assert "another" in str(caught.value)
    with open(path, "rb") as file:
        assert file.read() == held


def test_a_file_that_cannot_be_opened_is_named(tmp_path, monkeypatch):
    for path in (tmp_path, tmp_path / "missing" / "x"):
        with pytest.raises(InputError, match=str(path)):
            a_trainer(str(path))

    def refuse(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(InputError, match=r"Read-only file system.*folder that exists"):
        a_trainer(str(tmp_path / "x"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_steps_do_not_grow_the_process(backend, path):
    t = a_trainer(path, backend=backend)
    x, y = batch_of(t.net, 8)
    for _ in range(10):
        t.step(x, y)
    grown = growth(lambda: t.step(x, y), times=5, calls=20)
    assert min(grown) < 2048, f"{grown} bytes more after 20 steps each"


# ------------------------------------------------------------------------- disks that fail


class Failing:
    """A file whose `verb` raises once `after` calls went well, while `broken`."""

    def __init__(self, t: tt.Trainer, verb: str, after: int = 0, error: int = errno.ENOSPC):
        self.file, self.verb, self.left, self.error = t._spill.lane.file, verb, after, error
        self.broken = True
        t._spill.lane.file = self

    def __getattr__(self, name):
        call = getattr(self.file, name)
        if name != self.verb or not self.broken:
            return call
        self.left -= 1
        if self.left >= 0:
            return call
        raise OSError(self.error, os.strerror(self.error))


def warmed(path, name="digits_cnn", **options) -> tuple[tt.Trainer, np.ndarray, np.ndarray]:
    t = a_trainer(path, name, **options)
    x, y = batch_of(t.net, 8)
    t.step(x, y)
    return t, x, y


@pytest.mark.parametrize("guard", ["loss", "step", None])
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
@pytest.mark.parametrize("name, microbatch, after", [("resnet8", 8, 2), ("digits_cnn", 3, 0)])
def test_a_write_that_fails_changes_nothing(
    name, microbatch, after, optimizer, guard, path, anything
):
    """In the first slice: not even the momentum is scaled. The step done again is the step."""
    options = {"optimizer": optimizer, "guard": guard, "microbatch": microbatch}
    t, x, y = warmed(path, name, **options)
    other, _, _ = warmed(path + "2", name, **options)
    before = snapshot(t)
    disk = Failing(t, "write", after)
    for _ in range(2):
        with pytest.raises(SpillError, match=f"{path}.*No space left.*nothing was updated"):
            t.step(x, y)
        assert snapshot(t) == before
        assert t.steps == 1
    disk.broken = False
    assert t.step(x, y) == other.step(x, y)
    assert snapshot(t) == snapshot(other)


@pytest.mark.parametrize("saved", [True, False])
@pytest.mark.parametrize("verb", ["readinto", "write"])
def test_what_is_half_done_is_undone(verb, saved, path, tmp_path, anything):
    """A fetch fails behind the first update, or a write in the second slice, whose first has been
    added to the momentum: the saved state comes back, or the first one, and training goes on."""
    name, microbatch = ("resnet8", 8) if verb == "readinto" else ("digits_cnn", 3)
    t, x, y = warmed(path, name, microbatch=microbatch)
    held = str(tmp_path / "net.npz")
    if saved:
        t.save(held)
        with open(held, "rb") as file:
            good = file.read()
    want = snapshot(t) if saved else snapshot(a_trainer(None, name, policy="keep"))
    count = ops_of(t.plan).count("spill")
    disk = Failing(t, verb, count + 1 if verb == "write" else 1, errno.EIO)
    what = f"the state saved in {held} was restored" if saved else "training begins anew"
    with pytest.raises(SpillError, match=f"{path}.*{what}"):
        t.step(x, y)
    assert snapshot(t) == want
    assert t.steps == int(saved)
    disk.broken = False
    other = a_trainer(None, name, policy="keep", microbatch=microbatch)
    if saved:
        with open(held, "rb") as file:
            assert file.read() == good
        other.step(x, y)
    assert t.step(x, y) == other.step(x, y)
    assert snapshot(t) == snapshot(other)


@pytest.mark.parametrize("after", [0, 4])
def test_under_guard_step_a_fetch_that_fails_changes_nothing(after, path, anything):
    t, x, y = warmed(path, guard="step")
    before = snapshot(t)
    disk = Failing(t, "readinto", after, errno.EIO)
    with pytest.raises(SpillError, match=r"read back.*nothing was updated"):
        t.step(x, y)
    assert snapshot(t) == before
    disk.broken = False
    t.step(x, y)


def test_accumulators_leave_the_state_of_a_slice_that_fails_alone(path, anything):
    """Adam's gradients are summed beside its state: no slice changes anything before the last."""
    t, x, y = warmed(path, microbatch=3, optimizer="adam")
    before = snapshot(t)
    disk = Failing(t, "readinto", ops_of(t.plan).count("fetch") + 2, errno.EIO)
    with pytest.raises(SpillError, match="nothing was updated"):
        t.step(x, y)
    assert snapshot(t) == before
    disk.broken = False
    other, _, _ = warmed(path + "2", microbatch=3, optimizer="adam")
    assert t.step(x, y) == other.step(x, y)


class Spoiling(Failing):
    """A file that is changed behind the back of who reads it."""

    def __init__(self, t: tt.Trainer, spoil):
        super().__init__(t, "readinto")
        self.spoil = spoil

    def __getattr__(self, name):
        if name == "readinto" and self.broken:
            self.spoil()
        return getattr(self.file, name)


@pytest.mark.parametrize("guard", ["loss", "step"])
@pytest.mark.parametrize(
    "size, what", [(0, "shorter than"), (HEADER + 9, "shorter than"), (None, "other bytes")]
)
def test_a_file_that_others_change_is_found_out(size, what, guard, path, tmp_path, anything):
    t, x, y = warmed(path, guard=guard)
    t.save(str(tmp_path / "net.npz"))
    before = snapshot(t)

    def spoil():
        if size is not None:
            os.truncate(path, size)
            return
        with open(path, "r+b") as file:
            file.seek(HEADER)
            file.write(bytes(t.plan.spill_file_bytes))

    disk = Spoiling(t, spoil)
    with pytest.raises(SpillError, match=f"{path}.*{what}"):
        t.step(x, y)
    assert snapshot(t) == before
    disk.broken = False
    t.step(x, y)
    assert os.path.getsize(path) >= HEADER + t.plan.spill_file_bytes


def test_a_file_cut_short_between_steps_is_made_long_again(path, anything):
    t, x, y = warmed(path)
    other, _, _ = warmed(path + "2")
    os.truncate(path, 0)
    assert t.step(x, y) == other.step(x, y)
    os.remove(path)
    assert t.step(x, y) == other.step(x, y)


def test_a_full_disk_stops_the_first_step(path):
    """By this process' limit on a file's size; more room, and it works."""
    t = a_trainer(path)
    x, y = batch_of(t.net, 8)
    before = snapshot(t)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HEADER, hard))
    try:
        with pytest.raises(SpillError, match=f"{path}.*too large.*nothing was updated"):
            t.step(x, y)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert snapshot(t) == before
    t.step(x, y)
    assert snapshot(t) != before


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_device_without_room_is_named():
    t = a_trainer("/dev/full")
    before = snapshot(t)
    with pytest.raises(SpillError, match=r"/dev/full.*No space left.*nothing was updated"):
        t.step(*batch_of(t.net, 8))
    assert snapshot(t) == before
    t.close()
    assert os.path.exists("/dev/full"), "a device is not removed"


@pytest.mark.parametrize("policy", ["keep", "spill"])
def test_a_bad_first_slice_leaves_the_momentum_alone(policy, path, anything):
    t, x, y = warmed(path if policy == "spill" else None, policy=policy, microbatch=3)
    before = snapshot(t)
    broken = x.copy()
    broken[1] = np.nan
    with pytest.raises(tt.NotFiniteError):
        t.step(broken, y)
    assert snapshot(t) == before


def test_an_interrupt_leaves_no_transfer_behind(path, anything, monkeypatch):
    """Stopped in the middle of a step, with transfers under way: none writes to the arena later."""
    t, x, y = warmed(path, guard="step")
    other, _, _ = warmed(path + "2", guard="step")
    calls, before = t._train.executor.calls(True, True), snapshot(t)

    def stop():
        raise KeyboardInterrupt

    calls.insert(len(calls) // 2, (stop, ()))
    with pytest.raises(KeyboardInterrupt):
        t.step(x, y)
    assert not t._spill.lane.todo
    assert not t._spill.lane.busy
    assert snapshot(t) == before
    calls.remove((stop, ()))
    assert t.step(x, y) == other.step(x, y)
    assert snapshot(t) == snapshot(other)


# ------------------------------------------------------------------------- saved, and at a prompt


def test_a_saved_state_names_its_file_and_takes_another(path, tmp_path, anything):
    t, x, y = warmed(path)
    held = str(tmp_path / "net.npz")
    t.save(held)
    t.close()
    want = t.plan.dump()
    for more in ({}, {"spill": path + "2"}, {"spill": None, "policy": "keep"}):
        again = tt.Trainer.restore(held, backend="numpy", **more)
        assert (again.plan.dump() == want) == ("policy" not in more)
        assert again.settings["spill"] == more.get("spill", path)
        losses = [again.step(x, y) for _ in range(2)]
        again.close()
        if not more:
            first = losses
        assert losses == first
    with pytest.raises(InputError, match="missing"):
        tt.Trainer.restore(held, spill=str(tmp_path / "missing" / "x"))


def test_at_the_command_line(path, tmp_path, capsys):
    from tinytrain.cli import main

    def run(*argv: str) -> tuple[int, str]:
        status = main([*argv, "--json"])
        out, err = capsys.readouterr()
        return status, out if status == 0 else err

    status, out = run("plan", "lenet5", "--batch", "8", "--policy", "spill", "--spill", path)
    assert status == 0
    got = json.loads(out)
    assert got["policies"]["spill"] > 0
    assert got["spill_file_bytes"] == got["spill_written_bytes"] == got["spill_read_bytes"] > 0
    assert not os.path.exists(path)
    x, y = np.random.default_rng(0).random((20, 28, 28, 1), np.float32), np.arange(20) % 10
    data, held = str(tmp_path / "d.npz"), str(tmp_path / "net.npz")
    np.savez(data, x=x, y=y)
    options = ["--batch", "8", "--epochs", "1", "--backend", "numpy", "--data", data]
    spilled = ["--policy", "spill", "--spill", path]
    status, out = run("train", "lenet5", *options, *spilled, "--save", held)
    assert status == 0
    loss = json.loads(out)["train_loss"]
    status, out = run("train", "lenet5", *options)
    assert json.loads(out)["train_loss"] == loss
    os.mkdir(path)  # nothing is spilled while a network is measured
    status, out = run("eval", held, "--data", data, "--backend", "numpy")
    assert status == 0, out
    status, out = run("train", "lenet5", *options, "--resume", held)
    assert (status, path in out, out.count("\n")) == (2, True, 1)
    status, out = run("train", "lenet5", *options, "--resume", held, "--spill", path + "2")
    assert status == 0
    status, out = run("plan", "lenet5", "--policy", "spill")
    assert (status, "name a file" in out) == (2, True)
