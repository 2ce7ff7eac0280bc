"""The tables of results.md from a record: medians, ranges, ratios, percent of the ceiling, and what was durable when.

Owns the text and nothing else: the same record gives the same text.
"""

from __future__ import annotations

import statistics

from bench.plan import DBOS, FSYNC, NORMAL, OURS, REFERENCE, Case, Figure
from bench.record import Record

NONE = "–"


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spread(values: list[float], unit: str = "") -> str:
    """"12 ms [11 to 14]"; one round has no range."""
    if not values:
        return NONE
    middle = f"{number(statistics.median(values))}{unit}"
    return middle if len(values) < 2 else f"{middle} [{number(min(values))} to {number(max(values))}]"


def cell(record: Record, case: Case, figure: Figure, side: str) -> str:
    text = spread(record.values(case.name, side, figure.key), f" {figure.unit}")
    errors = record.errors(case.name, side)
    if errors:
        rounds = len(record.entries(case.name, side))
        text += f" ({len(errors)} of {rounds} rounds failed: {errors[0]})".replace("|", "/")
    size, usual = record.size(case.name, side), record.size(case.name, OURS)
    return text if size == usual or text == NONE else f"{text} (n = {size:,})"


def ratio(record: Record, case: Case, figure: Figure, side: str, other: str) -> str:
    values = record.ratios(case, figure, side, other)
    return f"**{spread(values, 'x')}**" if values else NONE


def share(record: Record, case: Case, figure: Figure, side: str, ceilings: dict[str, float]) -> str:
    """How much of what the machine allows was reached: its rate, or the time that its commits take."""
    values = record.values(case.name, side, figure.key)
    if figure.ceiling is None or not values or not ceilings:
        return NONE
    best, found = figure.ceiling(ceilings), statistics.median(values)
    return f"{(found / best if figure.more else best / found) * 100:.0f} %"


def title(record: Record, case: Case, figure: Figure) -> str:
    size = record.size(case.name, OURS)
    return f"{figure.title} (n = {size:,})" if size and case.table != "footprint" and f"{size:,}" not in figure.title else figure.title


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows), ""]


def measured(record: Record, cases: list[Case], which: str, side: str = OURS) -> list[tuple[Case, Figure]]:
    return [(case, figure) for case in cases if case.table == which and record.entries(case.name, side) for figure in case.figures]


def main_table(record: Record, cases: list[Case], which: str, ceilings: dict[str, float], fsync: dict[str, str]) -> list[str]:
    head = ("workload", "ours", "reference", "ours to reference", "DBOS", "ours to DBOS", "of the ceiling", "fsync before it is told: ours / reference / DBOS")
    rows = []
    for case, figure in measured(record, cases, which):
        rows.append((
            title(record, case, figure), cell(record, case, figure, OURS), cell(record, case, figure, REFERENCE),
            ratio(record, case, figure, OURS, REFERENCE), cell(record, case, figure, DBOS), ratio(record, case, figure, OURS, DBOS),
            share(record, case, figure, OURS, ceilings),
            " / ".join(fsync[side] if record.entries(case.name, side) else NONE for side in (OURS, REFERENCE, DBOS)),
        ))  # fmt: skip
    return table(head, rows)


def normal_table(record: Record, cases: list[Case]) -> list[str]:
    ceilings = record.ceilings("ceiling normal")
    head = ("workload", "ours, synchronous=normal", "reference", "ours to reference", "of the ceiling")
    rows = [
        (title(record, case, figure), cell(record, case, figure, NORMAL), cell(record, case, figure, REFERENCE),
         ratio(record, case, figure, NORMAL, REFERENCE), share(record, case, figure, NORMAL, ceilings))
        for case, figure in measured(record, cases, "sqlite", NORMAL)
    ]  # fmt: skip
    return table(head, rows)


