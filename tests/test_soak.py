"""Memory that does not grow, and a limit that the system enforces; `tinytrain bench soak` does the
same for ten thousand steps, and a hundred thousand of the C99 port under sanitizers."""

from __future__ import annotations

import os
import sys

import pytest

from tinytrain.bench import faults, soak

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc here")
fast = [b for b in faults.backends() if b != "numba"]


@pytest.mark.parametrize("backend", fast)
def test_a_process_does_not_grow(backend):
    rss, traced = soak.grown(backend, 400)
    assert rss["found"] <= rss["allowed"]
    assert traced["found"] <= traced["allowed"]


@pytest.mark.skipif(sys.maxsize < 2**32, reason="address spaces of 32 bits are counted otherwise")
@pytest.mark.parametrize("backend", fast)
def test_the_demo_trains_within_a_limit(backend):
    """Of 8 MB beside NumPy and its arena, code and planner included."""
    assert soak.limited(backend, 1, range(8, 9))["found"] == "8"
    assert soak.limited(backend, 1, range(2, 3))["found"] == "more"
