"""Max and average pooling and their gradients. Conventions: `basic.py`."""

from .basic import fill


def _windows(F, B, row, y, x, index, n, h, w, c, ho, wo, o, kh, kw, sh, sw, top, left, word):
    """row(F, B, y, x, index, c, tap, word) at each tap that touches the image."""
    for _ in range(n):
        for i in range(ho):
            for j in range(wo):
                for ki in range(kh):
                    r = i * sh - top + ki
                    for kj in range(kw):
                        s = j * sw - left + kj
                        if 0 <= r < h and 0 <= s < w:
                            p = x + (r * w + s) * c
                            row(F, B, y, p, index, c, ki * kw + kj, word)
                y += c
                index += c
        x += h * w * c


def _max(F, B, y, x, index, c, tap, word):
    for k in range(c):
        v, seen = F[x + k], F[y + k]
        if v > seen or (v != v and seen == seen):
            F[y + k] = v
            if index >= 0:
                B[index + k] = tap


def _max_vjp(F, B, g, dx, index, c, tap, word):
    for k in range(c):
        if B[index + k] == tap:
            F[dx + k] += F[g + k]


def _avg(F, B, y, x, index, c, tap, factor):
    for k in range(c):
        F[y + k] += F[x + k]


def _avg_vjp(F, B, g, dx, index, c, tap, factor):
    for k in range(c):
        F[dx + k] += F[g + k] * factor


def max_pool2d(F, B, y, index, x, n, h, w, c, ho, wo, o, *words):
    size = n * ho * wo * c
    fill(F, B, y, size, -float("inf"))
    if index >= 0:
        for k in range(4 * index, 4 * index + size):
            B[k] = 0
    at = 4 * index if index >= 0 else -size - 1
    _windows(F, B, _max, y, x, at, n, h, w, c, ho, wo, o, *words)


def max_pool2d_vjp(F, B, dx, g, index, *words):
    _clear(F, B, dx, words)
    _windows(F, B, _max_vjp, g, dx, 4 * index, *words[:14])


def avg_pool2d(F, B, y, x, *words):
    size = words[0] * words[4] * words[5] * words[6]
    fill(F, B, y, size, 0.0)
    _windows(F, B, _avg, y, x, 0, *words)
    for k in range(y, y + size):
        F[k] *= words[13]


def avg_pool2d_vjp(F, B, dx, g, *words):
    _clear(F, B, dx, words)
    _windows(F, B, _avg_vjp, g, dx, 0, *words[:14])


def index_pack(F, B, y, index, n, bits):
    share = 8 // bits
    for k in range(n):
        at = 4 * y + k // share
        if not k % share:
            B[at] = 0
        B[at] |= (B[4 * index + k] & (1 << bits) - 1) << bits * (k % share)


def index_unpack(F, B, index, y, n, bits):
    share = 8 // bits
    for k in range(n):
        B[4 * index + k] = B[4 * y + k // share] >> bits * (k % share) & (1 << bits) - 1


def _clear(F, B, dx, words):
    if not words[14]:
        fill(F, B, dx, words[0] * words[1] * words[2] * words[3], 0.0)


KERNELS = {
    55: max_pool2d,
    56: max_pool2d_vjp,
    57: (avg_pool2d, 13, 1),
    58: (avg_pool2d_vjp, 13, 1),
    91: index_pack,
    92: index_unpack,
}
