"""The forms that need the fewest bytes: convolutions over their own input, gates' bits taken in
backward, gates behind pools, updates that never make the gradient. None changes a bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import planned
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_budget import BACKENDS, run_poisoned

from tinytrain import freeze, models, nn, optim, run
from tinytrain.freeze import Recorder, defaults, sample_specs
from tinytrain.lower import Decisions, lower
from tinytrain.op import OPS
from tinytrain.plan import make_plan
from tinytrain.rewrite import gates_behind_pools
from tinytrain.spec import Spec

PRODUCTS = ("conv2d", "matmul")
NETS = {
    "resnet8": {"norm": "group", "input_shape": (8, 8, 3)},
    "ds_cnn": {"input_shape": (12, 6, 1), "channels": 8},
    "vgg6": {"input_shape": (8, 8, 3)},
    "mobilenetv2": {"norm": "group", "input_shape": (16, 16, 3)},
}


def normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


@st.composite
def geometries(draw):
    """A convolution at stride 1 whose rows stay as many and as wide, of any reach and padding."""
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    reach = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
    before = [draw(st.integers(0, r)) for r in reach]
    padding = (before[0], reach[0] - before[0], before[1], reach[1] - before[1])
    channels = draw(st.sampled_from([1, 2, 6, 16]))
    groups = draw(st.sampled_from([1, channels]))
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 6)))
    attrs = {"stride": (1, 1), "padding": padding, "groups": groups, "dilation": dilation}
    return (*shape, channels), (*kernel, channels // groups, channels), attrs


# Rows, then a matrix: sums of one product, of few and of many, and a last vector that is cut.
DENSE = [(7, 100, 300), (3, 5, 2), (64, 1030, 10), (2, 9, 5000), (300, 40, 600), (1, 33, 141)]


def over_itself(op, ins, spec, attrs, backend):
    """What a row's kernel makes over its first input, its scratch full of NaN."""
    specs = [None if a is None else Spec(a.shape) for a in ins]
    work = [np.full(s.shape, np.nan, np.float32) for s in OPS[op].work(specs, [spec], attrs)]
    out = ins[0].copy()
    run.kernel(op, backend)(out, out, *ins[1:], *work, *attrs.values())
    return out


@pytest.mark.parametrize("backend", BACKENDS)
@given(geometry=geometries(), seed=st.integers(0, 9), with_bias=st.booleans())
def test_a_convolution_over_its_own_input_has_the_same_bits(backend, geometry, seed, with_bias):
    (shape, kernel, attrs), rng = geometry, np.random.default_rng(seed)
    x, w, b = normal(rng, *shape), normal(rng, *kernel), normal(rng, shape[3])
    ins = [x, w, b if with_bias else None]
    (want,) = run.call("conv2d", ins, (Spec(shape),), attrs, backend)
    got = over_itself("conv2d_lines", ins, Spec(shape), attrs, backend)
    planned.same_bits(got, want, "conv2d_lines")
    attrs = {"size": shape[1:3], **attrs}
    (want,) = run.call("conv2d_vjp_x", [x, w], (Spec(shape),), attrs, backend)
    got = over_itself("conv2d_vjp_x_lines", [x, w], Spec(shape), attrs, backend)
    planned.same_bits(got, want, "conv2d_vjp_x_lines")


@pytest.mark.parametrize(
    "channels", [40, 64, 72]
)  # turned in panels, the last of them cut; too many
@pytest.mark.parametrize("backend", BACKENDS)
def test_so_it_has_with_many_channels(backend, channels):
    rng, shape = np.random.default_rng(channels), (2, 6, 5, channels)
    g, w = normal(rng, *shape), normal(rng, 3, 3, channels, channels)
    attrs = {"size": shape[1:3], "stride": (1, 1), "padding": (1, 1, 1, 1), "groups": 1}
    attrs["dilation"] = (1, 1)
    (want,) = run.call("conv2d_vjp_x", [g, w], (Spec(shape),), attrs, backend)
    got = over_itself("conv2d_vjp_x_lines", [g, w], Spec(shape), attrs, backend)
    planned.same_bits(got, want, "conv2d_vjp_x_lines")


