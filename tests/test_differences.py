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

import duroxide

PATIENCE_MS = 30_000


class Here:
    """A provider, its client and the runtimes that a test starts on it."""

    def __init__(self, path: str = ":memory:") -> None:
        self.provider = duroxide.SqliteProvider.open(path, synchronous="normal")
        self.client = duroxide.Client(self.provider)
        self.runtimes: list[duroxide.Runtime] = []

    def runtime(self, *functions: Callable[..., Any], **options: Any) -> duroxide.Runtime:
        """Orchestrations are generator functions of (ctx, input); the rest are activities; each under its name."""
        runtime = duroxide.Runtime(self.provider, duroxide.RuntimeOptions(dispatcher_poll_interval_ms=5, **options))
        runtime.register_activity("echo", lambda ctx, value: value)
        for function in functions:
            register = runtime.register_activity if function.__name__.startswith("do_") else runtime.register_orchestration
            register(function.__name__, function)
        runtime.start()
        self.runtimes.append(runtime)
        return runtime

    def run(self, function: Callable[..., Any], input: Any = None) -> Any:
        self.client.start_orchestration("i", function.__name__, input)
        return self.client.wait_for_orchestration("i", PATIENCE_MS)

    def close(self) -> None:
        for runtime in self.runtimes:
            runtime.shutdown()
        self.provider.close()


@pytest.fixture
def here() -> Iterator[Here]:
    made = Here()
    yield made
    made.close()


@pytest.fixture
def on_file(tmp_path: Path) -> Iterator[Here]:
    made = Here(str(tmp_path / "here.db"))
    yield made
    made.close()


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.002)


# ── tasks ──


@pytest.mark.parametrize("members", [31, 101, 10_000])
def test_all_and_race_have_no_cliff(here: Here, members: int) -> None:
    def wide(ctx: Any, n: int) -> Any:
        found = yield ctx.all_typed([ctx.schedule_activity("echo", k) for k in range(n)])
        first = yield ctx.race(*[ctx.wait_for_event(f"never{k}") for k in range(n - 1)], ctx.schedule_activity("echo", "won"))
        return [found == list(range(n)), first]

    here.runtime(wide)
    assert here.run(wide, members).output == [True, {"index": members - 1, "value": "won"}]


def test_finally_runs_once_and_the_code_once(here: Here) -> None:
    ran: list[str] = []

    def careful(ctx: Any, _: Any) -> Any:
        ran.append("began")
        try:
            for n in range(20):
                yield ctx.schedule_activity("echo", n)
        finally:
            ran.append("ended")

    here.runtime(careful)
    assert here.run(careful).status == "Completed" and ran == ["began", "ended"]


def test_guid_and_time_need_no_worker(here: Here) -> None:
    def ask(ctx: Any, _: Any) -> Any:
        guid = yield ctx.new_guid()
        now = yield ctx.utc_now()
        return [len(guid), now]

    here.runtime(ask, worker_tag_filter=duroxide.TagFilter.NONE)
    before = int(time.time() * 1000)
    length, now = here.run(ask).output
    assert length == 36 and before <= now <= int(time.time() * 1000)


def test_errors_are_classes_with_the_references_text(here: Here) -> None:
    def do_fail(ctx: Any, _: Any) -> None:
        raise ValueError("zz")

    def caught(ctx: Any, _: Any) -> Any:
        try:
            yield ctx.schedule_activity("do_fail")
        except duroxide.ActivityError as error:
            return [str(error), list(error.args), error.activity, error.error_type]

    text = "Activity 'do_fail' call failed: ValueError: zz"
    here.runtime(caught, do_fail)
    assert here.run(caught).output == [text, [text], "do_fail", "ValueError"]


def test_a_retry_that_runs_out_of_time_is_a_timeout_error(here: Here) -> None:
    gate = threading.Event()

    def do_hang(ctx: Any, _: Any) -> None:
        gate.wait(PATIENCE_MS / 1000)

    def late(ctx: Any, _: Any) -> Any:
        try:
            yield ctx.schedule_activity_with_retry("do_hang", None, {"max_attempts": 5, "timeout_ms": 20})
        except TimeoutError as error:
            return [str(error), isinstance(error, duroxide.ActivityError)]

    here.runtime(late, do_hang)
    try:
        assert here.run(late).output == ["timeout: activity timed out", True]
    finally:
        gate.set()


