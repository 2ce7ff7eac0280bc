"""The failure laboratory: whatever network, server and other users do, nothing is lost, nothing counts twice, and the runtime lives on.

The default run has each kind of fault once; `-m soak` goes through every statement, and longer storms.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from faults_postgres.lab import Laboratory, until
from faults_postgres.proxy import ANSWER_HALF, ANSWER_LOST, FAULTS, PASS, REQUEST_LOST, Proxy

import duroxide
from duroxide.storage import postgres_connect
from postgres_server import Server

Make = Callable[..., Laboratory]


@pytest.fixture
def proxy(postgres: Server) -> Iterator[Proxy]:
    made = Proxy(postgres.url)
    yield made
    made.close()


@contextlib.contextmanager
def laboratories(server: Server) -> Iterator[Make]:
    with contextlib.ExitStack() as stack:

        def make(**options: Any) -> Laboratory:
            made = Laboratory(server, stack.enter_context(server.schema()), **options)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def lab(postgres: Server) -> Iterator[Make]:
    with laboratories(postgres) as make:
        yield make


@pytest.fixture
def own_lab(own: Server) -> Iterator[Make]:
    """On a server that may be stopped."""
    with laboratories(own) as make:
        yield make


def storm(strike: Callable[[], Any], seconds: float, pause_s: Callable[[], float]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        strike()
        time.sleep(pause_s())


# ── connections ──────────────────────────────────────────────────────────────────────────────────────────────────

def by_default(one: str) -> list[Any]:
    """All faults; `one` in the default run, the others in the soak run."""
    return [fault if fault == one else pytest.param(fault, marks=pytest.mark.soak) for fault in FAULTS]


OURS = "FROM pg_stat_activity WHERE application_name LIKE 'duroxide%%'"


def terminate(server: Server, how_many: int = 1) -> None:
    server.execute(f"SELECT pg_terminate_backend(pid) FROM (SELECT pid {OURS} ORDER BY random() LIMIT {how_many}) AS chosen")


@pytest.mark.parametrize("runtimes", [1, pytest.param(3, marks=pytest.mark.soak)])
def test_any_connection_may_be_terminated_at_any_time(postgres: Server, lab: Make, runtimes: int) -> None:
    here = lab(runtimes=runtimes)
    here.begin()
    here.progress(10)
    storm(lambda: terminate(postgres), 2.5, lambda: random.uniform(0, 0.1))
    storm(lambda: terminate(postgres, 100), 0.5, lambda: 0.1)
    here.progress(10)
    here.finish()


def test_a_cancelled_statement_is_tried_again(postgres: Server, lab: Make) -> None:
    """pg_cancel_backend, as an administrator or a statement_timeout would."""
    here = lab()
    here.begin()
    storm(lambda: postgres.execute(f"SELECT pg_cancel_backend(pid) {OURS}"), 2, lambda: random.uniform(0, 0.02))
    here.finish()


def test_connections_that_break_anywhere(proxy: Proxy, lab: Make) -> None:
    here = lab(url=proxy.url, runtimes=2)
    here.begin()
    here.progress(10)
    storm(proxy.cut, 2, lambda: random.uniform(0, 0.15))
    here.progress(10)
    here.finish()


def test_an_outage_ends_and_everything_goes_on_at_once(proxy: Proxy, lab: Make) -> None:
    """Longer than leases last, so that the pool's and the store's pauses have grown by then."""
    here = lab(url=proxy.url)
    here.begin()
    here.progress(10)
    proxy.refuse(True)
    proxy.cut()
    time.sleep(5)
    proxy.refuse(False)
    here.progress(10, within_s=30)
    here.finish()


@pytest.mark.parametrize("fault", by_default(ANSWER_HALF))
def test_round_trips_get_lost_by_lot(proxy: Proxy, lab: Make, fault: str) -> None:
    here, lots = lab(url=proxy.url, runtimes=2), random.Random(3)
    proxy.rule = lambda number, request: fault if lots.random() < 0.1 else PASS
    here.begin()
    here.progress(150)
    proxy.rule = lambda number, request: PASS
    here.finish()


def test_a_connection_that_stalls_is_given_up(proxy: Proxy, lab: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other end is there, and says nothing: neither TCP nor the server can tell."""
    monkeypatch.setattr(postgres_connect.Line, "limit_s", 1.0)
    here = lab(url=proxy.url)
    here.begin()
    for _ in range(2):
        here.progress(10)
        assert proxy.stall() > 0
    here.progress(20)
    here.finish()


