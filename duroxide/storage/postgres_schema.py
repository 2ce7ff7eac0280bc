"""The tables in a PostgreSQL schema: made where there are none, adopted where the reference or we made them, refused otherwise.

Owns the name of the schema, the lock under which it is made and the two ledgers (the reference's is read, never written).
Everything is one transaction.
"""

from __future__ import annotations

import re
from typing import Any

import psycopg

from duroxide.errors import ProviderError
from duroxide.storage import postgres_exchange_sql as hot, postgres_schema_sql as sql

VERSION = 1
_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_LONGEST = 63  # PostgreSQL cuts longer names without an error, so that two names could mean one schema


def folded(schema: str) -> str:
    """The schema that a name means: unquoted names are lower case in PostgreSQL, and the reference does not quote. ProviderError if invalid."""
    if not _NAME.fullmatch(schema):
        raise ProviderError(f"Failed to connect to PostgreSQL: Invalid schema_name '{schema}': must match {_NAME.pattern}")
    if len(schema) > _LONGEST:
        raise ProviderError(
            f"Failed to connect to PostgreSQL: Invalid schema_name '{schema}': has {len(schema)} characters, PostgreSQL keeps {_LONGEST}:"
            f" pass '{schema[:_LONGEST]}' if that is the one"
        )
    return schema.lower()


def quoted(schema: str) -> str:
    """What `{s}` in a statement is replaced by."""
    return f'"{folded(schema)}"'


def prepare(connection: psycopg.Connection[Any], schema: str) -> None:
    """Make, adopt or complete the schema, in one transaction; a few reads where it is complete.

    ProviderError, with nothing written, for tables of somebody else's, for those of a newer version and for what the server refuses.
    """
    name = folded(schema)
    try:
        with connection.transaction():
            if Found(connection, name).complete:
                return
        with connection.transaction():
            _install(connection, name)
    except psycopg.Error as error:
        raise ProviderError(f"Failed to connect to PostgreSQL: schema '{name}' could not be prepared: {error}") from error


def lock_key(schema: str) -> int:
    """The advisory lock under which a schema is made: the reference's own, so that one never sees the other halfway."""
    key = 0xCBF29CE484222325  # FNV-1a, 64 bits
    for byte in f"duroxide_pg:migrations:{schema}".encode():
        key = (key ^ byte) * 0x100000001B3 % (1 << 64)
    return key - (1 << 64) if key >> 63 else key


class Found:
    """What a schema holds now."""

    def __init__(self, connection: psycopg.Connection[Any], schema: str) -> None:
        self.schema = schema
        self.tables: dict[str, dict[str, bool]] = {}  # table -> column -> must be filled
        for table, column, must in connection.execute(sql.COLUMNS, (schema,)):
            self.tables.setdefault(table, {})[column] = must
        self.ours: set[int] = self._ledger(connection, sql.LEDGER, sql.APPLIED)
        self.reference: set[int] = self._ledger(connection, sql.REFERENCE_LEDGER, sql.REFERENCE_APPLIED)
        indexes = {str(row[0]) for row in connection.execute(sql.INDEXES, (schema,))}
        wanted = {statement.split()[5] for statement in (*hot.INDEXES, *sql.ADMIN_INDEXES)}
        functions = {str(row[0]) for row in connection.execute(sql.FUNCTIONS, (schema,))}
        self.missing: list[str] = [
            table if table not in self.tables else f"{table}.{column}"
            for table, (columns, _) in sql.TABLES.items()
            for column, _ in columns
            if column not in self.tables.get(table, ())
        ]
        there = not self.missing and "announced_at" in self.tables.get("dx_owners", ()) and wanted <= indexes and functions.issuperset(hot.NAMES)
        self.complete: bool = max(self.ours, default=0) == VERSION and there and not self.newer()

    def _ledger(self, connection: psycopg.Connection[Any], table: str, statement: str) -> set[int]:
        if table not in self.tables:
            return set()
        return {int(row[0]) for row in connection.execute(statement.replace("{s}", quoted(self.schema)))}

    def newer(self) -> str:
        """What shows that a newer version than this one was here, or ""."""
        if max(self.ours, default=0) > VERSION:
            return f"version {max(self.ours)} of duroxide's schema, this duroxide knows versions up to {VERSION}"
        if unknown := sorted(self.reference - sql.REFERENCE_VERSIONS):
            return f"migration {unknown[-1]} of the reference, this duroxide knows those up to {max(sql.REFERENCE_VERSIONS)}"
        for table, (columns, _) in sql.TABLES.items():
            known = {name for name, _ in columns}
            for column, must in self.tables.get(table, {}).items():
                if must and column not in known and (self.ours or self.reference):
                    return f"a column {table}.{column} that this duroxide does not know and must not leave empty"
        return ""

    @property
    def empty(self) -> bool:
        return not (self.ours or self.reference or any(table in self.tables for table in sql.TABLES))

    def check(self) -> None:
        """ProviderError if this is nothing to adopt."""
        where = f"Failed to connect to PostgreSQL: schema '{self.schema}' has"
        if newer := self.newer():
            raise ProviderError(f"{where} {newer}: connect with the newer version that wrote it; nothing was changed")
        if self.empty or ((self.ours or self.reference) and not self.missing):
            return
        if not self.ours and not self.reference:
            found = ", ".join(sorted(self.tables.keys() & sql.TABLES.keys()))
            raise ProviderError(
                f"{where} tables ({found}) that are not duroxide's: it has no ledger;"
                " give duroxide a schema of its own with connect_with_schema(url, schema); nothing was changed"
            )
        raise ProviderError(
            f"{where} no {', '.join(dict.fromkeys(self.missing))}, which its ledger says it should: if an older duroxide made it,"
            " connect once with duroxide 0.2.2, which completes it; nothing was changed"
        )


def _install(connection: psycopg.Connection[Any], name: str) -> None:
    connection.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")  # or what others commit while we wait would stay unseen
    for statement in sql.PATIENT:
        connection.execute(statement)
    connection.execute(sql.LOCK, (lock_key(name),))
    found = Found(connection, name)
    if found.complete:
        return  # another process was faster
    found.check()

    def run(statement: str, *values: Any) -> None:
        connection.execute(hot.filled(statement, name, bool(found.reference)), values or None)

    if not connection.execute(sql.SCHEMA_EXISTS, (name,)).fetchone():
        run(sql.CREATE_SCHEMA)
    if found.empty:
        for table, (columns, key) in sql.TABLES.items():
            run(f"CREATE TABLE {{s}}.{table} ({', '.join([f'{column} {kind}' for column, kind in columns] + [key])})")
        for statement in sql.REFERENCE_INDEXES:
            run(statement)
    for statement in (*hot.TABLES, *hot.INDEXES, *sql.ADMIN_INDEXES, sql.LEDGER_TABLE, *hot.FUNCTIONS):
        run(statement)
    run(sql.STAMP, VERSION)
