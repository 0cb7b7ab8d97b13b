"""One network under every policy and at several budgets, side by side: plans alone, nothing runs.

A policy that the network cannot take is a row that says why, not an error.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

from tinytrain.budget import DENSITY, parse_bytes
from tinytrain.errors import BudgetError, InputError
from tinytrain.plan import Plan
from tinytrain.progress import Progress
from tinytrain.report import table
from tinytrain.stash import topk
from tinytrain.stash.spill import SMALLEST

ALONE = ("recompute", "bitmap", "invert", "spill", "topk")
NOWHERE = "spill"  # where the row of that policy would spill to, were it run
NOTHING = {
    "bitmap": "nothing that backward reads would be smaller as a bitmap",
    "spill": f"nothing that backward reads has {SMALLEST:,} bytes",
}
SHARES = (0.75, 0.5, 0.35)  # of what keep takes beyond its persistent bytes
REASON = 72  # letters of a reason that a table shows; JSON has it whole
HEAD = (
    *("plan", "arena", "of keep", "slice"),
    *("keep", "bitmap", "recompute", "invert", "spill", "extra work", "largest at the peak"),
)
Row = dict[str, Any]


class Comparison:
    """The rows of one table; the first, keep, is what the others are measured by.

    plan     `tinytrain.plan` with all else given; called with `policy`, `ram`, `density`, `spill`.
    ram      a budget of the user's own, for one more row.
    density  of the bitmap's row (0.5 if None); with one the solver may use bitmaps too.
    spill    the file of values spilled; with one the solver may spill too. Not opened.
    """

    def __init__(
        self,
        plan: Callable[..., Plan],
        ram: Any = None,
        density: float | None = None,
        spill: Any = None,
    ):
        self.plan, self.density, self.spill = plan, density, spill
        self.ram = parse_bytes(ram)
        self.keep = plan(policy="keep", ram=None, density=density)
        self.smallest: int | None = None  # the smallest budget, once one was too small
        self.total = 1 + len(ALONE) + len(SHARES) + 1 + (self.ram is not None)

    def rows(self) -> Iterator[Row]:
        """All `total` of them, one by one, for each takes its time; numbers, not words."""
        yield self._row("keep", "keep", lambda: self.keep)
        for policy in ALONE:
            given = dict.fromkeys(("density", "spill"))
            name = policy
            if policy == "bitmap":
                given["density"] = DENSITY if self.density is None else self.density
                name = f"bitmap at density {given['density']:g}"
            elif policy == "spill":
                given["spill"] = self.spill or NOWHERE
            elif policy == "topk":
                name = f"topk at {topk.SHARE:g}, approximate"
            yield self._row(name, policy, functools.partial(self.plan, policy=policy, **given))
        keep = self.keep
        for share in SHARES:
            rest = int(share * (keep.arena_bytes - keep.persistent_bytes))
            ram = keep.persistent_bytes + rest
            yield self._solved(f"{100 * share:.0f} % of keep's rest", ram)
        yield self._row("the smallest found", "auto", self._smallest)
        if self.ram is not None:
            yield self._solved("ram", self.ram)

    def all(self, quiet: bool) -> list[Row]:
        """The rows; meanwhile a bar on stderr if that is a terminal, else, unless `quiet`, a line
        for each."""
        rows: list[Row] = []
        with Progress("plans", self.total, None, unit="plan") as bar:
            for row in self.rows():
                rows.append(row)
                bar.advance()
                if not (quiet or sys.stderr.isatty()):
                    done = f"planned {len(rows)} of {self.total}: {row['name']}"
                    print(done, file=sys.stderr, flush=True)
        return rows

    def _auto(self, ram: int | None) -> Plan:
        return self.plan(policy="auto", ram=ram, density=self.density, spill=self.spill)

    def _solved(self, name: str, ram: int) -> Row:
        return self._row(f"{name}: {ram:,}", "auto", lambda: self._auto(ram))

    def _smallest(self) -> Plan:
        """The plan at the smallest budget that the planner knows of."""
        ram = self.smallest
        if ram is None:
            ram = self._auto(None).smallest_ram_bytes
        return self._auto(ram)

    def _row(self, name: str, policy: str, make: Callable[[], Plan]) -> Row:
        try:
            plan = make()
            if policy in NOTHING and not plan.policies[policy]:
                raise InputError(NOTHING[policy])
        except BudgetError as error:
            self.smallest = error.smallest
            return {"name": name, "policy": policy, "cannot": str(error), "missing": error.missing}
        except InputError as error:
            return {"name": name, "policy": policy, "cannot": str(error)}
        nbytes, _, v = plan.alive(plan.peak())[0]
        return {
            "name": name,
            "policy": policy,
            "cannot": None,
            "arena_bytes": plan.arena_bytes,
            "ram_bytes": plan.ram,
            "of_keep": plan.arena_bytes / self.keep.arena_bytes,
            "microbatch": plan.microbatch,
            "policies": plan.policies,
            "extra_macs_ratio": plan.extra_macs_ratio,
            "breakdown": plan.breakdown(),
            "bitmap": plan.bitmap_bytes(),
            "largest_at_peak": {"name": plan.name(v), "nbytes": nbytes},
        }


def as_table(rows: list[Row]) -> str:
    """The rows, lined up."""
    return table(HEAD, [_cells(r) for r in rows])


def _cells(r: Row) -> tuple[Any, ...]:
    if r["cannot"]:
        return (r["name"], *["-"] * (len(HEAD) - 2), f"cannot: {_short(r)}")
    p, largest = r["policies"], r["largest_at_peak"]
    return (
        *(r["name"], r["arena_bytes"], f"{100 * r['of_keep']:.1f} %", r["microbatch"]),
        *(p["keep"], p["bitmap"] + p.get("topk", 0), p["recompute"], p["invert"], p["spill"]),
        f"{100 * r['extra_macs_ratio']:.1f} %",
        f"{largest['name']} ({largest['nbytes']:,})",
    )


def _short(r: Row) -> str:
    """Why not, without the advice."""
    if "missing" in r:
        return f"{r['missing']:,} bytes are missing"
    text = r["cannot"].removeprefix(f"policy {r['policy']!r}: ").partition(";")[0]
    return text if len(text) <= REASON else text[: REASON - 3].rsplit(" ", 1)[0] + " ..."
