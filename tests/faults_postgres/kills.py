"""One trial on a PostgreSQL schema: workers that die where they are told, until one gets to the end (`faults.trial`).

Owns how a schema is emptied between trials and brought back to the state that a death left, and when a dead process's sessions are gone.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from doctored import healthy
from faults.checks import Wrong
from faults.trial import Trial, Zygote

from duroxide.storage.postgres import open_postgres
from postgres_server import Server

TABLES = (
    "instances", "executions", "history", "orchestrator_queue", "worker_queue", "instance_locks", "sessions", "kv_store", "kv_delta", "dx_peers",
    "dx_owners",
)  # fmt: skip
NAME = "duroxide-doomed"


class Ground:
    """A schema for one trial after the other."""

    def __init__(self, server: Server, schema: str) -> None:
        self.path = json.dumps([psycopg.conninfo.make_conninfo(server.url, application_name=NAME), schema])
        self.server, self.schema = server, schema
        self.native = open_postgres(server.url, schema)
        self.connection = server.connect()
        self.connection.execute(f'SET search_path = "{schema}"')

    def close(self) -> None:
        self.native.close()
        self.connection.close()

    def quiet(self) -> None:
        """Wait until no session of a worker is left."""
        deadline = time.monotonic() + 30
        while self.connection.execute("SELECT 1 FROM pg_stat_activity WHERE application_name = %s LIMIT 1", [NAME]).fetchone():
            assert time.monotonic() < deadline, "a dead worker's session goes on"
            time.sleep(0.002)

    def clear(self) -> None:
        self.quiet()
        self.connection.execute(f"TRUNCATE {', '.join(TABLES)}")

    def saved(self) -> dict[str, bytes]:
        self.quiet()
        found = {}
        for table in TABLES:
            with self.connection.cursor().copy(f"COPY {table} TO STDOUT") as out:
                found[table] = b"".join(bytes(part) for part in out)
        return found

    def restore(self, saved: dict[str, bytes]) -> None:
        self.clear()
        for table, rows in saved.items():
            with self.connection.cursor().copy(f"COPY {table} FROM STDIN") as into:
                into.write(rows)


class PostgresTrial(Trial):
    """`hasty`: the next worker begins while the sessions of the dead one may still be at work."""

    def __init__(
        self, ground: Ground, zygote: Zygote, directory: Path, mode: str = "steps", bug: str | None = None, hasty: bool = False, kept: Any = None
    ) -> None:
        super().__init__(zygote, directory, "postgres", mode, bug)
        self.ground, self.hasty, self.path, self.kept = ground, hasty, ground.path, kept
        if kept is None:
            ground.clear()

    @contextlib.contextmanager
    def opened(self) -> Iterator[Any]:
        if not self.hasty:
            self.ground.quiet()
        yield self.ground.native

    def check_health(self, now: int | None) -> None:
        self.ground.quiet()
        healthy(self.ground.server.url, self.ground.schema, now, Wrong)

    def copy(self, directory: Path) -> PostgresTrial:
        """The same schema, brought back to the moment of the first copy: one of them at a time."""
        if self.kept is None:
            self.kept = self.ground.saved()
        shutil.copytree(self.directory, directory)
        self.ground.restore(self.kept)
        other = PostgresTrial(self.ground, self.zygote, directory, self.mode, self.bug, self.hasty, self.kept)
        other.deaths, other.before = self.deaths, self.before
        return other
