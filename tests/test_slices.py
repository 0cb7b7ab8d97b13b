"""A step in slices completes or leaves what persists as it was; a smaller batch always fits."""

from __future__ import annotations

import numpy as np
import pytest
from test_trainer import OPTIMIZERS, snapshot, toy_data

import tinytrain as tt
from tinytrain import models, nn, optim

MOMENTUM = {"optimizer": optim.SGD(lr=0.01, momentum=0.9)}


def dense(width: int = 4, depth: int = 1, outputs: int = 3, norm: bool = False) -> nn.Module:
    with nn.seeded(0):
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [nn.Linear(width, width), *([nn.BatchNorm1d(width)] if norm else [])]
            layers.append(nn.ReLU())
        net = nn.Sequential(*layers, nn.Linear(width, outputs))
    net.input_shape = (width,)
    return net


def sliced(net: nn.Module | None = None, **arguments) -> tt.Trainer:
    """Batches of 6 in slices of 2."""
    given = {"batch": 6, "microbatch": 2, "backend": "numpy", **arguments}
    return tt.Trainer(net or dense(), **given)


def regression(**arguments) -> tuple[tt.Trainer, np.ndarray, np.ndarray]:
    """A trainer after one good step, and a batch that is good as well."""
    t = sliced(loss="mse", **arguments)
    x, _ = toy_data()
    y = np.ones((6, 3), np.float32)
    t.step(x[:6], y)
    return t, x[6:12].copy(), y


# ------------------------------------------------------------------------- bad batches


@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_bad_input_in_any_slice_changes_nothing(name, place):
    t, x, y = regression(optimizer=OPTIMIZERS[name]())
    before = snapshot(t)
    x[place, 1] = np.nan
    with pytest.raises(tt.NotFiniteError, match=r"the input is NaN.*nothing was updated"):
        t.step(x, y)
    assert snapshot(t) == before
    assert t.steps == 1


@pytest.mark.parametrize("bad", [np.nan, 1e300])
@pytest.mark.parametrize("place", [0, 5])
def test_a_bad_target_in_any_slice_changes_nothing(place, bad):
    t, x, y = regression(**MOMENTUM)
    before = snapshot(t)
    y = y.astype(np.float64)
    y[place] = bad
    with pytest.raises(tt.NotFiniteError, match="nothing was updated"):
        t.step(x, y)
    assert snapshot(t) == before


@pytest.mark.parametrize("place", [0, 3, 5])
def test_a_label_that_no_class_has_changes_nothing_in_any_slice(place):
    t = sliced(**MOMENTUM)
    x, y = toy_data()
    t.step(x[:6], y[:6])
    before = snapshot(t)
    labels = y[6:12].copy()
    labels[place] = 3
    with pytest.raises(tt.InputError, match="y"):
        t.step(x[6:12], labels)
    assert snapshot(t) == before


def huge(y: np.ndarray, place: int) -> np.ndarray:
    """A finite target whose squared error is not."""
    y = y.copy()
    y[place] = 1e30
    return y


