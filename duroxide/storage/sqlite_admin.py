"""The cold calls on a SQLite file: lists, information, statistics, deletion, pruning.

Owns their SQL and rules; each call is one statement or one transaction on the connection it is given. Refuses to know leases and turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import apsw

from duroxide.errors import ProviderError

_TIME = "CAST(unixepoch({0}, 'subsec') * 1000 AS INTEGER)"
_BY_INSTANCE = ("history", "executions", "kv_store", "kv_delta", "instance_locks")
_ENDED = "('Completed', 'Failed', 'ContinuedAsNew')"
# By name: where ANALYZE saw that most instances have no parent, SQLite would rather walk over all of them.
_CHILDREN = "SELECT instance_id FROM instances INDEXED BY idx_instances_parent WHERE parent_instance_id = ?1"
_MERGED_KV = (
    "SELECT key, value FROM kv_delta WHERE instance_id = ?1 AND value IS NOT NULL UNION ALL"
    " SELECT s.key, s.value FROM kv_store s WHERE s.instance_id = ?1 AND NOT EXISTS"
    " (SELECT 1 FROM kv_delta d WHERE d.instance_id = s.instance_id AND d.key = s.key)"
)


class SqliteAdmin:
    """`session()` gives the connection to read on; `writing()` the same inside one write transaction."""

    def session(self) -> AbstractContextManager[apsw.Connection]:
        raise TypeError("a provider gives the connection")

    def writing(self) -> AbstractContextManager[apsw.Connection]:
        raise TypeError("a provider gives the connection")

    def _rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.session() as connection:
            return [tuple(row) for row in connection.execute(sql, values)]

    # ── one instance ─────────────────────────────────────────────────────────────────────────────────────────

    def instance_info(self, instance: str) -> dict[str, Any] | None:
        rows = self._rows(
            "SELECT i.instance_id, i.orchestration_name, i.orchestration_version, i.current_execution_id, e.status, e.output,"
            f" {_TIME.format('i.created_at')}, MAX(COALESCE({_TIME.format('i.updated_at')}, 0), COALESCE(e.completed_at, 0),"
            f" COALESCE({_TIME.format('e.started_at')}, 0)), i.parent_instance_id FROM instances i LEFT JOIN executions e"
            " ON e.instance_id = i.instance_id AND e.execution_id = i.current_execution_id WHERE i.instance_id = ?1",
            instance,
        )
        names = (
            "instance_id", "orchestration_name", "orchestration_version", "current_execution_id", "status", "output", "created_at",
            "updated_at", "parent_instance_id",
        )  # fmt: skip
        return dict(zip(names, rows[0])) if rows else None

    def execution_info(self, instance: str, execution_id: int) -> dict[str, Any] | None:
        rows = self._rows(
            f"SELECT execution_id, status, output, {_TIME.format('started_at')}, completed_at, (SELECT COUNT(*) FROM history h WHERE"
            " h.instance_id = e.instance_id AND h.execution_id = e.execution_id) FROM executions e"
            " WHERE instance_id = ?1 AND execution_id = ?2",
            instance,
            execution_id,
        )
        names = ("execution_id", "status", "output", "started_at", "completed_at", "event_count")
        return dict(zip(names, rows[0])) if rows else None

    def executions(self, instance: str) -> list[int]:
        return [row[0] for row in self._rows("SELECT execution_id FROM executions WHERE instance_id = ?1 ORDER BY 1", instance)]

    def children(self, instance: str) -> list[str]:
        """Direct children, in order of creation."""
        return [row[0] for row in self._rows(_CHILDREN + " ORDER BY created_at, rowid", instance)]

    def tree(self, instance: str) -> list[str]:
        """Depth first from the root, siblings newest first; [instance] for an unknown id."""
        found, todo = [], [instance]
        while todo:
            found.append(todo.pop())
            todo += self.children(found[-1])
        return found

    def kv_values(self, instance: str) -> dict[str, str]:
        return dict(self._rows(_MERGED_KV, instance))

    def kv_value(self, instance: str, key: str) -> str | None:
        rows = self._rows(f"SELECT value FROM ({_MERGED_KV}) WHERE key = ?2", instance, key)
        return rows[0][0] if rows else None

    def stats(self, instance: str) -> dict[str, int] | None:
        """Sizes in characters; `queue_pending_count`: messages carried into the current execution."""
        rows = self._rows("SELECT current_execution_id FROM instances WHERE instance_id = ?1", instance)
        if not rows:
            return None
        count, size = self._rows(
            "SELECT COUNT(*), COALESCE(SUM(LENGTH(event_data)), 0) FROM history WHERE instance_id = ?1 AND execution_id = ?2",
            instance,
            rows[0][0],
        )[0]
        carried = self._rows(
            "SELECT COALESCE(json_array_length(event_data, '$.carry_forward_events'), 0) FROM history"
            " WHERE instance_id = ?1 AND execution_id = ?2 AND event_id = 1 AND json_valid(event_data)",
            instance,
            rows[0][0],
        )
        values = self.kv_values(instance)
        return {
            "history_event_count": count, "history_size_bytes": size, "queue_pending_count": carried[0][0] if carried else 0,
            "kv_user_key_count": len(values), "kv_total_value_bytes": sum(map(len, values.values())),
        }  # fmt: skip

    # ── all ──────────────────────────────────────────────────────────────────────────────────────────────────

    def instances(self, status: str | None = None) -> list[str]:
        """Ids, newest first."""
        values: tuple[str, ...]
        if status is None:
            sql, values = "SELECT instance_id FROM instances ORDER BY created_at DESC, rowid DESC", ()
        else:
            other = "" if status == "Completed" else " AND e.status <> 'Completed'"  # then there is an index: dx_executions_other
            sql = (
                "SELECT i.instance_id FROM executions e JOIN instances i ON i.instance_id = e.instance_id"
                f" AND i.current_execution_id = e.execution_id WHERE e.status = ?1{other} ORDER BY i.created_at DESC, i.rowid DESC"
            )
            values = (status,)
        return [row[0] for row in self._rows(sql, *values)]

    def system_metrics(self) -> dict[str, int]:
        by_status = dict(
            self._rows(
                "SELECT e.status, COUNT(*) FROM instances i JOIN executions e ON e.instance_id = i.instance_id"
                " AND e.execution_id = i.current_execution_id GROUP BY e.status"
            )
        )
        instances, executions, events = self._rows(
            "SELECT (SELECT COUNT(*) FROM instances), (SELECT COUNT(*) FROM executions), (SELECT COUNT(*) FROM history)"
        )[0]
        return {
            "total_instances": instances, "total_executions": executions, "running_instances": by_status.get("Running", 0),
            "completed_instances": by_status.get("Completed", 0), "failed_instances": by_status.get("Failed", 0),
            "total_events": events,
        }  # fmt: skip

    def queue_depths(self, now: int) -> dict[str, int]:
        """Items that nobody leases; pending timers count with the orchestrator's, as in the reference on SQLite."""
        names = ("orchestrator_queue", "worker_queue", "timer_queue")
        counts = [self._rows(f"SELECT COUNT(*) FROM {name} WHERE lock_token IS NULL")[0][0] for name in names]
        return dict(zip(names, counts))

    # ── removal ──────────────────────────────────────────────────────────────────────────────────────────────

    def delete(self, ids: Sequence[str], force: bool) -> dict[str, int]:
        """Exactly these instances, in one transaction; ProviderError if one runs (without `force`) or a child would stay behind."""
        with self.writing() as connection:
            return self._delete(connection, list(ids), force)

    def _delete(self, connection: apsw.Connection, ids: list[str], force: bool) -> dict[str, int]:
        chosen = set(ids)
        counts: dict[str, int] = dict.fromkeys(("instances_deleted", "executions_deleted", "events_deleted", "queue_messages_deleted"), 0)
        for id in ids:
            running = connection.execute(
                "SELECT 1 FROM executions e JOIN instances i ON i.instance_id = e.instance_id AND i.current_execution_id = e.execution_id"
                " WHERE i.instance_id = ? AND e.status = 'Running'",
                (id,),
            ).fetchone()
            if running and not force:
                raise ProviderError(f"Instance {ids[0]} is still running. Use force=true or cancel first.")
            for (child,) in connection.execute(_CHILDREN, (id,)):
                if child not in chosen:
                    raise ProviderError(f"Instance {id} has a child {child} that was created meanwhile: delete the tree again")
        for id in reversed(ids):  # children before parents: the parent column is a foreign key
            self._delete_one(connection, id, counts)
        return counts

    @staticmethod
    def _delete_one(connection: apsw.Connection, id: str, counts: dict[str, int]) -> None:
        def remove(table: str) -> int:
            connection.execute(f"DELETE FROM {table} WHERE instance_id = ?", (id,))
            return connection.changes()

        sessions = connection.execute(
            "SELECT DISTINCT session_id FROM worker_queue WHERE instance_id = ? AND session_id IS NOT NULL", (id,)
        ).fetchall()
        counts["queue_messages_deleted"] += remove("orchestrator_queue") + remove("worker_queue")
        for (session,) in sessions:
            connection.execute(
                "DELETE FROM sessions WHERE session_id = ?1 AND NOT EXISTS (SELECT 1 FROM worker_queue WHERE session_id = ?1)", (session,)
            )
        removed = {table: remove(table) for table in _BY_INSTANCE}
        counts["events_deleted"] += removed["history"]
        counts["executions_deleted"] += removed["executions"]
        counts["instances_deleted"] += remove("instances")

    def delete_bulk(self, ids: Sequence[str] | None, completed_before: int | None, limit: int | None) -> dict[str, int]:
        """Roots that have ended, each with its tree in a transaction of its own; others are skipped."""
        total: dict[str, int] = dict.fromkeys(("instances_deleted", "executions_deleted", "events_deleted", "queue_messages_deleted"), 0)
        sql = (
            "SELECT i.instance_id FROM instances i JOIN executions e ON e.instance_id = i.instance_id AND e.execution_id ="
            f" i.current_execution_id WHERE i.parent_instance_id IS NULL AND e.status IN {_ENDED}"
        )
        for root in self._chosen(sql, ids, completed_before, limit):
            try:
                counts = self.delete(self.tree(root), False)
            except ProviderError:
                continue  # a child runs
            for name, count in counts.items():
                total[name] += count
        return total

    def _chosen(self, sql: str, ids: Sequence[str] | None, completed_before: int | None, limit: int | None) -> list[str]:
        values: list[Any] = []
        if completed_before is not None:
            sql += " AND e.completed_at < ?"
            values.append(completed_before)
        found = [row[0] for row in self._rows(sql + " ORDER BY i.created_at, i.rowid", *values)]
        if ids is not None:
            wanted = set(ids)
            found = [id for id in found if id in wanted]
        return found if limit is None else found[:limit]

    def prune(self, instance: str, keep_last: int | None, completed_before: int | None) -> dict[str, int]:
        """Remove old executions, never the current or a running one; without options all others."""
        with self.writing() as connection:
            executions = self._prunable(connection, instance, keep_last, completed_before)
            events = 0
            for execution in executions:
                connection.execute("DELETE FROM history WHERE instance_id = ? AND execution_id = ?", (instance, execution))
                events += connection.changes()
                connection.execute("DELETE FROM executions WHERE instance_id = ? AND execution_id = ?", (instance, execution))
        return {"instances_processed": 1, "executions_deleted": len(executions), "events_deleted": events}

    @staticmethod
    def _prunable(connection: apsw.Connection, instance: str, keep_last: int | None, completed_before: int | None) -> list[int]:
        rows: list[tuple[Any, ...]] = connection.execute(
            "SELECT e.execution_id, e.status, e.completed_at, i.current_execution_id FROM executions e JOIN instances i"
            " ON i.instance_id = e.instance_id WHERE e.instance_id = ? ORDER BY e.execution_id DESC",
            (instance,),
        ).fetchall()
        return [
            execution
            for index, (execution, status, completed, current) in enumerate(rows)
            if execution != current
            and status != "Running"
            and (keep_last is None or index >= keep_last)
            and (completed_before is None or (completed is not None and completed < completed_before))
        ]

    def prune_bulk(
        self, ids: Sequence[str] | None, before: int | None, limit: int | None, keep_last: int | None, completed_before: int | None
    ) -> dict[str, int]:
        total: dict[str, int] = dict.fromkeys(("instances_processed", "executions_deleted", "events_deleted"), 0)
        sql = (
            "SELECT i.instance_id FROM instances i JOIN executions e ON e.instance_id = i.instance_id AND e.execution_id ="
            " i.current_execution_id WHERE 1"
        )
        for instance in self._chosen(sql, ids, before, limit):
            for name, count in self.prune(instance, keep_last, completed_before).items():
                total[name] += count
        return total
