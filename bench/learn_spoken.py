"""Spoken digits (FSDD) of a speaker whom the network never heard, then five of each; a new word.

Each of six speakers in turn is in no pretraining. Of that speaker's 50 utterances a digit the first
five are learned from, and those from the tenth on are tested, before and after. How the networks
learn was chosen on other folds: pretrained on four speakers, judged on a fifth and sixth.
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
EPOCHS, BATCH = 60, 10
RAM = 256 * 1024
RATES = {"head": 0.03, "last": 0.01, "all": 0.005}  # of SGD with momentum 0.9
WORDS = ((1, 4, 7, 0, 3, 6), (2, 5, 8, 1, 4, 7))  # the new word of each speaker, by seed
EXAMPLES = 3  # of a new word
GOALS = {  # way: (baseline, goal of the mean, goal of the worst speaker)
    "before": (0.723, 0.88, None),
    "prototypes": (0.88, 0.955, None),
    "head": (0.88, None, None),
    "last": (0.88, 0.975, 0.945),
    "all": (0.88, 0.975, None),
}


def rows(data: str | None, nets: Nets) -> list[Row]:
    """Every speaker with every seed."""
    speech = spoken.load(data_file(data, "fsdd.npz"))
    augmented = spoken.Augmentation(speech, spoken.OWN)
    return [*_digits(speech, augmented, nets), *_words(speech, augmented, nets)]


def _others(speech: spoken.Speech, speaker: int) -> list[int]:
    """The speakers that the network may hear."""
    return [k for k in range(len(speech.names)) if k != speaker]


def _digits(speech: spoken.Speech, augmented: Any, nets: Nets) -> list[Row]:
    found: dict[str, list[list[float]]] = {way: [] for way in GOALS}
    takes: dict[str, str] = {"before": ""}
    for seed in SEEDS:
        for speaker in range(len(speech.names)):
            pick = speech.pick(_others(speech, speaker))
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


def learned(
    net: Any,
    way: str,
    speech: spoken.Speech,
    augmented: Any,
    few: np.ndarray,
    seed: int,
    y: np.ndarray | None = None,
) -> Any:
    """The network after it learned the utterances `few`: as they are where no gradient is taken,
    else EPOCHS random pictures of each, in batches of ten."""
    ram = RAM if way == "last" else None
    y = speech.digit[few] if y is None else y
    if way == "prototypes":
        return tt.adapt(net, way, flash=True, seed=seed).fit(speech.pictures(few), y)
    steps = EPOCHS * len(few) // BATCH
    rate = optim.WarmupLR(optim.CosineLR(RATES[way], steps), max(steps // 10, 1))
    made = optim.SGD(lr=rate, momentum=0.9)
    learner = tt.adapt(net, way, ram=ram, flash=True, optimizer=made, batch=BATCH, seed=seed)
    rng = np.random.default_rng([seed, 2])
    views = np.tile(few, EPOCHS)
    return learner.fit(augmented(views, rng), np.tile(y, EPOCHS), epochs=1, progress=False)


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


def _words(speech: spoken.Speech, augmented: Any, nets: Nets) -> list[Row]:
    """The tenth word by three utterances, on networks that know nine."""
    found: dict[str, list[tuple[float, float]]] = {"prototypes": [], "last": []}
    for seed in SEEDS:
        for speaker in range(len(speech.names)):
            new = WORDS[seed][speaker]
            old = [d for d in range(10) if d != new]
            pick = speech.pick(_others(speech, speaker), digits=old)
            make = partial(spoken.pretrain, speech, pick, seed, words=old)
            net = nets(f"word-{speaker}-{seed}", make)
            net.classes = old
            test = speech.pick([speaker], TESTED)
            x, y = speech.pictures(test), speech.digit[test]
            for way, each in found.items():
                own = (
                    speech.pick([speaker], 0, LEARNED, old)
                    if way == "prototypes"
                    else (speech.pick([speaker], 0, EXAMPLES, old))
                )
                few = np.concatenate([own, speech.pick([speaker], 0, EXAMPLES, [new])])
                learner = learned(net, way, speech, augmented, few, seed)
                right = learner.predict(x) == y
                each.append((right[y == new].mean(), right[y != new].mean()))
    goals = {"prototypes": (0.88, 0.94), "last": (0.95, 0.94)}
    seeds = ", ".join(map(str, SEEDS))
    return [
        Row(f"new word by 3, {way}: {what}", float(np.mean(figures)), None, goals[way][k], seeds)
        for way, each in found.items()
        for k, (what, figures) in enumerate(
            zip(("new", "old"), zip(*each, strict=True), strict=True)
        )
    ]
