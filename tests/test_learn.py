"""Networks that learn a user's few examples: their layers, their losses and what ships of them."""

from __future__ import annotations

import numpy as np
import pytest

import tinytrain as tt
from tinytrain import models, nn
from tinytrain.bench import learn
from tinytrain.data import strokes
from tinytrain.data.affine import affine, random_affine
from tinytrain.data.sound import LogMel
from tinytrain.models import shipped, train_characters, train_spoken
from tinytrain.models.train import Recipe

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def test_mean_and_maximum_of_each_channel_side_by_side():
    x = normal(2, 5, 4, 3)
    y = nn.GlobalAvgMaxPool2d()(x).data
    np.testing.assert_allclose(y[:, :3], x.mean((1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(y[:, 3:], x.max((1, 2)))
    tt.check.gradients(lambda x: nn.GlobalAvgMaxPool2d()(x), x)


def test_what_a_network_embeds_is_what_its_head_reads():
    net = models.build("spoken_cnn").eval()
    x = normal(3, 48, 32, 1)
    np.testing.assert_array_equal(net(x).data, net.layers[-1](net.embed(tt.Tensor(x)).relu()).data)


def test_a_wavenet_hears_nothing_before_it_is_said():
    """What comes later leaves every earlier output as it was."""
    net = models.build("wavenet", input_shape=(20, 4), channels=6)
    x = normal(1, 20, 4)
    later = x.copy()
    later[:, 12:] += 1
    seen, changed = ([b(tt.Tensor(a))[1].data for b in first(net)] for a in (x, later))
    for a, b in zip(seen, changed, strict=True):
        np.testing.assert_array_equal(a[:, :12], b[:, :12])
        assert abs(a[:, 12:] - b[:, 12:]).max() > 0


def first(net):
    """Each block right behind the first convolution."""
    return [lambda x, block=block: block(net.first(x)) for block in net.blocks]


def test_a_learned_scale_begins_where_it_should():
    net = models.build("character_cnn")
    flat = nn.Sequential(*net.layers[:-1])
    x = normal(2, 28, 28, 1)
    np.testing.assert_allclose(net(x).data, flat(x).data * 4 / np.sqrt(432), rtol=1e-5)


def test_a_state_that_begins_at_zero_is_no_reader_of_the_input():
    """A GRU's first state has no input of its own; its net is planned within a budget all the
    same."""
    net = models.build("stroke_gru", input_shape=(6, 4), hidden=8)
    whole = tt.plan(net, batch=4)
    tight = tt.plan(net, batch=4, ram=int(0.9 * whole.arena_bytes))
    assert tight.fits and tight.arena_bytes < whole.arena_bytes


# ---------------------------------------------------------------------------- random views


def test_an_affine_map_moves_what_it_should():
    x = normal(3, 6, 8, 2)
    same = np.tile(np.eye(2, 3, dtype=np.float32), (3, 1, 1))
    np.testing.assert_allclose(affine(x, same), x, atol=1e-6)
    mirrored = same * np.float32([[-1], [1]])
    np.testing.assert_allclose(affine(x, mirrored), x[:, :, ::-1], atol=1e-6)
    shifted = same.copy()
    shifted[:, 0, 2] = 2 / 8  # one pixel
    moved = affine(x, shifted, background=7.0)
    np.testing.assert_allclose(moved[:, :, :-1], x[:, :, 1:], atol=1e-5)
    np.testing.assert_allclose(moved[:, :, -1], 7.0, atol=1e-5)


def test_a_quarter_turn_is_numpys():
    x = normal(2, 7, 7, 1)
    turn = np.tile(np.float32([[0, -1, 0], [1, 0, 0]]), (2, 1, 1))
    np.testing.assert_allclose(affine(x, turn), np.rot90(x, 1, (1, 2)), atol=1e-5)
    with pytest.raises(tt.InputError, match=r"matrices \(1, 2, 3\)"):
        affine(x, turn[:1])


def test_random_maps_stay_within_what_was_asked():
    m = random_affine(500, np.random.default_rng(0), turn=10, scale=0.1, shear=0.1, shift=0.05)
    assert m.shape == (500, 2, 3) and abs(m[:, :, 2]).max() <= 0.1
    size = np.linalg.det(m[:, :, :2])
    assert 1 / 1.1**2 < size.min() < 0.95 and 1.05 < size.max() < 1 / 0.9**2


def circle(count: int) -> np.ndarray:
    angle = 2 * np.pi * np.linspace(0, 1, count) ** 2  # slow at first
    return np.stack([5 + 3 * np.cos(angle), 3 * np.sin(angle)], 1)


def test_a_stroke_is_even_and_in_its_box():
    points = strokes.resample(circle(300), 96)
    assert points.min() == pytest.approx(-1, abs=1e-3) and points.max() == pytest.approx(
        1, abs=1e-3
    )
    steps = np.hypot(*np.diff(points, axis=0).T)
    assert steps.max() < 1.02 * steps.min()
    with pytest.raises(tt.InputError, match="never moves"):
        strokes.resample(np.zeros((5, 2)))


def test_a_picture_of_a_stroke_has_ink_where_it_went():
    line = np.stack([np.linspace(-1, 1, 96), np.zeros(96)], 1).astype(np.float32)[None]
    ink, time, right, down = np.moveaxis(strokes.raster(line, 25)[0], -1, 0)
    assert ink[12, 1:-1].min() > 0.5 * ink.max() and ink[:8].max() < 0.01
    assert time[12, 2] < -0.5 < 0.5 < time[12, -3]
    np.testing.assert_allclose(right, ink, atol=1e-4)
    np.testing.assert_allclose(down, 0, atol=1e-5)
    assert strokes.sequence(line).shape == (1, 48, 4)


def test_another_hand_draws_nearly_the_same():
    points = np.tile(strokes.resample(circle(200)), (20, 1, 1))
    drawn = strokes.varied(points, np.random.default_rng(0))
    assert drawn.shape == points.shape
    apart = np.hypot(*np.moveaxis(drawn - points, -1, 0)).mean()
    assert 0.02 < apart < 0.4


# ---------------------------------------------------------------------------- training


def spoken(count: int = 12) -> train_spoken.Speech:
    """Tones that stand for words."""
    front, rng = LogMel(), np.random.default_rng(0)
    digit = np.arange(count, dtype=np.int32) % 3
    t = np.arange(3000) / front.rate
    sounds = [np.sin(2 * np.pi * 400 * (1 + k) * t) + rng.normal(0, 0.1, 3000) for k in digit]
    spans = [front.power(s) for s in sounds]
    offset = np.cumsum([0, *(len(s) for s in spans)])
    speaker, index = np.arange(count, dtype=np.int32) // 6, np.arange(count, dtype=np.int32) % 6
    power = np.concatenate(spans).astype(np.float32)
    return train_spoken.Speech(power, offset, digit, speaker, index, ["a", "b"], front)


def test_random_pictures_of_an_utterance_are_still_of_it():
    speech = spoken()
    pick = np.arange(len(speech))
    plain = speech.pictures(pick)
    drawn = train_spoken.Augmentation(speech)(pick, np.random.default_rng(0))
    assert drawn.shape == plain.shape == (12, 48, 32, 1) and drawn.dtype == np.float32
    assert np.isfinite(drawn).all() and abs(drawn - plain).max() > 0.1
    loudest = (x.mean(1)[:, :, 0].argmax(1) for x in (drawn, plain))
    assert (abs(np.subtract(*loudest)) <= 4).sum() >= 10


def test_who_is_left_out_is_not_picked():
    speech = spoken()
    assert set(speech.speaker[speech.pick([0])]) == {0}
    np.testing.assert_array_equal(speech.pick([1], 1, 3), [7, 8])
    np.testing.assert_array_equal(speech.pick([0, 1], digits=[2]), [2, 5, 8, 11])


def test_the_one_shot_loss_is_the_formulas():
    """Every drawing in turn is the example; -log softmax over minus squared distances."""
    ways, drawings = train_characters.WAYS, train_characters.DRAWINGS
    e = normal(ways * drawings, 5)
    got = train_characters.one_shot_loss(tt.Tensor(e), *map(tt.Tensor, train_characters.labels()))
    sets = e.reshape(drawings, ways, 5).astype(np.float64)
    losses = []
    for a in range(drawings):
        for b in set(range(drawings)) - {a}:
            close = -((sets[b][:, None] - sets[a][None]) ** 2).sum(2)
            logs = close - np.log(np.exp(close).sum(1, keepdims=True))
            losses.append(-np.diag(logs).mean())
    assert float(got.data) == pytest.approx(np.mean(losses), rel=1e-4)


def test_an_episode_is_learned_and_has_no_accuracy():
    """Its labels are of a shape of their own, so that largest outputs mean nothing."""
    n = train_characters.WAYS * train_characters.DRAWINGS
    net = models.build("character_cnn", widths=(8, 8, 8, 8))
    labels = [tt.Spec((train_characters.DRAWINGS,), "int32"), tt.Spec((train_characters.DRAWINGS,))]
    trainer = tt.Trainer(
        net,
        loss=train_characters.one_shot_loss,
        optimizer=tt.optim.AdamW(lr=3e-3),
        batch=n,
        microbatch=n,
        label_spec=labels,
    )
    x, y = normal(n, 28, 28, 1), train_characters.labels()
    losses = [trainer.step(x, y) for _ in range(4)]
    assert losses[-1] < losses[0]
    assert list(trainer.evaluate(x, y)) == ["loss"]


# ---------------------------------------------------------------------------- what ships


def test_a_network_is_written_and_read_again(tmp_path):
    net = models.build("stroke_cnn", classes=3, seed=1)
    shipped.save(net, tmp_path / "a.npz", ["x", "y", "z"])
    again = shipped.read(tmp_path / "a.npz")
    assert again.classes == ["x", "y", "z"]
    for name, a in net.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], a)
    with pytest.raises(tt.InputError, match="no pretrained network 'abc'"):
        models.pretrained("abc")
    (tmp_path / "b.npz").write_bytes(b"none")
    with pytest.raises(tt.InputError, match=r"b\.npz"):
        shipped.read(tmp_path / "b.npz")
    with pytest.raises(tt.InputError, match="zoo"):
        shipped.save(nn.Sequential(nn.ReLU()), tmp_path / "c.npz")


def test_voices_are_mixed_with_the_same_word_alone():
    rng = np.random.default_rng(0)
    y = np.array([0, 1, 0, 1, 2], np.int32)
    x = rng.normal(size=(5, 4, 3, 1)).astype(np.float32)
    x -= x.mean((1, 2), keepdims=True)
    seen = np.zeros(5, bool)
    for _ in range(20):
        mixed = train_spoken.among_voices(x, y, rng)
        assert abs(mixed.mean((1, 2))).max() < 1e-6
        for k, other in ((0, 2), (2, 0), (1, 3), (3, 1), (4, 4)):
            toward, moved = (x[other] - x[k]).ravel(), (mixed[k] - x[k]).ravel()
            share = moved @ toward / max(toward @ toward, 1e-9)
            assert -1e-6 <= share <= 0.5
            np.testing.assert_allclose(moved, share * toward, atol=1e-5)
            seen[k] |= share > 0.01
    assert seen.tolist() == [True] * 4 + [False]


def test_a_recipe_is_run_to_its_end():
    recipe = Recipe(epochs=3, batch=4, rate=1e-2, decay=0.01)
    net, drawn = models.build("mlp", input_shape=(3,), hidden=(4,), classes=2), []
    x, y = normal(10, 3), np.arange(10, dtype=np.int32) % 2

    def draw(pick):
        drawn.extend(pick.tolist())
        return x[pick], y[pick]

    trainer = recipe(net, 10, draw, backend="numpy")
    assert trainer.steps == 6 and len(drawn) == 24 and set(drawn) == set(range(10))
    assert trainer.optimizer.schedule(6) == pytest.approx(0, abs=1e-9)
    assert max(map(trainer.optimizer.schedule, range(6))) == pytest.approx(1e-2)


def test_a_missed_goal_is_marked():
    rows = [learn.Row("a", 0.9, 0.5, 0.95, "0"), learn.Row("b", 0.95, None, 0.95, "0", "n")]
    first, second = learn.text(rows).splitlines()[-2:]
    assert "missed" in first and "missed" not in second and "95.0 %" in second


def test_networks_are_kept(tmp_path):
    made = []

    def make():
        made.append(1)
        return models.build("mlp", hidden=(3,))

    kept = learn.Nets(str(tmp_path / "nets"))
    first, second = kept("a", make), kept("a", make)
    assert made == [1] and list(kept.seconds) == ["a"]
    for name, a in first.state_dict().items():
        np.testing.assert_array_equal(second.state_dict()[name], a)
