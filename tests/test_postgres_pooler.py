"""Behind a PgBouncer: sessions that are somebody else's after each transaction. Skipped where the program is not installed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from faults_postgres.bouncer import PROGRAM, bouncer
from faults_postgres.lab import Laboratory, until

from duroxide.storage.postgres import open_postgres
from duroxide.storage.postgres_connect import Line
from postgres_server import Server

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs the program pgbouncer (of the package of that name)")
SAID = "stands a pooler"


@pytest.fixture(scope="module")
def poolers(postgres: Server) -> Iterator[Callable[[str], str]]:
    """mode -> URL; few connections, so that everybody gets everybody's."""
    with ExitStack() as stack:
        urls: dict[str, str] = {}

        def url(mode: str) -> str:
            if mode not in urls:
                urls[mode] = stack.enter_context(bouncer(postgres, mode, 3 if mode == "transaction" else 40))
            return urls[mode]

        yield url


@pytest.fixture
def lab(postgres: Server, schema: str) -> Iterator[Callable[..., Laboratory]]:
    with ExitStack() as stack:

        def make(url: str, runtimes: int = 1) -> Laboratory:
            made = Laboratory(postgres, schema, url, runtimes)
            stack.callback(made.close)
            return made

        yield make


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_everything_runs_and_it_is_said_once(
    postgres: Server, lab: Callable[..., Laboratory], poolers: Callable[[str], str], caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    caplog.set_level(logging.INFO, "duroxide")
    here = lab(poolers(mode), 2)
    here.begin()
    here.progress(120)
    assert here.client.get_system_metrics().total_instances > 0
    here.finish()
    assert here.refused == []
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert sum(SAID in text for text in said) == 2 and not any("prepared" in text for text in said), said  # one a provider
    # A claim's lock lasts as long as its transaction; one of a session that is not ours would stay.
    until(lambda: postgres.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)], 30)


def test_a_prepared_statement_would_be_seen(
    postgres: Server, lab: Callable[..., Laboratory], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The planted bug: what one prepared is in a session that another has now."""
    monkeypatch.setattr(Line, "own_session", property(lambda line: True, lambda line, value: None))
    with bouncer(postgres, size=3) as url:
        here = lab(url, 2)
        for n in range(20):
            here.start(n)
        assert any("prepared statement" in text for text in here.refused + [record.getMessage() for record in caplog.records])
        here.close()


def test_who_listens_hears_of_what_others_did_behind_a_pooler(
    postgres: Server, schema: str, lab: Callable[..., Laboratory], poolers: Callable[[str], str]
) -> None:
    outside = open_postgres(postgres.url, schema)
    heard: list[str] = []
    try:
        assert outside.subscribe(lambda ready, instances: heard.extend(instances or []))
        here = lab(poolers("transaction"))
        here.start(0)
        until(lambda: heard.count("i0") >= 2, 30)
        here.finish()
    finally:
        outside.close()
