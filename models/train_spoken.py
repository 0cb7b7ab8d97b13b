"""Train the spoken-digit network on some speakers of FSDD; who is left out is in no part of it.
`python -m tinytrain.models.train_spoken --data FOLDER --save FILE` makes the network that ships.

FSDD (Jackson, Souza et al.): fsdd.npz holds the recordings end to end (`audio`, int16, 8 kHz) with
`offset`, `digit`, `speaker` and `index`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tinytrain import Trainer, models, nn
from tinytrain.data.sound import LogMel
from tinytrain.models import shipped
from tinytrain.models.train import Recipe, parser

RECIPE = Recipe(epochs=48, batch=64, rate=3e-3, decay=0.02)
MIXED = 0.5  # share of pictures that are mixed with another of the same word
WARPS = 13  # vocal tracts of different lengths
OTHERS, OWN = (0.82, 1.22), (0.95, 1.05)  # shortest and longest: others', and one's own


@dataclass
class Speech:
    """Utterances as power spectra, end to end: utterance k is power[offset[k]:offset[k + 1]]."""

    power: np.ndarray
    offset: np.ndarray
    digit: np.ndarray
    speaker: np.ndarray
    index: np.ndarray
    names: list[str]
    front: LogMel = field(default_factory=LogMel)

    def __len__(self) -> int:
        return len(self.digit)

    def pick(self, speakers: Any, low: int = 0, high: int = 50, digits: Any = range(10)) -> Any:
        """Numbers of the utterances of these speakers and digits with low <= index < high."""
        mine = np.isin(self.speaker, speakers) & np.isin(self.digit, digits)
        return np.flatnonzero(mine & (self.index >= low) & (self.index < high))

    def pictures(self, pick: Any) -> np.ndarray:
        """(N, frames, bands, 1) without augmentation, as a board would see them."""
        filters = self.front.filters()
        spans = [self.power[self.offset[k] : self.offset[k + 1]] for k in pick]
        return np.stack([self.front.picture(s @ filters) for s in spans])[..., None]


def load(path: Any, front: LogMel | None = None) -> Speech:
    """The utterances of fsdd.npz through the front end."""
    front = front or LogMel()
    with np.load(path) as held:
        audio, ends = held["audio"], held["offset"]
        found = {name: held[name].astype(np.int32) for name in ("digit", "speaker", "index")}
        names = [str(name) for name in held["speaker_names"]]
    spans = [front.power(audio[a:b]) for a, b in itertools.pairwise(ends)]
    offset = np.cumsum([0, *(len(s) for s in spans)])
    return Speech(
        np.concatenate(spans).astype(np.float32), offset, **found, names=names, front=front
    )


class Augmentation:
    """Random pictures of utterances: another vocal tract (`warp` times as long, from and to),
    speed, place, noise, room and gaps."""

    def __init__(self, speech: Speech, warp: tuple[float, float] = OTHERS):
        self.speech = speech
        warps = np.exp(np.linspace(np.log(warp[0]), np.log(warp[1]), WARPS))
        self.filters = np.stack([speech.front.filters(w) for w in warps]).astype(np.float32)
        self.plain = speech.front.filters().astype(np.float32)

    def __call__(self, pick: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(N, frames, bands, 1), a new draw of each."""
        energies, heard = self._stretched(pick, rng)
        filters = self.filters[rng.integers(0, WARPS, len(pick))]
        filters[rng.random(len(pick)) >= 0.7] = self.plain
        mels = energies @ filters
        mean = mels.sum((1, 2), keepdims=True) / (heard.sum((1, 2), keepdims=True) * mels.shape[2])
        logs = np.log(mels + self._noise(mels.shape, mean, rng) + self.speech.front.floor * mean)
        least = np.where(heard, logs, np.inf).min((1, 2), keepdims=True)
        logs = np.where(heard, logs, least)
        logs += self._room(logs.shape, rng)
        logs -= logs.mean((1, 2), keepdims=True)
        return (_masked(logs, rng) / 2).astype(np.float32)[..., None]

    def _stretched(self, pick: np.ndarray, rng: np.random.Generator) -> tuple[Any, Any]:
        """Power at another speed (up to e^.25) and place (4 frames); where there is any."""
        frames, n = self.speech.front.frames, len(pick)
        begin = self.speech.offset[pick][:, None]
        length = self.speech.offset[pick + 1][:, None] - begin
        speed = np.exp(rng.uniform(-0.25, 0.25, (n, 1)))
        shift = rng.integers(-4, 5, (n, 1))
        at = (np.arange(frames) - (frames - 1) / 2 + shift) * speed + (length - 1) / 2
        heard = (at >= 0) & (at <= length - 1)
        at = np.clip(at, 0, length - 1)
        low = np.floor(at).astype(np.int64)
        share = (at - low).astype(np.float32)[..., None]
        power = self.speech.power
        low_power = power[begin + low]
        next_power = power[begin + np.minimum(low + 1, length - 1)]
        mixed = (low_power + share * (next_power - low_power)) * heard[..., None]
        return mixed, heard[..., None]

    def _noise(self, shape: tuple, mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A steady noise 10 to 45 dB below the utterance, with a slope over the bands."""
        level = 10 ** rng.uniform(-4.5, -1.0, (shape[0], 1, 1))
        slope = rng.normal(0, 1.0, (shape[0], 1, 1)) * np.linspace(-1, 1, shape[2])
        return mean * level * np.exp(slope) * rng.uniform(0.5, 1.5, shape)

    def _room(self, shape: tuple, rng: np.random.Generator) -> np.ndarray:
        """A smooth equaliser in log units: a slope and one wave over the bands."""
        n, band = shape[0], np.linspace(-1, 1, shape[2])
        waves = np.cos(np.pi * rng.uniform(0.5, 2.0, (n, 1, 1)) * band + _phase(rng, n))
        return 0.5 * rng.normal(size=(n, 1, 1)) * band + 0.4 * rng.normal(size=(n, 1, 1)) * waves


def _phase(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.uniform(0, 2 * np.pi, (n, 1, 1))


def _masked(logs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Up to 6 frames and up to 5 bands at the mean (SpecAugment, Park et al. 2019)."""
    n, frames, bands = logs.shape
    for size, most, shape in ((frames, 6, (n, frames, 1)), (bands, 5, (n, 1, bands))):
        width = rng.integers(0, most + 1, (n, 1))
        begin = rng.integers(0, size - width + 1)
        at = np.arange(size)
        logs = logs * ~((at >= begin) & (at < begin + width)).reshape(shape)
    return logs


def among_voices(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Some of the pictures (N, frames, bands, 1) mixed with another of the batch that has the same
    label, which weighs up to half: voices between those that were heard."""
    other = np.arange(len(y))
    for label in np.unique(y):
        same = np.flatnonzero(y == label)
        other[same] = rng.permutation(same)
    some = rng.random(len(y)) < MIXED
    share = np.where(some, rng.uniform(0.0, 0.5, len(y)), 0.0).astype(np.float32)
    mixed = x + share[:, None, None, None] * (x[other] - x)
    return mixed - mixed.mean((1, 2), keepdims=True)


def pretrain(
    speech: Speech,
    pick: np.ndarray,
    seed: int = 0,
    words: Sequence[int] = range(10),
    recipe: Recipe = RECIPE,
    backend: str = "auto",
) -> nn.Module:
    """A SpokenCNN of these `words` (digits), trained on the utterances `pick` and no others."""
    net = models.build("spoken_cnn", classes=len(words), seed=seed)
    columns = np.searchsorted(words, speech.digit)
    augmented, rng = Augmentation(speech), np.random.default_rng([seed, 1])

    def draw(k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y = columns[pick[k]]
        return among_voices(augmented(pick[k], rng), y, rng), y

    recipe(net, len(pick), draw, seed, backend)
    return net


def main() -> None:
    """All of it: five speakers train, the sixth says how well; then the network that ships."""
    options = {"save": "spoken_digits.npz", "left_out": 5}  # speaker (0 to 5) not trained on
    given = parser(__doc__, "fsdd.npz", **options).parse_args()
    speech = load(Path(given.data) / "fsdd.npz")
    others = [k for k in range(len(speech.names)) if k != given.left_out]
    net = pretrain(speech, speech.pick(others), given.seed)
    test = speech.pick([given.left_out], low=10)
    answers = Trainer(net).predict(speech.pictures(test)).argmax(1)
    accuracy = float((answers == speech.digit[test]).mean())
    print(f"{speech.names[given.left_out]}, whom it never heard: {100 * accuracy:.1f} %")
    shipped.save(net, given.save, range(10))


if __name__ == "__main__":
    main()
