"""topk: the elements of largest magnitude and one bit for every element; the rest reads as zero.

For weight gradients alone, which become approximate: the forward pass, the gradients of gates (by
one more bit an element) and so all gradients of data stay exact. The size is static and nothing
overflows. Nobody but the user chooses it. Sources: BackRazor (Jiang et al. 2022), BitTrain (Hosny
et al. 2021).
"""

import math

SHARE = 0.1  # of a value's elements, where no density is given


def room(size: int, share: float) -> int:
    """Elements kept of a value of `size`."""
    return max(1, math.ceil(size * share))


def save(b, v: int) -> None:
    """Pack v's largest elements. If v is a gate's output, its sign is kept by `masks`."""
    k = room(b.spec(v).size, b.decisions.densities[v])
    mask, values = b.emit("topk_pack", v, k=k)
    b.program.kinds[mask] = b.program.kinds[values] = "stash"
    b.program.stands_for[mask] = b.program.stands_for[values] = v
    b.packed[v] = mask, values


def restore(b, v: int) -> int:
    """The elements that were kept among zeros, anew for every reader."""
    b.passes(v)
    dense = b.emit("bitmap_unpack", *b.packed[v], shape=b.spec(v).shape)
    b.program.kinds[dense] = "activation"
    b.program.stands_for[dense] = v
    return dense
