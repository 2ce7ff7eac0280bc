"""The doctor in tests: on a file, on a schema, and on the model, whose dicts it sees as tables.

Owns `healthy`, which any test may call after any step. No rules of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from duroxide import doctor
from duroxide.doctor.cases import order
from duroxide.inspection import looking
from duroxide.runtime import clock
from duroxide.storage import doctor_sql
from duroxide.storage.memory import MemoryStore
from duroxide.storage.sqlite import SqliteNative
from duroxide.storage.sqlite_inspect import SqliteLook


class MemoryLook:
    """The rows of `doctor_sql` from a `MemoryStore`."""

    owners = None

    def __init__(self, store: MemoryStore) -> None:
        self.facts: dict[str, Any] = {"where": "memory"}
        self._state = store._state
        self._tables: dict[str, Callable[[], list[tuple[Any, ...]]]] = {
            "instances": self._instances, "executions": self._executions, "events": self._events, "messages": self._messages,
            "work": self._work, "leases": self._leases, "values": self._values, "changes": self._changes,
            doctor_sql.UNADDRESSED: list, doctor_sql.SESSIONS: lambda: [(name, *rest) for name, rest in self._state.sessions.items()],
        }  # fmt: skip

    def stream(self, name: str) -> Iterator[tuple[Any, ...]]:
        rows = self._tables[name]()
        return iter(rows if name not in doctor_sql.STREAMS else sorted(rows, key=lambda row: order(row[0])))

    def damage(self) -> Iterator[tuple[str, str, str]]:
        return iter(())

    def whereabouts(self, ids: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        for id in ids:
            found = self._state.instances.get(id)
            starts = [m for m in self._state.messages.values() if m.instance == id and next(iter(json.loads(m.item))) in ("StartOrchestration", "ContinueAsNew")]
            status = found.executions[found.current].status if found is not None else None
            yield id, found.parent if found is not None else None, status, 1 if starts else None

    def _instances(self) -> list[tuple[Any, ...]]:
        known = self._state.instances
        return [(id, i.name, i.current, i.parent, i.custom_status, i.parent in known or None) for id, i in known.items()]

    def _executions(self) -> list[tuple[Any, ...]]:
        return [
            (id, number, e.status, e.output, *(e.pin or (None, None, None)))
            for id, i in self._state.instances.items()
            for number, e in sorted(i.executions.items())
        ]

    def _events(self) -> list[tuple[Any, ...]]:
        return [
            (id, number, event, type, text)
            for id, i in self._state.instances.items()
            for number, e in sorted(i.executions.items())
            for event, (type, text) in sorted(e.events.items())
        ]

    def _messages(self) -> list[tuple[Any, ...]]:
        return [(m.instance, row, m.item, m.visible_at, m.token, None, m.attempts) for row, m in sorted(self._state.messages.items())]

    def _work(self) -> list[tuple[Any, ...]]:
        sessions = self._state.sessions
        return [
            (w.key[0], row, w.item, w.visible_at, w.token, w.until, w.attempts, *w.key[1:], w.session, w.tag, w.session in sessions or None)
            for row, w in sorted(self._state.work.items())
        ]

    def _leases(self) -> list[tuple[Any, ...]]:
        return [(id, *lease) for id, lease in self._state.leases.items()]

    def _values(self) -> list[tuple[Any, ...]]:
        return [(id, key, value) for id, i in self._state.instances.items() for key, (value, _) in sorted(i.kv.items())]

    def _changes(self) -> list[tuple[Any, ...]]:
        return [(id, key, value) for id, i in self._state.instances.items() for key, (value, _) in sorted(i.kv_delta.items())]


def findings(where: Any, schema: str | None = None, now: int | None = None) -> list[doctor.Finding]:
    """All of them; `where` is a path, a URL (with its schema), a `MemoryStore`, or a SQLite store of this process."""
    now = clock.now() if now is None else now
    if isinstance(where, MemoryStore):
        with where._lock:
            return list(doctor.examine(MemoryLook(where), now))
    if isinstance(where, SqliteNative):
        with where.writing() as connection:
            return list(doctor.examine(SqliteLook(connection, "memory", now), now))
    with looking(str(where), schema, now) as look:
        return list(doctor.examine(look, now))


def healthy(where: Any, schema: str | None = None, now: int | None = None, wrong: type[AssertionError] = AssertionError) -> None:
    """Raises `wrong` with every damage; notices are no damage."""
    found = [each.text() for each in findings(where, schema, now) if each.level == doctor.DAMAGE]
    if found:
        raise wrong("\n".join(found))
