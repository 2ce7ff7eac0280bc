"""A file is adopted whole or not at all, and what it holds is never rewritten; what is too new is left alone, instance by instance."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest
from compat import matrix, record
from runtime_rig import until

import duroxide
from duroxide.storage import sqlite_schema
from duroxide.storage.sqlite import open_sqlite

# What each step of the reference's ledger brought: (table, columns) or a table whole. Files of older versions lack what came later.
BROUGHT: dict[int, list[tuple[str, tuple[str, ...]]]] = {
    20240102000000: [("orchestrator_queue", ("attempt_count",)), ("worker_queue", ("attempt_count",))],
    20240103000000: [("worker_queue", ("visible_at",))],
    20240104000000: [("worker_queue", ("instance_id", "execution_id", "activity_id"))],
    20240105000000: [("instances", ("parent_instance_id",))],
    20240106000000: [("executions", ("duroxide_version_major", "duroxide_version_minor", "duroxide_version_patch"))],
    20240107000000: [("sessions", ()), ("worker_queue", ("session_id",))],
    20240108000000: [("instances", ("custom_status", "custom_status_version"))],
    20240109000000: [("worker_queue", ("tag",))],
    20240110000000: [("kv_store", ())],
    20240111000000: [("kv_store", ("last_updated_at_ms",))],
    20240112000000: [("kv_delta", ())],
}


def ask(path: Path, *statements: str) -> list[Any]:
    """The rows of the last one."""
    connection = apsw.Connection(str(path))
    try:
        return [connection.execute(statement).fetchall() for statement in statements][-1]
    finally:
        connection.close()


def dump(path: Path) -> tuple[Any, ...]:
    """Everything in the file: what there is, and every row."""
    things = ask(path, "SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2")
    tables = sorted(name for kind, name, _ in things if kind == "table")
    return things, [(table, ask(path, f"SELECT * FROM {table} ORDER BY 1, 2")) for table in tables]


def constructed(path: Path, version: int) -> Path:
    """The file as a version of the reference would have it that knew the ledger up to `version`; its rows are from a newer one."""
    statements = [f"DROP INDEX {name}" for name, sql in ask(path, "SELECT name, sql FROM sqlite_master WHERE type = 'index'") if sql]
    gone = set()
    for step, brought in sorted(BROUGHT.items()):
        for table, columns in brought if step > version else ():
            if not columns:
                statements.append(f"DROP TABLE {table}")
                gone.add(table)
            elif table not in gone:
                statements += [f"ALTER TABLE {table} DROP COLUMN {column}" for column in columns if column != "parent_instance_id"]
    if version < 20240105000000:  # a column that refers to something can only go with its table
        kept = ", ".join(row[1] for row in ask(path, "PRAGMA table_info(instances)") if row[1] != "parent_instance_id")
        statements = [s for s in statements if "instances DROP" not in s]
        kept = kept.replace(", custom_status_version", "").replace(", custom_status", "")
        statements += [f"CREATE TABLE old AS SELECT {kept} FROM instances", "DROP TABLE instances", "ALTER TABLE old RENAME TO instances"]
    ask(path, *statements, f"DELETE FROM _sqlx_migrations WHERE version > {version}")
    return path


@pytest.mark.parametrize("version", [version for version, _, _ in sqlite_schema.LEDGER])
def test_a_constructed_file_of_every_older_schema_is_completed_and_keeps_its_rows(version: int, tmp_path: Path) -> None:
    path = constructed(record.unpack("0.1.24", tmp_path), version)
    kept = ("history", "orchestrator_queue", "worker_queue", "executions")
    columns = {table: ", ".join(row[1] for row in ask(path, f"PRAGMA table_info({table})")) for table in kept}
    before = {table: ask(path, f"SELECT {columns[table]} FROM {table}") for table in kept}
    open_sqlite(str(path)).close()
    assert {table: ask(path, f"SELECT {columns[table]} FROM {table}") for table in kept} == before
    connection = apsw.Connection(str(path))
    assert sqlite_schema.check(connection, str(path))
    connection.close()


class Stop(Exception):
    pass


def test_a_file_of_the_reference_keeps_its_indexes_and_one_of_ours_has_none_that_nobody_needs(tmp_path: Path) -> None:
    indexes = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND name LIKE 'idx_%'"
    theirs, ours = record.unpack("0.2.2", tmp_path), tmp_path / "ours.db"
    before = dict(ask(theirs, indexes))
    for path in (theirs, ours):
        open_sqlite(str(path)).close()
    assert dict(ask(theirs, indexes)) == before
    fresh = dict(ask(ours, indexes))
    assert before.keys() - fresh.keys() == {"idx_orch_visible", "idx_orch_instance", "idx_worker_available"}
    assert fresh.keys() <= before.keys()


def test_adoption_that_fails_at_any_statement_changes_nothing(tmp_path: Path) -> None:
    path = constructed(record.unpack("0.1.24", tmp_path), 20240106000000)
    before = dump(path)
    for fails_at in range(1, 200):
        connection = apsw.Connection(str(path))
        seen = 0

        def trace(cursor: Any, sql: str, bindings: Any, at: int = fails_at) -> bool:
            nonlocal seen
            seen += 1
            if seen == at:
                raise Stop
            return True

        connection.exec_trace = trace
        try:
            sqlite_schema.install(connection, str(path))
        except Stop:
            connection.exec_trace = None
            assert not connection.in_transaction
            connection.close()
            assert dump(path) == before, f"statement {fails_at}"
            continue
        connection.exec_trace = None
        assert sqlite_schema.check(connection, str(path)) and fails_at > 40
        connection.close()
        return
    raise AssertionError("it never ends")


KILLED = """
import os, signal, sys
import apsw
from duroxide.storage.sqlite import open_sqlite

