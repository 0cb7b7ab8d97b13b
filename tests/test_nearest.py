"""Nearest class mean in Mahalanobis distance: the textbook's discriminant, in any order."""

from __future__ import annotations

import numpy as np
import pytest

import tinytrain as tt
from tinytrain import models
from tinytrain.learn.nearest import ROUND, Neighbours, Prototypes

SIZE, CLASSES = 6, 4


def drawn(each: int = 9):
    """Classes that differ in one direction, and spread in another."""
    rng = np.random.default_rng(0)
    columns = np.repeat(np.arange(CLASSES), each)
    e = rng.normal(size=(len(columns), SIZE)).astype(np.float32)
    e[:, 0] *= 8
    e[:, 1] += 3 * columns
    return e, columns.astype(np.int32)


def filled(e, columns, parts: int = 1, metric: str = "mahalanobis") -> Prototypes:
    held = Prototypes(SIZE, metric)
    for _ in range(CLASSES):
        held.add_class()
    order = np.random.default_rng(1).permutation(len(e))
    for part in np.array_split(order, parts):
        held.add(e[part], columns[part])
    return held


def test_scores_are_the_discriminant_s():
    e, columns = drawn()
    means = np.stack([e[columns == k].mean(0) for k in range(CLASSES)]).astype(np.float64)
    rest = e - means[columns]
    spread = rest.T @ rest / (len(e) - CLASSES)
    spread = (1 - ROUND) * spread + ROUND * np.trace(spread) / SIZE * np.eye(SIZE)
    apart = e[:, None] - means
    want = -0.5 * np.einsum("nki,ij,nkj->nk", apart, np.linalg.inv(spread), apart)
    got = filled(e, columns).scores(e)
    np.testing.assert_allclose(np.diff(got), np.diff(want), rtol=1e-3, atol=1e-3)


def test_spread_counts_where_plain_distance_is_misled():
    e, columns = drawn(40)
    right = {
        metric: (filled(e[::2], columns[::2], 1, metric).scores(e[1::2]).argmax(1) == columns[1::2])
        for metric in ("euclidean", "mahalanobis")
    }
    assert right["mahalanobis"].mean() > right["euclidean"].mean() + 0.05


@pytest.mark.parametrize("parts", [2, 36])
def test_the_order_of_examples_does_not_matter(parts):
    e, columns = drawn()
    one, many = filled(e, columns), filled(e, columns, parts)
    assert one.freedom == many.freedom == len(e) - CLASSES
    np.testing.assert_allclose(many.within, one.within, rtol=1e-3, atol=1e-3)


def test_one_example_each_is_enough_and_a_class_goes():
    e, columns = drawn(1)
    held = filled(e, columns)
    assert (held.scores(e).argmax(1) == columns).all()
    held.remove_class(1)
    assert held.scores(e).shape == (CLASSES, CLASSES - 1)


def test_few_examples_are_no_handicap():
    """Of a class with one example, as many of what lies half way are its own."""
    rng = np.random.default_rng(3)
    shares = []
    for _ in range(200):
        e = rng.normal(size=(21, SIZE)).astype(np.float32)
        columns = np.r_[np.zeros(20), 1].astype(np.int32)
        held = Prototypes(SIZE, "mahalanobis")
        held.add_class()
        held.add_class()
        held.add(e, columns)
        asked = rng.normal(size=(50, SIZE)).astype(np.float32)
        shares.append((held.scores(asked).argmax(1) == 1).mean())
    assert 0.4 < np.mean(shares) < 0.65


def test_it_is_saved_with_what_adapts(tmp_path):
    net = models.build("digits_cnn", seed=1)
    rng = np.random.default_rng(0)
    x = rng.random((12, *net.input_shape)).astype(np.float32)
    learner = tt.adapt(net, "prototypes", metric="mahalanobis").fit(x, np.arange(12) % 3)
    learner.save(str(tmp_path / "a.npz"))
    again = tt.Learner.restore(str(tmp_path / "a.npz"))
    np.testing.assert_array_equal(again.predict_proba(x), learner.predict_proba(x))
    size = learner._decided().store.size
    assert learner._decided().stored_bytes == 4 * (size * size + 3 * (size + 1))
    with pytest.raises(tt.InputError, match="mahalanobis"):
        Neighbours(SIZE, "mahalanobis")
