"""The budget: bytes as people write them, and the plan that honours them.

With the policy `keep` there is one plan; it fits or the error says what is missing.
"""

from __future__ import annotations

import re
from typing import Any

from tinytrain.errors import InputError
from tinytrain.lower import lower
from tinytrain.plan import Plan, make_plan
from tinytrain.tape import Tape

UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}
POLICIES = ("auto", "keep")


def parse_bytes(size: Any) -> int | None:
    """`"64K"`, `"1.5M"` (1024-based) or an int of bytes; None is no limit."""
    if size is None:
        return None
    if isinstance(size, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?)(?:i?B)?\s*", size, re.IGNORECASE)
        if match and len(match[1]) < 20:
            return int(float(match[1]) * UNITS[match[2].upper()])
    elif isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return size
    raise InputError(f"ram is {size!r}; write bytes as 65536, 64K or 1.5M")


def choose(
    tape: Tape,
    optimizer: Any,
    batch: int,
    ram: Any = None,
    policy: str = "auto",
    guard: str | None = "loss",
    clip_norm: float | None = None,
) -> Plan:
    """The plan of one training step within `ram`. BudgetError if there is none."""
    if policy not in POLICIES:
        raise InputError(f"unknown policy {policy!r}; there are {', '.join(POLICIES)}")
    if guard not in ("loss", "step", None):
        raise InputError(f"unknown guard {guard!r}; there are 'loss', 'step' and None")
    if clip_norm is not None and not clip_norm > 0:
        raise InputError(f"clip_norm is {clip_norm!r}; wants a number above 0")
    program = lower(tape, optimizer, guard=guard, clip_norm=clip_norm)
    return make_plan(program, batch, parse_bytes(ram)).require_fit()
