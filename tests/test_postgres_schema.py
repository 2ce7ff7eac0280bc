"""A PostgreSQL schema: the reference's tables, made once by whoever comes first, adopted, or refused before anything is written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from duroxide.errors import ProviderError
from duroxide.storage import postgres_exchange_sql as hot
from duroxide.storage import postgres_schema as target
from duroxide.storage import postgres_schema_sql as sql
from postgres_server import Server

OURS = {"dx_schema", "dx_peers", "dx_owners"}
RECORDED = json.loads((Path(__file__).parent / "data" / "postgres_reference_schema.json").read_text(encoding="utf-8"))

COLUMNS = (
    "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, replace(pg_get_expr(d.adbin, d.adrelid), %s, '')"
    " FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped LEFT JOIN pg_attrdef d"
    " ON d.adrelid = c.oid AND d.adnum = a.attnum WHERE c.relnamespace = to_regnamespace(%s) AND c.relkind = 'r' ORDER BY 1, a.attnum"
)
CONSTRAINTS = (
    "SELECT t.relname, pg_get_constraintdef(c.oid) FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid"
    " WHERE c.connamespace = to_regnamespace(%s) AND c.contype <> 'n' ORDER BY 1, 2"
)
INDEXES = "SELECT replace(indexdef, %s, '') FROM pg_indexes WHERE schemaname = %s ORDER BY 1"


class Held:
    """What a schema holds, in the form of the recorded file."""

    def __init__(self, server: Server, schema: str) -> None:
        prefix = f"{schema}."
        self.tables: dict[str, list[list[Any]]] = {}
        for table, *column in server.execute(COLUMNS, prefix, schema):
            self.tables.setdefault(table, []).append(column)
        self.constraints = [list(row) for row in server.execute(CONSTRAINTS, schema)]
        self.indexes = [row[0] for row in server.execute(INDEXES, prefix, schema)]
        self.rows = {table: server.execute(f"SELECT * FROM {schema}.{table} ORDER BY 1") for table in self.tables}


def as_the_reference_makes_it(server: Server, schema: str, newest: int = 25) -> None:
    """Its tables and its ledger, from the recording; its functions are its own."""
    server.execute(f"CREATE SCHEMA {schema}")
    with server.connect() as connection:
        connection.execute(f"SET search_path = {schema}")
        for table, columns in RECORDED["tables"].items():
            parts = []
            for name, kind, filled, default in columns:
                serial = bool(default) and default.startswith("nextval")
                parts.append(f"{name} {'bigserial' if serial else kind}" + (" NOT NULL" if filled else ""))
                if default and not serial:
                    parts[-1] += f" DEFAULT {default}"
            keys = [text for name, text in RECORDED["constraints"] if name == table]
            connection.execute(f"CREATE TABLE {table} ({', '.join(parts + keys)})")
        for statement in RECORDED["indexes"]:
            if " UNIQUE " not in statement:
                connection.execute(statement)
        for version, name in RECORDED["ledger"]:
            if version <= newest:
                connection.execute("INSERT INTO _duroxide_migrations (version, name) VALUES (%s, %s)", (version, name))


def prepare(server: Server, schema: str) -> None:
    with psycopg.connect(server.url) as connection:
        target.prepare(connection, schema)


def ours(statements: tuple[str, ...]) -> set[str]:
    return {statement.split()[5] for statement in statements}


def test_a_new_schema_has_the_references_tables(postgres: Server, schema: str) -> None:
    prepare(postgres, schema)
    made = Held(postgres, schema)
    assert {name: made.tables[name] for name in sql.TABLES} == {name: RECORDED["tables"][name] for name in sql.TABLES}
    assert made.tables.keys() - sql.TABLES.keys() == OURS
    assert [c for c in made.constraints if c[0] not in OURS] == [c for c in RECORDED["constraints"] if c[0] in sql.TABLES]
    assert made.rows["dx_schema"][0][0] == target.VERSION


def test_indexes_are_the_references_without_the_two_that_nobody_needs_and_ours(postgres: Server, schema: str) -> None:
    prepare(postgres, schema)
    made = {i for i in Held(postgres, schema).indexes if " dx_" not in i}
    missing = {i for i in RECORDED["indexes"] if "_duroxide_migrations" not in i} - made
    assert made <= set(RECORDED["indexes"])
    assert {i.split(" ON ")[0].split()[-1] for i in missing} == {"idx_history_lookup", "idx_kv_store_execution"}


def test_preparing_again_changes_nothing(postgres: Server, schema: str) -> None:
    prepare(postgres, schema)
    before = vars(Held(postgres, schema))
    prepare(postgres, schema)
    assert vars(Held(postgres, schema)) == before


def test_a_complete_schema_needs_no_right_to_change_it(postgres: Server, schema: str) -> None:
    prepare(postgres, schema)
    with psycopg.connect(postgres.url) as connection:
        connection.execute("SET TRANSACTION READ ONLY")
        connection.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
        connection.commit()
        target.prepare(connection, schema)


OPENER = """
import sys, psycopg
from duroxide.storage.postgres_schema import prepare
with psycopg.connect(sys.argv[1]) as connection:
    print("ready", flush=True)
    sys.stdin.readline()
    prepare(connection, sys.argv[2])
