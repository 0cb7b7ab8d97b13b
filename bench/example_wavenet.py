"""Sounds told apart by a WaveNet-style stack: causal, dilated, one frame of mel bands at a time.

    python -m tinytrain.bench.example_wavenet

The sounds are made up here: a tone that rises, one that falls, and one that wavers. Only their
order in time differs, so that nothing but memory of the past can tell them apart.
"""

import numpy as np

from tinytrain import Trainer, models, optim
from tinytrain.data.sound import LogMel

RATE = 8000
GLIDES = ("rises", "falls", "wavers")


def sound(kind: int, rng: np.random.Generator) -> np.ndarray:
    """Half a second, float, between 400 and 1,600 Hz, in noise."""
    t = np.linspace(0, 1, RATE // 2)
    glide = (t, 1 - t, 0.5 + 0.5 * np.sin(2 * np.pi * 3 * t + rng.uniform(0, 6)))[kind]
    hertz = rng.uniform(400, 600) + rng.uniform(600, 1000) * glide
    return np.sin(2 * np.pi * np.cumsum(hertz) / RATE) + rng.normal(0, 0.2, len(t))


def main(epochs: int = 8) -> float:
    """The share of new sounds that are told right."""
    rng, front = np.random.default_rng(0), LogMel()
    y = np.arange(240, dtype=np.int32) % 3
    x = np.stack([front(sound(int(k), rng))[..., 0] for k in y])
    net = models.build("wavenet", classes=3)
    trainer = Trainer(net, optimizer=optim.AdamW(lr=5e-3), batch=16, ram="2M")
    trainer.fit(x[:180], y[:180], epochs=epochs, progress=False)
    return trainer.evaluate(x[180:], y[180:])["accuracy"]


if __name__ == "__main__":
    print(f"{100 * main():.1f} % of new sounds")
