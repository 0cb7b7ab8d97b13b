"""A new word (FSDD) by three utterances of a speaker whom the network never heard.

The network knows nine digits of five other speakers; the sixth says the tenth three times. What is
told then is one of ten words, by the utterances from the tenth on. With the mean of embeddings, the
nine words' means are of that speaker's five utterances each; the last block learns three of each,
the new word's thrice as often. Both were chosen on other folds: networks that know nine words of
four speakers, judged on the two others with other words.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from tinytrain.bench.learn import Nets, Row
from tinytrain.bench.learn_spoken import LEARNED, TESTED, Recipe, learned, others
from tinytrain.bench.machine import data_file
from tinytrain.models import train_spoken as spoken

WORDS = {0: (1, 4, 7, 0, 3, 6), 1: (2, 5, 8, 1, 4, 7)}  # seed: the new word of each speaker
RECIPE = Recipe(100, 0.005, 0.0)  # of the last block
EXAMPLES = 3  # of the new word
OFTEN = {"prototypes": 1, "last": 3}  # as often as an old word's they are learned
KNOWN = {"prototypes": LEARNED, "last": EXAMPLES}  # of each old word


def rows(data: str | None, nets: Nets) -> list[Row]:
    """Every speaker with every seed."""
    speech = spoken.load(data_file(data, "fsdd.npz"))
    augmented = spoken.Augmentation(speech, spoken.OWN)
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in KNOWN}
    for seed in WORDS:
        for speaker in range(len(speech.names)):
            new = WORDS[seed][speaker]
            old = [d for d in range(10) if d != new]
            pick = speech.pick(others(speech, speaker), digits=old)
            make = partial(spoken.pretrain, speech, pick, seed, words=old)
            net = nets(f"word-{speaker}-{seed}", make)
            net.classes = old
            test = speech.pick([speaker], TESTED)
            x, y = speech.pictures(test), speech.digit[test]
            for way, each in found.items():
                known = speech.pick([speaker], 0, KNOWN[way], old)
                told = [speech.pick([speaker], 0, EXAMPLES, [new])] * OFTEN[way]
                few = np.concatenate([known, *told])
                learner = learned(net, way, speech, augmented, few, seed, RECIPE)
                right = learner.predict(x) == y
                each.append((right[y == new].mean(), right[y != new].mean()))
    goals = {"prototypes": (0.88, 0.94), "last": (0.95, 0.94)}
    seeds = ", ".join(map(str, WORDS))
    return [
        Row(f"new word by 3, {way}: {what}", float(np.mean(figures)), None, goals[way][k], seeds)
        for way, each in found.items()
        for k, (what, figures) in enumerate(
            zip(("new", "old"), zip(*each, strict=True), strict=True)
        )
    ]
