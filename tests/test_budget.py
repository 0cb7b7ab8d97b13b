"""A named budget is honoured: recomputation and masks give the same bits, slices the same
gradient, and what was chosen fits, runs, and is what the high water measures."""

from __future__ import annotations

import importlib.util
from collections import Counter

import numpy as np
import pytest

import tinytrain as tt
from tinytrain import models, nn, optim
from tinytrain.budget import parse_bytes, slice_sizes
from tinytrain.freeze import Recorder, defaults, sample_specs
from tinytrain.kernels import c_
from tinytrain.lifetime import buffers_of, live_bytes, live_of
from tinytrain.lower import Decisions, lower
from tinytrain.op import OPS
from tinytrain.plan import make_plan
from tinytrain.run import POISON, Executor
from tinytrain.solver import Solver

BACKENDS = [
    "numpy",
    pytest.param(
        "numba",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("numba") is None, reason="numba is not installed"
        ),
    ),
    pytest.param(
        "c", marks=pytest.mark.skipif(not c_.is_there(), reason="a C compiler is missing")
    ),
]
SMALL = {
    "digits_cnn": {},
    "lenet5": {"input_shape": (16, 16, 1)},
    "resnet8": {"input_shape": (8, 8, 3)},
    "ds_cnn": {"input_shape": (13, 6, 1), "channels": 8},
    "mobilenetv2": {"input_shape": (16, 16, 3)},
}


def batch_of(net: nn.Module, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random((n, *net.input_shape), np.float32), rng.integers(0, 10, n)


def recorded(name: str, batch: int):
    net = models.build(name, **SMALL[name])
    loss, optimizer = defaults(net, None, optim.SGD(lr=0.05, momentum=0.9))
    return net, Recorder(net, sample_specs(net), loss)(batch), optimizer


def run_poisoned(frozen, program, backend: str) -> dict[str, bytes]:
    """Everything persistent after one step over an arena of 0xFF, every dead byte 0xFF again."""
    plan = make_plan(program, 2)
    plan.check()
    executor = Executor(plan, backend, poison=True)
    executor.arena.fill(POISON)
    rng = np.random.default_rng(3)
    for v, leaf in sorted(program.leaves.items(), key=lambda item: item[1].name):
        view, tensor = executor.view(v), frozen.leaves.get(v)
        if leaf.kind == "input":
            view[...] = rng.random(view.shape)
        elif leaf.kind == "label":
            view[...] = rng.integers(0, 10, view.shape)
        elif leaf.kind == "hyper":
            view[...] = 1 if leaf.name == "key" else 0.05
        elif leaf.kind in ("optimizer", "accumulator"):
            view[...] = 0
        else:
            view[...] = tensor.data
    executor.run()
    kinds = ("parameter", "state", "optimizer")
    return {
        leaf.name: executor.view(v).tobytes()
        for v, leaf in program.leaves.items()
        if leaf.kind in kinds
    }


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SMALL)
def test_any_decisions_give_the_bits_of_keep(name, backend):
    """Random policies, masks and orders: dropout and norms replay exactly."""
    _, frozen, optimizer = recorded(name, 2)
    tape = frozen.tape
    rng = np.random.default_rng(7)
    orders = dict.fromkeys(range(len(tape.specs)), False)  # the order of sums is theirs
    want = run_poisoned(frozen, lower(tape, optimizer, Decisions(weight_first=orders)), backend)
    for _ in range(3):
        policies = {
            v: str(rng.choice(["keep", "recompute", "recompute_near", "recompute_each"]))
            for n in tape.nodes
            for v in n.outs
            if v != tape.loss
        }
        gates = (n.outs[0] for n in tape.nodes if n.op in ("relu", "relu6"))
        masks = frozenset(v for v in gates if rng.random() < 0.5)
        program = lower(tape, optimizer, Decisions(policies, orders, masks))
        assert run_poisoned(frozen, program, backend) == want


def test_recompute_each_runs_again_for_every_reader():
    """Recompute once for all of them: what is brought back lives from the first to the last."""
    _, frozen, optimizer = recorded("resnet8", 2)
    tape = frozen.tape
    readers = Counter(n.ins[0] for n in tape.nodes if n.op == "conv2d")
    forks = [v for v, count in readers.items() if count == 2 and v not in tape.leaves]
    assert len(forks) == 2  # ReLUs, read by two weight gradients and by their own
    for policy, times in (("recompute", 1), ("recompute_each", 3)):
        program = lower(tape, optimizer, Decisions(dict.fromkeys(forks, policy)))
        again = Counter(program.stands_for.values())
        assert all(again[v] == times for v in forks), policy


def test_live_bytes_are_counted_alike():
    for name in SMALL:
        _, frozen, optimizer = recorded(name, 3)
        program = lower(frozen.tape, optimizer)
        buffers, _ = buffers_of(program)
        assert live_bytes(buffers, len(program.steps)) == live_of(program)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("size", [1, 3, 4])
def test_slices_train_as_the_whole_batch(backend, optimizer, clip, size):
    """Gradients of slices (the last one smaller) add up to the batch's, to rounding."""
    found = []
    for microbatch in (8, size):
        net = models.build("digits_cnn", seed=1)
        t = tt.Trainer(
            net,
            optimizer=optim.by_name(optimizer).with_lr(0.01),
            batch=8,
            microbatch=microbatch,
            clip_norm=clip,
            backend=backend,
        )
        x, y = batch_of(net, 8)
        losses = [t.step(x, y) for _ in range(3)] + [t.step(x[:5], y[:5])]
        found.append((losses, {k: v.copy() for k, v in t.state().items()}))
        assert t.high_water_bytes == t.plan.arena_bytes
    (whole, state), (sliced, other) = found
    np.testing.assert_allclose(sliced, whole, rtol=1e-5)
    for name, a in state.items():
        np.testing.assert_allclose(other[name], a, atol=2e-5 * max(1.0, np.abs(a).max()))


