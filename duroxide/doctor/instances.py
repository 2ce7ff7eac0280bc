"""One instance: its executions against their histories, and whether everything it waits for can still come.

Owns the rules that need more than one table. Children of others are looked up in bunches.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from duroxide.doctor.cases import Case, Look
from duroxide.doctor.findings import Finding
from duroxide.doctor.history import CUT, History
from duroxide.doctor.queues import Queues
from duroxide.events import SYSCALL, VERSIONS

STATUSES = ("Running", "Completed", "Failed", "ContinuedAsNew")
BUNCH = 500
Waiting = tuple[str, str, str]  # child, its parent, the row of the schedule


def full_id(parent: str, child: str) -> str:
    return f"{parent}::{child}" if child.startswith("sub::") else child


def _packed(pin: list[Any]) -> int:
    """As versions are compared; 0 where there is none."""
    if not all(isinstance(part, int) for part in pin):
        return 0
    return int(pin[0] * 1_000_000 + pin[1] * 1_000 + pin[2])


class Instances:
    def __init__(self, look: Look, now: int) -> None:
        self._look, self._now = look, now
        self._waiting: list[Waiting] = []

    def check(self, case: Case) -> Iterator[Finding]:
        queues = Queues(case, self._look.owners, self._now)
        yield from queues.messages()
        yield from queues.works()
        yield from queues.leases()
        if case.instance is None:
            yield from self._orphans(case, queues)
            return
        yield from self._executions(case)
        current = None
        for history in self._histories(case):
            if isinstance(history, Finding):
                yield history
            elif history.execution == case.current:
                current = history
        if current is not None:
            yield from self._present(case, current, queues)
        for row, (execution, activity) in queues.work.items():
            open = current is not None and execution == case.current and case.status == "Running" and activity in current.open
            if not open and (current is None or current.readable):
                yield Finding("work-orphan", case.id, "worker_queue", str(row), f"activity {activity} of execution {execution} is not open")
        if len(self._waiting) >= BUNCH:
            yield from self.children()

    def _orphans(self, case: Case, queues: Queues) -> Iterator[Finding]:
        """What there is of an id that has no instance."""
        for number, status, *_ in case.executions:
            yield Finding("execution-orphan", case.id, "executions", str(number), f"an execution that is {status!r:.{CUT}}")
        seen: set[Any] = set()
        for event in case.events:
            if event[0] not in seen and len(seen) < 100:
                seen.add(event[0])
                yield Finding("execution-orphan", case.id, "history", f"{event[0]}/{event[1]}", "events")
        for table, rows in (("kv_store", case.values), ("kv_delta", case.changes)):
            if rows:
                yield Finding("value-orphan", case.id, table, next(iter(rows)), f"{len(rows)} keys")
        for row, (_, activity) in queues.work.items():
            yield Finding("work-orphan", case.id, "worker_queue", str(row), f"activity {activity} of an instance that does not exist")

    # ── executions ───────────────────────────────────────────────────────────────────────────────────────────

    def _executions(self, case: Case) -> Iterator[Finding]:
        assert case.instance is not None
        numbers = [row[0] for row in case.executions]
        if not isinstance(case.current, int) or case.current not in numbers:
            yield Finding("execution-current", case.id, "instances", case.id, f"its current execution {case.current!r:.{CUT}} is none of {numbers[-20:]}")
        for number, status, _, *pin in case.executions:
            if not isinstance(number, int) or (isinstance(case.current, int) and number > case.current):
                yield Finding("execution-current", case.id, "executions", str(number), f"the current execution is {case.current!r:.{CUT}}")
            elif status not in STATUSES:
                yield Finding("execution-status", case.id, "executions", str(number), f"its status is {status!r:.{CUT}}")
            elif status in ("Running", "Completed", "Failed") and number != case.current:
                yield Finding("execution-status", case.id, "executions", str(number), f"it is {status}, and {case.current} is the current one")
            if status == "Running" and _packed(pin) > VERSIONS[1]:
                yield Finding("pin-newer", case.id, "executions", str(number), "pinned to " + ".".join(map(str, pin)))
        if case.instance[2] is not None and case.instance[4] is None:
            yield Finding("parent-missing", case.id, "instances", case.id, f"its parent '{case.instance[2]}' does not exist")

    def _histories(self, case: Case) -> Iterator[History | Finding]:
        """Each execution's history, when it is whole, and what is wrong on the way."""
        rows = {row[0]: row for row in case.executions}
        history: History | None = None
        for execution, id, type, text in case.events:
            if history is None or history.execution != execution:
                if history is not None:
                    yield from self._whole(history, rows)
                history = History(case.id, execution)
            yield from history.add(id, type, text)
        if history is not None:
            yield from self._whole(history, rows)
        for number in rows:
            yield from History(case.id, number).finish(None, None)

    @staticmethod
    def _whole(history: History, rows: dict[Any, Any]) -> Iterator[History | Finding]:
        row = rows.pop(history.execution, None)
        if row is None:
            yield history.wrong("execution-orphan", history.last, "events of an execution that has no row")
            return
        yield from history.finish(row[1], row[2])
        yield history

    # ── the current execution ────────────────────────────────────────────────────────────────────────────────

    def _present(self, case: Case, history: History, queues: Queues) -> Iterator[Finding]:
        assert case.instance is not None
        if history.started is not None and history.started["name"] != case.instance[0]:
            yield Finding("execution-name", case.id, "instances", case.id, f"named '{case.instance[0]}', its history began as '{history.started['name']}'")
        if not history.readable:
            return
        if history.status and history.status[0] != case.instance[3]:
            yield Finding("custom-status", case.id, "instances", case.id, f"it has {case.instance[3]!r:.{CUT}}, its history {history.status[0]!r:.{CUT}}")
        yield from self._values(case, history)
        if case.status == "ContinuedAsNew":
            if not queues.continues:
                yield history.wrong("successor-lost", history.last, "no ContinueAsNew is queued")
        elif case.status == "Running" and history.end is None:
            yield from self._wakes(case, history, queues)

    @staticmethod
    def _values(case: Case, history: History) -> Iterator[Finding]:
        """What the events of this execution set is what stands there; what they did not touch is of earlier ones."""
        ended = history.end is not None
        stored, table = (case.values, "kv_store") if ended else (case.changes, "kv_delta")
        if ended and case.changes:
            yield Finding("value-change", case.id, "kv_delta", next(iter(case.changes)), "changes of an execution that has ended")
        for key, value in history.sets.items():
            gone = value is None and ended  # a tombstone stands until the end
            if key in stored if gone else key not in stored or stored[key] != value:
                yield Finding("value-change", case.id, table, key, f"the code set {value!r:.{CUT}}, stored is {stored.get(key)!r:.{CUT}}")
        if not ended:
            for key in case.changes.keys() - history.sets.keys():
                if not (history.cleared and case.changes[key] is None):
                    yield Finding("value-change", case.id, table, key, "no event of the current execution set it")

    def _wakes(self, case: Case, history: History, queues: Queues) -> Iterator[Finding]:
        """Everything that is open has somebody who will answer."""
        hopes = 0
        for id, (kind, event) in history.open.items():
            hopes += 1
            if (kind, case.current, id) in queues.answers:
                continue
            row = f"{case.current}/{id}"
            if kind == "SubOrchestrationScheduled":
                self._waiting.append((full_id(case.id, event["instance"]), case.id, row))
            elif kind == "ActivityScheduled":
                if not event["name"].startswith(SYSCALL) or not queues.count:
                    yield Finding("activity-lost", case.id, "history", row, f"activity '{event['name']}'")
            else:
                yield Finding("timer-lost", case.id, "history", row, f"a timer for {event['fire_at_ms']}")
        if not hopes and not history.waits and not queues.count:
            yield Finding("nothing-wakes", case.id, "history", f"{case.current}/{history.last}", "nothing is open")

    def children(self) -> Iterator[Finding]:
        """Of those that were found waiting for a child without an answer: is the child there, or about to be?"""
        waiting, self._waiting = self._waiting, []
        found = {row[0]: row[1:] for row in self._look.whereabouts([child for child, _, _ in waiting])} if waiting else {}
        for child, parent, row in waiting:
            its_parent, status, starting = found.get(child, (None, None, None))
            if starting is None and not (its_parent == parent and status in ("Running", "ContinuedAsNew")):
                is_it = "does not exist" if status is None else f"is {status}" if its_parent == parent else "is somebody else's"
                yield Finding("child-lost", parent, "history", row, f"child '{child}' {is_it}")
