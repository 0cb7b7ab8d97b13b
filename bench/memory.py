"""What a step needs within budgets, case by case, ours beside published and measured figures.

Arena bytes count everything: parameters, optimizer state, gradients, activations, stashes,
workspace, inputs and labels. Extra work is the share of multiply-accumulates and elementwise
operations beyond keep's. Where PyTorch is installed, the bytes that it saves for backward in the
same network stand beside ours, measured in this run (parameters not counted).
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from typing import Any

from tinytrain import BudgetError, plan, report
from tinytrain.bench import torch_peer
from tinytrain.bench.machine import where_and_when
from tinytrain.bench.memory_bytes import Bytes, bytes_of, forward_bytes
from tinytrain.bench.memory_cases import Case, cases
from tinytrain.bench.memory_run import executed, time_ratio
from tinytrain.errors import InputError
from tinytrain.freeze import Recorder, defaults, sample_specs
from tinytrain.plan import Plan

CLOSER = 5  # budgets in which less and less is kept
HALVINGS = 3  # of the range in which the least arena within the extra work is looked for
NEAR = 0.02  # of the goal: so close that halving stops
FLAT = 0.01  # most growth of RevNet's bytes with depth


def run(
    data: str | None = None, json: bool = False, only: str | None = None, quick: bool = False
) -> dict[str, Any]:
    """Plan every case, run a step of each plan that fits this machine, and print the tables unless
    `json`. Returns machine, date and rows.

    only   cases whose name contains this alone; InputError if there is none.
    quick  run no step, plan only.
    """
    chosen = [c for c in cases() if only is None or only in c.name]
    if not chosen:
        raise InputError(f"no case is called {only!r}; there are {', '.join(_names())}")
    rows: list[dict[str, Any]] = []
    for section, group in itertools.groupby(chosen, key=lambda c: c.section):
        found = [_row(case, quick) for case in group]
        found += _flatness(found)
        if not json:
            print(f"{section}\n{table(found)}\n", flush=True)
        rows += found
    judged = [r["met"] for r in rows if r["met"] is not None]
    if not json:
        print(f"{sum(judged)} of {len(judged)} goals met", end="; ")
        print("; ".join(where_and_when().values()))
    return {**where_and_when(), "met": sum(judged), "goals": len(judged), "rows": rows}


def _names() -> list[str]:
    return [c.name for c in cases()]


# ---------------------------------------------------------------------------- one case


def _row(case: Case, quick: bool) -> dict[str, Any]:
    """The figures of one case; what it lacks is None."""
    print(f"{case.name} ...", end=" ", file=sys.stderr, flush=True)
    keep = _keep(case)
    held = bytes_of(keep)
    goal = case.goal(held) if callable(case.goal) else case.goal
    found = Attempts(case)
    made, at_goal = found.best(held, goal)
    ours = bytes_of(made) if made else None
    nominal = ours.nominal(case.measure) if ours else None
    extra = made.extra_macs_ratio if made else None
    row = {
        "case": case.name,
        "measure": case.measure,
        "published": case.published,
        "torch_saved_bytes": _torch_saved(case),
        "keep_bytes": getattr(held, case.measure),
        "goal_bytes": goal,
        "ours_bytes": nominal,
        "margin_bytes": ours.margins[case.measure] if ours else None,
        "arena_bytes": made.arena_bytes if made else None,
        "microbatch": made.microbatch if made else None,
        "extra_limit": case.extra,
        "extra_macs_ratio": extra,
        "met": None if goal is None else _met(nominal, extra, goal, case),
        "at_goal": at_goal,
        "policies": made.policies if made else {},
        "least_bytes": held.persistent + keep.breakdown()["io"],
        "planning_seconds": found.seconds,
        **(_ratios(case, keep, made) if case.name.startswith("wrn") and made else {}),
        **(executed(case, made) if made and case.execute and not quick else {}),
        **(time_ratio(case) if case.timed and not quick else {}),
    }
    print("done" if goal is None else "met" if row["met"] else "missed", file=sys.stderr)
    return row


def _met(nominal: int | None, extra: float | None, goal: int, case: Case) -> bool:
    cheap = case.extra is None or (extra is not None and extra <= case.extra)
    return nominal is not None and nominal <= goal and cheap


def _keep(case: Case) -> Plan:
    """Of the case, or of its twin, everything kept and the batch whole."""
    return _plan(case, policy="keep", density=None, net=(case.twin or case.make)())


def _plan(case: Case, net: Any = None, **changes: Any) -> Plan:
    arguments = {
        "loss": case.loss,
        "optimizer": case.optimizer,
        "batch": case.batch,
        "microbatch": case.microbatch,
        "policy": case.policy,
        "density": case.density,
    }
    return plan(net or case.make(), **{**arguments, **changes})


def _torch_saved(case: Case) -> int | None:
    """Of the reference network, the whole batch at once; None for one that has ops of which no
    counterpart is written down."""
    if not torch_peer.installed():
        return None
    net = (case.twin or case.make)()
    loss, _ = defaults(net, case.loss, None)
    tape = Recorder(net, sample_specs(net), loss)(case.batch).tape
    with contextlib.suppress(InputError):
        return torch_peer.saved_bytes(tape)
    return None


def _ratios(case: Case, keep: Plan, made: Plan) -> dict[str, Any]:
    """How many times less than PyTorch holds, and than every value of the forward pass."""
    parameters = 4 * case.make().count_parameters()
    saved = _torch_saved(case)
    copies = 3 if case.optimizer == "momentum" else 2  # parameters, gradients, momentum
    theirs = None if saved is None else saved + copies * parameters
    values = forward_bytes(keep)
    return {
        "torch_bytes": theirs,
        "times_under_torch": None if theirs is None else theirs / made.arena_bytes,
        "forward_bytes": values,
        "times_under_forward": values / made.arena_bytes,
    }


class Attempts:
    """The plans tried for one case, and the longest that one of them took (process time)."""

    def __init__(self, case: Case):
        self.case, self.seconds = case, 0.0

    def plan(self, **changes: Any) -> Plan:
        """One plan, timed; BudgetError as ever."""
        begin = time.process_time()
        try:
            return _plan(self.case, **changes)
        finally:
            self.seconds = max(self.seconds, time.process_time() - begin)

    def best(self, keep: Bytes, goal: int | None) -> tuple[Plan | None, str]:
        """The plan to judge, and what the budget of the goal gave where that is not it."""
        case = self.case
        if case.policy != "auto":  # it says what it needs, and gets a budget where that is too much
            made = self.plan()
            enough = goal is None or bytes_of(made).nominal(case.measure) <= goal
            if enough or case.policy == "keep":
                return made, ""
            if case.measure == "kept" and goal is not None:
                return self._kept(made, goal)
        assert goal is not None
        ram = goal
        if case.measure == "beside":
            own = bytes_of(_plan(case, policy="keep"))  # not a twin's
            ram += own.arena - own.beside
        try:
            made = self.plan(ram=ram)
        except BudgetError as error:
            return self._beyond(
                error.smallest, keep, f"the goal's budget needs {error.smallest:,} bytes of arena"
            )
        if case.extra is None or made.extra_macs_ratio <= case.extra:
            return made, ""
        return self._beyond(
            ram, keep, f"the goal's budget costs +{100 * made.extra_macs_ratio:.1f} %"
        )

    def _kept(self, made: Plan, goal: int) -> tuple[Plan, str]:
        """Under budgets that leave less and less room beside what may be kept."""
        found = bytes_of(made)
        over = found.nominal("kept") - goal
        alone, ram = f"the policy alone keeps {found.nominal('kept'):,} bytes", found.arena
        for _ in range(CLOSER):
            ram -= over
            try:
                tried = self.plan(ram=ram)
            except BudgetError:
                break
            over = bytes_of(tried).nominal("kept") - goal
            if over <= 0:
                return tried, alone
        return made, ""

    def _beyond(self, low: int, keep: Bytes, at_goal: str) -> tuple[Plan | None, str]:
        """The smallest plan found within the extra work, above `low`, where that is too little."""
        if self.case.policy != "auto":
            return self.plan(ram=low), at_goal
        best, step = self._within(low), NEAR
        if best is not None:
            return best, at_goal
        while best is None and low < keep.arena:  # further and further up, then between
            high = min(int(low * (1 + step)), keep.arena)
            best, step = self._within(high), 2 * step
            low = high if best is None else low
        for _ in range(HALVINGS if best else 0):
            middle = (low + high) // 2
            if high - low < NEAR * low:
                break
            made = self._within(middle)
            if made is None:
                low = middle
            else:
                best, high = made, made.arena_bytes
        return best, at_goal

    def _within(self, ram: int) -> Plan | None:
        """The plan of this budget, if there is one that adds no more work than allowed."""
        try:
            made = self.plan(ram=ram)
        except BudgetError:
            return None
        limit = self.case.extra
        return made if limit is None or made.extra_macs_ratio <= limit else None


def _flatness(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row on how RevNet's bytes grow with depth, once all depths are there."""
    depths = [r["ours_bytes"] for r in rows if r["case"].startswith("revnet-")]
    if len(depths) < 3 or None in depths:
        return []
    least, most = min(depths), max(depths)
    row: dict[str, Any] = dict.fromkeys(rows[0])
    row.update(case="revnet-flat", goal_bytes=int(least * (1 + FLAT)), ours_bytes=most)
    row.update(met=most <= least * (1 + FLAT), published="", at_goal="")
    return [row]


