"""Numba's elementwise rows, and calls joined to one walk: the same bits as one call after another,
and it stops where a flag is raised."""

from __future__ import annotations

import numpy as np
import pytest

import tinytrain as tt
from tinytrain import models
from tinytrain.kernels import numpy_

numba = pytest.importorskip("numba", reason="numba is missing")

from test_numba import both, normal, unset  # noqa: E402

from tinytrain.kernels import numba_, numba_walk  # noqa: E402

SPECIAL = (np.nan, np.inf, -np.inf, -0.0, 0.0, 6.0, np.nextafter(np.float32(6), np.float32(7)))


def values(shape: tuple[int, ...]) -> np.ndarray:
    """Noise about the kinks of ReLU6, with every special value that fits."""
    x = np.asarray(normal(np.random.default_rng(0), *shape) * np.float32(4))
    x.reshape(-1)[: len(SPECIAL)] = SPECIAL[: x.size]
    return x


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 40), (2, 3, 5, 6)])
def test_elementwise_rows_have_the_bits_of_the_reference(shape):
    x, g, empty = values(shape), normal(np.random.default_rng(1), *shape), unset(*shape)
    for name, ins, attrs in (
        *((name, [x, g], ()) for name in ("add", "sub", "mul")),
        *((name, [x], ()) for name in ("relu", "relu6")),
        ("relu6_vjp", [g, x], ()),
        ("scale", [x], (0.3,)),
        ("running_average", [x, g], (0.1, 1.25)),
        ("fill", [], (shape, -2.5, "float32")),
    ):
        with np.errstate(all="ignore"):
            want = empty.copy()
            getattr(numpy_, name)(want, *ins, *attrs)
        got = empty.copy()
        getattr(numba_, name)(got, *ins, *attrs)
        np.testing.assert_array_equal(got, want, err_msg=name)
        if ins:  # over its input
            over = [a.copy() for a in ins]
            getattr(numba_, name)(over[0], *over, *attrs)
            np.testing.assert_array_equal(over[0], want, err_msg=name)


@pytest.mark.parametrize("a", [(2, 3, 5, 6), (5, 6), (6,), (1,), (), (3, 1, 6), (2, 1, 1, 6)])
@pytest.mark.parametrize("name", ["add", "sub", "mul"])
def test_broadcasts_have_the_bits_of_the_reference(name, a):
    rng = np.random.default_rng(0)
    x, y = normal(rng, 2, 3, 5, 6), normal(rng, *a)
    for pair in ((x, y), (y, x)):
        both(name, [unset(2, 3, 5, 6)], list(pair), (), 0)


@pytest.mark.parametrize("size", [1, 6, 40])
def test_over_middle_axes(size):
    rng = np.random.default_rng(0)
    x = normal(rng, 2, 3, 4, size)
    total = np.zeros((2, size), np.float32)
    for p in range(12):
        total += x.reshape(2, 12, size)[:, p]
    y = unset(2, size)
    numba_.mean(y, x, (1, 2), False)
    np.testing.assert_array_equal(y, total / np.float32(12))
    for axis in ((0,), (3,), (0, 2), (0, 1, 2)):
        shape = np.mean(x, axis=axis).shape
        both("mean", [unset(*shape)], [x], (axis, False))
    for one in ((2, 1, 1, size), (1, 3, 4, size), (2, 1, 4, 1), (2, 3, 1, size), (size,)):
        both("broadcast_to", [unset(*x.shape)], [normal(rng, *one)], (x.shape,), 0)


@pytest.mark.parametrize("name", ["lenet5", "ds_cnn"])
def test_a_step_is_one_walk_with_the_bits_of_its_calls(name):
    found = []
    for walks in (True, False):
        net = models.build(name)
        t = tt.Trainer(net, batch=2, optimizer="momentum", backend="numba")
        if not walks:
            t._train.executor._joined = list
        assert (len(t._train.executor.calls(True, True)) == 1) == walks
        x = normal(np.random.default_rng(0), 2, *net.input_shape)
        losses = [t.step(x, np.array([1, 2])) for _ in range(2)]
        found.append((losses, {k: v.tobytes() for k, v in t.state().items()}))
        before = {k: v.tobytes() for k, v in t.state().items()}
        x[1, 3] = np.nan
        with pytest.raises(tt.NotFiniteError, match="the input"):
            t.step(x, np.array([1, 2]))
        assert {k: v.tobytes() for k, v in t.state().items()} == before
    assert found[0] == found[1]


@numba.njit
def _every_kind(out, matrix, nothing, flag, whole, real, sizes, pair):
    (a, b), c = pair
    out[0] = matrix[1, 2] + whole * real + sizes[0] * 10 + sizes[1] + a + b + c[3]
    out[1] = 1.0 if flag and nothing is None else 0.0


@numba.njit
def _fails(out):
    raise ValueError("no")


def test_arguments_arrive_as_they_were_given():
    out, c = np.zeros(2), np.arange(5, dtype=np.int32)
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
    given = (out, matrix, None, True, -7, 0.5, (3, -4), ((1.5, 2), c))
    kept = (_every_kind, (out, matrix, None, True, 1, "text"))  # no record holds a text
    calls = numba_walk.joined([(_every_kind, given), (_every_kind, given), kept])
    assert len(calls) == 2 and calls[1] == kept
    calls[0][0]()
    assert out.tolist() == [6 - 3.5 + 30 - 4 + 1.5 + 2 + 3, 1.0]


def test_an_error_in_a_kernel_is_not_lost():
    out = np.zeros(1)
    walk, _ = numba_walk.joined([(_fails, (out,)), (_fails, (out,))])[0]
    with pytest.raises(RuntimeError, match="a kernel of the walk"):
        walk()


def test_a_long_compilation_is_shown_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    numba_.compiling("conv2d")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    numba_.compiling("conv2d")  # perhaps from the cache
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(numba_, "PATIENCE", -1.0)
    numba_.compiling("matmul")
    assert "once for this machine: matmul" in capsys.readouterr().err
    numba_.compiling("")
    assert capsys.readouterr().err.strip(" \r") == ""
