"""What helps with few samples: augmentation, balance, early stopping, and reports of what is taken
for what.
"""

from __future__ import annotations

import functools
import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest

import tinytrain as tt
from tinytrain import augment, data, losses, models, nn, optim
from tinytrain.cli import main
from tinytrain.errors import InputError
from tinytrain.learn import confusion
from tinytrain.picture import confusion_svg


def rng(seed: int = 0):
    return np.random.default_rng(seed)


# ------------------------------------------------------------------ augmentation


def picture() -> np.ndarray:
    return rng().standard_normal((6, 9, 7, 2)).astype(np.float32)


@pytest.mark.parametrize(
    "function",
    [
        augment.shift,
        augment.noise,
        augment.flip,
        augment.stretch,
        functools.partial(augment.shift, most=3, axes=(2,)),
    ],
)
def test_augmentation_is_pure_and_keyed(function) -> None:
    x = picture()
    before = x.copy()
    a, b, c = function(x, rng(1)), function(x, rng(1)), function(x, rng(2))
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    assert np.array_equal(x, before) and a.shape == x.shape and a.dtype == np.float32


def test_shift_moves_and_repeats_the_border() -> None:
    x = np.arange(5, dtype=np.float32).reshape(1, 5, 1).repeat(40, 0)
    seen = {tuple(row) for row in augment.shift(x, rng(), most=1, axes=(1,))[..., 0].tolist()}
    assert seen == {(0, 1, 2, 3, 4), (0, 0, 1, 2, 3), (1, 2, 3, 4, 4)}


def test_stretch_goes_through_the_samples_between() -> None:
    x = np.arange(11, dtype=np.float32).reshape(1, 11, 1).repeat(30, 0)
    made = augment.stretch(x, rng(), most=0.5)[..., 0]
    assert np.allclose(made[:, 5], 5)  # about the middle
    inside = made[:, 4:7]  # a straight line stays one, at another slope
    slopes = np.diff(inside, axis=1)
    np.testing.assert_allclose(slopes[:, 0], slopes[:, 1], rtol=1e-5)
    assert slopes.min() < 0.8 and slopes.max() > 1.2
    assert np.allclose(augment.stretch(x, rng(), most=0.0), x)


