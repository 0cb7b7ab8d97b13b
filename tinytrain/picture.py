"""Pictures of plans as SVG text: one plan's arena over time, several plans' arenas as bars. They
are drawn from the plan alone; nothing is measured and no library is needed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from tinytrain.lifetime import live_bytes
from tinytrain.report import roles, slices_of

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
HATCHES = {  # by what a policy made of a residual: the lines of an 8 by 8 tile
    "bitmap": "M1 2h2M5 6h2",
    "largest": "M1 2h2M5 6h2M3 4h2",
    "unpacked": "M0 4H8",
    "fetched": "M4 0V8",
    "recomputed": "M0 8L8 0M-2 2L2 -2M6 10L10 6",
    "inverted": "M0 0L8 8M0 8L8 0",
}
FAR = 1.25  # times the arena: a budget above it is named, not drawn
WIDTH, HEIGHT = 960, 540
LEFT, RIGHT, TOP, BOTTOM = 92, 16, 82, 106
FLOOR = HEIGHT - BOTTOM
LETTER = 6.1  # pixels a letter takes, about
SMALLEST_LABEL = (46, 12)  # pixels a rectangle must have to carry a name
FRAME = 'stroke="#333" stroke-width="0.4"'
BAR, GAP = 24, 14  # a bar's height, what is between two
NAMES, FIGURES = 150, 190  # room on the left and the right of the longest bar


def plan_svg(plan: Plan) -> str:
    """The arena: steps across, bytes up, one rectangle for each value's stay in its buffer."""
    from tinytrain.plan import KIND_OF

    steps = max(len(plan.program.steps), 1)
    sx = (WIDTH - LEFT - RIGHT) / steps
    sy = (FLOOR - TOP) / _highest(plan)
    made = roles(plan.program)
    parts = [_open_svg(plan), _hatches()]
    for b in plan.buffers:
        stays = [*b.values, (b.end, -1)] if not b.persistent else [(0, b.values[0][1]), (steps, -1)]
        for (first, v), (last, _) in itertools.pairwise(stays):
            if last > first and b.nbytes:
                kind = KIND_OF[plan.program.kinds[v]]
                x, y = LEFT + first * sx, FLOOR - (b.offset + b.nbytes) * sy
                box = (x, y, (last - first) * sx, b.nbytes * sy)
                parts.append(_rectangle(box, kind, made.get(v), plan.name(v), b.nbytes))
    parts += [*_axes(plan, sx, sy), *_sections(plan, sx), *_peak(plan, sx), *_legend(plan)]
    return "\n".join([*parts, "</svg>"])


def _highest(plan: Plan) -> int:
    """The bytes at the top of the picture: the budget's, unless the arena lies far below it."""
    ram = plan.ram or 0
    return max(plan.arena_bytes, ram if ram <= FAR * plan.arena_bytes else 0, 1)


def _open_svg(plan: Plan) -> str:
    budget = "" if plan.ram is None else f" of {plan.ram:,} allowed"
    extra = f", {100 * plan.extra_macs_ratio:.1f} % extra work" if plan.extra_macs_ratio else ""
    return _frame(WIDTH, HEIGHT) + (
        f'<text x="{LEFT}" y="22" font-size="15" font-weight="bold">One training step, batch '
        f"{plan.batch}{slices_of(plan)}: {plan.arena_bytes:,} bytes{budget}{extra}</text>\n"
        f'<text x="{LEFT}" y="40" fill="#555">each rectangle is a buffer: across when it is '
        f"needed, up where it lies; lower bound {plan.lower_bound:,} bytes</text>"
    )


def _frame(width: int, height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="11">\n'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>\n'
    )


def _hatches() -> str:
    tiles = (
        f'<pattern id="{name}" width="8" height="8" patternUnits="userSpaceOnUse">'
        f'<path d="{lines}" stroke="#222" stroke-width="1" fill="none"/></pattern>'
        for name, lines in HATCHES.items()
    )
    return f"<defs>{''.join(tiles)}</defs>"


def _rectangle(
    box: tuple[float, float, float, float], kind: str, role: str | None, name: str, nbytes: int
) -> str:
    x, y, w, h = box
    place = f'x="{x:.2f}" y="{y:.2f}" width="{w:.2f}" height="{h:.2f}"'
    title = f"<title>{escape(name)}: {nbytes:,} bytes, {kind}{f', {role}' if role else ''}</title>"
    line = f'stroke="#333" stroke-width="{min(0.4, h / 8):.2f}"'
    drawn = f'<rect {place} fill="{COLOURS[kind]}" {line}>{title}</rect>'
    if role:
        drawn += f'<rect {place} fill="url(#{role})" opacity="0.55">{title}</rect>'
    if w < SMALLEST_LABEL[0] or h < SMALLEST_LABEL[1]:
        return drawn
    label = escape(name.split(" %")[0][: int((w - 6) / LETTER)])
    halo = 'stroke="#fff" stroke-width="2.5" paint-order="stroke" ' if role else ""
    return f'{drawn}<text x="{x + 3:.2f}" y="{y + h / 2 + 4:.2f}" {halo}fill="#111">{label}</text>'


