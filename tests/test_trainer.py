"""The trainer: planned steps against fresh ones, optimizers against NumPy, guards, inference in
the same arena, and that networks learn.
"""

from __future__ import annotations

import gc
import importlib.util
import weakref

import numpy as np
import pytest
from growth import growth
from planned import fresh, leaf_values, results, same_bits, write

import tinytrain as tt
from tinytrain import losses, models, nn, ops, optim
from tinytrain.freeze import Recorder, sample_specs
from tinytrain.kernels import c_
from tinytrain.lower import lower
from tinytrain.nn.module import Buffer, constant
from tinytrain.plan import make_plan
from tinytrain.run import POISON, Executor, new_arena

has_numba = importlib.util.find_spec("numba") is not None
needs_numba = pytest.mark.skipif(not has_numba, reason="numba is missing")
needs_c = pytest.mark.skipif(not c_.is_there(), reason="a C compiler is missing")
BACKENDS = [
    "numpy",
    pytest.param("numba", marks=needs_numba),
    pytest.param("c", marks=needs_c),
]
both = pytest.mark.parametrize("backend", BACKENDS)

SMALL = {  # a model's arguments that keep a step short
    "mlp": {"input_shape": (4, 3, 1), "hidden": (7, 5), "classes": 3},
    "lenet5": {"input_shape": (16, 16, 1)},
    "resnet8": {"input_shape": (8, 8, 3), "classes": 3},
    "resnet8-group": {"input_shape": (8, 8, 3), "norm": "group"},
    "ds_cnn": {"input_shape": (12, 8, 1), "channels": 8, "classes": 3},
    "digits_cnn": {},
    "digits_cnn-none": {"norm": "none"},
    "autoencoder": {"input_shape": (24,), "hidden": 12, "code": 3},
    "mobilenetv2": {"input_shape": (16, 16, 3), "width": 0.1, "classes": 3},
}


def small(name: str, seed: int = 0) -> nn.Module:
    return models.build(name.split("-")[0], seed=seed, **SMALL[name])


def toy(seed: int = 0, norm: bool = False) -> nn.Module:
    """Four features to three classes."""
    with nn.seeded(seed):
        layers = [nn.Linear(4, 6), *([nn.BatchNorm1d(6)] if norm else []), nn.ReLU()]
        net = nn.Sequential(*layers, nn.Linear(6, 3))
    net.input_shape = (4,)
    return net


def trainer(net: nn.Module | None = None, **arguments) -> tt.Trainer:
    return tt.Trainer(net or toy(), **{"batch": 4, "backend": "numpy", **arguments})


