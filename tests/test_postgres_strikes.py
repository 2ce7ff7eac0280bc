"""Each statement that writes fails in turn, with each error that a server may give: it is done again, once, and nobody hears of it.

`test_postgres_faults.py` has storms, real servers that go, and connections that break.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from faults_postgres.lab import Laboratory

from duroxide.storage import postgres_store
from duroxide.storage.base import Request, Taken
from duroxide.storage.postgres_rows import lost
from postgres_server import Server

STATES = {
    "serialization failure": "40001", "deadlock": "40P01", "lock timeout": "55P03", "statement timeout": "57014", "disk full": "53100",
    "out of memory": "53200", "too many connections": "53300", "I/O error": "58030", "read only": "25006", "shut down": "57P01",
    "connection failure": "08006",
}  # fmt: skip
TABLES = ("history", "orchestrator_queue", "worker_queue", "instance_locks", "instances", "executions", "kv_store", "kv_delta", "dx_peers")
BELL = 1_000_000  # of the sequence that counts statements
KILLED = "killed"  # not an error raised, but the session ended from within
PATIENCE_MS = 30_000


class Struck:
    """A runtime whose n-th statement that writes fails, counted from `instance`'s start on."""

    def __init__(self, server: Server, schema: str, said: pytest.LogCaptureFixture) -> None:
        self.said = said
        self.lab = Laboratory(server, schema, orchestrator_lock_timeout_ms=60_000, worker_lock_timeout_ms=60_000)
        self.server, self.instances = server, 0
        server.execute(
            f'CREATE SEQUENCE "{schema}".strikes; CREATE TABLE "{schema}".strike (state text); INSERT INTO "{schema}".strike VALUES (\'\');'
            f' CREATE FUNCTION "{schema}".strike() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE wanted text; BEGIN'
            f" IF nextval('\"{schema}\".strikes') = {BELL} THEN SELECT state INTO wanted FROM \"{schema}\".strike;"
            f" IF wanted = '{KILLED}' THEN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(10); END IF;"
            " RAISE EXCEPTION 'planted' USING ERRCODE = wanted; END IF; RETURN NULL; END $$"
        )
        for table in TABLES:
            server.execute(
                f'CREATE TRIGGER strike AFTER INSERT OR UPDATE OR DELETE ON "{schema}".{table} FOR EACH STATEMENT'
                f' EXECUTE FUNCTION "{schema}".strike()'
            )

    def trial(self, state: str, n: int, patience_ms: int = PATIENCE_MS) -> bool:
        """Whether there was an n-th statement until the end of one instance."""
        lab, number = self.lab, self.instances
        self.instances += 1
        self.server.execute(
            f"UPDATE \"{lab.schema}\".strike SET state = '{state}'; SELECT setval('\"{lab.schema}\".strikes', {BELL + 1 - n}, false)"
        )
        lab.start(number)
        assert lab.refused == [], f"{state} at {n}: {lab.refused}"
        result = lab.client.wait_for_orchestration(f"i{number}", patience_ms)
        assert result.output == [number, 3, 2 * number, number, str(3 * number)], f"{state} at {n}: {result}"
        heard = [record.getMessage() for record in self.said.records if "the store fails" in record.getMessage()]
        assert heard == [], f"{state} at {n}: the runtime heard of it: {heard[0]}"
        return bool(self.server.execute(f'SELECT last_value >= {BELL} FROM "{lab.schema}".strikes')[0][0])

    def each(self, state: str, first: int, step: int, **options: int) -> int:
        """n = first, first + step, ... until a run passes that has no n-th; how many were struck."""
        for count, n in enumerate(range(first, 10_000, step)):
            if not self.trial(state, n, **options):
                return count
        raise AssertionError("there are ever more")


@pytest.fixture
def struck(postgres: Server, schema: str, caplog: pytest.LogCaptureFixture) -> Iterator[Struck]:
    made = Struck(postgres, schema, caplog)
    yield made
    made.lab.close()


def strike_each(struck: Struck, state: str, first: int, step: int) -> None:
    assert struck.each(state, first, step) * step > 30
    struck.lab.check_histories()
    struck.lab.check_rest()
    if state != KILLED:  # there an answer is lost, and what ran may run again
        assert struck.lab.reruns() == 0


@pytest.mark.parametrize("kind", [*STATES, KILLED])
def test_a_statement_that_fails_is_done_again(struck: Struck, kind: str) -> None:
    """A fixed share of them, another one for each error; all in the soak test."""
    kinds = [*STATES, KILLED]
    strike_each(struck, STATES.get(kind, KILLED), first=1 + kinds.index(kind), step=len(kinds))


@pytest.mark.soak
@pytest.mark.parametrize("kind", [*STATES, KILLED])
def test_every_statement_that_fails_is_done_again(struck: Struck, kind: str) -> None:
    strike_each(struck, STATES.get(kind, KILLED), first=1, step=1)


# ── planted bugs ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["deadlock", "too many connections", "connection failure"])
def test_an_error_that_is_not_tried_again_is_seen(struck: Struck, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    whole = postgres_store.retryable
    monkeypatch.setattr(postgres_store, "retryable", lambda error: getattr(error, "sqlstate", None) != STATES[kind] and whole(error))
    with pytest.raises(AssertionError, match="planted"):
        struck.each(STATES[kind], 5, 1)  # of the first turn: the first four write the start


def test_an_error_that_is_swallowed_is_seen(struck: Struck, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sent something is told that it was written."""
    patiently = postgres_store.PostgresStore._patiently

    def careless(self: Any, requests: list[Request], work: Callable[[], list[Taken]]) -> list[Taken]:
        def once() -> list[Taken]:
            try:
                return work()
            except Exception:
                return lost(requests)

        return patiently(self, requests, once)

    monkeypatch.setattr(postgres_store.PostgresStore, "_patiently", careless)
    with pytest.raises((AssertionError, TimeoutError)):
        struck.each("40001", 1, 1, patience_ms=2_000)
