"""The C kernels by themselves: the bits of the Numba kernels, whose orders of sums they share,
writing nothing but their outputs; and how they are built. Whole rows are in `test_cases.py`."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tinytrain as tt
from tinytrain import models, run
from tinytrain.errors import InputError
from tinytrain.kernels import c_, geometry, numpy_

if not c_.is_there():
    pytest.skip("a C compiler is missing", allow_module_level=True)

numba_ = pytest.importorskip("tinytrain.kernels.numba_", reason="numba is missing")
from test_numba import LEADS, NAN, Guarded, normal, one_call_of_each, unset  # noqa: E402
from test_numba import geometry as convolution  # noqa: E402


def same(name: str, outs: list, ins: list, attrs: tuple = ()) -> list:
    """Run a kernel of both families on copies of the same outputs; the C ones if bit-equal."""
    guarded = Guarded()
    ours = [None if a is None else guarded(a) for a in outs]
    theirs = [None if a is None else a.copy() for a in outs]
    with np.errstate(all="ignore"):
        getattr(numba_, name)(*theirs, *ins, *attrs)
        getattr(c_, name)(*ours, *ins, *attrs)
    guarded.check()
    for a, b in zip(ours, theirs, strict=True):
        if a is not None:
            np.testing.assert_array_equal(bits(a), bits(b), err_msg=name)
    return ours


def bits(a: np.ndarray) -> np.ndarray:
    """As integers, with one NaN for all: which of two NaNs a sum keeps is the machine's."""
    if a.dtype != np.float32:
        return a
    return np.where(np.isnan(a), NAN, a).reshape(-1).view(np.uint32)


