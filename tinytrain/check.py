"""Gradient checks: one random direction against a central difference, in float64.

Along a random direction v, (f(x + h v) - f(x - h v)) / 2h must equal grad f(x) . v. One direction
checks a gradient of any size (as in HIPS autograd's `test_util`), and five points instead of two
leave an error of h^4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinytrain.tensor import Tensor, tape_of

STEP = 1e-5  # small, so that a kink (relu, max) is seldom stepped over
STENCIL = ((-2, 1 / 12), (-1, -8 / 12), (1, 8 / 12), (2, -1 / 12))


def gradients(
    fn: Callable[..., Tensor],
    *arrays: Any,
    seed: int = 0,
    rtol: float = 1e-6,
    atol: float = 1e-8,
    step: float = STEP,
) -> float:
    """Check the gradient of `fn(*tensors)` with respect to every floating array.

    fn may return a tensor of any shape; it is weighted by a random one of that shape. Integer
    arrays are passed as they are. Returns the relative error; raises AssertionError that names
    the ops when it exceeds `rtol * scale + atol`.
    """
    rng = np.random.default_rng(seed)
    points = [
        np.asarray(a, np.float64) if np.asarray(a).dtype.kind == "f" else np.asarray(a)
        for a in arrays
    ]
    moving = [k for k, a in enumerate(points) if a.dtype.kind == "f"]
    tensors = [Tensor(a, requires_grad=k in moving) for k, a in enumerate(points)]
    out = fn(*tensors)
    weight = rng.standard_normal(out.shape)
    (out * Tensor(weight)).sum().backward()
    ways = {k: rng.standard_normal(points[k].shape) for k in moving}
    found = {k: g for k in moving if (g := tensors[k].grad) is not None}
    slope = sum(float((g * ways[k]).sum()) for k, g in found.items())

    def along(t: float) -> float:
        moved = [Tensor(a + t * ways[k]) if k in ways else Tensor(a) for k, a in enumerate(points)]
        return float((fn(*moved).data * weight).sum())

    measured = sum(c * along(k * step) for k, c in STENCIL) / step
    scale = max(abs(slope), abs(measured))
    error = abs(slope - measured)
    if not error <= rtol * scale + atol:
        ops = ", ".join(dict.fromkeys(n.op for n in tape_of([out])[0].nodes)) or "nothing"
        raise AssertionError(
            f"gradient of {ops}: {slope:.9g} along a random direction, measured {measured:.9g} "
            f"(error {error:.3g}, allowed {rtol * scale + atol:.3g})"
        )
    return error / (scale or 1.0)
