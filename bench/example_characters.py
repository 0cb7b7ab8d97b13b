"""Handwritten digits by a few examples of each, with the shipped character embedding: nothing is
trained, and the network has never seen a digit.

    python -m tinytrain.bench.example_characters [EXAMPLES]
"""

import sys

import numpy as np

import tinytrain as tt
from tinytrain import data, models
from tinytrain.data.affine import affine
from tinytrain.models.train_characters import DEVIATION, MEAN


def as_characters(x: np.ndarray) -> np.ndarray:
    """8x8 digits (N, 8, 8, 1) as drawings on 28x28, thinner, as the embedding knows them."""
    large = x.repeat(4, 1).repeat(4, 2)[:, 2:-2, 2:-2]
    smooth = affine(large, np.tile(np.eye(2, 3) * 1.15, (len(x), 1, 1)))
    ink = np.clip(2 * smooth - 0.8, 0, 1)
    return (ink - MEAN) / DEVIATION


def main(examples: int = 5) -> float:
    """The share of the test digits that are told right."""
    train, test = data.digits()
    learner = tt.adapt(models.pretrained("characters"), "prototypes")
    for digit in range(10):
        learner.add(digit, as_characters(train.x[train.y == digit][:examples]))
    return learner.evaluate(as_characters(test.x), test.y)["accuracy"]


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print(f"{100 * main(count):.1f} % by {count} of each digit")