left = int(sys.argv[2])
def trace(cursor, sql, bindings):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return True
apsw.connection_hooks.append(lambda connection: setattr(connection, "exec_trace", trace))
open_sqlite(sys.argv[1])
print("open", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def adopted_until(path: Path, step: int) -> bool:
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), str(step)], capture_output=True, text=True, timeout=60)
    assert done.returncode == -9, done.stderr
    return done.stdout == "open\n"


def check_killed_adoption(tmp_path: Path, steps: range) -> None:
    origin = constructed(record.unpack("0.1.24", tmp_path), 20240106000000)
    before, image = dump(origin), origin.read_bytes()
    for step in steps:
        path = tmp_path / f"{step}.db"
        path.write_bytes(image)
        opened = adopted_until(path, step)
        connection = apsw.Connection(str(path))
        complete = sqlite_schema.check(connection, str(path))
        connection.close()
        assert complete or dump(path) == before, f"killed at statement {step}: neither as it was nor complete"
        open_sqlite(str(path)).close()
        assert ask(path, "SELECT event_data FROM history ORDER BY 1, rowid") == ask(origin, "SELECT event_data FROM history ORDER BY 1, rowid")
        if opened:
            assert complete
            return
    assert steps.step > 1, "it never ends"


def test_adoption_that_is_killed_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    check_killed_adoption(tmp_path, range(3, 400, 17))


@pytest.mark.soak
def test_adoption_that_is_killed_at_any_statement_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    check_killed_adoption(tmp_path, range(1, 400))


# ── history ──


def test_nothing_ever_changes_or_deletes_a_row_of_history(tmp_path: Path) -> None:
    """With triggers of the test's own in the file, which would abort it."""
    path = record.unpack("0.2.2", tmp_path)
    guards = [f"CREATE TRIGGER no_{verb} BEFORE {verb} ON history BEGIN SELECT RAISE(ABORT, '{verb} of history'); END" for verb in ("UPDATE", "DELETE")]
    ask(path, *guards)
    with pytest.raises(apsw.ConstraintError, match="UPDATE of history"):
        ask(path, "UPDATE history SET event_data = ''")
    found = matrix.Journey(matrix.File(path), ["0.2.2", matrix.OURS], matrix.states_for(["0.2.2"]), tmp_path).run(first=1)
    assert matrix.differing(record.expected("0.2.2"), found) == {}