def _axes(plan: Plan, sx: float, sy: float) -> list[str]:
    end, steps = WIDTH - RIGHT, max(len(plan.program.steps), 1)
    lines = [f'<path d="M{LEFT} {TOP}V{FLOOR}H{end}" fill="none" stroke="#333"/>']
    for share in (0, 0.25, 0.5, 0.75, 1):
        n = int(_highest(plan) * share)
        lines.append(
            f'<text x="{LEFT - 6}" y="{FLOOR - n * sy + 4:.1f}" text-anchor="end">{n:,}</text>'
        )
        k = int(steps * share)
        word, anchor = (f"{k} steps", "end") if share == 1 else (f"{k}", "middle")
        lines.append(
            f'<text x="{LEFT + k * sx:.1f}" y="{FLOOR + 15}" text-anchor="{anchor}">{word}</text>'
        )
    ram = None if plan.ram is None or plan.ram > _highest(plan) else plan.ram
    for name, height, below in (("arena", plan.arena_bytes, 11), ("ram", ram, -3)):
        if height is not None:
            y = FLOOR - height * sy
            down = below if ram is not None else -3  # apart, should the two be close
            lines.append(
                f'<path d="M{LEFT} {y:.1f}H{end}" stroke="#333" stroke-dasharray="2 3"/>'
                f'<text x="{end - 2}" y="{y + down:.1f}" text-anchor="end" stroke="#fff" '
                f'stroke-width="2.5" paint-order="stroke">{name} {height:,}</text>'
            )
    return lines


def _sections(plan: Plan, sx: float) -> list[str]:
    """Below the steps: forward and backward, and what is run once around the slices."""
    steps, body = len(plan.program.steps), plan.program.body
    begin, end = body or (0, steps)
    turn = next((at for at, _ in plan.program.marks if begin < at < end), begin)
    each = "" if body is None else ", for every slice"
    named = [
        (0, begin, "prologue"),
        (begin, turn, f"forward{each}"),
        (turn, end, f"backward{each}" if turn > begin else f"body{each}"),
        (end, steps, "epilogue: update"),
    ]
    parts = []
    for first, last, name in named:
        if last == first:
            continue
        a, b = LEFT + first * sx, LEFT + last * sx
        parts.append(
            f'<path d="M{a + 1:.1f} {FLOOR + 20}v6H{b - 1:.1f}v-6" fill="none" stroke="#555"/>'
        )
        if first:
            parts.append(f'<path d="M{a:.1f} {TOP}V{FLOOR}" stroke="#555" stroke-width="0.7"/>')
        fits = next(
            (n for n in (name, name.split(":")[0], name[:4]) if LETTER * len(n) < b - a), ""
        )
        parts.append(
            f'<text x="{(a + b) / 2:.1f}" y="{FLOOR + 40}" text-anchor="middle" '
            f'fill="#555">{fits}</text>'
        )
    return parts


def _peak(plan: Plan, sx: float) -> list[str]:
    peak, steps = plan.peak(), plan.program.steps
    alive = max(live_bytes(plan.buffers, len(steps)))
    x = LEFT + (peak + 0.5) * sx
    text = f"peak: {steps[peak].op if steps else 'no step'}, {alive:,} bytes alive"
    half = LETTER * len(text) / 2
    middle = min(max(x, LEFT + half), WIDTH - RIGHT - half)
    return [
        f'<path d="M{x:.1f} {TOP - 16}V{FLOOR}" stroke="#d62728" stroke-dasharray="4 3"/>'
        f'<text x="{middle:.1f}" y="{TOP - 20}" text-anchor="middle" fill="#d62728">{text}</text>'
    ]


def _legend(plan: Plan) -> list[str]:
    """Kinds with their bytes at the peak, and the hatches of what policies made."""
    entries = [
        (COLOURS[kind], f"{kind} {n:,}")
        for kind, n in plan.breakdown().items()
        if n and kind != "slack"
    ]
    held = list(roles(plan.program).values())
    entries += [(f"url(#{role})", role) for role in HATCHES if role in held]
    return _swatches(entries, LEFT, HEIGHT - 44, WIDTH - RIGHT)


