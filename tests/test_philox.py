"""The stream that initial weights and shuffles come from is NumPy's, number for number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytrain import nn, philox

KEYS = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))


def numpys(key: tuple[int, int]) -> np.random.Philox:
    return np.random.Philox(key=np.array(key, np.uint64))


@given(KEYS, st.integers(0, 50))
def test_words_are_numpys(key, n):
    np.testing.assert_array_equal(philox.raw(key, n), numpys(key).random_raw(n))


def test_words_of_several_pieces_are_numpys():
    n = philox.PIECE * philox.WORDS + 5
    np.testing.assert_array_equal(philox.raw((7, 2**63), n), numpys((7, 2**63)).random_raw(n))


@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 3, 2, 7), (0,), (philox.LARGE + 1,)])
def test_floats_are_numpys(shape):
    ours, theirs = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    rng, other = philox.Generator((3, 4)), np.random.Generator(numpys((3, 4)))
    rng.uniform32(ours)
    other.random(out=theirs, dtype=np.float32)
    np.testing.assert_array_equal(ours, theirs)
    assert rng.standard_normal() == other.standard_normal()  # and they go on alike
    rng.uniform32(ours)
    other.random(out=theirs, dtype=np.float32)
    np.testing.assert_array_equal(ours, theirs)


def test_an_initialiser_takes_numpys_generator_too():
    ours, theirs = np.zeros(9, np.float32), np.zeros(9, np.float32)
    nn.init.uniform(0.5)(philox.Generator((1, 2)), ours)
    nn.init.uniform(0.5)(np.random.Generator(numpys((1, 2))), theirs)
    np.testing.assert_array_equal(ours, theirs)
    assert abs(ours).max() <= 0.5 and ours.std() > 0