def test_slices_drop_out_as_the_whole_batch():
    def losses(microbatch):
        with nn.seeded(0):
            net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10))
        net.input_shape = (6,)
        t = tt.Trainer(net, batch=8, microbatch=microbatch, backend="numpy")
        x, y = batch_of(net, 8)
        return [t.step(x, y) for _ in range(4)]

    np.testing.assert_allclose(losses(2), losses(8), rtol=1e-5)


def test_a_masked_loss_is_sliced_by_what_counts():
    def loss(microbatch):
        with nn.seeded(0):
            net = nn.Linear(5, 4)
        net.input_shape = (5,)
        labels = [tt.Spec((), "int32"), tt.Spec((), "float32")]
        t = tt.Trainer(net, batch=6, microbatch=microbatch, label_spec=labels, backend="numpy")
        x, y = batch_of(net, 6)
        mask = np.float32([1, 1, 0, 0, 1, 0])
        return t.step(x, (y % 4, mask)), net.weight.data.copy()

    (a, w), (b, v) = loss(6), loss(2)
    assert a == pytest.approx(b, rel=1e-6)
    np.testing.assert_allclose(w, v, atol=1e-6)


def test_batch_statistics_are_never_sliced_by_themselves():
    net = models.build("resnet8")
    tape = Recorder(net, sample_specs(net), tt.losses.cross_entropy).tape(4)
    assert list(slice_sizes("auto", 4, tape)) == [4]
    group = models.build("resnet8", norm="group")
    tape = Recorder(group, sample_specs(group), tt.losses.cross_entropy).tape(4)
    assert list(slice_sizes("auto", 4, tape)) == [4, 2, 1]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "name, batch, options, share",
    [
        ("digits_cnn", 4, {}, 0.5),
        ("resnet8", 4, {"input_shape": (16, 16, 3)}, 0.55),
        ("ds_cnn", 4, {"channels": 16}, 0.6),
        ("resnet8", 8, {"norm": "group", "input_shape": (16, 16, 3)}, 0.4),
    ],
)
def test_half_of_what_keep_needs_is_honoured_while_running(name, batch, options, share, backend):
    """`share` of keep's bytes beyond parameters and optimizer state; losses stay keep's."""
    losses = []
    ram = None
    for _ in range(2):
        net = models.build(name, **options)
        t = tt.Trainer(net, optimizer="momentum", batch=batch, ram=ram, backend=backend)
        keep = t.plan
        ram = int(keep.persistent_bytes + share * (keep.arena_bytes - keep.persistent_bytes))
        x, y = batch_of(net, batch)
        losses.append([t.step(x, y) for _ in range(3)])
        assert t.high_water_bytes == t.plan.arena_bytes
    assert t.plan.arena_bytes <= t.plan.ram
    assert 0 <= t.plan.extra_macs_ratio < 1
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-4)


def test_the_plan_says_what_it_did():
    plan = tt.plan(models.build("resnet8"), batch=8, ram="3M", optimizer="momentum")
    assert plan.fits
    assert plan.policies["recompute"] > 0
    assert 0 < plan.extra_macs_ratio < 0.35
    forced = tt.plan(models.build("resnet8"), batch=8, policy="recompute")
    assert forced.policies["bitmap"] > 0
    assert forced.policies["recompute"] > 0
    again = tt.plan(models.build("resnet8"), batch=8, ram="3M", optimizer="momentum")
    assert again.dump() == plan.dump()


def test_a_norm_is_made_again_from_its_statistics_and_every_mask_is_read():
    """No sum over the batch is taken twice; a mask beside its gate's output would be idle."""
    net = models.build("resnet8")
    for policy in ("recompute", "bitmap"):
        program = tt.plan(net, batch=8, policy=policy).program
        ops = [s.op for s in program.steps]
        assert ops.count("batch_norm") == 7
        assert ops.count("batch_norm_frozen") == (7 if policy == "recompute" else 0)
        read = {v for s in program.steps for v in s.reads()}
        masks = {s.outs[0] for s in program.steps if s.op == "gate_mask"}
        assert masks and masks <= read


def test_the_solver_names_no_cheaper_way_that_it_tried():
    """Of all trials within the budget, it returns one of the least work."""
    _, frozen, optimizer = recorded("resnet8", 16)
    solver = Solver(frozen.tape, lambda d: lower(frozen.tape, optimizer, d))
    keep = solver.trial(Decisions())
    persistent = make_plan(keep.program, 16).persistent_bytes
    budget = int(persistent + 0.6 * (keep.peak - persistent))
    best = solver.solve(budget)
    assert best.peak <= budget
    fitting = [t for t in solver.known.values() if t is not None and t.peak <= budget]
    assert best.work <= min(t.work for t in fitting) * 1.02


@pytest.mark.parametrize("text, nbytes", [("64K", 65536), ("1.5M", 1572864), ("7", 7), (9, 9)])
def test_sizes(text, nbytes):
    assert parse_bytes(text) == nbytes


def test_every_row_says_truly_what_its_gradient_reads():
    """A residual that is not in `saves` would be kept unknown to the planner."""
    for row in OPS.values():
        for s in row.saves:
            assert s[0] in "xy"
            assert s[1:].isdigit()
