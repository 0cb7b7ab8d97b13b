"""`product.py` in machine code and whole numbers: no float becomes an object of the heap, and it
takes a fraction of the time. Where MicroPython has no such code for the chip, importing it fails.

A sum is kept to 28 bits or more, with an exponent of its own, products unrounded, and is rounded
once: to about float32's last place of its largest part. Numbers below 2^-126 are taken for 0; what
is not finite gives a NaN, which the guard finds.
"""

import micropython


@micropython.viper
def product(
    F,
    y: int,
    a: int,
    b: int,
    m: int,
    n: int,
    k: int,
    acc: int,
    ys: int,
    am: int,
    an: int,
    ak: int,
    bn: int,
    bk: int,
):
    M = ptr32(F)  # noqa: F821
    for _i in range(m):
        for j in range(n):
            p = a + j * an
            q = b + j * bn
            total = 0  # the sum is total * 2^(e - 280)
            e = 0
            bad = 0
            if acc:
                u = M[y + j]
                e = (u >> 23) & 255
                if e == 255:
                    bad = 1
                if e:
                    total = ((u & 0x7FFFFF) | 0x800000) << 4
                    if u < 0:
                        total = 0 - total
                    e += 126
            for _r in range(k):
                u = M[p]
                v = M[q]
                p += ak
                q += bk
                f = (u >> 23) & 255
                g = (v >> 23) & 255
                if f == 255 or g == 255:
                    bad = 1
                if f and g:
                    h = ((u >> 12) & 0x7FF) | 0x800  # 12 high bits and 12 low ones of each
                    w = ((v >> 12) & 0x7FF) | 0x800
                    low = u & 0xFFF
                    x = v & 0xFFF
                    s = ((h * w) << 4) + ((h * x + low * w + ((low * x) >> 12)) >> 8)
                    if (u ^ v) < 0:
                        s = 0 - s
                    d = f + g - e
                    if d > 0:
                        e = f + g
                        if d > 30:
                            d = 30
                        total >>= d
                    else:
                        d = 0 - d
                        if d > 30:
                            d = 30
                        s >>= d
                    total += s
                    if total > 0x1FFFFFFF or total < -0x1FFFFFFF:
                        total >>= 1
                        e += 1
            z = 0
            if total < 0:
                total = 0 - total
                z = 1
            if bad:
                z = 0x7FC
                z <<= 20
            elif total:
                while total < 0x800000:
                    total <<= 1
                    e -= 1
                d = 0
                s = total
                while s > 0xFFFFFF:
                    s >>= 1
                    d += 1
                if d:
                    s = (total + (1 << (d - 1))) >> d
                    if s > 0xFFFFFF:
                        s >>= 1
                        d += 1
                e += d - 130
                if e > 254:  # infinite
                    e = 255
                    s = 0
                if e > 0:
                    z = (z << 31) | (e << 23) | (s & 0x7FFFFF)
                else:
                    z = 0
            else:
                z = 0
            M[y + j] = z
        y += ys
        a += am
