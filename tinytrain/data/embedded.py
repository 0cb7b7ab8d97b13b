"""The handwritten digits that come with tinytrain; needs no network, nor scikit-learn.

1,797 images of 8x8 by 13 people, from E. Alpaydin and C. Kaynak, "Optical Recognition of
Handwritten Digits", UCI Machine Learning Repository, 1998, DOI 10.24432/C50P49, CC BY 4.0 (see
digits.txt).
"""

import os
import zlib

import numpy as np

from tinytrain.data.dataset import Dataset, arrays

FILE = os.path.join(os.path.dirname(__file__), "digits.zlib")
SIDE, LEVELS = 8, 16
"""A pixel counts the dark ones of 4x4: 0 to 16."""

HELD_OUT = slice(2, None, 5)
"""Of each digit's images, in the file's order, the third of every five: 359 of 1,797 in all."""


def digits() -> tuple[Dataset, Dataset]:
    """(train, test): 1,438 and 359 images, x float32 (N, 8, 8, 1) in [0, 1], y int32 (N,) 0 to 9.

    The split is fixed, and takes the same share of each digit. Both parts have images by the same
    people: it tells how well a network knows new images, not new hands.
    """
    with open(FILE, "rb") as file:  # no .npz: to read one takes two megabytes of libraries
        rows = np.frombuffer(zlib.decompress(file.read()), np.uint8).reshape(-1, SIDE * SIDE + 1)
    x, y = rows[:, :-1].reshape(-1, SIDE, SIDE), rows[:, -1]
    held = np.zeros(len(y), bool)
    for digit in range(10):
        held[np.flatnonzero(y == digit)[HELD_OUT]] = True
    scaled = np.divide(x, LEVELS, dtype=np.float32)[..., np.newaxis]
    whole = arrays(scaled, y, [str(digit) for digit in range(10)], where=FILE)
    return whole.take(np.flatnonzero(~held)), whole.take(np.flatnonzero(held))
