"""The rows of an instance's queues and leases: can they be read, are they its own, will somebody take them?

What a message and a work item must hold is in `events`. Messages stream by; what stays is whom they answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from duroxide.doctor.cases import Case, Row
from duroxide.doctor.findings import Finding
from duroxide.events import ITEM_SHAPES, misshapen
from duroxide.storage.base import PARKED

CUT = 120
DAY_MS = 86_400_000
ANSWERS = {"ActivityCompleted": "ActivityScheduled", "ActivityFailed": "ActivityScheduled", "TimerFired": "TimerCreated"}


def read(text: Any) -> tuple[str, dict[str, Any]] | str:
    """(kind, body) of a work item, or what is wrong with its text."""
    try:
        text.encode()
        [(kind, body)] = json.loads(text).items()
        shape = ITEM_SHAPES.get(kind)
        if shape is None:
            return f"no kind that this package knows: {kind!r:.{CUT}}"
        wrong = misshapen(body, shape)
        return (kind, body) if wrong is None else f"{kind}: {wrong}"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"no work item: {error.__class__.__name__}: {error}"


class Queues:
    """`answers`: {(execution, schedule id)} that a queued message or work item will close; `count`, `starts`, `continues`: messages."""

    def __init__(self, case: Case, owners: frozenset[str] | None, now: int) -> None:
        self._case, self._owners, self._now = case, owners, now
        self.answers: set[tuple[str, int, int]] = set()
        self.work: dict[int, tuple[int, int]] = {}  # row -> (execution, activity)
        self.count: int = 0
        self.starts: int = 0
        self.continues: bool = False

    def wrong(self, rule: str, table: str, row: Any, found: str) -> Finding:
        return Finding(rule, self._case.id, table, str(row), found)

    # ── messages ─────────────────────────────────────────────────────────────────────────────────────────────

    def messages(self) -> Iterator[Finding]:
        orphans: list[tuple[Any, str]] = []
        leased = self._case.leases[0][0] if self._case.leases else None
        for row, text, visible_at, token, _, attempts in self._case.messages:
            self.count += 1
            item = read(text)
            if isinstance(item, str):
                yield self.wrong("message-unreadable", "orchestrator_queue", row, item)
            else:
                yield from self._message(row, *item)
                if self._case.instance is None and len(orphans) < 100:
                    orphans.append((row, item[0]))
            if not isinstance(visible_at, int):
                yield self.wrong("message-never", "orchestrator_queue", row, f"its visible_at is {visible_at!r:.{CUT}}")
            elif visible_at >= PARKED and self._case.instance is not None:
                yield self.wrong("message-never", "orchestrator_queue", row, "it is parked until its instance is born, which it is")
            if not isinstance(attempts, int) or attempts < 0:
                yield self.wrong("row-type", "orchestrator_queue", row, f"its attempt_count is {attempts!r:.{CUT}}")
            if token is not None and not self._will_be_freed(str(token), leased):
                holder = "nobody has a lease on the instance" if leased is None else f"the instance is leased under {leased}"
                yield self.wrong("message-held", "orchestrator_queue", row, f"tagged by {token}; {holder}")
        if not self.starts:
            for row, kind in orphans:
                yield self.wrong("message-orphan", "orchestrator_queue", row, kind)

    def _message(self, row: Any, kind: str, body: dict[str, Any]) -> Iterator[Finding]:
        if kind == "ActivityExecute":
            yield self.wrong("message-unreadable", "orchestrator_queue", row, "work for a worker, in the queue of messages")
            return
        child = kind in ("SubOrchCompleted", "SubOrchFailed")
        to = body["parent_instance" if child else "instance"]
        if to != self._case.id:
            yield self.wrong("message-address", "orchestrator_queue", row, f"its {kind} is for {to!r:.{CUT}}")
        if kind in ("StartOrchestration", "ContinueAsNew"):
            self.starts += 1
            self.continues = self.continues or kind == "ContinueAsNew"
        elif child:
            self.answers.add(("SubOrchestrationScheduled", body["parent_execution_id"], body["parent_id"]))
        elif kind in ANSWERS:
            self.answers.add((ANSWERS[kind], body["execution_id"], body["id"]))

    def _will_be_freed(self, token: str, leased: Any) -> bool:
        if token == leased:
            return True
        if token.startswith("to:"):  # left to an owner, who asks for it by this name (PostgreSQL)
            return self._owners is not None and token[3:] in self._owners
        return ":" not in token  # of the reference: its batches are taken up again when the lease is gone

    # ── work ─────────────────────────────────────────────────────────────────────────────────────────────────

    def works(self) -> Iterator[Finding]:
        seen: set[tuple[int, int]] = set()
        for row in self._case.work:
            item = read(row[1])
            if isinstance(item, str) or item[0] != "ActivityExecute":
                yield self.wrong("work-unreadable", "worker_queue", row[0], item if isinstance(item, str) else f"a {item[0]}")
            else:
                key = item[1]["execution_id"], item[1]["id"]
                yield from self._address(row, item[1])
                if key in seen:
                    yield self.wrong("work-double", "worker_queue", row[0], f"activity {key[1]} of execution {key[0]} once more")
                seen.add(key)
                self.work[row[0]] = key
                self.answers.add(("ActivityScheduled", *key))
            yield from self._taken(row)

    def _address(self, row: Row, body: dict[str, Any]) -> Iterator[Finding]:
        execution, activity, session, tag = row[6:10]
        said = {"instance": body["instance"], "execution": body["execution_id"], "activity": body["id"], "session": body.get("session_id"), "tag": body.get("tag")}  # fmt: skip
        stored = {"instance": self._case.id, "execution": execution, "activity": activity, "session": session, "tag": tag}
        if execution is None and activity is None:  # from before these columns were filled
            stored["execution"], stored["activity"] = said["execution"], said["activity"]
        for name in said:
            if said[name] != stored[name]:
                yield self.wrong("work-address", "worker_queue", row[0], f"{name}: {stored[name]!r:.{CUT}} in its column, {said[name]!r:.{CUT}} in its item")

    def _taken(self, row: Row) -> Iterator[Finding]:
        id, _, visible_at, token, until, attempts, _, _, session, _, held = row
        if not isinstance(visible_at, int):
            yield self.wrong("row-type", "worker_queue", id, f"its visible_at is {visible_at!r:.{CUT}}")
        if not isinstance(attempts, int) or attempts < 0:
            yield self.wrong("row-type", "worker_queue", id, f"its attempt_count is {attempts!r:.{CUT}}")
        if token is None:
            return
        if not isinstance(until, int):
            yield self.wrong("work-held", "worker_queue", id, f"leased under {token} until {until!r:.{CUT}}")
            return
        if until > self._now + DAY_MS:
            yield self.wrong("lease-far", "worker_queue", id, f"leased under {token} for {(until - self._now) // 3_600_000} hours more")
        if session is not None and held is None and until > self._now:
            yield self.wrong("work-session", "worker_queue", id, f"in session '{session}', which has no row")

    # ── leases ───────────────────────────────────────────────────────────────────────────────────────────────

    def leases(self) -> Iterator[Finding]:
        for token, until in self._case.leases:
            if not isinstance(until, int):
                yield self.wrong("row-type", "instance_locks", self._case.id, f"its locked_until is {until!r:.{CUT}}")
            elif until > self._now + DAY_MS:
                yield self.wrong("lease-far", "instance_locks", self._case.id, f"leased under {token} for {(until - self._now) // 3_600_000} hours more")
            if self._case.instance is None and not self.count:
                yield self.wrong("lease-idle", "instance_locks", self._case.id, f"leased under {token}")
