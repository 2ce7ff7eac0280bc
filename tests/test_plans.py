"""Query plans: no statement on a hot or waiting path walks a table that grows, and none sorts. With and without statistics."""

from __future__ import annotations

import re
from collections.abc import Iterator

import apsw
import pytest

from duroxide.storage import sqlite
from duroxide.storage.sqlite import SqliteNative, open_memory
from duroxide.storage.sqlite_sql import HOT

TRANSACTIONS = {"begin", "begin_read", "commit", "rollback"}

# Cold on purpose, with what they may do. Rows of instance_locks and sessions are few: those in use now.
COLD = {
    "SELECT instance_id FROM instances INDEXED BY idx_instances_parent WHERE": "SORT",  # one parent's children
    "SELECT DISTINCT session_id FROM worker_queue WHERE instance_id": "SORT",  # one instance's sessions
    "DELETE FROM sessions WHERE locked_until": "SCAN sessions",  # every five minutes
    "DELETE FROM instance_locks WHERE lock_token >=": "SCAN instance_locks",  # after the death of an owner
    "UPDATE worker_queue INDEXED BY dx_work_expiry SET lock_token": "SCAN worker_queue USING INDEX dx_work_expiry",  # then, too: what is held
}


@pytest.fixture(params=["fresh", "analyzed"])
def native(request: pytest.FixtureRequest) -> Iterator[SqliteNative]:
    made = open_memory()
    if request.param == "analyzed":
        fill(made._cold)
    yield made
    made.close()


def fill(connection: apsw.Connection) -> None:
    """Rows of every kind, lopsided, and statistics of them: what a planner could be led astray by."""
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)"
    for columns, values in (
        ("instances (instance_id, orchestration_name, orchestration_version)", "'i' || i, 'o', '1'"),
        ("executions (instance_id, execution_id, status)", "'i' || i, 1, 'Completed'"),
        ("history (instance_id, execution_id, event_id, event_type, event_data)", "'i1', 1, i, 'x', ''"),
        ("orchestrator_queue (instance_id, work_item, visible_at)", "'i' || i % 9, '', i"),
        ("worker_queue (work_item, instance_id, tag, visible_at)", "'', 'i' || i, 't' || i % 2, 0"),
        ("instance_locks", "'i' || i, 'lock_o:' || i, i, 0"),
        ("sessions", "'s' || i, 'o', i, 0"),
        ("kv_store", "'i1', 'k' || i, '', 0"),
        ("kv_delta", "'i' || i, 'k', '', 0"),
    ):
        connection.execute(f"INSERT INTO {columns} {numbers} SELECT {values} FROM n")
    connection.execute("ANALYZE")


def plan(connection: apsw.Connection, sql: str) -> list[str]:
    parameters = max((int(n) for n in re.findall(r"\?(\d+)", sql)), default=sql.count("?"))
    return [str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", (None,) * parameters)]


def faults(connection: apsw.Connection, sql: str) -> list[str]:
    """What in the statement's plan costs more the more there is."""
    found = []
    for step in plan(connection, sql):
        if "TEMP B-TREE" in step:
            found.append("SORT")
        elif step.startswith("SCAN ") and not step.startswith("SCAN CONSTANT ROW") or "AUTOMATIC" in step:
            found.append(step)
    return found


@pytest.mark.parametrize("name", sorted(HOT.keys() - TRANSACTIONS))
def test_a_hot_statement_goes_straight_to_its_rows(native: SqliteNative, name: str) -> None:
    assert faults(native._cold, HOT[name]) == []


def test_claims_go_by_the_index_made_for_them(native: SqliteNative) -> None:
    """An index on lock_token alone is no scan, and yet walks over all that waits."""
    expected = {
        "message_ready": "dx_orch_ready (visible_at>? AND visible_at<?)",
        "message_next": "dx_orch_ready (visible_at>?)",
        "message_carries": "idx_orch_lock (lock_token=?)",
        "message_free": "idx_orch_lock (lock_token=?)",
        "message_back": "idx_orch_lock (lock_token=?)",
        "message_batch": "dx_orch_batch (instance_id=? AND visible_at<?)",
        "lease_expired": "dx_lock_expiry (locked_until<?)",
        "work_ready": "dx_work_ready (tag=? AND visible_at<?)",
        "work_expire": "dx_work_expiry (locked_until<?)",
        "work_cancel": "idx_worker_activity (instance_id=? AND execution_id=? AND activity_id=?)",
        "work_of_session": "dx_work_session (session_id=?)",
        "turn_get": "history_1 (instance_id=? AND execution_id=?)",
        "load_events": "history_1 (instance_id=? AND execution_id=? AND event_id>?)",
    }
    found = {name: plan(native._cold, HOT[name]) for name in expected}
    assert {name for name, index in expected.items() if not any(step.endswith(index) for step in found[name])} == set()


def test_who_has_not_completed_is_found_by_the_index_of_the_others(native: SqliteNative) -> None:
    """Also when millions have."""
    seen: list[str] = []
    native._cold.exec_trace = lambda cursor, sql, bindings: not seen.append(sql)
    for status in ("Running", "Failed"):
        assert native.instances(status) == []
    native._cold.exec_trace = None
    assert all("SEARCH e USING INDEX dx_executions_other (status=?)" in plan(native._cold, sql) for sql in seen)


def statements(native: SqliteNative) -> list[str]:
    """What the calls on one instance, the waits and the keeper really run."""
    connection, seen = native._cold, []
    connection.execute("INSERT INTO instances (instance_id, orchestration_name, orchestration_version) VALUES ('x', 'o', '1')")
    connection.execute("INSERT INTO executions (instance_id, execution_id, status) VALUES ('x', 1, 'Completed')")
    connection.execute("INSERT INTO worker_queue (work_item, instance_id, session_id) VALUES ('', 'x', 's')")

    def note(cursor: apsw.Cursor, sql: str, bindings: object) -> bool:
        seen.append(sql)
        return True

    connection.exec_trace = note
    native.instance_info("x")
    native.execution_info("x", 1)
    native.executions("x")
    native.tree("x")
    native.kv_values("x")
    native.kv_value("x", "k")
    native.stats("x")
    native.prune("x", 1, None)
    native.delete(["x"], False)
    native.sweep_sessions(1)
    sqlite._free(connection, "owner")
    connection.exec_trace = None
    return [sql for sql in dict.fromkeys(seen) if sql.split()[0] in ("SELECT", "INSERT", "UPDATE", "DELETE")]


def test_calls_on_one_instance_cost_what_that_instance_has(native: SqliteNative) -> None:
    found = statements(native)
    assert len(found) > 20
    used = set()
    for sql in found:
        allowed = [start for start in COLD if sql.startswith(start)]
        used.update(allowed)
        assert set(faults(native._cold, sql)) <= {COLD[start] for start in allowed}, sql
    assert used == COLD.keys(), "an exception that nothing needs"


@pytest.mark.parametrize("sql", [
    "SELECT id FROM orchestrator_queue WHERE work_item = ?1",
    "SELECT id FROM orchestrator_queue INDEXED BY dx_orch_ready WHERE lock_token IS NULL AND visible_at <= ?1 ORDER BY id",
    "UPDATE worker_queue SET lock_token = NULL WHERE work_item = ?1",
    "SELECT COUNT(*) FROM history",
    "SELECT 1 FROM instances i JOIN history h ON h.event_data = i.custom_status WHERE i.instance_id = ?1",
])  # fmt: skip
def test_a_bad_statement_is_caught(native: SqliteNative, sql: str) -> None:
    assert faults(native._cold, sql) != []