def batch_of(net: nn.Module, n: int, seed: int = 0):
    """Random samples, and labels as the net's own loss wants them."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, *net.input_shape)).astype(np.float32)
    if getattr(net, "loss", None) == "mse":
        return x, x
    return x, rng.integers(0, 3, n).astype(np.int32)


def toy_data(n: int = 64, seed: int = 0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 4)).astype(np.float32)
    x[:3, :2] = [(-1, -1), (1, -1), (1, 1)]  # a sample of each class
    return x, (x[:, 0] > 0).astype(np.int32) + (x[:, 1] > 0.3)


def snapshot(t: tt.Trainer) -> dict[str, bytes]:
    return {name: view.tobytes() for name, view in t.state().items()}


# ---------------------------------------------------------------------------- planned and fresh

OPTIMIZERS = {
    "sgd": lambda: optim.SGD(lr=0.05),
    "momentum": lambda: optim.SGD(lr=0.05, momentum=0.9),
    "decay": lambda: optim.SGD(lr=0.05, momentum=0.9, weight_decay=0.01),
    "plain-decay": lambda: optim.SGD(lr=0.05, weight_decay=0.01),
    "nesterov": lambda: optim.SGD(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda: optim.Adam(lr=0.01, weight_decay=0.01),
    "adamw": lambda: optim.AdamW(lr=0.01),
}


def planned_steps_equal_fresh(net, optimizer, guard, clip_norm, backend, batch=3, steps=3):
    """Several steps in a poisoned arena against the same steps in arrays of their own."""
    loss = losses.resolve(getattr(net, "loss", None) or "cross_entropy")
    frozen = Recorder(net, sample_specs(net), loss)(batch)
    program = lower(frozen.tape, optimizer, guard=guard, clip_norm=clip_norm)
    plan = make_plan(program, batch)
    plan.check()
    arena = new_arena(plan.arena_bytes)
    arena.fill(POISON)
    executor = Executor(plan, backend, arena, poison=True)
    asked = {v: t for v, t in frozen.leaves.items() if t.kind not in ("input", "label", "hyper")}
    values = leaf_values(program, asked)
    final = results(program)
    for step in range(steps):
        x, y = batch_of(net, batch, step)
        for v, a in zip((*frozen.inputs, *frozen.labels), (x, y), strict=False):
            values[v][...] = a
        for v, leaf in program.leaves.items():
            if leaf.kind == "hyper":
                key = (7, step, 0)
                values[v][...] = key if leaf.name == "key" else optimizer.numbers(step)[leaf.name]
        want = fresh(program, values, backend)
        write(executor, values)
        executor.run()
        for v, at in final.items():
            same_bits(executor.view(at), want[v], f"step {step}: {plan.name(v)}")
        for v, at in final.items():
            if at in values:
                values[at] = want[v].copy()
    return plan


@both
@pytest.mark.parametrize("name", SMALL)
def test_planned_steps_are_bit_equal_to_fresh_ones_for_every_model(name, backend):
    planned_steps_equal_fresh(small(name), optim.SGD(lr=0.001, momentum=0.9), "loss", None, backend)


@both
@pytest.mark.parametrize("guard", ["loss", "step", None])
@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_planned_steps_are_bit_equal_to_fresh_ones_for_every_optimizer(name, clip, guard, backend):
    planned_steps_equal_fresh(toy(norm=True), OPTIMIZERS[name](), guard, clip, backend)


@pytest.mark.parametrize("name", ["resnet8", "ds_cnn"])
@pytest.mark.parametrize("guard", ["loss", "step"])
def test_planned_steps_are_bit_equal_with_norms_dropout_and_adam(name, guard):
    planned_steps_equal_fresh(small(name), optim.Adam(), guard, 1.0, "numpy")


def test_the_same_seed_trains_the_same_bits():
    x, y = toy_data()
    runs = [trainer(toy(3), seed=5) for _ in range(2)]
    for t in runs:
        t.fit(x, y, epochs=2)
    assert snapshot(runs[0]) == snapshot(runs[1])


def test_a_parameter_that_was_looked_at_is_the_one_that_was_not():
    seen, unseen = toy(), toy()
    _ = seen[0].weight.data
    assert snapshot(trainer(seen)) == snapshot(trainer(unseen))


# ---------------------------------------------------------------------------- memory


@both
@pytest.mark.parametrize("name", SMALL)
def test_high_water_equals_the_plan(name, backend):
    net = small(name)
    t = trainer(net, batch=3, backend=backend)
    for seed in range(2):
        t.step(*batch_of(net, 3, seed))
    assert t.high_water_bytes == t.plan.arena_bytes == t.arena_bytes == len(t.arena)


def test_high_water_is_measured_after_inference_too():
    t, (x, y) = trainer(), toy_data()
    for _ in range(2):
        t.predict(x[:1])
    for _ in range(2):
        t.step(x[:4], y[:4])
    assert t.high_water_bytes == t.plan.arena_bytes


def test_high_water_is_measured_after_failed_steps_too():
    t, (x, y) = trainer(), toy_data()
    for _ in range(2):
        with pytest.raises(tt.NotFiniteError):
            t.step(np.full_like(x[:4], np.nan), y[:4])
    for _ in range(2):
        t.step(x[:4], y[:4])
    assert t.high_water_bytes == t.plan.arena_bytes


def test_inference_and_partial_batches_write_nothing_above_the_plan():
    net = small("resnet8")
    t = trainer(net, batch=3)
    x, y = batch_of(net, 8)
    t.evaluate(x, y)
    t.fit(x, y, epochs=1)
    assert t.predict(x).shape == (8, 3)
    assert t.high_water_bytes <= t.plan.arena_bytes


@both
@pytest.mark.parametrize("name", ["digits_cnn", "autoencoder"])
def test_a_step_allocates_nothing_that_grows(name, backend):
    """Of eight times 100 steps the first still fill the interpreter's free lists; a leak shows in
    each of them."""
    net = small(name)
    t = trainer(net, batch=1, backend=backend, optimizer=optim.Adam())
    x, y = batch_of(net, 1)
    for _ in range(20):
        t.step(x, y)
    grown = growth(lambda: t.step(x, y), times=8, calls=100)
    assert min(grown) < 2048, f"{grown} bytes more after 100 steps each"


@needs_numba
def test_numba_allocates_nothing_in_a_step():
    from numba.core.runtime import _nrt_python, rtsys

    net = small("resnet8")
    t = trainer(net, batch=2, backend="numba")
    x, y = batch_of(net, 2)
    for _ in range(3):
        t.step(x, y)
    counts = getattr(_nrt_python, "memsys_stats_enabled", lambda: True)()
    if not counts:  # newer releases count only when told to
        _nrt_python.memsys_enable_stats()
    try:
        before = rtsys.get_allocation_stats()
        for _ in range(100):
            t.step(x, y)
        after = rtsys.get_allocation_stats()
    finally:
        if not counts:
            _nrt_python.memsys_disable_stats()
    assert after.alloc - after.free == before.alloc - before.free
    assert after.mi_alloc - after.mi_free == before.mi_alloc - before.mi_free


@pytest.mark.parametrize("policy", ["keep", "spill"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_arena_goes_with_its_last_name(backend, policy, tmp_path):
    """At once, not when garbage is collected: a device has no room for two."""
    path = tmp_path / "values.spill"
    more = {"policy": "spill", "spill": str(path)} if policy == "spill" else {}
    t = trainer(small("lenet5"), backend=backend, **more)
    t.step(*batch_of(t.net, 4))
    arena = weakref.ref(t.arena)
    gc.disable()
    try:
        del t
        assert (arena(), path.exists()) == (None, False)
    finally:
        gc.enable()


def test_parameters_are_views_of_the_arena():
    net = toy(norm=True)
    t = trainer(net)
    for name, p in net.named_leaves().items():
        assert np.shares_memory(p.data, t.arena), name
    x, y = toy_data()
    before = net[0].weight.data.copy()
    t.step(x[:4], y[:4])
    assert (net[0].weight.data != before).any()
    net[0].weight.data = before
    assert np.shares_memory(net[0].weight.data, t.arena)
    assert (t.state()["0.weight"] == before).all()


# ---------------------------------------------------------------------------- optimizers


class Plain(nn.Module):
    """loss = mean((x w - y)^2): a gradient that NumPy writes in one line."""

    input_shape = (3,)

    def __init__(self):
        self.w = nn.Parameter((3, 2), lambda rng, out: out.fill(0.5))

    def forward(self, x):
        return x @ self.w


def by_hand(name: str, arguments: dict, p: np.ndarray, gradients, clip=None):
    """The optimizers of the literature in float64; a gradient function, a rate for each step."""
    lr, m, v = arguments["lr"], np.zeros_like(p), np.zeros_like(p)
    decay, momentum = arguments.get("weight_decay", 0), arguments.get("momentum", 0)
    b1, b2 = arguments.get("betas", (0.9, 0.999))
    for t, gradient in enumerate(gradients, 1):
        g = gradient(p)
        if clip is not None:
            g = g * min(1, clip / np.sqrt((g * g).sum()))
        rate = lr(t - 1) if callable(lr) else lr
        if name != "AdamW":
            g = g + decay * p
        if name == "SGD":
            m = momentum * m + g
            p = p - rate * (g + momentum * m if arguments.get("nesterov") else m)
            continue
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        if name == "AdamW":
            p = p - rate * decay * p
        p = p - rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + arguments.get("eps", 1e-8))
    return p


ARGUMENTS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "nesterov": True}),
    ("SGD", {"lr": optim.WarmupLR(optim.CosineLR(0.2, 8), 3), "momentum": 0.5}),
    ("Adam", {"lr": 0.05}),
    ("Adam", {"lr": 0.05, "weight_decay": 0.1, "betas": (0.8, 0.9), "eps": 1e-3}),
    ("Adam", {"lr": optim.StepLR(0.1, 2, 0.5)}),
    ("AdamW", {"lr": 0.05, "weight_decay": 0.1}),
]


@both
@pytest.mark.parametrize("clip", [None, 0.3])
@pytest.mark.parametrize(("name", "arguments"), ARGUMENTS, ids=str)
def test_updates_equal_the_optimizer_written_out(name, arguments, clip, backend):
    rng = np.random.default_rng(0)
    xs, ys = rng.standard_normal((8, 4, 3)), rng.standard_normal((8, 4, 2))
    net = Plain()
    t = trainer(
        net,
        loss="mse",
        optimizer=getattr(optim, name)(**arguments),
        clip_norm=clip,
        backend=backend,
    )
    start = net.w.data.astype(np.float64)
    for x, y in zip(xs, ys, strict=True):
        t.step(x.astype(np.float32), y.astype(np.float32))
    gradients = [
        lambda p, x=x, y=y: 2 * x.T @ (x @ p - y) / y.size for x, y in zip(xs, ys, strict=True)
    ]
    np.testing.assert_allclose(
        net.w.data, by_hand(name, arguments, start, gradients, clip), rtol=2e-5, atol=2e-6
    )


def test_schedules():
    assert [optim.StepLR(1.0, 2, 0.1)(k) for k in range(5)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    cosine = optim.CosineLR(1.0, 4, lr_min=0.2)
    assert [cosine(k) for k in (0, 2, 4, 9)] == pytest.approx([1, 0.6, 0.2, 0.2])
    warm = optim.WarmupLR(optim.ConstantLR(1.0), 4)
    assert [warm(k) for k in range(6)] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


@pytest.mark.parametrize(
    "make",
    [
        lambda: optim.SGD(lr=-1),
        lambda: optim.SGD(lr=float("nan")),
        lambda: optim.SGD(lr="fast"),
        lambda: optim.SGD(lr=optim.ConstantLR(-1.0)),
        lambda: optim.SGD(lr=optim.ConstantLR(float("nan"))),
        lambda: optim.SGD(lr=optim.StepLR(0.1, 0)),
        lambda: optim.SGD(lr=optim.WarmupLR(optim.ConstantLR(0.1), 0)),
        lambda: optim.SGD(momentum=1.0),
        lambda: optim.SGD(nesterov=True),
        lambda: optim.SGD(weight_decay=-0.1),
        lambda: optim.Adam(betas=(0.9, 1.0)),
        lambda: optim.Adam(eps=float("nan")),
        lambda: trainer(optimizer="sgdd"),
        lambda: trainer(loss="crossentropy"),
        lambda: trainer(batch=0),
        lambda: trainer(batch="32"),
        lambda: trainer(guard="always"),
        lambda: trainer(clip_norm=0),
        lambda: trainer(clip_norm=float("nan")),
        lambda: trainer(policy="bitmaps"),
        lambda: trainer(ram="much"),
        lambda: trainer(ram="9" * 400),
        lambda: trainer(ram=-1),
        lambda: trainer(backend="cuda"),
        lambda: trainer(microbatch=0),
        lambda: trainer(microbatch="some"),
        lambda: trainer(toy(seed=-1)),
        lambda: trainer(toy(), input_shape=(0,)),
        lambda: trainer(toy(), input_shape=("4",)),
        lambda: trainer(nn.Sequential(nn.Linear(4, 3))),
        lambda: trainer(toy().requires_grad_(False)),
    ],
)
def test_bad_arguments_are_one_clear_error(make):
    with pytest.raises(tt.InputError) as caught:
        make()
    assert len(str(caught.value)) > 15


def test_the_public_arguments_are_there():
    """DESIGN's signature, the arguments of later issues at their defaults."""
    given = {"policy": "auto", "microbatch": "auto", "density": None, "spill": None, "seed": 0}
    trainer(ram="64K", guard="loss", clip_norm=None, **given)
    tt.plan(toy(), batch=4, ram="64K", guard="loss", clip_norm=None, backend="numpy", **given)