def _swatches(entries: Sequence[tuple[str, str]], left: float, y: float, end: float) -> list[str]:
    """Coloured squares with words, in as many rows as they take."""
    parts, x = [], left
    for fill, label in entries:
        width = 24 + LETTER * len(label)
        if x > left and x + width > end:
            x, y = left, y + 18
        parts.append(
            f'<rect x="{x:.0f}" y="{y:.0f}" width="11" height="11" fill="{fill}" {FRAME}/>'
            f'<text x="{x + 15:.0f}" y="{y + 10:.0f}">{escape(label)}</text>'
        )
        x += width
    return parts


def bars_svg(title: str, rows: Sequence[dict[str, Any]]) -> str:
    """Arenas as bars, a stack of kinds each (`breakdown`, in bytes at the peak), with the extra
    work beside; rows are `compare`'s. One that cannot be has no bar."""
    height = TOP + len(rows) * (BAR + GAP) + 24
    most = max((r["arena_bytes"] for r in rows if not r["cannot"]), default=1)
    left, end = float(LEFT + NAMES), WIDTH - RIGHT - FIGURES
    parts = [
        _frame(WIDTH, height)
        + f'<text x="16" y="22" font-size="15" font-weight="bold">{escape(title)}</text>\n'
        f'<text x="16" y="40" fill="#555">bytes of the whole arena at its peak, by kind; on the '
        f"right, of keep and the extra work</text>"
    ]
    for k, r in enumerate(rows):
        y = TOP - 20 + k * (BAR + GAP)
        parts.append(
            f'<text x="{left - 8:.0f}" y="{y + 16}" text-anchor="end">{escape(r["name"])}</text>'
        )
        parts += _bar(r, left, y, (end - left) / most)
    kinds = [kind for kind in COLOURS if any(r.get("breakdown", {}).get(kind) for r in rows)]
    entries = [(COLOURS[kind], kind) for kind in kinds]
    return "\n".join([*parts, *_swatches(entries, left, height - 36, WIDTH), "</svg>"])


def _bar(r: dict[str, Any], left: float, y: float, scale: float) -> list[str]:
    if r["cannot"]:
        return [f'<text x="{left:.0f}" y="{y + 16}" fill="#777">cannot</text>']
    parts, x = [], left
    for kind, n in r["breakdown"].items():
        if n:
            parts.append(
                f'<rect x="{x:.2f}" y="{y}" width="{n * scale:.2f}" height="{BAR}" '
                f'fill="{COLOURS[kind]}" {FRAME}><title>{kind}: {n:,} bytes</title></rect>'
            )
            x += n * scale
    said = f"{r['arena_bytes']:,}, {100 * r['of_keep']:.0f} %, +{100 * r['extra_macs_ratio']:.1f} %"
    return [*parts, f'<text x="{x + 6:.1f}" y="{y + 16}">{said}</text>']


CELL = 30  # pixels of a confusion's cell


def confusion_svg(title: str, found: Any, names: Sequence[str]) -> str:
    """A confusion as squares, rows the labels and columns the answers, darker where a row has more
    of its samples; found[row][column] are counts."""
    left = 24 + LETTER * max((len(n) for n in names), default=0)
    size = CELL * len(names)
    width, height = int(max(left + size + 24, 360)), 120 + size + int(left)
    top, parts = 70, [_frame(width, height)]
    parts.append(
        f'<text x="16" y="22" font-size="15" font-weight="bold">{escape(title)}</text>\n'
        f'<text x="16" y="40" fill="#555">rows: what it is; columns: what it was taken for</text>'
    )
    for i, (name, row) in enumerate(zip(names, found, strict=True)):
        y, total = top + i * CELL, max(sum(int(c) for c in row), 1)
        parts.append(
            f'<text x="{left - 8:.0f}" y="{y + 19}" text-anchor="end">{escape(name)}</text>'
        )
        for j, c in enumerate(row):
            share, x = int(c) / total, left + j * CELL
            colour = "#4e79a7" if i == j else "#e15759"
            said = f"{name} taken for {names[j]}: {int(c):,} of {total:,}"
            parts.append(
                f'<rect x="{x:.0f}" y="{y}" width="{CELL}" height="{CELL}" fill="{colour}" '
                f'fill-opacity="{share:.3f}" {FRAME}><title>{escape(said)}</title></rect>'
            )
            if c:
                place = f'x="{x + CELL / 2:.0f}" y="{y + 19}" text-anchor="middle"'
                parts.append(f"<text {place}>{int(c)}</text>")
    for j, name in enumerate(names):
        x, y = left + j * CELL + CELL / 2 + 4, top + size + 8
        parts.append(f'<text transform="translate({x:.0f} {y}) rotate(60)">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>"])
