"""Spoken digits (FSDD) of a speaker whom the network never heard, before and after five of each.

Each of six speakers in turn is in no pretraining. Of that speaker's 50 utterances a digit the first
five are learned from, and those from the tenth on are tested, before and after. How the
networks are trained and how they adapt was chosen on other folds, once for all: networks that know
four speakers, judged on the two others.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

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
TINY = 1e-9  # a probability below which none is told from another
METRIC = "mahalanobis"  # of prototypes
VIEWS = 8  # random pictures more of each tested utterance, in the rows that say so


class Recipe(NamedTuple):
    """How five utterances are learned from: by SGD with momentum 0.9."""

    epochs: int
    rate: float
    decay: float


RECIPES = dict.fromkeys(("last", "all"), Recipe(100, 0.01, 0.01))
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
    viewed: dict[str, list[list[float]]] = {}
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
                if way in RECIPES:
                    drawn = partial(augmented, test, np.random.default_rng([seed, 5]))
                    share = float((_viewed(learner, x, drawn) == y).mean())
                    viewed.setdefault(way, []).append([seed, speaker, share])
    return [
        row
        for way, each in found.items()
        for by, figures in (("", each), (f" and {VIEWS} views more", viewed.get(way)))
        if figures
        for row in _summed(way, by, np.array(figures), takes[way])
    ]


def _viewed(learner: Any, x: np.ndarray, drawn: Callable[[], np.ndarray]) -> np.ndarray:
    """The labels by the mean log-probability of the pictures x, which counts as much as all the
    others together, and of VIEWS drawn ones of each."""
    likely = np.log(learner.predict_proba(x) + TINY)
    for _ in range(VIEWS):
        likely += np.log(learner.predict_proba(drawn()) + TINY) / VIEWS
    return np.asarray(learner.classes)[likely.argmax(1)]


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
    recipe: Recipe | None = None,
) -> Any:
    """The network after it learned the utterances `few`: as they are where no gradient is taken,
    else random pictures of each, some mixed with another of the word, anew in every epoch."""
    ram = RAM if way == "last" else None
    y = speech.digit[few]
    if way == "prototypes":
        return tt.adapt(net, way, flash=True, metric=METRIC).fit(speech.pictures(few), y)
    epochs, rate, decay = recipe or RECIPES[way]
    steps = epochs * len(few) // BATCH
    rates = optim.WarmupLR(optim.CosineLR(rate, steps), max(steps // 10, 1))
    made = optim.SGD(lr=rates, momentum=0.9, weight_decay=decay)
    learner = tt.adapt(net, way, ram=ram, flash=True, optimizer=made, batch=BATCH, seed=seed)
    rng = np.random.default_rng([seed, 2])
    views = [spoken.among_voices(augmented(few, rng), y, rng) for _ in range(epochs)]
    return learner.fit(np.concatenate(views), np.tile(y, epochs), epochs=1, progress=False)


def _summed(way: str, by: str, found: np.ndarray, takes: str) -> list[Row]:
    """The mean over speakers and seeds, and the worst speaker."""
    baseline, mean, worst = GOALS[way]
    each = {int(s): found[found[:, 1] == s, 2].mean() for s in np.unique(found[:, 1])}
    said = " ".join(f"{100 * v:.1f}" for v in each.values())
    seeds = ", ".join(map(str, SEEDS))
    name = "before adapting" if way == "before" else f"5 a digit, {way}{by}"
    return [
        Row(f"{name}, mean", float(found[:, 2].mean()), baseline, mean, seeds, takes),
        Row(f"{name}, worst speaker", min(each.values()), None, worst, seeds, said),
    ]
