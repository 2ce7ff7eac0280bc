"""Connecting: URLs of the reference's users, the texts of what goes wrong, a server that is not there yet, passwords that change."""

from __future__ import annotations

import logging
import socket
import threading
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from duroxide.errors import ProviderError
from duroxide.storage import postgres_connect, postgres_entra
from duroxide.storage.postgres_connect import Address
from duroxide.storage.postgres_entra import Tokens
from postgres_server import Server


def parameters(url: str) -> dict[str, Any]:
    return conninfo_to_dict(Address(url).conninfo)



@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_connect, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(postgres_connect, "_LONGEST_PAUSE_S", 0.02)


# ── URLs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("url", [
    "postgres://me:s%40cret@db.example:6000/orders?sslmode=require",
    "postgresql://me:s%40cret@db.example:6000/orders?ssl-mode=require&statement-cache-capacity=5",
    "host=db.example port=6000 user=me password=s@cret dbname=orders sslmode=require",
])  # fmt: skip
def test_the_forms_of_a_url(url: str) -> None:
    wanted = {"host": "db.example", "port": "6000", "user": "me", "password": "s@cret", "dbname": "orders", "sslmode": "require"}
    assert wanted.items() <= parameters(url).items()


def test_options_of_the_references_form() -> None:
    assert parameters("postgres://h/d?options[statement_timeout]=5s")["options"] == "-c statement_timeout=5s"


def test_what_nobody_knows_is_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "duroxide.storage"):
        assert "foo" not in parameters("postgres://h/d?foo=bar")
    assert "'foo'" in caplog.text


def test_ours_apply_only_where_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    found = parameters("postgres://h/d")
    assert (found["connect_timeout"], found["application_name"]) == ("10", "duroxide")
    assert parameters("postgres://h/d?connect_timeout=3&application_name=mine")["application_name"] == "mine"
    monkeypatch.setenv("PGAPPNAME", "theirs")
    assert "application_name" not in parameters("postgres://h/d")


def test_a_message_has_no_password() -> None:
    assert Address("postgres://me:secret@db.example:6000/orders").place == "db.example:6000/orders"


@pytest.mark.parametrize(("url", "text"), [
    ("", "error with configuration: relative URL without a base"),
    ("garbage", "error with configuration: "),
    ("mysql://localhost/x", "error with configuration: "),
    ("postgres://localhost:port/d", "error"),
    ("postgres://localhost/d?sslmode=bogus", "error with configuration: "),
])  # fmt: skip
def test_a_url_that_means_nothing_is_refused_at_once(url: str, text: str) -> None:
    with pytest.raises(ProviderError) as caught:
        Address(url).first(0)
    assert str(caught.value).startswith(f"Failed to connect to PostgreSQL: {text}")


# ── the first connection ─────────────────────────────────────────────────────────────────────────────────────────


def test_what_the_server_answers_is_told_at_once(postgres: Server) -> None:
    for field, missing in (("dbname", 'database "nodb" does not exist'), ("user", 'role "nodb" does not exist')):
        url = psycopg.conninfo.make_conninfo(postgres.url, **{field: "nodb"})
        with pytest.raises(ProviderError) as caught:
            Address(url).first(60)
        assert str(caught.value).startswith("Failed to connect to PostgreSQL: error returned from database: ")
        assert str(caught.value).endswith(missing) or not postgres.own


def test_a_host_that_nobody_knows_is_told_at_once() -> None:
    with pytest.raises(ProviderError, match="^Failed to connect to PostgreSQL: error communicating with database: .*nohost.invalid"):
        Address("postgres://nohost.invalid/x").first(60)


