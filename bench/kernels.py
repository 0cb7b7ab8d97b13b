"""Convolutions beside this machine's own sgemm, exact and with fused products, one thread.

One process for each backend and arithmetic, which measures its own peak: the largest square sgemm
of NumPy's BLAS. What is counted is processor time, the least of many rounds in turn. Operands lie
as a plan lays them.
"""

from __future__ import annotations

import json as text
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tinytrain import report
from tinytrain.bench.machine import where_and_when

ROUNDS, SECONDS = 30, 0.002
SQUARE = (256, 384, 512)
# kernel, height, width, channels in and out; batch 1, stride 1, "same" padding.
CASES = (
    *((3, 32, 32, 16, 16), (3, 16, 16, 32, 32), (3, 8, 8, 64, 64)),
    *((1, 32, 32, 16, 96), (1, 25, 5, 64, 64), (1, 12, 12, 96, 16)),
)
STEPS = ("resnet8", "mobilenetv2", "ds_cnn")
ARITHMETIC = {"exact": "0", "fused": "1"}


def run(data: str | None = None, json: bool = False) -> dict[str, Any]:
    """GFLOP/s and the share of sgemm of conv2d and its gradients; milliseconds of whole steps."""
    found: dict[str, dict[str, Any]] = {}
    for backend in ("c", "numba"):
        for name, fused in ARITHMETIC.items():
            found[f"{backend} {name}"] = _child(backend, fused)
    if not json:
        _print(found)
    return {**where_and_when(), "kernels": found}


def _child(backend: str, fused: str) -> dict[str, Any]:
    environment = {**os.environ, "TINYTRAIN_FMA": fused}
    environment |= {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
    code = f"from tinytrain.bench import kernels; kernels.measure({backend!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, env=environment, stdout=subprocess.PIPE, text=True
    )
    return text.loads(done.stdout)


def measure(backend: str) -> None:
    """Print what this process measures, as JSON."""
    rng = np.random.default_rng(0)
    calls: dict[str, tuple[Callable[[], Any], float]] = {}
    for n in SQUARE:
        a, b, c = (rng.standard_normal((n, n), np.float32) for _ in range(3))
        calls[f"sgemm {n}"] = partial(np.matmul, a, b, out=c), 2.0 * n**3
    for case in CASES:
        calls |= _convolution(backend, rng, case)
    seconds = _least({name: call for name, (call, _) in calls.items()})
    rates = {name: flops / seconds[name] / 1e9 for name, (_, flops) in calls.items()}
    peak = max(rates.pop(f"sgemm {n}") for n in SQUARE)
    steps = _least({name: _step(backend, name) for name in STEPS})
    milliseconds = {name: s * 1e3 for name, s in steps.items()}
    print(text.dumps({"sgemm": peak, "gflops": rates, "milliseconds": milliseconds}))


def _convolution(backend: str, rng: Any, case: tuple[int, ...]) -> dict[str, Any]:
    from tinytrain.run import kernel

    k, h, w, c, o = case
    x, y = (rng.standard_normal((1, h, w, n), np.float32) for n in (c, o))
    weight, bias = rng.standard_normal((k, k, c, o), np.float32), np.zeros(o, np.float32)
    dx, dw, tap = np.empty_like(x), np.empty_like(weight), np.empty((o, c), np.float32)
    at = ((1, 1), (k // 2,) * 4, 1, (1, 1))
    flops, what = 2.0 * h * w * k * k * c * o, f"{k}x{k}, {c} to {o}, {h}x{w}"
    args: dict[str, tuple[Any, ...]] = {
        "conv2d": (y.copy(), x, weight, bias, *at),
        "conv2d_vjp_x": (dx, y, weight, tap, (h, w), *at, False),
        "conv2d_vjp_w": (dw, x, y, (k, k), *at, False),
    }
    calls = {}
    for op, operands in args.items():
        given = [_on_a_line(a) if isinstance(a, np.ndarray) else a for a in operands]
        found: Any = kernel(op, backend)
        function, bound = found.bind(*given) if hasattr(found, "bind") else (found, given)
        calls[f"{op} {what}"] = partial(function, *bound), flops
    return calls


def _on_a_line(array: np.ndarray) -> np.ndarray:
    """A copy that begins with a line of the cache, as in a plan whatever fills whole lines does."""
    room = np.empty(array.nbytes + 64, np.uint8)
    begin = -room.__array_interface__["data"][0] % 64
    copy = room[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _step(backend: str, name: str) -> Callable[[], Any]:
    import tinytrain as tt

    net = tt.models.build(name)
    trainer = tt.Trainer(net, batch=1, backend=backend)
    x, y = np.zeros((1, *net.input_shape), np.float32), np.zeros(1, np.int32)
    return lambda: trainer.step(x, y)


def _least(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Processor seconds of each call: the least of rounds that are taken in turn."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            call()
            count, begin = 0, time.process_time()
            while time.process_time() - begin < SECONDS:
                for _ in range(8):
                    call()
                count += 8
            best[name] = min(best[name], (time.process_time() - begin) / count)
    return best


def _print(found: dict[str, dict[str, Any]]) -> None:
    heads = list(found)
    peaks = [f"{found[h]['sgemm']:.0f}" for h in heads]
    rows = [("sgemm, GFLOP/s", *peaks)]
    for name in found[heads[0]]["gflops"]:
        shares = (found[h]["gflops"][name] / found[h]["sgemm"] for h in heads)
        rows.append((name, *(f"{share:.0%}" for share in shares)))
    for name in STEPS:
        times = (f"{found[h]['milliseconds'][name]:.3f} ms" for h in heads)
        rows.append((f"step of {name}, batch 1", *times))
    print(report.table(("share of sgemm", *heads), rows))
    print("fused: TINYTRAIN_FMA=1, which gives up that all machines have the same bits")