def test_a_failed_instance_raises_the_class_of_its_failure(here: Here) -> None:
    def broken(ctx: Any, _: Any) -> Any:
        yield ctx.schedule_activity("echo")
        raise KeyError("gone")

    here.runtime(broken)
    here.client.start_orchestration("i", "broken")
    with pytest.raises(duroxide.OrchestrationFailed, match="KeyError: 'gone'") as raised:
        here.client.wait_for_orchestration_typed("i", PATIENCE_MS)
    assert raised.value.instance_id == "i" and raised.value.args == (here.client.get_status("i").error,)


# ── runtimes ──


def test_two_runtimes_may_give_one_name_two_meanings(here: Here, tmp_path: Path) -> None:
    def named(word: str) -> Callable[..., Any]:
        def same(ctx: Any, _: Any) -> Any:
            yield ctx.schedule_timer(1)
            return word

        return same

    there = Here(str(tmp_path / "there.db"))
    try:
        here.runtime(named("here"))
        there.runtime(named("there"))
        assert [here.run(named("")).output, there.run(named("")).output] == ["here", "there"]
    finally:
        there.close()


def test_metrics_count_each_thing_once(here: Here) -> None:
    def do_fail(ctx: Any, _: Any) -> None:
        raise ValueError

    def works(ctx: Any, _: Any) -> Any:
        yield ctx.schedule_activity("echo")
        yield ctx.schedule_activity("echo")

    def fails(ctx: Any, _: Any) -> Any:
        yield ctx.schedule_activity("do_fail")

    runtime = here.runtime(works, fails, do_fail)
    here.client.start_orchestrations([("w", "works"), ("f", "fails")])
    for instance in ("w", "f"):
        here.client.wait_for_orchestration(instance, PATIENCE_MS)

    def counted() -> tuple[int, ...]:
        found = runtime.metrics_snapshot()
        assert found is not None
        return found.orch_starts, found.orch_completions, found.orch_failures, found.activity_success, found.activity_app_errors

    until(lambda: sum(counted()[:3]) == 4)  # the waiter may be told before the loop has counted
    assert counted() == (2, 1, 1, 2, 1)


def test_bad_options_are_ordinary_errors(here: Here) -> None:
    runtime = duroxide.Runtime(here.provider, duroxide.RuntimeOptions(worker_tag_filter=duroxide.TagFilter.tags([])))
    with pytest.raises(ValueError, match="requires at least one tag"):
        runtime.start()
    versions = duroxide.Runtime(here.provider)
    with pytest.raises(ValueError, match="semver"):
        versions.register_orchestration_versioned("o", "v1", lambda ctx, _: None)


# ── what is stored and shown ──


def test_times_are_real_and_absent_while_running(here: Here) -> None:
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


def test_deleting_an_instance_ends_the_sessions_of_its_open_work(on_file: Here, tmp_path: Path) -> None:
    began, gate = threading.Event(), threading.Event()

    def do_block(ctx: Any, _: Any) -> None:
        began.set()
        gate.wait(PATIENCE_MS / 1000)

    def pinned(ctx: Any, _: Any) -> Any:
        yield ctx.schedule_activity_on_session("do_block", None, "s-1")

    def sessions() -> list[Any]:
        return reader.execute("SELECT session_id FROM sessions").fetchall()

    on_file.runtime(pinned, do_block)
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

    sides = [Here(str(tmp_path / "shared.db")) for _ in range(2)]
    errors: list[BaseException] = []

    def play(side: Here, number: int) -> None:
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


def test_the_leases_of_a_killed_process_are_not_waited_for(on_file: Here, tmp_path: Path) -> None:
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
        on_file.runtime(flow, do_hold)
        with pytest.raises(TimeoutError):
            on_file.client.wait_for_orchestration("i", 700)  # never from a living one
        holder.kill()
        assert on_file.client.wait_for_orchestration("i", PATIENCE_MS).output == "taken over"
    finally:
        holder.kill()
        holder.wait()
        if holder.stdout is not None:
            holder.stdout.close()
