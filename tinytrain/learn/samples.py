"""What an estimator is given, checked as scikit-learn checks it and said in its words, without
needing it; nothing is mended but dtypes.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np

from tinytrain.errors import InputError


def of_sklearn(module: str, name: str, otherwise: Any) -> Any:
    """A class of scikit-learn's if the user has imported it, for what looks for that very class."""
    return getattr(sys.modules.get(f"sklearn.{module}"), name, otherwise)


def not_fitted(what: str) -> Exception:
    """The error for a question before `fit`: InputError, and scikit-learn's NotFittedError too."""
    kind = of_sklearn("exceptions", "NotFittedError", None)
    made = InputError if kind is None else type("NotFittedError", (InputError, kind), {})
    return made(f"this {what} is not fitted yet; call fit with data first")


def to_inputs(x: Any, name: str, shape: tuple[int, ...] | None, features: int | None) -> np.ndarray:
    """float32 (N, features), or (N, *shape) where the samples have one. InputError (TypeError for
    what no number can be made of) unless it is a finite, non-empty array of numbers of the same
    number of features as `features`, if that is known."""
    if hasattr(x, "tocsr"):
        raise TypeError("X is sparse, which is not supported; give x.toarray()")
    array = _numbers("X", x)
    if shape is not None and array.shape[1:] == shape:
        array = array.reshape(len(array), -1)
    if array.ndim != 2:
        raise InputError(
            f"X: Expected 2D array, got {array.ndim}D array instead (shape {array.shape}). "
            f"Reshape your data, or name the shape of a sample with input_shape="
        )
    wanted = features if features is not None else None if shape is None else int(np.prod(shape))
    if not len(array):
        raise InputError(
            f"X: Found array with 0 sample(s) (shape={array.shape}) while a minimum of 1 is "
            f"required by {name}."
        )
    if not array.shape[1]:
        raise InputError(
            f"X: Found array with 0 feature(s) (shape={array.shape}) while a minimum of 1 is "
            f"required by {name}."
        )
    if wanted is not None and array.shape[1] != wanted:
        raise InputError(
            f"X has {array.shape[1]} features, but {name} is expecting {wanted} features as input"
        )
    return _finite("X", array, np.float32).reshape(len(array), *(shape or array.shape[1:]))


def to_targets(y: Any, n: int) -> tuple[np.ndarray, bool]:
    """float32 (N, outputs), and whether there was no second axis."""
    array = _finite("y", _one_each(_numbers("y", _given(y)), n), np.float32)
    return array.reshape(n, -1), array.ndim == 1


def to_labels(y: Any, n: int) -> np.ndarray:
    """Labels (N,) as they are; InputError for numbers that are none of classes."""
    array = np.asarray(_given(y))
    if array.dtype.kind == "c":
        raise InputError("y: Complex data not supported")
    array = _one_each(array, n)
    if array.ndim == 2 and array.shape[1] == 1:
        warnings.warn(
            of_sklearn("exceptions", "DataConversionWarning", UserWarning)(
                "A column-vector y was passed when a 1d array was expected. Please change the "
                "shape of y to (n_samples,), for example using ravel()."
            ),
            stacklevel=4,
        )
        array = array.ravel()
    if array.ndim != 1:
        raise InputError(f"y should be a 1d array, got an array of shape {array.shape} instead")
    if array.dtype.kind == "f":
        _finite("y", array, np.float64)
        if (array != np.round(array)).any():
            raise InputError(
                "y: Unknown label type: continuous; a classifier learns classes, a Regressor this"
            )
    return array


def _given(y: Any) -> Any:
    if y is None:
        raise InputError("this estimator requires y to be passed, but the target y is None")
    return y


def _one_each(array: np.ndarray, n: int) -> np.ndarray:
    if not array.ndim or len(array) != n:
        raise InputError(
            f"y: Found input variables with inconsistent numbers of samples: {n} of X, "
            f"{array.shape} of y"
        )
    return array


def _numbers(what: str, values: Any) -> np.ndarray:
    """An array of real numbers; objects and text become float64 where they can."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InputError(f"{what}: not a regular array of numbers ({error})") from error
    if array.dtype.kind == "c":
        raise InputError(f"{what}: Complex data not supported")
    if array.dtype.kind in "OUS":
        try:
            array = array.astype(np.float64)
        except ValueError as error:
            raise InputError(f"{what}: wants numbers ({error})") from error
    if array.dtype.kind not in "fiub":
        raise InputError(f"{what}: dtype {array.dtype} is not a number; convert it first")
    return array


def _finite(what: str, array: np.ndarray, dtype: Any) -> np.ndarray:
    """As float32; InputError for what is not finite there."""
    with np.errstate(over="ignore", invalid="ignore"):
        made = array.astype(dtype)
    if np.isnan(made).any():
        raise InputError(f"Input {what} contains NaN; mend or drop those samples")
    if not np.isfinite(made).all():
        raise InputError(
            f"Input {what} contains infinity or a value too large for {np.dtype(dtype)!r}; mend "
            f"or drop those samples"
        )
    return made
