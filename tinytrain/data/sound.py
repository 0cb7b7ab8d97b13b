"""Sound as pictures: log-mel energies (and MFCC) of one utterance, in NumPy alone.

No files are read here (`data.load` reads WAV) and nothing is resampled: another rate is refused.
`kernels/c/tt_logmel.c` computes the same in float32 for boards.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tinytrain.errors import InputError

Array = NDArray[np.floating[Any]]

MARGIN = 2  # frames kept on either side of what is loud
CLIPPED = 0.01  # share of samples that repeat a limit from which clipping is named


@dataclass(frozen=True)
class LogMel:
    """What turns an utterance into a picture (frames, bands, 1), float32, with mean zero.

    rate       samples a second.
    window     samples of a frame under a Hann window, a power of two; hop: samples between frames.
    bands      triangles, equally spaced in mel (O'Shaughnessy 1987) from `low` to `high` Hz.
    frames     of the picture: the utterance lies in its middle, at a fixed scale of time.
    emphasis   of high frequencies: x[t] - emphasis * x[t - 1].
    quiet      dB below the loudest frame; what is quieter at either end is cut off.
    floor      added to the energies, as a share of their mean, before the logarithm.
    """

    rate: int = 8000
    window: int = 256
    hop: int = 100
    bands: int = 32
    low: float = 60.0
    high: float = 3900.0
    frames: int = 48
    emphasis: float = 0.97
    quiet: float = 35.0
    floor: float = 1e-4

    def __post_init__(self) -> None:
        if self.window < 8 or self.window & (self.window - 1):
            raise InputError(f"LogMel: window is {self.window}; wants a power of two from 8")
        if min(self.hop, self.bands, self.frames) < 1:
            raise InputError("LogMel: hop, bands and frames want to be at least 1")
        if not 0 <= self.low < self.high <= self.rate / 2:
            raise InputError(
                f"LogMel: bands from {self.low} to {self.high} Hz; want 0 <= low < high <= "
                f"{self.rate / 2:.0f}, half the rate"
            )

    def __call__(self, sound: Any, rate: int | None = None) -> NDArray[np.float32]:
        """The picture of one utterance (samples,) or (samples, 1), integers or floats.

        InputError for silence, no samples, values that are not finite, or another `rate`; warns
        (UserWarning) of clipping.
        """
        energies = self.power(sound, rate) @ self.filters()
        return self.picture(energies)[..., None]

    def power(self, sound: Any, rate: int | None = None) -> Array:
        """|FFT|^2 of the frames of the utterance, (time, window / 2 + 1), silence cut off."""
        x = _checked(sound)
        if rate is not None and rate != self.rate:
            raise InputError(f"sound: {rate} Hz, wants {self.rate} Hz; resample it first")
        x = np.pad(x - x.mean(), (0, max(self.window - len(x), 0)))
        x[1:] -= self.emphasis * x[:-1]
        frames = sliding_window_view(x, self.window)[:: self.hop] * hann(self.window)
        level = (frames * frames).sum(1)
        loud = np.flatnonzero(level >= level.max() * 10 ** (-self.quiet / 10))
        kept = frames[max(loud[0] - MARGIN, 0) : loud[-1] + MARGIN + 1]
        spectrum = np.fft.rfft(kept)
        return spectrum.real**2 + spectrum.imag**2

    def filters(self, warp: float = 1.0) -> Array:
        """The triangles, (window / 2 + 1, bands); `warp` scales their frequencies, as a longer or
        shorter vocal tract does (Jaitly and Hinton 2013)."""
        edges = np.linspace(_mel(self.low), _mel(self.high), self.bands + 2)
        hertz = 700 * (np.exp(edges / 1127) - 1) * warp
        bins = np.arange(self.window // 2 + 1) * (self.rate / self.window)
        left, centre, right = hertz[:-2], hertz[1:-1], hertz[2:]
        rising = (bins[:, None] - left) / (centre - left)
        falling = (right - bins[:, None]) / (right - centre)
        return np.maximum(np.minimum(rising, falling), 0)

    def picture(self, energies: Array) -> NDArray[np.float32]:
        """Log energies (time, bands) in the middle of (frames, bands), with mean zero."""
        surplus = len(energies) - self.frames
        if surplus > 0:
            energies = energies[surplus // 2 : surplus // 2 + self.frames]
        logs = np.log(energies + self.floor * energies.mean())
        full = np.full((self.frames, self.bands), logs.min())
        begin = max(-surplus, 0) // 2
        full[begin : begin + len(logs)] = logs
        return ((full - full.mean()) / 2).astype(np.float32)


def mfcc(picture: Array, coefficients: int = 13) -> NDArray[np.float32]:
    """Cepstral coefficients (frames, coefficients, 1) of a log-mel picture (frames, bands[, 1]):
    its orthonormal cosine transform along the bands (Davis and Mermelstein 1980)."""
    logs = np.asarray(picture).reshape(len(picture), -1)
    bands = logs.shape[1]
    if not 1 <= coefficients <= bands:
        raise InputError(f"mfcc: {coefficients} coefficients of {bands} bands")
    k, n = np.arange(coefficients), np.arange(bands)
    basis = np.cos(math.pi / bands * (n[:, None] + 0.5) * k) * math.sqrt(2 / bands)
    basis[:, 0] /= math.sqrt(2)
    return (logs @ basis).astype(np.float32)[..., None]


def hann(size: int) -> Array:
    """The periodic Hann window."""
    return 0.5 - 0.5 * np.cos(2 * math.pi / size * np.arange(size))


def _mel(hertz: float) -> float:
    return 1127 * math.log1p(hertz / 700)


def _checked(sound: Any) -> Array:
    """One channel as float64, in a new array; InputError where there is nothing to hear."""
    x = np.asarray(sound)
    if x.ndim == 2 and x.shape[1] == 1:
        x = x[:, 0]
    if x.ndim != 1 or x.dtype.kind not in "fiu":
        raise InputError(f"sound: got {x.dtype}{x.shape}; wants the samples of one channel")
    if not len(x):
        raise InputError("sound: holds no samples; record it again")
    x = x.astype(np.float64)
    if not np.isfinite(x).all():
        raise InputError("sound: some samples are not finite; record it again")
    if x.max() == x.min():
        raise InputError("sound: silence, every sample is the same; is the microphone on?")
    flat = x[1:][x[1:] == x[:-1]]
    share = ((flat == x.max()) | (flat == x.min())).sum() / len(x)
    if share > CLIPPED:
        said = f"sound: {100 * share:.0f} % of the samples stay at the limit, it is clipped"
        warnings.warn(said, stacklevel=4)
    return x
