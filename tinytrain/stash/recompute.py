"""recompute: nothing is saved; the producer runs again in front of the first backward reader.

Chen et al. 2016 with the choice left to the planner. Bit-exact: the same kernel on the same
inputs, and dropout draws by counter.
"""


def save(b, v: int) -> None:
    """Nothing: the buffer is free behind the last forward reader."""


def restore(b, v: int) -> int:
    """A clone of v's producer; its inputs are got by their own policies."""
    return b.clone(v)