# ---------------------------------------------------------------------------- as text


def table(rows: list[dict[str, Any]]) -> str:
    """The rows of a section, and below them what does not fit into columns."""
    head = (
        *("case", "published", "PyTorch saves", "keep", "goal", "ours", "extra", "allowed"),
        *("verdict", "plan s", "step s", "high water"),
    )
    return "\n".join([report.table(head, map(_cells, rows)), *itertools.chain(*map(_notes, rows))])


def _cells(r: dict[str, Any]) -> tuple[Any, ...]:
    seconds = r["planning_seconds"]
    return (
        *(r["case"], r["published"] or "-"),
        *map(_bytes, (r["torch_saved_bytes"], r["keep_bytes"], r["goal_bytes"], r["ours_bytes"])),
        *(_share(r["extra_macs_ratio"]), _share(r["extra_limit"])),
        *(verdict(r), "-" if seconds is None else f"{seconds:.1f}"),
        "-" if r.get("step_seconds") is None else f"{r['step_seconds']:.2f}",
        {True: "as planned", False: "WRONG", None: "-"}[r.get("high_water_right")],
    )


def _bytes(n: int | None) -> str:
    return "-" if n is None else f"{n:,}"


def _share(ratio: float | None) -> str:
    return "-" if ratio is None else f"{100 * ratio:.1f} %"


