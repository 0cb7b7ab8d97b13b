"""Which classes are taken for which: counts, a report for each class, in text. It draws nothing
(`picture.confusion_svg` does) and predicts nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinytrain.errors import InputError
from tinytrain.report import table

WIDEST = 20  # classes of a matrix that is shown whole; of more, the worst pairs
PAIRS = 12


def counts(labels: Any, answers: Any, classes: int) -> np.ndarray:
    """int64 (classes, classes): row the label, column the answer, both class numbers (N,)."""
    y, a = (np.asarray(v).reshape(-1) for v in (labels, answers))
    if len(y) != len(a):
        raise InputError(f"confusion: {len(y)} labels and {len(a)} answers; one each is wanted")
    for what, v in (("label", y), ("answer", a)):
        if len(v) and not 0 <= v.min() <= v.max() < classes:
            raise InputError(f"confusion: a {what} is not among {classes} classes")
    return np.bincount(y * classes + a, minlength=classes**2).reshape(classes, classes)


def per_class(found: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """For each class: samples, recall (of its samples, how many are found), precision (of what is
    taken for it, how much is), F1, and what it is most often mistaken for; None for a share of
    nothing."""
    rows = []
    for k, name in enumerate(names):
        hits, have, said = int(found[k, k]), int(found[k].sum()), int(found[:, k].sum())
        wrong = found[k].copy()
        wrong[k] = 0
        most = int(wrong.argmax())
        rows.append(
            {
                "class": name,
                "samples": have,
                "recall": hits / have if have else None,
                "precision": hits / said if said else None,
                "f1": 2 * hits / (have + said) if have + said else None,
                "mistaken_for": names[most] if wrong[most] else None,
                "times": int(wrong[most]),
            }
        )
    return rows


def text(found: np.ndarray, names: Sequence[str]) -> str:
    """The report for each class, and the matrix, or of many classes the most frequent mistakes."""
    rows = [
        (
            r["class"],
            r["samples"],
            *(_percent(r[name]) for name in ("recall", "precision", "f1")),
            "-" if r["mistaken_for"] is None else f"{r['mistaken_for']} ({r['times']})",
        )
        for r in per_class(found, names)
    ]
    head = ("class", "samples", "recall", "precision", "F1", "most often taken for")
    if len(names) <= WIDEST:
        matrix = [(n, *(int(c) for c in row)) for n, row in zip(names, found, strict=True)]
        return f"{table(head, rows)}\n\n{table(('label, answer:', *names), matrix)}"
    off = found - np.diag(np.diag(found))
    order = np.argsort(-off, axis=None, kind="stable")[:PAIRS]
    pairs = [divmod(int(k), len(names)) for k in order if off.flat[k]]
    worst = [(names[i], names[j], int(off[i, j])) for i, j in pairs]
    return f"{table(head, rows)}\n\n{table(('label', 'answer', 'times'), worst)}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
