"""Dropout, from the counter-based generator that every backend has. Conventions: `basic.py`."""

_MASK = 0xFFFFFFFF


def _mix(h):
    """A 32-bit integer hash (lowbias32, C. Wellons 2018)."""
    h ^= h >> 16
    h = h * 0x7FEB352D & _MASK
    h ^= h >> 15
    h = h * 0x846CA68B & _MASK
    return h ^ h >> 16


def _uint32(B, at):
    return B[at] | B[at + 1] << 8 | B[at + 2] << 16 | B[at + 3] << 24


def dropout(F, B, y, x, key, rows, n, least, scale, stream):
    seed, step, first = [_uint32(B, 4 * (key + k)) for k in range(3)]
    least &= _MASK
    for r in range(rows):
        h = _mix(_mix(_mix(first + r & _MASK ^ seed) ^ step) ^ stream & _MASK)
        for k in range(n):
            F[y + k] = F[x + k] * scale if _mix(h ^ k) >= least else F[x + k] * 0.0
        x += n
        y += n


KERNELS = {71: (dropout, 3, 1)}
