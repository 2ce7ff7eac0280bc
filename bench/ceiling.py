"""The machine's own ceiling: a bare loop of the row writes and commits that durable execution cannot do without.

usage: python ceiling.py PLACE full|normal  -> one line of JSON, operations per second. No engine, no claims, no generators: the same tables and
indexes, the rows of one operation written by prepared statements, `group` operations a transaction. Nothing durable can be faster.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

GROUPS = (1, 8, 32, 48, 256)
CLIENTS = (1, 8)
SECONDS = 0.6

EVENT = '{"event_id":%d,"source_event_id":null,"instance_id":"i","execution_id":1,"timestamp_ms":1764000000000,"duroxide_version":"0.1.32","type":"ActivityScheduled","name":"echo","input":"1"}'
WORK = '{"ActivityExecute":{"instance":"i","execution_id":1,"id":2,"name":"echo","input":"1"}}'
START = '{"StartOrchestration":{"instance":"i","orchestration":"one","input":"1","version":null,"parent_instance":null,"parent_id":null,"execution_id":1}}'

# The rows of one operation. A step in the middle of a chain: its work row goes, two events and the next work row come.
PUT_EVENT = "INSERT INTO history (instance_id, execution_id, event_id, event_type, event_data) VALUES (?, 1, ?, 'ActivityScheduled', ?)"
PUT_WORK = (
    "INSERT INTO worker_queue (id, work_item, lock_token, locked_until, attempt_count, visible_at, instance_id, execution_id, activity_id)"
    " VALUES (?, ?, 'lock_a:1', 1, 1, 1, ?, 1, ?)"
)
DROP_WORK = "DELETE FROM worker_queue WHERE id = ?"
PUT_START = "INSERT INTO orchestrator_queue (instance_id, work_item, visible_at) VALUES (?, ?, 1)"


def rate(group: int, write: Callable[[int, int], None]) -> float:
    """Operations per second of `write(first, last)`, one transaction each time."""
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        write(done, done + group)
        done += group
    return done / (time.perf_counter() - began)


def on_sqlite(place: str, synchronous: str) -> dict[str, float]:
    import apsw

    import duroxide

    found = {}
    for group in GROUPS:
        path = str(Path(place) / f"{group}.db")
        duroxide.SqliteProvider.open(path).close()  # for its tables and indexes
        db = apsw.Connection(path)
        for pragma in ("journal_mode = wal", f"synchronous = {synchronous}", "wal_autocheckpoint = 4000", "cache_size = -64000"):
            db.execute(f"PRAGMA {pragma}").fetchall()

        def step(first: int, last: int, db: Any = db) -> None:
            # One chain a place in the group, so that each instance's events are appended as a real one's are.
            size = last - first
            rows = [(f"instance-{n - first}", n // size) for n in range(first, last)]
            db.execute("BEGIN IMMEDIATE")
            if first:
                db.executemany(DROP_WORK, [(n - size,) for n in range(first, last)])
            db.executemany(PUT_EVENT, [(name, 2 * at + k, EVENT % at) for name, at in rows for k in (0, 1)])
            db.executemany(PUT_WORK, [(n, WORK, f"instance-{n - first}", n) for n in range(first, last)])
            db.execute("COMMIT")

        def start(first: int, last: int, db: Any = db) -> None:
            db.execute("BEGIN IMMEDIATE")
            db.executemany(PUT_START, [(f"i{n}", START) for n in range(first, last)])
            db.execute("COMMIT")

        found[f"step@{group}"] = rate(group, step)
        found[f"start@{group}"] = rate(group, start)
        db.close()
    return found


TABLES = (
    "CREATE TABLE history (instance_id text, execution_id bigint, event_id bigint, event_type text, event_data text,"
    " PRIMARY KEY (instance_id, execution_id, event_id))",
    "CREATE TABLE worker_queue (id bigint PRIMARY KEY, work_item text, lock_token text, locked_until bigint, attempt_count int,"
    " visible_at bigint, instance_id text, execution_id bigint, activity_id bigint)",
    "CREATE TABLE orchestrator_queue (id bigserial PRIMARY KEY, instance_id text, work_item text, visible_at bigint)",
)


def on_postgres(url: str) -> dict[str, float]:
    """The rows travel as arrays, a statement a table, all in one round trip with the commit."""
    import psycopg

    found = {}
    with psycopg.connect(url, autocommit=True) as db:
        for group in GROUPS:
            schema = f"ceiling_{uuid.uuid4().hex[:12]}"
            db.execute(f"CREATE SCHEMA {schema}")
            db.execute(f"SET search_path TO {schema}")
            for table in TABLES:
                db.execute(table)

            def step(first: int, last: int) -> None:
                size, numbers = last - first, range(first, last)
                names = [f"instance-{n - first}" for n in numbers]
                with db.pipeline(), db.transaction():
                    db.execute("DELETE FROM worker_queue WHERE id = ANY(%s)", ([n - size for n in numbers],), prepare=True)
                    db.execute(
                        "INSERT INTO history SELECT i, 1, e, 'ActivityScheduled', d FROM unnest(%s::text[], %s::bigint[], %s::text[]) AS t(i, e, d)",
                        (names * 2, [2 * (n // size) for n in numbers] + [2 * (n // size) + 1 for n in numbers], [EVENT % n for n in numbers] * 2),
                        prepare=True,
                    )
                    db.execute(
                        "INSERT INTO worker_queue SELECT n, w, 'lock_a:1', 1, 1, 1, i, 1, n FROM unnest(%s::bigint[], %s::text[], %s::text[]) AS t(n, w, i)",
                        (list(numbers), [WORK] * size, names),
                        prepare=True,
                    )

            def start(first: int, last: int) -> None:
                with db.pipeline(), db.transaction():
                    db.execute(
                        "INSERT INTO orchestrator_queue (instance_id, work_item, visible_at) SELECT i, w, 1 FROM unnest(%s::text[], %s::text[]) AS t(i, w)",
                        ([f"i{n}" for n in range(first, last)], [START] * (last - first)),
                        prepare=True,
                    )

            found[f"step@{group}"] = rate(group, step)
            found[f"start@{group}"] = rate(group, start)
            db.execute(f"DROP SCHEMA {schema} CASCADE")
    return found


def by_pgbench(url: str) -> dict[str, float]:
    """PostgreSQL's own program, where it is: transactions of one row a second, one client or several; nothing is asked between two."""
    program = os.environ.get("PGBENCH") or shutil.which("pgbench")
    if program is None:
        return {}
    import psycopg

    found, table = {}, f"ceiling_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(url, autocommit=True) as db, tempfile.TemporaryDirectory() as directory:
        db.execute(f"CREATE SCHEMA {table}")
        db.execute(f"CREATE TABLE {table}.rows (id bigserial PRIMARY KEY, filling text)")
        script = Path(directory) / "script"
        script.write_text(f"INSERT INTO {table}.rows (filling) VALUES ('{'x' * 200}');\n")
        for clients in CLIENTS:
            command = [program, "-n", "-M", "prepared", "-c", str(clients), "-j", str(min(clients, 2)), "-T", "2", "-f", str(script), url]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found[f"pgbench@{clients}"] = float(re.findall(r"tps = ([0-9.]+)", said)[-1])
        db.execute(f"DROP SCHEMA {table} CASCADE")
    return found


def main(place: str, synchronous: str) -> None:
    print(json.dumps(on_postgres(place) | by_pgbench(place) if place.startswith("postgres") else on_sqlite(place, synchronous)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
