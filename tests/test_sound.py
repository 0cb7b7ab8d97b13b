"""Sound as pictures: the front end in NumPy, the same in C, and what it says of bad sound."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tinytrain.data.sound import LogMel, hann, mfcc
from tinytrain.errors import InputError
from tinytrain.kernels import c_
from tinytrain.ports.c99 import front_end

RATE = 8000
STRICT = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion")


def utterance(seconds: float, seed: int = 0, level: float = 3000.0) -> np.ndarray:
    """Harmonics of a gliding voice that swell and fade, in noise, with silence around them."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(120 + 60 * t / t[-1]) / RATE
    voice = sum(np.sin(k * phase) / k for k in range(1, 15)) * np.sin(np.pi * t / t[-1]) ** 2
    silence = np.zeros(RATE // 5)
    sound = np.concatenate([silence, voice, silence])
    return (level * sound + rng.normal(0, level / 300, len(sound)) + 40).astype(np.int16)


def test_a_tone_lights_its_own_band():
    front = LogMel()
    for hertz in (300, 1000, 2500):
        tone = np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE)
        picture = front(tone)[..., 0]
        bin_ = round(hertz * front.window / front.rate)
        assert picture.mean(0).argmax() == front.filters()[bin_].argmax()


def test_a_picture_has_mean_zero_and_knows_no_level():
    sound = utterance(0.4)
    picture = LogMel()(sound)
    assert picture.shape == (48, 32, 1) and picture.dtype == np.float32
    assert abs(picture.mean()) < 1e-6
    np.testing.assert_allclose(LogMel()(sound * 1e-4), picture, atol=1e-6)
    np.testing.assert_allclose(LogMel()(sound[:, None], rate=RATE), picture, atol=0)


def test_silence_around_an_utterance_moves_nothing():
    sound = utterance(0.4)
    around = np.pad(sound, (7 * 100, 1300), constant_values=40)
    np.testing.assert_allclose(LogMel()(around), LogMel()(sound), atol=2e-2)


def test_power_is_the_spectrum_of_each_frame():
    front = LogMel(emphasis=0.0, quiet=1000.0)
    sound = np.random.default_rng(0).normal(size=900)
    power = front.power(sound)
    frame = (sound - sound.mean())[200 : 200 + 256] * hann(256)
    k = np.arange(129)[:, None] * np.arange(256)
    want = abs((frame * np.exp(-2j * np.pi * k / 256)).sum(1)) ** 2
    np.testing.assert_allclose(power[2], want, rtol=1e-9)


def test_cepstra_of_every_order_keep_the_energy():
    picture = LogMel()(utterance(0.3))
    whole = mfcc(picture, 32)
    np.testing.assert_allclose((whole**2).sum(), (picture**2).sum(), rtol=1e-5)
    np.testing.assert_allclose(mfcc(picture, 13), whole[:, :13], atol=1e-5)
    with pytest.raises(InputError, match="33 coefficients of 32 bands"):
        mfcc(picture, 33)


@pytest.mark.parametrize(
    ("sound", "says"),
    [
        (np.zeros(0), "no samples"),
        (np.full(4000, 7), "silence"),
        (np.array([0.0, np.nan]), "not finite"),
        (np.zeros((100, 2)), "one channel"),
        (np.array(["a"]), "one channel"),
    ],
)
def test_what_is_no_sound_is_said_to_be_none(sound, says):
    with pytest.raises(InputError, match=says):
        LogMel()(sound)


def test_another_rate_and_clipping_are_named():
    with pytest.raises(InputError, match="16000 Hz, wants 8000"):
        LogMel()(utterance(0.3), rate=16000)
    with pytest.warns(UserWarning, match="clipped"):
        LogMel()(np.clip(utterance(0.3), -300, 300))
    with pytest.raises(InputError, match="power of two"):
        LogMel(window=200)
    with pytest.raises(InputError, match="half the rate"):
        LogMel(high=5000.0)


def test_the_same_in_c(tmp_path: Path):
    """Within 1e-4 of a picture's unit, and word for word the same verdict on silence."""
    if c_.compiler() is None:
        pytest.skip("a C compiler is missing")
    front = LogMel()
    front_end.export(front, tmp_path)
    source = tmp_path / "hear.c"
    source.write_text(
        '#include "front_end.h"\n'
        "int hear(const int16_t *s, int32_t n, float *x);\n"
        "int hear(const int16_t *s, int32_t n, float *x) {\n"
        "    return tt_log_mel(&front_end, s, n, front_end_work, x);\n}\n"
    )
    made = tmp_path / "hear.so"
    files = [str(source), str(tmp_path / "tt_logmel.c")]
    command = [c_.compiler(), *STRICT, "-fPIC", "-shared", "-o", str(made), *files]
    subprocess.run(command, check=True)
    hear = ctypes.CDLL(str(made)).hear
    x = np.zeros((48, 32), np.float32)

    def heard(sound: np.ndarray) -> int:
        held = np.ascontiguousarray(sound, np.int16)
        return hear(
            held.ctypes.data_as(ctypes.c_void_p), len(held), x.ctypes.data_as(ctypes.c_void_p)
        )

    for seconds, seed, level in ((0.3, 0, 3000), (0.7, 1, 30000), (2.0, 2, 500), (0.02, 3, 9000)):
        sound = utterance(seconds, seed, level)
        assert heard(sound) == 0
        np.testing.assert_allclose(x, front(sound)[..., 0], atol=1e-4)
    assert heard(utterance(0.3)[2000:2100]) == 0  # shorter than a frame
    np.testing.assert_allclose(x, front(utterance(0.3)[2000:2100])[..., 0], atol=1e-4)
    assert heard(np.full(500, 7)) == heard(np.zeros(0)) == 1
