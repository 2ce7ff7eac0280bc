"""`PostgresProvider` as users hold it: an orchestration from start to end, closing, options, signing in, what is missing."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

import duroxide
from duroxide import PostgresEntraOptions, PostgresProvider
from postgres_server import Server

ROOT = Path(__file__).resolve().parent.parent


def greet(ctx: Any, name: str) -> str:
    return f"Hello, {name}!"


def hello(ctx: Any, name: str) -> Any:
    return (yield ctx.schedule_activity("greet", name))


def run(provider: PostgresProvider, instance: str = "hello-1") -> Any:
    """What the smallest useful program gives on it."""
    runtime = duroxide.Runtime(provider)
    runtime.register_activity("greet", greet)
    runtime.register_orchestration("hello", hello)
    runtime.start()
    try:
        client = duroxide.Client(provider)
        client.start_orchestration(instance, "hello", "Ada")
        return client.wait_for_orchestration(instance, 20_000).output
    finally:
        runtime.shutdown(1_000)


def test_a_program_runs_on_a_schema_and_leaves_its_history_there(postgres: Server, schema: str) -> None:
    provider = PostgresProvider.connect_with_schema(postgres.url, schema.upper())
    assert (provider.name, provider.schema) == ("postgres", schema)
    assert run(provider) == "Hello, Ada!"
    provider.close()
    again = PostgresProvider.connect_with_schema(postgres.url, schema)
    client = duroxide.Client(again)
    assert client.get_status("hello-1").output == "Hello, Ada!"
    info = client.get_instance_info("hello-1")
    assert abs(info.created_at - time.time() * 1_000) < 60_000 and info.created_at <= info.updated_at
    again.close()


def test_the_schema_of_connect_is_public(postgres: Server) -> None:
    with postgres.database() as url:
        provider = PostgresProvider.connect(url)
        try:
            assert provider.schema == "public" and run(provider) == "Hello, Ada!"
        finally:
            provider.close()


def test_after_close_calls_say_so(postgres: Server, schema: str) -> None:
    provider = PostgresProvider.connect_with_schema(postgres.url, schema)
    client = duroxide.Client(provider)
    provider.close()
    provider.close()
    for call in (client.list_all_instances, lambda: client.start_orchestration("i", "o"), lambda: client.get_status("i")):
        with pytest.raises(RuntimeError, match="is closed"):
            call()
    mine = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE %s"
    deadline = time.monotonic() + 10
    while postgres.execute(mine, f"duroxide {provider._native.peer}%") != [(0,)]:
        assert time.monotonic() < deadline, "connections stay open"
        time.sleep(0.01)


@pytest.mark.parametrize("by", ["option", "environment"])
def test_connections_are_bounded(postgres: Server, schema: str, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if by == "environment":
        monkeypatch.setenv("DUROXIDE_PG_POOL_MAX", "4")
    provider = PostgresProvider.connect_with_schema(postgres.url, schema, max_connections=4 if by == "option" else None)
    try:
        threads = [duroxide.Client(provider) for _ in range(16)]
        most = 0
        import concurrent.futures

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            asked = [pool.submit(lambda c=client: [c.list_all_instances() for _ in range(40)]) for client in threads]
            while not all(each.done() for each in asked):
                [(count,)] = postgres.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE %s", f"duroxide {provider._native.peer}%")
                most = max(most, count)
            assert [each.result() for each in asked]
        assert 1 <= most <= 4
    finally:
        provider.close()


def test_a_name_of_the_users_own_stays(postgres: Server, schema: str) -> None:
    url = psycopg.conninfo.make_conninfo(postgres.url, application_name="orders-service")
    provider = PostgresProvider.connect_with_schema(url, schema)
    duroxide.Client(provider).list_all_instances()
    assert postgres.execute("SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'orders-service'") == [(True,)]
    provider.close()


def test_a_bad_schema_is_said_in_the_references_words(postgres: Server) -> None:
    with pytest.raises(duroxide.ProviderError) as caught:
        PostgresProvider.connect_with_schema(postgres.url, "bad schema")
    assert str(caught.value) == "Failed to connect to PostgreSQL: Invalid schema_name 'bad schema': must match [A-Za-z_][A-Za-z0-9_]*"


def test_a_server_that_is_not_there_is_waited_for_as_long_as_asked() -> None:
    began = time.monotonic()
    with pytest.raises(duroxide.ProviderError, match="^Failed to connect to PostgreSQL: pool timed out while waiting for an open connection"):
        PostgresProvider.connect("postgres://127.0.0.1:1/x", acquire_timeout_ms=100)
    assert time.monotonic() - began < 20


# ── without the driver ───────────────────────────────────────────────────────────────────────────────────────────

WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None
import duroxide
assert duroxide.SqliteProvider.in_memory().name.startswith("sqlite")
for connect in (
    lambda: duroxide.PostgresProvider.connect("postgres://x"),
    lambda: duroxide.PostgresProvider.connect_with_schema("postgres://x", "s"),
    lambda: duroxide.PostgresProvider.connect_with_entra("h", 1, "d", "u"),
):
    try:
        connect()
    except duroxide.ProviderError as error:
        assert "pip install 'duroxide[postgres]'" in str(error), error
    else:
        raise AssertionError("it connected")
"""


