"""The disk fails at its n-th operation, for every operation and everything that it can fail with, until a run passes without a failure.

The scenario runs to its end by itself when the fault is gone: outcomes and histories are those of a run without faults.
"""

from __future__ import annotations

import itertools
import logging
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import stepped
from faults.broken import EVERY, VFS, Disk, disk
from faults.checks import Wrong, check_history, check_outcomes, histories
from faults.outage import checkpointing_often
from faults.story import stories

import duroxide
from duroxide.storage import sqlite
from duroxide.storage.base import Done, Request, StoreError

MOST = 100_000
OPENINGS = 200  # far more than a burst is long

UNBROKEN: dict[str, dict[Any, list[str]]] = {}  # implementation -> the stories of a run without faults
Run = Callable[..., tuple[bool, dict[Any, list[str]]]]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    try:
        found = disk()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs a C compiler: {error}")
    monkeypatch.setattr(sqlite, "_connect", checkpointing_often(40))
    monkeypatch.setattr(sqlite, "BUSY_S", 1.0)
    yield found
    found.heal()


def opened(path: Path, implementation: str) -> Any:
    """Opened at last; what was refused meanwhile was refused with an error of ours."""
    for _ in range(OPENINGS):
        try:
            return sqlite.open_sqlite(str(path), implementation=implementation, _vfs=VFS)
        except duroxide.ProviderError:
            continue
    raise Wrong("it does not open although the fault is gone")


@pytest.fixture
def run(broken: Disk, tmp_path: Path) -> Run:
    numbers = itertools.count()

    def make(implementation: str, operation: str, error: str, first: int, burst: int) -> tuple[bool, dict[Any, list[str]]]:
        """Whether the fault struck, and the stories that there are in the end."""
        directory = tmp_path / f"{next(numbers)}"
        directory.mkdir()
        (directory / "ledger.acts").touch()
        if operation:
            broken.plan(operation, error, first, burst)
        native = opened(directory / "x.db", implementation)
        try:
            life = stepped.Life(native, str(directory / "ledger"), 0)
            step_until_done(life)
            struck = broken.struck > 0
            broken.heal()
            check_outcomes(duroxide.Client(native))
            found = histories(native)
            for (instance, execution), events in found.items():
                check_history(instance, execution, events)
            assert native._cold.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            life.runtime.end()
            sent_again = life.outside.receivers_again()
            return struck, {key: story for key, story in stories(found).items() if key[0] not in sent_again}
        except Wrong as wrong:
            raise Wrong(f"{implementation}, {operation} fails with {error} at {first} ({burst} times): {wrong}") from wrong
        finally:
            broken.heal()
            native.close()

    return make


def step_until_done(life: stepped.Life) -> None:
    for _ in range(stepped.MOST_STEPS):
        try:
            if not life.step():
                return
        except (StoreError, duroxide.ProviderError):
            life.runtime.clock.skipped += 0.1  # as a turn thread waits
    left = [instance for instance in stepped.EXPECTED if not stepped.ended(life.native, instance)]
    raise Wrong(f"stuck: not done {[act.name for act in life.outside.todo]}, not ended {left}")


def until_none(run: Run, implementation: str, operation: str, error: str, burst: int, share: float) -> int:
    """Faults at ever later operations (each, or growing by `share`), until a run has none; how many runs had one."""
    if implementation not in UNBROKEN:
        UNBROKEN[implementation] = run(implementation, "", "", 0, 0)[1]
    unbroken, first = UNBROKEN[implementation], 1
    for runs in range(MOST):
        struck, found = run(implementation, operation, error, first, burst)
        if not struck:
            return runs
        differ = [key for key in found if found[key] != unbroken[key]]
        assert not differ, f"{operation} fails with {error} at {first}: {[(found[key], unbroken[key]) for key in differ]}"
        first = max(first + 1, int(first * (1 + share)))
    raise AssertionError("there is no end to it")


@pytest.mark.parametrize(("operation", "error"), EVERY)
def test_a_disk_that_fails_once_loses_nothing(run: Run, operation: str, error: str) -> None:
    runs = until_none(run, "c", operation, error, 1, 1.0)
    assert runs > 0 or operation in ("check_reserved",)


@pytest.mark.parametrize(
    ("operation", "error"), [("write", "FULL"), ("sync", "IOERR_FSYNC"), ("read", "IOERR_READ"), ("shm_lock", "BUSY"), ("lock", "BUSY")]
)
@pytest.mark.parametrize("implementation", ["c", "python"])
def test_a_disk_that_fails_for_a_while_loses_nothing(run: Run, implementation: str, operation: str, error: str) -> None:
    assert until_none(run, implementation, operation, error, 30, 2.0) > 0


@pytest.mark.soak
@pytest.mark.parametrize(("operation", "error"), EVERY)
@pytest.mark.parametrize("implementation", ["c", "python"])
def test_a_disk_that_fails_at_any_operation_loses_nothing(run: Run, implementation: str, operation: str, error: str) -> None:
    for burst in (1, 30):
        share = 0.0 if burst == 1 and operation != "write" else 0.02
        print(implementation, operation, error, burst, until_none(run, implementation, operation, error, burst, share))


@pytest.mark.parametrize("implementation", ["c", "python"])
@pytest.mark.parametrize(("operation", "error", "retryable"), [("write", "FULL", True), ("sync", "IOERR_FSYNC", True), ("write", "READONLY", False)])
def test_an_error_says_whether_it_may_pass(
    broken: Disk, tmp_path: Path, implementation: str, operation: str, error: str, retryable: bool
) -> None:
    native = opened(tmp_path / "x.db", implementation)
    done = Done()
    done.messages = [("i", "{}", 0)]
    broken.plan(operation, error, 1, 1)
    with pytest.raises(StoreError) as caught:
        native.exchange([Request(1, done)])
    assert caught.value.retryable == retryable
    native.exchange([Request(1, done)])
    assert native.queue_depths(2)["orchestrator_queue"] == 1
    native.close()


# ── no room ──


def flow(ctx: Any, n: int) -> Any:
    return (yield ctx.schedule_activity("echo", "x" * 2_000 + str(n)))


@pytest.mark.parametrize("implementation", ["c", "python"])
def test_a_full_disk_stops_progress_says_so_and_goes_on_when_there_is_room(
    broken: Disk, tmp_path: Path, implementation: str, caplog: pytest.LogCaptureFixture
) -> None:
    broken.heal()
    native = opened(tmp_path / "x.db", implementation)
    provider = duroxide.SqliteProvider(native)
    client, runtime = duroxide.Client(provider), duroxide.Runtime(provider)
    runtime.register_activity("echo", lambda ctx, value: value)
    runtime.register_orchestration("flow", flow)
    client.start_orchestrations([(f"i{n}", "flow", n) for n in range(50)])
    room = (tmp_path / "x.db-wal").stat().st_size + 20_000
    broken.room(room)
    with caplog.at_level(logging.WARNING, "duroxide"):
        runtime.start()
        wait_until(lambda: sum("full" in record.getMessage() for record in caplog.records) >= 2)
        with pytest.raises(StoreError, match="full"):
            client.start_orchestrations([("late", "flow", "y" * room)])  # no log holds it, not even an emptied one
    assert any("the store fails, next try in" in r.getMessage() and "full" in r.getMessage() for r in caplog.records)
    assert any(client.get_status(f"i{n}").status != "Completed" for n in range(50))
    broken.heal()
    for n in range(50):
        assert client.wait_for_orchestration(f"i{n}").output == "x" * 2_000 + str(n)
    assert client.get_status("late").status == "NotFound"
    runtime.shutdown()
    native.close()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)
