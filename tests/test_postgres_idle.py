"""What an idle runtime asks of its server, counted by a proxy between them: nothing but what keeps leases."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from faults_postgres.lab import Laboratory, until
from faults_postgres.proxy import PASS, Proxy

from duroxide.runtime import loop
from duroxide.storage import postgres_connect, postgres_signals
from postgres_server import Server

POLL_MS = 10
WINDOW_S = 1.5
KINDS = {b"dx_exchange": "exchange", b"dx_load": "load", b"watched AS": "watch", b"SELECT 1": "beat", b"pg_notify": "tell", b"_pg3_": "watch"}
# The last: psycopg prepares what was asked five times.


class Idle:
    """Runtimes through a proxy that have run one instance each and have nothing to do; `asked` counts their round trips by kind."""

    def __init__(self, proxy: Proxy, lab: Laboratory) -> None:
        self.proxy, self.lab = proxy, lab
        self.asked: Counter[str] = Counter()
        for n in range(3):
            lab.start(n)
        lab.finish()
        time.sleep(0.3)  # what was told last arrives
        proxy.rule = self.count

    def count(self, number: int, request: bytes) -> str:
        self.asked[next((name for text, name in KINDS.items() if text in request), repr(request[:200]))] += 1
        return PASS

    def watch(self, seconds: float = WINDOW_S) -> Counter[str]:
        self.asked = Counter()
        time.sleep(seconds)
        return Counter(self.asked)


@pytest.fixture
def idle(postgres: Server, schema: str) -> Iterator[Callable[..., Idle]]:
    proxy = Proxy(postgres.url)
    labs = []

    def make(runtimes: int = 1) -> Idle:
        labs.append(Laboratory(postgres, schema, proxy.url, runtimes, dispatcher_poll_interval_ms=POLL_MS))
        return Idle(proxy, labs[-1])

    yield make
    for lab in labs:
        lab.close()
    proxy.close()


def most(looks: int) -> dict[str, int]:
    """For one runtime in one window, if it polled at no more than its own pace; two threads take turns."""
    return {"exchange": 2 * looks, "watch": int(WINDOW_S / 0.3) + 1, "beat": 1}


def test_an_idle_runtime_that_is_alone_asks_nothing_between_two_looks_at_ended_leases(idle: Callable[..., Idle]) -> None:
    asked = idle().watch()
    assert asked.keys() <= {"exchange", "beat"} and asked["exchange"] <= most(1)["exchange"] and asked["beat"] <= 1, asked


def test_idle_runtimes_only_watch_each_other(idle: Callable[..., Idle]) -> None:
    asked, limits = idle(2).watch(), most(1)
    assert 0 < asked["watch"] <= 2 * limits["watch"]
    assert asked.keys() <= limits.keys() and all(asked[kind] <= 2 * limits[kind] for kind in asked), asked


def test_one_that_comes_is_watched_and_one_that_goes_no_more(idle: Callable[..., Idle], postgres: Server, schema: str) -> None:
    first = idle()
    assert first.watch(0.8)["watch"] == 0
    other = Laboratory(postgres, schema)
    try:
        until(lambda: first.asked["watch"] >= 2, 10)
    finally:
        other.close()
    until(lambda: first.watch(0.8)["watch"] == 0, 10)


def test_a_runtime_that_polls_would_be_seen(idle: Callable[..., Idle], monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: it looks every 50 ms."""
    monkeypatch.setattr(loop, "IDLE_S", 0.05)
    assert idle().watch()["exchange"] > 3 * most(1)["exchange"]


def test_without_notifications_it_asks_at_most_every_poll_interval(idle: Callable[..., Idle], monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a pooler that gives each transaction another session."""
    monkeypatch.setattr(postgres_signals.Signals, "subscribe", lambda self, heard: False)
    monkeypatch.setattr(postgres_signals.Signals, "_begin", lambda self: setattr(self, "possible", False))
    asked = idle().watch()
    assert 0 < asked["watch"] <= WINDOW_S * 1_000 / POLL_MS + most(1)["watch"], asked  # both kinds are prepared by now


def test_a_connection_that_listens_and_stalls_is_noticed_and_replaced(idle: Callable[..., Idle], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_signals, "BEAT_S", 0.1)
    monkeypatch.setattr(postgres_connect.Line, "limit_s", 1.0)
    one = idle()
    signals = one.lab.natives[0]._signals
    moves = signals.moves
    assert one.proxy.stall() > 0
    until(lambda: signals.listening and signals.moves > moves, 30)  # on another connection, and it looked at once
    one.lab.start(8)
    one.lab.finish()
