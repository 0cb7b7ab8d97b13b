"""Plans in words and figures: tables that line up, JSON. It draws nothing and plans nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinytrain.plan import Plan
    from tinytrain.steps import Program

PEAK_ROWS = 8


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Columns that line up: text to the left, numbers (with thousands separators), shares in per
    cent and the "-" for none to the right."""
    raw = [list(row) for row in rows]
    cells = [[f"{c:,}" if isinstance(c, int) else str(c) for c in row] for row in raw]
    widths = [max(len(r[k]) for r in [list(header), *cells]) for k in range(len(header))]
    right = [bool(raw) and all(_is_figure(r[k]) for r in raw) for k in range(len(header))]

    def line(row: Sequence[str]) -> str:
        parts = (
            c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)
        )
        return "  ".join(parts).rstrip()

    return "\n".join([line(list(header)), line(["-" * w for w in widths]), *map(line, cells)])


def _is_figure(cell: Any) -> bool:
    return isinstance(cell, int | float) or cell == "-" or str(cell).endswith(" %")


def roles(program: Program) -> dict[int, str]:
    """What a policy made of a residual, by value: "bitmap" (bits, non-zeros and their count),
    "largest" (top-k), "unpacked" of either, "fetched", "recomputed" or "inverted"."""
    made = {v: "recomputed" for v in program.stands_for if program.kinds[v] == "activation"}
    made.update(dict.fromkeys(program.inverses, "inverted"))
    for s in program.steps:
        if s.op in ("bitmap_unpack", "index_unpack"):
            made[s.writes()[0]] = "unpacked"
        if s.op == "fetch":
            made[s.writes()[0]] = "fetched"
        if s.op == "topk_pack":
            made.update(dict.fromkeys(s.writes(), "largest"))
        if s.op in ("bitmap_pack", "index_pack", "gate_mask"):
            made.update(dict.fromkeys(s.writes(), "bitmap"))
    return made


def plan_text(plan: Plan) -> str:
    """The plan as a table: bytes by kind at the peak, the totals, what the policies did, and who
    is alive at the peak."""
    kinds = [(kind, n) for kind, n in plan.breakdown().items()]
    kinds += [("arena", plan.arena_bytes), ("lower bound", plan.lower_bound)]
    if plan.ram is not None:
        kinds += [("ram", plan.ram), ("left over", plan.ram - plan.arena_bytes)]
    made = roles(plan.program)

    def called(v: int) -> str:
        return plan.name(v) + (f", {made[v]}" if v in made else "")

    alive = [(called(v), n, offset) for n, offset, v in plan.alive(plan.peak())]
    shown = table(("alive at the peak", "bytes", "offset"), alive[:PEAK_ROWS])
    more = len(alive) - PEAK_ROWS
    return "\n".join(
        [
            table(("kind of buffer", "bytes"), kinds),
            "",
            *_sentences(plan),
            *(("", approximation(plan)) if plan.approximate else ()),
            "",
            shown + (f"\n... and {more} smaller ones" if more > 0 else ""),
        ]
    )


def _sentences(plan: Plan) -> list[str]:
    """A line each: the step, its price, the policies, the bitmaps."""
    steps, peak = plan.program.steps, plan.peak()
    lines = [
        f"{len(steps)} steps, batch {plan.batch}{slices_of(plan)}; the peak is step {peak} "
        f"({steps[peak].op if steps else 'none'})",
        f"{plan.macs:,} multiply-accumulates, {100 * plan.extra_macs_ratio:.1f} % extra work",
        "values that backward reads: "
        + (", ".join(f"{n} {policy}" for policy, n in plan.policies.items() if n) or "none"),
    ]
    b = plan.bitmap_bytes()
    if b["masks"]:
        lines.append(
            f"bitmaps: {b['masks']:,} bytes of bits, {b['nominal']:,} of non-zeros as expected, "
            f"{b['margin']:,} of margin; {b['dense']:,} if dense"
        )
    return lines + _spilled(plan)


def slices_of(plan: Plan) -> str:
    """How a batch is cut: " in 4 slices of 8", or nothing."""
    if plan.microbatch >= plan.batch:
        return ""
    return f" in {-(-plan.batch // plan.microbatch)} slices of {plan.microbatch}"


def approximation(plan: Plan) -> str:
    """What policy "topk" does to gradients, in a sentence."""
    specs = plan.program.specs
    packs = [s for s in plan.program.steps if s.op == "topk_pack"]
    kept = sum(s.attrs["k"] for s in packs)
    share = kept / sum(specs[s.reads()[0]].size for s in packs)
    return (
        f"approximate weight gradients (policy topk): they read the largest {100 * share:.1f} % of "
        f"the elements of {len(packs)} values; gradients of data are exact"
    )


def _spilled(plan: Plan) -> list[str]:
    """What goes to the spill file, if anything."""
    if not plan.slots:
        return []
    return [
        f"spill file {plan.spill_file_bytes:,} bytes; {plan.spill_written_bytes:,} written and "
        f"{plan.spill_read_bytes:,} read in every update"
    ]


def plan_figures(plan: Plan) -> dict[str, Any]:
    """A plan's figures, in bytes and counts, under the public keys."""
    return {
        "arena_bytes": plan.arena_bytes,
        "lower_bound_bytes": plan.lower_bound,
        "persistent_bytes": plan.persistent_bytes,
        "breakdown": plan.breakdown(),
        "fits": plan.fits,
        "ram_bytes": plan.ram,
        "smallest_ram_bytes": plan.smallest_ram_bytes,
        "microbatch": plan.microbatch,
        "policies": plan.policies,
        "bitmap": plan.bitmap_bytes(),
        "approximate": plan.approximate,
        "spill_file_bytes": plan.spill_file_bytes,
        "spill_written_bytes": plan.spill_written_bytes,
        "spill_read_bytes": plan.spill_read_bytes,
        "steps": len(plan.program.steps),
        "macs": plan.macs,
        "extra_macs_ratio": plan.extra_macs_ratio,
    }


def as_json(result: Any) -> str:
    """One line of JSON, which knows no NaN and no infinity: these are null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [plain(each) for each in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(plain(result), allow_nan=False)
