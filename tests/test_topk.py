"""Policy topk: weight gradients are those of values with their largest elements alone, all else is
exact, sizes are static, and small networks learn so."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from test_bitmap import called, sparse
from test_budget import BACKENDS, SMALL, batch_of, recorded, run_poisoned

import tinytrain as tt
from tinytrain import models, nn, optim
from tinytrain.data.embedded import digits
from tinytrain.errors import BudgetError, InputError
from tinytrain.lower import Decisions, lower
from tinytrain.solver import Solver


def largest(x: np.ndarray, k: int) -> np.ndarray:
    """x with all but its k largest magnitudes zero, by a stable sort: of equals the first."""
    order = np.argsort(-np.abs(x.reshape(-1)).astype(np.float64), kind="stable")
    kept = np.zeros(x.size, x.dtype)
    kept[order[:k]] = x.reshape(-1)[order[:k]]
    return kept.reshape(x.shape)


# ------------------------------------------------------------------------- the kernel


@pytest.mark.parametrize("backend", BACKENDS)
@given(x=sparse(), data=st.data())
def test_the_largest_are_kept_and_of_equals_the_first(backend, x, data):
    x = np.nan_to_num(x, nan=3.0)
    x = x[x != 0] if data.draw(st.booleans()) else np.round(np.clip(x, -3, 3)) + np.float32(0)
    if not x.size:
        return
    k = data.draw(st.integers(1, x.size))
    mask, values = called("topk_pack", backend, x, k=k)
    (y,) = called("bitmap_unpack", backend, mask, values, shape=x.shape)
    np.testing.assert_array_equal(y, largest(x, k))
    assert values.shape == (k,)


@pytest.mark.parametrize("backend", BACKENDS)
@given(x=sparse())
def test_all_elements_are_all_bits(backend, x):
    if x.size:
        mask, values = called("topk_pack", backend, x, k=x.size)
        (y,) = called("bitmap_unpack", backend, mask, values, shape=x.shape)
        assert y.tobytes() == x.tobytes()


# ------------------------------------------------------------------------- a step


def forced(frozen, optimizer, share: float):
    """The program of a step under topk, and what it decides."""
    tape = frozen.tape
    shares = {n.outs[0]: share for n in tape.nodes}
    start = Solver(tape, lambda d: lower(tape, optimizer, d)).start("topk")
    decisions = Decisions(start.policies, masks=start.masks, densities=shares)
    return lower(tape, optimizer, decisions), decisions


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SMALL)
def test_all_elements_give_the_bits_of_keep(name, backend):
    _, frozen, optimizer = recorded(name, 2)
    want = run_poisoned(frozen, lower(frozen.tape, optimizer), backend)
    program, _ = forced(frozen, optimizer, 1.0)
    assert any(s.op == "topk_pack" for s in program.steps)
    assert run_poisoned(frozen, program, backend) == want


class Two(nn.Module):
    """Two convolutions and a dense layer, every value of which can be computed by hand."""

    def __init__(self):
        self.input_shape = (6, 6, 2)
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 3, 3)
        self.dense = nn.Linear(48, 10)

    def forward(self, x):
        h = self.first(x).relu()
        z = self.second(h).relu()
        return self.dense(z.reshape(x.shape[0], 48))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("share", [0.05, 0.3])
def test_weight_gradients_are_those_of_the_sparsified_values(backend, share):
    """Data gradients, and with them the first layer's weights and all biases, are exact."""
    with nn.seeded(4):
        net = Two()
    x, y = batch_of(net, 3)
    before = {k: p.data.copy() for k, p in net.named_parameters()}
    with tt.backend(backend):
        a = tt.Tensor(x)
        h = net.first(a).relu()
        z = net.second(h).relu()
        out = net.dense(z.reshape(3, 48))
        loss = tt.losses.cross_entropy(out, y)
        loss.backward()
        exact = {k: p.grad.copy() for k, p in net.named_parameters()}
    held = {
        "dense.weight": largest(z.data, int(np.ceil(share * z.size))).reshape(3, 48),
        "second.weight": largest(h.data, int(np.ceil(share * h.size))),
    }
    t = tt.Trainer(
        net, optimizer=optim.SGD(lr=1.0), batch=3, policy="topk", density=share, backend=backend
    )
    t.step(x, y)
    got = {k: before[k] - p.data for k, p in net.named_parameters()}
    dlogits = np.exp(out.data) / np.exp(out.data).sum(1, keepdims=True)
    dlogits[np.arange(3), y] -= 1
    dlogits /= 3
    want = dict(exact)
    want["dense.weight"] = held["dense.weight"].T @ dlogits
    dz = (dlogits @ before["dense.weight"].T).reshape(z.shape) * (z.data > 0)
    want["second.weight"] = np.zeros_like(exact["second.weight"])
    for i in range(3):
        for j in range(3):
            part = held["second.weight"][:, i : i + 4, j : j + 4]
            want["second.weight"][i, j] = np.einsum("nhwc,nhwo->co", part, dz)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-3, atol=2e-6, err_msg=name)
    for name in held:
        assert np.abs(got[name] - exact[name]).max() > 1e-3


