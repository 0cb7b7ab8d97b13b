"""Grouped bars as SVG, each group with a mark. Knows nothing of what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from tinytrain.bench.curves import COLOURS

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 720, 150, 60, 58, 30
BAR, GAP = 9, 9  # pixels: a bar's height, what is between two groups

Group = tuple[str, Mapping[str, float], float | None]


def bars(title: str, across: str, groups: Sequence[Group], line: float | None = None) -> str:
    """Groups (name, length by series, mark or None) from the top, lengths from zero; a vertical
    line through all of them at `line`. ValueError without a single bar."""
    series = list(dict.fromkeys(name for _, found, _ in groups for name in found))
    lengths = [n for _, found, mark in groups for n in (*found.values(), mark or 0)]
    if not series:
        raise ValueError("bars: no bar to draw")
    high, scale = len(series) * BAR + GAP, (WIDTH - LEFT - RIGHT) / max(lengths)
    height = TOP + len(groups) * high + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="10">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="18" font-size="14" font-weight="bold">{escape(title)}</text>',
        f'<text x="{WIDTH - RIGHT}" y="{height - 10}" text-anchor="end">{escape(across)}</text>',
    ]
    for k, name in enumerate(series):
        parts.append(
            f'<rect x="{16 + 170 * k}" y="28" width="10" height="10" fill="{COLOURS[k]}"/>'
            f'<text x="{30 + 170 * k}" y="37">{escape(name)}</text>'
        )
    for k, group in enumerate(groups):
        parts += _group(group, series, TOP + k * high, scale)
    if line is not None:
        x, end = LEFT + line * scale, height - BOTTOM
        parts.append(f'<path d="M{x:.1f} {TOP - 6}V{end}" stroke="#333" stroke-dasharray="2 3"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _group(group: Group, series: Sequence[str], top: float, scale: float) -> list[str]:
    name, found, mark = group
    middle = top + len(series) * BAR / 2 + 4
    parts = [f'<text x="{LEFT - 8}" y="{middle:.1f}" text-anchor="end">{escape(name)}</text>']
    for k, one in enumerate(series):
        if one in found:
            y, length = top + k * BAR, found[one] * scale
            parts.append(
                f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR - 1}" '
                f'fill="{COLOURS[k]}"/>'
                f'<text x="{LEFT + length + 4:.1f}" y="{y + BAR - 1}">{found[one]:.2f}</text>'
            )
    if mark is not None:
        x = LEFT + mark * scale
        parts.append(
            f'<path d="M{x:.1f} {top - 2}v{len(series) * BAR + 3}" stroke="#111" stroke-width="2"/>'
        )
    return parts
