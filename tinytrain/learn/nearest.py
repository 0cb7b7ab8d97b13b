"""Classifiers over embeddings that need no gradient: nearest class mean, and k nearest neighbours.
A class is added with one example, and removed. They hold embeddings; they make none.

Sources: nearest class mean as prototypical networks have it (Snell et al. 2017), in Mahalanobis
distance with a spread that all classes share (linear discriminant analysis; of few examples,
Bateni et al. 2020); neighbours weighted by closeness, Wu et al. 2018 (instance discrimination); a
dense layer that begins as nearest class mean, Snell et al. (section 2.4) and Triantafillou et al.
2020.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytrain.errors import InputError
from tinytrain.number import is_whole

METRICS = ("cosine", "euclidean")
SPREAD = "mahalanobis"  # of prototypes alone: squared distance in units of the classes' spread
ROUND = 0.5  # share of that spread which is taken to be the same in every direction
APART = 4.0  # logits that two classes' means differ by where a head begins as nearest class mean
SHARPNESS = 14.0  # cosines are multiplied by this before a softmax: one over Wu et al.'s 0.07


def _unit(e: np.ndarray) -> np.ndarray:
    norm = np.sqrt(np.sum(e * e, axis=-1, keepdims=True))
    return e / np.maximum(norm, np.float32(1e-12))


def _check_metric(metric: str, known: tuple[str, ...] = METRICS) -> str:
    if metric not in known:
        raise InputError(f"unknown metric {metric!r}; there are {', '.join(known)}")
    return metric


def closeness(e: np.ndarray, held: np.ndarray, metric: str) -> np.ndarray:
    """(N, size) and (M, size) to (N, M) float32, larger where closer: SHARPNESS times the cosine,
    or minus the squared distance."""
    if metric == "cosine":
        return SHARPNESS * (_unit(e) @ _unit(held).T)
    squares = np.sum(e * e, axis=1)[:, None] + np.sum(held * held, axis=1)[None]
    return 2 * (e @ held.T) - squares


class Prototypes:
    """The mean embedding of each class: `size` float32 sums and one count a class; in Mahalanobis
    distance also `size` x `size` float32, how embeddings spread about their class' mean."""

    def __init__(self, size: int, metric: str = "cosine"):
        self.size, self.metric = size, _check_metric(metric, (*METRICS, SPREAD))
        self.sums = np.zeros((0, size), np.float32)
        self.counts = np.zeros(0, np.int32)
        side = size if metric == SPREAD else 0
        self.within = np.zeros((side, side), np.float32)  # sum of products of what differs
        self.freedom = np.zeros(1, np.int32)  # differences in it that are independent

    def add_class(self) -> None:
        """Room for one more class, without an example yet."""
        self.sums = np.concatenate([self.sums, np.zeros((1, self.size), np.float32)])
        self.counts = np.append(self.counts, np.int32(0))

    def remove_class(self, k: int) -> None:
        """Forget class k; those behind it move up. How it spread stays, for all spread alike."""
        self.sums, self.counts = np.delete(self.sums, k, 0), np.delete(self.counts, k)

    def add(self, e: np.ndarray, columns: np.ndarray) -> None:
        """Examples (N, size) of classes (N,)."""
        if self.metric == SPREAD:
            for k in np.unique(columns):
                self._spread(e[columns == k], k)
        np.add.at(self.sums, columns, _unit(e) if self.metric == "cosine" else e)
        np.add.at(self.counts, columns, 1)

    def _spread(self, e: np.ndarray, k: int) -> None:
        """Take in how these of class k differ from their mean, and that from the class' before
        (Chan et al. 1983)."""
        n, before = len(e), int(self.counts[k])
        mean = e.mean(axis=0)
        self.within += (e - mean).T @ (e - mean)
        self.freedom += n - (not before)
        if before:
            apart = mean - self.sums[k] / np.float32(before)
            self.within += np.outer(apart, apart) * np.float32(n * before / (n + before))

    @property
    def means(self) -> np.ndarray:
        """(classes, size); zeros for a class without an example."""
        return self.sums / np.maximum(self.counts, 1)[:, None].astype(np.float32)

    def scores(self, e: np.ndarray) -> np.ndarray:
        """(N, classes): logarithms of probabilities, up to a constant a row; -inf for a class
        without an example."""
        if self.metric == SPREAD:
            found = self._likelihoods(e)
        else:
            found = closeness(e, self.means, self.metric)
        found[:, self.counts == 0] = -np.inf
        return found

    def _likelihoods(self, e: np.ndarray) -> np.ndarray:
        """Minus half the squared distance in units of the spread, less what the mean of n examples
        adds to it: 1 / n in each direction."""
        covariance = self.within / max(int(self.freedom[0]), 1)
        even = float(np.trace(covariance)) / self.size or 1.0
        rounded = (1 - ROUND) * covariance + ROUND * even * np.eye(self.size, dtype=np.float32)
        inverse = np.linalg.inv(rounded)
        noise = self.size / np.maximum(self.counts, 1)
        means = self.means @ inverse
        squares = (means * self.means).sum(axis=1)
        found = e @ means.T - 0.5 * (squares - noise)
        return found.astype(np.float32)

    @property
    def nbytes(self) -> int:
        """What it holds."""
        return self.sums.nbytes + self.counts.nbytes + self.within.nbytes

    def bytes_for(self, classes: int, examples: int) -> int:
        """What so many classes more take, whatever the number of examples."""
        return classes * (4 * self.size + 4)

    def state(self) -> dict[str, np.ndarray]:
        """Its arrays."""
        return {name: getattr(self, name) for name in ("sums", "counts", "within", "freedom")}

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Take what `state` gave; InputError if it does not fit."""
        sums, counts = arrays["sums"], arrays["counts"]
        fits = sums.ndim == 2 and sums.shape == (len(counts), self.size)
        if not fits or sums.dtype != np.float32 or counts.dtype != np.int32:
            raise InputError(f"prototypes are {sums.dtype}{list(sums.shape)}, wants {self.size}")
        self.sums, self.counts = sums.copy(), counts.copy()
        for name in ("within", "freedom"):
            own, given = getattr(self, name), arrays[name]
            if given.shape != own.shape or given.dtype != own.dtype:
                raise InputError(f"prototypes: {name} is {given.dtype}{list(given.shape)}")
            own[...] = given


class Neighbours:
    """Every example's embedding and class: `size` float32 and one int32 an example."""

    def __init__(self, size: int, metric: str = "cosine", neighbours: int = 5):
        if not is_whole(neighbours) or neighbours < 1:
            raise InputError(f"neighbours is {neighbours!r}; wants a whole number of at least 1")
        self.size, self.metric, self.neighbours = size, _check_metric(metric), int(neighbours)
        self.held = np.zeros((0, size), np.float32)
        self.columns = np.zeros(0, np.int32)
        self.classes = 0

    def add_class(self) -> None:
        """One more class, without an example yet."""
        self.classes += 1

    def remove_class(self, k: int) -> None:
        """Forget class k and its examples; classes behind it move up."""
        stay = self.columns != k
        self.held, columns = self.held[stay], self.columns[stay]
        self.columns = (columns - (columns > k)).astype(np.int32)
        self.classes -= 1

    def add(self, e: np.ndarray, columns: np.ndarray) -> None:
        """Examples (N, size) of classes (N,)."""
        self.held = np.concatenate([self.held, e.astype(np.float32)])
        self.columns = np.concatenate([self.columns, columns.astype(np.int32)])

    @property
    def counts(self) -> np.ndarray:
        """Examples of each class."""
        return np.bincount(self.columns, minlength=self.classes).astype(np.int32)

    def scores(self, e: np.ndarray) -> np.ndarray:
        """(N, classes): the logarithm of each class's share in the votes of the nearest, a vote
        weighing exp(closeness) relative to the closest; -inf for a class without a vote."""
        k = min(self.neighbours, len(self.held))
        near = closeness(e, self.held, self.metric)
        picked = np.argpartition(-near, k - 1, axis=1)[:, :k]
        weights = np.take_along_axis(near, picked, 1)
        weights = np.exp(weights - weights.max(axis=1, keepdims=True))
        votes = np.zeros((len(e), self.classes), np.float32)
        np.add.at(votes, (np.arange(len(e))[:, None], self.columns[picked]), weights)
        with np.errstate(divide="ignore"):
            return np.log(votes)

    @property
    def nbytes(self) -> int:
        """What it holds."""
        return self.held.nbytes + self.columns.nbytes

    def bytes_for(self, classes: int, examples: int) -> int:
        """What it would hold of so many examples."""
        return examples * (4 * self.size + 4)

    def state(self) -> dict[str, np.ndarray]:
        """Its arrays."""
        return {
            "held": self.held,
            "columns": self.columns,
            "classes": np.array([self.classes], np.int32),
        }

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Take what `state` gave; InputError if it does not fit."""
        held, columns, classes = arrays["held"], arrays["columns"], int(arrays["classes"][0])
        fits = held.ndim == 2 and held.shape == (len(columns), self.size)
        if not fits or held.dtype != np.float32 or columns.dtype != np.int32:
            raise InputError(f"neighbours are {held.dtype}{list(held.shape)}, wants {self.size}")
        if len(columns) and not 0 <= columns.min() <= columns.max() < classes:
            raise InputError(f"neighbours: a class is not one of {classes}")
        self.held, self.columns, self.classes = held.copy(), columns.copy(), classes


STORES: dict[str, Any] = {"prototypes": Prototypes, "knn": Neighbours}


# ---------------------------------------------------------------------------- dense layers


def as_nearest_mean(
    w: np.ndarray, bias: np.ndarray, classes: np.ndarray, means: np.ndarray
) -> None:
    """Columns (size, classes) that answer as the nearest mean in squared distance does, two means
    being APART logits apart."""
    center = means.mean(axis=0)
    gap = float(((means - center) ** 2).sum(axis=1).mean())
    scale = APART / max(gap, 1e-12)
    w[:, classes] = (scale * (means - center)).T
    bias[classes] = -scale / 2 * ((means**2).sum(axis=1) - (center**2).sum())


def beside_learned(
    w: np.ndarray, bias: np.ndarray, classes: np.ndarray, means: np.ndarray, fill: list[int]
) -> None:
    """Columns of new classes beside learned ones: each points from the other means to its own, as
    long and as high as it takes for its own mean to get APART / 2 more logits than the learned
    columns give it, and every other mean as many less."""
    learned = np.setdiff1d(np.arange(w.shape[1]), fill)
    best = (means @ w[:, learned] + bias[learned]).max(axis=1)
    for k in fill:
        own = classes == k
        toward = means[own][0] - means[~own].mean(axis=0)
        along = means @ toward
        gap = along[own].min() - along[~own]  # how much sooner it answers to its own mean
        short = APART + best[own].max() - best[~own]
        length = float(np.max(np.where(gap > 0, short / np.maximum(gap, 1e-12), 0)))
        w[:, k] = length * toward
        bias[k] = APART / 2 + best[own].max() - length * along[own].min()
