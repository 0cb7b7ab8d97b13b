"""The sums of products under every layer, in MicroPython's own floats: objects of the heap.
`viper.py` does the same in machine code, where the board has it."""


def product(F, y, a, b, m, n, k, acc, ys, am, an, ak, bn, bk):
    """F[y + i ys + j] = (itself, if acc, +) the sum over r < k of
    F[a + i am + j an + r ak] * F[b + j bn + r bk], for i < m and j < n."""
    for _ in range(m):
        for j in range(n):
            p = a + j * an
            q = b + j * bn
            total = F[y + j] if acc else 0.0
            for _r in range(k):
                total += F[p] * F[q]
                p += ak
                q += bk
            F[y + j] = total
        y += ys
        a += am
