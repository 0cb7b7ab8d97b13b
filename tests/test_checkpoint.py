"""Checkpoints: training goes on bit for bit, and no damaged file is ever taken for a whole one."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import pickle
import zipfile

import numpy as np
import pytest

import tinytrain as tt
from tinytrain import losses, models, nn, optim
from tinytrain.checkpoint import HEADER
from tinytrain.kernels import c_

N, BATCH = 22, 4  # five batches and a partial one
OPTIMIZERS = {
    "sgd": lambda: optim.SGD(lr=0.1),
    "momentum": lambda: optim.SGD(lr=optim.StepLR(0.1, 3, 0.5), momentum=0.9, weight_decay=0.01),
    "nesterov": lambda: optim.SGD(lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda: optim.Adam(lr=optim.WarmupLR(optim.CosineLR(0.02, 20), 4), betas=(0.8, 0.9)),
    "adamw": lambda: optim.AdamW(lr=0.01, weight_decay=0.1),
}


def network(name: str = "ds_cnn", seed: int = 1) -> nn.Module:
    """Batch norm and dropout, small."""
    if name == "mlp":
        return models.build("mlp", classes=3, input_shape=(2, 2, 1), hidden=(5,), seed=seed)
    return models.build("ds_cnn", classes=3, input_shape=(8, 6, 1), channels=4, seed=seed)


def data(net: nn.Module):
    rng = np.random.default_rng(0)
    return rng.standard_normal((N, *net.input_shape)).astype(np.float32), np.arange(N) % 3


def trainer(net: nn.Module | None = None, **arguments) -> tt.Trainer:
    return tt.Trainer(net or network("mlp"), **{"batch": BATCH, "backend": "numpy", **arguments})


def snapshot(t: tt.Trainer) -> dict[str, bytes]:
    return {name: view.tobytes() for name, view in t.state().items()}


def same(a: tt.Trainer, b: tt.Trainer) -> None:
    assert (a.steps, a.epoch, a.within) == (b.steps, b.epoch, b.within)
    assert snapshot(a) == snapshot(b)


@pytest.fixture
def saved(tmp_path):
    """A checkpoint of a trained net, and the trainer that wrote it."""
    t = trainer(optimizer=optim.SGD(0.1, momentum=0.9))
    t.fit(*data(t.net), epochs=1)
    path = tmp_path / "net.npz"
    t.save(path)
    return path, t


# ---------------------------------------------------------------------------- resuming


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("after", [4, 6, 8])
def test_an_interrupted_run_goes_on_bit_for_bit(name, after, tmp_path):
    """Interrupted behind step `after`: within an epoch, at its last batch and past its end."""
    arguments = {"optimizer": OPTIMIZERS[name](), "seed": 3, "clip_norm": 1.0}
    whole, cut = trainer(network(), **arguments), trainer(network(), **arguments)
    x, y = data(whole.net)
    whole.fit(x, y, epochs=2)

    def stop(step, loss):
        if step == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut.fit(x, y, epochs=2, on_step=stop)
    cut.save(tmp_path / "cut.npz")
    again = tt.Trainer.restore(tmp_path / "cut.npz", backend="numpy")
    same(again, cut)
    again.fit(x, y, epochs=2 - again.epoch)
    same(again, whole)
    np.testing.assert_array_equal(again.predict(x), whole.predict(x))


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("after", [5, 6])
def test_the_last_batch_of_an_epoch_is_not_trained_twice(after, drop_last):
    x, y = data(network("mlp"))
    t = trainer()
    if drop_last and after == 6:
        after = 10

    def stop(step, loss):
        if step == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        t.fit(x, y, epochs=2, on_step=stop, drop_last=drop_last)
    t.fit(x, y, epochs=2 - t.epoch, drop_last=drop_last)
    assert t.steps == (10 if drop_last else 12)
    assert (t.epoch, t.within) == (2, 0)


def test_single_steps_resume(tmp_path):
    a, b = trainer(network(), seed=2), trainer(network(), seed=2)
    x, y = data(a.net)
    for k in range(4):
        a.step(x[4 * k : 4 * k + 4], y[4 * k : 4 * k + 4])
    for k in range(4):
        b.save(tmp_path / "b.npz")
        b = tt.Trainer.restore(tmp_path / "b.npz", backend="numpy")
        b.step(x[4 * k : 4 * k + 4], y[4 * k : 4 * k + 4])
    same(a, b)


def test_saving_changes_nothing(saved):
    path, t = saved
    before = snapshot(t)
    t.save(path)
    assert snapshot(t) == before


@pytest.mark.parametrize("asked", ["auto", "numpy", "c"])
def test_the_backend_that_was_asked_for_comes_back(asked, tmp_path, monkeypatch):
    """Where it is there; `auto` stays `auto`, whatever that was."""
    t = tt.Trainer(models.build("mlp", input_shape=(4,)), batch=2, backend=asked)
    path = str(tmp_path / "net.npz")
    t.save(path)
    again = tt.Trainer.restore(path)
    assert (again.asked, again.backend) == (asked, t.backend)
    assert tt.Trainer.restore(path, backend="numpy").backend == "numpy"

    def missing():
        raise ImportError("there is no C compiler")

    monkeypatch.setattr(c_, "library", missing)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    again = tt.Trainer.restore(path)
    assert again.backend == "numpy"
    assert again.asked == ("numpy" if asked == "numpy" else "auto")


def test_a_network_of_ones_own_is_given_again(tmp_path):
    def make(seed):
        with nn.seeded(seed):
            net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
        net.input_shape = (4,)
        return net

    t = trainer(make(0))
    t.step(np.ones((4, 4)), [0, 1, 2, 0])
    t.save(tmp_path / "own.npz")
    with pytest.raises(tt.InputError, match="net="):
        tt.Trainer.restore(tmp_path / "own.npz")
    same(tt.Trainer.restore(tmp_path / "own.npz", make(9), backend="numpy"), t)


def test_frozen_parameters_stay_frozen(tmp_path):
    net = network("mlp")
    net[1].requires_grad_(False)
    t = trainer(net)
    x, y = data(net)
    t.save(tmp_path / "frozen.npz")
    again = tt.Trainer.restore(tmp_path / "frozen.npz", backend="numpy")
    for each in (t, again):
        each.fit(x, y, epochs=1)
    same(again, t)


def test_frozen_parameters_with_momentum(tmp_path):
    net = network("mlp")
    net[1].requires_grad_(False)
    t = trainer(net, optimizer=optim.SGD(0.1, momentum=0.9))
    t.save(tmp_path / "frozen.npz")
    same(tt.Trainer.restore(tmp_path / "frozen.npz", backend="numpy"), t)


def test_label_smoothing_and_a_mask_come_back(tmp_path):
    spec = [tt.Spec((2,), "int32"), tt.Spec((2,))]
    net = nn.Sequential(nn.Linear(3, 4))
    t = trainer(net, input_shape=(2, 3), label_spec=spec, loss=losses.CrossEntropy(0.1))
    x, y, mask = np.ones((4, 2, 3)), np.zeros((4, 2), int), np.ones((4, 2))
    t.save(tmp_path / "masked.npz")
    again = tt.Trainer.restore(tmp_path / "masked.npz", nn.Sequential(nn.Linear(3, 4)))
    assert again.step(x, (y, mask)) == pytest.approx(t.step(x, (y, mask)), rel=1e-6)


def test_a_loss_of_ones_own_is_asked_for(tmp_path):
    def loss(outputs, labels):
        return losses.cross_entropy(outputs, labels) * 2.0

    t = trainer(loss=loss)
    t.save(tmp_path / "loss.npz")
    with pytest.raises(tt.InputError, match="loss="):
        tt.Trainer.restore(tmp_path / "loss.npz")
    same(tt.Trainer.restore(tmp_path / "loss.npz", loss=loss), t)


def test_arguments_can_be_changed_and_the_budget_holds(saved):
    path, t = saved
    assert tt.Trainer.restore(path, ram="64K").plan.ram == 65536
    assert tt.Trainer.restore(path, batch=2).batch == 2
    with pytest.raises(tt.BudgetError):
        tt.Trainer.restore(path, ram=t.plan.persistent_bytes)


@pytest.mark.parametrize(
    "make",
    [
        lambda: trainer(models.build("mlp", input_shape=(2, 2, 1), seed=np.int64(3))),
        lambda: trainer(models.build("mlp", classes=np.int64(3), input_shape=(2, 2, 1))),
        lambda: trainer(clip_norm=np.float32(1)),
        lambda: trainer(optimizer=optim.SGD(optim.StepLR(0.1, np.int64(3)))),
        lambda: trainer(seed=np.int64(2)),
    ],
    ids=["seed", "classes", "clip_norm", "schedule", "trainer-seed"],
)
def test_numbers_of_numpy_are_saved_too(make, tmp_path):
    t = make()
    t.save(tmp_path / "net.npz")
    same(tt.Trainer.restore(tmp_path / "net.npz"), t)


def test_a_schedule_of_ones_own_cannot_be_saved(tmp_path):
    t = trainer(optimizer=optim.SGD(lambda step: 0.1 / (step + 1)))
    with pytest.raises(tt.InputError, match="cannot be saved"):
        t.save(tmp_path / "net.npz")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------- damage


def refused(path, damaged: bytes, **arguments) -> None:
    """Restoring the damaged bytes is an InputError that names the file, and leaves it alone."""
    path.write_bytes(damaged)
    with pytest.raises(tt.InputError, match=path.name):
        tt.Trainer.restore(path, **arguments)
    assert path.read_bytes() == damaged


def test_a_truncated_file_is_refused_at_every_length(saved):
    path, _ = saved
    whole = path.read_bytes()
    for n in {*range(64), *range(64, len(whole), 41), len(whole) - 1}:
        refused(path, whole[:n])


def test_a_flipped_bit_is_refused_or_means_nothing(saved):
    """A zip file has bytes that nobody reads (times, attributes); every other flip is found."""
    path, t = saved
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    passed = 0
    for at in {*range(0, len(whole), 17), *rng.integers(0, len(whole), 100).tolist()}:
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(damaged))
        try:
            again = tt.Trainer.restore(path, backend="numpy")
        except tt.InputError as error:
            assert path.name in str(error)
        else:
            passed += 1
            same(again, t)
    assert passed < len(whole) // 17 / 2


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip at all", pickle.dumps({"a": 1})])
def test_what_is_no_zip_is_refused(saved, content):
    path, _ = saved
    refused(path, content)


def test_a_plain_array_is_refused(saved):
    path, _ = saved
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    refused(path, file.getvalue())


def test_a_folder_and_a_missing_file_are_refused(tmp_path):
    with pytest.raises(tt.InputError, match="no such file"):
        tt.Trainer.restore(tmp_path / "none.npz")
    with pytest.raises(tt.InputError, match=tmp_path.name):
        tt.Trainer.restore(tmp_path)


def rewritten(path, **changes):
    """The file again with its header or an array replaced (None: left out)."""
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(arrays[HEADER].tobytes())
    header.update(changes.pop("header", {}))
    for key in changes.pop("drop", ()):
        del header[key]
    arrays[HEADER] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    arrays.update(changes)
    buffer = io.BytesIO()
    np.savez(buffer, **{k: v for k, v in arrays.items() if v is not None})
    return buffer.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        {"header": {"format": 2}},
        {"header": {"format": None}},
        {"drop": ["format"]},
        {"drop": ["optimizer"]},
        {"drop": ["position"]},
        {"drop": ["settings"]},
        {"drop": ["model"]},
        {"header": {"optimizer": {"name": "Magic", "lr": 1}}},
        {"header": {"optimizer": {"name": "SGD", "lr": {"name": "Magic"}}}},
        {"header": {"settings": {"magic": 1}}},
        {"header": {"model": {"name": "magic"}}},
        {"header": {"batch": "many"}},
        {"header": {"input_shape": 3}},
        {"header": {"position": {"steps": "x", "epoch": 0, "within": 0}}},
        {"1.weight": None},
        {"1.weight": np.zeros((2, 2), np.float32)},
        {"1.weight": np.zeros((4, 5), np.float64)},
        {"7.weight": np.zeros(3, np.float32)},
        {"1.weight": np.full((4, 5), None)},
    ],
    ids=str,
)
def test_a_whole_file_that_does_not_fit_is_refused(saved, change):
    path, _ = saved
    refused(path, rewritten(path, **change))


def test_another_network_is_refused_and_keeps_its_weights(saved):
    path, _ = saved
    other = models.build("mlp", classes=4, input_shape=(2, 2, 1), hidden=(5,), seed=7)
    before = other.state_dict()
    with pytest.raises(tt.InputError, match=r"\d\.weight"):
        tt.Trainer.restore(path, other)
    for name, a in other.state_dict().items():
        assert (a == before[name]).all()


class Trap:
    """Unpickling this would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("kind", ["header", "array", "whole"])
