"""What PostgreSQL adds to the contract: plans of the statements on the server, several processes, and what is in doubt."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import duroxide
from duroxide.storage import postgres_apply_sql as apply_sql
from duroxide.storage import postgres_claims_sql as claims_sql
from duroxide.storage import postgres_exchange_sql as exchange_sql
from duroxide.storage import postgres_schema, postgres_store
from duroxide.storage._postgres import int8s, texts
from duroxide.storage.base import LOST, OK, REFUSED, Appetite, Done, Request, StoreError, Taken, TurnDone, WorkOut
from duroxide.storage.postgres import PostgresNative, open_postgres
from postgres_server import Server

PATIENCE_S = 30.0
LEASE_MS = 5_000


def now() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
def opened(postgres: Server, schema: str) -> Iterator[Callable[[], PostgresNative]]:
    """Opens providers of one schema."""
    made: list[PostgresNative] = []

    def open_one() -> PostgresNative:
        made.append(open_postgres(postgres.url, schema))
        return made[-1]

    yield open_one
    for native in made:
        native.close()


def handed(native: PostgresNative, appetite: Appetite | None = None, **rows: list[Any]) -> Taken:
    done = Done() if rows else None
    for name, values in rows.items():
        setattr(done, name, values)
    [taken] = native.exchange([Request(now(), done, appetite)])
    return taken


def start(instance: str) -> tuple[str, str, int]:
    return instance, '{"StartOrchestration":{}}', 0


def first_turn(claim: Any, **fields: Any) -> TurnDone:
    turn = TurnDone(claim.lease, claim.instance, 1)
    turn.name, turn.version, turn.consumed = "flow", "1.0.0", [message[0] for message in claim.messages]
    turn.events = [(1, "Some", '{"event_id":1}')]
    for name, value in fields.items():
        setattr(turn, name, value)
    return turn


# ── plans ────────────────────────────────────────────────────────────────────────────────────────────────────────

STATEMENTS = {
    **{name: (text, {**apply_sql.PARAMETERS, **apply_sql.VARIABLES}) for name, text in apply_sql.APPLY.items()},
    **{name: (text, claims_sql.TURN_TYPES) for name, text in claims_sql.TURNS.items()},
    **{name: (text, claims_sql.WORK_TYPES) for name, text in claims_sql.WORK.items()},
    "load": (claims_sql.LOAD, {"p_instance": "text", "p_execution": "bigint", "p_after": "bigint"}),
}
SMALL = {"dx_peers", "dx_owners"}  # one row a process


@pytest.fixture(scope="module")
def full(postgres: Server) -> Iterator[psycopg.Connection[Any]]:
    """A schema with many rows of every kind, and statistics of them."""
    with postgres.schema() as schema, postgres.connect() as connection:
        postgres_schema.prepare(connection, schema)
        connection.execute(f'SET search_path = "{schema}"')
        for columns, values, count in (
            ("instances", "'i' || n, 'o', '1', 1, now(), now()", 40_000),
            ("executions (instance_id, execution_id, status, started_at)", "'i' || n, 1, 'Completed', now()", 40_000),
            ("history", "'i' || n % 500, 1, n, 'Event', '{}', now()", 60_000),
            ("orchestrator_queue (instance_id, work_item, visible_at, created_at, lock_token)",
             "'i' || n % 9000, '', now(), now(), CASE n % 3 WHEN 0 THEN 'lock_o:' || n END", 40_000),
            ("worker_queue (work_item, visible_at, created_at, instance_id, execution_id, activity_id, tag, session_id, lock_token, locked_until)",
             "'', now(), now(), 'i' || n, 1, 2, CASE n % 4 WHEN 0 THEN 't' END, CASE n % 5 WHEN 0 THEN 's' || n % 7 END,"
             " CASE n % 3 WHEN 0 THEN 'lock_o:' || n END, CASE n % 3 WHEN 0 THEN n END", 40_000),
            ("instance_locks", "'i' || n, 'lock_o:' || n, n, 0", 40_000),
            ("sessions", "'s' || n, 'o', n, 0", 20_000),
            ("kv_store", "'i' || n, 'k', '', 1, 0", 40_000),
            ("kv_delta", "'i' || n, 'k', '', 0", 40_000),
        ):  # fmt: skip
            connection.execute(f"INSERT INTO {columns} SELECT {values} FROM generate_series(1, {count}) AS n")
        connection.execute("ANALYZE")
        for setting in exchange_sql.SETTINGS:
            if not setting.startswith(("search_path", "enable_seqscan")):  # these plans must be good without being told
                connection.execute(f"SET {setting}")
        connection.prepare_threshold = None  # psycopg's own would be among them
        yield connection


def plan(connection: psycopg.Connection[Any], text: str, types: dict[str, str]) -> list[str]:
    """As the function on the server has it: its variables are parameters. Sequential scans are not forbidden here, as they are there."""
    text = re.sub(r"^\s*PERFORM", "SELECT", exchange_sql.filled(text, "x")).replace('"x".', "")
    names = list(dict.fromkeys(re.findall(r"\b[pv]_[a-z_]+\b", text)))
    for n, name in enumerate(names, 1):
        text = re.sub(rf"\b{name}\b", f"${n}", text)
    kinds = f"({', '.join(types[name] for name in names)})" if names else ""
    nulls = f"({', '.join(['NULL'] * len(names))})" if names else ""
    connection.execute(f"PREPARE it {kinds} AS {text}")
    try:
        return [row[0] for row in connection.execute(f"EXPLAIN EXECUTE it{nulls}")]
    finally:
        connection.execute("DEALLOCATE it")


def walks(steps: list[str]) -> list[str]:
    return [found[1] for step in steps if (found := re.search(r"Seq Scan on (\w+)", step)) and found[1] not in SMALL]


@pytest.mark.parametrize("name", sorted(STATEMENTS))
def test_no_hot_statement_walks_over_a_table(full: psycopg.Connection[Any], name: str) -> None:
    found = plan(full, *STATEMENTS[name])
    assert walks(found) == [], "\n".join(found)


def test_claims_go_by_the_indexes_made_for_them(full: psycopg.Connection[Any]) -> None:
    expected = {
        "window": "dx_orch_ready", "message_next": "dx_orch_ready", "message_first": "dx_orch_ready", "work_ready": "dx_work_ready",
        "work_ready_tagged": "dx_work_tagged", "work_ready_any": "dx_work_visible", "session_ready": "dx_work_session",
        "work_expire": "dx_work_expiry", "work_next": "dx_work_visible", "work_lease_first": "dx_work_expiry",
    }  # fmt: skip
    wrong = {name: steps for name, index in expected.items() if index not in " ".join(steps := plan(full, *STATEMENTS[name]))}
    assert wrong == {}


def test_a_bad_statement_is_caught(full: psycopg.Connection[Any]) -> None:
    assert walks(plan(full, "SELECT id FROM {s}.orchestrator_queue WHERE work_item = v_route", claims_sql.TURN_TYPES)) == ["orchestrator_queue"]


# ── arrays and texts ─────────────────────────────────────────────────────────────────────────────────────────────


def test_arrays_arrive_as_they_are(postgres: Server) -> None:
    numbers: list[int | None] = [0, -1, None, 2**63 - 1, -(2**63)]
    words: list[str | None] = ["", "a,{}\"\\", None, "é\u20ac\U0001f600", "NULL"]
    with postgres.connect() as connection:
        result = connection.pgconn.exec_params(
            b"SELECT to_json($1::bigint[])::text, to_json($2::text[])::text", [int8s(numbers), texts(words)], None,
            [psycopg.pq.Format.BINARY] * 2,
        )  # fmt: skip
        assert result.status == psycopg.pq.ExecStatus.TUPLES_OK
        assert [json.loads(result.get_value(0, n) or b"") for n in range(2)] == [numbers, words]
    assert int8s([]) is None and texts([]) is None
    for bad in (lambda: texts(["a\0"]), lambda: texts(["\ud800"]), lambda: int8s([2**63]), lambda: int8s(["1"])):  # type: ignore[list-item]
        with pytest.raises((ValueError, OverflowError, TypeError)):
            bad()


@pytest.mark.parametrize("bad", ["a\0b", "a\ud800b"])
def test_a_text_that_cannot_be_stored_is_refused_alone(opened: Callable[[], PostgresNative], bad: str) -> None:
    native = opened()
    with pytest.raises(StoreError, match="cannot be stored in PostgreSQL"):
        handed(native, messages=[start("good"), start(bad)])
    assert handed(native, Appetite("a", turns=9)).turns == [], "nothing of it was written"
    handed(native, messages=[start("one"), start("two")])
    claims = {claim.instance: claim for claim in handed(native, Appetite("a", turns=9)).turns}
    spoilt = first_turn(claims["one"], messages=[start(bad)])
    assert handed(native, turns=[spoilt, first_turn(claims["two"])]).turn_codes == [REFUSED, OK]
    assert native.load("one") is None and native.load("two") is not None
    assert native.load(bad) is None if "\0" in bad else True


def test_what_the_tables_refuse_spoils_no_other_turn(opened: Callable[[], PostgresNative]) -> None:
    native = opened()
    handed(native, messages=[start("one"), start("two")])
    claims = {claim.instance: claim for claim in handed(native, Appetite("a", turns=9)).turns}
    long = "x".join(str(n) for n in range(20_000))  # more than an index holds of a key
    codes = handed(native, turns=[first_turn(claims["one"], kv=[(0, long, "v", 1)]), first_turn(claims["two"])]).turn_codes
    assert codes == [REFUSED, OK] and native.load("two") is not None


# ── in doubt ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Cut:
    """Ends the session of the connection that writes, before or after the exchange is sent."""

    def __init__(self, native: PostgresNative, server: Server, after: bool) -> None:
        self._store, self._server, self._after, self.done = native._store, server, after, 0
        self._ask = native._store._ask
        native._store._ask = self  # type: ignore[method-assign,assignment]

    def __call__(self, line: Any, parameters: Any) -> Any:
        if self.done:
            return self._ask(line, parameters)
        self.done += 1
        if self._after:
            self._ask(line, parameters)
        self._server.execute("SELECT pg_terminate_backend(%s, 5000)", line.info.backend_pid)
        return self._ask(line, parameters)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_an_exchange_in_doubt_is_neither_lost_nor_done_twice(
    opened: Callable[[], PostgresNative], postgres: Server, schema: str, after: bool
) -> None:
    native = opened()
    handed(native, messages=[start("i")])
    [claim] = handed(native, Appetite("a", turns=1, lease_ms=600_000)).turns
    work = [WorkOut("i", 1, 2, "act", "1", "{}", lease="lock_a:h1")]
    cut = Cut(native, postgres, after)
    taken = handed(
        native, Appetite("a", turns=5, lease_ms=600_000), turns=[first_turn(claim, work=work, keep=True)], messages=[start("j")]
    )
    assert cut.done == 1 and taken.turn_codes == [LOST if after else OK]
    assert postgres.execute(f"SELECT count(*) FROM {schema}.history") == [(1,)]
    assert postgres.execute(f"SELECT count(*) FROM {schema}.orchestrator_queue") == [(1,)], "the message is there once"
    if after:  # nothing stays leased to somebody who does not know of it
        assert postgres.execute(f"SELECT count(*) FROM {schema}.instance_locks") == [(0,)]
        taken = handed(native, Appetite("b", turns=5, work=5))
        assert [turn.instance for turn in taken.turns] == ["j"] and [item.attempt for item in taken.work] == [1]
    else:
        assert [turn.instance for turn in taken.turns] == ["j"] and len(taken.held[0]) == 1


def test_an_exchange_of_an_older_epoch_writes_nothing(opened: Callable[[], PostgresNative], postgres: Server, schema: str) -> None:
    native = opened()
    handed(native, messages=[start("i")])
    postgres.execute(f"UPDATE {schema}.dx_peers SET epoch = epoch + 1")
    line, epoch = native._store._line, native._store._epoch
    handed(native, messages=[start("j")])
    assert native._store._line is not line and native._store._epoch > epoch, "it noticed, and entered anew"
    assert postgres.execute(f"SELECT count(*) FROM {schema}.orchestrator_queue") == [(2,)]


# ── several processes ────────────────────────────────────────────────────────────────────────────────────────────

WORKER = """
import os, sys, time
import duroxide

