"""topk: the elements of largest magnitude and one bit for every element; the rest reads as zero.

For weight gradients alone, which become approximate: the forward pass, the gradients of gates (by
one more bit an element) and so all gradients of data stay exact. The size is static and nothing
overflows. Nobody but the user chooses it. Sources: BackRazor (Jiang et al. 2022), BitTrain (Hosny
et al. 2021).
"""

import math

from tinytrain.stash import bitmap

SHARE = 0.1  # of a value's elements, where no density is given


def room(size: int, share: float) -> int:
    """Elements kept of a value of `size`."""
    return max(1, math.ceil(size * share))


def save(b, v: int) -> None:
    """Pack v's largest elements. If v is a gate's output, its sign is kept by `masks`."""
    k = room(b.spec(v).size, b.decisions.densities[v])
    mask, values = b.emit("topk_pack", v, k=k)
    b.packed[v] = b.holds(mask, v, "stash"), b.holds(values, v, "stash")


def restore(b, v: int) -> int:
    """The elements that were kept among zeros, anew for every reader."""
    return bitmap.restore(b, v)