@pytest.mark.parametrize("package", ["psycopg", "psycopg_pool"])
def test_without_the_driver_all_else_works_and_connecting_says_what_to_install(package: str) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT, package], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_duroxide_imports_no_driver() -> None:
    program = "import duroxide, sys; print([n for n in sys.modules if n.startswith(('psycopg', 'azure'))])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


# ── Entra ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Token:
    token, expires_on = "a-token", 4_000_000_000


class Credential:
    asked: list[tuple[str, ...]]

    def __init__(self) -> None:
        self.asked = []

    def get_token(self, *scopes: str) -> Token:
        self.asked.append(scopes)
        return Token()


def test_a_program_runs_with_a_token_as_password(own: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    own.execute('CREATE ROLE "me@example.com" LOGIN SUPERUSER PASSWORD \'a-token\'')
    own.require_password('"me@example.com"')
    monkeypatch.setenv("PGSSLMODE", "disable")
    host = psycopg.conninfo.conninfo_to_dict(own.url)["host"]
    credential = Credential()
    options = PostgresEntraOptions(credential=credential, audience="https://mine/.default", max_connections=4, refresh_interval_ms=60_000)
    provider = PostgresProvider.connect_with_schema_and_entra(str(host), 5432, "postgres", "me@example.com", "entra", options)
    try:
        assert run(provider) == "Hello, Ada!"
        assert set(credential.asked) == {("https://mine/.default",)}
    finally:
        provider.close()
    plain = PostgresProvider.connect_with_entra(str(host), 5432, "postgres", "me@example.com", options)
    assert plain.schema == "public"
    plain.close()


def test_a_token_travels_encrypted_unless_asked_otherwise(own: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGSSLMODE", raising=False)
    options = PostgresEntraOptions(credential=Credential(), acquire_timeout_ms=100)
    from faults_postgres.proxy import Proxy

    proxy = Proxy(own.url)
    try:
        with pytest.raises(duroxide.ProviderError, match="^Failed to connect to PostgreSQL with Entra auth: .*SSL"):
            PostgresProvider.connect_with_entra("127.0.0.1", proxy.port, "postgres", "postgres", options)
    finally:
        proxy.close()


def test_without_a_credential_it_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    with pytest.raises(duroxide.ProviderError, match=r"^Failed to connect to PostgreSQL with Entra auth: .*pip install 'duroxide\[entra\]'"):
        PostgresProvider.connect_with_entra("127.0.0.1", 1, "db", "me")


def test_a_credential_that_gives_nothing_is_said_in_the_references_words() -> None:
    class Broken:
        def get_token(self, *scopes: str) -> Token:
            raise OSError("no endpoint")

    text = "Failed to connect to PostgreSQL with Entra auth: Entra credential resolution failed: could not acquire an initial access token"
    with pytest.raises(duroxide.ProviderError) as caught:
        PostgresProvider.connect_with_entra("127.0.0.1", 1, "db", "me", PostgresEntraOptions(credential=Broken()))
    assert str(caught.value).startswith(text)
