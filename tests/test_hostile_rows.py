"""Rows of each kind are spoiled under a running runtime: it goes on, others do not notice, and the one concerned fails or is seen by the doctor."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import doctored
import pytest
from runtime_rig import Rig, until

from duroxide.storage.sqlite import open_sqlite


ATTEMPTS = 2
COLUMNS = {
    "instances": ("orchestration_name", "orchestration_version", "current_execution_id", "parent_instance_id"),
    "executions": ("execution_id", "status", "output", "started_at", "duroxide_version_major"),
    "history": ("execution_id", "event_id", "event_type", "event_data"),
    "orchestrator_queue": ("instance_id", "work_item", "visible_at", "lock_token", "locked_until", "attempt_count"),
    "worker_queue": ("instance_id", "execution_id", "activity_id", "work_item", "visible_at", "lock_token", "locked_until", "attempt_count", "session_id", "tag"),
    "instance_locks": ("instance_id", "lock_token", "locked_until"),
    "kv_store": ("key", "value"),
    "kv_delta": ("key", "value"),
    "sessions": ("session_id", "worker_id", "locked_until", "last_activity_at"),
}
JUNK = {"text": "'junk'", "blob": "x'00ff80'", "null": "NULL", "negative": "-1", "huge": "9223372036854775807", "fraction": "0.5", "empty": "''"}


def asks(ctx: Any, value: Any) -> Any:
    """An activity that waits in the queue: nobody serves its tag."""
    ctx.set_kv_value("early", "1")
    found = yield ctx.schedule_activity("echo", value).with_tag("later")
    ctx.set_kv_value("late", "2")
    return found


def listens(ctx: Any, value: Any) -> Any:
    ctx.set_kv_value("early", "1")
    yield ctx.schedule_activity_on_session("echo", value, ctx.instance_id)
    return (yield ctx.wait_for_event("go"))


def well(ctx: Any, value: Any) -> Any:
    first = yield ctx.schedule_activity("echo", value)
    second = yield ctx.schedule_sub_orchestration("leaf", first)
    return [first, second, (yield ctx.schedule_activity_on_session("echo", value, ctx.instance_id))]


def leaf(ctx: Any, value: Any) -> Any:
    yield ctx.schedule_timer(1)
    return value


class Spoiled:
    """A runtime on a file, and a connection of somebody who knows no rules."""

    def __init__(self, path: str, implementation: Any) -> None:
        self.path = path
        self.rig = Rig(open_sqlite(path, synchronous="normal", implementation=implementation))
        self.foreign = apsw.Connection(path)
        self.foreign.set_busy_timeout(10_000)
        self.foreign.execute("PRAGMA ignore_check_constraints = 1").fetchall()
        self.begin()

    def begin(self) -> None:
        self.runtime = self.rig.runtime(asks, listens, well, leaf, max_attempts=ATTEMPTS, dispatcher_poll_interval_ms=5)

    def restart(self) -> None:
        self.runtime.shutdown(2_000)
        self.begin()

    def run(self, statement: str, *values: Any) -> int:
        """How many rows were changed; 0 if the schema does not allow it."""
        try:
            self.foreign.execute(statement, values).fetchall()
        except apsw.ConstraintError:
            return 0
        return int(self.foreign.changes())

    def park(self, program: str, id: str, kind: str) -> None:
        self.rig.client.start_orchestration(id, program, id)
        until(lambda: kind in self.rig.kinds(id))

    def status(self, id: str) -> Any:
        return self.rig.client.get_status(id)

    def pass_until(self, condition: Callable[[], Any]) -> None:
        until(condition, lambda: self.rig.clock.skip(1.0))

    def others_go_on(self, id: str) -> None:
        assert self.rig.run(id, "well", 7).output == [7, 7, 7]

    def close(self) -> None:
        self.foreign.close()
        self.rig.close()
        self.rig.native.close()


@pytest.fixture(params=["c", "python"])
def spoiled(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Spoiled]:
    made = Spoiled(str(tmp_path / "spoiled.db"), request.param)
    yield made
    made.close()


# ── a work item that is none ──


@pytest.mark.parametrize("junk", ["junk", "{}", '{"ActivityExecute":[]}', '{"CancelInstance":{"instance":"victim","reason":"x"}}', "[" * 100_000, "", "nul\0"])
def test_a_work_item_that_cannot_be_read_poisons_its_instance(spoiled: Spoiled, junk: str, caplog: pytest.LogCaptureFixture) -> None:
    spoiled.park("asks", "victim", "ActivityScheduled")
    assert spoiled.run("UPDATE worker_queue SET work_item = ?, tag = NULL WHERE instance_id = 'victim'", junk) == 1
    spoiled.others_go_on("other")
    spoiled.pass_until(lambda: spoiled.status("victim").status == "Failed")
    assert spoiled.status("victim").error.startswith("poison: orchestration victim exceeded"), spoiled.status("victim")
    assert "holds no activity" in caplog.text and "removed" in caplog.text
    assert spoiled.foreign.execute("SELECT count(*) FROM worker_queue").get == 0
    doctored.healthy(spoiled.rig.native)


def test_a_work_item_that_says_whose_it_is_poisons_that_activity(spoiled: Spoiled) -> None:
    """Though its row does not say it: a failure as that of an activity that was tried too often."""
    spoiled.park("asks", "victim", "ActivityScheduled")
    item = json.loads(spoiled.foreign.execute("SELECT work_item FROM worker_queue").get)
    item["ActivityExecute"]["input"] = 5
    assert spoiled.run("UPDATE worker_queue SET work_item = ?, tag = NULL, instance_id = NULL", json.dumps(item)) == 1
    spoiled.pass_until(lambda: spoiled.status("victim").status == "Failed")
    assert spoiled.status("victim").error == "poison: activity echo#3 exceeded 3 attempts (max 2)"


def test_a_work_item_of_nobody_is_removed_with_a_word(spoiled: Spoiled, caplog: pytest.LogCaptureFixture) -> None:
    spoiled.park("asks", "victim", "ActivityScheduled")
    spoiled.run("UPDATE worker_queue SET work_item = 'junk', tag = NULL, instance_id = NULL")
    spoiled.pass_until(lambda: spoiled.foreign.execute("SELECT count(*) FROM worker_queue").get == 0)
    assert "removed" in caplog.text and "'junk'" in caplog.text
    spoiled.others_go_on("other")
    assert spoiled.status("victim").status == "Running"
    assert {found.rule for found in doctored.findings(spoiled.rig.native)} == {"activity-lost"}


# ── any column of any row ──


def spoil_each(spoiled: Spoiled, table: str, kinds: list[str]) -> int:
    """One column of one row at a time; how many could be. After each, others go on; the runtime lives, and can be stopped and started."""
    count = 0
    for column in COLUMNS[table]:
        for kind in kinds:
            ids = [f"{program}-{column}-{kind}" for program in ("asks", "listens")]
            spoiled.park("asks", ids[0], "ActivityScheduled")
            spoiled.park("listens", ids[1], "ExternalSubscribed")
            spoiled.rig.client.enqueue_event(ids[1], "nobody asks", 1)
            where = f"instance_id LIKE '%-{column}-{kind}'" if table != "sessions" else "1"
            changed = spoiled.run(f"UPDATE {table} SET {column} = {JUNK[kind]} WHERE {where}")
            count += changed > 0
            spoiled.run(f"UPDATE worker_queue SET tag = NULL WHERE {where}" if table != "sessions" else "SELECT 1")
            spoiled.rig.client.raise_event(ids[1], "go", 1)
            spoiled.others_go_on(f"other-{column}-{kind}")
    spoiled.restart()
    spoiled.rig.clock.skip(2.0)
    spoiled.others_go_on("after")
    assert all(thread.is_alive() for thread in [*spoiled.runtime._engine.loops, spoiled.runtime._engine.keeper])
    list(doctored.findings(spoiled.rig.native))  # says what it finds, and does not fall over it
    return count


@pytest.mark.parametrize("table", COLUMNS)
def test_a_spoiled_row_stops_nobody_else(spoiled: Spoiled, table: str) -> None:
    spoil_each(spoiled, table, ["blob", "negative"])


@pytest.mark.soak
@pytest.mark.parametrize("table", COLUMNS)
def test_no_spoiled_row_stops_anybody_else(spoiled: Spoiled, table: str) -> None:
    spoil_each(spoiled, table, list(JUNK))
