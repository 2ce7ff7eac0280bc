"""Eight processes on one file, one of them killed every 200 ms and replaced: every instance ends right, nothing stored is lost or changed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doctored import healthy

import duroxide
from duroxide.storage.sqlite import open_sqlite

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")

PROCESSES = 8
EVERY_S = 0.2


class Nursery:
    """Runtimes in processes of their own on one file."""

    def __init__(self, directory: Path) -> None:
        self.path, self.ledger = str(directory / "chaos.db"), directory / "ledger"
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115
        script = Path(__file__).parent / "faults" / "nursery.py"
        self.process = subprocess.Popen(
            [sys.executable, str(script), self.path, str(self.ledger)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said, text=True,
        )  # fmt: skip
        self.alive: list[int] = []
        self.killed = 0

    def make(self) -> int:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.alive.append(int(self.process.stdout.readline()))
        return self.alive[-1]

    def kill(self, process: int) -> None:
        self.alive.remove(process)
        os.kill(process, signal.SIGKILL)
        self.killed += 1

    def close(self) -> str:
        """Kills all; what they wrote to stderr."""
        for process in self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.communicate()
        self.said.seek(0)
        return self.said.read()


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    made = Nursery(tmp_path)
    yield made
    made.close()


class Facts:
    """What was read once must be read again for ever: histories grow, statuses that have ended stay."""

    def __init__(self, native: Any) -> None:
        self.native = native
        self.seen: dict[str, list[tuple[int, str]]] = {}

    def look(self, instance: str) -> str | None:
        row = self.native.load(instance, 1)
        if row is None:
            assert instance not in self.seen, f"{instance} is gone"
            return None
        before = self.seen.get(instance, [])
        assert row.events[: len(before)] == before, f"history of {instance} changed"
        self.seen[instance] = row.events
        return row.status


def storm(nursery: Nursery, seconds: float, instances: int, seed: int) -> None:
    lots = random.Random(seed)
    for _ in range(PROCESSES):
        nursery.make()
    native = open_sqlite(nursery.path, synchronous="normal")
    client, facts = duroxide.Client(native), Facts(native)
    try:
        end, started = time.monotonic() + seconds, 0
        while (left := end - time.monotonic()) > 0:
            wanted = min(instances, int(instances * (1 - left / seconds)) + 10)
            client.start_orchestrations([(f"i{n}", "flow", n) for n in range(started, wanted)])
            started = wanted
            nursery.kill(lots.choice(nursery.alive))
            nursery.make()
            for n in lots.sample(range(started), min(started, 20)):
                facts.look(f"i{n}")
            time.sleep(EVERY_S)
        client.start_orchestrations([(f"i{n}", "flow", n) for n in range(started, instances)])
        for n in range(instances):
            result = client.wait_for_orchestration(f"i{n}", 60_000)
            assert result.output == [n, 3, 2 * n, True, str(3 * n)], f"i{n}: {result}"
            assert facts.look(f"i{n}") == "Completed"
            check_history(client, f"i{n}")
        healthy(nursery.path)
    finally:
        native.close()


def check_history(client: Any, instance: str) -> None:
    events = client.read_execution_history(instance, 1)
    assert [event.event_id for event in events] == list(range(1, len(events) + 1))
    done = Counter(event.source_event_id for event in events if event.source_event_id is not None)
    assert set(done.values()) == {1}, f"{instance}: something completed twice"


def check_ledger(nursery: Nursery, instances: int) -> None:
    """Each activity ran, and again only for the deaths of those who ran it."""
    calls = Counter(line.rsplit(" ", 1)[0] for line in nursery.ledger.read_text().splitlines())
    assert sum(calls[f"i{n} first"] > 0 for n in range(instances)) == instances
    twice = sum(count - 1 for call, count in calls.items() if " fan" not in call)
    assert twice <= nursery.killed * 60, f"{twice} calls ran again in {nursery.killed} deaths"


def check_said(said: str) -> None:
    for word in ("locked", "busy", "Traceback", "Error"):
        assert word not in said, said[-3_000:]


def test_eight_processes_under_kills(nursery: Nursery) -> None:
    storm(nursery, 8, 400, seed=7)
    check_ledger(nursery, 400)
    check_said(nursery.close())


@pytest.mark.soak
def test_eight_processes_under_kills_for_minutes(nursery: Nursery) -> None:
    storm(nursery, 180, 20_000, seed=11)
    check_ledger(nursery, 20_000)
    check_said(nursery.close())


def test_leases_of_the_killed_are_taken_over_though_they_would_last_an_hour(tmp_path: Path) -> None:
    """Only the owner's death can free them in time."""
    program = """
import duroxide, sys, time
provider = duroxide.SqliteProvider.open(sys.argv[1])
hour = 3_600_000
options = duroxide.RuntimeOptions(
    orchestrator_lock_timeout_ms=hour, worker_lock_timeout_ms=hour, session_idle_timeout_ms=2 * hour
)
runtime = duroxide.Runtime(provider, options)
def activity(ctx, first):
    if sys.argv[2] == "first":
        print("running", flush=True)
        time.sleep(600)
    return sys.argv[2]
def flow(ctx, _):
    return (yield ctx.schedule_activity("activity"))
runtime.register_activity("activity", activity)
runtime.register_orchestration("flow", flow)
runtime.start()
client = duroxide.Client(provider)
client.start_orchestration("i", "flow")
print(client.wait_for_orchestration("i", 30_000).output, flush=True)
runtime.shutdown()
"""
    command = [sys.executable, "-c", program, str(tmp_path / "i.db")]
    first = subprocess.Popen([*command, "first"], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None and first.stdout.readline() == "running\n"
    second = subprocess.Popen([*command, "second"], stdout=subprocess.PIPE, text=True)
    time.sleep(1.0)  # the second is up: a living owner keeps its leases
    assert second.poll() is None
    first.kill()
    assert second.communicate(timeout=40)[0] == "second\n" and second.returncode == 0
    first.communicate()
