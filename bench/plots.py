"""Plots as SVG, written by hand: bars on a logarithmic scale, and lines. Owns the drawing; what is drawn is given."""

from __future__ import annotations

import math
from html import escape

COLOURS = {"ours": "#1f6feb", "ours, normal": "#79b8ff", "reference": "#d29922", "dbos": "#8b949e", "ceiling": "#2da44e"}
FONT = "font-family='system-ui, sans-serif' font-size='12' fill='#57606a'"
WIDTH = 760

Series = dict[str, list[tuple[float, float]]]


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' {FONT}>{escape(text)}</text>"


def _svg(height: float, title: str, parts: list[str]) -> str:
    head = f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{height:.0f}' viewBox='0 0 {WIDTH} {height:.0f}' role='img'>"
    return "\n".join([head, f"<title>{escape(title)}</title>", "<rect width='100%' height='100%' fill='#ffffff'/>", _text(12, 22, title), *parts, "</svg>", ""])


def _legend(names: list[str], y: float) -> list[str]:
    parts, x = [], 12.0
    for name in names:
        parts += [f"<rect x='{x:.1f}' y='{y - 9:.1f}' width='10' height='10' fill='{COLOURS[name]}'/>", _text(x + 14, y, name)]
        x += 30 + 7 * len(name)
    return parts


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def bars(title: str, rows: list[tuple[str, dict[str, float]]], unit: str) -> str:
    """A group of bars a row, all on one logarithmic scale."""
    values = [value for _, sides in rows for value in sides.values() if value > 0]
    low, high = 10 ** math.floor(math.log10(min(values))), 10 ** math.ceil(math.log10(max(values) * 1.01))
    left, right, y, parts = 250.0, WIDTH - 70.0, 62.0, []

    def place(value: float) -> float:
        return left + (right - left) * (math.log10(value / low) / math.log10(high / low))

    names = [name for name in COLOURS if any(name in sides for _, sides in rows)]
    parts += _legend(names, 44)
    top = y
    for label, sides in rows:
        parts.append(_text(left - 8, y + 6 * len(sides) + 4, label, "end"))
        for name in names:
            if sides.get(name, 0) > 0:
                x = place(sides[name])
                parts.append(f"<rect x='{left}' y='{y:.1f}' width='{max(x - left, 1):.1f}' height='10' fill='{COLOURS[name]}'/>")
                parts.append(_text(x + 4, y + 9, number(sides[name])))
                y += 12
        y += 10
    for power in range(round(math.log10(low)), round(math.log10(high)) + 1):
        x = place(10.0**power)
        parts.insert(0, f"<line x1='{x:.1f}' y1='{top - 6}' x2='{x:.1f}' y2='{y:.1f}' stroke='#d0d7de'/>")
        parts.append(_text(x, y + 14, f"{10**power:,}" if power >= 0 else f"{10.0**power:g}", "middle"))
    return _svg(y + 26, f"{title} ({unit}, logarithmic)", parts)


def lines(title: str, series: Series, across: str, unit: str) -> str:
    """One line a side; the scale of y is logarithmic where sides differ much."""
    points = [point for line in series.values() for point in line]
    most_x, most, least = max(x for x, _ in points), max(y for _, y in points), min(y for _, y in points if y > 0)
    log = most / least > 20
    left, right, top, bottom = 60.0, WIDTH - 20.0, 60.0, 300.0
    low, high = (math.log10(least) - 0.1, math.log10(most) + 0.1) if log else (0.0, most * 1.1)

    def place(x: float, y: float) -> tuple[float, float]:
        height = ((math.log10(max(y, least)) if log else y) - low) / (high - low)
        return left + (right - left) * x / most_x, bottom - (bottom - top) * height

    parts = _legend(list(series), 44)
    for n in range(5):
        value = low + (high - low) * n / 4
        _, y = place(0, 10**value if log else value)
        parts += [f"<line x1='{left}' y1='{y:.1f}' x2='{right}' y2='{y:.1f}' stroke='#d0d7de'/>", _text(left - 6, y + 4, number(10**value if log else value), "end")]
        parts.append(_text(left + (right - left) * n / 4, bottom + 16, number(most_x * n / 4), "middle"))
    for name, line in series.items():
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line))
        parts.append(f"<polyline points='{path}' fill='none' stroke='{COLOURS[name]}' stroke-width='2'/>")
    parts.append(_text((left + right) / 2, bottom + 34, across, "middle"))
    return _svg(bottom + 46, f"{title} ({unit}{', logarithmic' if log else ''})", parts)
