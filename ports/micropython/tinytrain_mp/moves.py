"""What moves values: transpose, slice, broadcast, pad, concat, embedding. Conventions: `basic.py`.
A block is rank, where output and input begin, sizes, output strides, input strides."""

from .basic import fill, walk


def _block(F, y, x, adds, w):
    """Copy (or add) one block; how many words it has."""
    rank = w[0]
    y += w[1]
    x += w[2]
    w = w[3 : 3 + 3 * rank]
    i, j = w[2 * rank - 1], w[3 * rank - 1]
    for p, q in walk(rank, w, rank - 1):
        p += y
        q += x
        for _ in range(w[rank - 1]):
            F[p] = F[p] + F[q] if adds else F[q]
            p += i
            q += j
    return 3 + 3 * rank


def move(F, B, y, x, *w):
    _block(F, y, x, False, w)


def concat(F, B, operands, y, *rest):
    w = rest[operands:]
    for x in rest[: operands - 1]:
        w = w[_block(F, y, x, False, w) :]


def pad(F, B, y, x, n, value, *w):
    fill(F, B, y, n, value)
    _block(F, y, x, False, w)


def slice_vjp(F, B, dx, g, acc, n, *w):
    if not acc:
        fill(F, B, dx, n, 0.0)
    _block(F, dx, g, acc, w)


def _row(B, indices, k, count, width):
    """Where the row that the k-th index names begins in a table of `count` rows."""
    at = 4 * (indices + k)
    index = B[at] | B[at + 1] << 8 | B[at + 2] << 16
    return (0 if B[at + 3] & 128 else min(index, count - 1)) * width


def embedding(F, B, y, table, indices, n, count, width):
    for k in range(n):
        at = table + _row(B, indices, k, count, width)
        for j in range(width):
            F[y + j] = F[at + j]
        y += width


def embedding_vjp(F, B, dtable, g, indices, n, count, width, acc):
    if not acc:
        fill(F, B, dtable, count * width, 0.0)
    for k in range(n):
        at = dtable + _row(B, indices, k, count, width)
        for j in range(width):
            F[at + j] += F[g + j]
        g += width


KERNELS = {
    1: move,
    2: (concat, -1, 0),
    3: (pad, 1, 1),
    4: slice_vjp,
    50: embedding,
    51: embedding_vjp,
}
