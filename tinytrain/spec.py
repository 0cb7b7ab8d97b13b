"""Spec: the shape and dtype of a value, without the value."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

ITEMSIZE = {
    "float64": 8,
    "float32": 4,
    "int32": 4,
    "uint32": 4,
    "uint8": 1,
}


@dataclass(frozen=True, slots=True)
class Spec:
    """Shape (ints, channels last) and dtype name of one value.

    size    number of elements.
    nbytes  bytes of the dense value.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    # Worked out once: a solver asks for them millions of times.
    size: int = field(init=False, repr=False, compare=False)
    nbytes: int = field(init=False, repr=False, compare=False)
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", math.prod(self.shape))
        object.__setattr__(self, "nbytes", self.size * ITEMSIZE.get(self.dtype, 0))
        object.__setattr__(self, "_hash", hash((self.size, self.dtype)))

    def __hash__(self) -> int:
        return self._hash

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
