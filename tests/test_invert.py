"""Reversible networks: streams are had back from what was made of them. The bytes of activations
do not grow with depth, the drift of float32 is bounded, and on a grid there is none."""

from __future__ import annotations

import numpy as np
import pytest
from test_budget import BACKENDS, batch_of, run_poisoned

import tinytrain as tt
from tinytrain import models, nn, ops, optim
from tinytrain.freeze import Recorder, sample_specs
from tinytrain.lower import lower
from tinytrain.solver import Solver


class Branch(nn.Sequential):
    """ReLU, convolution, group norm, ReLU, convolution."""

    def __init__(self, channels: int):
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(2, channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )


class Reversible(nn.Module):
    """RevNet's coupling; with `bits`, streams and branches lie on the grid of 2^-bits."""

    def __init__(
        self,
        depth: int,
        channels: int = 4,
        bits: int | None = None,
        seed: int = 0,
        in_channels: int = 3,
    ):
        self.input_shape = (8, 8, in_channels)
        with nn.seeded(seed):
            self.stem = nn.Conv2d(in_channels, 2 * channels, 3, padding=1)
            self.branches = [Branch(channels) for _ in range(2 * depth)]
            self.head = nn.Linear(2 * channels, 10)
        self.bits = bits

    def snap(self, x):
        return x if self.bits is None else ops.snap(x, bits=self.bits)

    def forward(self, x):
        a, b = ops.split(self.snap(self.stem(x)), 2)
        for f, g in zip(self.branches[::2], self.branches[1::2], strict=True):
            a = a + self.snap(f(b))
            b = b + self.snap(g(a))
        return self.head(ops.global_avg_pool(ops.concat([a, b], axis=3).relu()))


class Strided(nn.Module):
    """i-RevNet's block (x1, x2) -> (psi(x2), psi(x1) + F(x2)) with psi space-to-depth, behind
    zero-channel padding."""

    input_shape = (8, 8, 3)

    def __init__(self):
        with nn.seeded(2):
            self.first = nn.Conv2d(4, 4, 3, padding=1)
            self.down = nn.Conv2d(4, 16, 3, 2, padding=1)
            self.last = nn.Conv2d(16, 16, 3, padding=1)
            self.head = nn.Linear(32, 10)

    def forward(self, x):
        a, b = ops.split(ops.pad(x, ((0, 0), (0, 0), (0, 0), (0, 5))), 2)
        a, b = b, a + self.first(b)
        a, b = ops.space_to_depth(b), ops.space_to_depth(a) + self.down(b.relu())
        a, b = b, a + self.last(b.relu())
        return self.head(ops.global_avg_pool(ops.concat([a, b], axis=3).relu()))


def plan_of(net, policy, **more):
    return tt.plan(net, batch=4, optimizer="momentum", policy=policy, microbatch=4, **more)


def test_the_bytes_are_flat_in_depth():
    rest = []
    for depth in (3, 6, 12):
        plan = plan_of(Reversible(depth), "invert")
        assert plan.policies["invert"] == 2 * depth
        assert plan.extra_macs_ratio < 0.36
        rest.append(plan.breakdown()["activations"] + plan.breakdown()["gradients"])
        plan.check()
    assert max(rest) <= 1.01 * min(rest)
    keep = plan_of(Reversible(12), "keep")
    assert keep.arena_bytes - keep.persistent_bytes > 5 * rest[-1]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", [lambda: Reversible(8), Strided], ids=["revnet", "irevnet"])
def test_training_is_keeps_within_the_drift(make, backend):
    found = []
    for policy in ("keep", "invert"):
        net = make()
        t = tt.Trainer(net, optimizer="momentum", batch=4, policy=policy, backend=backend)
        x, y = batch_of(net, 4)
        found.append([t.step(x, y) for _ in range(5)])
        assert t.high_water_bytes == t.plan.arena_bytes
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)


@pytest.mark.parametrize("depth", [2, 8, 32])
def test_the_drift_grows_slowly_with_depth(depth):
    """Of the gradients, relative to the largest of each parameter."""
    net = Reversible(depth)
    tape = Recorder(net, sample_specs(net), tt.losses.cross_entropy)(2)
    optimizer = optim.SGD(lr=0.1, momentum=0.9)
    solver = Solver(tape.tape, lambda d: lower(tape.tape, optimizer, d))
    keep, back = (
        run_poisoned(tape, solver.lower(solver.start(policy)), "numpy")
        for policy in ("keep", "invert")
    )
    worst = 0.0
    for name in keep:
        if name.endswith("momentum"):
            a, b = np.frombuffer(keep[name], np.float32), np.frombuffer(back[name], np.float32)
            worst = max(worst, float(np.abs(a - b).max() / (np.abs(a).max() + 1e-6)))
    assert worst < 1e-4 * depth


@pytest.mark.parametrize("backend", BACKENDS)
def test_on_a_grid_what_comes_back_has_the_same_bits(backend):
    net = Reversible(6, bits=12)
    frozen = Recorder(net, sample_specs(net), tt.losses.cross_entropy)(2)
    optimizer = optim.SGD(lr=0.1, momentum=0.9)
    solver = Solver(frozen.tape, lambda d: lower(frozen.tape, optimizer, d))
    keep = run_poisoned(frozen, solver.lower(solver.start("keep")), backend)
    assert run_poisoned(frozen, solver.lower(solver.start("invert")), backend) == keep


def test_on_a_grid_depth_200_comes_back_bit_for_bit():
    """The arithmetic alone: adds and subtracts of float32 on the grid round nothing."""
    rng = np.random.default_rng(0)
    a, b = (ops.snap(rng.standard_normal((2, 5, 5, 4)).astype(np.float32)) for _ in range(2))
    first, branches = (a.data, b.data), rng.standard_normal((200, 4, 4)).astype(np.float32) / 8
    for w in branches:
        a, b = b, a + ops.snap((b @ tt.Tensor(w)).tanh())
    for w in branches[::-1]:
        a, b = b - ops.snap((a @ tt.Tensor(w)).tanh()), a
    assert (a.data == first[0]).all()
    assert (b.data == first[1]).all()


def test_the_gradient_passes_straight_through_the_grid():
    x = tt.Tensor(np.float32([0.3, -1.26, 5.0]), requires_grad=True)
    y = ops.snap(x, bits=2)
    np.testing.assert_array_equal(y.data, np.float32([0.25, -1.25, 5.0]))
    (y * tt.Tensor(np.float32([1, 2, 3]))).sum().backward()
    np.testing.assert_array_equal(x.grad, [1, 2, 3])


def test_a_plain_network_cannot_be_inverted():
    with pytest.raises(tt.InputError, match="nothing in this network can be inverted") as caught:
        tt.plan(models.build("lenet5"), policy="invert")
    assert "layer 0 (conv2d)" in str(caught.value)

    class Named(nn.Module):
        input_shape = (4,)

        def __init__(self):
            self.stem = nn.Linear(4, 3)

        def forward(self, x):
            return self.stem(x)

    with pytest.raises(tt.InputError, match=r"layer stem \(matmul\)"):
        tt.plan(Named(), policy="invert")


def test_the_solver_mixes_inversion_with_what_is_cheaper():
    net = Reversible(6)
    keep, back = plan_of(net, "keep"), plan_of(net, "invert")
    ram = (keep.arena_bytes + 3 * back.arena_bytes) // 4
    plan = plan_of(net, "auto", ram=ram)
    assert plan.fits
    assert plan.extra_macs_ratio <= back.extra_macs_ratio
