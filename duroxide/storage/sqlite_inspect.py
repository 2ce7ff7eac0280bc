"""A look at a SQLite file that changes nothing: no log is made, no schema adopted, no lock kept.

Owns how such a file is opened. A file that processes use is read beside them; one with a log that nobody uses is read from a copy, as
reading it in place would make a file beside it; else the file alone is read.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

import apsw

from duroxide.errors import ProviderError
from duroxide.storage import doctor_sql, inspect_sql, sqlite_schema

READ = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI


class SqliteLook:
    """`facts`: what the file says of itself; `ask`: the rows of one of `inspect_sql.QUESTIONS`; the rest is for the doctor.

    Texts that are no UTF-8 come with their bytes as lone surrogates.
    """

    owners: frozenset[str] | None = None  # who lives is not told by the file

    def __init__(self, connection: apsw.Connection, path: str, now: int) -> None:
        self._connection, self._now = connection, now
        self.facts: dict[str, Any] = _facts(connection, path)

    def ask(self, name: str) -> list[tuple[Any, ...]]:
        sql = inspect_sql.rendered(name, "", str, "event_type", self._now)
        return self._connection.execute(sql).fetchall()

    def stream(self, name: str) -> Iterator[tuple[Any, ...]]:
        """The rows of one of `doctor_sql.STREAMS`, or of another statement there."""
        sql = doctor_sql.rendered(
            doctor_sql.STREAMS.get(name, name), text="CAST({} AS BLOB)".format, ms=str, s="", c="", w="typeof(instance_id) = 'text'"
        )
        for row in self._connection.execute(sql):
            yield tuple(each.decode("utf-8", "surrogateescape") if isinstance(each, bytes) else each for each in row)

    def whereabouts(self, ids: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        asked = "(SELECT value AS id FROM json_each(?))"
        sql = doctor_sql.rendered(doctor_sql.WHEREABOUTS, text=str, ms=str, s="", asked=asked)
        yield from self._connection.execute(sql, (json.dumps(list(ids)),))

    def damage(self) -> Iterator[tuple[str, str, str]]:
        """(table, row, what is wrong) of what SQLite itself finds, and of rows whose instance has no text for its id."""
        for (said,) in self._connection.execute("PRAGMA integrity_check(100)"):
            if said != "ok":
                yield "", "", str(said)
        for table in doctor_sql.TABLES:
            for row_id, kind in self._connection.execute(doctor_sql.MISTYPED.format(table=table)):
                yield table, str(row_id), f"its instance_id is a {kind}"


@contextlib.contextmanager
def look(path: str, now: int) -> Iterator[SqliteLook]:
    """ProviderError, with path and reason, for what is no database of duroxide or cannot be read."""
    if not os.path.isfile(path):
        raise ProviderError(f"'{path}' is not there or is no file: give the path of a database that exists, or a postgres:// URL")
    try:
        with _opened(path) as connection:
            yield SqliteLook(connection, path, now)
    except (apsw.Error, OSError) as error:
        raise ProviderError(f"'{path}' cannot be read: {error}; nothing was changed") from error


@contextlib.contextmanager
def _opened(path: str) -> Iterator[apsw.Connection]:
    log, shared = (os.path.exists(path + suffix) and os.path.getsize(path + suffix) for suffix in ("-wal", "-shm"))
    with contextlib.ExitStack() as stack:
        mode = "ro"
        if log and not shared:  # left by a kill, or copied: nobody has it open
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="duroxide-inspect-"))
            copy = os.path.join(directory, "copy.db")
            for suffix in ("", "-wal"):
                shutil.copyfile(path + suffix, copy + suffix)
            path, mode = copy, "rw"
        elif not shared and not os.path.exists(path + "-journal"):
            mode = "ro&immutable=1"
        flags = READ if mode != "rw" else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI
        connection = apsw.Connection(f"file:{quote(os.path.abspath(path))}?mode={mode}", flags=flags)
        stack.callback(connection.close)
        connection.set_busy_timeout(5_000)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.execute("BEGIN")  # one snapshot for all answers
        yield connection


def _facts(connection: apsw.Connection, path: str) -> dict[str, Any]:
    names = {str(name) for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if "history" not in names or "orchestrator_queue" not in names:
        raise ProviderError(f"'{path}' has no tables of duroxide: it is a SQLite database of something else, or nothing was stored yet")
    newest, made_there = 0, False
    if "_sqlx_migrations" in names:
        rows = connection.execute("SELECT version, execution_time FROM _sqlx_migrations").fetchall()
        newest, made_there = max((int(str(v)) for v, _ in rows), default=0), any(took for _, took in rows)
    newer = newest > sqlite_schema.NEWEST
    try:
        complete, why = sqlite_schema.check(connection, path), ""
    except ProviderError as error:
        complete, why = False, str(error)
    return {
        "kind": "sqlite", "where": path, "made_by": "the reference" if made_there else "this package",
        "opened_by_this_package": any(name.startswith("dx_") for name in names),
        "schema": newest or None, "schema_known": sqlite_schema.NEWEST,
        "usable_here": not why, "usable_here_why": why or ("as it is" if complete else "opening it adds what it lacks (at least indexes)"),
        "usable_by_reference": not newer, "usable_by_reference_why": "the schema is newer than 0.2.2 knows" if newer else "0.2.2 knows this schema",
    }  # fmt: skip
