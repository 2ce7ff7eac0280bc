"""Writes what a run found: results.md, its plots, and the excerpts in README.md and bench/README.md. Owns the places, not the text."""

from __future__ import annotations

import statistics
from pathlib import Path

from bench import plots
from bench.plan import DBOS, NORMAL, OURS, REFERENCE, Case
from bench.record import Record
from bench.table import excerpt, report

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MARKS = {ROOT / "README.md": ("<!-- bench -->", "<!-- end of bench -->"), HERE / "README.md": ("<!-- table -->", "<!-- end of table -->")}
SIDES = (OURS, NORMAL, REFERENCE, DBOS)


def draw(record: Record, cases: list[Case]) -> dict[str, str]:
    """File name -> SVG, of the plots that the record has figures for."""
    found: dict[str, str] = {}
    rates = []
    for case in cases:
        figure = case.figures[0]
        if case.table == "sqlite" and figure.more and figure.unit.endswith("/s"):
            sides = {side: statistics.median(v) for side in SIDES if (v := record.values(case.name, side, figure.key))}
            ceilings = record.ceilings("ceiling")
            if figure.ceiling and ceilings:
                sides["ceiling"] = figure.ceiling(ceilings)
            if OURS in sides and len(sides) > 1:
                rates.append((f"{figure.title}, {figure.unit}".replace("queued instances of ", ""), sides))
    if rates:
        found["rates.svg"] = plots.bars("How much per second", rates, "per second")
    times = []
    for case in cases:
        figure = case.figures[0]
        if case.table == "sqlite" and not figure.more and figure.unit == "ms":
            sides = {side: statistics.median(v) for side in SIDES if (v := record.values(case.name, side, figure.key))}
            if OURS in sides and len(sides) > 1:
                times.append((figure.title, sides))
    if times:
        found["times.svg"] = plots.bars("How long", times, "ms")
    for name in ("chain_1000", "chain_10000"):
        series = {side: [(x, y) for x, y in run["figures"]["along"]] for side in SIDES for run in record.entries(name, side)[:1] if run["figures"]}
        if series:
            found[f"{name}.svg"] = plots.lines("A step along a chain", series, "steps behind it", "ms a step")
    return found


def write(record: Record, cases: list[Case]) -> list[Path]:
    """All of it; returns what was written."""
    drawn = draw(record, cases)
    record.about["plots"] = list(drawn)
    directory = HERE / "plots"
    directory.mkdir(exist_ok=True)
    for old in directory.glob("*.svg"):
        old.unlink()
    for name, svg in drawn.items():
        (directory / name).write_text(svg, encoding="utf-8")
    (HERE / "results.md").write_text(report(record, cases), encoding="utf-8")
    text = excerpt(record, cases)
    for page, marks in MARKS.items():
        replace(page, marks, text)
    return [HERE / "results.md", *MARKS, *(directory / name for name in drawn)]


def replace(page: Path, marks: tuple[str, str], text: str) -> None:
    """What stands between the two marks of a page; the second is made where only the first is there."""
    head, _, rest = page.read_text(encoding="utf-8").partition(marks[0])
    _, ended, tail = rest.partition(marks[1])
    page.write_text(f"{head}{marks[0]}\n{text}\n{marks[1]}{tail if ended else rest}", encoding="utf-8")