def trips_of(here: Laboratory, proxy: Proxy, rule: Callable[[int], str]) -> int:
    """One instance from start to end, with a rule on the round trips since its start; how many there were."""
    before = proxy.trips
    proxy.rule = lambda number, request: rule(number - before)
    here.start(0)
    here.finish()
    return proxy.trips - before


@pytest.mark.parametrize("fault", by_default(ANSWER_LOST))
def test_each_round_trip_in_turn_gets_lost(proxy: Proxy, lab: Make, fault: str) -> None:
    """A fixed share of them; all in the soak test."""
    lose_each(proxy, lab, fault, {REQUEST_LOST: 2, ANSWER_LOST: 3, ANSWER_HALF: 4}[fault], step=6)


@pytest.mark.soak
@pytest.mark.parametrize("fault", FAULTS)
def test_every_round_trip_in_turn_gets_lost(proxy: Proxy, lab: Make, fault: str) -> None:
    lose_each(proxy, lab, fault, first=1, step=1)


@pytest.mark.soak
@pytest.mark.parametrize("fault", FAULTS)
def test_every_round_trip_gets_lost_and_one_of_the_recovery_too(proxy: Proxy, lab: Make, fault: str) -> None:
    for first in range(1, 200, 2):
        for second in range(1, 20):
            total = trips_of(lab(url=proxy.url), proxy, lambda n: fault if n in (first, first + second) else PASS)  # noqa: B023
            if total < first:
                return


def lose_each(proxy: Proxy, lab: Make, fault: str, first: int, step: int) -> None:
    """The n-th round trip is lost, for n = first, first + step, ... until a run passes that has no n-th."""
    for n in itertools.count(first, step):
        total = trips_of(lab(url=proxy.url), proxy, lambda number: fault if number == n else PASS)  # noqa: B023
        proxy.rule = lambda number, request: PASS
        if total < n:
            assert n > 20
            return


# ── the server ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_the_server_restarts(own: Server, own_lab: Make, mode: str) -> None:
    """"immediate" is a crash: sessions end without a word, the server recovers from its log."""
    here = own_lab(runtimes=2)
    here.begin()
    for _ in range(2):
        here.progress(10)
        own.control("restart", "-m", mode)
    here.progress(10)
    here.finish()


def test_the_server_is_away_for_a_while(own: Server, own_lab: Make) -> None:
    here = own_lab()
    here.begin()
    here.progress(10)
    own.control("stop", "-m", "fast")
    time.sleep(3)
    own.control("start")
    here.progress(10, within_s=30)
    here.finish()