@pytest.mark.parametrize("guard", ["loss", "step"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_bad_loss_in_the_first_slice_changes_nothing(name, guard):
    t, x, y = regression(optimizer=OPTIMIZERS[name](), guard=guard)
    before = snapshot(t)
    with pytest.raises(tt.NotFiniteError, match=r"the loss is NaN.*nothing was updated"):
        t.step(x, huge(y, 1))
    assert snapshot(t) == before


@pytest.mark.parametrize(
    ("name", "guard"),
    [(name, "step") for name in OPTIMIZERS]
    + [(name, "loss") for name in OPTIMIZERS if name not in ("momentum", "decay")],
)
def test_a_bad_loss_in_a_later_slice_changes_nothing_where_gradients_are_summed_apart(name, guard):
    t, x, y = regression(optimizer=OPTIMIZERS[name](), guard=guard)
    before = snapshot(t)
    with pytest.raises(tt.NotFiniteError, match=r"the loss is NaN.*nothing was updated"):
        t.step(x, huge(y, 4))
    assert snapshot(t) == before


@pytest.mark.parametrize("name", ["momentum", "decay"])
def test_a_bad_loss_in_a_later_slice_takes_the_last_saved_state(name, tmp_path):
    t, x, y = regression(optimizer=OPTIMIZERS[name]())
    t.save(str(tmp_path / "net.npz"))
    saved = snapshot(t)
    t.step(x, y)
    assert snapshot(t) != saved
    with pytest.raises(tt.NotFiniteError, match=r"the loss is NaN.*net\.npz was restored"):
        t.step(x, huge(y, 4))
    assert snapshot(t) == saved
    assert t.steps == 1


SAID = (
    r"^{} is NaN or infinite, first made by \w+ \w+ layer [\w.]+ \([\w.]+\), when earlier slices "
    r"of the batch had been added: the state saved in \S+net\.npz was restored; lower the learning "
    r"rate, or use guard='step', which sums slices apart: nothing changes then$"
)


@pytest.mark.parametrize("what", ["the loss", "the network's output"])
@pytest.mark.parametrize("place", [2, 3, 5])
def test_what_is_said_where_a_later_slice_is_bad_and_training_goes_on_from_there(
    what, place, tmp_path
):
    """As `Trainer`'s docstring has it: the last saved state, its position too, bit for bit."""
    t, x, y = regression(**MOMENTUM)
    path, spoiled = str(tmp_path / "net.npz"), x.copy()
    if what != "the loss":
        weight = t.state()["0.weight"]
        weight *= 8
        spoiled[place] = 3e38 * np.sign(weight[:, 0])
    t.save(path)
    t.step(x, y)
    with pytest.raises(tt.NotFiniteError, match=SAID.format(what)) as caught:
        t.step(spoiled, huge(y, place) if what == "the loss" else y)
    assert caught.value.what == what
    other = tt.Trainer.restore(path, dense())
    assert (t.steps, snapshot(t)) == (other.steps, snapshot(other))
    assert t.step(x, y) == other.step(x, y) and snapshot(t) == snapshot(other)


def test_without_a_saved_state_the_weights_stay_and_the_momentum_begins_at_zero():
    t, x, y = regression(**MOMENTUM)
    before = snapshot(t)
    with pytest.raises(tt.NotFiniteError, match="weights are as they were, the momentum begins"):
        t.step(x, huge(y, 4))
    after = snapshot(t)
    for name, held in before.items():
        if name.startswith("optimizer/"):
            assert not np.frombuffer(after[name], np.float32).any()
        else:
            assert after[name] == held
    t.step(x, y)


def test_running_statistics_of_earlier_slices_are_told_of(tmp_path):
    t, x, y = regression(net=dense(norm=True), optimizer=optim.SGD(lr=0.01))
    with pytest.raises(tt.NotFiniteError, match="running statistics keep"):
        t.step(x, huge(y, 4))
    t.save(str(tmp_path / "net.npz"))
    saved = snapshot(t)
    with pytest.raises(tt.NotFiniteError, match="was restored"):
        t.step(x, huge(y, 4))
    assert snapshot(t) == saved


# ------------------------------------------------------------------------- the prologue


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_what_comes_before_the_first_slice_touches_persistent_bytes_alone(optimizer):
    """So it may wait until the first slice's flags are read."""
    net = models.build("resnet8", norm="group", input_shape=(8, 8, 3))
    plan = tt.plan(net, optimizer=OPTIMIZERS[optimizer](), batch=4, microbatch=2)
    begin, _ = plan.program.body
    touched = {v for s in plan.program.steps[:begin] for v in (*s.reads(), *s.writes())}
    assert touched
    assert all(plan.buffers[plan.buffer_of[v]].persistent for v in touched)


# ------------------------------------------------------------------------- smaller batches

ODD = [  # at some smaller size than the batch a layer's input is no longer larger than its weight
    {"width": 16, "depth": 3, "batch": 19, "guard": "step", "density": 0.3},
    {"width": 32, "depth": 4, "batch": 35, "guard": "loss", "density": 0.6},
]


@pytest.mark.parametrize("case", ODD, ids=["step guard", "loss guard"])
def test_every_smaller_batch_fits_the_arena(case):
    case = dict(case)
    net = dense(case.pop("width"), case.pop("depth"), 4)
    given = {"optimizer": "momentum", "clip_norm": 1.0, "microbatch": case["batch"], **case}
    t = tt.Trainer(net, policy="bitmap", backend="numpy", **given)
    assert t.plan.guaranteed is not None
    whats = ("train", "guaranteed")
    for n in range(1, case["batch"]):
        for what in whats:
            plan = t._for(what, n).plan
            plan.check()
            assert plan.arena_bytes <= t.plan.arena_bytes
            assert plan.layout == t.plan.layout


@pytest.mark.parametrize("density", [0.9, 0.02])
def test_a_smaller_last_slice_is_ready_before_the_first_has_run(density):
    """Whether the last slice overflows or not, its plans are made before anything is changed."""
    t = sliced(microbatch=4, policy="bitmap", density=density, **MOMENTUM)
    x, y = toy_data()
    made = []
    place = t._place
    t._place = lambda what, program, n: made.append((t._added, what, n)) or place(what, program, n)
    t.step(x[:6], y[:6])
    assert {(what, n) for _, what, n in made} >= {("train", 2)}
    assert {added for added, *_ in made} == {0}
    if t.plan.guaranteed:
        assert ("guaranteed", 2) in {(what, n) for _, what, n in made}
    assert t.overflows == (2 if density < 0.1 else 0)