@pytest.mark.parametrize(
    ("label_spec", "told"),
    [
        (tt.Spec((), "int64"), r"batch of labels is int64\[4\].*int32 for class numbers"),
        (tt.Spec((-1,)), r"batch of labels is float32\[4, -1\]; sizes are positive"),
        ([tt.Spec(()), tt.Spec((0,))], r"float32\[4, 0\]"),
        ((), r"label_spec has 0 Specs; CrossEntropy\(\) takes labels and perhaps a mask"),
        ([tt.Spec((), "int32")] * 3, "label_spec has 3 Specs"),
        ("int32", "label_spec is 'int32'; give the Spec"),
        ((3, 2), r"label_spec is \(3, 2\); give the Spec"),
        (5, "label_spec is 5; give the Spec"),
    ],
)
def test_a_label_spec_that_is_none_is_one_clear_error(label_spec, told):
    for make in (trainer, lambda **given: tt.plan(toy(), batch=4, **given)):
        with pytest.raises(tt.InputError, match=told):
            make(loss="cross_entropy", label_spec=label_spec)


# ---------------------------------------------------------------------------- guards


@both
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("guard", ["loss", "step"])
def test_a_bad_input_changes_nothing(guard, bad, backend):
    net = toy(norm=True)
    t = trainer(net, optimizer=optim.Adam(), guard=guard, backend=backend)
    x, y = toy_data()
    t.step(x[:4], y[:4])
    before = snapshot(t)
    broken = x[4:8].copy()
    broken[2, 1] = bad
    with pytest.raises(tt.NotFiniteError, match="input"):
        t.step(broken, y[4:8])
    assert snapshot(t) == before
    assert t.steps == 1
    t.step(x[4:8], y[4:8])
    other = trainer(toy(norm=True), optimizer=optim.Adam(), guard=guard, backend=backend)
    other.step(x[:4], y[:4])
    other.step(x[4:8], y[4:8])
    assert snapshot(t) == snapshot(other)


