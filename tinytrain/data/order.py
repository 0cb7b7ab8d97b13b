"""The order in which samples are drawn: the same on every machine and under every NumPy."""

import operator
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinytrain import philox
from tinytrain.errors import InputError

Index = NDArray[np.int32]

SEEDS = 1 << 63
"""Seeds and epochs lie below this; the second word of a key above it is free for other draws."""

SPLIT = (1 << 64) - 1
"""Second key word of `split`, which no epoch has."""


def batches(
    n: int, batch: int, seed: int, epoch: int = 0, drop_last: bool = False
) -> Iterator[Index]:
    """One epoch's batches: int32 indices into n samples, (batch,) each, every sample once.

    Shuffled by (seed, epoch) alone, so that a run resumed anywhere goes on as it would have. The
    last, partial batch, (n % batch,), is yielded, or dropped with `drop_last`. Raises InputError,
    at the call, for sizes below 1, seeds outside [0, 2**63) and when nothing would be left.
    """
    n, batch = _whole("n", n, 1, 1 << 31), _whole("batch", batch, 1)
    seed, epoch = _whole("seed", seed, 0), _whole("epoch", epoch, 0)
    if drop_last and batch > n:
        raise InputError(
            f"batches: {n} samples, batch {batch} and drop_last leave no batch at all; "
            f"take a batch of at most {n}, or keep the partial one"
        )
    return _slices(_permutation(n, seed, epoch), batch, n - n % batch if drop_last else n)


def balanced(
    labels: ArrayLike, batch: int, seed: int, epoch: int = 0, drop_last: bool = False
) -> Iterator[Index]:
    """As `batches`, but every class of labels (N,) is drawn as often as any other, N samples or
    up to a class more in all: those of a rare class several times, all equally often but for one.
    """
    y = np.asarray(labels)
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise InputError(f"balanced: labels are {y.dtype}{list(y.shape)}; wants integers (N,)")
    n = _whole("n", len(y), 1, 1 << 31)
    batch, seed, epoch = (
        _whole("batch", batch, 1),
        _whole("seed", seed, 0),
        _whole("epoch", epoch, 0),
    )
    order = _permutation(n, seed, epoch)
    classes = np.unique(y)
    each = -(-n // len(classes))
    picked = np.concatenate([np.resize(order[y[order] == c], each) for c in classes])
    if drop_last and batch > len(picked):
        raise InputError(f"balanced: {len(picked)} draws, batch {batch} and drop_last leave none")
    end = len(picked) - len(picked) % batch if drop_last else len(picked)
    return _slices(picked[_permutation(len(picked), seed, epoch)], batch, end)


def split(n: int, fraction: float, seed: int) -> tuple[Index, Index]:
    """Two sorted int32 index arrays, (kept, held out); `fraction` of n samples is held out.

    The second has round(n * fraction) entries. Raises InputError when a part would be empty.
    """
    n, seed = _whole("n", n, 1, 1 << 31), _whole("seed", seed, 0)
    if not 0 < fraction < 1:
        raise InputError(f"split: fraction is {fraction}; give the held-out share, between 0 and 1")
    held = round(n * fraction)
    if held in (0, n):
        raise InputError(
            f"split: {fraction} of {n} samples leaves one part empty; take another fraction"
        )
    order = _permutation(n, seed, SPLIT)
    return np.sort(order[held:]), np.sort(order[:held])


def _slices(order: Index, batch: int, end: int) -> Iterator[Index]:
    for start in range(0, end, batch):
        yield order[start : min(start + batch, end)]


def _permutation(n: int, first: int, second: int) -> Index:
    """A permutation of n by sorting raw Philox words, keyed (first, second).

    NumPy promises that a bit generator's stream never changes (NEP 19); what Generator.permutation
    makes of it may. Philox: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.
    """
    words = philox.raw((first, second), n)
    return np.argsort(words, kind="stable").astype(np.int32)


def _whole(name: str, value: Any, low: int, high: int = SEEDS) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise InputError(f"{name} is {value!r}; a whole number is wanted") from None
    if not low <= number < high:
        raise InputError(f"{name} is {number}; it must be at least {low} and below {high}")
    return number
