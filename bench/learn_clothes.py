"""Fashion-MNIST under 100,000 parameters, its official test part: the small image backbone.

The network is the better of two on 5,000 pictures of the training part; the epochs were fixed
beforehand.
"""

from __future__ import annotations

import numpy as np

from tinytrain import Trainer, nn
from tinytrain.bench.learn import Nets, Row
from tinytrain.bench.machine import data_folder
from tinytrain.models import train_clothes as clothes

SEEDS = (0,)
BASELINE, GOAL = 0.925, 0.927


def rows(data: str | None, nets: Nets) -> list[Row]:
    """Every seed."""
    folder = data_folder(data, clothes.FOLDER).parent
    found = []
    for seed in SEEDS:

        def make(seed: int = seed) -> nn.Module:
            return clothes.pretrain(*clothes.load(folder, "train"), seed)

        net = nets(f"clothes-{seed}", make)
        found.append(Trainer(net).evaluate(*clothes.load(folder, "test"))["accuracy"])
    more = f"{net.count_parameters():,} parameters, {clothes.RECIPE.epochs} epochs; " + " ".join(
        f"{100 * a:.2f}" for a in found
    )
    seeds = ", ".join(map(str, SEEDS))
    return [Row("Fashion-MNIST", float(np.mean(found)), BASELINE, GOAL, seeds, more)]
