"""One pass over a store: its tables side by side, an instance at a time.

Owns the merge, and what stays in memory: the rows of one instance but for its events and messages, which stream by.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

Row = tuple[Any, ...]


class Look(Protocol):
    """One consistent snapshot of a store, read only (`sqlite_inspect`, `postgres_inspect`); statements are those of `doctor_sql`."""

    facts: dict[str, Any]
    owners: frozenset[str] | None

    def stream(self, name: str) -> Iterator[Row]: ...
    def whereabouts(self, ids: Sequence[str]) -> Iterator[Row]: ...
    def damage(self) -> Iterator[tuple[str, str, str]]: ...


class Feed:
    """The rows of one table in the order of their instances; a row begins with its instance."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = iter(rows)
        self._next = next(self._rows, None)

    @property
    def at(self) -> str | None:
        return None if self._next is None else str(self._next[0])

    def of(self, instance: str) -> Iterator[Row]:
        """Those of that instance, which must be asked for in order."""
        while self._next is not None and self._next[0] == instance:
            row = self._next
            self._next = next(self._rows, None)
            yield row[1:]


class Case:
    """Everything that is stored of one instance id; `instance` is None where there are only other rows."""

    def __init__(self, id: str, feeds: dict[str, Feed], unaddressed: list[Row]) -> None:
        self.id = id
        self.instance: Row | None = next(feeds["instances"].of(id), None)
        self.executions: list[Row] = list(feeds["executions"].of(id))
        self.leases: list[Row] = list(feeds["leases"].of(id))
        self.values: dict[str, Any] = dict(feeds["values"].of(id))
        self.changes: dict[str, Any] = dict(feeds["changes"].of(id))
        self.work: list[Row] = [*feeds["work"].of(id), *unaddressed]
        self.messages: Iterator[Row] = feeds["messages"].of(id)
        self.events: Iterator[Row] = feeds["events"].of(id)

    @property
    def current(self) -> Any:
        return self.instance[1] if self.instance is not None else None

    @property
    def status(self) -> Any:
        """Of the current execution, None if there is none."""
        return next((row[1] for row in self.executions if row[0] == self.current), None)


def order(id: str) -> bytes:
    return id.encode("utf-8", "surrogateescape")


def cases(look: Look, names: Iterable[str], unaddressed: dict[str, list[Row]]) -> Iterator[Case]:
    """By id, in the order of its bytes; `unaddressed`: work whose instance stands in its item only."""
    feeds = {name: Feed(look.stream(name)) for name in names}
    waiting = sorted(unaddressed, key=order, reverse=True)
    while True:
        heads = [feed.at for feed in feeds.values()] + waiting[-1:]
        ids = [head for head in heads if head is not None]
        if not ids:
            return
        id = min(ids, key=order)
        if waiting and waiting[-1] == id:
            waiting.pop()
        case = Case(id, feeds, unaddressed.get(id, []))
        yield case
        for _ in case.messages:  # what nobody looked at
            pass
        for _ in case.events:
            pass
