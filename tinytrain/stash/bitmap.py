"""bitmap: one bit an element and the packed non-zeros, bit-exact, in the arena.

Source: BitTrain (Hosny et al. 2021). The room for the non-zeros is planned from a density; when
the data has more, the flag at the forward mark rises before anything persistent has changed, and
the slice is run again under the guaranteed plan. A value that would not shrink stays dense. The
index of a max pool is a bitmap too: a few bits tell its taps apart, whatever the data.
"""

import math

from tinytrain.ops.pool import index_bits

MARGIN = 0.05  # of a value's elements, on top of the nominal density, for batches that differ
LINE, MANY = 16, 4096  # elements of a line of a host's cache; beside so many one does not count


def _part(size: int, share: float) -> int:
    return math.ceil(size * min(1.0, share))


def room(size: int, density: float, margin: float = MARGIN) -> int:
    """Elements planned for the non-zeros of a value of `size`: many fill whole lines of a cache."""
    most = _part(size, density + margin)
    return most - most % LINE if most >= MANY else most


def pays(spec, density: float) -> bool:
    """Whether mask, non-zeros and their count are smaller than the dense value."""
    if not spec.is_float or not spec.size:
        return False
    itemsize = spec.nbytes // spec.size
    return -(-spec.size // 8) + itemsize * room(spec.size, density) + 4 < spec.nbytes


def bits_of(node, v: int) -> int | None:
    """How many bits hold each number of v, where `node` makes it as the index of a max pool."""
    if node.op != "max_pool2d" or v == node.outs[0]:
        return None
    return index_bits(node.attrs["kernel_size"])


def save(b, v: int) -> None:
    """Pack v: an index, or a value for which a density is known, if it pays."""
    bits = bits_of(b.producer[v], v)
    if bits is not None:
        b.packed[v] = (b.holds(b.emit("index_pack", v, bits=bits), v, "stash"),)
        return
    density = b.decisions.densities.get(v)
    if density is None or not pays(b.spec(v), density):
        return
    capacity = max(room(b.spec(v).size, density), 1)
    mask, values, count = b.emit("bitmap_pack", v, capacity=capacity)
    b.packed[v] = b.holds(mask, v, "stash"), b.holds(values, v, "stash")
    b.program.kinds[count] = "stash"
    b.counts[count] = capacity


def restore(b, v: int) -> int:
    """v unpacked, anew for every reader; v itself where it stayed dense."""
    if v not in b.packed:
        return v
    b.passes(v)
    bits = bits_of(b.producer[v], v)
    if bits is None:
        dense = b.emit("bitmap_unpack", *b.packed[v], shape=b.spec(v).shape)
    else:
        dense = b.emit("index_unpack", *b.packed[v], shape=b.spec(v).shape, bits=bits)
    return b.holds(dense, v, "activation")
