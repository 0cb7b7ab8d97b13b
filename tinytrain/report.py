"""Plans as people and programs look at them: tables that line up, a picture of the arena as SVG,
figures for JSON."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinytrain.plan import Plan

COLOURS = {  # by kind; told apart in grey as well
    "parameters": "#4e79a7",
    "optimizer": "#a0cbe8",
    "gradients": "#e15759",
    "activations": "#f1ce63",
    "stash": "#59a14f",
    "workspace": "#b07aa1",
    "io": "#9c755f",
    "slack": "#ffffff",
}
WIDTH, HEIGHT = 960, 460
LEFT, RIGHT, TOP, BOTTOM = 84, 16, 60, 66
SMALLEST_LABEL = (46, 11)  # pixels a rectangle must have to carry a name
PEAK_ROWS = 8


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Columns that line up: text to the left, numbers (with thousands separators) to the right."""
    cells = [[f"{c:,}" if isinstance(c, int) else str(c) for c in row] for row in rows]
    raw = [list(row) for row in rows]
    widths = [max(len(r[k]) for r in [list(header), *cells]) for k in range(len(header))]
    right = [
        bool(raw) and all(isinstance(r[k], int | float) for r in raw) for k in range(len(header))
    ]

    def line(row: Sequence[str]) -> str:
        parts = (
            c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)
        )
        return "  ".join(parts).rstrip()

    return "\n".join([line(list(header)), line(["-" * w for w in widths]), *map(line, cells)])


def plan_text(plan: Plan) -> str:
    """The plan as a table: bytes by kind at the peak, the totals, and who is alive there."""
    kinds = [(kind, n) for kind, n in plan.breakdown().items()]
    kinds += [("arena", plan.arena_bytes), ("lower bound", plan.lower_bound)]
    if plan.ram is not None:
        kinds += [("ram", plan.ram), ("left over", plan.ram - plan.arena_bytes)]
    peak = plan.peak()
    steps = plan.program.steps
    alive = [(plan.name(v), n, offset) for n, offset, v in plan.alive(peak)]
    shown = table(("alive at the peak", "bytes", "offset"), alive[:PEAK_ROWS])
    more = len(alive) - PEAK_ROWS
    return "\n".join(
        [
            table(("kind of buffer", "bytes"), kinds),
            "",
            f"{len(steps)} steps, batch {plan.batch}, {plan.macs:,} multiply-accumulates; the peak "
            f"is step {peak} ({steps[peak].op if steps else 'none'})",
            *_spilled(plan),
            "",
            shown + (f"\n... and {more} smaller ones" if more > 0 else ""),
        ]
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


def plan_svg(plan: Plan) -> str:
    """The arena: steps across, bytes up, one rectangle for each value's stay in its buffer."""
    from tinytrain.plan import KIND_OF

    steps = max(len(plan.program.steps), 1)
    top = max(plan.arena_bytes, plan.ram or 0, 1)
    sx = (WIDTH - LEFT - RIGHT) / steps
    sy = (HEIGHT - TOP - BOTTOM) / top
    floor = HEIGHT - BOTTOM
    parts = [_open_svg(plan)]
    for b in plan.buffers:
        stays = [*b.values, (b.end, -1)] if not b.persistent else [(0, b.values[0][1]), (steps, -1)]
        for (first, v), (last, _) in itertools.pairwise(stays):
            if last > first and b.nbytes:
                kind = KIND_OF[plan.program.kinds[v]]
                x, y = LEFT + first * sx, floor - (b.offset + b.nbytes) * sy
                w, h = (last - first) * sx, b.nbytes * sy
                parts.append(_rectangle(x, y, w, h, kind, plan.name(v), b.nbytes))
    parts += _axes(plan, sx, sy, floor, steps)
    parts += _legend(plan)
    return "\n".join([*parts, "</svg>"])


def _open_svg(plan: Plan) -> str:
    budget = "" if plan.ram is None else f" of {plan.ram:,} allowed"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="11">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n'
        f'<text x="{LEFT}" y="22" font-size="15" font-weight="bold">One training step, batch '
        f"{plan.batch}: {plan.arena_bytes:,} bytes{budget}</text>\n"
        f'<text x="{LEFT}" y="40" fill="#555">each rectangle is a buffer: across when it is '
        f"needed, up where it lies; lower bound {plan.lower_bound:,} bytes</text>"
    )


def _rectangle(x: float, y: float, w: float, h: float, kind: str, name: str, nbytes: int) -> str:
    box = (
        f'<rect x="{x:.2f}" y="{y:.2f}" width="{w:.2f}" height="{h:.2f}" fill="{COLOURS[kind]}" '
        f'stroke="#333" stroke-width="0.4"><title>{escape(name)}: {nbytes:,} bytes, {kind}'
        f"</title></rect>"
    )
    if w < SMALLEST_LABEL[0] or h < SMALLEST_LABEL[1]:
        return box
    label = escape(name.split(" %")[0][: int(w / 6)])
    return f'{box}<text x="{x + 3:.2f}" y="{y + h / 2 + 4:.2f}" fill="#111">{label}</text>'


def _axes(plan: Plan, sx: float, sy: float, floor: float, steps: int) -> list[str]:
    end = WIDTH - RIGHT
    peak = plan.peak()
    lines = [
        f'<path d="M{LEFT} {TOP}V{floor}H{end}" fill="none" stroke="#333"/>',
        f'<text x="{end}" y="{floor + 30}" text-anchor="end">steps</text>',
    ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        n = int(max(plan.arena_bytes, plan.ram or 0) * share)
        lines.append(
            f'<text x="{LEFT - 6}" y="{floor - n * sy + 4:.1f}" text-anchor="end">{n:,}</text>'
        )
        k = int(steps * share)
        lines.append(
            f'<text x="{LEFT + k * sx:.1f}" y="{floor + 16}" text-anchor="middle">{k}</text>'
        )
    x = LEFT + (peak + 0.5) * sx
    op = plan.program.steps[peak].op if plan.program.steps else ""
    lines.append(
        f'<path d="M{x:.1f} {TOP - 6}V{floor}" stroke="#d62728" stroke-dasharray="4 3"/>'
        f'<text x="{x:.1f}" y="{TOP - 8}" text-anchor="middle" fill="#d62728">peak: {op}</text>'
    )
    for name, height in (("ram", plan.ram), ("arena", plan.arena_bytes)):
        if height is not None:
            y = floor - height * sy
            lines.append(f'<path d="M{LEFT} {y:.1f}H{end}" stroke="#333" stroke-dasharray="2 3"/>')
            lines.append(f'<text x="{end}" y="{y - 3:.1f}" text-anchor="end">{name}</text>')
    return lines


def _legend(plan: Plan) -> list[str]:
    parts, x = [], float(LEFT)
    for kind, n in plan.breakdown().items():
        if n and kind != "slack":
            label = f"{kind} {n:,}"
            parts.append(
                f'<rect x="{x:.0f}" y="{HEIGHT - 22}" width="11" height="11" '
                f'fill="{COLOURS[kind]}" stroke="#333" stroke-width="0.4"/>'
                f'<text x="{x + 15:.0f}" y="{HEIGHT - 12}">{label}</text>'
            )
            x += 32 + 6.2 * len(label)
    return parts
