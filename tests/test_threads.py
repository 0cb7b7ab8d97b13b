"""Calls cut into parts for threads: which may be, and that training keeps its bits."""

from __future__ import annotations

import importlib.util
import threading

import numpy as np
import pytest

import tinytrain as tt
from tinytrain import models
from tinytrain.kernels import c_, parts

VARIABLES = {"c": "TINYTRAIN_THREADS", "numba": "NUMBA_NUM_THREADS"}
needs = {"c": c_.is_there(), "numba": importlib.util.find_spec("numba") is not None}
BACKENDS = [
    pytest.param(name, marks=pytest.mark.skipif(not there, reason=f"{name} cannot be had"))
    for name, there in needs.items()
]


def trained(backend: str, steps: int = 3) -> tuple[list[float], dict[str, bytes], int]:
    """Losses and state after some steps of a net with every row that may be cut, and the cuts."""
    net = models.build("resnet8", input_shape=(16, 16, 3), norm="group")
    t = tt.Trainer(net, batch=9, optimizer="momentum", backend=backend)
    cuts = [f for calls in t._train.executor._calls for f, _ in calls]
    x = np.random.default_rng(0).standard_normal((9, 16, 16, 3)).astype(np.float32)
    losses = [t.step(x, np.arange(9)) for _ in range(steps)]
    found = {k: v.tobytes() for k, v in t.state().items()}
    return losses, found, sum(isinstance(f, parts.Together) for f in cuts)


@pytest.mark.parametrize("backend", BACKENDS)
def test_any_number_of_threads_gives_the_same_bits(backend, monkeypatch):
    monkeypatch.setattr(parts, "LEAST_WORK", 1)
    monkeypatch.setattr(parts, "LEAST_SIZE", 1)
    runs = {}
    for count in (1, 2, 5):
        monkeypatch.setenv(VARIABLES[backend], str(count))
        runs[count] = trained(backend)
    assert runs[1][2] == 0 and runs[2][2] == runs[5][2] > 30
    for count in (2, 5):
        assert runs[count][:2] == runs[1][:2]


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_trainers_may_step_at_once(backend, monkeypatch):
    monkeypatch.setattr(parts, "LEAST_WORK", 1)
    monkeypatch.setenv(VARIABLES[backend], "2")
    want, found = trained(backend, 6), []
    both = [threading.Thread(target=lambda: found.append(trained(backend, 6))) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(60)
    assert found == [want, want]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_bad_slice_is_refused_with_threads_too(backend, monkeypatch):
    monkeypatch.setattr(parts, "LEAST_WORK", 1)
    monkeypatch.setenv(VARIABLES[backend], "2")
    net = models.build("lenet5")
    t = tt.Trainer(net, batch=8, optimizer="momentum", backend=backend)
    x, y = np.ones((8, 28, 28, 1), np.float32), np.arange(8)
    before = {k: v.tobytes() for k, v in t.state().items()}
    x[7, 3, 4] = np.nan
    with pytest.raises(tt.NotFiniteError, match="the input"):
        t.step(x, y)
    assert {k: v.tobytes() for k, v in t.state().items()} == before


def test_parts_are_of_the_samples_and_have_scratch_of_their_own():
    dx, g = np.zeros((9, 16, 16, 8), np.float32), np.ones((9, 16, 16, 8), np.float32)
    w, tap = np.ones((3, 3, 8, 8), np.float32), np.zeros((8, 8), np.float32)
    args = (dx, g, w, tap, (16, 16), (1, 1), (1, 1, 1, 1), 1, (1, 1), False)
    cut = list(parts.parts_of("conv2d_vjp_x", args, 2))
    assert [len(part[0]) for part in cut] == [4, 5]
    assert all(np.shares_memory(part[0], dx) and part[2] is w for part in cut)
    assert cut[0][3] is tap and not np.shares_memory(cut[1][3], tap)
    assert not list(parts.parts_of("conv2d_vjp_x", args, 1))
    few = tuple(a[:4] if k < 2 else a for k, a in enumerate(args))
    assert not list(parts.parts_of("conv2d_vjp_x", few, 2))


def test_a_weight_gradients_parts_are_even_shares_of_its_taps():
    dw, x = np.zeros((3, 3, 8, 8), np.float32), np.ones((9, 16, 16, 8), np.float32)
    args = (dw, x, x, (3, 3), (1, 1), (1, 1, 1, 1), 1, (1, 1), False)
    cut = list(parts.parts_of("conv2d_vjp_w", args, 2))
    assert [(part[3], part[5][0], part[5][2]) for part in cut] == [
        *(((1, 3), 1, 1), ((1, 3), -1, 1)),  # kernel, padding above and left
        *(((1, 2), 0, 0), ((1, 1), 0, 1)),
    ]
    for part in cut:
        assert part[0].flags.c_contiguous and np.shares_memory(part[0], dw)
        part[0][...] += 1
    assert (dw == 1).all()
    assert len(list(parts.parts_of("conv2d_vjp_w", args, 9))) == 9
    assert not list(parts.parts_of("conv2d_vjp_w", args, 10))
    assert not list(parts.parts_of("conv2d_vjp_w", args, 1))
    deep = np.zeros((3, 3, 1, 8), np.float32)
    assert not list(parts.parts_of("conv2d_vjp_w", (deep, *args[1:6], 8, (1, 1), False), 2))


def test_what_would_write_over_another_part_stays_whole():
    arena = np.zeros(3 * 2**20, np.float32)
    x = arena[: 2**20].reshape(16, -1)
    assert len(list(parts.parts_of("relu", (x, x), 2))) == 2  # over itself, sample by sample
    moved = arena[64 : 64 + 2**20].reshape(16, -1)
    assert not list(parts.parts_of("relu", (moved, x), 2))
    pooled = arena[: 2**18].reshape(16, 32, 32, 16)
    index, image = np.zeros(pooled.shape, np.uint8), arena[: 2**20].reshape(16, 64, 64, 16)
    assert not list(parts.parts_of("max_pool2d", (pooled, index, image, (2, 2)), 2))


@pytest.mark.parametrize("text, count", [("2", 2), ("0", 1), ("", 1), ("-3", 1), ("two", 1)])
def test_the_number_of_threads_is_asked_of_the_environment(text, count, monkeypatch):
    monkeypatch.setenv("TINYTRAIN_THREADS", text)
    assert c_.threads() == count


@pytest.mark.parametrize("work, whole", [(parts.LEAST_TOTAL / 2, False), (1.5, True)])
def test_what_all_parts_are_too_small_for_stays_whole(work, whole):
    one, other = (lambda: None, ()), (lambda: None, ())
    cut = parts.Together([one, one], other, work), ()
    assert list(parts.paying([one, cut, cut])) == [one, *[other if whole else cut] * 2]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("least, wide", [(None, False), (0, True)])
def test_a_small_step_runs_on_one_thread(backend, least, wide, monkeypatch):
    monkeypatch.setenv(VARIABLES[backend], "2")
    if least is not None:
        monkeypatch.setattr(parts, "LEAST_TOTAL", least)
    t = tt.Trainer(models.build("mlp"), batch=8, backend=backend)
    ((walk, _),) = t._train.executor.calls(True, True)
    kept = any(isinstance(function, parts.Together) for function, _ in walk.kept)
    assert kept is wide
