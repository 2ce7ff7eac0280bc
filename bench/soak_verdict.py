"""What a soak's samples mean: the limits that make a run "flat", a summary in words, a chart as SVG.

    python bench/soak_verdict.py soak.csv docs/soak.svg      judge and draw a run again

Owns the limits and the drawing. Refuses to know how samples are taken.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from statistics import median

Sample = dict[str, float]

WAL_MB = 64.0  # a checkpoint is due at 4,000 pages (16 MB); readers may keep one from finishing
PANELS = (
    ("rss_mb", "resident memory, MB"), ("objects", "Python objects"), ("threads", "threads"), ("files", "open files"),
    ("wal_mb", "write-ahead log, MB"), ("database_mb", "database file, MB"), ("per_s", "stories a second"), ("p99_ms", "p99 of a story, ms"),
)  # fmt: skip


def settled(samples: list[Sample]) -> tuple[list[Sample], list[Sample]]:
    """The second quarter and the last one: the first quarter is warming up."""
    quarter = len(samples) // 4
    return samples[quarter : 2 * quarter], samples[-quarter:]


def judge(samples: list[Sample]) -> list[str]:
    """What is not flat, in words; nothing is asked of memory when there are fewer than forty samples."""
    faults = []
    if samples[-1]["wrong"]:
        faults.append(f"{samples[-1]['wrong']:.0f} stories ended wrongly")
    largest = max(s["wal_mb"] for s in samples)
    if largest > WAL_MB:
        faults.append(f"the write-ahead log grew to {largest} MB, expected at most {WAL_MB}")
    if len(samples) < 40:
        return faults
    before, after = settled(samples)
    for name, slack, factor in (("rss_mb", 4.0, 1.05), ("objects", 5_000, 1.05), ("threads", 1, 1.0), ("files", 2, 1.0)):
        was, now = median(s[name] for s in before), median(s[name] for s in after)
        if now > was * factor + slack:
            faults.append(f"{name}: {was:g} in the second quarter, {now:g} in the last")
    return faults


def summary(samples: list[Sample]) -> str:
    last = samples[-1]
    head = (
        f"{last['minute']:g} minutes, {last['ended']:.0f} stories, {last['wrong']:.0f} wrong; {last['deleted']:.0f} instances deleted,"
        f" {last['killed']:.0f} kills, {last['restarted']:.0f} restarts of the runtime"
    )
    lines = [head]
    for part, of in zip(("second quarter", "last quarter"), settled(samples), strict=True):
        if of:
            lines.append(
                f"{part}: " + ", ".join(f"{name} {median(s[name] for s in of):g} (at most {max(s[name] for s in of):g})" for name, _ in PANELS)
            )
    return "\n".join(lines)


# ── the chart: small multiples, one scale of time ──

WIDTH, HEIGHT, LEFT, TOP = 330, 150, 46, 34


def chart(samples: list[Sample]) -> str:
    rows = (len(PANELS) + 1) // 2
    size = f'width="{2 * WIDTH}" height="{rows * HEIGHT + 10}" viewBox="0 0 {2 * WIDTH} {rows * HEIGHT + 10}"'
    panels = [panel(samples, name, title, n % 2 * WIDTH, n // 2 * HEIGHT) for n, (name, title) in enumerate(PANELS)]
    style = "text{font:11px sans-serif;fill:#444}.t{font-weight:bold}.g{stroke:#ddd}.l{fill:none;stroke:#1664a8;stroke-width:1.3}"
    background = '<rect width="100%" height="100%" fill="#fff"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{label(samples)}">'
    return "\n".join([head, f"<style>{style}</style>", background, *panels, "</svg>", ""])


def label(samples: list[Sample]) -> str:
    return f"{samples[-1]['minute']:g} minutes of mixed load: " + ", ".join(title for _, title in PANELS)


def panel(samples: list[Sample], name: str, title: str, x: int, y: int) -> str:
    """A line from zero: a scale that begins elsewhere makes mountains of noise."""
    values, minutes = [s[name] for s in samples], [s["minute"] for s in samples]
    top, end = max(*values, 1e-9) * 1.15, max(*minutes, 1e-9)
    wide, high = WIDTH - LEFT - 14, HEIGHT - TOP - 26
    points = " ".join(
        f"{x + LEFT + wide * minute / end:.1f},{y + TOP + high * (1 - value / top):.1f}" for minute, value in zip(minutes, values, strict=True)
    )
    parts = [f'<text class="t" x="{x + LEFT}" y="{y + 22}">{title}</text>', f'<polyline class="l" points="{points}"/>']
    for share in (0, 0.5, 1):
        level = y + TOP + high * (1 - share / 1.15)
        parts.insert(0, f'<line class="g" x1="{x + LEFT}" x2="{x + LEFT + wide}" y1="{level:.1f}" y2="{level:.1f}"/>')
        parts.append(f'<text x="{x + LEFT - 5}" y="{level + 4:.1f}" text-anchor="end">{short(top / 1.15 * share)}</text>')
        parts.append(f'<text x="{x + LEFT + wide * share:.1f}" y="{y + HEIGHT - 10}" text-anchor="middle">{end * share:.0f} min</text>')
    return "\n".join(parts)


def short(value: float) -> str:
    return f"{value / 1_000:.0f}k" if value >= 10_000 else f"{value:.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


if __name__ == "__main__":
    with open(sys.argv[1], newline="", encoding="utf-8") as file:
        read = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(chart(read), encoding="utf-8")
    print("\n".join([summary(read), *judge(read)]))