def test_lines_are_a_small_share_of_what_they_spare():
    plain, scratch = Spec((1, 32, 32, 16)), OPS["conv2d_lines"].work
    at = {"stride": (1, 1), "padding": (1, 1, 1, 1), "groups": 1, "dilation": (1, 1)}
    (lines,) = scratch([plain, Spec((3, 3, 16, 16)), None], [plain], at)
    assert lines.shape == (2, 32, 16)
    (lines,) = scratch([plain, Spec((1, 1, 16, 16)), None], [plain], {**at, "padding": (0,) * 4})
    assert lines.shape[0] <= 2


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("k, m, n", DENSE)
def test_a_dense_update_without_its_gradient_has_the_same_bits(backend, k, m, n):
    rng, lr = np.random.default_rng(0), np.array(0.1, np.float32)
    a, g, p = normal(rng, k, m), normal(rng, k, n), normal(rng, m, n)
    (gradient,) = run.call("matmul_tn", [a, g], (Spec((m, n)),), {"flat": True}, backend)
    (want,) = run.call("sgd", [p, gradient, lr], (Spec((m, n)),), {}, backend)
    got = over_itself("matmul_tn_sgd", [p, a, g, lr], Spec((m, n)), {"flat": True}, backend)
    planned.same_bits(got, want, "matmul_tn_sgd")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize("k, m, n", DENSE)
def test_a_velocity_that_is_passed_over_once_has_the_same_bits(backend, k, m, n, decay):
    rng, lr, flat = np.random.default_rng(0), np.array(0.1, np.float32), {"flat": True}
    a, g, p, v = normal(rng, k, m), normal(rng, k, n), normal(rng, m, n), normal(rng, m, n)
    attrs = {"momentum": 0.9, "weight_decay": decay}
    spec = Spec((m, n))
    (want,) = run.call("decay", [v, p if decay else None], (spec,), attrs, backend)
    run.kernel("matmul_tn", backend)(want, a, g, True, True)
    (moved,) = run.call("sgd", [p, want, lr], (spec,), {}, backend)
    ins = [v, p, a, g, lr]
    apart = run.call("matmul_tn_momentum", ins, (spec, spec), {**attrs, **flat}, backend)
    over = v.copy(), p.copy()
    run.kernel("matmul_tn_momentum", backend)(*over, *over, a, g, lr, 0.9, decay, True)
    for got in (apart, over):
        planned.same_bits(got[0], want, "velocity")
        planned.same_bits(got[1], moved, "weights")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("stride, dilation", [((1, 1), (1, 1)), ((2, 1), (1, 2))])