def test_statistics_stay_exact():
    """What a norm reads is kept whole; so are both operands of an attention's product."""
    net = models.build("resnet8", input_shape=(8, 8, 3))
    plan = tt.plan(net, batch=2, policy="topk")
    packed = {s.ins[0] for s in plan.program.steps if s.op == "topk_pack"}
    norms = {n.ins[0] for n in plan.program.tape.nodes if n.op == "batch_norm"}
    assert packed
    assert not packed & norms

    class Product(nn.Module):
        def __init__(self):
            self.input_shape = (4, 6)
            self.a, self.b = nn.Linear(6, 5), nn.Linear(6, 5)

        def forward(self, x):
            a, b = self.a(x).relu(), self.b(x).relu()
            return (a @ b.transpose(0, 2, 1)).sum(axis=2)

    with pytest.raises(InputError, match="topk"):
        tt.plan(Product(), batch=2, policy="topk")


# ------------------------------------------------------------------------- the plan


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_bytes_are_as_planned(share):
    net = models.build("vgg6", input_shape=(16, 16, 3))
    keep = tt.plan(net, batch=8, policy="keep")
    plan = tt.plan(net, batch=8, policy="topk", density=share)
    packs = [s for s in plan.program.steps if s.op == "topk_pack"]
    specs = plan.program.specs
    for s in packs:
        size = specs[s.ins[0]].size
        assert [specs[v].nbytes for v in s.outs] == [-(-size // 8), 4 * -(-size * share // 1)]
    assert plan.policies["topk"] == len(packs) == 7
    assert plan.guaranteed is None
    assert plan.arena_bytes < keep.arena_bytes


def test_the_plan_says_that_gradients_are_approximate():
    net = models.build("lenet5")
    plan = tt.plan(net, batch=8, policy="topk", density=0.2)
    assert plan.approximate
    assert "approximate weight gradients (policy topk): they read the largest 20" in str(plan)
    other = tt.plan(net, batch=8, policy="bitmap", density=0.2)
    assert not other.approximate
    assert "approximate" not in str(other)


def test_the_solver_never_chooses_it():
    net = models.build("resnet8", input_shape=(16, 16, 3))
    keep = tt.plan(net, batch=8, policy="keep")
    plan = tt.plan(net, batch=8, ram=int(0.7 * keep.arena_bytes), density=0.1)
    assert not plan.approximate
    with pytest.raises(BudgetError):
        tt.plan(net, batch=8, ram=plan.persistent_bytes + 1000, policy="topk")


def test_one_share_for_all():
    t = tt.Trainer(models.build("digits_cnn"), batch=4, policy="topk", backend="numpy")
    with pytest.raises(InputError, match="topk"):
        t.calibrate(batch_of(t.net, 4)[0])
    with pytest.raises(InputError, match="topk"):
        tt.plan(t.net, batch=4, policy="topk", density={3: 0.2})


# ------------------------------------------------------------------------- training


@pytest.mark.parametrize("name, zoom, epochs", [("digits_cnn", 1, 8), ("lenet5", 2, 16)])
def test_a_tenth_is_enough_to_learn_from(name, zoom, epochs):
    """At least 92 % on the test part of the embedded digits; LeNet-5 sees each pixel as 2 x 2."""
    (train, test), net = digits(), models.build(name, input_shape=(8 * zoom, 8 * zoom, 1), seed=0)
    x, held = (d.x.repeat(zoom, 1).repeat(zoom, 2) for d in (train, test))
    t = tt.Trainer(net, optimizer="momentum", batch=32, policy="topk", density=0.1)
    t.fit(x, train.y, epochs=epochs)
    assert t.evaluate(held, test.y)["accuracy"] >= 0.92
    assert t.high_water_bytes <= t.plan.arena_bytes


def test_it_goes_on_from_a_checkpoint(tmp_path):
    net = models.build("digits_cnn")
    t = tt.Trainer(net, optimizer="momentum", batch=8, policy="topk", density=0.3, backend="numpy")
    x, y = batch_of(net, 8)
    t.step(x, y)
    t.save(str(tmp_path / "net.npz"))
    again = tt.Trainer.restore(str(tmp_path / "net.npz"), backend="numpy")
    assert again.plan.dump() == t.plan.dump()
    assert [again.step(x, y), again.step(x[:5], y[:5])] == [t.step(x, y), t.step(x[:5], y[:5])]
