"""Pruning follows its schedule, what is pruned stays +0 under every optimizer, the rest trains as
ever, no byte is added, and a checkpoint goes on bit for bit."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from planned import planned_equals_fresh
from test_budget import BACKENDS, SMALL, batch_of, recorded

import tinytrain as tt
from tinytrain import models, nn, optim
from tinytrain.errors import InputError
from tinytrain.lower import lower
from tinytrain.prune import MagnitudePruning, pruned, smallest

OPTIMIZERS = {
    "sgd": lambda: optim.SGD(lr=0.05),
    "decayed": lambda: optim.SGD(lr=0.05, weight_decay=0.01),
    "momentum": lambda: optim.SGD(lr=0.02, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda: optim.SGD(lr=0.02, momentum=0.9, nesterov=True),
    "adam": lambda: optim.Adam(weight_decay=0.01),
    "adamw": lambda: optim.AdamW(),
}


def zeros(t: tt.Trainer) -> dict[str, np.ndarray]:
    """Where the parameters that are pruned are +0."""
    state = t.state()
    return {name: state[name].view(np.uint32) == 0 for name in pruned(t.plan.program)}


# ------------------------------------------------------------------------- the schedule


def test_the_share_grows_by_a_cubic():
    p = MagnitudePruning(optim.SGD(lr=0.1), 0.8, start=100, end=500, every=50)
    assert [p.share(t) for t in (0, 100, 500, 9999)] == [0, 0, 0.8, 0.8]
    assert p.share(300) == pytest.approx(0.8 * 7 / 8)
    shares = [p.share(t) for t in range(100, 501)]
    assert shares == sorted(shares)
    assert [t for t in range(1, 700) if p.due(t)] == list(range(150, 501, 50))
    odd = MagnitudePruning(optim.SGD(lr=0.1), 0.5, start=0, end=7, every=3)
    assert [t for t in range(20) if odd.due(t)] == [3, 6, 7]


@given(
    x=st.lists(st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.5, -3.0, 1e-45]), min_size=1, max_size=40),
    data=st.data(),
)
def test_the_smallest_and_of_equals_the_first(x, data):
    a = np.float32(x)
    count = data.draw(st.integers(0, len(x)))
    want = np.zeros(a.size, bool)
    want[np.argsort(np.abs(a), kind="stable")[:count]] = True
    np.testing.assert_array_equal(smallest(a, count), want)


# ------------------------------------------------------------------------- a step


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("special", [0.0, -0.0, np.nan, np.inf])
def test_only_positive_zeros_are_pruned(backend, special):
    from tinytrain import run
    from tinytrain.spec import Spec

    g = np.float32([special, special, 2.0, 3.0])
    p = np.float32([0.0, -0.0, 1e-45, np.nan])
    (y,) = run.call("zero_pruned", [g, p], (Spec((4,)),), {}, backend)
    assert y.tobytes() == np.float32([0.0, special, 2.0, 3.0]).tobytes()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["digits_cnn", "resnet8"])
@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("sliced", [False, True])
def test_planned_equals_eager(backend, name, kind, inplace, sliced):
    net, frozen, _ = recorded(name, 2)
    optimizer = MagnitudePruning(OPTIMIZERS[kind](), 0.5, start=0, end=4)
    program = lower(frozen.tape, optimizer, sliced=sliced)
    assert pruned(program)
    for p in net.parameters():
        p.data[np.abs(p.data) < np.median(np.abs(p.data))] = 0
    rng = np.random.default_rng(2)
    values = {}
    for v, leaf in program.leaves.items():
        spec = program.specs[v]
        if leaf.kind in ("parameter", "state", "constant"):
            values[v] = frozen.leaves[v].data
        else:
            values[v] = rng.random(spec.shape).astype(spec.dtype)  # labels and keys: 0
    planned_equals_fresh(program, values, backend, inplace)


@pytest.mark.parametrize(
    "more",
    [{}, {"microbatch": 3}, {"guard": "step", "clip_norm": 0.1}, {"policy": "bitmap"}],
    ids=str,
)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_what_is_pruned_stays_so_and_the_rest_learns(kind, more):
    net = models.build("digits_cnn", seed=3)
    optimizer = MagnitudePruning(OPTIMIZERS[kind](), 0.75, start=1, end=4, every=1)
    t = tt.Trainer(net, optimizer=optimizer, batch=8, backend="numpy", **more)
    x, y = batch_of(net, 8)
    held: dict[str, np.ndarray] = {}
    for step in range(1, 9):
        t.step(x, y)
        now = zeros(t)
        for name, zero in now.items():
            assert zero.sum() == int(optimizer.share(step) * zero.size)
            assert zero[held.get(name, np.zeros_like(zero))].all()
            for other, array in t.state().items():
                if other.startswith(f"optimizer/{name}."):
                    assert not array[zero].any()
        held = now
    names = set(pruned(t.plan.program))
    assert names == {n for n, p in net.named_parameters() if p.ndim > 1}
    rest = {n: v for n, v in t.state().items() if n not in names and n.endswith("bias")}
    assert rest
    assert all(np.count_nonzero(v) for v in rest.values())


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_what_is_not_pruned_is_updated_as_without(kind):
    """From the same sparse weights one step with and without: zeros apart, the same bits."""
    found = []
    for prunes in (True, False):
        net = models.build("digits_cnn", seed=3)
        optimizer = OPTIMIZERS[kind]()
        if prunes:
            optimizer = MagnitudePruning(optimizer, 0.5, start=1000, end=2000)
        t = tt.Trainer(net, optimizer=optimizer, batch=8, backend="numpy")
        where = {n: v for n, v in t.state().items() if v.ndim > 1 and "/" not in n}
        for v in where.values():
            v.reshape(-1)[smallest(v, v.size // 2)] = 0
        zero = {n: v == 0 for n, v in where.items()}
        t.step(*batch_of(net, 8))
        found.append({n: v.copy() for n, v in t.state().items()})
    sparse, dense = found
    for name, v in sparse.items():
        if name in zero:
            assert not v[zero[name]].any()
            assert np.count_nonzero(dense[name][zero[name]])
            v[zero[name]] = dense[name][zero[name]] = 0
        elif "/" in name:
            continue
        assert v.tobytes() == dense[name].tobytes()


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("microbatch", [8, 4])
def test_the_plan_has_no_byte_more(name, kind, microbatch, monkeypatch):
    """Than one in which no gradient is taken piece by piece (which plain SGD alone does)."""
    monkeypatch.setattr("tinytrain.fuse.LEAST", float("inf"))
    plans = []
    for wrap in (lambda o: o, lambda o: MagnitudePruning(o, 0.9, start=0, end=10)):
        net = models.build(name, **SMALL[name])
        optimizer = wrap(OPTIMIZERS[kind]())
        plans.append(tt.plan(net, batch=8, microbatch=microbatch, optimizer=optimizer))
    assert plans[1].arena_bytes == plans[0].arena_bytes
    assert plans[1].persistent_bytes == plans[0].persistent_bytes


# ------------------------------------------------------------------------- what is pruned


class Mixed(nn.Module):
    """A table, a norm, a matrix and a matrix of zeros."""

    def __init__(self):
        self.input_shape = tt.Spec((5,), "int32")
        self.table = nn.Embedding(11, 6)
        self.norm = nn.LayerNorm(6)
        self.dense, self.out = nn.Linear(6, 7), nn.Linear(7, 10)
        self.out.weight.init = nn.init.constant(0.0)

    def forward(self, x):
        return self.out(self.dense(self.norm(self.table(x)).mean(axis=1)).relu())


def test_which_parameters_are_pruned():
    def trainer(**more):
        optimizer = MagnitudePruning(optim.SGD(lr=0.1), 0.5, start=0, end=9, **more)
        return tt.Trainer(Mixed(), optimizer=optimizer, batch=4, backend="numpy")

    with pytest.raises(InputError, match=r"out\.weight is zeros alone"):
        trainer()
    t = trainer(parameters=["dense.weight", "table.weight"])
    assert set(pruned(t.plan.program)) == {"dense.weight", "table.weight"}
    with pytest.raises(InputError, match=r"is called 'dense\.weigth'"):
        trainer(parameters=["dense.weigth"])


@pytest.mark.parametrize(
    "given, what",
    [
        ({"sparsity": 1.0}, "sparsity"),
        ({"sparsity": -0.1}, "sparsity"),
        ({"start": -1}, "start"),
        ({"end": 5}, "end"),
        ({"every": 0}, "every"),
        ({"parameters": "dense.weight"}, "parameters"),
        ({"optimizer": "sgd"}, "optimizer"),
    ],
)
def test_what_cannot_be_is_refused(given, what):
    good = {"optimizer": optim.SGD(lr=0.1), "sparsity": 0.5, "start": 5, "end": 10}
    with pytest.raises(InputError, match=what):
        MagnitudePruning(**{**good, **given})


# ------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_it_goes_on_from_a_checkpoint_bit_for_bit(tmp_path, kind):
    """Saved between two prunings; the other half has its share of them, too."""
    path = str(tmp_path / "net.npz")
    net = models.build("digits_cnn")
    schedule = optim.WarmupLR(optim.CosineLR(0.05, 9), 2)
    optimizer = MagnitudePruning(OPTIMIZERS[kind](), 0.8, start=0, end=8, every=2).with_lr(schedule)
    t = tt.Trainer(net, optimizer=optimizer, batch=8, backend="numpy")
    x, y = batch_of(net, 8)
    for _ in range(3):
        t.step(x, y)
    t.save(path)
    again = tt.Trainer.restore(path, backend="numpy")
    assert repr(again.optimizer) == repr(t.optimizer)
    assert again.optimizer.config() == t.optimizer.config()
    for _ in range(7):
        assert again.step(x, y) == t.step(x, y)
    got, want = again.state(), t.state()
    assert {k: v.tobytes() for k, v in got.items()} == {k: v.tobytes() for k, v in want.items()}
    assert all(z.mean() == pytest.approx(0.8, abs=0.02) for z in zeros(again).values())


def test_a_network_pruned_elsewhere_stays_sparse():
    net = models.build("digits_cnn")
    optimizer = MagnitudePruning(optim.SGD(lr=0.1), 0.1, start=0, end=4, every=1)
    t = tt.Trainer(net, optimizer=optimizer, batch=8, backend="numpy")
    for name in pruned(t.plan.program):
        v = t.state()[name]
        v.reshape(-1)[smallest(v, v.size // 2)] = 0
    before = zeros(t)
    for _ in range(6):
        t.step(*batch_of(net, 8))
    assert all((zeros(t)[name] == before[name]).all() for name in before)
