"""The Numba kernels, float32 only: what pays to compile; every other row is left to `numpy_.py`.

Names, argument order and rules are the reference's. A kernel's file is imported, and with it what
it calls compiled or read from Numba's cache, when the kernel is first asked for.
"""

import sys
import time
from importlib import import_module
from typing import Any

import numba  # noqa: F401  (so that its absence shows here, before any kernel is asked for)

from . import numba_cache  # noqa: F401  (before any kernel is compiled)

_FILES = {
    "bitmap": (
        *("bitmap_pack", "bitmap_unpack", "bitmap_gate_vjp", "topk_pack"),
        *("gate_mask", "gate_mask_vjp"),
    ),
    "conv": ("conv2d", "conv2d_vjp_x", "conv2d_vjp_w", "conv2d_vjp_w_sgd"),
    "elementwise": (
        *("add", "sub", "mul", "scale", "relu", "relu6", "relu6_vjp"),
        *("running_average", "mean", "broadcast_to", "fill"),
    ),
    "lines": ("conv2d_lines", "conv2d_vjp_x_lines"),
    "matmul": ("matmul", "matmul_nt", "matmul_tn", "matmul_tn_sgd", "matmul_tn_momentum"),
    "norm": (
        "batch_norm",
        "batch_norm_vjp_params",
        "batch_norm_vjp_x",
        "batch_norm_frozen",
        "batch_norm_frozen_vjp_x",
        "group_norm",
        "group_norm_vjp_params",
        "group_norm_vjp_x",
    ),
    "packed": ("bitmap_conv2d_vjp_w", "bitmap_matmul_tn"),
    "pool": (
        *("max_pool2d", "max_pool2d_vjp", "avg_pool2d", "avg_pool2d_vjp"),
        *("index_pack", "index_unpack"),
    ),
    "step": (
        "cross_entropy",
        "dropout",
        "sum_to",
        "relu_vjp",
        "decay",
        "sgd",
        "zero_pruned",
        "square_sum",
        "mse",
        "check_finite",
    ),
}
KERNELS = {name: file for file, names in _FILES.items() for name in names}


def threads() -> int:
    """How many threads a step may take."""
    return import_module(".numba_walk", __package__).threads()


def joined(calls: Any) -> Any:
    """The same calls with each run of compiled ones as one walk."""
    return import_module(".numba_walk", __package__).joined(calls)


_began: list[float] = []
PATIENCE = 1.0  # seconds of loading from which something is said


def compiling(what: str) -> None:
    """Say on a terminal what is being compiled: loading from the cache is over before that. An
    empty text ends it."""
    if not sys.stderr.isatty():
        return
    _began.append(time.monotonic())
    if _began[-1] - _began[0] > PATIENCE:
        line = f"compiling Numba's kernels, once for this machine: {what}" if what else ""
        print(f"\r{line:<78}", end="" if what else "\r", file=sys.stderr, flush=True)
    if not what:
        _began.clear()


def __getattr__(name: str) -> Any:
    if name not in KERNELS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    compiling(name)
    found = getattr(import_module(f".numba_{KERNELS[name]}", __package__), name)
    globals()[name] = found
    return found