def test_a_convolutions_update_without_its_gradient_has_the_same_bits(
    backend, groups, stride, dilation
):
    at = {"stride": stride, "padding": (1, 1, 0, 1), "groups": groups, "dilation": dilation}
    updates_alike((2, 9, 8, 6), (3, 2, 6 // groups, 12), at, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_pointwise_update_of_several_blocks_has_the_same_bits(backend):
    """Rows that lie pages apart, and more pixels than a block has: what is begun of a sum must not
    lie where the weights do."""
    at = {"stride": (1, 1), "padding": (0,) * 4, "groups": 1, "dilation": (1, 1)}
    updates_alike((1, 20, 17, 40), (1, 1, 40, 520), at, backend)


def updates_alike(inputs, weights, at, backend):
    """A convolution's update in one step, over its weights, and in two."""
    rng, lr = np.random.default_rng(0), np.array(0.1, np.float32)
    x, p = normal(rng, *inputs), normal(rng, *weights)
    (y,), attrs = OPS["conv2d"].infer((Spec(x.shape), Spec(p.shape), None), at)
    g, attrs = normal(rng, *y.shape), {"kernel": p.shape[:2], **attrs}
    (gradient,) = run.call("conv2d_vjp_w", [x, g], (Spec(p.shape),), attrs, backend)
    (want,) = run.call("sgd", [p, gradient, lr], (Spec(p.shape),), {}, backend)
    got = over_itself("conv2d_vjp_w_sgd", [p, x, g, lr], Spec(p.shape), attrs, backend)
    planned.same_bits(got, want, "conv2d_vjp_w_sgd")


# ------------------------------------------------------------------------- whole steps


def frozen(net, batch=2):
    loss, _ = defaults(net, None, None)
    return Recorder(net, sample_specs(net), loss)(batch)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("again", [False, True], ids=["keep", "recompute"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("name", NETS)
def test_a_lean_step_leaves_the_bits_of_keep(name, momentum, again, backend):
    """Under poison; weights' gradients come first in both, as lean steps have it."""
    step, optimizer = frozen(models.build(name, **NETS[name], seed=0)), optim.SGD(0.1, momentum)
    tape = step.tape
    first = dict.fromkeys(range(len(tape.specs)), True)
    products = frozenset(n.outs[0] for n in tape.nodes if n.op in PRODUCTS)
    rest = [n.outs[0] for n in tape.nodes if n.op not in PRODUCTS and not OPS[n.op].view]
    policies = dict.fromkeys([v for v in rest if v != tape.loss] if again else [], "recompute")
    kept = lower(tape, optimizer, Decisions(policies, first))
    lean = lower(tape, optimizer, Decisions(policies, first, lean=products))
    assert {"conv2d_lines", "conv2d_vjp_x_lines", "gate_mask"} <= {s.op for s in lean.steps}
    assert run_poisoned(step, lean, backend) == run_poisoned(step, kept, backend)


def test_a_convolution_takes_over_the_buffer_of_what_it_reads():
    step = frozen(models.build("resnet8", **NETS["resnet8"]))
    products = frozenset(n.outs[0] for n in step.tape.nodes if n.op in PRODUCTS)
    rest = [n.outs[0] for n in step.tape.nodes if n.op in ("relu", "group_norm")]
    d = Decisions(dict.fromkeys(rest, "recompute"), lean=products)
    plan = make_plan(lower(step.tape, optim.SGD(0.1, momentum=0.9), d), 2)
    lines = [s for s in plan.program.steps if s.op.endswith("_lines")]
    over = [s.op for s in lines if plan.buffer_of[s.outs[0]] == plan.buffer_of[s.ins[0]]]
    assert {"conv2d_lines", "conv2d_vjp_x_lines"} <= set(over)


# ------------------------------------------------------------------------- gates behind pools


class Pooled(nn.Module):
    """Pools over a ReLU, a ReLU6, and over one that something else reads as well."""

    input_shape = (8, 8, 2)

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.third = nn.Conv2d(4, 4, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(4, 10)

    def forward(self, x):
        x = self.pool(self.first(x).relu())
        x = self.pool((self.second(x) * 4).relu6())
        y = self.third(x).relu()
        return self.head((self.pool(y) + self.pool(-y)).mean(axis=(1, 2)))


def test_a_gate_moves_behind_the_pool_that_alone_reads_it(monkeypatch):
    net = Pooled()
    for k, p in enumerate(net.parameters()):
        p.data = normal(np.random.default_rng(k), *p.shape)
    moved = frozen(net, 3)
    with monkeypatch.context() as patch:
        patch.setattr(freeze, "gates_behind_pools", lambda tape: tape)
        plain = frozen(net, 3)
    assert len(plain.tape.nodes) == len(moved.tape.nodes)
    ops = [n.op for n in moved.tape.nodes if n.op in ("relu", "relu6", "max_pool2d")]
    assert ops[:4] == ["max_pool2d", "relu", "max_pool2d", "relu6"]
    assert ops[4:] == ["relu", "max_pool2d", "max_pool2d"]
    assert gates_behind_pools(moved.tape).signature() == moved.tape.signature()
    want, got = (run_poisoned(s, lower(s.tape, optim.SGD(0.1)), "numpy") for s in (plain, moved))
    assert got == want


# ------------------------------------------------------------------------- updates


def steps_of(net, optimizer, **options):
    tape = Recorder(net, sample_specs(net), defaults(net, None, None)[0])(4).tape
    return [s.op for s in lower(tape, optimizer, **options).steps]


def test_a_large_gradient_is_never_made_where_plain_descent_alone_reads_it():
    net = nn.Sequential(nn.Linear(400, 64), nn.ReLU(), nn.Linear(64, 200))
    net.input_shape = (400,)
    assert steps_of(net, optim.SGD(0.1)).count("matmul_tn_sgd") == 2
    assert "matmul_tn_sgd" not in steps_of(net, optim.SGD(0.1, momentum=0.9))
    assert "matmul_tn_sgd" not in steps_of(net, optim.SGD(0.1, weight_decay=0.1))
    assert "matmul_tn_sgd" not in steps_of(net, optim.SGD(0.1), guard="step")
    assert "matmul_tn_sgd" not in steps_of(net, optim.SGD(0.1), clip_norm=1.0)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_large_velocity_is_passed_over_once_where_no_step_comes_between(decay):
    net = nn.Sequential(nn.Linear(400, 64), nn.ReLU(), nn.Linear(64, 200))
    net.input_shape = (400,)
    steps = steps_of(net, optim.SGD(0.1, 0.9, weight_decay=decay))
    assert steps[-1] == "matmul_tn_momentum"  # the other weights are read by the data's gradient
    assert (steps.count("decay"), steps.count("sgd")) == (3, 3)
    nesterov = optim.SGD(0.1, 0.9, nesterov=True, weight_decay=decay)
    for optimizer, more in ((nesterov, {}), (optim.SGD(0.1, 0.9), {"clip_norm": 1.0})):
        assert "matmul_tn_momentum" not in steps_of(net, optimizer, **more)


def test_a_wide_layers_arena_holds_no_gradient():
    net = nn.Linear(20_000, 50)
    net.input_shape, net.loss = (20_000,), "mse"
    tape = Recorder(net, sample_specs(net), defaults(net, None, None)[0])(4).tape
    plan = make_plan(lower(tape, optim.SGD(0.1)), 4)
    weights, data = 4 * 20_000 * 50, 4 * 4 * 20_000
    assert plan.arena_bytes < weights + data + weights // 20
    assert replace(plan).breakdown()["gradients"] < weights // 20
