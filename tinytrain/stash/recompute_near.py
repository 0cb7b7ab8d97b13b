"""recompute_near: as recompute, but what is made only on the way to another value is forgotten.

It is made again when its own readers come, and then stays for all of them: the inner steps of the
schedules that Griewank and Walther's revolve (2000) finds for chains.
"""

from tinytrain.op import OPS


def save(b, v: int) -> None:
    """Nothing: the buffer is free behind the last forward reader."""


def restore(b, v: int) -> int:
    """A clone; if another clone asks for it, no later reader finds it."""
    on_the_way = any(u != v and not OPS[b.producer[u].op].view for u in b.busy)
    if on_the_way:
        b.passes(v)
    return b.clone(v)
