"""A line chart as SVG: several curves over one axis. Knows nothing of what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 46, 46
COLOURS = ("#4e79a7", "#e15759", "#59a14f", "#b07aa1", "#9c755f", "#f28e2b")
DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 2", "10 4")  # so that grey print tells them apart

Curve = Sequence[tuple[float, float]]


def chart(title: str, across: str, up: str, curves: Mapping[str, Curve]) -> str:
    """The curves, (x, y) points by name, with both axes from the least to the largest value.

    ValueError without a single point.
    """
    points = [p for curve in curves.values() for p in curve]
    if not points:
        raise ValueError("chart: no point to draw")
    xs, ys = _span([x for x, _ in points]), _span([y for _, y in points])
    floor, end = HEIGHT - BOTTOM, WIDTH - RIGHT

    def at(x: float, y: float) -> str:
        px = LEFT + (x - xs[0]) / (xs[1] - xs[0]) * (end - LEFT)
        return f"{px:.1f},{floor - (y - ys[0]) / (ys[1] - ys[0]) * (floor - TOP):.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="18" font-size="14" font-weight="bold">{escape(title)}</text>',
        f'<path d="M{LEFT} {TOP}V{floor}H{end}" fill="none" stroke="#333"/>',
        f'<text x="{end}" y="{HEIGHT - 8}" text-anchor="end">{escape(across)}</text>',
        f'<text x="8" y="{TOP - 10}">{escape(up)}</text>',
    ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        x, y = xs[0] + share * (xs[1] - xs[0]), ys[0] + share * (ys[1] - ys[0])
        px, py = at(x, ys[0]).split(",")[0], at(xs[0], y).split(",")[1]
        parts.append(f'<text x="{px}" y="{floor + 16}" text-anchor="middle">{x:g}</text>')
        parts.append(f'<text x="{LEFT - 6}" y="{py}" text-anchor="end">{y:.3g}</text>')
    for k, (name, curve) in enumerate(curves.items()):
        colour, dash = COLOURS[k % len(COLOURS)], DASHES[k % len(DASHES)]
        line = " ".join(at(x, y) for x, y in curve)
        style = f'stroke="{colour}" stroke-width="1.6" stroke-dasharray="{dash}"'
        parts.append(f'<polyline points="{line}" fill="none" {style}/>')
        parts.append(f'<path d="M{end - 190} {TOP + 16 * k + 4}h24" {style}/>')
        parts.append(f'<text x="{end - 160}" y="{TOP + 16 * k + 8}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Least and largest, apart."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low, low + 1)