def steps(ctx, n):
    total = 0
    for k in range(n):
        total += yield ctx.schedule_activity("slow", k)
    return total

def slow(ctx, k):
    os.write(1, f"begun {ctx.instance_id} {k}\\n".encode())  # one piece: two threads say so
    time.sleep(float(sys.argv[3]))
    return k

provider = duroxide.PostgresProvider.connect_with_schema(sys.argv[1], sys.argv[2])
runtime = duroxide.Runtime(provider, duroxide.RuntimeOptions(
    orchestrator_lock_timeout_ms=60_000, worker_lock_timeout_ms=60_000, worker_concurrency=2))
runtime.register_activity("slow", slow)
runtime.register_orchestration("steps", steps)
runtime.start()
print("ready", flush=True)
sys.stdin.readline()
runtime.shutdown(5_000)
provider.close()
"""


class Worker:
    """A process with a runtime; `seen` are the activities that it began."""

    def __init__(self, server: Server, schema: str, step_s: float) -> None:
        command = [sys.executable, "-c", WORKER, server.url, schema, str(step_s)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent)
        self.seen: list[str] = []
        self.at: list[float] = []
        assert self.process.stdout is not None and self.process.stdout.readline() == "ready\n"
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.seen.append(line.strip())
            self.at.append(time.monotonic())

    def until(self, count: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while len(self.seen) < count:
            assert time.monotonic() < deadline, f"only {self.seen}"
            time.sleep(0.005)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=PATIENCE_S)


@pytest.fixture
def worker(postgres: Server, schema: str) -> Iterator[Callable[..., Worker]]:
    made: list[Worker] = []

    def begin(step_s: float = 0.02) -> Worker:
        made.append(Worker(postgres, schema, step_s))
        return made[-1]

    yield begin
    for each in made:
        each.end()


@pytest.fixture
def client(opened: Callable[[], PostgresNative]) -> duroxide.Client:
    return duroxide.Client(duroxide.PostgresProvider(opened()))


def test_what_a_killed_process_had_is_taken_over_long_before_its_leases_end(worker: Callable[..., Worker], client: duroxide.Client) -> None:
    doomed = worker(30.0)
    client.start_orchestration("i", "steps", 3)
    doomed.until(1)
    heir = worker()
    time.sleep(1.0)
    assert heir.seen == [], "a live one's work is never taken"
    doomed.process.kill()
    died = time.monotonic()
    heir.until(1)
    assert heir.at[0] - died < 5.0, "leases were for a minute"
    assert client.wait_for_orchestration("i", 30_000).output == 3


def test_two_processes_share_the_work_and_do_each_step_once(worker: Callable[..., Worker], client: duroxide.Client) -> None:
    workers = [worker(0.005), worker(0.005)]
    for n in range(40):
        client.start_orchestration(f"i{n}", "steps", 5)
    assert [client.wait_for_orchestration(f"i{n}", 30_000).output for n in range(40)] == [10] * 40
    seen = [line for each in workers for line in each.seen]
    assert len(seen) == len(set(seen)) == 200
    assert all(each.seen for each in workers), "both had something to do"


def test_a_waiting_client_hears_of_the_end_by_itself(worker: Callable[..., Worker], opened: Callable[[], PostgresNative]) -> None:
    native = opened()
    client = duroxide.Client(duroxide.PostgresProvider(native))
    worker(0.3)
    loads, load = [0], native._store.load

    def counted(*arguments: Any) -> Any:
        loads[0] += 1
        return load(*arguments)

    native._store.load = counted  # type: ignore[method-assign]
    client.start_orchestration("i", "steps", 3)
    assert client.wait_for_orchestration("i", 30_000).output == 3
    assert loads[0] < 8, "it does not poll"


def test_an_owner_whose_session_broke_is_announced_again_before_it_is_taken_for_dead(
    opened: Callable[[], PostgresNative], postgres: Server, schema: str
) -> None:
    native, other = opened(), opened()
    withdraw = native.announce("a")
    handed(native, messages=[start("i")])
    handed(native, Appetite("a", turns=1, lease_ms=600_000))
    listens = f"SELECT pid FROM pg_locks JOIN {schema}.dx_owners ON owner = 'a' AND locktype = 'advisory' AND objid = (key & 4294967295)::oid"
    [(pid,)] = postgres.execute(listens)
    postgres.execute("SELECT pg_terminate_backend(%s, 5000)", pid)
    deadline = time.monotonic() + 1.5
    while time.monotonic() < deadline:
        assert other.reclaim(now()) == 0
        time.sleep(0.05)
    assert postgres.execute(listens) not in ([], [(pid,)])
    withdraw()


def test_what_is_in_doubt_when_patience_ends_says_so(opened: Callable[[], PostgresNative], postgres: Server, schema: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outage outlasts the store's patience: a caller hears whether sending again is safe."""
    monkeypatch.setattr(postgres_store, "PATIENCE_S", 0.2)
    native = opened()
    connect = native._store._connect

    def away() -> Any:
        raise psycopg.OperationalError("the server is away")

    def heard(after: bool) -> StoreError:
        handed(native, messages=[start("warm")])
        cut = Cut(native, postgres, after)
        native._store._connect = away
        with pytest.raises(StoreError) as caught:
            handed(native, messages=[start("i")])
        native._store._connect, native._store._ask = connect, cut._ask  # type: ignore[method-assign]
        return caught.value

    sent = heard(after=True)
    assert sent.retryable and sent.in_doubt and "whether it was written before the connection was lost is not known" in str(sent)
    native._store._hang_up()
    native._store._connect = away
    with pytest.raises(StoreError) as caught:  # another one's doubt is none of its own
        handed(native, messages=[start("j")])
    native._store._connect = connect
    assert caught.value.retryable and not caught.value.in_doubt and "not known" not in str(caught.value)
    handed(native, messages=[start("j")])
    sent = postgres.execute(f"SELECT instance_id FROM {schema}.orchestrator_queue ORDER BY id")  # type: ignore[assignment]
    assert sent == [("warm",), ("i",), ("j",)], "what was in doubt had been written, what was not was not"