print("done")
"""


def test_sixteen_processes_open_a_new_schema_at_the_same_instant(postgres: Server, schema: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPENER, postgres.url, schema],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(16)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "ready\n", process.communicate()[1]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        said, complained = process.communicate(timeout=60)
        assert (said, process.returncode) == ("done\n", 0), complained
    assert Held(postgres, schema).rows["dx_schema"][0][0] == target.VERSION


class FailsAt:
    """A connection whose n-th statement fails."""

    def __init__(self, connection: psycopg.Connection[Any], n: int) -> None:
        self._connection, self._left = connection, n

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, *arguments: Any) -> Any:
        self._left -= 1
        if self._left == 0:
            self._connection.execute("SELECT 1 / 0")
        return self._connection.execute(*arguments)


def test_a_failure_at_any_statement_leaves_nothing(postgres: Server, schema: str) -> None:
    for n in range(1, 200):
        with psycopg.connect(postgres.url) as connection:
            try:
                target.prepare(FailsAt(connection, n), schema)  # type: ignore[arg-type]
            except ProviderError as error:
                assert "division by zero" in str(error)
                assert postgres.execute("SELECT to_regnamespace(%s)", schema) == [(None,)]
                continue
        break
    assert n > 30 and Held(postgres, schema).tables.keys() > sql.TABLES.keys()


def test_a_schema_of_the_reference_is_adopted_unchanged(postgres: Server, schema: str) -> None:
    as_the_reference_makes_it(postgres, schema)
    postgres.execute(f"INSERT INTO {schema}.kv_store VALUES ('a', 'k', 'v', 1, 5)")
    before = Held(postgres, schema)
    prepare(postgres, schema)
    after = Held(postgres, schema)
    added = [i for i in after.indexes if i not in before.indexes]
    assert {i.split(" ON ")[0].split()[-1] for i in added} == ours(hot.INDEXES + sql.ADMIN_INDEXES) | {f"{table}_pkey" for table in OURS}
    assert set(before.indexes) <= set(after.indexes)
    assert {name: columns for name, columns in after.tables.items() if name not in OURS} == before.tables
    assert {name: rows for name, rows in after.rows.items() if name not in OURS} == before.rows


def test_a_schema_of_an_older_reference_with_all_tables_is_adopted(postgres: Server, schema: str) -> None:
    as_the_reference_makes_it(postgres, schema, newest=20)
    prepare(postgres, schema)
    assert "dx_schema" in Held(postgres, schema).tables


REFUSED = {
    "a newer schema of ours": ("UPDATE {s}.dx_schema SET version = 99", "version 99 of duroxide's schema"),
    "a newer reference": ("INSERT INTO {s}._duroxide_migrations VALUES (26, 'x')", "migration 26 of the reference"),
    "a newer reference in between": ("INSERT INTO {s}._duroxide_migrations VALUES (24, 'x')", "migration 24 of the reference"),
    "a column that must be filled": ("ALTER TABLE {s}.history ADD COLUMN seal text NOT NULL", "column history.seal"),
    "a missing column": ("ALTER TABLE {s}.worker_queue DROP COLUMN tag", "no worker_queue.tag"),
    "a missing table": ("DROP TABLE {s}.kv_delta, {s}.sessions", "no sessions, kv_delta"),
    "no ledger": ("DROP TABLE {s}._duroxide_migrations, {s}.dx_schema", "are not duroxide's"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_known_is_refused_with_nothing_written(postgres: Server, schema: str, case: str) -> None:
    change, text = REFUSED[case]
    as_the_reference_makes_it(postgres, schema)
    prepare(postgres, schema)
    postgres.execute(change.replace("{s}", schema))
    postgres.execute(f"DROP INDEX {schema}.dx_instances_created")  # so that there would be something to complete
    before = vars(Held(postgres, schema))
    with pytest.raises(ProviderError, match="nothing was changed") as caught:
        prepare(postgres, schema)
    assert text in str(caught.value) and f"schema '{schema}'" in str(caught.value)
    assert vars(Held(postgres, schema)) == before


def test_a_column_that_may_stay_empty_is_left_alone(postgres: Server, schema: str) -> None:
    prepare(postgres, schema)
    postgres.execute(f"ALTER TABLE {schema}.history ADD COLUMN note text, ADD COLUMN kind text NOT NULL DEFAULT 'x'")
    prepare(postgres, schema)


def test_somebody_elses_tables_are_not_touched(postgres: Server, schema: str) -> None:
    postgres.execute(f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.sessions (id text PRIMARY KEY, cookie text NOT NULL)")
    with pytest.raises(ProviderError, match=r"tables \(sessions\) that are not duroxide's.*connect_with_schema"):
        prepare(postgres, schema)
    assert Held(postgres, schema).tables.keys() == {"sessions"}


def test_other_tables_beside_ours_do_no_harm(postgres: Server, schema: str) -> None:
    postgres.execute(f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.orders (id text PRIMARY KEY, total int NOT NULL)")
    prepare(postgres, schema)
    prepare(postgres, schema)
    assert Held(postgres, schema).tables.keys() == {"orders", *OURS, *sql.TABLES}


def test_the_lock_is_the_references(postgres: Server, schema: str) -> None:
    """It holds it at session level while it migrates; meanwhile we wait."""
    with postgres.connect() as other, psycopg.connect(postgres.url) as connection:
        other.execute("SELECT pg_advisory_lock(%s)", (target.lock_key(schema),))
        connection.execute("SET lock_timeout = 100")
        connection.commit()
        refused = next(i for i, s in enumerate(sql.PATIENT) if "lock_timeout" in s)
        assert sql.PATIENT[refused] == "SET LOCAL lock_timeout = 0"
        with pytest.MonkeyPatch.context() as patch, pytest.raises(ProviderError, match="lock timeout"):
            patch.setattr(sql, "PATIENT", ())
            target.prepare(connection, schema)
        other.execute("SELECT pg_advisory_unlock_all()")
        target.prepare(connection, schema)


@pytest.mark.parametrize("name", ["", "1a", "a b", "a-b", 'a"b', "a.b", "é", "a;drop table x", "a\n", "a\0", "ａ"])
def test_a_name_that_is_no_identifier_is_refused_in_the_references_words(name: str) -> None:
    with pytest.raises(ProviderError) as caught:
        target.quoted(name)
    assert str(caught.value) == (
        f"Failed to connect to PostgreSQL: Invalid schema_name '{name}': must match [A-Za-z_][A-Za-z0-9_]*"
    )


def test_a_name_is_folded_and_quoted() -> None:
    assert target.quoted("Orders_2") == '"orders_2"'
    assert target.quoted("select") == '"select"'


def test_a_name_that_the_server_would_cut_is_refused() -> None:
    assert target.folded("a" * 63) == "a" * 63
    with pytest.raises(ProviderError, match=f"64 characters, PostgreSQL keeps 63: pass '{'a' * 63}'"):
        target.folded("a" * 64)


def test_a_reserved_word_is_a_schema(postgres: Server) -> None:
    try:
        prepare(postgres, "Select")
        assert "instances" in {row[0] for row in postgres.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'select'")}
    finally:
        postgres.execute('DROP SCHEMA IF EXISTS "select" CASCADE')


REFERENCE = "import duroxide, sys; duroxide.PostgresProvider.connect_with_schema(sys.argv[1], sys.argv[2])"


def reference_opens(server: Server, schema: str) -> str:
    """What the reference complains of, "" if nothing."""
    python = os.environ.get("DUROXIDE_ORACLE")
    if not python:
        pytest.skip("needs DUROXIDE_ORACLE=path of a python that has the reference")
    url = server.url.replace(":@/", ":@localhost/")
    done = subprocess.run([python, "-c", REFERENCE, url, schema], capture_output=True, text=True, timeout=120, check=False, cwd="/")
    return done.stderr


@pytest.mark.oracle
def test_what_the_reference_makes_is_as_recorded_and_stays_usable_for_it(postgres: Server, schema: str) -> None:
    assert reference_opens(postgres, schema) == ""
    made = Held(postgres, schema)
    assert made.tables == RECORDED["tables"] and made.indexes == RECORDED["indexes"] and made.constraints == RECORDED["constraints"]
    assert [list(row[:2]) for row in made.rows["_duroxide_migrations"]] == RECORDED["ledger"]
    prepare(postgres, schema)
    assert reference_opens(postgres, schema) == ""


@pytest.mark.oracle
def test_the_reference_leaves_a_schema_of_ours_alone(postgres: Server, schema: str) -> None:
    prepare(postgres, schema)
    before = vars(Held(postgres, schema))
    assert "refusing" in reference_opens(postgres, schema)
    assert vars(Held(postgres, schema)) == before


@pytest.mark.oracle
def test_the_reference_waits_for_our_lock(postgres: Server, schema: str) -> None:
    python = os.environ.get("DUROXIDE_ORACLE") or pytest.skip("needs DUROXIDE_ORACLE=path of a python that has the reference")
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with postgres.connect() as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (target.lock_key(schema),))
        process = subprocess.Popen([python, "-c", REFERENCE, postgres.url.replace(":@/", ":@localhost/"), schema], cwd="/")
        deadline = time.monotonic() + 20
        while postgres.execute(waiting) == [(0,)]:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        connection.execute("SELECT pg_advisory_unlock_all()")
    assert process.wait(60) == 0