@both
def test_a_bad_target_changes_nothing(backend):
    t = trainer(Plain(), loss="mse", optimizer=optim.SGD(0.1, momentum=0.9), backend=backend)
    before = snapshot(t)
    with pytest.raises(tt.NotFiniteError, match="loss"):
        t.step(np.ones((4, 3)), np.full((4, 2), np.inf))
    assert snapshot(t) == before


def test_a_target_beyond_float32_is_the_same_error_without_a_warning():
    t = trainer(Plain(), loss="mse")
    before = snapshot(t)
    with pytest.raises(tt.NotFiniteError):
        t.step(np.full((4, 3), 1e300), np.ones((4, 2)))
    assert snapshot(t) == before


@both
def test_an_exploding_loss_stops_and_changes_nothing(backend):
    net = toy(norm=True)
    t = trainer(net, loss="mse", optimizer=optim.SGD(lr=1e-3, momentum=0.9), backend=backend)
    x, _ = toy_data()
    y = np.ones((64, 3), np.float32)
    for _ in range(3):
        t.step(x[:4], y[:4])
    before = snapshot(t)
    with pytest.raises(tt.NotFiniteError, match="nothing was updated"):
        t.step(x[:4], y[:4] * np.float32(1e30))
    assert snapshot(t) == before
    assert t.steps == 3
    t.step(x[:4], y[:4])


def root_loss(outputs, labels):
    """A finite loss whose gradient is 0 * inf: the square root at zero."""
    return (outputs * 0.0).sqrt().mean() + ops.cross_entropy(outputs, labels)


@both
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_a_bad_gradient_changes_nothing_under_the_step_guard(name, clip, backend):
    net = toy(norm=True)
    t = trainer(
        net,
        loss=root_loss,
        optimizer=OPTIMIZERS[name](),
        guard="step",
        clip_norm=clip,
        backend=backend,
    )
    x, y = toy_data()
    before = snapshot(t)
    with pytest.raises(tt.NotFiniteError, match="gradient"):
        t.step(x[:4], y[:4])
    assert snapshot(t) == before
    assert t.steps == 0


def test_a_bad_gradient_under_the_loss_guard_stops_training():
    """DESIGN 2: without the step guard, such a gradient stops training and nobody goes on with
    weights that are not finite."""
    t = trainer(loss=root_loss)
    x, y = toy_data()
    with pytest.raises(tt.NotFiniteError):
        t.step(x[:4], y[:4])
        t.step(x[:4], y[:4])
    for name, view in t.state().items():
        assert np.isfinite(view).all(), f"{name} was left not finite"


def test_after_a_bad_gradient_the_last_saved_state_is_there_again(tmp_path):
    t = trainer(loss=root_loss)
    x, y = toy_data()
    t.save(str(tmp_path / "saved.npz"))
    saved = snapshot(t)
    t.step(x[:4], y[:4])
    with pytest.raises(tt.NotFiniteError, match="was restored"):
        t.step(x[:4], y[:4])
    assert snapshot(t) == saved
    assert t.steps == 0


@pytest.mark.parametrize("which", range(4))
def test_a_single_spoiled_parameter_is_lost_too(which, tmp_path):
    """All others are finite: what was saved is restored nevertheless, and the parameter named."""
    t = trainer(loss="cross_entropy")
    x, y = toy_data()
    t.save(str(tmp_path / "saved.npz"))
    saved = snapshot(t)
    name = [name for name in t.state() if not name.startswith("optimizer/")][which]
    t.state()[name].flat[0] = np.inf
    with pytest.raises(tt.NotFiniteError, match=f"up to {name}: the state saved in .* restored"):
        t.step(x[:4], y[:4])
    assert snapshot(t) == saved


def test_without_a_guard_nothing_is_checked():
    t = trainer(guard=None)
    x, y = toy_data()
    assert np.isnan(t.step(np.full_like(x[:4], np.nan), y[:4]))


@both
def test_running_statistics_change_once_a_step(backend):
    net = toy(norm=True)
    norm = net[1]
    x, y = toy_data()
    eager = net[0](tt.Tensor(x[:4])).data
    t = trainer(net, backend=backend)
    assert [step.op for step in t.plan.program.steps].count("running_average") == 2
    t.step(x[:4], y[:4])
    np.testing.assert_allclose(norm.running_mean.data, 0.1 * eager.mean(0), rtol=1e-5, atol=1e-7)
    want = 0.9 + 0.1 * eager.var(0, ddof=1)
    np.testing.assert_allclose(norm.running_var.data, want, rtol=1e-5)
    held = snapshot(t)
    t.predict(x)
    t.evaluate(x, y)
    assert snapshot(t) == held


def test_a_norm_that_is_applied_twice_takes_both_statistics():
    class Twins(nn.Module):
        input_shape = ((4,), (4,))

        def __init__(self):
            self.dense, self.norm = nn.Linear(4, 3), nn.BatchNorm1d(3)

        def forward(self, a, b):
            return self.norm(self.dense(a)) - self.norm(self.dense(b))

    net = Twins()
    t = trainer(net)
    t.plan.check()
    x, y = toy_data()
    a, b = (net.dense(tt.Tensor(part)).data.mean(0) for part in (x[:4], x[4:8]))
    t.step((x[:4], x[4:8]), y[:4])
    want = 0.9 * (0.1 * a) + 0.1 * b
    np.testing.assert_allclose(net.norm.running_mean.data, want, rtol=1e-4, atol=1e-6)


class Carry(nn.Module):
    """A state that is carried from step to step and that backward reads."""

    input_shape = (4,)

    def __init__(self):
        self.dense, self.back = nn.Linear(4, 3), nn.Linear(3, 3)
        self.held = Buffer((4, 3), constant(0.5))

    def forward(self, x):
        h = (self.dense(x) + self.back(self.held)).tanh()
        if self.training:
            self.held.assign(h)
        return h * 2.0


class Remembers(Carry):
    """A state that backward reads, while what it is to become is already there."""

    def __init__(self):
        super().__init__()
        self.back, self.held = nn.Linear(4, 3), Buffer((4, 4), constant(0.5))

    def forward(self, x):
        h = (self.dense(x) + self.back(self.held)).tanh()
        if self.training:
            self.held.assign(x * 0.5)
        return h * 2.0


