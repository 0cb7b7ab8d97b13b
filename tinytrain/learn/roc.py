"""The area under the receiver's operating curve, which no threshold enters."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytrain.errors import InputError


def auc(normal: Any, anomalous: Any) -> float:
    """The share of pairs in which the anomalous score is the larger; a tie is half a pair.

    It is the area under the ROC curve (Hanley and McNeil 1982). InputError unless there are finite
    scores of both.
    """
    low, high = (np.asarray(s, np.float64).reshape(-1) for s in (normal, anomalous))
    if not len(low) or not len(high) or not np.isfinite([*low, *high]).all():
        raise InputError("auc: wants finite scores of both, normal and anomalous")
    low = np.sort(low)
    below = np.searchsorted(low, high, "left") + np.searchsorted(low, high, "right")
    return float(below.sum() / (2 * len(low) * len(high)))
