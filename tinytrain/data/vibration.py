"""A machine's vibration, synthesised: a rotor in ball bearings, whole or with a pitted outer race.

Physics (McFadden and Smith 1984; Randall and Antoni 2011). A ball meets the pit
    balls / 2 * (1 - ball / pitch * cos(contact)) times a turn,
give or take some slip, and rings the housing's resonance: a decaying sine. A healthy machine has
the turn's harmonics, the gears' mesh with its sidebands, and noise, part of it through the same
resonance, for bearings are never silent. Speed and levels differ by recording, as does the
sensor's gain. It stands in for no particular machine, and no figure on it says how one would fare.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tinytrain.data.sound import hann
from tinytrain.errors import InputError

FRAME, BINS = 640, 320  # samples of a frame; values of each spectrum
QUIET = 1e-9  # added to a power before its logarithm


@dataclass(frozen=True)
class Bearing:
    """A 6205 at about 1,740 turns a minute, 12,000 samples a second.

    turns       per second, in the middle of `speed` (a share up and down, by recording) with a
                slow drift within a recording.
    ball, pitch diameters in mm; contact in degrees.
    slip        deviation of the time between two impacts, as a share.
    resonance   Hz, and damping as a share of the critical.
    teeth       of the gear: its mesh is at teeth * turns Hz.
    """

    rate: int = 12000
    turns: float = 29.0
    speed: float = 0.08
    drift: float = 0.01
    balls: int = 9
    ball: float = 7.94
    pitch: float = 39.04
    contact: float = 0.0
    slip: float = 0.015
    resonance: float = 3200.0
    damping: float = 0.04
    teeth: int = 21

    @property
    def impacts(self) -> float:
        """Of balls on a pit in the outer race, per turn."""
        angle = math.cos(math.radians(self.contact))
        return self.balls / 2 * (1 - self.ball / self.pitch * angle)

    def record(
        self, seed: int | tuple[int, ...], seconds: float = 1.0, pit: float = 0.0
    ) -> NDArray[np.float32]:
        """One recording (samples,), the same for the same seed.

        pit  height of an impact's first swing, as a multiple of the healthy vibration's root mean
             square; 0 is a whole bearing.
        """
        if not pit >= 0 or not seconds > 0:
            raise InputError(f"vibration: pit is {pit!r}, seconds {seconds!r}; want >= 0 and > 0")
        rng = np.random.default_rng(seed)
        phase = self._phase(rng, round(seconds * self.rate))
        x = self._healthy(rng, phase)
        level = x.std()
        if pit:
            hits = self._impacts(rng, phase) * (pit * level)
            x += np.convolve(hits, self._ring())[: len(x)]
        gain = rng.uniform(0.5, 2) / level
        return (gain * x).astype(np.float32)

    def _phase(self, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        """Turns since the beginning, at each sample."""
        mean = self.turns * (1 + self.speed * rng.uniform(-1, 1))
        time = np.arange(n) / self.rate
        wander = self.drift * np.sin(2 * np.pi * (rng.uniform(0.2, 1) * time + rng.random()))
        return rng.random() + np.cumsum(mean * (1 + wander)) / self.rate

    def _healthy(self, rng: np.random.Generator, phase: NDArray[np.float64]):
        """Harmonics, mesh, and noise: plain, and through the resonance."""

        def tone(order: float, height: float) -> NDArray[np.float64]:
            return height * np.sin(2 * np.pi * (order * phase + rng.random()))

        x = rng.uniform(0.1, 0.3) * rng.standard_normal(len(phase))
        for order, height in ((1, 1.0), (2, 0.5), (3, 0.25)):
            x += tone(order, height * rng.uniform(0.5, 1.5))
        mesh = rng.uniform(0.2, 0.6)
        for side, height in ((0, 1.0), (-1, 0.3), (1, 0.3)):
            x += tone(self.teeth + side, mesh * height)
        ring = self._ring()
        noise = np.convolve(rng.standard_normal(len(phase)), ring)[: len(phase)]
        return x + rng.uniform(0.1, 0.3) * noise / np.sqrt((ring**2).sum())

    def _ring(self) -> NDArray[np.float64]:
        """The housing's answer to an impact, until a thousandth is left."""
        pole = 2 * np.pi * self.resonance
        time = np.arange(round(self.rate * math.log(1000) / (pole * self.damping))) / self.rate
        swing = np.sin(pole * math.sqrt(1 - self.damping**2) * time)
        return np.exp(-self.damping * pole * time) * swing

    def _impacts(self, rng: np.random.Generator, phase: NDArray[np.float64]):
        """A number at each sample where a ball meets the pit, one on average; else zero."""
        count = int((phase[-1] - phase[0]) * self.impacts * (1 + 4 * self.slip)) + 2
        between = (1 + self.slip * rng.standard_normal(count)) / self.impacts
        when = phase[0] + rng.random() / self.impacts + np.cumsum(between) - between[0]
        at = np.searchsorted(phase, when)
        hits = np.zeros(len(phase))
        at = at[at < len(hits)]
        hits[at] = rng.lognormal(-0.02, 0.2, len(at))
        return hits


def spectra(
    sound: Any, rate: int = 12000, band: tuple[float, float] = (1500.0, 5500.0)
) -> NDArray[np.float32]:
    """What tells a pit: (640,) float32, the logarithms of two power spectra of one recording.

    First 320 bins, up to half the rate, of Hann frames of 640 samples (Welch 1967), whatever the
    gain. Then 320 bins, each of two lines from 1 / seconds Hz on (2 to 641 Hz for a second), of the
    squared envelope within `band`, Hz: where a resonance rings, impacts too small to be heard show
    as a line at their rate and its multiples.
    InputError for a recording that is shorter than 1,300 samples, silent or not finite.
    """
    x = np.asarray(sound, np.float64)
    if x.ndim != 1 or len(x) < 4 * BINS + 20:
        raise InputError(f"spectra: got shape {x.shape}; wants at least {4 * BINS + 20} samples")
    if not np.isfinite(x).all() or x.max() == x.min():
        raise InputError("spectra: the recording is silent, or not finite; is the sensor on?")
    x = (x - x.mean()) / x.std()
    frames = sliding_window_view(x, FRAME)[:: FRAME // 2] * hann(FRAME)
    power = (np.abs(np.fft.rfft(frames)) ** 2).mean(0)[1 : BINS + 1]
    lines = np.fft.fft(x)
    hertz = np.fft.fftfreq(len(x), 1 / rate)
    lines[(hertz < band[0]) | (hertz > band[1])] = 0  # the other half too: an analytic signal
    envelope = np.abs(np.fft.ifft(lines)) ** 2
    envelope = (envelope / envelope.mean() - 1) * hann(len(x))
    beats = np.abs(np.fft.rfft(envelope)[1 : 2 * BINS + 1]) ** 2
    both = np.concatenate([power, beats.reshape(BINS, 2).mean(1)])
    return np.log(both + QUIET).astype(np.float32)
