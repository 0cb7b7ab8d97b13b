"""A gesture recogniser from scratch in seconds: shapes drawn with a finger or a wand, ten of each.

    python -m tinytrain.bench.example_gestures

The strokes here are drawn by formulas and a shaky hand; put your own points (T, 2) in their place.
"""

import numpy as np

from tinytrain import Trainer, models, optim
from tinytrain.data import strokes

T = np.linspace(0, 2 * np.pi, 200)
SHAPES = {
    "circle": np.stack([np.cos(T), np.sin(T)], 1),
    "eight": np.stack([np.sin(2 * T), np.cos(T)], 1),
    "zigzag": np.stack([T, np.abs((2 * T) % 4 - 2)], 1),
    "spiral": np.stack([T * np.cos(2 * T), T * np.sin(2 * T)], 1),
}


def main(epochs: int = 15) -> float:
    """The share of new strokes that are told right."""
    rng = np.random.default_rng(0)
    clean = np.stack([strokes.resample(points) for points in SHAPES.values()])
    y = np.tile(np.arange(len(SHAPES), dtype=np.int32), 10)
    mine, new = strokes.varied(clean[y], rng), strokes.varied(clean[y], rng)
    net = models.build("stroke_cnn", classes=len(SHAPES))
    trainer = Trainer(net, optimizer=optim.AdamW(lr=3e-3), batch=10, ram="1M")
    for _ in range(epochs):
        trainer.fit(strokes.raster(strokes.varied(mine, rng)), y, epochs=1, progress=False)
    return trainer.evaluate(strokes.raster(new), y)["accuracy"]


if __name__ == "__main__":
    print(f"{100 * main():.1f} % of new strokes")
