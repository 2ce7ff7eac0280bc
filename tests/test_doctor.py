"""`python -m duroxide doctor`: each kind of damage is planted and found, in a file and in a PostgreSQL schema; what is healthy stays unsuspected."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import doctored
import pytest
from compat import record
from runtime_rig import until

import duroxide
from duroxide import doctor
from duroxide.__main__ import main
from duroxide.runtime import clock
from duroxide.storage.memory import MemoryStore

KEEP_ALIVE_MS = 10 * 86_400_000


# ── a store with something of everything in it ───────────────────────────────────────────────────────────────


def work(ctx: Any, value: Any) -> Any:
    ctx.set_kv_value("early", "1")
    ctx.set_custom_status("working")
    got = yield ctx.schedule_activity("echo", value)
    ctx.set_kv_value("late", "2")
    return got


def fails(ctx: Any, value: Any) -> Any:
    yield ctx.schedule_activity("echo", value)
    raise ValueError("no")


def listens(ctx: Any, value: Any) -> Any:
    ctx.set_kv_value("early", "1")
    yield ctx.wait_for_event("go")


def sleeps(ctx: Any, value: Any) -> Any:
    yield ctx.schedule_timer(86_400_000)


def asks(ctx: Any, value: Any) -> Any:
    yield ctx.schedule_activity("echo", value).with_tag("nobody")


def parent(ctx: Any, value: Any) -> Any:
    yield ctx.schedule_sub_orchestration_with_id("listens", "child", None)


def again(ctx: Any, value: Any) -> Any:
    if value:
        yield ctx.continue_as_new(value - 1)
    yield ctx.dequeue_event("more")


PROGRAMS = (work, fails, listens, sleeps, asks, parent, again)


def fill(provider: Any) -> None:
    """Instances named like their programs, in every state that lasts, and messages that nobody has taken yet."""
    runtime, client = duroxide.Runtime(provider), duroxide.Client(provider)
    runtime.register_activity("echo", lambda ctx, value: value)
    for program in PROGRAMS:
        runtime.register_orchestration(program.__name__, program)
    runtime.start()
    for program in PROGRAMS:
        client.start_orchestration(program.__name__, program.__name__, 1)
    for name in ("work", "fails"):
        client.wait_for_orchestration(name, 20_000)
    native = provider._native
    wanted = {"sleeps": "TimerCreated", "asks": "ActivityScheduled", "child": "ExternalSubscribed", "parent": "SubOrchestrationScheduled", "listens": "ExternalSubscribed"}
    until(lambda: all(_has(native, name, 1, kind) for name, kind in wanted.items()) and _has(native, "again", 2, "ExternalSubscribedPersistent"))
    runtime.shutdown(5_000)
    client.enqueue_event("again", "more", 7)
    client.enqueue_event("again", "other", 8)


def _has(native: Any, instance: str, execution: int, kind: str) -> bool:
    loaded = native.load(instance, execution)
    return loaded is not None and any(json.loads(text)["type"] == kind for _, text in loaded.events)


class Store(NamedTuple):
    """A copy to do damage to: statements, and what the doctor says afterwards."""

    where: str
    schema: str | None
    run: Callable[[str], Any]

    def found(self) -> list[doctor.Finding]:
        return doctored.findings(self.where, self.schema)

    def doctor(self, *more: str) -> int:
        return main(["doctor", self.where, *(("--schema", self.schema) if self.schema else ()), *more])


@pytest.fixture(scope="module")
def filled_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filled") / "store.db"
    provider = duroxide.SqliteProvider.open(str(path))
    fill(provider)
    provider.close()
    return path


@pytest.fixture(scope="module")
def filled_schema(postgres: Any) -> Iterator[str]:
    with postgres.schema() as name:
        provider = duroxide.PostgresProvider.connect_with_schema(postgres.url, name)
        fill(provider)
        provider.close()
        yield name


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "sqlite":
        path = shutil.copy(request.getfixturevalue("filled_file"), tmp_path / "copy.db")

        def run(statement: str) -> None:
            connection = apsw.Connection(str(path))
            connection.execute("PRAGMA ignore_check_constraints = on")
            connection.execute(statement)
            connection.close()

        yield Store(str(path), None, run)
        return
    server, source = request.getfixturevalue("postgres"), request.getfixturevalue("filled_schema")
    with server.schema() as name, server.connect() as connection:
        tables = [row[0] for row in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", (source,)).fetchall()]
        copies = (f'CREATE TABLE "{name}".{table} AS TABLE "{source}".{table}' for table in tables)
        connection.execute("; ".join((f'CREATE SCHEMA "{name}"', *copies, f'ALTER TABLE "{name}".worker_queue ALTER id SET DEFAULT 9999',
                                      f'ALTER TABLE "{name}".orchestrator_queue ALTER id SET DEFAULT 9999, ALTER attempt_count SET DEFAULT 0',
                                      f'ALTER TABLE "{name}".worker_queue ALTER attempt_count SET DEFAULT 0')))  # fmt: skip
        connection.execute(f'SET search_path = "{name}"')
        yield Store(server.url, name, connection.execute)


# ── damage ───────────────────────────────────────────────────────────────────────────────────────────────────


def send(instance: str, item: str) -> str:
    """A message, with the times of another row, so that it is the same text for both databases."""
    return (
        "INSERT INTO orchestrator_queue (instance_id, work_item, visible_at, created_at)"
        f" SELECT '{instance}', '{item}', visible_at, created_at FROM orchestrator_queue LIMIT 1"
    )


def event(instance: str, id: int, find: str, put: str) -> str:
    return f"UPDATE history SET event_data = replace(event_data, '{find}', '{put}') WHERE instance_id = '{instance}' AND event_id = {id}"


def new_event(instance: str, id: int, kind: str, fields: str, execution: int = 1) -> str:
    text = f'{{"event_id":{id},"source_event_id":null,"instance_id":"{instance}","execution_id":{execution},"timestamp_ms":1,"type":"{kind}"{fields}}}'
    return (
        "INSERT INTO history (instance_id, execution_id, event_id, event_type, event_data, created_at)"
        f" SELECT '{instance}', {execution}, {id}, CASE WHEN event_type = 'Event' THEN event_type ELSE '{kind}' END, '{text}', created_at FROM history LIMIT 1"
    )


LEASE = "INSERT INTO instance_locks VALUES ('{}', '{}', {}, 1)"
FAR = clock.now() + KEEP_ALIVE_MS
PLANTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    # what -> (the rule, the instance that is named, the damage)
    "an execution without its instance": ("execution-orphan", "work", ("DELETE FROM instances WHERE instance_id = 'work'",)),
    "events without their instance": ("execution-orphan", "work", ("DELETE FROM instances WHERE instance_id = 'work'", "DELETE FROM executions WHERE instance_id = 'work'")),
    "events without their execution": ("execution-orphan", "again", ("DELETE FROM executions WHERE instance_id = 'again' AND execution_id = 1",)),
    "no current execution": ("execution-current", "listens", ("UPDATE instances SET current_execution_id = 3 WHERE instance_id = 'listens'",)),
    "an execution after the current one": ("execution-current", "again", ("UPDATE instances SET current_execution_id = 1 WHERE instance_id = 'again'",)),
    "an older execution that runs": ("execution-status", "again", ("UPDATE executions SET status = 'Running' WHERE instance_id = 'again'",)),
    "a status that is none": ("execution-status", "listens", ("UPDATE executions SET status = 'Walking' WHERE instance_id = 'listens'",)),
    "another name than its history's": ("execution-name", "listens", ("UPDATE instances SET orchestration_name = 'other' WHERE instance_id = 'listens'",)),
    "a parent that does not exist": ("parent-missing", "child", ("UPDATE instances SET parent_instance_id = 'gone' WHERE instance_id = 'child'",)),
    "a pin of the future": ("pin-newer", "listens", ("UPDATE executions SET duroxide_version_minor = 9 WHERE instance_id = 'listens'",)),
    "an event is gone": ("event-ids", "work", ("DELETE FROM history WHERE instance_id = 'work' AND event_id = 3",)),
    "an event twice": ("event-ids", "work", ("UPDATE history SET event_id = 40 WHERE instance_id = 'work' AND event_id = 3",)),
    "an event that is no JSON": ("event-unreadable", "listens", ("UPDATE history SET event_data = '{' WHERE instance_id = 'listens' AND event_id = 2",)),
    "an event that is a list": ("event-unreadable", "listens", ("UPDATE history SET event_data = '[]' WHERE instance_id = 'listens' AND event_id = 2",)),
    "an event of an unknown kind": ("event-unreadable", "listens", (event("listens", 2, "KeyValueSet", "Surprise"),)),
    "an event without its field": ("event-unreadable", "listens", (event("listens", 2, '"key"', '"kay"'),)),
    "an event of another instance": ("event-envelope", "listens", (event("listens", 2, '"listens"', '"child"'),)),
    "an event of another place": ("event-envelope", "work", ("UPDATE history SET event_data = (SELECT event_data FROM history WHERE instance_id = 'work' AND event_id = 2) WHERE instance_id = 'work' AND event_id = 3",)),
    "no start at the beginning": ("event-first", "listens", (event("listens", 1, "OrchestrationStarted", "KeyValuesCleared"),)),
    "an execution without events": ("event-first", "listens", ("DELETE FROM history WHERE instance_id = 'listens'",)),
    "a result of nothing": ("event-source", "fails", (event("fails", 3, '"source_event_id":2', '"source_event_id":1'),)),
    "a second result": ("event-source", "asks", (
        new_event("asks", 3, "ActivityCompleted", ',"result":"1"'), event("asks", 3, '"source_event_id":null', '"source_event_id":2'),
        new_event("asks", 4, "ActivityCompleted", ',"result":"1"'), event("asks", 4, '"source_event_id":null', '"source_event_id":2'))),
    "a completed status without its end": ("event-end", "listens", ("UPDATE executions SET status = 'Completed' WHERE instance_id = 'listens'",)),
    "an end that the status does not know": ("event-end", "work", ("UPDATE executions SET status = 'Failed' WHERE instance_id = 'work'",)),
    "an event after the end": ("event-end", "work", (new_event("work", 8, "KeyValuesCleared", ""),)),
    "another output": ("output", "work", ("UPDATE executions SET output = '2' WHERE instance_id = 'work'",)),
    "another error": ("output", "fails", ("UPDATE executions SET output = 'fine' WHERE instance_id = 'fails'",)),
    "another custom status": ("custom-status", "work", ("UPDATE instances SET custom_status = 'idle' WHERE instance_id = 'work'",)),
    "values of nobody": ("value-orphan", "ghost", ("UPDATE kv_store SET instance_id = 'ghost' WHERE instance_id = 'work'",)),
    "changes that an end left": ("value-change", "work", ("INSERT INTO kv_delta VALUES ('work', 'k', 'v', 1)",)),
    "another value than was set": ("value-change", "work", ("UPDATE kv_store SET value = '9' WHERE instance_id = 'work' AND key = 'late'",)),
    "a value that is gone": ("value-change", "listens", ("DELETE FROM kv_delta WHERE instance_id = 'listens'",)),
    "a value that nobody set": ("value-change", "listens", ("INSERT INTO kv_delta VALUES ('listens', 'k', 'v', 1)",)),
    "a message that is no JSON": ("message-unreadable", "again", ("UPDATE orchestrator_queue SET work_item = 'more' WHERE instance_id = 'again'",)),
    "a message of an unknown kind": ("message-unreadable", "again", (send("again", '{"News":{}}'),)),
    "a message without its field": ("message-unreadable", "again", (send("again", '{"QueueMessage":{"instance":"again","name":"more"}}'),)),
    "work among the messages": ("message-unreadable", "again", (send("again", '{"ActivityExecute":{"instance":"again","execution_id":1,"id":2,"name":"x","input":""}}'),)),
    "a message for another": ("message-address", "again", (send("again", '{"QueueMessage":{"instance":"work","name":"more","data":"1"}}'),)),
    "a message for nobody": ("message-orphan", "ghost", (send("ghost", '{"ExternalRaised":{"instance":"ghost","name":"more","data":"1"}}'),)),
    "a message tagged by nobody's lease": ("message-held", "again", ("UPDATE orchestrator_queue SET lock_token = 'lock_gone:1' WHERE instance_id = 'again'",)),
    "a message left to nobody": ("message-held", "again", ("UPDATE orchestrator_queue SET lock_token = 'to:gone' WHERE instance_id = 'again'",)),
    "work that is no JSON": ("work-unreadable", "asks", ("UPDATE worker_queue SET work_item = '{]'",)),
    "work that is a message": ("work-unreadable", "asks", ("UPDATE worker_queue SET work_item = '{\"CancelInstance\":{\"instance\":\"asks\",\"reason\":\"\"}}'",)),
    "work of another activity": ("work-address", "asks", ("UPDATE worker_queue SET activity_id = 7",)),
    "work of another tag": ("work-address", "asks", ("UPDATE worker_queue SET tag = 'gpu'",)),
    "work of an ended instance": ("work-orphan", "work", ("UPDATE worker_queue SET instance_id = 'work', work_item = replace(work_item, 'asks', 'work')",)),
    "work of no instance": ("work-orphan", "ghost", ("UPDATE worker_queue SET instance_id = 'ghost', work_item = replace(work_item, 'asks', 'ghost')",)),
    "work twice": ("work-double", "asks", ("INSERT INTO worker_queue (work_item, visible_at, created_at, instance_id, execution_id, activity_id, tag) SELECT work_item, visible_at, created_at, instance_id, execution_id, activity_id, tag FROM worker_queue",)),
    "work leased without an end": ("work-held", "asks", ("UPDATE worker_queue SET lock_token = 'lock_gone:1', locked_until = NULL",)),
    "work leased in no session": ("work-session", "asks", (f"UPDATE worker_queue SET session_id = 's', lock_token = 'lock_x:1', locked_until = {clock.now() + 3_600_000}, work_item = replace(work_item, ',\"tag\"', ',\"session_id\":\"s\",\"tag\"')",)),
    "work leased for days": ("lease-far", "asks", (f"UPDATE worker_queue SET lock_token = 'lock_x:1', locked_until = {FAR}",)),
    "an instance leased for days": ("lease-far", "listens", (LEASE.format("listens", "lock_x:1", FAR),)),
    "a session held for days": ("lease-far", "", (f"INSERT INTO sessions VALUES ('s', 'w', {FAR}, 1)",)),
    "a lease on nothing": ("lease-idle", "ghost", (LEASE.format("ghost", "lock_x:1", 5),)),
    "one token on two leases": ("lease-double", "sleeps", (LEASE.format("listens", "lock_x:1", 5), LEASE.format("sleeps", "lock_x:1", 5))),
    "an activity that is queued nowhere": ("activity-lost", "asks", ("DELETE FROM worker_queue",)),
    "a timer that is queued nowhere": ("timer-lost", "sleeps", ("DELETE FROM orchestrator_queue WHERE instance_id = 'sleeps'",)),
    "a child that does not exist": ("child-lost", "parent", tuple(f"DELETE FROM {table} WHERE instance_id = 'child'" for table in ("history", "executions", "instances"))),
    "a child that ended without a word": ("child-lost", "parent", ("UPDATE executions SET status = 'Completed', output = '1' WHERE instance_id = 'child'",)),
    "a child of somebody else": ("child-lost", "parent", ("UPDATE instances SET parent_instance_id = 'work' WHERE instance_id = 'child'",)),
    "no start of the next execution": ("successor-lost", "again", (
        "DELETE FROM history WHERE instance_id = 'again' AND execution_id = 2", "DELETE FROM executions WHERE instance_id = 'again' AND execution_id = 2",
        "UPDATE instances SET current_execution_id = 1 WHERE instance_id = 'again'", "DELETE FROM orchestrator_queue WHERE instance_id = 'again'")),
    "nothing to wait for": ("nothing-wakes", "listens", ("DELETE FROM history WHERE instance_id = 'listens' AND event_id = 3",)),
    "an attempt count below none": ("row-type", "asks", ("UPDATE worker_queue SET attempt_count = -1",)),
}  # fmt: skip
# What only SQLite would store.
LOOSE: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "a message that is never visible": ("message-never", "again", ("UPDATE orchestrator_queue SET visible_at = NULL WHERE instance_id = 'again'",)),
    "a message that is parked for ever": ("message-never", "again", (f"UPDATE orchestrator_queue SET visible_at = {1 << 62} WHERE instance_id = 'again'",)),
    "an id of bytes": ("row-type", "", ("UPDATE kv_store SET instance_id = x'00ff' WHERE key = 'late'",)),
    "an event whose id is a word": ("row-type", "work", ("UPDATE history SET event_id = 'three' WHERE instance_id = 'work' AND event_id = 3",)),
    "an event that is no UTF-8": ("event-unreadable", "listens", ("UPDATE history SET event_data = CAST(x'7bff7d' AS TEXT) WHERE instance_id = 'listens' AND event_id = 2",)),
    "an attempt count in words": ("row-type", "again", ("UPDATE orchestrator_queue SET attempt_count = 'many' WHERE instance_id = 'again'",)),
    "an execution in words": ("execution-current", "listens", ("UPDATE instances SET current_execution_id = 'last' WHERE instance_id = 'listens'",)),
    "a lease that ends in words": ("row-type", "listens", ("INSERT INTO instance_locks VALUES ('listens', 'lock_x:1', 'soon', 1)",)),
    "a session that ends in words": ("row-type", "", ("INSERT INTO sessions VALUES ('s', 'w', 'soon', 1)",)),
    "an index that has lost a row": ("file-damaged", "", (
        "PRAGMA writable_schema = on", "UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master WHERE name = 'dx_work_ready') WHERE name = 'dx_orch_ready'")),
}  # fmt: skip


# On PostgreSQL a share by default, all in the long run.
EACH = [("sqlite", what) for what in PLANTS] + [
    pytest.param("postgres", what, marks=[] if n % 4 == 0 else pytest.mark.soak) for n, what in enumerate(PLANTS)
]


@pytest.mark.parametrize(("store", "what"), EACH, indirect=["store"])
def test_planted_damage_is_found_and_named(what: str, store: Store) -> None:
    rule, instance, statements = PLANTS[what]
    for statement in statements:
        store.run(statement)
    found = store.found()
    assert (rule, instance) in {(each.rule, each.instance) for each in found}, found


@pytest.mark.parametrize("what", LOOSE)
def test_damage_that_only_sqlite_can_hold_is_found(what: str, filled_file: Path, tmp_path: Path) -> None:
    rule, instance, statements = LOOSE[what]
    path = shutil.copy(filled_file, tmp_path / "copy.db")
    connection = apsw.Connection(str(path))
    for statement in ("PRAGMA ignore_check_constraints = on", *statements):
        connection.execute(statement)
    connection.close()
    found = doctored.findings(path)
    assert (rule, instance) in {(each.rule, each.instance) for each in found}, found


def test_every_rule_has_its_damage() -> None:
    assert {rule for rule, _, _ in [*PLANTS.values(), *LOOSE.values()]} == set(doctor.RULES)


# ── health ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_not_damaged_is_healthy(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert store.found() == [] and store.doctor() == 0
    assert capsys.readouterr().out.endswith("healthy: nothing found\n")


def test_the_model_is_healthy_too_and_damage_to_it_is_found() -> None:
    memory = MemoryStore()
    fill(duroxide.SqliteProvider(memory))
    assert doctored.findings(memory) == []
    memory._state.work.clear()
    assert [each.rule for each in doctored.findings(memory)] == ["activity-lost"]


@pytest.mark.parametrize("name", record.FIXTURES)
def test_what_the_reference_left_is_healthy(name: str, tmp_path: Path) -> None:
    found = doctored.findings(record.unpack(name, tmp_path))
    assert [(each.rule, each.found) for each in found] == [("message-orphan", "CancelInstance")]


def test_a_file_at_work_is_healthy_at_every_moment(tmp_path: Path) -> None:
    path = tmp_path / "busy.db"
    provider = duroxide.SqliteProvider.open(str(path))
    stop = threading.Event()

    def busy() -> None:
        for number in range(10_000):
            if stop.is_set():
                return
            client.start_orchestration(f"i{number}", "work", number)

    runtime, client = duroxide.Runtime(provider), duroxide.Client(provider)
    runtime.register_activity("echo", lambda ctx, value: value)
    runtime.register_orchestration("work", work)
    runtime.start()
    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(20):
            doctored.healthy(path)
    finally:
        stop.set()
        thread.join()
        runtime.shutdown(5_000)
        provider.close()


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_finding_says_what_it_means_and_what_to_do(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.run("DELETE FROM worker_queue")
    assert store.doctor() == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "damage activity-lost: instance 'asks', history 1/2: activity 'echo'"
    assert lines[1].startswith("  means: ") and lines[2].startswith("  do: ") and lines[3].endswith(": 1 damage")
    assert store.doctor("--json") == 1
    [finding] = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["rule"], finding["instance"], finding["table"], finding["row"], finding["level"]) == ("activity-lost", "asks", "history", "1/2", "damage")


def test_notices_alone_are_health(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.run(LEASE.format("ghost", "lock_x:1", 5))
    assert store.doctor() == 0 and "notice lease-idle: instance 'ghost'" in capsys.readouterr().out


def test_what_is_no_store_is_an_error_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.db").write_text("no database " * 100)
    for name in ("none.db", "text.db", "."):
        assert main(["doctor", str(tmp_path / name)]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("python -m duroxide doctor: ")


def test_an_id_cannot_write_to_the_terminal(filled_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = shutil.copy(filled_file, tmp_path / "copy.db")
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE kv_store SET instance_id = char(27) || '[2J' || char(10) || 'damage'")
    connection.close()
    assert main(["doctor", str(path)]) == 1
    assert "\x1b" not in capsys.readouterr().out