def test_a_port_where_nobody_listens_is_tried_for_the_given_time(hasty: None, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = Address(f"postgres://127.0.0.1:{free.getsockname()[1]}/x")
        with caplog.at_level(logging.WARNING, "duroxide.storage"), pytest.raises(ProviderError) as caught:
            address.first(0.1)
    assert "pool timed out while waiting for an open connection: connection failed: " in str(caught.value)
    assert address.place in caplog.text


def test_a_server_that_comes_later_is_waited_for(own: Server, hasty: None, caplog: pytest.LogCaptureFixture) -> None:
    own.control("stop", "-m", "fast")
    found: list[psycopg.Connection[Any]] = []
    with caplog.at_level(logging.WARNING, "duroxide.storage"):
        thread = threading.Thread(target=lambda: found.append(Address(own.url).first(60)))
        thread.start()
        while "is not there yet" not in caplog.text:
            assert thread.is_alive()
        own.control("start")
        thread.join(60)
    assert found[0].execute("SELECT 1").fetchone() == (1,)
    found[0].close()


# ── Entra ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Token:
    def __init__(self, token: str, expires_on: int) -> None:
        self.token, self.expires_on = token, expires_on


class FakeCredential:
    """Tokens of an hour each, counted; `down` while none is to be had."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.asked: list[tuple[str, ...]] = []
        self.down = False

    def clock(self) -> float:
        return self.now

    def get_token(self, *scopes: str) -> Token:
        self.asked.append(scopes)
        if self.down:
            raise OSError("no managed identity endpoint")
        return Token(f"token-{len(self.asked)}", int(self.now) + 3_600)


@pytest.fixture
def credential() -> FakeCredential:
    return FakeCredential()


def test_a_token_is_used_until_it_nearly_ends(credential: FakeCredential) -> None:
    tokens = Tokens(credential, clock=credential.clock)
    assert tokens.password() == tokens.password() == "token-1"
    credential.now += 3_600 - 121
    assert tokens.password() == "token-1"
    credential.now += 2
    assert tokens.password() == "token-2"
    assert credential.asked[0] == (postgres_entra.AUDIENCE,)


def test_a_token_is_refreshed_as_often_as_asked(credential: FakeCredential) -> None:
    tokens = Tokens(credential, audience="mine", refresh_s=60, clock=credential.clock)
    assert tokens.password() == "token-1"
    credential.now += 60
    assert tokens.password() == "token-2" and credential.asked[-1] == ("mine",)


def test_an_outage_of_entra_is_bridged_by_the_last_token(credential: FakeCredential, caplog: pytest.LogCaptureFixture) -> None:
    tokens = Tokens(credential, clock=credential.clock)
    assert tokens.password() == "token-1"
    credential.now, credential.down = credential.now + 3_599, True
    with caplog.at_level(logging.WARNING, "duroxide.storage"):
        assert tokens.password() == "token-1"
    assert "no managed identity endpoint" in caplog.text
    credential.now += 2
    with pytest.raises(ProviderError, match="could not acquire an initial access token: no managed identity endpoint"):
        tokens.password()


def test_a_token_that_did_not_work_is_replaced_but_not_at_every_try(credential: FakeCredential) -> None:
    tokens = Tokens(credential, clock=credential.clock)
    tokens.password()
    tokens.doubt()
    assert tokens.password() == "token-1"
    credential.now += 30
    tokens.doubt()
    assert tokens.password() == "token-2"


def test_without_azure_identity_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "azure.identity", None)
    with pytest.raises(ProviderError, match=r"pip install 'duroxide\[entra\]'"):
        postgres_entra.default_credential()


def test_the_token_is_the_password_of_each_new_connection(own: Server, credential: FakeCredential) -> None:
    own.execute("DROP ROLE IF EXISTS entra; CREATE ROLE entra LOGIN PASSWORD 'token-1'")
    own.require_password("entra")
    tokens = Tokens(credential, clock=credential.clock)
    url = psycopg.conninfo.make_conninfo(own.url, user="entra")
    address = Address(url, tokens.password, tokens.doubt, postgres_entra.WHAT)
    with address.connect() as first:
        own.execute("ALTER ROLE entra PASSWORD 'token-2'")
        assert first.execute("SELECT current_user").fetchone() == ("entra",), "an open connection stays"
        credential.now += 60
        with pytest.raises(psycopg.OperationalError):
            address.connect()
        with address.connect() as second, address.connection_class.connect(address.conninfo) as third:
            assert second.execute("SELECT 1").fetchone() == third.execute("SELECT 1").fetchone() == (1,)
    assert len(credential.asked) == 2
    with pytest.raises(ProviderError, match="^Failed to connect to PostgreSQL with Entra auth: error returned from database: "):
        Address(url, lambda: "wrong", what=postgres_entra.WHAT).first(60)