@pytest.mark.parametrize("seed", range(150))
def test_convolution_has_the_bits_of_numba(seed: int) -> None:
    rng = np.random.default_rng(seed)
    case = convolution(rng)
    x, w, g = (normal(rng, *case[k]) for k in ("x", "w", "y"))
    b = normal(rng, w.shape[3]) if seed % 3 else None
    same("conv2d", [unset(*g.shape)], [x, w, b], case["attrs"])
    tap = unset(w.shape[3] // case["attrs"][2], w.shape[2])
    for acc in (False, True):
        dx, dw = (normal(rng, *a.shape) if acc else unset(*a.shape) for a in (x, w))
        same("conv2d_vjp_x", [dx], [g, w, tap], (x.shape[1:3], *case["attrs"], acc))
        same("conv2d_vjp_w", [dw], [x, g], (w.shape[:2], *case["attrs"], acc))
    rate, scratch = np.array(0.3, np.float32), unset(*w.shape[2:])
    same("conv2d_vjp_w_sgd", [w.copy()], [w, x, g, rate, scratch], (w.shape[:2], *case["attrs"]))


@pytest.fixture(scope="module")
def portable(tmp_path_factory) -> ctypes.CDLL:
    """The kernels as boards compile them: without vectors."""
    path = tmp_path_factory.mktemp("portable") / "kernels.so"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(c_, "_FLAGS", [flag for flag in c_._FLAGS if flag != "-DTT_VECTORS"])
        assert c_._compile(c_.compiler(), (), str(path)) == ""
    return ctypes.CDLL(str(path))


@pytest.mark.parametrize("part", range(10))
def test_boards_compute_what_vectors_do(part: int, portable, monkeypatch) -> None:
    """30 geometries at a time: each sum has one order, whatever the width of a vector."""
    for seed in range(1000 + 30 * part, 1030 + 30 * part):
        rng = np.random.default_rng(seed)
        case = convolution(rng)
        x, w, g = (normal(rng, *case[k]) for k in ("x", "w", "y"))
        dx, dw, attrs = normal(rng, *x.shape), normal(rng, *w.shape), case["attrs"]
        tap = (w.shape[3] // attrs[2], w.shape[2])
        found = []
        for library in (c_.library(), portable):
            monkeypatch.setattr(c_, "_loaded", [library])
            y, ours, more = unset(*g.shape), dx.copy(), dw.copy()
            c_.conv2d(y, x, w, None, *attrs)
            c_.conv2d_vjp_x(ours, g, w, unset(*tap), x.shape[1:3], *attrs, True)
            c_.conv2d_vjp_w(more, x, g, w.shape[:2], *attrs, True)
            rows = unset(g.shape[0], w.shape[2])
            c_.matmul_nt(rows, g[:, 0, 0].copy(), w[0, 0], False)
            found.append((y, ours, more, rows))
        for a, b in zip(*found, strict=True):
            np.testing.assert_array_equal(bits(a), bits(b), err_msg=str(case))


@pytest.mark.parametrize("seed", range(60))
def test_products_have_the_bits_of_numba(seed: int) -> None:
    rng = np.random.default_rng(seed)
    m, k, n = (int(s) for s in rng.integers(1, 70, 3))
    if seed == 0:
        m, k = 150, 1100  # more than a block of either
    left, right = LEADS[seed % len(LEADS)]
    y = (*np.broadcast_shapes(left, right), m, n)
    a, b = normal(rng, *left, m, k), normal(rng, *right, k, n)
    same("matmul", [unset(*y)], [a, b])
    at, bt = (np.ascontiguousarray(s.swapaxes(-1, -2)) for s in (a, b))
    for acc in (False, True):
        start = normal(rng, *y) if acc else unset(*y)
        same("matmul_nt", [start], [a, bt], (acc,))
        same("matmul_tn", [start], [at, b], (False, acc))
        shared = normal(rng, *left, k, n)
        flat = normal(rng, m, n) if acc else unset(m, n)
        same("matmul_tn", [flat], [at, shared], (True, acc))
    ins = [normal(rng, m, n), at, shared, np.array(0.3, np.float32), unset(min(m, 8), n)]
    same("matmul_tn_sgd", [unset(m, n)], ins, (True,))
    ins = [normal(rng, m, n), *ins[:-1]]
    same("matmul_tn_momentum", [unset(m, n), unset(m, n)], ins, (0.9, 0.1 * (seed % 2), True))


@pytest.mark.parametrize("seed", range(60))
def test_norms_have_the_bits_of_numba(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups, channels = (int(k) for k in rng.integers(1, 13, 2))
    c = groups * channels
    shape = (*(int(k) for k in rng.integers(2, 30 if seed % 4 == 0 else 9, 2 + seed % 2)), c)
    x, g, eps = 2 * normal(rng, *shape) + 1, normal(rng, *shape), 1e-3
    gamma, beta = (normal(rng, c) if rng.integers(2) else None for _ in range(2))
    y, mean, var = same("batch_norm", [unset(*shape), unset(c), unset(c)], [x, gamma, beta], (eps,))
    sums = same("batch_norm_vjp_params", [unset(c), unset(c)], [g, x, mean, var], (eps,))
    ins = [g, x, mean, var, gamma, *sums]
    same("batch_norm_vjp_x", [unset(*shape)], ins, (eps,))
    same("batch_norm_frozen", [unset(*shape)], [x, gamma, beta, mean, var], (eps,))
    same("batch_norm_frozen_vjp_x", [unset(*shape)], [g, gamma, var], (eps,))
    stats = [unset(shape[0], groups) for _ in range(2)]
    y, mean, var = same("group_norm", [unset(*shape), *stats], [x, gamma, beta], (groups, eps))
    ins = [g, x, mean, var]
    same("group_norm_vjp_params", [unset(c), unset(c)], ins, (groups, eps))
    (dx,) = same("group_norm_vjp_x", [unset(*shape)], [*ins, gamma], (groups, eps))
    for place in (0, 1):  # over the gradient, and over x
        arrays = [g.copy(), x.copy()]
        c_.group_norm_vjp_x(arrays[place], *arrays, mean, var, gamma, groups, eps)
        np.testing.assert_array_equal(arrays[place], dx)
    over = x.copy()
    c_.group_norm(over, mean.copy(), var.copy(), over, gamma, beta, groups, eps)
    np.testing.assert_array_equal(over, y)


@pytest.mark.parametrize("seed", range(60))
def test_pools_have_the_bits_of_numba(seed: int) -> None:
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
    x[rng.random(x.shape) < 0.02] = NAN
    attrs = (kernel, stride, padding)
    index = np.zeros(g.shape, np.uint8 if seed else np.int32)
    _, index = same("max_pool2d", [unset(*g.shape), index], [x], attrs)
    same("max_pool2d", [unset(*g.shape), None], [x], attrs)
    same("avg_pool2d", [unset(*g.shape)], [x], attrs)
    for acc in (False, True):
        dx = normal(rng, *x.shape) if acc else unset(*x.shape)
        same("max_pool2d_vjp", [dx], [g, index], ((h, w), *attrs, acc))
        same("avg_pool2d_vjp", [dx], [g], ((h, w), *attrs, acc))


@pytest.mark.parametrize("seed", range(40))
def test_the_rest_of_a_step_has_the_bits_of_numba(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lead = tuple(int(k) for k in rng.integers(1, 9, 1 + seed % 2))
    c = int(rng.integers(1, 40))
    z, x, y = 5 * normal(rng, *lead, c), normal(rng, *lead, c), unset(*lead, c)
    labels = rng.integers(0, c, lead).astype(np.int32)
    mask = (rng.random(lead) < 0.6).astype(np.float32) if seed % 3 == 0 else None
    for gradient in (y, None):
        same("cross_entropy", [unset(), gradient], [z, labels, mask], (0.1 * (seed % 2),))
    weights = None if mask is None else (rng.random(x.shape) < 0.6).astype(np.float32)
    for gradient in (y, None):
        same("mse", [unset(), gradient], [z, x, weights])
    for acc in (False, True):
        same("square_sum", [np.array(0.7, np.float32)], [z], (acc,))
    key = rng.integers(0, 2**32, 3, dtype=np.uint32)
    same("dropout", [y], [x, key], ((0.0, 0.3, 0.5)[seed % 3], seed))
    same("relu_vjp", [y], [x, z])
    same("sgd", [y], [x, z, np.array(0.37, np.float32)])
    same("decay", [y], [x, z if seed % 2 else None], (0.9, 0.01))
    for shape in ((c,), (*lead, c)):
        same("sum_to", [unset(*shape)], [x], (shape, False))
        same("sum_to", [normal(rng, *shape)], [x], (shape, True))
    gate = ("relu", "relu6")[seed % 2]
    x[x < 0.3] = 0
    held = [np.zeros(-(-x.size // 8), np.uint8), np.zeros(x.size, np.float32)]
    packed = same("bitmap_pack", [*held, np.zeros((), np.uint32)], [x], (x.size,))
    same("bitmap_unpack", [y], packed[:2], (x.shape,))
    same("bitmap_gate_vjp", [y], [z, *packed[:2]], (gate,))
    same("gate_mask_vjp", [y], [z, *same("gate_mask", held[:1], [x], (gate,))])
    z.reshape(-1)[rng.integers(z.size)] = (NAN, np.inf, -np.inf)[seed % 3]
    same("check_finite", [np.zeros((), np.uint32)], [x, z, labels])


@pytest.mark.parametrize("seed", range(40))
def test_packed_gradients_have_the_bits_of_numba(seed: int) -> None:
    rng = np.random.default_rng(seed)
    case = convolution(rng)
    x, w, g = (normal(rng, *case[k]) for k in ("x", "w", "y"))
    x[x < 0] = 0
    stride, padding, groups, dilation = case["attrs"]
    least = min(x.shape[1], (w.shape[0] - 1) * dilation[0] + 1)
    rows = unset(int(rng.integers(least, x.shape[1] + 1)), *x.shape[2:])
    held = [np.zeros(-(-x.size // 8), np.uint8), np.zeros(x.size, np.float32)]
    packed = same("bitmap_pack", [*held, np.zeros((), np.uint32)], [x], (x.size,))[:2]
    attrs = (x.shape, w.shape[:2], stride, padding, groups, dilation)
    k = int(rng.integers(1, x.size + 1))
    same("topk_pack", held, [np.round(x), np.zeros(256, np.uint32)], (k,))
    same("zero_pruned", [unset(*x.shape)], [normal(rng, *x.shape), x])
    matrix = normal(rng, x.size // x.shape[-1], 5)
    block = unset(int(rng.integers(1, len(matrix) + 1)), x.shape[-1])
    for acc in (False, True):
        dw = normal(rng, *w.shape) if acc else unset(*w.shape)
        same("bitmap_conv2d_vjp_w", [dw], [*packed, g, rows], (*attrs, acc))
        y = normal(rng, x.shape[-1], 5) if acc else unset(x.shape[-1], 5)
        same("bitmap_matmul_tn", [y], [*packed, matrix, block], (x.shape, True, acc))


EXACT = ("add", "sub", "mul", "div", "neg", "scale", "abs", "sqrt", "relu", "relu6", "leaky_relu")


@pytest.mark.parametrize("op", EXACT)
def test_exact_rows_have_the_bits_of_numpy(op: str) -> None:
    """What is one rounding is the same everywhere; zeros, infinities and NaN too."""
    rng = np.random.default_rng(0)
    odd = np.array([0.0, -0.0, np.inf, -np.inf, NAN, 1e-40, -1e-40, 6.0, 3e38], np.float32)
    if "relu" in op:  # which zero comes of -0 differs between versions of NumPy
        odd = odd[odd.view(np.uint32) != 1 << 31]
    values = np.concatenate([odd, 4 * normal(rng, 100)])
    a, b = (np.ascontiguousarray(m) for m in np.meshgrid(values, values))
    ins = [a, b] if op in EXACT[:4] else [a]
    attrs = {"scale": (0.3,), "leaky_relu": (0.01,)}.get(op, ())
    ours, theirs = unset(*a.shape), unset(*a.shape)
    reference = getattr(numpy_, op, None) or getattr(numpy_, f"{op}_")
    with np.errstate(all="ignore"):
        reference(theirs, *ins, *attrs)
    getattr(c_, op)(ours, *ins, *attrs)
    np.testing.assert_array_equal(bits(ours), bits(theirs))


def ulps(ours: np.ndarray, exact: np.ndarray) -> float:
    """The largest error, in units of the last place of the exact result."""
    return float((np.abs(ours - exact) / np.spacing(np.abs(exact).astype(np.float32))).max())


@pytest.mark.parametrize(
    ("op", "low", "high", "most"),
    [("exp", -86, 88, 2), ("log", 1e-37, 1e38, 2), ("tanh", -10, 10, 3), ("sqrt", 0, 1e38, 0.5)],
)
def test_functions_are_near_the_exact_ones(op: str, low: float, high: float, most: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(low, high, 100_000).astype(np.float32)
    if op in ("log", "sqrt"):
        x = np.exp(rng.uniform(-80, 80, x.size)).astype(np.float32)
    y = np.empty_like(x)
    getattr(c_, op)(y, x)
    assert ulps(y, getattr(np, op)(x.astype(np.float64))) <= most


# ---------------------------------------------------------------------------- the backend


def test_every_instruction_is_in_the_library() -> None:
    for name in geometry.names():
        assert hasattr(c_.library(), f"tt_kernel_{name}")


@pytest.mark.parametrize("name", sorted(numba_.KERNELS))
def test_a_call_goes_to_c(name: str) -> None:
    """Nothing that Numba serves is left to the reference."""
    function, _ = getattr(c_, name).bind(*one_call_of_each()[name])
    if name in ("cross_entropy",):  # labels are int64 there
        return
    assert function is not getattr(c_, name).reference


def test_what_c_lacks_is_left_to_the_reference() -> None:
    a = np.arange(6, dtype=np.int32)
    y = np.empty_like(a)
    c_.add(y, a, a)
    np.testing.assert_array_equal(y, a + a)
    wide = np.zeros((4, 6), np.float32)
    y = np.empty(4, np.float32)
    c_.sum(y, wide[:, ::2], (1,), False)
    np.testing.assert_array_equal(y, np.zeros(4, np.float32))


def test_a_build_is_made_once(tmp_path: Path) -> None:
    code = "from tinytrain.kernels import c_; c_.library(); print(c_.build_path())"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", code]
    for _ in range(2):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        (built,) = (tmp_path / "tinytrain").iterdir()
        assert done.stdout.strip() == str(built)
        stamp = built.stat().st_mtime_ns
        environment["PATH"] = os.defpath if not _ else environment["PATH"]
    assert built.stat().st_mtime_ns == stamp


def test_fused_products_are_another_build() -> None:
    """Asked for by name; the sums are near the exact ones, and where products can be fused not
    the same."""
    code = (
        "import sys, numpy as np; from tinytrain.kernels import c_; y = np.zeros((9, 33), 'f4');"
        "a, b = (np.random.default_rng(k).standard_normal(n, 'f4') for k, n in enumerate("
        "((9, 500), (500, 33)))); c_.matmul(y, a, b); sys.stdout.buffer.write(y.tobytes())"
    )
    exact, fused = (
        np.frombuffer(
            subprocess.run(
                [sys.executable, "-c", code],
                env={**os.environ, "TINYTRAIN_FMA": fma},
                stdout=subprocess.PIPE,
                check=True,
            ).stdout,
            np.float32,
        )
        for fma in "01"
    )
    np.testing.assert_allclose(fused, exact, rtol=0, atol=1e-4)
    if "avx2" in c_._processor():
        assert not np.array_equal(fused, exact)


def test_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One clear error that says how to mend it; a cached build needs none."""
    monkeypatch.setattr(c_, "_loaded", [])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert not c_.is_there()
    with pytest.raises(InputError, match="there is no C compiler"):
        run.kernel("add", "c")


def test_a_label_that_is_no_class_gives_a_loss_that_the_guard_stops_at():
    logits = np.zeros((2, 3), np.float32)
    for bad in (-1, 3, 2**31 - 1):
        loss, gradient = np.zeros((), np.float32), np.zeros((4, 3), np.float32)
        c_.cross_entropy(loss, gradient[1:3], logits, np.array([0, bad], np.int32), None, 0.0)
        assert np.isnan(loss)
        assert not gradient[[0, 3]].any()


def test_a_step_is_one_walk_that_stops_at_a_raised_flag():
    t = tt.Trainer(models.build("lenet5"), batch=2, optimizer="momentum", backend="c")
    assert len(t._train.executor.calls(True, True)) == 1
    x, y = np.ones((2, 28, 28, 1), np.float32), np.array([1, 2])
    t.step(x, y)
    before = {k: v.tobytes() for k, v in t.state().items()}
    x[1, 3, 4] = np.inf
    with pytest.raises(tt.NotFiniteError, match="the input"):
        t.step(x, y)
    assert {k: v.tobytes() for k, v in t.state().items()} == before
    x[1, 3, 4] = 1
    assert t.step(x, y) > 0
