"""The loop that every `train_*.py` here shares: AdamW, a warm-up and a cosine to zero, over random
views of the samples. It reads no data, and reports the end of its schedule, never a best epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytrain import Trainer, data, losses, nn, optim

Draw = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    batch      samples of a step; what is left of an epoch behind the last whole batch waits.
    rate       AdamW's, at its highest (Loshchilov and Hutter 2019); decay: of weights.
    smoothing  share of a label that goes to all classes alike (Szegedy et al. 2016).
    warm       one step in so many is warm-up.
    """

    epochs: int
    batch: int
    rate: float
    decay: float
    smoothing: float = 0.05
    warm: int = 15

    def optimizer(self, steps: int) -> optim.AdamW:
        """For a run of so many steps."""
        rate = optim.WarmupLR(optim.CosineLR(self.rate, steps), max(steps // self.warm, 1))
        return optim.AdamW(lr=rate, weight_decay=self.decay)

    def __call__(
        self, net: nn.Module, count: int, draw: Draw, seed: int = 0, backend: str = "auto"
    ) -> Trainer:
        """The trainer of `net` after all epochs over `count` samples; `draw` makes a batch (x, y)
        of their numbers."""
        trainer = Trainer(
            net,
            loss=losses.CrossEntropy(self.smoothing),
            optimizer=self.optimizer(self.epochs * (count // self.batch)),
            batch=self.batch,
            seed=seed,
            backend=backend,
        )
        for epoch in range(self.epochs):
            for pick in data.batches(count, self.batch, seed, epoch, drop_last=True):
                trainer.step(*draw(pick))
        return trainer


def parser(purpose: str | None, file: str, **more: Any) -> Any:
    """An argument parser with --data, the folder that holds `file`, and --seed; `more` are further
    options and their defaults."""
    import argparse

    made = argparse.ArgumentParser(description=purpose)
    made.add_argument("--data", required=True, help=f"folder that holds {file}")
    for name, default in {"seed": 0, **more}.items():
        made.add_argument("--" + name.replace("_", "-"), type=type(default), default=default)
    return made
