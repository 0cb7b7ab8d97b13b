"""Spec: the shape and dtype of a value, without the value."""

from __future__ import annotations

import math
from dataclasses import dataclass

ITEMSIZE = {
    "float64": 8,
    "float32": 4,
    "int32": 4,
    "uint32": 4,
    "uint8": 1,
}


@dataclass(frozen=True, slots=True)
class Spec:
    """Shape (ints, channels last) and dtype name of one value."""

    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the dense value."""
        return self.size * ITEMSIZE[self.dtype]

    @property
    def is_float(self) -> bool:
        """Whether gradients can flow through it."""
        return self.dtype.startswith("float")

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"

    def with_shape(self, shape: tuple[int, ...]) -> Spec:
        """The same dtype with another shape."""
        return Spec(tuple(shape), self.dtype)