def test_activities_of_a_file_from_before_their_rows_named_their_instance_are_run(tmp_path: Path) -> None:
    path = record.unpack("0.2.2", tmp_path)
    ask(path, "UPDATE worker_queue SET instance_id = NULL, execution_id = NULL, activity_id = NULL")
    found = matrix.Journey(matrix.File(path), ["0.2.2", matrix.OURS], matrix.states_for(["0.2.2"]), tmp_path).run(first=1)
    assert matrix.differing(record.expected("0.2.2"), found) == {}


@pytest.fixture
def running(tmp_path: Path) -> Any:
    """The file of 0.2.2 with two instances of ours, `odd` and `fine`, which wait for "go"; and what starts a runtime on it."""
    path = record.unpack("0.2.2", tmp_path)
    opened: list[Any] = []

    def flow(ctx: Any, input: Any) -> Any:
        return (yield ctx.wait_for_event("go"))

    def run(**options: Any) -> Any:
        provider = duroxide.SqliteProvider.open(str(path))
        runtime = duroxide.Runtime(provider, duroxide.RuntimeOptions(dispatcher_poll_interval_ms=5, **options))
        runtime.register_orchestration("flow", flow)
        runtime.start()
        opened.append((runtime, provider))
        return duroxide.Client(provider)

    def stop() -> None:
        while opened:
            runtime, provider = opened.pop()
            runtime.shutdown(1000)
            provider.close()

    client = run()
    for instance in ("odd", "fine"):
        client.start_orchestration(instance, "flow")
        until(lambda i=instance: [e.kind for e in client.read_execution_history(i, 1)][-1:] == ["ExternalSubscribed"])  # type: ignore[misc]
    stop()
    yield path, run, stop
    stop()


def history_of(path: Path, instance: str) -> list[Any]:
    return ask(path, f"SELECT event_id, event_data FROM history WHERE instance_id = '{instance}' ORDER BY 1")


def test_an_event_of_an_unknown_kind_fails_its_instance_and_no_other(running: Any) -> None:
    path, run, stop = running
    unknown = '{"event_id":3,"source_event_id":null,"instance_id":"odd","execution_id":1,"timestamp_ms":1,"duroxide_version":"0.1.32","type":"Surprise"}'
    ask(path, f"INSERT INTO history (instance_id, execution_id, event_id, event_type, event_data) VALUES ('odd', 1, 3, 'Surprise', '{unknown}')")
    before = history_of(path, "odd")
    client = run(max_attempts=1)
    for instance in ("odd", "fine"):
        client.raise_event(instance, "go", 1)
    assert client.wait_for_orchestration("fine", 20_000).output == 1
    until(lambda: client.get_status("odd").status == "Failed")
    assert "Surprise" in client.get_status("odd").error
    stop()
    assert history_of(path, "odd")[: len(before)] == before


def test_an_instance_of_a_newer_engine_is_left_alone(running: Any) -> None:
    path, run, stop = running
    ask(path, "UPDATE executions SET duroxide_version_patch = 99 WHERE instance_id = 'odd'")
    before = history_of(path, "odd")
    client = run()
    for instance in ("odd", "fine"):
        client.raise_event(instance, "go", 1)
    assert client.wait_for_orchestration("fine", 20_000).output == 1
    stop()
    assert history_of(path, "odd") == before
    assert ask(path, "SELECT COUNT(*), MAX(attempt_count) FROM orchestrator_queue WHERE instance_id = 'odd'") == [(1, 0)]
