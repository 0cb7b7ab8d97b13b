"""Teach the shipped spoken-digit network words of your own: a folder of WAV files a word, 8 kHz.

    python -m tinytrain.bench.example_keywords FOLDER     (FOLDER/yes/1.wav, FOLDER/no/1.wav, ...)

Three files of each word are learned, as they are, by their mean embedding; the others are told.
"""

import sys
from pathlib import Path

import numpy as np

import tinytrain as tt
from tinytrain import models
from tinytrain.data.sound import LogMel
from tinytrain.data.wav import read_wav

LEARNED = 3


def main(folder: str) -> float:
    """The share of the other files that are told right."""
    front, learner = LogMel(), tt.adapt(models.pretrained("spoken_digits"), "prototypes")
    heard = {
        word.name: np.stack([front(*read_wav(file)) for file in sorted(word.glob("*.wav"))])
        for word in sorted(Path(folder).iterdir())
    }
    for word, pictures in heard.items():
        learner.add(word, pictures[:LEARNED])
    rest = {word: learner.predict(p[LEARNED:]) for word, p in heard.items() if len(p) > LEARNED}
    for word, told in rest.items():
        print(f"{word}: {', '.join(told)}")
    right = sum(int((told == word).sum()) for word, told in rest.items())
    return right / sum(map(len, rest.values()))


if __name__ == "__main__":
    print(f"{100 * main(sys.argv[1]):.0f} % right")