def footprint_table(record: Record, cases: list[Case]) -> list[str]:
    head = ("what", "ours", "reference", "DBOS")
    rows = [
        (figure.title, *(cell(record, case, figure, side) for side in (OURS, REFERENCE, DBOS)))
        for case, figure in measured(record, cases, "footprint")
    ]
    return table(head, rows)


def ceiling_table(record: Record) -> list[str]:
    names = [("ceiling", "SQLite, FULL"), ("ceiling normal", "SQLite, NORMAL"), ("pg_ceiling", "PostgreSQL")]
    found = [(text, record.ceilings(name)) for name, text in names if record.ceilings(name)]
    if not found:
        return []
    groups = sorted({int(key.split("@")[1]) for _, ceilings in found for key in ceilings})
    rows = [
        (f"{text}: {what}", *(number(ceilings[at]) if (at := f"{key}@{group}") in ceilings else NONE for group in groups))
        for text, ceilings in found
        for key, what in (("step", "a step's rows"), ("start", "a start's row"), ("pgbench", "pgbench, one row a commit; by as many clients"))
        if any(at.startswith(key) for at in ceilings)
    ]
    return table(("bare loop, operations per second", *(f"{group} a commit" for group in groups)), rows)


PAGES = (
    "Median [range] of the rounds; every side of a round ran in turns, each measurement a process of its own on a new database. A ratio says "
    "how many times better ours is, round by round. Where a side was given less to do, its n is in its cell. A round that did not end is "
    "counted and no figure is made up for it.\n"
)


def report(record: Record, cases: list[Case]) -> str:
    """results.md."""
    about = record.about
    sqlite = main_table(record, cases, "sqlite", record.ceilings("ceiling"), FSYNC)
    lines = ["# Results", "", f"Written by `python -m bench`. {about.get('machine', '')}", "", PAGES]
    if len(sqlite) > 3:
        lines += ["## SQLite", "", about.get("sqlite", ""), "", *sqlite, *plots(about)]
    normal = normal_table(record, cases)
    if len(normal) > 3:
        lines += ["## SQLite, durability like for like", "", "A crash of the process loses nothing on either side; a power cut may.", "", *normal]
    pg = main_table(record, cases, "postgres", record.ceilings("pg_ceiling"), dict.fromkeys(FSYNC, "yes"))
    if len(pg) > 3:
        lines += ["## PostgreSQL", "", about.get("postgres", ""), "", *pg]
    foot = footprint_table(record, cases)
    if len(foot) > 3:
        lines += ["## Footprint", "", *foot]
    ceilings = ceiling_table(record)
    if ceilings:
        lines += ["## The machine's own ceiling", "", "The rows of one operation written and committed by a bare loop (`bench/ceiling.py`).", "", *ceilings]
    return "\n".join(lines).rstrip() + "\n"


def plots(about: dict[str, object]) -> list[str]:
    names = about.get("plots") or []
    return [f"![{name.removesuffix('.svg')}](plots/{name})\n" for name in names]  # type: ignore[attr-defined]


# ── excerpts ─────────────────────────────────────────────────────────────────────────────────────────────────

SHOWN = ("drain", "drain_ten", "instance", "chain_1000", "all_2000", "message", "starts_32", "replay_100000")


def excerpt(record: Record, cases: list[Case]) -> str:
    """The few rows that README shows, cell by cell as results.md has them."""
    head = ("workload", "ours", "reference", "ours to reference", "DBOS", "of the ceiling")
    ceilings = record.ceilings("ceiling")
    rows = []
    for case in cases:
        if case.name in SHOWN and record.values(case.name, OURS, case.figures[0].key):
            figure = case.figures[0]
            rows.append((
                title(record, case, figure), cell(record, case, figure, OURS), cell(record, case, figure, REFERENCE),
                ratio(record, case, figure, OURS, REFERENCE), cell(record, case, figure, DBOS), share(record, case, figure, OURS, ceilings),
            ))  # fmt: skip
    return "\n".join(table(head, rows)).rstrip()
