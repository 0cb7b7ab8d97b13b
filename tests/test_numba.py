"""The Numba kernels by themselves: close to NumPy's, exact in the order that their files state,
writing nothing but their outputs and allocating nothing. Whole rows are in `test_cases.py`."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from tinytrain.kernels import numpy_

pytest.importorskip("numba", reason="numba is missing")

from numba.core.runtime import _nrt_python, rtsys

from tinytrain.kernels import numba_

GUARD = 32  # float32 before and after every array that may be written
NAN = np.float32("nan")


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return np.asarray(rng.standard_normal(shape), np.float32)


class Guarded:
    """Makes arrays inside larger ones, and finds writes beside them."""

    def __init__(self) -> None:
        self.whole: list[tuple[np.ndarray, np.ndarray]] = []

    def __call__(self, array: np.ndarray) -> np.ndarray:
        size = GUARD * array.itemsize
        raw = np.full(array.nbytes + 2 * size, 0xA5, np.uint8)
        inner = raw[size : size + array.nbytes].view(array.dtype).reshape(array.shape)
        inner[...] = array
        self.whole.append((raw, inner))
        return inner

    def check(self) -> None:
        for raw, inner in self.whole:
            size = GUARD * inner.itemsize
            assert (raw[:size] == 0xA5).all() and (raw[len(raw) - size :] == 0xA5).all()


def both(name: str, outs: list, ins: list, attrs: tuple = (), tolerance: float = 2e-5) -> list:
    """Run a kernel of both families on copies of the same outputs; the Numba ones if close."""
    guarded = Guarded()
    ours = [None if a is None else guarded(a) for a in outs]
    theirs = [None if a is None else a.copy() for a in outs]
    reference = getattr(numpy_, name)
    with np.errstate(all="ignore"):
        reference(*theirs, *ins, *attrs)
        getattr(numba_, name)(*ours, *ins, *attrs)
    guarded.check()
    for a, b in zip(ours, theirs, strict=True):
        if a is not None:
            scale = max(1.0, float(np.abs(b).max(initial=0)))
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale, err_msg=name)
    return ours


def unset(*shape: int) -> np.ndarray:
    """An output nobody has written: what a kernel reads of it shows as NaN."""
    return np.full(shape, NAN, np.float32)


# ---------------------------------------------------------------------------- convolution


def geometry(rng: np.random.Generator) -> dict:
    """Any convolution, with asymmetric padding, groups, depthwise and windows in the padding."""
    while True:
        kind = rng.integers(4)
        groups = int(rng.integers(1, 41)) if kind == 0 else int(rng.integers(2, 5))
        c = o = groups
        if kind == 1:
            c, o = (groups * int(k) for k in rng.integers(1, 9, 2))
        elif kind > 1:
            groups, (c, o) = 1, (int(k) for k in rng.integers(1, 41, 2))
        size, kernel, stride = (
            tuple(int(k) for k in rng.integers(1, top, 2)) for top in (16, 6, 4)
        )
        dilation = tuple(int(k) for k in rng.integers(1, 3, 2))
        padding = tuple(int(k) for k in rng.integers(0, 6, 4) * int(rng.integers(2)))
        spans = [
            size[k] + padding[2 * k] + padding[2 * k + 1] - (kernel[k] - 1) * dilation[k] - 1
            for k in (0, 1)
        ]
        if min(spans) >= 0:
            n, (ho, wo) = (
                int(rng.integers(1, 4)),
                (s // t + 1 for s, t in zip(spans, stride, strict=True)),
            )
            return {
                "x": (n, *size, c),
                "w": (*kernel, c // groups, o),
                "y": (n, ho, wo, o),
                "attrs": (stride, padding, groups, dilation),
            }


@pytest.mark.parametrize("seed", range(100))
def test_convolution_is_close(seed: int) -> None:
    rng = np.random.default_rng(seed)
    case = geometry(rng)
    x, w, g = (normal(rng, *case[k]) for k in ("x", "w", "y"))
    b = normal(rng, w.shape[3]) if seed % 3 else None
    both("conv2d", [unset(*g.shape)], [x, w, b], case["attrs"])
    tap = unset(w.shape[3] // case["attrs"][2], w.shape[2])
    for acc in (False, True):
        dx, dw = (normal(rng, *a.shape) if acc else unset(*a.shape) for a in (x, w))
        both("conv2d_vjp_x", [dx], [g, w, tap], (x.shape[1:3], *case["attrs"], acc))
        both("conv2d_vjp_w", [dw], [x, g], (w.shape[:2], *case["attrs"], acc))


@pytest.mark.parametrize("channels", [(3, 10), (16, 16), (5, 41)])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_sums_in_the_stated_order(channels: tuple[int, int], stride: int) -> None:
    """Bit for bit what float32 gives when each product is added alone, in the order written."""
    rng, (c, o) = np.random.default_rng(0), channels
    x, w, b = normal(rng, 2, 7, 9, c), normal(rng, 3, 3, c, o), normal(rng, o)
    attrs = ((stride, stride), (1, 1, 1, 1), 1, (1, 1))
    ho, wo = (7 - 1) // stride + 1, (9 - 1) // stride + 1
    wide = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))

    def inputs(i, j):
        rows, columns = (slice(k, k + stride * (m - 1) + 1, stride) for k, m in ((i, ho), (j, wo)))
        return (slice(None), rows, columns)

    taps = [(i, j) for i in range(3) for j in range(3)]
    y = np.zeros((2, ho, wo, o), np.float32)
    for i, j in taps:
        for k in range(c):
            y += wide[inputs(i, j)][..., k, None] * w[i, j, k]
    out = unset(*y.shape)
    numba_.conv2d(out, x, w, b, *attrs)
    np.testing.assert_array_equal(out, y + b)

    g, dx = normal(rng, *y.shape), np.zeros_like(wide)
    for i, j in reversed(taps):
        for k in range(o):
            dx[inputs(i, j)] += g[..., k, None] * w[i, j, :, k]
    out = unset(*x.shape)
    numba_.conv2d_vjp_x(out, g, w, unset(o, c), (7, 9), *attrs, False)
    np.testing.assert_array_equal(out, dx[:, 1:-1, 1:-1])

    dw = start = normal(rng, *w.shape)
    for i, j in taps:
        for n, h, m in np.ndindex(2, ho, wo):
            pixel = wide[inputs(i, j)][n, h, m]
            dw = dw.copy()
            dw[i, j] += pixel[:, None] * g[n, h, m]
    out = start.copy()
    numba_.conv2d_vjp_w(out, x, g, (3, 3), *attrs, True)
    np.testing.assert_array_equal(out, dw)


# ---------------------------------------------------------------------------- products

LEADS = [((), ()), ((3,), ()), ((2, 1), (3,)), ((3,), (3,)), ((1, 3), (2, 3)), ((), (4,))]


@pytest.mark.parametrize("seed", range(40))
def test_products_are_close(seed: int) -> None:
    rng = np.random.default_rng(seed)
    m, k, n = (int(s) for s in rng.integers(1, 70, 3))
    if seed == 0:
        m, k = 150, 1100  # more than a block of either
    left, right = LEADS[seed % len(LEADS)]
    y = (*np.broadcast_shapes(left, right), m, n)
    a, b = normal(rng, *left, m, k), normal(rng, *right, k, n)
    both("matmul", [unset(*y)], [a, b])
    at, bt = (np.ascontiguousarray(s.swapaxes(-1, -2)) for s in (a, b))
    for acc in (False, True):
        start = normal(rng, *y) if acc else unset(*y)
        both("matmul_nt", [start], [a, bt], (acc,))
        both("matmul_tn", [start], [at, b], (False, acc))
        shared = normal(rng, *left, k, n)
        flat = normal(rng, m, n) if acc else unset(m, n)
        both("matmul_tn", [flat], [at, shared], (True, acc))


def test_products_sum_in_the_stated_order() -> None:
    rng = np.random.default_rng(0)
    for m, k, n in ((1, 5, 1), (9, 70, 10), (13, 33, 45), (3, 1100, 35)):
        a, b, start = normal(rng, m, k), normal(rng, k, n), normal(rng, m, n)
        y = start.copy()
        for t in range(k):
            y += a[:, t, None] * b[t]
        at, bt = np.ascontiguousarray(a.T), np.ascontiguousarray(b.T)
        one, two = start.copy(), start.copy()
        numba_.matmul_nt(one, a, bt, True)
        numba_.matmul_tn(two, at, b, False, True)
        np.testing.assert_array_equal(one, y)
        np.testing.assert_array_equal(two, y)


# ---------------------------------------------------------------------------- norms and pools


@pytest.mark.parametrize("seed", range(40))
def test_batch_norm_is_close(seed: int) -> None:
    rng = np.random.default_rng(seed)
    c = int(rng.integers(1, 41))
    x = 2 * normal(rng, *(int(k) for k in rng.integers(2, 12, 1 + seed % 3)), c) + 1
    g, eps = normal(rng, *x.shape), 1e-3
    gamma, beta = (normal(rng, c) if rng.integers(2) else None for _ in range(2))
    y, mean, var = both(
        "batch_norm", [unset(*x.shape), unset(c), unset(c)], [x, gamma, beta], (eps,)
    )
    over = x.copy()
    numba_.batch_norm(over, mean.copy(), var.copy(), over, gamma, beta, eps)
    np.testing.assert_array_equal(over, y)
    sums = both("batch_norm_vjp_params", [unset(c), unset(c)], [g, x, mean, var], (eps,))
    ins = [mean, var, gamma, *sums, eps]
    (dx,) = both("batch_norm_vjp_x", [unset(*x.shape)], [g, x, *ins[:-1]], (eps,))
    for place in (0, 1):
        arrays = [g.copy(), x.copy()]
        numba_.batch_norm_vjp_x(arrays[place], *arrays, *ins)
        np.testing.assert_array_equal(arrays[place], dx)
    both("batch_norm_frozen", [unset(*x.shape)], [x, gamma, beta, mean, var], (eps,))
    both("batch_norm_frozen_vjp_x", [unset(*x.shape)], [g, gamma, var], (eps,))


@pytest.mark.parametrize("seed", range(40))
def test_group_norm_is_close(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups, channels = (int(k) for k in rng.integers(1, 13, 2))
    c = groups * channels
    x = 2 * normal(rng, *(int(k) for k in rng.integers(2, 9, 2 + seed % 2)), c) + 1
    g, eps = normal(rng, *x.shape), 1e-3
    gamma, beta = (normal(rng, c) if rng.integers(2) else None for _ in range(2))
    stats = [unset(x.shape[0], groups) for _ in range(2)]
    y, mean, var = both("group_norm", [unset(*x.shape), *stats], [x, gamma, beta], (groups, eps))
    over = x.copy()
    numba_.group_norm(over, mean.copy(), var.copy(), over, gamma, beta, groups, eps)
    np.testing.assert_array_equal(over, y)
    ins = [g, x, mean, var]
    both("group_norm_vjp_params", [unset(c), unset(c)], ins, (groups, eps))
    (dx,) = both("group_norm_vjp_x", [unset(*x.shape)], [*ins, gamma], (groups, eps), 1e-4)
    for place in (0, 1):
        arrays = [g.copy(), x.copy()]
        numba_.group_norm_vjp_x(arrays[place], *arrays, mean, var, gamma, groups, eps)
        np.testing.assert_array_equal(arrays[place], dx)


def test_statistics_of_many_rows_keep_their_digits() -> None:
    x = normal(np.random.default_rng(0), 100_000, 5) + 10
    y, mean, var = np.empty_like(x), unset(5), unset(5)
    numba_.batch_norm(y, mean, var, x, None, None, 1e-5)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(var, exact.var(axis=0), rtol=2e-6)


@pytest.mark.parametrize("seed", range(40))
def test_pooling_is_close(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, h, w, c = (int(rng.integers(1, top)) for top in (4, 16, 16, 41))
    kernel = (int(rng.integers(1, min(h, 4) + 1)), int(rng.integers(1, min(w, 4) + 1)))
    if seed == 0:
        h, w, kernel = 18, 20, (17, 17)  # the index takes four bytes
    stride = tuple(int(k) for k in rng.integers(1, 4, 2))
    padding = tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel for _ in range(2))
    ho = (h + padding[0] + padding[1] - kernel[0]) // stride[0] + 1
    wo = (w + padding[2] + padding[3] - kernel[1]) // stride[1] + 1
    x, g = np.round(2 * normal(rng, n, h, w, c)), normal(rng, n, ho, wo, c)  # rounded: with ties
    attrs = (kernel, stride, padding)
    index = np.zeros(g.shape, np.uint8 if seed else np.int32)
    y, index = both("max_pool2d", [unset(*g.shape), index], [x], attrs, 0)
    both("max_pool2d", [unset(*g.shape), None], [x], attrs, 0)
    both("avg_pool2d", [unset(*g.shape)], [x], attrs)
    for acc in (False, True):
        dx = normal(rng, *x.shape) if acc else unset(*x.shape)
        both("max_pool2d_vjp", [dx], [g, index], ((h, w), *attrs, acc))
        both("avg_pool2d_vjp", [dx], [g], ((h, w), *attrs, acc))
    x[0, 0, 0, 0] = NAN
    both("max_pool2d", [y, index], [x], attrs, 0)


# ---------------------------------------------------------------------------- the rest of a step


@pytest.mark.parametrize("seed", range(20))
def test_the_rest_of_a_step_is_close(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lead = tuple(int(k) for k in rng.integers(1, 9, 1 + seed % 2))
    c = int(rng.integers(1, 40))
    z, x, y = 5 * normal(rng, *lead, c), normal(rng, *lead, c), unset(*lead, c)
    labels = rng.integers(0, c, lead).astype((np.int64, np.int32)[seed % 2])
    mask = (rng.random(lead) < 0.6).astype(np.float32) if seed % 3 == 0 else None
    for gradient in (y, None):
        both("cross_entropy", [unset(), gradient], [z, labels, mask], (0.1 * (seed % 2),))
    key = rng.integers(0, 2**32, 3, dtype=np.uint32)
    both("dropout", [y], [x, key], ((0.0, 0.3, 0.5)[seed % 3], seed), 0)
    (gated,) = both("relu_vjp", [y], [x, z], (), 0)
    np.testing.assert_array_equal(np.signbit(gated), np.signbit(x * (z > 0)))
    both("sgd", [y], [x, z, np.array(0.37, np.float32)], (), 0)
    both("decay", [y], [x, z if seed % 2 else None], (0.9, 0.01), 0)
    for shape in ((c,), (), (1,), (*lead, c), (lead[-1], 1)):
        both("sum_to", [unset(*shape)], [x], (shape, False))
        both("sum_to", [normal(rng, *shape)], [x], (shape, True))
    both("check_finite", [np.zeros((), np.uint32)], [x, z, labels])
    z.reshape(-1)[rng.integers(z.size)] = (NAN, np.inf, -np.inf)[seed % 3]
    (flag,) = both("check_finite", [np.zeros((), np.uint32)], [x, z, labels])
    assert flag == 2


# ---------------------------------------------------------------------------- promises


@pytest.mark.parametrize("name", sorted(numba_.KERNELS))
def test_arguments_are_the_reference_ones(name: str) -> None:
    ours = getattr(numba_, name)
    assert inspect.signature(getattr(ours, "py_func", ours)) == inspect.signature(
        getattr(numpy_, name)
    )


def test_a_kernel_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no_such_kernel"):
        numba_.no_such_kernel  # noqa: B018


def one_call_of_each() -> dict[str, tuple]:
    rng = np.random.default_rng(0)
    x, w, s = normal(rng, 2, 8, 8, 6), normal(rng, 3, 3, 6, 6), normal(rng, 6)
    y, var, at = np.empty_like(x), s * s, ((1, 1), (1, 1, 1, 1), 1, (1, 1))
    half, index = normal(rng, 2, 4, 4, 6), np.zeros((2, 4, 4, 6), np.uint8)
    pool, m, v = ((2, 2), (2, 2), (0, 0, 0, 0)), normal(rng, 2, 3), normal(rng, 2, 3) ** 2
    a, b, labels = normal(rng, 6, 6), normal(rng, 6, 6), np.zeros(6, np.int64)
    key, loss, eps = np.zeros(3, np.uint32), np.zeros((), np.float32), 1e-5
    bits, packed, count = np.zeros(96, np.uint8), np.zeros(768, np.float32), np.zeros((), np.uint32)
    return {
        "bitmap_pack": (bits, packed, count, x, 768),
        "bitmap_unpack": (y, bits, packed, x.shape),
        "bitmap_gate_vjp": (y, x, bits, packed, "relu"),
        "gate_mask": (bits, x, "relu6"),
        "gate_mask_vjp": (y, x, bits),
        "bitmap_conv2d_vjp_w": (w, bits, packed, y, x[0].copy(), x.shape, (3, 3), *at, False),
        "bitmap_matmul_tn": (a, bits, packed, b, a[:2].copy(), (6, 6), True, False),
        "topk_pack": (bits, packed, x, np.zeros(256, np.uint32), 76),
        "conv2d": (y, x, w, s, *at),
        "conv2d_vjp_x": (y, x, w, a, (8, 8), *at, False),
        "conv2d_vjp_w": (w, x, y, (3, 3), *at, False),
        "conv2d_vjp_w_sgd": (w, w, x, y, loss, a, (3, 3), *at),
        "conv2d_lines": (x.copy(), x, w, s, normal(rng, 4, 8, 6), *at),
        "conv2d_vjp_x_lines": (x.copy(), x, w, normal(rng, 4, 8, 6), a, (8, 8), *at),
        "matmul": (a, b, b),
        "matmul_nt": (a, b, b, False),
        "matmul_tn": (a, b, b, False, False),
        "matmul_tn_sgd": (a, a, b, b, loss, normal(rng, 4, 6), False),
        "matmul_tn_momentum": (
            a,
            b,
            a,
            b,
            x[0, 0, :6].copy(),
            x[0, 1, :6].copy(),
            loss,
            0.9,
            0.1,
            True,
        ),
        "batch_norm": (y, s.copy(), var.copy(), x, s, s, eps),
        "batch_norm_vjp_params": (s.copy(), s.copy(), x, x, s, var, eps),
        "batch_norm_vjp_x": (y, x, x, s, var, s, s, s, eps),
        "batch_norm_frozen": (y, x, s, s, s, var, eps),
        "batch_norm_frozen_vjp_x": (y, x, s, var, eps),
        "group_norm": (y, m.copy(), v.copy(), x, s, s, 3, eps),
        "group_norm_vjp_params": (s.copy(), s.copy(), x, x, m, v, 3, eps),
        "group_norm_vjp_x": (y, x, x, m, v, s, 3, eps),
        "max_pool2d": (half, index, x, *pool),
        "max_pool2d_vjp": (y, half, index, (8, 8), *pool, False),
        "avg_pool2d": (half, x, *pool),
        "index_pack": (index.reshape(-1)[:48], index.copy(), 2),
        "index_unpack": (index, index.reshape(-1)[:48].copy(), index.shape, 2),
        "avg_pool2d_vjp": (y, half, (8, 8), *pool, False),
        "cross_entropy": (loss, a, b, labels, None, 0.1),
        "dropout": (y, x, key, 0.5, 1),
        "sum_to": (s.copy(), x, (6,), True),
        "relu_vjp": (y, x, x),
        "decay": (y, x, x, 0.9, 0.1),
        "sgd": (y, x, x, loss),
        "zero_pruned": (y, x, x),
        "square_sum": (loss, x, True),
        "mse": (loss, y, x, x, None),
        "check_finite": (np.zeros((), np.uint32), x, w),
        **dict.fromkeys(("add", "sub", "mul"), (y, x, s)),
        **dict.fromkeys(("relu", "relu6"), (y, x)),
        "relu6_vjp": (y, x, x),
        "scale": (y, x, 0.5),
        "running_average": (s.copy(), s, var, 0.1, 1.5),
        "mean": (normal(rng, 2, 6), x, (1, 2), False),
        "broadcast_to": (y, normal(rng, 2, 1, 1, 6), x.shape),
        "fill": (y, x.shape, 1.5, "float32"),
    }


def test_kernels_allocate_nothing() -> None:
    """Beyond the record that Numba makes, and drops, of each array that it is handed."""
    _nrt_python.memsys_enable_stats()
    calls = one_call_of_each()
    assert set(calls) == set(numba_.KERNELS)
    for name, args in calls.items():
        getattr(numba_, name)(*args)  # the first call may compile
        arrays = sum(isinstance(a, np.ndarray) for a in args) - (name == "check_finite")
        before = rtsys.get_allocation_stats()
        for _ in range(100):
            getattr(numba_, name)(*args)
        after = rtsys.get_allocation_stats()
        assert after.alloc - before.alloc == after.free - before.free, name
        assert after.mi_alloc - before.mi_alloc <= 100 * arrays, name
        assert after.alloc - before.alloc <= 100 * arrays, name
