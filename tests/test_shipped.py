"""What ships trained, and the examples that use it: sizes, cards, known answers."""

from __future__ import annotations

import os
import wave
from pathlib import Path

import numpy as np
import pytest

import tinytrain as tt
from tinytrain import models
from tinytrain.bench import (
    example_characters,
    example_gestures,
    example_keywords,
    example_wavenet,
)
from tinytrain.models import shipped

MOST = 300 * 1024  # bytes of each
RATE = 8000


@pytest.mark.parametrize("name", models.pretrained_names())
def test_each_is_small_and_has_a_card(name):
    assert os.path.getsize(os.path.join(shipped.FOLDER, f"{name}.npz")) <= MOST
    for word in ("Network", "Data", "Licence", "Split", "Accuracy", "Made by"):
        assert f"**{word}" in models.card(name)


def test_spoken_digits_say_what_they_said():
    net = models.pretrained("spoken_digits")
    t = np.linspace(-1, 1, 48 * 32, dtype=np.float32).reshape(1, 48, 32, 1)
    x = np.sin(9 * t) * np.cos(70 * t)
    outputs = tt.Trainer(net, batch=1).predict(x)
    want = (-0.7622, 0.0895, -0.4956, -1.1657)
    np.testing.assert_allclose(outputs[0, :4], want, rtol=1e-3, atol=1e-3)
    assert net.classes == list(range(10))


def test_characters_lie_where_they_lay():
    net = models.pretrained("characters")
    y, x = np.mgrid[-1:1:28j, -1:1:28j].astype(np.float32)
    ring = np.exp(-(((np.hypot(x, y) - 0.6) / 0.1) ** 2))[None, ..., None]
    drawn = np.concatenate([ring, ring * (x < 0)[None, ..., None]])
    e = tt.Trainer(net, batch=1).predict((drawn - 0.1) / 0.25)
    np.testing.assert_allclose(e[0, :4], (0.2056, 0.3858, 0.0259, 0.3242), rtol=1e-3, atol=1e-3)
    assert ((e[0] - e[1]) ** 2).sum() > 1


def test_clothes_are_what_they_were():
    net = models.pretrained("clothes")
    y, x = np.mgrid[-1:1:28j, -1:1:28j].astype(np.float32)
    box = ((abs(x) < 0.5) & (abs(y) < 0.8)).astype(np.float32)[None, ..., None]
    outputs = tt.Trainer(net, batch=1).predict(box)
    want = (-0.0956, -2.7311, -0.9074, -2.6626)
    np.testing.assert_allclose(outputs[0, :4], want, rtol=1e-3, atol=1e-3)
    assert net.classes[outputs[0].argmax()] == "shirt"


def test_digits_are_told_by_five_of_each():
    """Of a network that never saw one; the nearest mean of pixels comes to 75 %."""
    assert example_characters.main(5) > 0.8


def write_words(folder: Path) -> None:
    """Three words of two vowels each, five times, by a voice that is never quite the same."""
    rng = np.random.default_rng(0)
    for word, (first, second) in {"ba": (500, 1500), "mu": (300, 800), "ki": (350, 2300)}.items():
        (folder / word).mkdir(parents=True)
        for k in range(5):
            t = np.arange(int(RATE * rng.uniform(0.35, 0.45))) / RATE
            pitch = rng.uniform(100, 140)
            partials = np.arange(1, 25) * pitch
            shape = sum(np.exp(-(((partials - f) / 150) ** 2)) for f in (first, second))
            voice = (shape[:, None] * np.sin(2 * np.pi * partials[:, None] * t)).sum(0)
            sound = 4000 * voice * np.sin(np.pi * t / t[-1]) + rng.normal(0, 20, len(t))
            with wave.open(str(folder / word / f"{k}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(RATE)
                file.writeframes(sound.astype("<i2").tobytes())


def test_words_of_ones_own_are_learned_by_three_files_each(tmp_path):
    write_words(tmp_path)
    assert example_keywords.main(str(tmp_path)) >= 5 / 6


@pytest.mark.parametrize("example", [example_gestures, example_wavenet])
def test_examples_learn(example):
    assert example.main() > 0.9
