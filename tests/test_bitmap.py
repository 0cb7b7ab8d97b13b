"""Bitmaps give back the bits that were packed, weight gradients read them a few rows at a time, a
step under them trains as under keep, and a slice with more non-zeros than was planned is run again,
with nothing lost."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from test_budget import BACKENDS, SMALL, batch_of, recorded, run_poisoned

import tinytrain as tt
from tinytrain import models, nn, run
from tinytrain.bound import densities
from tinytrain.candidates import sparse_values
from tinytrain.errors import CapacityError, InputError
from tinytrain.lower import Decisions, lower
from tinytrain.op import OPS
from tinytrain.ops.bitmap import WINDOW
from tinytrain.rewrite import GATES
from tinytrain.spec import Spec
from tinytrain.stash import bitmap

ROOMY = 0.96  # no value of these networks has more, so that no capacity overflows
SPECIAL = np.float32([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, -1.5, 6.0, 7.0])


def called(op: str, backend: str, *ins: np.ndarray, **attrs):
    """The outputs of one row."""
    specs = tuple(Spec(a.shape, str(a.dtype)) for a in ins)
    outs, attrs = OPS[op].infer(specs, attrs)
    return run.call(op, list(ins), outs, attrs, backend)


@st.composite
def sparse(draw) -> np.ndarray:
    """Any bits at all, mostly +0, of any size."""
    shape = tuple(draw(st.lists(st.integers(0, 7), min_size=0, max_size=3)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bits = rng.integers(0, 2**32, shape, dtype=np.uint32)
    x = np.where(rng.random(shape) < 0.3, rng.choice(SPECIAL, shape), bits.view(np.float32))
    zero = rng.random(shape) < draw(st.sampled_from([0.0, 0.5, 0.9, 1.0]))
    return np.asarray(np.where(zero, np.float32(0), x), np.float32)


# ------------------------------------------------------------------------- the kernels


@pytest.mark.parametrize("backend", BACKENDS)
@given(x=sparse())
def test_what_is_unpacked_has_the_bits_of_what_was_packed(backend, x):
    mask, values, count = called("bitmap_pack", backend, x, capacity=max(x.size, 1))
    (y,) = called("bitmap_unpack", backend, mask, values, shape=x.shape)
    assert y.tobytes() == x.tobytes()
    bits = np.frombuffer(x.tobytes(), np.uint32)
    assert count == np.count_nonzero(bits)
    assert mask.tobytes() == np.packbits(bits != 0, bitorder="little").tobytes()


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_positive_zero_is_dropped(backend):
    _, values, count = called("bitmap_pack", backend, SPECIAL, capacity=9)
    assert count == 8
    assert values[:8].tobytes() == SPECIAL[1:].tobytes()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("fill", [0.0, 1.0])
@pytest.mark.parametrize("size", [1, 7, 8, 9, 64, 1003])
def test_all_or_nothing(backend, fill, size):
    x = np.full(size, fill, np.float32)
    mask, values, count = called("bitmap_pack", backend, x, capacity=size)
    assert count == fill * size
    (y,) = called("bitmap_unpack", backend, mask, values, shape=(size,))
    assert y.tobytes() == x.tobytes()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("capacity", [1, 5, 19])
def test_an_overflow_writes_nothing_beyond_the_capacity(backend, capacity):
    x = np.arange(1, 21, dtype=np.float32)
    held = np.full(24, 77, np.float32)
    mask, count = np.zeros(3, np.uint8), np.zeros((), np.uint32)
    run.kernel("bitmap_pack", backend)(mask, held[:capacity], count, x, capacity)
    assert count == 20 > capacity
    assert (held[capacity:] == 77).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("gate", GATES)
@given(y=sparse())
def test_a_gate_reads_packed_values_as_dense_ones(backend, gate, y):
    g = np.random.default_rng(y.size).standard_normal(y.shape).astype(np.float32)
    mask, values, _ = called("bitmap_pack", backend, y, capacity=max(y.size, 1))
    (got,) = called("bitmap_gate_vjp", backend, g, mask, values, gate=gate)
    (want,) = called(f"{gate}_vjp", backend, g, y)
    assert got.tobytes() == want.tobytes()


@st.composite
def convolutions(draw):
    """A sparse image batch, the gradient of a convolution's output, and the attrs of the latter."""
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 3)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 2)))
    padding = tuple(draw(st.integers(0, 3)) for _ in range(4))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    groups, depth = draw(st.sampled_from([(1, 1), (1, 5), (2, 3), (4, 1)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    wide = draw(st.sampled_from([1, 1, 300]))  # so that only a few rows are dense at a time
    sizes = [
        (k - 1) * d + 1 + draw(st.integers(0, 9)) for k, d in zip(kernel, dilation, strict=True)
    ]
    shape = (draw(st.integers(1, 3)), sizes[0], sizes[1] * wide, groups * depth)
    x = rng.standard_normal(shape).astype(np.float32)
    x[rng.random(shape) < draw(st.sampled_from([0.0, 0.5, 0.9]))] = 0
    attrs = {"stride": stride, "padding": padding, "groups": groups, "dilation": dilation}
    w = Spec((*kernel, depth, groups * draw(st.sampled_from([1, 3]))))
    (y,), attrs = OPS["conv2d"].infer((Spec(shape), w, None), attrs)
    return x, rng.standard_normal(y.shape).astype(np.float32), {"kernel": kernel, **attrs}


@pytest.mark.parametrize("backend", BACKENDS)
@given(case=convolutions(), acc=st.booleans())
def test_a_convolution_s_weight_gradient_reads_packed_rows(backend, case, acc):
    x, g, attrs = case
    mask, values, _ = called("bitmap_pack", backend, x, capacity=max(np.count_nonzero(x), 1))
    ins = [Spec(a.shape, str(a.dtype)) for a in (mask, values, g)]
    packed = {"shape": x.shape, **attrs}
    (dw,), packed = OPS["bitmap_conv2d_vjp_w"].infer(tuple(ins), packed)
    (work,) = OPS["bitmap_conv2d_vjp_w"].work(ins, [dw], packed)
    assert work.shape[0] <= x.shape[1]
    want = np.random.default_rng(1).standard_normal(dw.shape).astype(np.float32)
    got, rows = want.copy(), np.full(work.shape, np.nan, np.float32)
    run.kernel("conv2d_vjp_w", backend)(want, x, g, *attrs.values(), acc)
    kernel = run.kernel("bitmap_conv2d_vjp_w", backend)
    kernel(got, mask, values, g, rows, *packed.values(), acc)
    assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("acc", [False, True])
@pytest.mark.parametrize("shape, n", [((5, 7), 3), ((700, 33), 20), ((2, 9, 6), 4), ((3, 5000), 2)])
def test_a_matrix_s_weight_gradient_reads_packed_rows(backend, shape, n, acc):
    rng = np.random.default_rng(n)
    x = rng.standard_normal(shape).astype(np.float32)
    x[rng.random(shape) < 0.6] = 0
    g = rng.standard_normal((*shape[:-1], n)).astype(np.float32)
    mask, values, _ = called("bitmap_pack", backend, x, capacity=x.size)
    ins = [Spec(a.shape, str(a.dtype)) for a in (mask, values, g)]
    (dw,), attrs = OPS["bitmap_matmul_tn"].infer(tuple(ins), {"shape": shape, "flat": True})
    (work,) = OPS["bitmap_matmul_tn"].work(ins, [dw], attrs)
    assert work.size <= max(shape[-1], WINDOW // 4)
    want = rng.standard_normal(dw.shape).astype(np.float32)
    got, rows = want.copy(), np.full(work.shape, np.nan, np.float32)
    run.kernel("matmul_tn", backend)(want, x, g, True, acc)
    kernel = run.kernel("bitmap_matmul_tn", backend)
    kernel(got, mask, values, g, rows, *attrs.values(), acc)
    assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize("name, options", [("vgg6", {"input_shape": (16, 16, 3)}), ("lenet5", {})])
def test_weight_gradients_unpack_no_value_but_small_ones(name, options):
    """None with momentum, which they are added to; plain SGD wants no gradient that is larger than
    its input to be whole."""
    net = models.build(name, **options)
    for optimizer in ("momentum", "sgd"):
        plan = tt.plan(net, batch=8, policy="bitmap", density=0.5, optimizer=optimizer)
        steps, specs = plan.program.steps, plan.program.specs
        packed = any(s.op in ("bitmap_conv2d_vjp_w", "bitmap_matmul_tn") for s in steps)
        assert packed or (name, optimizer) == ("lenet5", "sgd")
        dense = {s.outs[0] for s in steps if s.op == "bitmap_unpack"}
        readers = [s for s in steps if dense & {plan.program.root(v) for v in s.reads()}]
        assert bool(dense) == (optimizer == "sgd")
        for s in readers:
            assert s.op in ("matmul_tn_sgd", "conv2d_vjp_w_sgd", "matmul_tn")
            weight = specs[s.outs[0]]
            assert weight.nbytes > min(specs[v].nbytes for v in s.ins if specs[v].ndim > 1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_first_count_above_its_capacity_is_told(backend):
    counts = [np.uint32(n).reshape(()) for n in (3, 9, 9)]
    for capacities, flag in (((3, 9, 9), 0), ((3, 8, 8), 2), ((2, 9, 9), 1)):
        assert called("check_capacity", backend, *counts, capacities=capacities)[0] == flag


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("size", [1, 3, 4, 5, 64, 1003])
def test_an_index_comes_back_from_its_bits(backend, bits, size):
    index = np.random.default_rng(size).integers(0, 1 << bits, (1, size), np.uint8)
    (packed,) = called("index_pack", backend, index, bits=bits)
    assert packed.nbytes == -(-size * bits // 8)
    (again,) = called("index_unpack", backend, packed, shape=index.shape, bits=bits)
    assert again.tobytes() == index.tobytes()


@pytest.mark.parametrize("window, bits", [(2, 2), (3, 4), (4, 4), (5, 8)])
def test_the_index_of_a_max_pool_is_kept_in_as_many_bits_as_its_window_needs(window, bits):
    """Of a window too large for half a byte, whole."""
    with nn.seeded(0):
        net = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(window), nn.Flatten(), nn.Linear(144, 3)
        )
    net.input_shape = (6 * window, 6 * window, 3)
    plan = tt.plan(net, batch=2, policy="bitmap", density=0.5)
    border = plan.program.marks[0][0]
    held = [b for b in plan.buffers if b.first < border < b.end]
    specs = plan.program.specs
    (index,) = [v for n in plan.program.tape.nodes if n.op == "max_pool2d" for v in n.outs[1:]]
    packed = [v for v, of in plan.program.stands_for.items() if of == index] or [index]
    kept = [b for b in held if any(v == packed[0] for _, v in b.values)]
    assert [specs[packed[0]].nbytes, len(kept)] == [2 * 6 * 6 * 4 * bits // 8, 1]
    assert plan.policies["bitmap"] == (bits < 8)


# ------------------------------------------------------------------------- capacities


def test_room_and_what_pays():
    assert bitmap.room(7, 0.5, 0.0) == 4  # half an element is one
    assert bitmap.room(1000, 0.5, margin=0) == 500
    assert bitmap.room(1000, 0.5) == 1000 * (0.5 + bitmap.MARGIN)
    assert bitmap.room(1000, 0.99) == 1000
    even = 1 - 1 / 32 - bitmap.MARGIN
    assert bitmap.pays(Spec((32000,)), even - 0.01)
    assert not bitmap.pays(Spec((32000,)), even + 0.001)
    assert not bitmap.pays(Spec((1,)), 0.1)
    assert not bitmap.pays(Spec((32000,), "uint8"), 0.1)


def test_what_does_not_pay_stays_dense():
    net = models.build("resnet8", input_shape=(8, 8, 3))
    plan = tt.plan(net, batch=4, policy="bitmap", density=0.95)
    assert not any(s.op == "bitmap_pack" for s in plan.program.steps)
    assert plan.guaranteed is None


@pytest.mark.parametrize("density", [0.3, 0.5])
def test_the_figures_of_a_plan(density):
    net = models.build("resnet8", input_shape=(16, 16, 3))
    keep = tt.plan(net, batch=4, policy="keep")
    plan = tt.plan(net, batch=4, policy="bitmap", density=density)
    table = plan.bitmap_bytes()
    packs = [s for s in plan.program.steps if s.op == "bitmap_pack"]
    dense = sum(plan.program.specs[s.ins[0]].nbytes for s in packs)
    gates = [s for s in plan.program.steps if s.op == "gate_mask"]
    assert table["dense"] == dense + sum(plan.program.specs[s.ins[0]].nbytes for s in gates)
    assert dense > 0
    assert table["nominal"] == pytest.approx(density * dense, rel=0.01)
    assert table["margin"] == pytest.approx(bitmap.MARGIN * dense, rel=0.01)
    held = sum(plan.program.specs[v].nbytes for s in packs for v in s.outs)
    bits = sum(plan.program.specs[s.outs[0]].nbytes for s in gates)
    assert table["masks"] + table["nominal"] + table["margin"] == held + bits
    assert plan.policies["bitmap"] == len(packs) + len(gates)
    assert plan.arena_bytes < keep.arena_bytes
    assert sum(plan.breakdown().values()) == plan.arena_bytes
    assert plan.breakdown()["stash"] > 0


@pytest.mark.parametrize("density", [-0.1, 1.5, "half", float("nan"), True])
def test_a_density_is_a_share(density):
    with pytest.raises(InputError, match="density"):
        tt.plan(models.build("digits_cnn"), density=density)


class Both(tt.nn.Module):
    """A ReLU whose output is read as it is, and pooled."""

    input_shape = (16, 16, 1)

    def __init__(self):
        with tt.nn.seeded(0):
            self.conv = tt.nn.Conv2d(1, 8, 3, padding=1)
            self.pool = tt.nn.MaxPool2d(2)
            self.dense = tt.nn.Linear(8 * 256, 10)
            self.pooled = tt.nn.Linear(8 * 64, 10)

    def forward(self, x):
        y = self.conv(x).relu()
        return self.dense(y.reshape((y.shape[0], -1))) + self.pooled(
            self.pool(y).reshape((y.shape[0], -1))
        )


@pytest.mark.parametrize("name", ["both", "vgg6"])
def test_where_no_density_is_given_pools_are_thought_denser_than_relu(name):
    """A window's maximum is zero when all its elements are, were they independent, whether ReLU
    runs before the pool or behind it. A density that is given holds for all."""
    net = Both() if name == "both" else models.build("vgg6", input_shape=(16, 16, 3))
    given = tt.plan(net, batch=2, policy="bitmap", density=0.3).decisions.densities
    assert set(given.values()) == {0.3}
    plan = tt.plan(net, batch=2, policy="bitmap")
    steps = plan.program.steps
    maker = {v: s for s in steps for v in s.writes()}
    assert plan.decisions.densities
    for v, share in plan.decisions.densities.items():
        ops = {maker[v].op, maker[maker[v].ins[0]].op if maker[v].ins[0] in maker else ""}
        assert share == pytest.approx(1 - 0.5**4 if "max_pool2d" in ops else 0.5)
    assert len(set(plan.decisions.densities.values())) == 2
    for s in (s for s in steps if s.op == "bitmap_pack"):
        size = plan.program.specs[s.ins[0]].size
        assert s.attrs["capacity"] == bitmap.room(size, plan.decisions.densities[s.ins[0]])


def test_pooled_values_do_not_overflow_where_relu_is_as_dense_as_was_guessed():
    net = Both()
    t = tt.Trainer(net, batch=8, policy="bitmap", backend="numpy")
    net.conv.bias.data[...] = -0.2
    x = np.random.default_rng(1).standard_normal((8, *net.input_shape)).astype(np.float32)
    packs = [s for s in t.plan.program.steps if s.op == "bitmap_pack"]
    assert [t.plan.name(s.ins[0]).split()[0] for s in packs] == ["relu"]  # the pool would not pay
    shares = densities(t._record(8), (x,), "numpy")
    relu = packs[0].ins[0]
    (pool,) = set(t.plan.decisions.densities) - {relu}
    assert shares[relu] < 0.5 + bitmap.MARGIN < shares[pool]
    t.step(x, np.arange(8))
    assert t.overflows == 0


# ------------------------------------------------------------------------- a step's bits


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SMALL)
def test_packed_values_give_the_bits_of_keep(name, backend):
    """Alone, and with random recomputation, masks and kept values; every dead byte is 0xFF."""
    _, frozen, optimizer = recorded(name, 2)
    tape = frozen.tape
    want = run_poisoned(frozen, lower(tape, optimizer), backend)
    values = sparse_values(tape)
    rng = np.random.default_rng(5)
    for k in range(3):
        policies = dict.fromkeys(values, "bitmap")
        masks: frozenset[int] = frozenset()
        if k:
            for v in (v for n in tape.nodes for v in n.outs if v != tape.loss):
                kinds = ["keep", "recompute", "recompute_near", "recompute_each"] + ["bitmap"] * (
                    v in values
                )
                policies[v] = str(rng.choice(kinds))
            gates = (n.outs[0] for n in tape.nodes if n.op in GATES)
            masks = frozenset(v for v in gates if rng.random() < 0.3)
        decisions = Decisions(policies, masks=masks, densities=dict.fromkeys(values, 0.9))
        program = lower(tape, optimizer, decisions)
        ops = {s.op for s in program.steps}
        assert k or ops & {"bitmap_conv2d_vjp_w", "bitmap_matmul_tn"}
        assert run_poisoned(frozen, program, backend) == want


def test_a_gate_with_a_mask_does_not_bring_its_value_back():
    """Where no weights read the value, its gradient reads one bit an element, and it is free
    behind forward."""
    _, frozen, optimizer = recorded("lenet5", 2)
    tape = frozen.tape
    pooled = {n.ins[0] for n in tape.nodes if n.op == "avg_pool2d"}
    pooled &= {n.outs[0] for n in tape.nodes if n.op in GATES}
    policies = dict.fromkeys(pooled, "recompute")
    plain, masked = (
        [s.op for s in lower(tape, optimizer, Decisions(policies, masks=frozenset(masks))).steps]
        for masks in ((), pooled)
    )
    assert masked.count("gate_mask") == masked.count("gate_mask_vjp") == len(pooled) == 2
    assert plain.count("relu") - masked.count("relu") == 2  # those that run again


def losses_of(t: tt.Trainer, batch: int) -> tuple[list[float], dict[str, bytes]]:
    """A few steps, one of them on fewer samples, and all that persists after them."""
    x, y = batch_of(t.net, batch)
    losses = [t.step(x, y) for _ in range(3)] + [t.step(x[:5], y[:5])]
    return losses, {k: v.tobytes() for k, v in t.state().items()}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("microbatch", [8, 3])
@pytest.mark.parametrize(
    "name, options",
    [
        ("digits_cnn", {}),
        ("vgg6", {"input_shape": (8, 8, 3)}),
        ("resnet8", {"norm": "group", "input_shape": (8, 8, 3)}),
    ],
)
@pytest.mark.parametrize("density", [0.85, 0.02])
def test_an_overflow_loses_nothing(name, options, microbatch, backend, density):
    """The loss curve and every weight are keep's, bit for bit, whether all slices overflow or
    hardly any."""
    found = []
    for policy, share in (("keep", None), ("bitmap", density)):
        net = models.build(name, **options)
        t = tt.Trainer(
            net,
            optimizer="momentum",
            batch=8,
            microbatch=microbatch,
            policy=policy,
            density=share,
            backend=backend,
        )
        found.append(losses_of(t, 8))
        assert t.high_water_bytes <= t.plan.arena_bytes
    assert found[1] == found[0]
    slices = 4 if microbatch == 8 else 3 * 3 + 2
    assert (t.overflows == slices) if density < 0.1 else (t.overflows < slices)


@pytest.mark.parametrize("guard", ["loss", "step", None])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_an_overflow_is_found_under_every_guard(guard, clip):
    found = []
    for density in (None, 0.02):
        net = models.build("resnet8", input_shape=(8, 8, 3))
        t = tt.Trainer(
            net,
            optimizer="momentum",
            batch=8,
            policy="keep" if density is None else "bitmap",
            density=density,
            guard=guard,
            clip_norm=clip,
            backend="numpy",
        )
        found.append(losses_of(t, 8))
    assert found[1] == found[0]
    assert t.overflows == 4


def test_the_flag_rises_before_anything_persistent_changes():
    net = models.build("resnet8", input_shape=(8, 8, 3))
    t = tt.Trainer(net, batch=4, policy="bitmap", density=0.02, backend="numpy")
    before = {k: v.tobytes() for k, v in t.state().items()}
    bound = t._for("train", 4)
    bound.fill(*((a,) for a in batch_of(net, 4)))
    bound.hyper["lr"][...] = 0.1
    with pytest.raises(CapacityError):
        bound.run()
    assert {k: v.tobytes() for k, v in t.state().items()} == before


def test_a_bad_input_is_not_taken_for_an_overflow():
    net = models.build("digits_cnn")
    t = tt.Trainer(net, batch=4, policy="bitmap", density=0.02, backend="numpy")
    x, y = batch_of(net, 4)
    x[2] = np.nan
    with pytest.raises(tt.NotFiniteError, match="input"):
        t.step(x, y)
    assert t.overflows == 0


# ------------------------------------------------------------------------- the planner


def test_the_guaranteed_plan_fits_the_same_arena():
    for name, options in (("resnet8", {"input_shape": (16, 16, 3)}), ("digits_cnn", {})):
        net = models.build(name, **options)
        t = tt.Trainer(net, batch=4, policy="bitmap", backend="numpy")
        bound = t._for("guaranteed", 4)
        assert not any(s.op == "bitmap_pack" for s in bound.plan.program.steps)
        assert bound.plan.arena_bytes <= t.plan.arena_bytes == len(t.arena)
        assert bound.plan.layout == t.plan.layout


def test_the_solver_packs_only_where_a_density_is_given():
    net = models.build("resnet8", input_shape=(16, 16, 3))
    keep = tt.plan(net, batch=8, policy="keep")
    ram = int(keep.persistent_bytes + 0.6 * (keep.arena_bytes - keep.persistent_bytes))

    def packs(**options):
        plan = tt.plan(net, batch=8, ram=ram, **options)
        assert plan.fits
        return plan, sum(s.op == "bitmap_pack" for s in plan.program.steps)

    without, none = packs()
    assert none == 0
    plan, some = packs(density=0.3)
    assert some > 0
    assert plan.extra_macs_ratio <= without.extra_macs_ratio


def test_a_budget_is_honoured_with_bitmaps():
    losses = []
    for ram, density in ((None, None), ("95K", 0.6)):
        net = models.build("digits_cnn")
        t = tt.Trainer(net, batch=16, microbatch=16, ram=ram, density=density, backend="numpy")
        x, y = batch_of(net, 16)
        losses.append([t.step(x, y) for _ in range(3)])
        assert t.high_water_bytes <= t.plan.arena_bytes
    assert t.plan.arena_bytes <= t.plan.ram
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-4)


# ------------------------------------------------------------------------- measured densities


@pytest.mark.parametrize("backend", BACKENDS)
def test_calibrated_capacities_do_not_overflow_on_what_they_were_measured_on(backend):
    """A small network whose values are far denser than was said, in the middle of training: it
    goes on bit for bit."""
    found = []
    for measured in (False, True):
        net = models.build("vgg6", input_shape=(8, 8, 3), seed=2)
        more = {"policy": "bitmap", "density": 0.2} if measured else {"policy": "keep"}
        t = tt.Trainer(net, optimizer="momentum", batch=8, backend=backend, **more)
        x, y = batch_of(net, 8)
        losses = [t.step(x, y)]
        overflows = t.overflows
        if measured:
            assert overflows == 1
            shares = t.calibrate(x)
            assert min(shares.values()) > 0
            assert max(shares.values()) <= 0.9
            assert t.plan.decisions.densities == shares
        losses.append(t.step(x, y))
        assert t.overflows == overflows
        found.append((losses, {k: v.tobytes() for k, v in t.state().items()}))
    assert found[1] == found[0]


def test_measured_densities_are_saved(tmp_path):
    net = models.build("digits_cnn")
    t = tt.Trainer(net, batch=8, policy="bitmap", backend="numpy")
    x, y = batch_of(net, 24)
    t.calibrate(x)
    t.step(x[:8], y[:8])
    t.save(str(tmp_path / "net.npz"))
    again = tt.Trainer.restore(str(tmp_path / "net.npz"), backend="numpy")
    assert again.plan.dump() == t.plan.dump()
    assert again.step(x[:8], y[:8]) == t.step(x[:8], y[:8])


def test_calibrating_a_network_with_dropout_and_batch_statistics():
    net = models.build("resnet8", input_shape=(8, 8, 3))
    t = tt.Trainer(net, batch=4, policy="bitmap", backend="numpy")
    before = {k: v.tobytes() for k, v in t.state().items()}
    t.calibrate(batch_of(net, 4)[0])
    assert {k: v.tobytes() for k, v in t.state().items()} == before
    with pytest.raises(InputError):
        t.calibrate(np.zeros((4, 3, 3, 3), np.float32))
