"""English to French by a GRU with attention, a small run: BLEU-4 on sentences not trained on.

Two epochs where the transformer (`text`) has four; the recipe is that one's, and nothing was tuned
for this network.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tinytrain.bench.learn import Nets, Row
from tinytrain.bench.learn_text import BASELINE, BEAM, FILE, SEED, Learner
from tinytrain.bench.machine import data_file
from tinytrain.data.pairs import read_pairs

EPOCHS = 2


def rows(data: str | None, nets: Nets) -> list[Row]:
    """One row, BLEU as a share."""
    file = data_file(data, FILE)
    pairs = {part: read_pairs(file, part) for part in ("train", "val", "test")}
    with tempfile.TemporaryDirectory() as other:
        folder = nets.folder or Path(other)
        learner = Learner(pairs["train"], pairs["val"], folder, EPOCHS, "attention")
        seconds = learner.train()
    if seconds:
        nets.seconds["attention"] = seconds
    more = (
        f"{learner.trainer.net.count_parameters():,} parameters, {EPOCHS} epochs; "
        "loss on validation by epoch " + " ".join(f"{c['validation']:.2f}" for c in learner.curve)
    )
    ours = learner.bleu(pairs["test"], BEAM)
    return [Row("English to French, GRU with attention", ours, BASELINE, None, str(SEED), more)]
