"""The cold calls on PostgreSQL: the answers of SQLite on the same rows, real times, plans, and what happens when something fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

import postgres_bare
from duroxide.errors import ProviderError
from duroxide.storage import postgres_admin, postgres_admin_sql
from duroxide.storage.sqlite import SqliteNative, open_memory
from postgres_bare import START, Bare
from postgres_server import Server

NOW = START + 10_000_000


@pytest.fixture
def bare(postgres: Server, schema: str) -> Iterator[Bare]:
    made = Bare(postgres.url, schema)
    yield made
    made.close()


@pytest.fixture
def sqlite() -> Iterator[SqliteNative]:
    made = open_memory()
    yield made
    made.close()


def insert(bare: Bare, **rows: list[tuple[Any, ...]]) -> None:
    postgres_bare.fill_postgres(bare.connection, bare.schema, {table: rows.get(table, []) for table in postgres_bare.COLUMNS})


def instance(id: str, parent: str | None = None, status: str = "Completed", at: int = START) -> dict[str, list[tuple[Any, ...]]]:
    ended = None if status == "Running" else at + 9
    return {"instances": [(id, "flow", "1.0.0", 1, at, at + 5, parent)], "executions": [(id, 1, status, None, at + 1, ended)]}


def everything(admin: Any, instances: list[str]) -> dict[str, Any]:
    """Each answer that can be had without changing anything."""
    found: dict[str, Any] = {
        "instances": admin.instances(), "metrics": admin.system_metrics(), "depths": admin.queue_depths(NOW),
        "by status": {s: admin.instances(s) for s in ("Running", "Completed", "Failed", "ContinuedAsNew", "completed", "")},
    }  # fmt: skip
    for id in [*instances, "nobody"]:
        found[id] = [
            admin.instance_info(id), admin.executions(id), [admin.execution_info(id, n) for n in range(6)], admin.children(id),
            admin.tree(id), admin.kv_values(id), [admin.kv_value(id, f"k{n}") for n in range(5)], admin.stats(id),
        ]  # fmt: skip
    return found


REMOVALS: dict[str, Callable[[Any], Any]] = {
    "delete a tree by force": lambda a: a.delete(a.tree("i0"), True),
    "delete all that ended": lambda a: a.delete_bulk(None, None, None),
    "delete some that ended": lambda a: a.delete_bulk([f"i{n}" for n in range(0, 60, 2)], None, None),
    "delete what ended before": lambda a: a.delete_bulk(None, START + 300_000, 1_000),
    "delete the oldest": lambda a: a.delete_bulk(None, None, 3),
    "delete none": lambda a: [a.delete_bulk([], None, None), a.delete_bulk(None, None, 0), a.delete_bulk(None, -1, None)],
    "prune one": lambda a: [a.prune(f"i{n}", None, None) for n in range(20)],
    "prune one to two": lambda a: [a.prune(f"i{n}", 2, None) for n in range(20)],
    "prune by time": lambda a: [a.prune(f"i{n}", None, START + n * 10_000 + 2_501) for n in range(20)],
    "prune by both": lambda a: [a.prune(f"i{n}", 1, START + n * 10_000 + 2_500) for n in range(20)],
    "prune all": lambda a: a.prune_bulk(None, None, None, 1, None),
    "prune some": lambda a: a.prune_bulk([f"i{n}" for n in range(10)], START + 70_000, 5, 1, None),
    "prune nothing": lambda a: [a.prune_bulk(None, None, None, 1 << 62, None), a.prune("i1", None, -1), a.prune("nobody", 1, None)],
    "numbers too large": lambda a: [a.prune_bulk(None, (1 << 63) - 1, 1 << 64, 0, (1 << 63) - 1), a.delete_bulk(None, (1 << 63) - 1, 1 << 64)],
}


@pytest.mark.parametrize("removal", REMOVALS)
def test_answers_are_those_of_sqlite(bare: Bare, sqlite: SqliteNative, removal: str) -> None:
    rows = postgres_bare.rows(seed=sorted(REMOVALS).index(removal), instances=60)
    postgres_bare.fill_postgres(bare.connection, bare.schema, rows)
    postgres_bare.fill_sqlite(sqlite._cold, rows)
    ids = [row[0] for row in rows["instances"]]
    here, there = everything(bare, ids), everything(sqlite, ids)
    assert here.pop("depths") == there.pop("depths")
    assert here == there
    assert REMOVALS[removal](bare) == REMOVALS[removal](sqlite)
    assert everything(bare, ids) == everything(sqlite, ids)
    for table in ("sessions", "instance_locks", "kv_store", "kv_delta", "orchestrator_queue", "worker_queue", "history"):
        count = f"SELECT count(*) FROM {{s}}{table}"
        assert bare.connection.execute(count.replace("{s}", f"{bare.schema}.")).fetchone() == (
            sqlite._cold.execute(count.replace("{s}", "")).fetchone()
        ), table


def test_removals_remove_something(bare: Bare) -> None:
    """So that the comparison above compares."""
    rows = postgres_bare.rows(seed=1, instances=60)
    postgres_bare.fill_postgres(bare.connection, bare.schema, rows)
    assert bare.delete_bulk(None, None, None)["instances_deleted"] > 5
    assert bare.prune_bulk(None, None, None, 1, None)["executions_deleted"] > 20


# ── where PostgreSQL has more to tell, or tells it otherwise ─────────────────────────────────────────────────────


def test_times_are_real_and_exact_to_the_millisecond(bare: Bare) -> None:
    for n in range(0, 1_000, 7):
        insert(bare, **instance(f"i{n}", at=START + n))
        info, execution = bare.instance_info(f"i{n}"), bare.execution_info(f"i{n}", 1)
        assert info is not None and execution is not None
        assert (info["created_at"], info["updated_at"]) == (START + n, START + n + 9)
        assert (execution["started_at"], execution["completed_at"]) == (START + n + 1, START + n + 9)


def test_an_execution_that_the_reference_continued_as_new_ended_when_the_next_began(bare: Bare) -> None:
    """It leaves completed_at empty; pruning by time would never find it."""
    executions = [("i", n, "ContinuedAsNew", None, START + n * 1_000, None) for n in (1, 2)] + [("i", 3, "Running", None, START + 3_000, None)]
    insert(bare, instances=[("i", "flow", "1.0.0", 3, START, START, None)], executions=executions)
    ended = [info and info["completed_at"] for info in (bare.execution_info("i", n) for n in (1, 2, 3))]
    assert ended == [START + 2_000, START + 3_000, None]
    assert bare.prune("i", None, START + 2_000)["executions_deleted"] == 0
    assert bare.prune("i", None, START + 2_001)["executions_deleted"] == 1 and bare.executions("i") == [2, 3]


def test_sizes_are_bytes(bare: Bare) -> None:
    insert(bare, **instance("i"), history=[("i", 1, 1, "Event", '{"a":"é"}', START)], kv_store=[("i", "k", "€", 1)])
    stats = bare.stats("i")
    assert stats is not None and (stats["history_size_bytes"], stats["kv_total_value_bytes"]) == (10, 3)


def test_a_first_event_that_cannot_be_read_carries_nothing(bare: Bare) -> None:
    for n, text in enumerate(("{", "[]", '"x"', '{"carry_forward_events": 5}', '{"carry_forward_events": null}', '{"a":"\\u0000\\ud800"}')):
        insert(bare, **instance(f"i{n}"), history=[(f"i{n}", 1, 1, "Event", text, START)])
        stats = bare.stats(f"i{n}")
        assert stats is not None and stats["queue_pending_count"] == 0


def test_depths_count_what_may_be_claimed_at_once(bare: Bare) -> None:
    insert(bare, orchestrator_queue=[("i", "{}", NOW, None, NOW), ("i", "{}", NOW + 1, None, NOW), ("i", "{}", NOW, "t", NOW)])
    insert(bare, worker_queue=[("i", "{}", NOW, None, None, NOW), ("i", "{}", NOW, "t", None, NOW)])
    bare.connection.execute(f"UPDATE {bare.schema}.worker_queue SET locked_until = %s WHERE lock_token = 't'", (NOW,))
    assert bare.queue_depths(NOW) == {"orchestrator_queue": 1, "worker_queue": 2, "timer_queue": 0}
    assert bare.queue_depths(NOW + 1) == {"orchestrator_queue": 2, "worker_queue": 2, "timer_queue": 0}
    bare.connection.execute(f"UPDATE {bare.schema}.orchestrator_queue SET visible_at = 'infinity'")
    assert bare.queue_depths((1 << 64) - 1)["orchestrator_queue"] == 0


def test_children_of_one_moment_are_in_the_order_of_their_numbers(bare: Bare) -> None:
    insert(bare, **instance("p"))
    for n in (2, 10, 9, 3):
        insert(bare, **instance(f"p::sub::{n}", parent="p"))
    assert bare.children("p") == [f"p::sub::{n}" for n in (2, 3, 9, 10)]
    assert bare.tree("p") == ["p", *(f"p::sub::{n}" for n in (10, 9, 3, 2))]


def test_a_ring_of_parents_ends(bare: Bare) -> None:
    for id, parent in (("a", "b"), ("b", "a"), ("c", "c")):
        insert(bare, **instance(id, parent))
    assert bare.tree("a") == ["a", "b"] and bare.tree("c") == ["c"]


def test_an_instance_whose_parent_is_gone_is_a_root(bare: Bare) -> None:
    insert(bare, **instance("orphan", "gone"))
    info = bare.instance_info("orphan")
    assert info is not None and info["parent_instance_id"] is None
    assert bare.delete_bulk(None, None, None)["instances_deleted"] == 1


def test_what_no_row_can_hold_is_not_there(bare: Bare) -> None:
    insert(bare, **instance("i", status="Running"))
    for id in ("a\0b", "\ud800", "i\0"):
        assert everything(bare, [id])[id] == [None, [], [None] * 6, [], [id], {}, [None] * 5, None]
        assert bare.instances(id) == [] and bare.kv_value("i", id) is None
        assert bare.delete([id], True)["instances_deleted"] == bare.delete_bulk([id], None, None)["instances_deleted"] == 0
        assert bare.prune(id, None, None)["executions_deleted"] == 0


@pytest.mark.parametrize("name", ["'; DROP TABLE instances; --", "%s", "%(ids)s", "{s}", "i\\", "💥", "a" * 2_000])
def test_an_id_is_data(bare: Bare, name: str) -> None:
    insert(bare, **instance(name), kv_store=[(name, name, name, 1)])
    assert bare.instances() == [name] and bare.tree(name) == [name] and bare.kv_value(name, name) == name
    assert bare.delete([name], False)["instances_deleted"] == 1


# ── removal among others who write ───────────────────────────────────────────────────────────────────────────────


def test_deletion_waits_for_a_turn_that_is_being_committed(postgres: Server, bare: Bare) -> None:
    insert(bare, **instance("i"), instance_locks=[("i", "lock_a:1", NOW, NOW)])
    with psycopg.connect(postgres.url) as other:
        other.execute(f"SELECT 1 FROM {bare.schema}.instance_locks WHERE instance_id = 'i' FOR UPDATE")
        other.execute(f"INSERT INTO {bare.schema}.history VALUES ('i', 1, 1, 'Event', '{{}}', now())")
        counts: list[dict[str, int]] = []
        thread = threading.Thread(target=lambda: counts.append(bare.delete(["i"], True)))
        thread.start()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s"
        while postgres.execute(waiting, f'DELETE FROM "{bare.schema}".instance_locks%') == [(0,)]:
            assert thread.is_alive()
        other.commit()
        thread.join(10)
    assert counts[0]["events_deleted"] == 1


def test_a_deadlock_is_tried_again(postgres: Server, bare: Bare) -> None:
    """The other has what deletion takes last and wants what it takes first; the server ends one of the two."""
    insert(bare, **instance("i"), instance_locks=[("i", "lock_a:1", NOW, NOW)])
    bare.connection.execute("SET deadlock_timeout = '500ms'")  # looked for once, so long after the wait began
    with psycopg.connect(postgres.url) as other:
        other.execute("SET deadlock_timeout = '60s'")
        other.execute(f"SELECT 1 FROM {bare.schema}.instances FOR UPDATE")
        counts: list[dict[str, int]] = []
        thread = threading.Thread(target=lambda: counts.append(bare.delete(["i"], True)))
        thread.start()
        while postgres.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s", 'SELECT 1%') == [(0,)]:
            assert thread.is_alive()
        other.execute(f"UPDATE {bare.schema}.instance_locks SET locked_until = 0")
        other.commit()
        thread.join(10)
    assert counts == [{"instances_deleted": 1, "executions_deleted": 1, "events_deleted": 0, "queue_messages_deleted": 0}]


def test_bulk_deletion_passes_over_a_tree_that_came_to_life_meanwhile(bare: Bare, monkeypatch: pytest.MonkeyPatch) -> None:
    for id in ("a", "b", "c"):
        insert(bare, **instance(id))
    insert(bare, **instance("b1", "b"))
    trees = Bare._trees

    def late(self: Bare, roots: list[str]) -> dict[str, list[str]]:
        found = trees(self, roots)
        insert(bare, **instance("b2", "b1", status="Running"))
        bare.connection.execute(f"UPDATE {bare.schema}.executions SET status = 'Running' WHERE instance_id = 'c'")
        return found

    monkeypatch.setattr(Bare, "_trees", late)
    running = Bare._rows
    monkeypatch.setattr(Bare, "_rows", lambda self, op, text, **v: [] if text is postgres_admin_sql.RUNNING else running(self, op, text, **v))
    assert bare.delete_bulk(None, None, None)["instances_deleted"] == 1
    assert sorted(bare.instances()) == ["b", "b1", "b2", "c"]


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr(postgres_admin.time, "sleep", pauses.append)
    return pauses


def test_what_may_pass_is_tried_again_with_growing_pauses(bare: Bare, hasty: list[float]) -> None:
    insert(bare, **instance("i"))
    bare.failures = [psycopg.errors.SerializationFailure(), psycopg.OperationalError("gone"), psycopg.errors.DeadlockDetected()]
    assert bare.delete(["i"], False)["instances_deleted"] == 1
    assert hasty == [0.05, 0.1, 0.2]


def test_after_some_tries_the_error_names_operation_and_cause(bare: Bare, hasty: list[float]) -> None:
    bare.failures = [psycopg.OperationalError("no route to host")] * 10
    with pytest.raises(ProviderError, match="^list_all_instances: no route to host$"):
        bare.instances()
    assert len(hasty) == 5 and len(bare.failures) == 4


def test_what_will_not_pass_is_told_at_once(bare: Bare, hasty: list[float]) -> None:
    bare.connection.execute(f"DROP TABLE {bare.schema}.kv_delta")
    with pytest.raises(ProviderError, match=r'^get_kv_value: relation "dx_test_\w+.kv_delta" does not exist'):
        bare.kv_value("i", "k")
    assert hasty == []


def test_a_commit_whose_outcome_is_unknown_is_not_repeated(bare: Bare, hasty: list[float]) -> None:
    insert(bare, **instance("i"))
    bare.at_commit = [psycopg.OperationalError("server closed the connection unexpectedly")]
    with pytest.raises(ProviderError, match="^delete_instance: .* may or may not have happened: server closed"):
        bare.delete(["i"], False)
    assert bare.instances() == [] and hasty == []


def test_a_commit_that_the_server_refused_is_repeated(bare: Bare, hasty: list[float]) -> None:
    insert(bare, **instance("i"))
    bare.at_commit = [psycopg.errors.SerializationFailure()]
    assert bare.delete(["i"], False)["instances_deleted"] == 0  # here it was committed nevertheless
    assert hasty == [0.05]


# ── plans ────────────────────────────────────────────────────────────────────────────────────────────────────────


def fill_for_plans(bare: Bare) -> None:
    """Lopsided rows and statistics of them, enough that reading a table from end to end is the dearer way."""
    numbers = "FROM generate_series(1, 4000) n"
    for columns, values in (
        ("instances", "'i' || n, 'o', '1', 1, now() - n * interval '1 s', now(), NULL"),
        ("executions", "'i' || n, 1, CASE WHEN n % 1000 = 0 THEN 'Running' ELSE 'Completed' END, repeat('x', 100), now(), now()"),
        ("history", "'i' || n % 50, 1, n, 'Event', repeat('x', 100), now()"),
        ("kv_store", "'i' || n, 'k', repeat('x', 100), 1"),
        ("kv_delta", "'i' || n, 'k', repeat('x', 100), 1"),
    ):
        bare.connection.execute(f"INSERT INTO {bare.schema}.{columns} SELECT {values} {numbers}")
    bare.connection.execute(
        f"INSERT INTO {bare.schema}.orchestrator_queue (instance_id, work_item, visible_at, created_at)"
        f" SELECT 'i' || n, repeat('x', 100), now(), now() {numbers}"
    )
    bare.connection.execute(
        f"INSERT INTO {bare.schema}.worker_queue (instance_id, work_item, visible_at, created_at, session_id)"
        f" SELECT 'i' || n, repeat('x', 100), now(), now(), CASE WHEN n % 2 = 0 THEN 's' || n END {numbers}"
    )
    bare.connection.execute(f"INSERT INTO {bare.schema}.sessions SELECT 's' || n, 'a', 0, 0 {numbers}")
    bare.connection.execute(f"INSERT INTO {bare.schema}.instance_locks SELECT 'i' || n, 'lock_a:' || n, 0, 0 {numbers}")
    for table in postgres_bare.COLUMNS:
        bare.connection.execute(f"VACUUM ANALYZE {bare.schema}.{table}")


VALUES = {
    "instance": "i7", "execution": 1, "key": "k", "status": "Running", "now": NOW, "before": NOW, "limit": 10, "keep": 1,
    "ids": ["i7", "i8"], "sessions": ["s2", "s4"],
}  # fmt: skip


def plan(bare: Bare, template: str) -> Iterator[dict[str, Any]]:
    """Every node of the plan."""
    text = template.replace("{s}", bare.schema)
    row = bare.connection.execute("EXPLAIN (FORMAT JSON) " + text, VALUES).fetchone()
    assert row is not None
    todo = [row[0][0]["Plan"]]
    while todo:
        node = todo.pop()
        yield node
        todo += node.get("Plans", ())


def scans(bare: Bare, template: str) -> set[str]:
    return {node["Relation Name"] for node in plan(bare, template) if node["Node Type"] == "Seq Scan"}


# What counts or lists all may read all, and no more than that.
WHOLE = {
    "INSTANCES": set(), "BY_STATUS": {"executions"}, "TOTALS": {"instances", "history"},
    "DEPTHS": {"orchestrator_queue", "worker_queue"}, "ROOTS_ENDED": set(), "ANY": set(), "INSTANCES_OF": set(),
}  # fmt: skip
PIECES = {"EARLIEST", "LATEST", "AND_BEFORE", "AND_IDS", "OLDEST_FIRST"}
STATEMENTS = {n: t for n, t in vars(postgres_admin_sql).items() if n.isupper() and n[0] != '_' and n not in PIECES}


def test_no_call_on_some_instances_reads_a_table_from_end_to_end(bare: Bare) -> None:
    fill_for_plans(bare)
    found = {}
    for name, template in STATEMENTS.items():
        text = template + (postgres_admin_sql.OLDEST_FIRST if name in ("ROOTS_ENDED", "ANY") else "")
        if extra := scans(bare, text) - WHOLE.get(name, set()):
            found[name] = extra
    assert found == {}
    assert len(STATEMENTS) > 25


def test_lists_go_by_their_indexes(bare: Bare) -> None:
    fill_for_plans(bare)
    used = {name: {node.get("Index Name") for node in plan(bare, template)} for name, template in STATEMENTS.items()}
    assert "dx_instances_created" in used["INSTANCES"] and "dx_executions_open" in used["INSTANCES_OF"]
    assert not any(node["Node Type"] == "Sort" for node in plan(bare, postgres_admin_sql.INSTANCES))
    for name in ("ROOTS_ENDED", "ANY"):
        nodes = list(plan(bare, STATEMENTS[name] + postgres_admin_sql.OLDEST_FIRST))
        assert "dx_instances_created" in {node.get("Index Name") for node in nodes}, name


def test_a_scan_is_seen(bare: Bare) -> None:
    fill_for_plans(bare)
    assert scans(bare, "SELECT 1 FROM {s}.history WHERE event_data = 'x'") == {"history"}


def test_each_statement_is_used(bare: Bare) -> None:
    """A name that no call asks for is dead; each is run here once."""
    rows = postgres_bare.rows(seed=2, instances=60)
    postgres_bare.fill_postgres(bare.connection, bare.schema, rows)
    everything(bare, ["i1"])
    for removal in REMOVALS.values():
        removal(bare)
    seen = {template.split(postgres_admin_sql.AND_BEFORE)[0].split(postgres_admin_sql.AND_IDS)[0] for template in bare.seen}
    seen |= {template.removesuffix(postgres_admin_sql.OLDEST_FIRST) for template in seen}
    assert {name for name, template in STATEMENTS.items() if template not in seen} == set()
