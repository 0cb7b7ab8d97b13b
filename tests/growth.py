"""What Python holds more after a call was made many times; what is too much its callers say."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any


def growth(do: Callable[[], Any], times: int, calls: int) -> list[int]:
    """Bytes held more after so many calls, so many times."""
    tracemalloc.start()
    grown = []
    try:
        for _ in range(times):
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(calls):
                do()
            gc.collect()
            grown.append(tracemalloc.get_traced_memory()[0] - before)
    finally:
        tracemalloc.stop()
    return grown
