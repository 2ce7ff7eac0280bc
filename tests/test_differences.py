"""What differs from the reference on purpose, seen from outside: `docs/differences.md` names these where no closer test shows it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from runtime_rig import PATIENCE_S, Rig, until

import duroxide
from duroxide.storage.sqlite import open_memory, open_sqlite

PATIENCE_MS = int(PATIENCE_S * 1000)


@pytest.fixture
def here() -> Iterator[Rig]:
    made = Rig(open_memory())
    yield made
    made.close()
    made.native.close()


@pytest.fixture
def on_file(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(open_sqlite(str(tmp_path / "here.db"), synchronous="normal"))
    yield made
    made.close()
    made.native.close()


# ── tasks ──


@pytest.mark.parametrize("members", [31, 101, 10_000])
def test_all_and_race_have_no_cliff(here: Rig, members: int) -> None:
    def wide(ctx: Any, n: int) -> Any:
        found = yield ctx.all_typed([ctx.schedule_activity("echo", k) for k in range(n)])
        first = yield ctx.race(*[ctx.wait_for_event(f"never{k}") for k in range(n - 1)], ctx.schedule_activity("echo", "won"))
        return [found == list(range(n)), first]

    here.runtime(wide)
    assert here.run("i", "wide", members).output == [True, {"index": members - 1, "value": "won"}]


def test_finally_runs_once_and_the_code_once(here: Rig) -> None:
    ran: list[str] = []

    def careful(ctx: Any, _: Any) -> Any:
        ran.append("began")
        try:
            for n in range(20):
                yield ctx.schedule_activity("echo", n)
        finally:
            ran.append("ended")

    here.runtime(careful)
    assert here.run("i", "careful").status == "Completed" and ran == ["began", "ended"]


def test_guid_and_time_need_no_worker(here: Rig) -> None:
    def ask(ctx: Any, _: Any) -> Any:
        guid = yield ctx.new_guid()
        now = yield ctx.utc_now()
        return [len(guid), now]

    here.runtime(ask, worker_tag_filter=duroxide.TagFilter.NONE)
    before = int(time.time() * 1000)
    length, now = here.run("i", "ask").output
    assert length == 36 and before <= now <= int(time.time() * 1000)


def test_errors_are_classes_with_the_references_text(here: Rig) -> None:
    def do_fail(ctx: Any, _: Any) -> None:
        raise ValueError("zz")

    def caught(ctx: Any, _: Any) -> Any:
        try:
            yield ctx.schedule_activity("do_fail")
        except duroxide.ActivityError as error:
            return [str(error), list(error.args), error.activity, error.error_type]

    text = "Activity 'do_fail' call failed: ValueError: zz"
    here.runtime(caught, activities={"do_fail": do_fail})
    assert here.run("i", "caught").output == [text, [text], "do_fail", "ValueError"]


def test_a_retry_that_runs_out_of_time_is_a_timeout_error(here: Rig) -> None:
    gate = threading.Event()

    def do_hang(ctx: Any, _: Any) -> None:
        gate.wait(PATIENCE_MS / 1000)

    def late(ctx: Any, _: Any) -> Any:
        try:
            yield ctx.schedule_activity_with_retry("do_hang", None, {"max_attempts": 5, "timeout_ms": 20})
        except TimeoutError as error:
            return [str(error), isinstance(error, duroxide.ActivityError)]

    here.runtime(late, activities={"do_hang": do_hang})
    try:
        assert here.run("i", "late").output == ["timeout: activity timed out", True]
    finally:
        gate.set()


def test_a_failed_instance_raises_the_class_of_its_failure(here: Rig) -> None:
    def broken(ctx: Any, _: Any) -> Any:
        yield ctx.schedule_activity("echo")
        raise KeyError("gone")

    here.runtime(broken)
    here.client.start_orchestration("i", "broken")
    with pytest.raises(duroxide.OrchestrationFailed, match="KeyError: 'gone'") as raised:
        here.client.wait_for_orchestration_typed("i", PATIENCE_MS)
    assert raised.value.instance_id == "i" and raised.value.args == (here.client.get_status("i").error,)


# ── runtimes ──


def test_two_runtimes_may_give_one_name_two_meanings(here: Rig) -> None:
    def named(word: str) -> Callable[..., Any]:
        def same(ctx: Any, _: Any) -> Any:
            yield ctx.schedule_timer(1)
            return word

        return same

    there = Rig(open_memory())
    try:
        here.runtime(named("here"))
        there.runtime(named("there"))
        assert [here.run("i", "same").output, there.run("i", "same").output] == ["here", "there"]
    finally:
        there.close()
        there.native.close()


def test_children_run_on_when_their_parent_has_failed(here: Rig) -> None:
    def child(ctx: Any, _: Any) -> Any:
        return (yield ctx.wait_for_event("go"))

    def parent(ctx: Any, _: Any) -> Any:
        yield ctx.all([ctx.schedule_sub_orchestration_with_id("child", "c"), ctx.schedule_activity("nobody has it")])

    here.runtime(parent, child, max_attempts=1)
    here.client.start_orchestration("p", "parent")
    until(lambda: here.client.get_status("p").status == "Failed", lambda: here.clock.skip(0.5))
    assert here.client.get_status("c").status == "Running"
    until(lambda: "ExternalSubscribed" in here.kinds("c"))
    here.client.raise_event("c", "go", "still here")
    assert here.wait("c").output == "still here"


def test_metrics_count_each_thing_once(here: Rig) -> None:
    def do_fail(ctx: Any, _: Any) -> None:
        raise ValueError

    def works(ctx: Any, _: Any) -> Any:
        yield ctx.schedule_activity("echo")
        yield ctx.schedule_activity("echo")

    def fails(ctx: Any, _: Any) -> Any:
        yield ctx.schedule_activity("do_fail")

    def asks(ctx: Any, _: Any) -> Any:
        yield ctx.start_orchestration("works", "detached")  # is nobody's child
        yield ctx.all([ctx.schedule_sub_orchestration("works"), ctx.schedule_sub_orchestration("works")])

    runtime = here.runtime(works, fails, asks, activities={"do_fail": do_fail})
    here.client.start_orchestrations([("w", "works"), ("f", "fails"), ("a", "asks")])
    for instance in ("w", "f", "a", "detached"):
        here.client.wait_for_orchestration(instance, PATIENCE_MS)

    def counted() -> tuple[int, ...]:
        found = runtime.metrics_snapshot()
        assert found is not None
        ended = found.orch_completions, found.orch_failures
        return found.orch_starts, *ended, found.activity_success, found.activity_app_errors, found.suborchestration_calls

    until(lambda: sum(counted()[:3]) == 12)  # the waiter may be told before the loop has counted
    assert counted() == (6, 5, 1, 8, 1, 2)


def test_bad_options_are_ordinary_errors(here: Rig) -> None:
    runtime = duroxide.Runtime(here.provider, duroxide.RuntimeOptions(worker_tag_filter=duroxide.TagFilter.tags([])))
    with pytest.raises(ValueError, match="requires at least one tag"):
        runtime.start()
    versions = duroxide.Runtime(here.provider)
    with pytest.raises(ValueError, match="semver"):
        versions.register_orchestration_versioned("o", "v1", lambda ctx, _: None)


# ── what is stored and shown ──


def test_times_are_real_and_absent_while_running(here: Rig) -> None:
    def parked(ctx: Any, _: Any) -> Any:
        return (yield ctx.wait_for_event("go"))

    here.runtime(parked)
    before = int(time.time() * 1000) - 1_000  # rows keep whole seconds
    here.client.start_orchestration("i", "parked")
    until(lambda: here.client.get_status("i").status == "Running")
    info, run = here.client.get_instance_info("i"), here.client.get_execution_info("i", 1)
    assert info.created_at > before and info.updated_at > before and run.started_at > before
    assert (info.output, run.output, run.completed_at) == (None, None, None)
    until(lambda: any(event.kind == "ExternalSubscribed" for event in here.client.read_execution_history("i", 1)))
    here.client.raise_event("i", "go", 5)
    here.client.wait_for_orchestration("i", PATIENCE_MS)
    ended = here.client.get_execution_info("i", 1).completed_at
    assert ended is not None and ended > before


def test_deleting_an_instance_ends_the_sessions_of_its_open_work(on_file: Rig, tmp_path: Path) -> None:
    began, gate = threading.Event(), threading.Event()

    def do_block(ctx: Any, _: Any) -> None:
        began.set()
        gate.wait(PATIENCE_MS / 1000)

    def pinned(ctx: Any, _: Any) -> Any:
        yield ctx.schedule_activity_on_session("do_block", None, "s-1")

    def sessions() -> list[Any]:
        return reader.execute("SELECT session_id FROM sessions").fetchall()

    on_file.runtime(pinned, activities={"do_block": do_block})
    reader = apsw.Connection(str(tmp_path / "here.db"))
    on_file.client.start_orchestration("i", "pinned")
    assert began.wait(PATIENCE_MS / 1000) and sessions() == [("s-1",)]
    on_file.client.delete_instance("i", force=True)
    assert sessions() == []
    gate.set()
    reader.close()


# ── stores ──


def test_what_is_no_database_is_refused_at_once_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("shopping list: milk, bread, and a good deal more than sixteen bytes")
    with pytest.raises(RuntimeError, match=r"notes\.txt' is not a database"):
        duroxide.SqliteProvider.open(str(path))
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"] and path.read_text().startswith("shopping list")


@pytest.mark.parametrize("name", ["100%.db", "a#b.db", "what's up.db", "sp ace.db", "ünï.db"])
def test_any_file_name_is_a_file_name(tmp_path: Path, name: str) -> None:
    provider = duroxide.SqliteProvider.open(str(tmp_path / name))
    duroxide.Client(provider).start_orchestration("i", "nobody")
    provider.close()
    assert name in {p.name for p in tmp_path.iterdir()}


def test_a_query_of_a_url_makes_no_file_of_its_own(tmp_path: Path) -> None:
    duroxide.SqliteProvider.open(f"sqlite:{tmp_path}/w.db?mode=rwc").close()
    assert [p.name for p in tmp_path.iterdir()] == ["w.db"]


def test_what_was_told_is_on_the_disk_unless_asked_otherwise(tmp_path: Path) -> None:
    """2 is FULL, 1 is NORMAL; each connection has its own setting."""
    for given, level in ({}, 2), ({"synchronous": "normal"}, 1):
        provider = duroxide.SqliteProvider.open(str(tmp_path / "d.db"), **given)
        with provider._native.session() as connection:
            assert connection.execute("PRAGMA synchronous").fetchall() == [(level,)]
        provider.close()
    with pytest.raises(ValueError, match="expected 'full'"):
        duroxide.SqliteProvider.open(str(tmp_path / "d.db"), synchronous="off")


def test_many_writers_on_one_file_hear_of_no_lock(tmp_path: Path) -> None:
    """Two providers stand for two processes: neither knows of the other's queue."""

    def two(ctx: Any, n: int) -> Any:
        return (yield ctx.all_typed([ctx.schedule_activity("echo", n), ctx.schedule_activity("echo", n)]))

    sides = [Rig(open_sqlite(str(tmp_path / "shared.db"), synchronous="normal")) for _ in range(2)]
    errors: list[BaseException] = []

    def play(side: Rig, number: int) -> None:
        try:
            for n in range(25):
                side.client.start_orchestration(f"i{number}-{n}", "two", n)
                assert side.client.wait_for_orchestration(f"i{number}-{n}", PATIENCE_MS).output == [n, n]
        except BaseException as error:
            errors.append(error)

    try:
        for side in sides:
            side.runtime(two)
        threads = [threading.Thread(target=play, args=(sides[n % 2], n)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        snapshots = [side.runtimes[0].metrics_snapshot() for side in sides]
        assert not errors and [s.provider_errors for s in snapshots if s is not None] == [0, 0]
    finally:
        for side in sides:
            side.close()
            side.native.close()


HOLDER = """
    import sys, time, duroxide
    provider = duroxide.SqliteProvider.open(sys.argv[1])
    hour = 3_600_000
    options = duroxide.RuntimeOptions(orchestrator_lock_timeout_ms=hour, worker_lock_timeout_ms=hour, session_idle_timeout_ms=2 * hour)
    runtime = duroxide.Runtime(provider, options)
    def do_hold(ctx, _):
        print("held", flush=True)
        time.sleep(3_600)
    def flow(ctx, _):
        return (yield ctx.schedule_activity("do_hold"))
    runtime.register_activity("do_hold", do_hold)
    runtime.register_orchestration("flow", flow)
    runtime.start()
    duroxide.Client(provider).start_orchestration("i", "flow")
    time.sleep(3_600)
"""


def test_the_leases_of_a_killed_process_are_not_waited_for(on_file: Rig, tmp_path: Path) -> None:
    """They have an hour to run when their holder is killed."""

    def do_hold(ctx: Any, _: Any) -> str:
        return "taken over"

    def flow(ctx: Any, _: Any) -> Any:
        return (yield ctx.schedule_activity("do_hold"))

    holder = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER), str(tmp_path / "here.db")], stdout=subprocess.PIPE, cwd=os.fspath(tmp_path)
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline().strip() == b"held"
        on_file.runtime(flow, activities={"do_hold": do_hold})
        with pytest.raises(TimeoutError):
            on_file.client.wait_for_orchestration("i", 700)  # never from a living one
        holder.kill()
        assert on_file.client.wait_for_orchestration("i", PATIENCE_MS).output == "taken over"
    finally:
        holder.kill()
        holder.wait()
        if holder.stdout is not None:
            holder.stdout.close()