def test_nothing_is_ever_unpickled(saved, kind, tmp_path):
    path, _ = saved
    mark = tmp_path / "was-unpickled"
    trap = np.array([Trap(mark)], dtype=object)
    if kind == "whole":
        path.write_bytes(pickle.dumps(Trap(mark)))
    else:
        path.write_bytes(rewritten(path, **{HEADER if kind == "header" else "1.bias": trap}))
    with pytest.raises(tt.InputError):
        tt.Trainer.restore(path)
    assert not mark.exists()


def test_a_saved_file_holds_no_pickle(saved):
    path, _ = saved
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            head = archive.read(name)[:128]
            assert head.startswith(b"\x93NUMPY"), name
            assert b"'|O'" not in head, name


# ---------------------------------------------------------------------------- a save that fails


def test_a_save_that_fails_leaves_the_old_file(saved, monkeypatch):
    path, t = saved
    whole = path.read_bytes()

    def full(file, array, **options):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    t.step(np.ones((4, 2, 2, 1)), [0, 1, 2, 0])
    with monkeypatch.context() as patch:
        patch.setattr(np.lib.format, "write_array", full)
        with pytest.raises(tt.InputError, match="No space left"):
            t.save(path)
    assert path.read_bytes() == whole
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_an_interrupt_while_saving_leaves_the_old_file(saved, monkeypatch):
    path, t = saved
    whole = path.read_bytes()

    def interrupted(source, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            t.save(path)
    assert path.read_bytes() == whole
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("where", ["missing/net.npz", "."])
def test_a_place_that_cannot_be_written_is_named(where, tmp_path):
    with pytest.raises(tt.InputError, match="cannot be written"):
        trainer().save(tmp_path / where)
    assert not list(tmp_path.iterdir())


def test_the_name_is_taken_as_it_is(tmp_path):
    """np.savez would add .npz."""
    trainer().save(str(tmp_path / "weights.bin"))
    assert [p.name for p in tmp_path.iterdir()] == ["weights.bin"]
    tt.Trainer.restore(str(tmp_path / "weights.bin"))