def test_a_failover_to_a_server_that_only_reads(own: Server, own_lab: Make) -> None:
    """What a client sees that is still connected to the old primary: 25006 for everything that writes."""
    here = own_lab(runtimes=2)
    here.begin()
    here.progress(10)
    own.set(default_transaction_read_only="on")
    try:
        time.sleep(2)
        assert here.client.get_status("i0").status in ("Running", "Completed"), "reading goes on"
    finally:
        with psycopg.connect(own.url, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
            connection.execute("SELECT pg_reload_conf()")
    here.progress(10, within_s=30)
    here.finish()


@pytest.mark.soak
def test_a_server_that_forgot_its_last_commits(own: Server, own_lab: Make, tmp_path: Path) -> None:
    """A standby that lacked them has taken over: what runtimes hold is of a future that never was. Nothing of it gets into a history."""
    data, kept = own._own.pgdata, tmp_path / "kept"
    here = own_lab(runtimes=2)
    here.begin()
    for _ in range(6):
        here.progress(30)
        own.control("stop", "-m", "fast")
        shutil.rmtree(kept, ignore_errors=True)
        subprocess.run(["cp", "-a", str(data), str(kept)], check=True)
        own.control("start")
        here.progress(30, within_s=30)
        own.control("stop", "-m", "immediate")
        shutil.rmtree(data)
        subprocess.run(["cp", "-a", str(kept), str(data)], check=True)
        own.control("start")
    here.stop()
    here.check_rest()  # everything that is known there ends
    here.check_histories()
    there = here.client.list_all_instances()
    assert there and {here.client.get_status(name).status for name in there} == {"Completed"}


def test_no_connection_is_to_be_had(own: Server, own_lab: Make) -> None:
    """Others have taken all; what we lose meanwhile cannot be replaced until they let go."""
    here = own_lab()
    here.begin()
    here.progress(10)
    others: list[psycopg.Connection[Any]] = []
    own.execute("CREATE ROLE crowd LOGIN")
    try:
        url = psycopg.conninfo.make_conninfo(own.url, user="crowd")
        with pytest.raises(psycopg.OperationalError, match="remaining connection slots|too many clients"):
            while True:
                others.append(psycopg.connect(url))
        terminate(own, 100)
        with pytest.raises(psycopg.OperationalError):
            while True:  # the ones that became free; a superuser has three more
                others.append(psycopg.connect(own.url))
        with pytest.raises(duroxide.ProviderError, match="^Failed to connect to PostgreSQL: error returned from database: "):
            duroxide.PostgresProvider.connect_with_schema(own.url, here.schema)
        time.sleep(1)
    finally:
        for other in others:
            other.close()
    here.progress(10, within_s=30)
    here.finish()
    own.execute("DROP ROLE crowd")


def test_the_disk_of_the_server_is_full(own: Server, own_lab: Make, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A real one, small; skipped where nobody may mount it. `test_statements_fail` has the same error raised by a trigger."""
    import tempfile

    directory = tempfile.mkdtemp(prefix="dxfull-")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=777", "tmpfs", directory], capture_output=True, check=False)
    if mounted.returncode:
        shutil.rmtree(directory)
        pytest.skip(f"may not mount a small disk: {mounted.stderr.decode().strip()}")
    try:
        user = own._own.system_user
        shutil.chown(directory, user) if user else None
        own.execute(f"CREATE TABLESPACE small LOCATION '{directory}'")
        here = own_lab()
        for table in ("history", "orchestrator_queue", "worker_queue", "instances", "executions"):
            own.execute(f'ALTER TABLE "{here.schema}".{table} SET TABLESPACE small')
        own.execute("CREATE TABLE ballast (filling text) TABLESPACE small; ALTER TABLE ballast ALTER filling SET STORAGE external")
        here.begin()
        here.progress(10)
        with pytest.raises(psycopg.errors.DiskFull):
            while True:
                own.execute("INSERT INTO ballast SELECT repeat('x', 4000) FROM generate_series(1, 20)")
        until(lambda: here.refused or "could not extend" in own._own.log.read_text(), within_s=30)
        time.sleep(2)
        own.execute("DROP TABLE ballast")
        here.progress(20, within_s=30)
        here.finish()
        here.close()
        own.execute(f'DROP SCHEMA "{here.schema}" CASCADE')
        own.execute("DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", "-l", directory], check=False)
        shutil.rmtree(directory, ignore_errors=True)


# ── statements ───────────────────────────────────────────────────────────────────────────────────────────────────

STATES = {
    "serialization failure": "40001", "deadlock": "40P01", "lock timeout": "55P03", "statement timeout": "57014", "disk full": "53100",
    "out of memory": "53200", "I/O error": "58030", "read only": "25006", "shut down": "57P01",
}  # fmt: skip


@contextlib.contextmanager
def failing(server: Server, schema: str, state: str, share: float, tables: tuple[str, ...] = ("history", "orchestrator_queue", "worker_queue", "instance_locks")) -> Iterator[None]:
    """A share of the statements that write there fails with that SQLSTATE."""
    server.execute(
        f'CREATE FUNCTION "{schema}".strike() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF random() < {share} THEN'
        f" RAISE EXCEPTION 'planted' USING ERRCODE = '{state}'; END IF; RETURN NULL; END $$"
    )
    for table in tables:
        server.execute(
            f'CREATE TRIGGER strike AFTER INSERT OR UPDATE OR DELETE ON "{schema}".{table} FOR EACH STATEMENT'
            f' EXECUTE FUNCTION "{schema}".strike()'
        )
    try:
        yield
    finally:
        for table in tables:  # one lock at a time: with CASCADE this is one transaction on all of them, and runs into others
            server.execute(f'DROP TRIGGER strike ON "{schema}".{table}')
        server.execute(f'DROP FUNCTION "{schema}".strike()')


@pytest.mark.parametrize("kind", STATES)
def test_statements_fail(postgres: Server, lab: Make, kind: str) -> None:
    """First by lot, then all of them."""
    here = lab()
    here.begin()
    with failing(postgres, here.schema, STATES[kind], 0.02):
        here.progress(60)
    with failing(postgres, here.schema, STATES[kind], 1.0):
        time.sleep(0.7)
    here.progress(10, within_s=30)
    here.finish()


@pytest.mark.soak
def test_transactions_run_into_each_other(own: Server, own_lab: Make) -> None:
    """Serializable throughout, four runtimes: the server itself rolls back what it cannot put into an order."""
    own.set(default_transaction_isolation="serializable")
    try:
        here = own_lab(runtimes=4)
        here.begin(pause_s=0.005)
        here.progress(300)
        here.finish()
    finally:
        own.set(default_transaction_isolation="")


def test_somebody_locks_the_tables_in_any_order(postgres: Server, lab: Make) -> None:
    """Deadlocks and lock waits as another program makes them."""
    here, lots, ended = lab(runtimes=2), random.Random(5), threading.Event()
    deadlocks = 0

    def adversary() -> None:
        nonlocal deadlocks
        tables = ["history", "orchestrator_queue", "worker_queue", "instance_locks", "instances", "executions"]
        with psycopg.connect(postgres.url) as connection:
            connection.execute("SET deadlock_timeout = '30ms'")
            connection.commit()
            while not ended.is_set():
                try:
                    for table in lots.sample(tables, 3):
                        connection.execute(f'LOCK TABLE "{here.schema}".{table} IN SHARE MODE')
                        time.sleep(0.01)
                    connection.commit()
                except psycopg.errors.DeadlockDetected:
                    deadlocks += 1
                    connection.rollback()
                time.sleep(0.01)

    here.begin()
    thread = threading.Thread(target=adversary)
    thread.start()
    try:
        until(lambda: deadlocks >= 3 and len(here.told) > 20)
    finally:
        ended.set()
        thread.join()
    here.finish()


@pytest.mark.parametrize("setting", ["statement_timeout", "lock_timeout"])
def test_timeouts_of_the_role_strike_while_somebody_holds_a_table(own: Server, own_lab: Make, setting: str) -> None:
    own.execute("DROP ROLE IF EXISTS hasty; CREATE ROLE hasty LOGIN SUPERUSER")
    own.execute(f"ALTER ROLE hasty SET {setting} = '100ms'")
    here = own_lab(url=psycopg.conninfo.make_conninfo(own.url, user="hasty"))
    here.begin()
    here.progress(10)
    for table in ("history", "orchestrator_queue"):
        with psycopg.connect(own.url) as other:
            other.execute(f'LOCK TABLE "{here.schema}".{table} IN ACCESS EXCLUSIVE MODE')
            time.sleep(1)
        here.progress(10, within_s=30)
    here.finish()


# ── texts that PostgreSQL cannot hold ────────────────────────────────────────────────────────────────────────────

NUL, LONE = "a\0b", "a\ud800b"


def test_a_nul_or_a_lone_surrogate_in_a_call_is_refused_or_escaped_and_stops_nobody(lab: Make) -> None:
    here = lab()
    client = here.client
    here.start(1)
    calls: list[Callable[[str], Any]] = [
        lambda t: client.start_orchestration(t, "flow", 1), lambda t: client.start_orchestration(f"named {len(t)}", t, 1),
        lambda t: client.raise_event(t, "e", 1), lambda t: client.raise_event("i1", t, 1), lambda t: client.enqueue_event("i1", t, 1),
        lambda t: client.cancel_instance(t), lambda t: client.get_status(t), lambda t: client.get_kv_value(t, t),
        lambda t: client.delete_instance(t, True), lambda t: client.list_executions(t), lambda t: client.get_instance_tree(t),
        lambda t: client.list_instances_by_status(t), lambda t: client.read_execution_history(t, 1), lambda t: client.raise_event("i1", "e", t),
    ]  # fmt: skip
    heard = []
    for text in (NUL, LONE):
        for call in calls:
            try:
                call(text)
            except (RuntimeError, LookupError, ValueError) as error:
                heard.append(str(error))
    assert sum("NUL" in text for text in heard) == 3 and sum("surrogates not allowed" in text for text in heard) > 8, heard
    client.start_orchestration("payload", "flow", NUL)
    assert client.wait_for_orchestration("payload", 20_000).status in ("Completed", "Failed")
    assert client.wait_for_orchestration("i1", 20_000).status == "Completed"
    here.check_histories()


def test_a_nul_or_a_lone_surrogate_in_what_code_makes_fails_that_instance_alone(lab: Make) -> None:
    here = lab()
    [runtime] = here.runtimes

    def status(ctx: Any, text: str) -> Any:
        ctx.set_custom_status(text)
        yield ctx.schedule_timer(1)

    def value(ctx: Any, text: str) -> Any:
        ctx.set_kv_value("k", text)
        yield ctx.schedule_timer(1)

    def key(ctx: Any, text: str) -> Any:
        ctx.set_kv_value(text, "v")
        yield ctx.schedule_timer(1)

    def fails(ctx: Any, text: str) -> Any:
        raise ValueError(text)
        yield

    def activity_fails(ctx: Any, text: str) -> Any:
        yield ctx.schedule_activity("fails", text)

    def result(ctx: Any, text: str) -> Any:
        return (yield ctx.schedule_activity("returns", text))

    def child_id(ctx: Any, text: str) -> Any:
        yield ctx.schedule_sub_orchestration_with_id("child", text, 1)

    def tag(ctx: Any, text: str) -> Any:
        yield ctx.race(ctx.schedule_activity("note", [text, 1]).with_tag(text), ctx.schedule_timer(50))

    def event(ctx: Any, text: str) -> Any:
        yield ctx.race(ctx.wait_for_event(text), ctx.schedule_timer(10))

    def session(ctx: Any, text: str) -> Any:
        yield ctx.schedule_activity_on_session("note", [text, 1], text)

    def detached(ctx: Any, text: str) -> Any:
        yield ctx.start_orchestration("child", text, 1)

    def activity_name(ctx: Any, text: str) -> Any:
        yield ctx.race(ctx.schedule_activity(text, 1), ctx.schedule_timer(50))

    def raising(ctx: Any, text: str) -> Any:
        raise ValueError(f"{NUL} or {LONE}")

    runtime.register_activity("fails", raising)
    runtime.register_activity("returns", lambda ctx, text: f"{NUL} or {LONE}")
    programs = (status, value, key, fails, activity_fails, result, child_id, tag, event, session, detached, activity_name)
    for program in programs:
        runtime.register_orchestration(program.__name__, program)
    for program in programs:
        for number, text in enumerate((NUL, LONE)):
            here.client.start_orchestration(f"{program.__name__}-{number}", program.__name__, text)
    here.start(1)
    assert here.client.wait_for_orchestration("i1", 20_000).status == "Completed", "others go on"
    ended = {}
    for program in programs:
        for number in range(2):
            name = f"{program.__name__}-{number}"
            ended[name] = here.client.wait_for_orchestration(name, 30_000)
    told = {name for name, result in ended.items() if result.status == "Failed" and "cannot be stored" in result.error}
    assert told == {
        "status-0", "value-0", "key-0", "child_id-0", "child_id-1", "tag-0", "tag-1", "event-1", "session-0", "session-1",
        "detached-0", "detached-1", "activity_name-1",
    }  # fmt: skip
    assert "a\\u0000b" in ended["fails-0"].error and "a\\u0000b" in ended["activity_fails-0"].error
    assert ended["result-0"].output == ended["result-1"].output == f"{NUL} or {LONE}"
    here.check_histories()
