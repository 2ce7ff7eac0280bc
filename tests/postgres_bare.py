"""The cold calls on a schema over one plain connection: what they need of a provider and nothing else.

Owns rows of every kind, the same for PostgreSQL and for SQLite, so that answers can be compared.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import psycopg

from duroxide.storage import postgres_schema
from duroxide.storage.postgres_admin import PostgresAdmin

START = 1_800_000_000_000
Rows = dict[str, list[tuple[Any, ...]]]


class Bare(PostgresAdmin):
    """One connection; `failures` are raised one by one before a transaction, `at_commit` at its end."""

    def __init__(self, url: str, schema: str) -> None:
        self.schema = schema
        self.connection = psycopg.connect(url, autocommit=True)
        self.seen: list[str] = []
        self.failures: list[Exception] = []
        self.at_commit: list[Exception] = []
        postgres_schema.prepare(self.connection, schema)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[psycopg.Connection[Any]]:
        if self.failures:
            raise self.failures.pop(0)
        with self.connection.transaction():
            yield self.connection
        if self.at_commit:
            raise self.at_commit.pop(0)

    reading = _transaction

    @contextlib.contextmanager
    def writing(self) -> Iterator[psycopg.Connection[Any]]:
        with self._transaction() as connection:
            yield connection

    def sql(self, template: str) -> str:
        self.seen.append(template)
        return template.replace("{s}", f'"{self.schema}"')

    def close(self) -> None:
        self.connection.close()


# Columns in the order of the rows below, times in ms.
COLUMNS = {
    "instances": "instance_id, orchestration_name, orchestration_version, current_execution_id, created_at, updated_at, parent_instance_id",
    "executions": "instance_id, execution_id, status, output, started_at, completed_at",
    "history": "instance_id, execution_id, event_id, event_type, event_data, created_at",
    "kv_store": "instance_id, key, value, execution_id",
    "kv_delta": "instance_id, key, value, last_updated_at_ms",
    "orchestrator_queue": "instance_id, work_item, visible_at, lock_token, created_at",
    "worker_queue": "instance_id, work_item, visible_at, lock_token, session_id, created_at",
    "sessions": "session_id, worker_id, locked_until, last_activity_at",
    "instance_locks": "instance_id, lock_token, locked_until, locked_at",
}  # fmt: skip
TIMES = {"created_at", "updated_at", "started_at", "completed_at", "visible_at"}
KEEP_MS = {"worker_queue": {"visible_at"}, "orchestrator_queue": {"visible_at"}, "executions": {"completed_at"}}  # numbers on SQLite too
ONLY_HERE = {"kv_store": {"execution_id"}}


def rows(seed: int, instances: int) -> Rows:
    """Trees of instances with several executions each, no two born in the same second."""
    random_of = random.Random(seed)
    made: Rows = {table: [] for table in COLUMNS}
    for n in range(instances):
        id = f"i{n}"
        at = START + n * 10_000
        parent = f"i{random_of.randrange(n)}" if n and random_of.random() < 0.5 else None
        current = random_of.randint(1, 4)
        made["instances"].append((id, f"flow{n % 3}", "1.0.0", current, at, at + current * 1_000, parent))
        for execution in range(1, current + 1):
            status = random_of.choice(["Running", "Completed", "Completed", "Failed"]) if execution == current else "ContinuedAsNew"
            began, ended = at + execution * 1_000, None if status == "Running" else at + execution * 1_000 + 500
            made["executions"].append((id, execution, status, None if status == "Running" else f'"{n}"', began, ended))
            carried = ', "carry_forward_events": [["a", "1"], ["b", "2"]]' if random_of.random() < 0.3 else ""
            for event in range(1, random_of.randint(1, 6)):
                made["history"].append((id, execution, event, "Event", f'{{"event_id": {event}{carried}}}', began))
        for key in range(random_of.randint(0, 3)):
            made["kv_store"].append((id, f"k{key}", f'"{n}"', current))
        for key in range(random_of.randint(0, 3)):
            made["kv_delta"].append((id, f"k{key + 1}", random_of.choice([None, '"changed"']), at))
        for _ in range(random_of.randint(0, 2)):
            made["orchestrator_queue"].append((id, "{}", at, random_of.choice([None, "lock_a:1"]), at))
            made["worker_queue"].append((id, "{}", at, random_of.choice([None, "lock_a:1"]), random_of.choice([None, "s1", "s2", id]), at))
        if random_of.random() < 0.3:
            made["instance_locks"].append((id, "lock_a:1", at, at))
            made["sessions"].append((id, "a", at, at))
    made["sessions"] += [("s1", "a", 0, 0), ("s2", "a", 0, 0)]
    return made


def fill_postgres(connection: psycopg.Connection[Any], schema: str, made: Rows) -> None:
    for table, names in COLUMNS.items():
        columns = names.split(", ")
        places = ", ".join("to_timestamp(%s / 1000.0)" if name in TIMES else "%s" for name in columns)
        with connection.cursor() as cursor:
            cursor.executemany(f'INSERT INTO "{schema}".{table} ({names}) VALUES ({places})', made[table])


def fill_sqlite(connection: Any, made: Rows) -> None:
    """`connection` is APSW's."""
    for table, names in COLUMNS.items():
        columns = names.split(", ")
        kept = [(i, name) for i, name in enumerate(columns) if name not in ONLY_HERE.get(table, ())]
        places = ", ".join(
            "strftime('%Y-%m-%d %H:%M:%f', ? / 1000.0, 'unixepoch')" if name in TIMES - KEEP_MS.get(table, set()) else "?"
            for _, name in kept
        )
        sql = f"INSERT INTO {table} ({', '.join(name for _, name in kept)}) VALUES ({places})"
        connection.executemany(sql, [tuple(row[i] for i, _ in kept) for row in made[table]])
