"""An example: an autoencoder that has heard a healthy bearing alone finds one with a pit."""

import numpy as np

from tinytrain import Trainer, models, optim
from tinytrain.data.vibration import Bearing, spectra
from tinytrain.learn.roc import auc

EPOCHS, RECORDINGS, PIT = 30, 300, 1.5


def main(recordings: int = RECORDINGS) -> float:
    """The area under the curve, healthy against pitted."""
    bearing = Bearing()

    def hear(part: int, count: int, pit: float = 0.0) -> np.ndarray:
        return np.stack([spectra(bearing.record((part, k), pit=pit)) for k in range(count)])

    healthy = hear(0, recordings)
    mean, deviation = healthy.mean(0), healthy.std(0)
    net = models.build("autoencoder")
    steps = EPOCHS * -(-recordings // 32)
    trainer = Trainer(net, optimizer=optim.AdamW(optim.CosineLR(3e-3, steps)), ram="4M")
    trainer.fit((healthy - mean) / deviation, epochs=EPOCHS)

    def score(x: np.ndarray) -> np.ndarray:
        x = (x - mean) / deviation
        return ((trainer.predict(x) - x) ** 2).mean(axis=1)

    alike, pitted = score(hear(1, recordings // 3)), score(hear(2, recordings // 3, PIT))
    alarm = np.quantile(alike, 0.95)
    found = auc(alike, pitted)
    print(f"AUC {found:.3f}; {(pitted > alarm).mean():.0%} found at 5 % false alarms")
    print(f"arena {trainer.arena_bytes:,} bytes")
    return found


if __name__ == "__main__":
    main()
