"""A look at a PostgreSQL schema that changes nothing: one read-only transaction."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

from duroxide.errors import ProviderError
from duroxide.storage import doctor_sql, inspect_sql, postgres_schema, postgres_schema_sql as sql
from duroxide.storage.base import PARKED
from duroxide.storage.postgres_connect import Address

# What the reference calls by name in its schema; it makes them, this package does not.
CALLED = frozenset(("fetch_orchestration_item", "ack_orchestration_item", "fetch_work_item", "ack_worker", "enqueue_orchestrator_work"))


class PostgresLook:
    """`facts`: what the schema says of itself; `ask`: the rows of one of `inspect_sql.QUESTIONS`; the rest is for the doctor."""

    def __init__(self, connection: psycopg.Connection[Any], where: str, schema: str, now: int) -> None:
        self._connection, self._schema, self._now = connection, postgres_schema.quoted(schema), now
        self._cursors = itertools.count()
        self.facts: dict[str, Any] = _facts(connection, where, postgres_schema.folded(schema))
        self.owners: frozenset[str] | None = None  # those that announced themselves; None where only the reference works
        if self.facts["opened_by_this_package"]:
            self.owners = frozenset(row[0] for row in connection.execute(f"SELECT owner FROM {self._schema}.dx_owners"))

    def ask(self, name: str) -> list[tuple[Any, ...]]:
        text = inspect_sql.rendered(name, f"{self._schema}.", _ms, "(event_data::json ->> 'type')", self._now)
        return self._connection.execute(text).fetchall()

    def stream(self, name: str) -> Iterator[tuple[Any, ...]]:
        """The rows of one of `doctor_sql.STREAMS`, or of another statement there; the server keeps those that are not fetched yet."""
        sql = doctor_sql.STREAMS.get(name, name)
        where = "instance_id IS NOT NULL" if name == "work" else "true"
        text = doctor_sql.rendered(sql, text=str, ms=_ms, s=f"{self._schema}.", c=' COLLATE "C"', w=where)
        with self._connection.cursor(name=f"doctor_{next(self._cursors)}") as cursor:
            cursor.itersize = 500
            yield from cursor.execute(text)

    def whereabouts(self, ids: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        sql = doctor_sql.WHEREABOUTS.replace("%", "%%")
        text = doctor_sql.rendered(sql, text=str, ms=_ms, s=f"{self._schema}.", asked="(SELECT unnest(%s::text[]) AS id)")
        yield from self._connection.execute(text, (list(ids),))

    def damage(self) -> Iterator[tuple[str, str, str]]:
        """Nothing: the server looks after its pages and types itself."""
        return iter(())


def _ms(column: str) -> str:
    return f"CASE WHEN {column} = 'infinity' THEN {PARKED} ELSE (extract(epoch FROM {column}) * 1000)::bigint END"


@contextlib.contextmanager
def look(url: str, schema: str, now: int) -> Iterator[PostgresLook]:
    """ProviderError, with place and reason, where nobody answers or the schema holds nothing of duroxide."""
    address = Address(url)
    try:
        with address.connect(autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = on")
            with connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                yield PostgresLook(connection, address.place, schema, now)
    except psycopg.Error as error:
        raise ProviderError(f"{address.place} cannot be read: {str(error).strip()}; nothing was changed") from error


def _facts(connection: psycopg.Connection[Any], where: str, schema: str) -> dict[str, Any]:
    found = postgres_schema.Found(connection, schema)
    if found.empty:
        raise ProviderError(f"schema '{schema}' of {where} has no tables of duroxide: name the schema with --schema")
    why = ""
    try:
        found.check()
    except ProviderError as error:
        why = str(error)
    there = {str(row[0]) for row in connection.execute(sql.FUNCTIONS, (schema,))}
    theirs = bool(found.reference) and there >= CALLED and not found.reference - sql.REFERENCE_VERSIONS
    return {
        "kind": "postgresql", "where": f"{where}, schema {schema}",
        "made_by": "the reference" if found.reference else "this package", "opened_by_this_package": bool(found.ours),
        "schema": max(found.reference or found.ours, default=None), "schema_known": max(sql.REFERENCE_VERSIONS) if found.reference else postgres_schema.VERSION,
        "usable_here": not why, "usable_here_why": why or ("as it is" if found.complete else "opening it adds what it lacks (at least indexes)"),
        "usable_by_reference": theirs,
        "usable_by_reference_why": "0.2.2 knows this schema" if theirs else "it lacks the functions that the reference makes in its own schemas and calls",
    }  # fmt: skip