def test_a_carried_state_is_committed_behind_the_guard():
    net = Carry()
    t = trainer(net, loss="mse")
    before = snapshot(t)
    with pytest.raises(tt.NotFiniteError):
        t.step(np.ones((4, 4)), np.full((4, 3), np.nan))
    assert snapshot(t) == before


@pytest.mark.parametrize("kind", [Carry, Remembers])
def test_backward_reads_a_state_as_forward_did(kind):
    with nn.seeded(1):
        net, twin = kind(), kind()
    twin.load_state_dict(net.state_dict())
    x, y = toy_data()[0][:4], np.ones((4, 3), np.float32)
    losses.mse(twin(tt.Tensor(x)), tt.Tensor(y)).backward()
    before = net.back.weight.data.copy()
    t = trainer(net, loss="mse", optimizer=optim.SGD(lr=1.0))
    t.plan.check()
    t.step(x, y)
    np.testing.assert_allclose(before - net.back.weight.data, twin.back.weight.grad, atol=1e-6)
    assert (net.held.data == twin.held.data).all()


@pytest.mark.parametrize("what", ["input", "view", "weights"])
def test_a_state_takes_whatever_it_is_assigned(what):
    class Holds(nn.Module):
        input_shape = (4,)

        def __init__(self):
            self.dense = nn.Linear(4, 3)
            self.held = Buffer((4, 3) if what == "weights" else (4, 4), constant(0.5))

        def forward(self, x):
            if self.training:
                value = {
                    "input": lambda: x,
                    "view": lambda: (x * 2.0).reshape(4, 2, 2).reshape(4, 4),
                    "weights": lambda: self.held * 0.9 + self.dense.weight * 0.1,
                }[what]()
                self.held.assign(value)
            return self.dense(x)

    net = Holds()
    t = trainer(net)
    x, y = toy_data()
    before = net.dense.weight.data.copy()
    t.step(x[:4], y[:4])
    want = {"input": x[:4], "view": 2 * x[:4], "weights": 0.45 + 0.1 * before}[what]
    np.testing.assert_allclose(net.held.data, want, rtol=1e-6)
    assert (net.dense.weight.data != before).any(), "the weights were not updated"


# ---------------------------------------------------------------------------- inference


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
@pytest.mark.parametrize("ask", ["predict", "evaluate"])
def test_asking_leaves_all_that_persists_as_it_was(ask, optimizer, backend):
    """For the whole batch, and for a part of one."""
    net = small("resnet8")
    t = trainer(net, optimizer=optimizer, backend=backend)
    x, y = batch_of(net, 4)
    t.step(x, y)
    before = snapshot(t)
    for n in (4, 3):
        t.predict(x[:n]) if ask == "predict" else t.evaluate(x[:n], y[:n])
        assert snapshot(t) == before


@both
@pytest.mark.parametrize("name", ["resnet8", "digits_cnn", "ds_cnn"])
def test_predictions_do_not_depend_on_the_slicing(name, backend):
    net = small(name)
    x, y = batch_of(net, 7)
    t = trainer(net, batch=3, backend=backend)
    t.step(x[:3], y[:3])
    every = t.predict(x)
    assert every.dtype == np.float32
    assert every.shape[0] == 7
    for n in (1, 2, 4, 6):
        parts = np.concatenate([t.predict(x[k : k + n]) for k in range(0, 7, n)])
        np.testing.assert_allclose(parts, every, rtol=1e-4, atol=1e-5)
    net.eval()
    np.testing.assert_allclose(net(tt.Tensor(x)).data, every, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3, 7, 8])
def test_evaluation_does_not_depend_on_the_batch(batch):
    x, y = toy_data(7)
    got = trainer(batch=batch).evaluate(x, y)
    outputs = toy()(tt.Tensor(x))
    want = losses.cross_entropy(outputs, tt.Tensor(y)).item()
    assert got["loss"] == pytest.approx(want, rel=1e-5)
    assert got["accuracy"] == pytest.approx((outputs.data.argmax(1) == y).mean())


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("batch", [1, 4])
def test_inference_fits_the_arena_of_every_model(name, batch):
    net = small(name)
    x, y = batch_of(net, 5)
    t = trainer(net, batch=batch)
    t.predict(x)
    assert np.isfinite(t.evaluate(x, y)["loss"])
    assert len(t.arena) == t.plan.arena_bytes


def sequences(n: int = 7):
    """Sequences of six steps, classes 0 to 2 at each, and a mask of what is not padding."""
    rng = np.random.default_rng(0)
    mask = (np.arange(6) < np.arange(1, n + 1)[:, None]).astype(np.float32)
    x = rng.standard_normal((n, 6, 4)).astype(np.float32)
    return x, (rng.integers(0, 3, (n, 6)).astype(np.int32), mask)


MASKED = [tt.Spec((6,), "int32"), tt.Spec((6,))]


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_a_masked_evaluation_is_the_mean_over_what_counts(batch):
    x, (y, mask) = sequences()
    net = toy()
    got = trainer(net, batch=batch, input_shape=(6, 4), label_spec=MASKED).evaluate(x, (y, mask))
    outputs = net(tt.Tensor(x))
    want = losses.cross_entropy(outputs, tt.Tensor(y), tt.Tensor(mask)).item()
    hit = (outputs.data.argmax(-1) == y) * mask
    assert got["accuracy"] == pytest.approx(hit.sum() / mask.sum())
    assert got["loss"] == pytest.approx(want, rel=1e-5)


def test_what_the_mask_leaves_out_does_not_matter():
    x, (y, mask) = sequences(4)
    runs = []
    for fill in (0, 2):
        t = trainer(toy(), input_shape=(6, 4), label_spec=MASKED)
        t.step(x, (np.where(mask > 0, y, fill), mask))
        runs.append(snapshot(t))
    assert runs[0] == runs[1]


# ---------------------------------------------------------------------------- what goes in


@pytest.mark.parametrize(("drop", "steps"), [(False, 3), (True, 2)])
def test_the_last_partial_batch_is_trained_or_dropped(drop, steps):
    x, y = toy_data(10)
    seen = []
    t = trainer()
    history = t.fit(x, y, epochs=2, drop_last=drop, on_step=lambda k, loss: seen.append((k, loss)))
    assert [k for k, _ in seen] == list(range(1, 2 * steps + 1))
    assert t.steps == 2 * steps
    assert len(history) == 2
    weights = [4, 4] if drop else [4, 4, 2]
    assert history[0] == pytest.approx(np.average([v for _, v in seen[:steps]], weights=weights))


