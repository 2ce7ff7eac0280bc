"""`python -m duroxide doctor PATH-or-URL`: is what stands in a store what must stand there? Reads one snapshot, changes nothing.

Owns the order of the checks and the report. What is checked stands in `queues` (rows), `history` (events) and `instances` (one
against the other); what each finding means in `findings`; which statements ask, in `storage.doctor_sql`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from duroxide.doctor.cases import Look, Row, cases
from duroxide.doctor.findings import DAMAGE, RULES, Finding
from duroxide.doctor.instances import Instances
from duroxide.doctor.queues import CUT, DAY_MS, read
from duroxide.inspection import looking
from duroxide.runtime import clock
from duroxide.storage import doctor_sql

__all__ = ["DAMAGE", "RULES", "Finding", "examine", "run"]


def run(where: str, schema: str | None, as_json: bool) -> int:
    """Print what is found. 0: healthy (perhaps with notices), 1: damage; ProviderError where the store cannot be read."""
    levels: Counter[str] = Counter()
    now = clock.now()
    with looking(where, schema, now) as look:
        if as_json:
            found = list(examine(look, now))
            levels.update(each.level for each in found)
            print(json.dumps({"store": look.facts, "findings": [each.as_dict() for each in found]}, indent=2, ensure_ascii=True))
        else:
            for each in examine(look, now):
                levels[each.level] += 1
                print(_printable(each.text()))
            print(f"{look.facts['where']}: {_counted(levels)}")
    return 1 if levels[DAMAGE] else 0


def examine(look: Look, now: int) -> Iterator[Finding]:
    """Every finding, as it is found; `now` is a Unix time in ms. One pass over the store, an instance at a time."""
    for table, key, said in look.damage():
        yield Finding("file-damaged" if not table else "row-type", "", table, key, said)
    unaddressed: dict[str, list[Row]] = {}
    for row in look.stream(doctor_sql.UNADDRESSED):
        item = read(row[2])
        if isinstance(item, str):
            yield Finding("work-unreadable", "", "worker_queue", str(row[1]), item)
        else:
            unaddressed.setdefault(item[1].get("instance", ""), []).append(row[1:])
    instances = Instances(look, now)
    tokens: dict[str, str] = {}
    for case in cases(look, doctor_sql.STREAMS, unaddressed):
        yield from _tokens(case.id, [(f"instance_locks {case.id}", token) for token, _ in case.leases], tokens)
        yield from _tokens(case.id, [(f"worker_queue {row[0]}", row[3]) for row in case.work if row[3] is not None], tokens)
        yield from instances.check(case)
    yield from instances.children()
    yield from _sessions(look, now)


def _tokens(instance: str, held: list[tuple[str, Any]], tokens: dict[str, str]) -> Iterator[Finding]:
    """No token twice. Those of all leases are kept: as many as there is work in flight."""
    for where, token in held:
        table, _, row = where.partition(" ")
        if token in tokens:
            yield Finding("lease-double", instance, table, row, f"{token} is also that of {tokens[token]}")
        tokens[token] = where


def _sessions(look: Look, now: int) -> Iterator[Finding]:
    for session, worker, until, active in look.stream(doctor_sql.SESSIONS):
        if not (isinstance(session, str) and isinstance(worker, str) and isinstance(until, int) and isinstance(active, int)):
            yield Finding("row-type", "", "sessions", str(session), f"{(session, worker, until, active)!r:.{CUT}}")
        elif until > now + DAY_MS:
            yield Finding("lease-far", "", "sessions", session, f"held by {worker} for {(until - now) // 3_600_000} hours more")


def _counted(levels: Counter[str]) -> str:
    if not levels:
        return "healthy: nothing found"
    return ", ".join(f"{count} {level}{'s' if level != DAMAGE and count > 1 else ''}" for level, count in sorted(levels.items()))


def _printable(text: str) -> str:
    """Ids and texts as they are, but for what a terminal could take for a command or cannot encode."""
    return "".join(each if each in "\n" or each.isprintable() else ascii(each)[1:-1] for each in text)