def test_flip_turns_some_and_noise_has_its_size() -> None:
    x = picture().repeat(20, 0)
    made = augment.flip(x, rng(), axis=2)
    same = (made == x).all(axis=(1, 2, 3))
    turned = (made == x[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same ^ turned).all() and 0.3 < same.mean() < 0.7
    spread = (augment.noise(x, rng(), most=0.2) - x).std(axis=(1, 2, 3))
    assert spread.max() < 0.25 and 0.07 < spread.mean() < 0.13


def test_mixing_mixes_labels_as_samples() -> None:
    y = np.arange(8) % 3
    x = np.eye(3, dtype=np.float32)[y]  # a sample that says its own label
    mixed, labels = augment.mix(x, y, rng(), classes=3, alpha=1.0)
    np.testing.assert_allclose(mixed, labels, atol=1e-6)
    assert np.allclose(labels.sum(axis=1), 1) and (labels.max(axis=1) < 0.99).mean() > 0.01
    with pytest.raises(InputError, match="class numbers"):
        augment.mix(x, y, rng(), classes=2)


def test_the_soft_loss_is_cross_entropy_of_shares() -> None:
    z = tt.Tensor(rng().standard_normal((5, 4)), requires_grad=True)
    y = rng(1).integers(0, 4, 5)
    soft = losses.soft_cross_entropy(z, tt.Tensor(augment.shares(y, 4).astype(np.float64)))
    hard = losses.cross_entropy(z, tt.Tensor(y.astype(np.int32)))
    assert float(soft.item()) == pytest.approx(float(hard.item()), rel=1e-6)
    tt.check.gradients(lambda z, p: losses.soft_cross_entropy(z, p), z.data, np.full((5, 4), 0.25))


def digits(n: int = 200):
    train, test = data.digits()
    return train.x[:n], train.y[:n], test.x, test.y


def trainer(**more) -> tt.Trainer:
    net = models.build("digits_cnn")
    given = {"optimizer": optim.SGD(0.02, momentum=0.9), "batch": 16, **more}
    return tt.Trainer(net, **given)


def test_fit_augments_by_seed_and_step_alone(tmp_path) -> None:
    x, y, test_x, _ = digits(64)
    change = augment.together(functools.partial(augment.shift, most=1), augment.noise)
    whole, parts = trainer(), trainer()
    whole.fit(x, y, epochs=2, augment=change)
    parts.fit(x, y, epochs=1, augment=change)
    parts.save(str(tmp_path / "half.npz"))
    again = tt.Trainer.restore(str(tmp_path / "half.npz"))
    again.fit(x, y, epochs=1, augment=change)
    assert np.array_equal(again.predict(test_x), whole.predict(test_x))
    plain = trainer()
    plain.fit(x, y, epochs=2)
    assert not np.array_equal(plain.predict(test_x), whole.predict(test_x))


def test_mixed_samples_are_learned() -> None:
    x, y, test_x, test_y = digits(600)
    mixing = trainer(loss="soft_cross_entropy")
    mixing.fit(
        x, y, epochs=14, balance=True, augment=lambda x, y, rng: augment.mix(x, y, rng, classes=10)
    )
    assert np.mean(mixing.predict(test_x).argmax(axis=1) == test_y) > 0.85


@pytest.mark.parametrize(
    "wrong", [lambda x, y, rng: x, lambda x, y, rng: (x[:3], y), lambda x, y, rng: (None, y)]
)
def test_an_augmentation_that_loses_samples_is_refused(wrong) -> None:
    x, y, *_ = digits(16)
    with pytest.raises(InputError, match="augment: wants"):
        trainer().fit(x, y, epochs=1, augment=wrong)


# ------------------------------------------------------------------ balance and stopping


def test_balanced_batches_draw_every_class_alike() -> None:
    y = np.array([0] * 90 + [1] * 7 + [2] * 3)
    picked = np.concatenate(list(data.balanced(y, 8, seed=3)))
    assert np.bincount(y[picked]).tolist() == [34, 34, 34]
    for c in (1, 2):
        times = np.bincount(picked, minlength=100)[y == c]
        assert times.max() - times.min() <= 1
    again = np.concatenate(list(data.balanced(y, 8, seed=3)))
    other = np.concatenate(list(data.balanced(y, 8, seed=3, epoch=1)))
    assert np.array_equal(picked, again) and not np.array_equal(picked, other)


def test_balance_finds_a_rare_class() -> None:
    x, y, test_x, test_y = digits(1400)
    rare = (y != 8) | (np.cumsum(y == 8) <= 4)
    recalls = []
    for balance in (False, True):
        one = trainer()
        one.fit(x[rare], y[rare], epochs=4, balance=balance)
        found = confusion.counts(test_y, one.predict(test_x).argmax(axis=1), 10)
        recalls.append(confusion.per_class(found, [str(k) for k in range(10)])[8]["recall"])
    assert recalls[1] > recalls[0] + 0.15
    with pytest.raises(InputError, match="balance: wants"):
        trainer(loss="soft_cross_entropy").fit(x, augment.shares(y, 10), balance=True)


def test_training_stops_where_nothing_is_gained_and_keeps_the_best() -> None:
    x, y, test_x, test_y = digits(60)
    one = trainer(optimizer=optim.SGD(0.05, momentum=0.9))
    seen = []
    history = one.fit(
        *(x, y),
        epochs=60,
        validation=(test_x, test_y),
        patience=3,
        on_step=lambda step, loss: seen.append(step),
    )
    assert len(history) < 60 and one.epoch == len(history)
    two = trainer(optimizer=optim.SGD(0.05, momentum=0.9))
    every = []
    for _ in history:
        two.fit(x, y, epochs=1)
        every.append(two.evaluate(test_x, test_y)["loss"])
    assert one.evaluate(test_x, test_y)["loss"] == min(every)
    assert every.index(min(every)) == len(every) - 4
    for given in ({"patience": 3}, {"validation": (x, y)}):
        with pytest.raises(InputError, match="go together"):
            one.fit(x, y, **given)
    with pytest.raises(InputError, match="at least 1"):
        one.fit(x, y, validation=(x, y), patience=0)


def test_a_learner_takes_the_same_options() -> None:
    x, y, test_x, test_y = digits(300)
    found = tt.adapt(models.build("digits_cnn", classes=4), "all", classes=list("abcdefghij"))
    names = np.array(list("abcdefghij"))
    found.fit(
        *(x, names[y]),
        epochs=30,
        balance=True,
        augment=augment.together(functools.partial(augment.shift, most=1)),
        validation=(test_x[:100], names[test_y[:100]]),
        patience=4,
    )
    assert found.evaluate(test_x[100:], names[test_y[100:]])["accuracy"] > 0.7
    counted = found.confusion(test_x, names[test_y])
    assert counted.sum() == len(test_x)


# ------------------------------------------------------------------ reports


def test_a_confusion_counts_and_reports() -> None:
    found = confusion.counts([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, 1], 3)
    assert found.tolist() == [[2, 1, 0], [0, 2, 0], [0, 1, 0]]
    cat, dog, eel = confusion.per_class(found, ["cat", "dog", "eel"])
    assert cat["recall"] == pytest.approx(2 / 3) and cat["precision"] == 1
    assert cat["mistaken_for"] == "dog" and cat["times"] == 1
    assert dog["precision"] == 0.5 and dog["mistaken_for"] is None
    assert eel["recall"] == 0 and eel["precision"] is None and eel["f1"] == 0
    shown = confusion.text(found, ["cat", "dog", "eel"])
    assert "66.7 %" in shown and "dog (1)" in shown and "label, answer:" in shown
    many = confusion.counts(np.arange(30), (np.arange(30) + 1) % 30, 30)
    assert "label, answer:" not in confusion.text(many, [f"c{k}" for k in range(30)])
    with pytest.raises(InputError, match="not among"):
        confusion.counts([0, 3], [0, 0], 3)
    root = ET.fromstring(confusion_svg("a < b", found, ["cat", "dog", "eel"]))
    cells = list(root.iter("{http://www.w3.org/2000/svg}rect"))
    assert len(cells) == 1 + 9


def test_eval_says_what_is_taken_for_what(tmp_path, capsys) -> None:
    x, y, *_ = digits(200)
    np.savez(tmp_path / "d.npz", x=x, y=y)
    one, path = trainer(), str(tmp_path / "it.npz")
    one.fit(x, y, epochs=1)
    one.save(path)
    svg = tmp_path / "it.svg"
    arguments = ["eval", path, "--data", str(tmp_path / "d.npz")]
    assert main([*arguments, "--svg", str(svg), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert np.sum(report["confusion"]) == 200 and len(report["per_class"]) == 10
    hits = np.trace(np.array(report["confusion"]))
    assert report["accuracy"] == pytest.approx(hits / 200)
    assert ET.parse(svg) is not None
    assert main(arguments) == 0
    assert "most often taken for" in capsys.readouterr().out


def test_eval_measures_an_adapted_network(tmp_path, capsys) -> None:
    x, y, test_x, test_y = digits(100)
    found = tt.adapt(models.build("digits_cnn"), "prototypes").fit(x, y)
    path = str(tmp_path / "it.npz")
    found.save(path)
    np.savez(tmp_path / "d.npz", x=test_x, y=test_y)
    assert main(["eval", path, "--data", str(tmp_path / "d.npz"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["accuracy"] == pytest.approx(found.evaluate(test_x, test_y)["accuracy"])
    assert np.sum(report["confusion"]) == len(test_x)


def test_standardized_weights_and_group_norm_learn_one_sample_at_a_time() -> None:
    """At batch 1, where batch norm has nothing to average over (Qiao et al. 2019)."""
    x, y, test_x, test_y = digits(300)
    with nn.seeded(0):
        conv = nn.Conv2d(1, 8, 3, padding=1, standardize=True)
        layers = [conv, nn.GroupNorm(2, 8), nn.ReLU(), nn.MaxPool2d(2)]
        net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 4 * 8, 10))
    net.input_shape = (8, 8, 1)
    one = tt.Trainer(net, optimizer=optim.SGD(0.01), batch=1)
    one.fit(x, y, epochs=4)
    assert one.evaluate(test_x, test_y)["accuracy"] > 0.8
