"""The cold calls on a PostgreSQL schema: lists, information, statistics, deletion, pruning.

Owns their rules and when they are tried again; their SQL stands in `postgres_admin_sql`. Each call is one transaction, bulk removal
one for so many instances. Refuses to know turns, leases and where connections come from.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import psycopg

from duroxide.errors import ProviderError
from duroxide.storage import postgres_admin_sql as sql
from duroxide.storage.base import StoreError
from duroxide.storage.postgres_errors import retryable, rolled_back

_T = TypeVar("_T")
_Connection = psycopg.Connection[Any]
_TRIES = 6
_PAUSE_S = 0.05  # doubled after each try: 1.5 s in all, beside what the pool waits for a connection
_AT_ONCE = 200  # instances in one transaction of a bulk call
_DELETED = ("instances_deleted", "executions_deleted", "events_deleted", "queue_messages_deleted")


class _InTheWay(ProviderError):
    """A deletion that must not happen, and the instance because of which."""

    def __init__(self, text: str, instance: str) -> None:
        super().__init__(text)
        self.instance = instance


class PostgresAdmin:
    """`reading()` and `writing()` give a connection in a transaction, committed at their end; `sql(text)` fills in the schema."""

    schema: str

    def reading(self) -> AbstractContextManager[_Connection]:
        raise TypeError("a provider gives the connection")

    def writing(self) -> AbstractContextManager[_Connection]:
        raise TypeError("a provider gives the connection")

    def sql(self, template: str) -> str:
        raise TypeError("a provider knows its schema")

    def _rows(self, operation: str, template: str, **values: Any) -> list[tuple[Any, ...]]:
        """What one statement finds; nothing for a text that no row can hold."""
        if not all(_storable(value) for value in values.values() if isinstance(value, str)):
            return []
        return self._in(operation, self.reading, lambda c: c.execute(self.sql(template), values).fetchall())

    def _in(self, operation: str, transaction: Callable[[], AbstractContextManager[_Connection]], work: Callable[[_Connection], _T]) -> _T:
        """`work` in a transaction, tried again as long as it is certain that nothing was written. ProviderError names `operation`."""
        writes = transaction == self.writing
        for left in reversed(range(_TRIES)):
            committing = False
            try:
                with transaction() as connection:
                    found = work(connection)
                    committing = writes
                return found
            except (psycopg.Error, StoreError) as error:
                cause = error.__cause__ if isinstance(error, StoreError) and error.__cause__ else error
                if committing and not rolled_back(cause):
                    raise ProviderError(
                        f"{operation}: the connection was lost while it was committed, so that it may or may not have happened: {error}"
                    ) from error
                if not left or not (retryable(cause) or getattr(error, "retryable", False)):
                    raise ProviderError(f"{operation}: {error}") from error
            time.sleep(_PAUSE_S * 2 ** (_TRIES - 1 - left))
        raise AssertionError("the last try returns or raises")

    # ── one instance ─────────────────────────────────────────────────────────────────────────────────────────

    def instance_info(self, instance: str) -> dict[str, Any] | None:
        """Times in Unix ms. `updated_at`: of the last committed turn."""
        rows = self._rows("get_instance_info", sql.INSTANCE, instance=instance)
        names = (
            "instance_id", "orchestration_name", "orchestration_version", "current_execution_id", "status", "output", "created_at",
            "updated_at", "parent_instance_id",
        )  # fmt: skip
        return dict(zip(names, rows[0])) if rows else None

    def execution_info(self, instance: str, execution_id: int) -> dict[str, Any] | None:
        """Times in Unix ms; `completed_at` None while it runs."""
        rows = self._rows("get_execution_info", sql.EXECUTION, instance=instance, execution=execution_id)
        names = ("execution_id", "status", "output", "started_at", "completed_at", "event_count")
        return dict(zip(names, rows[0])) if rows else None

    def executions(self, instance: str) -> list[int]:
        return [row[0] for row in self._rows("list_executions", sql.EXECUTIONS, instance=instance)]

    def children(self, instance: str) -> list[str]:
        """Direct children, in order of creation."""
        return [row[0] for row in self._rows("list_children", sql.CHILDREN, instance=instance)]

    def tree(self, instance: str) -> list[str]:
        """Depth first from the root, siblings newest first; [instance] for an unknown id."""
        return self._trees([instance]).get(instance, [instance])

    def _trees(self, roots: Sequence[str]) -> dict[str, list[str]]:
        wanted = [root for root in roots if _storable(root)]
        children: dict[tuple[str, str], list[str]] = {}
        for root, id, parent in self._rows("get_instance_tree", sql.TREES, ids=wanted):
            if parent is not None:
                children.setdefault((root, parent), []).append(id)
        return {root: _depth_first(root, children) for root in wanted}

    def kv_values(self, instance: str) -> dict[str, str]:
        return dict(self._rows("get_kv_all_values", sql.VALUES, instance=instance))

    def kv_value(self, instance: str, key: str) -> str | None:
        rows = self._rows("get_kv_value", sql.VALUE, instance=instance, key=key)
        return rows[0][0] if rows else None

    def stats(self, instance: str) -> dict[str, int] | None:
        """Sizes in bytes of UTF-8; `queue_pending_count`: messages carried into the current execution."""
        rows = self._rows("get_orchestration_stats", sql.STATS, instance=instance)
        if not rows:
            return None
        events, size, first, keys, value_size = rows[0]
        return {
            "history_event_count": events, "history_size_bytes": size, "queue_pending_count": _carried(first),
            "kv_user_key_count": keys, "kv_total_value_bytes": value_size,
        }  # fmt: skip

    # ── all ──────────────────────────────────────────────────────────────────────────────────────────────────

    def instances(self, status: str | None = None) -> list[str]:
        """Ids, newest first."""
        if status is None:
            return [row[0] for row in self._rows("list_all_instances", sql.INSTANCES)]
        return [row[0] for row in self._rows("list_instances_by_status", sql.INSTANCES_OF, status=status)]

    def system_metrics(self) -> dict[str, int]:
        """Counted, not estimated: three tables are read from end to end (a second for a million instances of five events)."""
        by_status = dict(self._rows("get_system_metrics", sql.BY_STATUS))
        instances, events = self._rows("get_system_metrics", sql.TOTALS)[0]
        return {
            "total_instances": instances, "total_executions": sum(by_status.values()), "running_instances": by_status.get("Running", 0),
            "completed_instances": by_status.get("Completed", 0), "failed_instances": by_status.get("Failed", 0),
            "total_events": events,
        }  # fmt: skip

    def queue_depths(self, now: int) -> dict[str, int]:
        """Items that are due and that nobody leases; as in the reference on PostgreSQL, timers count once they are due."""
        messages, work = self._rows("get_queue_depths", sql.DEPTHS, now=_representable(now))[0]
        return {"orchestrator_queue": messages, "worker_queue": work, "timer_queue": 0}

    # ── removal ──────────────────────────────────────────────────────────────────────────────────────────────

    def delete(self, ids: Sequence[str], force: bool) -> dict[str, int]:
        """Exactly these instances, in one transaction; ProviderError if one runs (without `force`) or a child would stay behind."""
        wanted = [id for id in ids if _storable(id)]
        return self._in("delete_instance", self.writing, lambda connection: self._delete(connection, wanted, force))

    def _delete(self, connection: _Connection, ids: list[str], force: bool) -> dict[str, int]:
        def run(template: str, **values: Any) -> psycopg.Cursor[Any]:
            return connection.execute(self.sql(template), values or {"ids": ids})

        run(sql.DROP_LEASES)
        run(sql.HOLD)
        running = run(sql.RUNNING).fetchone()
        if running and not force:
            raise _InTheWay(f"Instance {ids[0]} is still running. Use force=true or cancel first.", running[0])
        stray = run(sql.LEFT_BEHIND).fetchone()
        if stray:
            text = f"Instance {stray[0]} has a child {stray[1]} that was created meanwhile: delete the tree again"
            raise _InTheWay(text, stray[0])
        sessions = run(sql.DROP_WORK).fetchall()
        messages = len(sessions) + run(sql.DROP_MESSAGES).rowcount
        if used := sorted({session for (session,) in sessions if session is not None}):
            run(sql.DROP_SESSIONS, sessions=used)
        events = run(sql.DROP_EVENTS).rowcount
        executions = run(sql.DROP_EXECUTIONS).rowcount
        run(sql.DROP_VALUES)
        run(sql.DROP_CHANGES)
        return dict(zip(_DELETED, (run(sql.DROP_INSTANCES).rowcount, executions, events, messages)))

    def delete_bulk(self, ids: Sequence[str] | None, completed_before: int | None, limit: int | None) -> dict[str, int]:
        """Roots that have ended, with their trees, some hundred in a transaction; those in which something runs are skipped."""
        total: dict[str, int] = dict.fromkeys(_DELETED, 0)
        roots = self._chosen("delete_instance_bulk", sql.ROOTS_ENDED, ids, completed_before, limit)
        for begin in range(0, len(roots), _AT_ONCE):
            trees = self._trees(roots[begin : begin + _AT_ONCE])
            every = [id for tree in trees.values() for id in tree]
            running = {row[0] for row in self._rows("delete_instance_bulk", sql.RUNNING, ids=every)}
            trees = {root: tree for root, tree in trees.items() if running.isdisjoint(tree)}
            for name, count in self._delete_trees(trees).items():
                total[name] += count
        return total

    def _delete_trees(self, trees: dict[str, list[str]]) -> dict[str, int]:
        """All of them but those that came to life meanwhile."""
        while trees:
            every = list(dict.fromkeys(id for tree in trees.values() for id in tree))
            try:
                return self._in("delete_instance_bulk", self.writing, lambda connection: self._delete(connection, every, False))  # noqa: B023
            except _InTheWay as error:
                trees = {root: tree for root, tree in trees.items() if error.instance not in tree}
        return {}

    def _chosen(self, operation: str, first: str, ids: Sequence[str] | None, before: int | None, limit: int | None) -> list[str]:
        values: dict[str, Any] = {"limit": None if limit is None else min(limit, (1 << 63) - 1)}
        if before is not None:
            first += sql.AND_BEFORE
            values["before"] = _representable(before)
        if ids is not None:
            first += sql.AND_IDS
            values["ids"] = [id for id in ids if _storable(id)]
        return [row[0] for row in self._rows(operation, first + sql.OLDEST_FIRST, **values)]

    def prune(self, instance: str, keep_last: int | None, completed_before: int | None) -> dict[str, int]:
        """Remove old executions, never the current or a running one; without options all others."""
        return self._prune("prune_executions", [instance], keep_last, completed_before)

    def prune_bulk(
        self, ids: Sequence[str] | None, before: int | None, limit: int | None, keep_last: int | None, completed_before: int | None
    ) -> dict[str, int]:
        total: dict[str, int] = dict.fromkeys(("instances_processed", "executions_deleted", "events_deleted"), 0)
        chosen = self._chosen("prune_executions_bulk", sql.ANY, ids, before, limit)
        for begin in range(0, len(chosen), _AT_ONCE):
            batch = chosen[begin : begin + _AT_ONCE]
            for name, count in self._prune("prune_executions_bulk", batch, keep_last, completed_before).items():
                total[name] += count
        return total

    def _prune(self, operation: str, ids: list[str], keep_last: int | None, before: int | None) -> dict[str, int]:
        values = {
            "ids": [id for id in ids if _storable(id)],
            "keep": None if keep_last is None else min(keep_last, (1 << 63) - 1),
            "before": None if before is None else _representable(before),
        }
        [(executions, events)] = self._in(operation, self.writing, lambda c: c.execute(self.sql(sql.PRUNE), values).fetchall())
        return {"instances_processed": len(ids), "executions_deleted": executions, "events_deleted": events}


def _storable(text: str) -> bool:
    """Whether PostgreSQL can hold a text: no NUL, and nothing that is no UTF-8. What it cannot hold is nowhere stored."""
    return "\0" not in text and (text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text))


def _representable(ms: int) -> int:
    return min(max(ms, sql.EARLIEST), sql.LATEST)


def _depth_first(root: str, children: Mapping[tuple[str, str], list[str]]) -> list[str]:
    found: dict[str, None] = {}
    todo = [root]
    while todo:
        id = todo.pop()
        if id not in found:
            found[id] = None
            todo += children.get((root, id), ())
    return list(found)


def _carried(first_event: str | None) -> int:
    """How many messages an execution began with; 0 where its first event cannot be read."""
    try:
        event = json.loads(first_event or "{}")
        return len(event.get("carry_forward_events") or ())
    except (ValueError, AttributeError, TypeError):
        return 0
