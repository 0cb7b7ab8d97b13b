"""`tinytrain_mp` on the host: the four verbs of the port over a Trainer, so that a port's script
runs here unchanged and its printed lines are what the port must print."""

from __future__ import annotations

import numpy as np
from nets import made

import tinytrain as tt


class Model:
    def __init__(self, trainer: tt.Trainer):
        self.trainer = trainer
        self.slices: list[tuple[np.ndarray, np.ndarray]] = []

    def train(self, x, y) -> float | None:
        """The loss of a whole batch, with its last slice; before that, nothing can be told."""
        bound = self.trainer._train
        shapes = bound.inputs[0], bound.labels[0]
        part = [np.array(a, s.dtype).reshape(s.shape) for a, s in zip((x, y), shapes, strict=True)]
        self.slices.append((part[0], part[1]))
        if len(self.slices) * self.trainer.plan.microbatch < self.trainer.batch:
            return None
        xs, ys = zip(*self.slices, strict=True)
        self.slices = []
        return self.trainer.step(np.concatenate(xs), np.concatenate(ys))

    def infer(self, x) -> np.ndarray:
        shape = (1, *self.trainer._train.inputs[0].shape[1:])
        return self.trainer.predict(np.asarray(x, np.float32).reshape(shape)).ravel()


def load(name: str) -> Model:
    """The model of a folder `prepare` wrote; its net's name is beside it."""
    with open("net.txt", encoding="utf-8") as file:
        return Model(made(file.read())[0])
