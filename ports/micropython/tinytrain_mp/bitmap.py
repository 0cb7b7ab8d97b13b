"""Masks of one bit, and values kept as a bitmap with their non-zeros. Conventions: `basic.py`."""

from .basic import fill, product
from .conv import _each_weight, _taps, _weight


def gate_mask(F, B, mask, y, n, most):
    for k in range(0, n, 8):
        bits = 0
        for j in range(min(8, n - k)):
            if 0.0 < F[y + k + j] < most:
                bits |= 1 << j
        B[4 * mask + (k >> 3)] = bits


def _bit(B, mask, k):
    return B[4 * mask + (k >> 3)] >> (k & 7) & 1


def gate_mask_vjp(F, B, dx, g, mask, n):
    for k in range(n):
        F[dx + k] = F[g + k] if _bit(B, mask, k) else 0.0


def bitmap_pack(F, B, mask, values, count, x, n, capacity):
    packed = 0
    for k in range(n):
        at = 4 * mask + (k >> 3)
        if not k & 7:
            B[at] = 0
        if F[x + k] != 0.0 or B[4 * (x + k) + 3]:  # -0 is kept too
            B[at] |= 1 << (k & 7)
            if packed < capacity:
                F[values + packed] = F[x + k]
            packed += 1
    for k in range(4):
        B[4 * count + k] = packed >> 8 * k & 255


def _high(B, at):
    """The upper half of a float's bits without its sign: the order of magnitudes."""
    return (B[at + 3] << 9 | B[at + 2] << 1 | B[at + 1] >> 7) & 65535


def _low(B, at):
    return (B[at + 1] << 9 | B[at] << 1) & 65535


def _counted(F, B, counts, x, n, place, high, low):
    """How often each byte comes at a place, the highest first, where those before it are known."""
    fill(F, B, counts, 256, 0.0)
    for k in range(4 * x, 4 * (x + n), 4):
        a, b = _high(B, k), _low(B, k)
        if place > 1:
            if a != high or (place == 3 and b >> 8 != low >> 8):
                continue
            a = b
        elif place and a >> 8 != high >> 8:
            continue
        at = counts + (a & 255 if place & 1 else a >> 8)
        F[at] = F[at] + 1.0


def topk_pack(F, B, mask, values, x, counts, n, left):
    high = low = 0  # the size of the last one that stays; of its like, `left`
    for place in range(4):
        _counted(F, B, counts, x, n, place, high, low)
        digit = 255
        while F[counts + digit] < left:
            left -= int(F[counts + digit])
            digit -= 1
        digit <<= 0 if place & 1 else 8
        high, low = (high | digit, low) if place < 2 else (high, low | digit)
    for k in range(n):
        at, a, b = 4 * (x + k), _high(B, 4 * (x + k)), _low(B, 4 * (x + k))
        if not k & 7:
            B[4 * mask + (k >> 3)] = 0
        stays = a > high or (a == high and b > low)
        if a == high and b == low and left:
            left -= 1
            stays = True
        if stays and (F[x + k] != 0.0 or B[at + 3]):
            B[4 * mask + (k >> 3)] |= 1 << (k & 7)
            F[values] = F[x + k]
            values += 1


def _unpack(F, B, y, mask, first, n, values):
    """Elements [first, first + n) to y; where the next values lie."""
    for k in range(n):
        if _bit(B, mask, first + k):
            F[y + k] = F[values]
            values += 1
        else:
            F[y + k] = 0.0
    return values


def bitmap_unpack(F, B, y, mask, values, n):
    _unpack(F, B, y, mask, 0, n, values)


def bitmap_matmul_tn(F, B, y, mask, values, g, dense, m, n, k, rows, acc):
    for i in range(0, k, rows):
        count = min(rows, k - i)
        values = _unpack(F, B, dense, mask, i * m, count * m, values)
        product(F, y, dense, g + i * n, m, n, count, acc, n, 1, 0, m, 1, n)
        acc = 1


def bitmap_conv2d_vjp_w(F, B, dw, mask, values, g, dense, *w):
    n, h, wide, c, ho, wo, o, kh, kw, sh, sw, top, left, groups, dh, dv, acc, rows = w
    if not acc:
        fill(F, B, dw, kh * kw * (c // groups) * o, 0.0)
    line, first = _each_weight if groups == c == o else _weight, 0
    for _ in range(n):
        for r in range(0, h, rows):
            count = min(rows, h - r)
            values = _unpack(F, B, dense, mask, first, count * wide * c, values)
            first += count * wide * c
            rest = (o, kh, kw, sh, sw, top + r, left, groups, dh, dv)
            _taps(F, line, g, dense, dw, 1, count, wide, c, ho, wo, *rest)
        g += ho * wo * o


def bitmap_gate_vjp(F, B, dx, g, mask, values, n, most):
    for k in range(n):
        passes = False
        if _bit(B, mask, k):
            passes = 0.0 < F[values] < most
            values += 1
        F[dx + k] = F[g + k] if passes else 0.0


def check_capacity(F, B, flag, *rest):
    count = len(rest) // 2
    F[flag] = 0.0
    for k in range(count):
        n = 0
        for j in range(3, -1, -1):
            n = n << 8 | B[4 * rest[k] + j]
        if n > rest[count + 1 + k]:
            B[4 * flag] = k + 1
            return


KERNELS = {
    36: (gate_mask, 1, 1),
    37: gate_mask_vjp,
    38: bitmap_pack,
    39: bitmap_unpack,
    40: (bitmap_gate_vjp, 1, 1),
    80: check_capacity,
    85: bitmap_conv2d_vjp_w,
    86: bitmap_matmul_tn,
    87: topk_pack,
}
