"""English to French: BLEU-4 (lower-cased, all references) on sentences that were not trained on.

A transformer of 1.3 M parameters learns Tatoeba's pairs of at most nine words. The recipe was set
beforehand; the beam was chosen on the validation part; the test part is read when training has
ended. Training takes half an hour of one core; with --nets it is saved as it goes, and goes on from
there bit for bit.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinytrain import Trainer, losses, nn, optim
from tinytrain.bench.learn import Nets, Row
from tinytrain.bench.machine import data_file
from tinytrain.data.pairs import Numbers, Pair, encode, pack, read_pairs
from tinytrain.data.vocabulary import Vocabulary
from tinytrain.learn.bleu import bleu
from tinytrain.learn.sentences import references
from tinytrain.learn.translate import Translator
from tinytrain.models.text import AttentionGRU, Transformer

FILE = "tatoeba_eng_fra.tsv.gz"  # from tatoeba.org, CC BY 2.0 FR
BASELINE, GOAL = 0.30, 0.40  # the French of the nearest training sentence; this task's goal
PIECES, WIDTH = 3000, (56, 64)
BATCH, SLICE = 16, 4  # rows of an update, about 90 pairs; of a slice, whose logits stay in cache
EPOCHS, RATE, WARM, SMOOTHING, SEED = 4, 2.5e-3, 400, 0.1, 0
EVERY = 500  # updates between two savings
NETS: dict[str, Any] = {"translation": Transformer, "attention": AttentionGRU}
BEAM, AT_ONCE, LONGEST = 4, 32, 48  # rows that are searched at a time; pieces of a sentence


def rows(data: str | None, nets: Nets) -> list[Row]:
    """One row, BLEU as a share."""
    file = data_file(data, FILE)
    pairs = {part: read_pairs(file, part) for part in ("train", "val", "test")}
    with tempfile.TemporaryDirectory() as other:
        learner = Learner(pairs["train"], pairs["val"], nets.folder or Path(other), EPOCHS)
        seconds = learner.train()
    if seconds:
        nets.seconds["translation"] = seconds
    greedy, beam = (learner.bleu(pairs["val"], beam) for beam in (1, BEAM))
    more = (
        f"{learner.trainer.net.count_parameters():,} parameters, {EPOCHS} epochs; "
        f"validation {100 * beam:.1f}, greedily {100 * greedy:.1f}; loss there by epoch "
        + " ".join(f"{c['validation']:.2f}" for c in learner.curve)
    )
    ours = learner.bleu(pairs["test"], BEAM)
    return [Row("English to French", ours, BASELINE, GOAL, str(SEED), more)]


class Learner:
    """The training, in a folder that holds all it needs to go on."""

    def __init__(
        self,
        train: Sequence[Pair],
        val: Sequence[Pair],
        folder: Path,
        epochs: int,
        name: str = "translation",
    ):
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.said, self.state = folder / f"{name}.json", folder / f"{name}.npz"
        self.curve: list[dict[str, float]] = []
        if self.said.is_file():
            said = json.loads(self.said.read_text(encoding="utf-8"))
            self.vocabulary, self.curve = Vocabulary(said["pieces"]), said["curve"]
        else:
            self.vocabulary = Vocabulary.learn((t for pair in train for t in pair), PIECES)
        self.numbers: list[Numbers] = encode(train, self.vocabulary)
        self.held = pack(encode(val, self.vocabulary), WIDTH)
        self.per_epoch = max(len(pack(self.numbers, WIDTH, seed=SEED).source) // BATCH, 1)
        self.end = epochs * self.per_epoch
        self.trainer = self._trainer()

    def _trainer(self) -> Trainer:
        with nn.seeded(SEED):
            net = NETS[self.name](len(self.vocabulary), width=WIDTH, dropout=0.0)
        schedule = optim.WarmupLR(optim.CosineLR(RATE, self.end), WARM)
        optimizer = optim.AdamW(schedule, betas=(0.9, 0.98))
        if self.state.is_file():
            return Trainer.restore(str(self.state), net, label_spec=net.label_spec)
        loss, labels = losses.CrossEntropy(SMOOTHING), net.label_spec
        return Trainer(net, loss, optimizer, BATCH, microbatch=SLICE, seed=SEED, label_spec=labels)

    def train(self, until: int | None = None) -> float:
        """Up to that update, or to the end; the processor time that took, in seconds."""
        begin, end = time.process_time(), min(until or self.end, self.end)
        if self.trainer.steps >= end:
            return 0.0
        while self.trainer.steps < end:
            epoch, first = divmod(self.trainer.steps, self.per_epoch)
            last = min(first + end - self.trainer.steps, self.per_epoch)
            self._epoch(epoch, first, last)
        return time.process_time() - begin

    def _epoch(self, epoch: int, first: int, last: int) -> None:
        """Updates `first` to `last` of an epoch, which packs and shuffles anew."""
        packed = pack(self.numbers, WIDTH, seed=SEED + epoch)
        order = np.random.default_rng((SEED, epoch)).permutation(len(packed.source))
        found = []
        for k in range(first, last):
            pick = order[np.arange(k * BATCH, (k + 1) * BATCH) % len(order)]
            part = tuple(tuple(a[pick] for a in side) for side in (packed.x, packed.y))
            found.append(self.trainer.step(*part))
            if self.trainer.steps % EVERY == 0:
                self._save()
                what = f"{self.name}: {self.trainer.steps} of {self.end} updates"
                print(f"{what}, loss {np.mean(found[-EVERY:]):.3f}", file=sys.stderr, flush=True)
        if last == self.per_epoch:
            held = self.trainer.evaluate(self.held.x, self.held.y)["loss"]
            self.curve.append({"training": float(np.mean(found)), "validation": held})
        self._save()

    def _save(self) -> None:
        said: dict[str, Any] = {"pieces": self.vocabulary.pieces, "curve": self.curve}
        self.said.write_text(json.dumps(said), encoding="utf-8")
        self.trainer.save(str(self.state))

    def bleu(self, pairs: Sequence[Pair], beam: int) -> float:
        """Of these pairs' sources, each once, against all of its targets; a share."""
        wanted = references(pairs)
        translate = Translator(
            self.trainer.net, self.vocabulary, self.trainer, beam, AT_ONCE, LONGEST
        )
        return bleu(translate(list(wanted)), list(wanted.values())) / 100