def verdict(r: dict[str, Any]) -> str:
    """met, or by how much not."""
    if r["met"] is None:
        return "-"
    if r["met"]:
        return "met"
    if r["ours_bytes"] is None:
        return "no plan"
    over = r["ours_bytes"] / r["goal_bytes"] - 1
    missed = [f"{100 * over:.1f} % over"] if over > 0 else []
    extra, limit = r["extra_macs_ratio"], r["extra_limit"]
    if limit is not None and extra is not None and extra > limit:
        missed.append(f"{100 * (extra - limit):.1f} % too dear")
    return ", ".join(missed)


def _notes(r: dict[str, Any]) -> list[str]:
    """Lines below the table about one row."""
    notes = []
    if r["at_goal"]:
        notes.append(r["at_goal"])
    if r["met"] is False and r["measure"] == "arena":
        notes.append(f"what persists, a batch and its flags alone are {r['least_bytes']:,} bytes")
    if r.get("margin_bytes"):
        notes.append(f"a margin of {r['margin_bytes']:,} bytes comes on top")
    if r["measure"] == "kept" and r["ours_bytes"] is not None:
        notes.append(
            f"{100 * (1 - r['ours_bytes'] / r['keep_bytes']):.1f} % less than keep: "
            + ", ".join(f"{n} {policy}" for policy, n in r["policies"].items() if n)
        )
    if "time_ratio" in r:
        again = f", {r['overflows']} slices run again" if r["overflows"] else ""
        density = r["time_density"]
        mean = "none measured" if density is None else f"{density:.2f} in the mean, measured"
        notes.append(f"a step takes {r['time_ratio']:.2f}x of keep's (density {mean}{again})")
    if "forward_bytes" in r:
        if r["torch_bytes"] is not None:
            notes.append(
                f"{r['times_under_torch']:.1f}x under the {r['torch_bytes']:,} bytes that PyTorch "
                f"holds (parameters, gradients, optimizer state, saved tensors)"
            )
        notes.append(
            f"{r['times_under_forward']:.1f}x under every value of the forward pass, "
            f"{r['forward_bytes']:,} bytes"
        )
    return [f"  {r['case']}: {note}" for note in notes]