def test_a_smaller_batch_is_the_mean_over_its_own_samples():
    x, y = toy_data()
    net, twin = toy(), toy()
    t = trainer(net, optimizer=optim.SGD(lr=1.0))
    before = net[0].weight.data.copy()
    t.step(x[:3], y[:3])
    losses.cross_entropy(twin(tt.Tensor(x[:3])), tt.Tensor(y[:3])).backward()
    np.testing.assert_allclose(before - net[0].weight.data, twin[0].weight.grad, atol=1e-6)


class Sum(nn.Module):
    input_shape = ((4,), (2, 2))

    def __init__(self):
        self.dense = nn.Linear(4, 3)

    def forward(self, a, b):
        return self.dense(a + b.flatten())


def test_several_inputs():
    x, y = toy_data(10)
    z = x[::-1].reshape(-1, 2, 2)
    net = Sum()
    t = trainer(net, optimizer=optim.SGD(0.5))
    first = t.fit((x, z), y, epochs=10)
    assert first[-1] < first[0]
    want = net(tt.Tensor(x), tt.Tensor(z.copy())).data
    np.testing.assert_allclose(t.predict((x, z)), want, rtol=1e-5, atol=1e-6)
    t.evaluate((x, z), y)


@pytest.mark.parametrize("verb", ["fit", "predict", "evaluate"])
@pytest.mark.parametrize("other", [7, 13])
def test_inputs_of_different_lengths_are_refused(verb, other):
    x, y = toy_data(10)
    z = np.ones((other, 2, 2), np.float32)
    t = trainer(Sum())
    more = () if verb == "predict" else (y,)
    with pytest.raises(tt.InputError, match=str(other)):
        getattr(t, verb)((x, z), *more)


class Tokens(nn.Module):
    """Two tokens of five, looked up one by one or together."""

    input_shape = tt.Spec((2,), "int32")

    def __init__(self, together: bool = True):
        self.table, self.together = nn.Embedding(5, 3), together

    def forward(self, x):
        if self.together:
            return self.table(x).sum(axis=1)
        return self.table(x[:, 0]) + self.table(x[:, 1])


@both
@pytest.mark.parametrize("together", [True, False])
def test_integer_inputs(together, backend):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, (40, 2))
    y = (x > 2).sum(axis=1)
    t = trainer(Tokens(together), optimizer=optim.Adam(0.1), batch=8, backend=backend)
    t.fit(x, y, epochs=20)
    assert t.evaluate(x, y)["accuracy"] > 0.95


@both
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("bad", [5, -1, 10**6])
def test_a_token_out_of_range_is_refused(bad, together, backend):
    t = trainer(Tokens(together), backend=backend)
    x, y = np.array([[0, 1], [2, bad], [0, 0], [0, 0]]), np.zeros(4, np.int32)
    before = snapshot(t)
    for call in (lambda: t.step(x, y), lambda: t.predict(x), lambda: t.evaluate(x, y)):
        with pytest.raises(tt.InputError, match=str(bad)):
            call()
    assert snapshot(t) == before


@pytest.mark.parametrize("bad", [3, -1])
def test_a_label_out_of_range_is_refused_when_the_loss_takes_a_part(bad):
    def first_of_two(outputs, labels):
        return ops.cross_entropy(outputs, labels[:, 0])

    t = trainer(loss=first_of_two, label_spec=tt.Spec((2,), "int32"))
    x, _ = toy_data(4)
    before = snapshot(t)
    with pytest.raises(tt.InputError, match=str(bad)):
        t.step(x, np.full((4, 2), bad))
    assert snapshot(t) == before


def test_a_custom_loss_with_a_label_spec():
    def weighted(outputs, labels):
        """labels (N, 2): a target and its weight."""
        d = outputs[:, 0] - labels[:, 0]
        return (d * d * labels[:, 1]).mean()

    x, _ = toy_data()
    y = np.stack([x @ np.array([1, -1, 0.5, 0], np.float32), np.ones(64, np.float32)], axis=1)
    t = trainer(loss=weighted, label_spec=tt.Spec((2,)), optimizer=optim.Adam(0.03), batch=16)
    history = t.fit(x, y, epochs=30)
    assert history[-1] < 0.1 * history[0]
    assert "accuracy" not in t.evaluate(x, y)


def test_a_loss_without_labels():
    t = trainer(loss=lambda outputs: (outputs * outputs).mean(), label_spec=[])
    x, _ = toy_data()
    t.step(x[:4], ())
    history = t.fit(x, (), epochs=3)
    assert history[-1] < history[0]


def test_label_smoothing():
    x, y = toy_data(4)
    net = toy()
    t = trainer(net, loss=losses.CrossEntropy(label_smoothing=0.2))
    logits = net(tt.Tensor(x)).data.astype(np.float64)
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    target = np.full((4, 3), 0.2 / 3)
    target[np.arange(4), y] += 0.8
    assert t.step(x, y) == pytest.approx(-(target * logs).sum(1).mean(), rel=1e-5)


def test_uint8_is_scaled_to_the_unit_interval():
    net = small("digits_cnn")
    t = trainer(net)
    x = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)
    np.testing.assert_array_equal(t.predict(x), t.predict((x / 255).astype(np.float32)))


