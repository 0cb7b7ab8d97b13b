"""Pits in a bearing, found by an autoencoder that knows healthy ones only: area under the curve.

The vibration is synthetic (`data.vibration` states its physics). Beside the autoencoder: kurtosis,
the usual first look at bearings; the distance from the mean; and what as many principal components
as the autoencoder's code is wide leave over. The recipe was chosen on other recordings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinytrain import Trainer, models, optim
from tinytrain.bench.learn import Nets, Row
from tinytrain.data.vibration import Bearing, spectra
from tinytrain.learn.roc import auc

PITS = (0.5, 1.0, 1.5, 2.0, 3.0)  # an impact's first swing over the healthy root mean square
TRAIN, TEST = 800, 300  # recordings of a second each; as many of each pit as of none
SEEDS, EPOCHS, BATCH, RATE, WARM = (0, 1, 2), 40, 32, 3e-3, 20
COMPONENTS = 8
FIRST = 100  # of the test recordings' seeds
FALSE_ALARMS = 0.01  # share of healthy recordings, of other ones than those scored

Score = Callable[[np.ndarray], np.ndarray]


def rows(data: str | None, nets: Nets, train: int = TRAIN, test: int = TEST) -> list[Row]:
    """A row for each size of pit; nothing is read from `data`."""
    known, _ = _hear(0, train, 0.0)
    held, _ = _hear(1, test, 0.0)
    mean, deviation = known.mean(0), known.std(0)

    def scaled(x: np.ndarray) -> np.ndarray:
        return (x - mean) / deviation

    def distance(x: np.ndarray) -> np.ndarray:
        return (scaled(x) ** 2).mean(1)

    healthy, components = _hear(FIRST, test, 0.0), _components(scaled, known)
    trained = [_autoencoder(seed, scaled, known, nets) for seed in SEEDS]
    alarms = [np.quantile(score(held), 1 - FALSE_ALARMS) for score in trained]
    false = np.mean([s(healthy[0]) > a for s, a in zip(trained, alarms, strict=True)])
    found = []
    for k, pit in enumerate(PITS):
        pitted = _hear(FIRST + 1 + k, test, pit)
        ours = [auc(score(healthy[0]), score(pitted[0])) for score in trained]
        caught = np.mean([s(pitted[0]) > a for s, a in zip(trained, alarms, strict=True)])
        others = [auc(s(healthy[0]), s(pitted[0])) for s in (distance, components)]
        more = (
            f"by seed {' '.join(f'{100 * a:.1f}' for a in ours)}; distance {100 * others[0]:.1f}, "
            f"components {100 * others[1]:.1f}; {caught:.0%} found at {false:.1%} false alarms"
        )
        kurtosis, seeds = auc(healthy[1], pitted[1]), ", ".join(map(str, SEEDS))
        found.append(Row(f"pit {pit}", float(np.mean(ours)), kurtosis, None, seeds, more))
    return found


def _hear(part: int, count: int, pit: float) -> tuple[np.ndarray, np.ndarray]:
    """Spectra (count, 640) and kurtosis (count,) of recordings with these seeds."""
    sounds = [Bearing().record((part, k), pit=pit) for k in range(count)]
    kurtosis = [((x - x.mean()) ** 4).mean() / x.var() ** 2 for x in sounds]
    return np.stack([spectra(x) for x in sounds]), np.array(kurtosis)


def _components(scaled: Score, known: np.ndarray) -> Score:
    """The squared rest that the first principal components of the healthy ones leave."""
    basis = np.linalg.svd(scaled(known), full_matrices=False)[2][:COMPONENTS]

    def score(x: np.ndarray) -> np.ndarray:
        x = scaled(x)
        return ((x - x @ basis.T @ basis) ** 2).mean(1)

    return score


def _autoencoder(seed: int, scaled: Score, known: np.ndarray, nets: Nets) -> Score:
    """The squared error of what comes back; trained on healthy recordings."""

    def make() -> Any:
        steps = EPOCHS * -(-len(known) // BATCH)
        schedule = optim.WarmupLR(optim.CosineLR(RATE, steps), WARM)
        net = models.build("autoencoder", seed=seed)
        trainer = Trainer(net, optimizer=optim.AdamW(schedule), batch=BATCH, seed=seed)
        trainer.fit(scaled(known), epochs=EPOCHS)
        return net

    trainer = Trainer(nets(f"autoencoder-{seed}", make))

    def score(x: np.ndarray) -> np.ndarray:
        x = scaled(x)
        return ((trainer.predict(x) - x) ** 2).mean(1)

    return score
