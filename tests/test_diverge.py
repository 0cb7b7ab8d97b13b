"""Training that diverges: the layer is named, and `fit` ends in a usable model."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from test_trainer import root_loss, snapshot, toy, toy_data, trainer

import tinytrain as tt
from tinytrain import data, diverge, models, nn, optim, run


def digits(rate: float, momentum: float = 0.0, **more) -> tt.Trainer:
    net = models.build("digits_cnn")
    return tt.Trainer(net, optimizer=optim.SGD(rate, momentum), batch=16, **more)


# ---------------------------------------------------------------------------- the layer is named


class Overflows(nn.Module):
    """Makes an infinity in the layer that is asked for."""

    input_shape = (5,)

    def __init__(self, place: str):
        with nn.seeded(0):
            self.first, self.second = nn.Linear(5, 7), nn.Linear(7, 3)
        self.second.weight.data = np.full((7, 3), 1e3, np.float32)
        self.place = place

    def forward(self, x):
        x = self.first(x).relu() + 1.0
        return self.second((x * 1e4).exp() if self.place == "exp" else x * 1e36)


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("exp", r"exp behind layer first \(first\.bias\)"),
        ("second", r"matmul in layer second \(second\.weight\)"),
    ],
)
@pytest.mark.parametrize("more", [{}, {"microbatch": 2}, {"guard": "step"}], ids=str)
def test_the_layer_is_named_and_nothing_changes(place, told, more):
    t = tt.Trainer(Overflows(place), batch=4, loss="mse", backend="numpy", **more)
    before = snapshot(t)
    with pytest.raises(tt.NotFiniteError, match=f"first made by {told}; nothing was up") as caught:
        t.step(np.full((4, 5), 2.0), np.zeros((4, 3)))
    assert snapshot(t) == before and caught.value.layer


@pytest.mark.parametrize("backend", ["numpy", "c"])
@pytest.mark.parametrize("what", ["the network's output", "a gradient"])
def test_the_layer_is_named_where_values_are_spilled(what, backend, tmp_path):
    """They are written again, and fetched again for the gradient."""
    if run.at_hand(backend) != backend:
        pytest.skip("a C compiler is missing")
    more = {"policy": "spill", "spill": tmp_path / "spilled", "guard": "step", "backend": backend}
    more["loss"] = root_loss if what == "a gradient" else "cross_entropy"
    t = tt.Trainer(models.build("lenet5"), batch=4, **more)
    assert any(s.op == "fetch" for s in t.plan.program.steps)
    told = "sqrt_vjp behind layer"
    if what != "a gradient":
        name, weight = next((n, p.data) for n, p in t.net.named_parameters() if p.data.ndim == 2)
        weight[...] = 3e38
        told = f"matmul in layer {name.rpartition('.')[0]} "
    before = snapshot(t)
    with pytest.raises(tt.NotFiniteError, match=f"^{what} is NaN .* first made by {told}"):
        t.step(np.ones((4, 28, 28, 1), np.float32), np.zeros(4, np.int32))
    assert snapshot(t) == before
    t.close()


def test_a_bad_gradient_is_named():
    t = trainer(loss=root_loss, guard="step")
    x, y = toy_data()
    with pytest.raises(tt.NotFiniteError, match=r"first made by \w+ behind layer \w+"):
        t.step(x[:4], y[:4])


def test_what_a_bad_gradient_spoiled_is_named():
    t = trainer(loss=root_loss)
    x, y = toy_data()
    last = [name for name, p in t.net.named_parameters()][-1]
    with pytest.raises(tt.NotFiniteError, match=f"spoiled the weights up to {last}"):
        t.step(x[:4], y[:4])
        t.step(x[:4], y[:4])


def test_a_bad_input_is_no_layer_s_fault():
    t = trainer()
    x, y = toy_data()
    with pytest.raises(tt.NotFiniteError, match=r"^the input is NaN or infinite; nothing"):
        t.step(x[:4] * np.nan, y[:4])


def test_frozen_weights_stay_when_training_begins_anew():
    """They may have been loaded, and were never in danger."""
    net = toy()
    net[0].weight.data = np.full(net[0].weight.shape, 0.25, np.float32)
    net[0].requires_grad_(False)
    t = trainer(net, loss=root_loss)
    x, y = toy_data()
    with pytest.raises(tt.NotFiniteError, match="begins anew"):
        t.step(x[:4], y[:4])
        t.step(x[:4], y[:4])
    assert (net[0].weight.data == 0.25).all()


# ---------------------------------------------------------------------------- going back


def test_a_rate_a_thousand_times_too_high_ends_in_a_network_that_has_learned():
    train, test = data.digits()
    t = digits(0.1 * 1000)
    with pytest.warns(UserWarning, match="diverged.*was restored, and the rate is 0.1 times"):
        losses = t.fit(train.x, train.y, epochs=2, progress=False, on_divergence="lower_rate")
    assert t.epoch == 2 == len(losses) and losses[-1] < 1
    assert t.evaluate(test.x, test.y)["accuracy"] > 0.8
    assert isinstance(t.optimizer.schedule, optim.ScaledLR)
    assert t.optimizer.schedule(0) == pytest.approx(0.1)


def test_restore_ends_with_the_last_good_state(tmp_path):
    train, _ = data.digits()
    x, y = train.x[:160], train.y[:160]
    t = digits(0.1)
    t.fit(x, y, epochs=1, progress=False)
    t.save(tmp_path / "net.npz")
    t.optimizer = optim.SGD(lambda step: 0.1 if step < 25 else 1e4)
    with pytest.raises(tt.InputError, match="cannot be saved"):
        t.fit(x, y, epochs=1, progress=False, on_divergence="restore")
    t.optimizer = optim.SGD(optim.StepLR(0.1, 25, 1e5))
    with pytest.warns(UserWarning, match="the state behind step 20 was restored, and .* ended"):
        losses = t.fit(x, y, epochs=9, progress=False, on_divergence="restore")
    assert (t.epoch, t.steps, t.within) == (2, 20, 0) and len(losses) == 1
    assert np.isfinite(t.predict(x)).all()
    assert [p.name for p in tmp_path.iterdir()] == ["net.npz"]


def test_a_rate_beyond_all_help_ends_with_the_first_state(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    train, _ = data.digits()
    t = digits(1e30)
    before = snapshot(t)
    with pytest.warns(UserWarning) as said:
        t.fit(train.x[:64], train.y[:64], epochs=1, progress=False, on_divergence="lower_rate")
    assert len(said) == diverge.TIMES + 1 and "ended there" in str(said[-1].message)
    assert any("first made by" in str(w.message) for w in said)
    assert snapshot(t) == before and t.steps == 0
    assert not list(tmp_path.iterdir())


def test_without_divergence_nothing_is_different():
    train, _ = data.digits()
    plain, watched = digits(0.05, 0.9), digits(0.05, 0.9)
    want = plain.fit(train.x[:99], train.y[:99], epochs=2, progress=False)
    got = watched.fit(
        train.x[:99], train.y[:99], epochs=2, progress=False, on_divergence="lower_rate"
    )
    assert got == want and snapshot(plain) == snapshot(watched)


@pytest.mark.parametrize("choice", ["stop", 1, "lower"])
def test_an_unknown_choice_is_refused(choice):
    x, y = toy_data()
    with pytest.raises(tt.InputError, match="on_divergence is"):
        trainer().fit(x, y, epochs=1, on_divergence=choice)


def test_where_nothing_is_sound_from_the_start_nothing_is_tried():
    x, y = toy_data()
    t = trainer(loss=lambda outputs, labels: (outputs * np.inf).sum())
    with pytest.raises(tt.InputError, match="before the first step"):
        t.fit(x, y, epochs=1, progress=False, on_divergence="restore")
    assert t.steps == 0


def test_scaled_rates_are_saved(tmp_path):
    rate = optim.ScaledLR(optim.WarmupLR(optim.CosineLR(0.2, 30), 4), 0.1)
    t = trainer(optimizer=optim.SGD(rate))
    t.save(tmp_path / "net.npz")
    again = tt.Trainer.restore(tmp_path / "net.npz", toy())
    assert again.optimizer.schedule == rate
    assert [rate(k) for k in (0, 9)] == [0.1 * rate.after(k) for k in (0, 9)]


def test_the_command_line_saves_on_the_way_and_lowers_the_rate(tmp_path):
    train, _ = data.digits()
    np.savez(tmp_path / "data.npz", x=train.x[:96], y=train.y[:96])
    command = [sys.executable, "-m", "tinytrain", "train", "digits_cnn", "--json"]
    command += ["--data", "data.npz", "--epochs", "1", "--backend", "numpy", "--save", "net.npz"]
    more = ["--lr", "1e3", "--on-divergence", "lower_rate", "--save-every", "2"]
    done = subprocess.run(command + more, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "training diverged" in done.stderr and json.loads(done.stdout)["steps"] == 3
    assert (tmp_path / "net.npz.previous").exists()  # of step 2
    done = subprocess.run([*command[:-2], "--save-every", "2"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 2 and b"--save with a file" in done.stderr