@pytest.mark.parametrize(
    ("x", "y", "names"),
    [
        (np.zeros((4, 5)), np.zeros(4, int), ["x", r"\(4, 5\)", r"\(4, 4\)"]),
        (np.zeros((5, 4)), np.zeros(5, int), ["x", r"\(5, 4\)"]),
        (np.zeros((0, 4)), np.zeros(0, int), ["x", r"\(0, 4\)"]),
        (np.zeros((4, 4)), np.zeros(3, int), ["y", r"\(3,\)"]),
        (np.zeros((4, 4)), np.array([0, 1, 2, 3]), ["y", "3", "position 3"]),
        (np.zeros((4, 4)), np.array([0, 1, -1, 2]), ["y", "-1"]),
        (np.zeros((4, 4)), np.zeros(4), ["y", "integers"]),
        (np.zeros((4, 4), complex), np.zeros(4, int), ["x", "complex"]),
        (np.full((4, 4), "a"), np.zeros(4, int), ["x", "<U1"]),
        ((np.zeros((4, 4)), np.zeros((4, 4))), np.zeros(4, int), ["x", "2 arrays"]),
        (np.zeros((4, 4)), (np.zeros(4, int), np.ones(4)), ["y", "2 arrays"]),
        (3.0, np.zeros(4, int), ["x"]),
        ([[1.0, 2, 3, 4], [1.0]], np.zeros(2, int), ["x"]),
    ],
)
def test_a_step_refuses_what_does_not_fit(x, y, names):
    t = trainer()
    before = snapshot(t)
    for name in names:
        with pytest.raises(tt.InputError, match=name):
            t.step(x, y)
    assert snapshot(t) == before


@pytest.mark.parametrize("verb", ["fit", "evaluate"])
@pytest.mark.parametrize("n", [9, 11, 20])
def test_labels_of_another_number_are_refused(verb, n):
    x, _ = toy_data(10)
    with pytest.raises(tt.InputError, match=str(n)):
        getattr(trainer(), verb)(x, np.zeros(n, np.int32) + np.arange(n) % 3)


@pytest.mark.parametrize("verb", ["fit", "predict", "evaluate"])
def test_bad_data_is_refused_before_anything_runs(verb):
    x, y = toy_data(10)
    t = trainer()
    more = () if verb == "predict" else (y,)
    broken = x.copy()
    broken[3, 1] = np.nan
    with pytest.raises(tt.InputError, match=r"x\[3, 1\] is nan"):
        getattr(t, verb)(broken, *more)
    with pytest.raises(tt.InputError, match="empty"):
        getattr(t, verb)(x[:0], *(y[:0] for _ in more))
    assert t.steps == 0


def test_a_class_without_a_sample_is_a_warning():
    x, _ = toy_data(8)
    with pytest.warns(UserWarning, match="class 1"):
        trainer().fit(x, np.array([0, 2] * 4), epochs=1)


# ---------------------------------------------------------------------------- what the net holds


def test_frozen_parameters_have_no_state_no_gradient_and_stay():
    net = small("resnet8")
    frozen = [name for name, _ in net.named_parameters() if not name.startswith("7")]
    for name, p in net.named_parameters():
        p.requires_grad = name not in frozen
    t = trainer(net, optimizer=optim.Adam())
    program = t.plan.program
    named = {leaf.name for leaf in program.leaves.values() if leaf.kind == "optimizer"}
    assert named == {
        f"7.{p}.{m}" for p in ("weight", "bias") for m in ("first_moment", "second_moment")
    }
    assert not any("conv2d_vjp" in step.op for step in program.steps)
    before = net.state_dict()
    x, y = batch_of(net, 4)
    t.step(x, y)
    after = net.state_dict()
    for name in frozen:
        assert (after[name] == before[name]).all(), name
    assert (after["7.weight"] != before["7.weight"]).any()


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_frozen_layers_between_trained_ones_pass_the_gradient_on(optimizer):
    net, twin = toy(norm=True), toy(norm=True)
    for each in (net, twin):
        each[1].requires_grad_(False)
        each[3].requires_grad_(False)
    x, y = toy_data()
    t = trainer(net, optimizer=OPTIMIZERS[optimizer]())
    losses.cross_entropy(twin(tt.Tensor(x[:4])), tt.Tensor(y[:4])).backward()
    before = net.state_dict()
    t.step(x[:4], y[:4])
    moved = {
        k for k, a in net.state_dict().items() if (a != before[k]).any() and "running" not in k
    }
    assert moved == {"0.weight"} | ({"0.bias"} & moved)
    change = before["0.weight"] - net[0].weight.data
    strong = np.abs(twin[0].weight.grad) > 0.01  # more than the decay
    assert (np.sign(change) == np.sign(twin[0].weight.grad))[strong].all()


def test_a_shared_weight_gets_both_gradients():
    class Tied(nn.Module):
        input_shape = (4,)

        def __init__(self):
            self.first = nn.Linear(4, 4)
            self.again = self.first

        def forward(self, x):
            return self.again(self.first(x).tanh())[:, 0:3]

    with nn.seeded(0):
        net = Tied()
    with nn.seeded(0):
        twin = Tied()
    assert list(net.state_dict()) == ["first.weight", "first.bias"]
    x, y = toy_data()
    losses.cross_entropy(twin(tt.Tensor(x[:4])), tt.Tensor(y[:4])).backward()
    for optimizer in (optim.SGD(lr=1.0), optim.SGD(lr=1.0, momentum=0.9)):
        before = net.first.weight.data.copy()
        twin.load_state_dict(net.state_dict())
        twin.first.weight.grad = None
        losses.cross_entropy(twin(tt.Tensor(x[:4])), tt.Tensor(y[:4])).backward()
        trainer(net, optimizer=optimizer).step(x[:4], y[:4])
        np.testing.assert_allclose(
            before - net.first.weight.data, twin.first.weight.grad, atol=1e-6
        )


@pytest.mark.parametrize("name", ["lr", "key", "end", "x", "y", "momentum", "file", "corrections"])
def test_a_parameter_may_have_any_name(name, tmp_path):
    class Named(nn.Module):
        input_shape = (4,)

        def __init__(self):
            self.dense, self.drop = nn.Linear(4, 3), nn.Dropout(0.1)
            setattr(self, name, nn.Parameter((3,), constant(1.5)))

        def forward(self, x):
            return self.drop(self.dense(x)) * getattr(self, name)

    net = Named()
    t = trainer(net, optimizer=optim.Adam(lr=0.1))
    x, y = toy_data(10)
    for _ in range(2):
        want = net.eval()(tt.Tensor(x)).data
        np.testing.assert_allclose(t.predict(x), want, rtol=1e-5, atol=1e-6)
        t.fit(x, y, epochs=1)
    t.save(tmp_path / "net.npz")
    again = tt.Trainer.restore(tmp_path / "net.npz", Named())
    assert snapshot(again) == snapshot(t)


