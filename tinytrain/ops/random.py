"""Rows that draw: dropout, from a counter-based generator, so that a replay draws the same.

The key is three uint32 in the arena, (seed, step, first sample of the slice); an element's draw is
a hash of the key, the node's `stream` and the element's place in its sample. The same function of
integers gives the same mask in NumPy, Numba, C and MicroPython.
"""

from __future__ import annotations

from tinytrain.errors import InputError
from tinytrain.op import register
from tinytrain.spec import Spec


def _dropout(x: Spec, key: Spec, p=0.5, stream=0):
    if not 0 <= p < 1:
        raise InputError(f"dropout: p is {p}, wants 0 <= p < 1")
    if key != Spec((3,), "uint32"):
        raise InputError(f"dropout: the key is {key}, wants uint32[3]")
    return x


# Linear in x with a mask that can be drawn again: its own gradient, and no residual but the key.
register(
    "dropout",
    _dropout,
    vjp=(lambda b, n, g: b.grad("dropout", g, b.get(n.ins[1]), **n.attrs), None),
    saves=("x1",),
    inplace=((0, 0),),
)
