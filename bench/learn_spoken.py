"""Spoken digits (FSDD) of a speaker whom the network never heard, before and after five of each.

Each of six speakers in turn is in no pretraining. Of that speaker's 50 utterances a digit the first
five are learned from, and those from the tenth on are tested, before and after. How the
networks are trained and how they adapt was chosen on other folds, once for all: networks that know
four speakers, judged on the two others.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import tinytrain as tt
from tinytrain import optim
from tinytrain.bench.learn import Nets, Row
from tinytrain.bench.machine import data_file
from tinytrain.models import train_spoken as spoken

SEEDS = (0, 1)
LEARNED, TESTED = 5, 10  # indices below, and from, which utterances are learned and tested
BATCH = 10
RAM = 256 * 1024
METRIC = "mahalanobis"  # of prototypes
EPOCHS = {"last": 100, "all": 60}
RATE = 0.005  # of SGD with momentum 0.9
GOALS = {  # way: (baseline, goal of the mean, goal of the worst speaker)
    "before": (0.723, 0.88, None),
    "prototypes": (0.88, 0.955, None),
    "last": (0.88, 0.975, 0.945),
    "all": (0.88, 0.975, None),
}


def rows(data: str | None, nets: Nets) -> list[Row]:
    """Every speaker with every seed."""
    speech = spoken.load(data_file(data, "fsdd.npz"))
    augmented = spoken.Augmentation(speech, spoken.OWN)
    found: dict[str, list[list[float]]] = {way: [] for way in GOALS}
    takes: dict[str, str] = {"before": ""}
    for seed in SEEDS:
        for speaker in range(len(speech.names)):
            pick = speech.pick(others(speech, speaker))
            net = nets(f"spoken-{speaker}-{seed}", partial(spoken.pretrain, speech, pick, seed))
            few, test = speech.pick([speaker], 0, LEARNED), speech.pick([speaker], TESTED)
            x, y = speech.pictures(test), speech.digit[test]
            before = tt.Trainer(net).evaluate(x, y)["accuracy"]
            found["before"].append([seed, speaker, before])
            for way in list(GOALS)[1:]:
                learner = learned(net, way, speech, augmented, few, seed)
                found[way].append([seed, speaker, learner.evaluate(x, y)["accuracy"]])
                takes[way] = f"{learner.ram_bytes:,} bytes of RAM, {learner.flash_bytes:,} of flash"
    return [row for way, each in found.items() for row in _summed(way, np.array(each), takes[way])]


def others(speech: spoken.Speech, speaker: int) -> list[int]:
    """The speakers that the network may hear."""
    return [k for k in range(len(speech.names)) if k != speaker]


def learned(
    net: Any,
    way: str,
    speech: spoken.Speech,
    augmented: Any,
    few: np.ndarray,
    seed: int,
) -> Any:
    """The network after it learned the utterances `few`: as they are where no gradient is taken,
    else random pictures of each, some mixed with another of the word, anew in every epoch."""
    ram = RAM if way == "last" else None
    y = speech.digit[few]
    if way == "prototypes":
        return tt.adapt(net, way, flash=True, metric=METRIC).fit(speech.pictures(few), y)
    epochs = EPOCHS[way]
    steps = epochs * len(few) // BATCH
    rate = optim.WarmupLR(optim.CosineLR(RATE, steps), max(steps // 10, 1))
    made = optim.SGD(lr=rate, momentum=0.9)
    learner = tt.adapt(net, way, ram=ram, flash=True, optimizer=made, batch=BATCH, seed=seed)
    rng = np.random.default_rng([seed, 2])
    views = [spoken.among_voices(augmented(few, rng), y, rng) for _ in range(epochs)]
    return learner.fit(np.concatenate(views), np.tile(y, epochs), epochs=1, progress=False)


def _summed(way: str, found: np.ndarray, takes: str) -> list[Row]:
    """The mean over speakers and seeds, and the worst speaker."""
    baseline, mean, worst = GOALS[way]
    each = {int(s): found[found[:, 1] == s, 2].mean() for s in np.unique(found[:, 1])}
    said = " ".join(f"{100 * v:.1f}" for v in each.values())
    seeds = ", ".join(map(str, SEEDS))
    name = "before adapting" if way == "before" else f"5 a digit, {way}"
    return [
        Row(f"{name}, mean", float(found[:, 2].mean()), baseline, mean, seeds, takes),
        Row(f"{name}, worst speaker", min(each.values()), None, worst, seeds, said),
    ]