class Hidden(nn.Module):
    """Modules where named_parameters does not look, or a tensor instead of a Parameter."""

    input_shape = (4,)

    def __init__(self, where: str):
        a, b = nn.Linear(4, 3, bias=False), nn.Linear(4, 3, bias=False)
        if where == "dict":
            self.parts = {"a": a, "b": b}
        elif where == "nested":
            self.parts = [[a], [b]]
        else:
            self.parts = [tt.Tensor(m.weight.data.copy(), requires_grad=True) for m in (a, b)]

    def forward(self, x):
        if isinstance(self.parts, dict):
            return self.parts["a"](x) - self.parts["b"](x)
        a, b = self.parts
        return a[0](x) - b[0](x) if isinstance(a, list) else x @ a - x @ b


@pytest.mark.parametrize("where", ["dict", "nested", "tensor"])
def test_parameters_that_the_tree_does_not_hold_are_found_or_refused(where):
    """Silently training or predicting with other bytes is the one thing that must not happen."""
    net = Hidden(where)
    x, y = toy_data(10)
    want = net(tt.Tensor(x)).data
    try:
        t = trainer(net)
    except tt.InputError:
        return
    np.testing.assert_allclose(t.predict(x), want, rtol=1e-5, atol=1e-6)
    t.fit(x, y, epochs=1)
    np.testing.assert_allclose(t.predict(x), net(tt.Tensor(x)).data, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------------- learning


@both
def test_an_mlp_learns(backend):
    x, y = toy_data(256)
    t = trainer(optimizer=optim.SGD(0.1, momentum=0.9), batch=16, backend=backend)
    t.fit(x, y, epochs=15)
    assert t.evaluate(x, y)["accuracy"] > 0.95


class Over(nn.Module):
    """A sequence layer and a dense one at each step, or at the last."""

    def __init__(self, kind: str, width: int = 12):
        self.kind = kind
        self.last = kind in ("lstm", "gru")
        if kind == "lstm":
            self.body = nn.LSTM(1, width, last_only=True)
        elif kind == "gru":
            self.body = nn.GRU(1, width, last_only=True)
        elif kind == "attention":
            self.lift = nn.Linear(9, width)
            self.body = nn.MultiheadAttention(width, 2, causal=True)
        else:
            self.lift = nn.Conv1d(1, width, 1)
            self.body = nn.WaveNetBlock(width, width, dilation=1)
            self.more = nn.WaveNetBlock(width, width, dilation=2)
        self.head = nn.Linear(width, 2)

    def forward(self, x):
        if self.last:
            return self.head(self.body(x))
        h = self.lift(x)
        if self.kind == "attention":
            return self.head(h + self.body(h))
        h, first = self.body(h)
        return self.head((first + self.more(h)[1]).relu())


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_recurrent_net_learns_parity(kind):
    """Whether an odd number of the first and the last bit is set."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (128, 5))
    x, y = (2.0 * bits - 1)[..., None].astype(np.float32), bits[:, 0] ^ bits[:, -1]
    with nn.seeded(0):
        net = Over(kind)
    t = trainer(net, optimizer=optim.Adam(0.02), batch=32, input_shape=(5, 1))
    t.fit(x, y, epochs=40)
    assert t.evaluate(x, y)["accuracy"] > 0.95


def test_attention_learns_to_look_back():
    """At each step: the bit of the first step, known by its position alone."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (128, 8))
    places = np.broadcast_to(np.eye(8), (128, 8, 8))
    x = np.concatenate([(2.0 * bits - 1)[..., None], places], axis=-1).astype(np.float32)
    y = np.repeat(bits[:, :1], 8, axis=1)
    with nn.seeded(0):
        net = Over("attention")
    t = trainer(net, optimizer=optim.Adam(0.02), batch=32, input_shape=(8, 9))
    t.fit(x, y, epochs=25)
    assert t.evaluate(x, y)["accuracy"] > 0.95


def test_a_wavenet_learns_a_delayed_product():
    """At each step: whether the bits one and three steps ago differ."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (64, 12))
    y = np.zeros((64, 12), np.int32)
    y[:, 3:] = bits[:, 2:-1] ^ bits[:, :-3]
    mask = np.zeros((64, 12), np.float32)
    mask[:, 3:] = 1
    x = (2.0 * bits - 1)[..., None].astype(np.float32)
    with nn.seeded(0):
        net = Over("wavenet")
    label_spec = [tt.Spec((12,), "int32"), tt.Spec((12,))]
    t = trainer(
        net, optimizer=optim.Adam(0.02), batch=16, input_shape=(12, 1), label_spec=label_spec
    )
    t.fit(x, (y, mask), epochs=40)
    assert t.evaluate(x, (y, mask))["accuracy"] > 0.95


def test_an_autoencoder_learns():
    net = small("autoencoder")
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((128, 3)) @ rng.standard_normal((3, 24))).astype(np.float32)
    t = trainer(net, optimizer=optim.Adam(0.01), batch=32)
    assert not [leaf for leaf in t.plan.program.leaves.values() if leaf.kind == "label"]
    history = t.fit(x, epochs=30)
    assert history[-1] < 0.5 * history[0]
    assert t.evaluate(x) == t.evaluate(x, x.copy())
    for bad in (x + 1, x[:, :3], np.zeros(128, np.int64)):
        with pytest.raises(tt.InputError, match="y: this network is compared with its input"):
            t.fit(x, bad)


def test_a_step_is_timed_without_a_trace():
    net = small("digits_cnn")
    t = trainer(net, batch=4, microbatch=2)
    x, y = batch_of(net, 4)
    t.step(x, y)
    before = snapshot(t)
    assert 0 < t.seconds_per_step(2) < 60
    assert snapshot(t) == before
    other = trainer(small("digits_cnn"), batch=4, microbatch=2)
    other.step(x, y)
    assert t.step(x, y) == other.step(x, y)


def test_a_step_refuses_labels_without_a_sample():
    t = trainer()
    x, y = toy_data()
    before = snapshot(t)
    with pytest.raises(tt.InputError, match="y: got shape"):
        t.step(x[:3], y[:4])
    assert snapshot(t) == before
