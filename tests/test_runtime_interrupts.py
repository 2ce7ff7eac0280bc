"""Ctrl-C at any moment of the main thread's calls, and exceptions that end programs inside orchestrations: nothing gets stuck."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runtime_rig import Rig

HAMMERED = """
import os, signal, sys, threading, time
import duroxide
from duroxide.storage.sqlite import open_sqlite

path, implementation = sys.argv[1:]
provider = duroxide.SqliteProvider(open_sqlite(path, synchronous="normal", implementation=implementation))
client = duroxide.Client(provider)
runtime = duroxide.Runtime(provider)

def flow(ctx, n):
    value = yield ctx.schedule_activity("echo", n)
    message = yield ctx.dequeue_event("q")
    return [value, message]

runtime.register_activity("echo", lambda ctx, value: value)
runtime.register_orchestration("flow", flow)
runtime.start()
over, armed = threading.Event(), False

def strike(number, frame):
    global armed
    if armed:  # once, and only inside the calls below: what this script does with it is not what is tested
        armed = False
        raise KeyboardInterrupt

def hammer():
    pause = 0
    while not over.wait(0.0005 * pause):
        pause = (pause + 7) % 20
        os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, strike)
hammering = threading.Thread(target=hammer)
told, interrupts, began = [], 0, time.monotonic()
hammering.start()
while time.monotonic() < began + 1.5 or interrupts < 50:
    instance = f"i{len(told)}-{interrupts}"
    try:
        armed = True
        client.start_orchestration(instance, "flow", 1)
        client.enqueue_event(instance, "q", 2)
        told.append(instance)
        client.wait_for_orchestration(instance, 20_000)
        client.get_status(instance)
        armed = False
    except KeyboardInterrupt:
        interrupts += 1
over.set()
hammering.join()
assert len(told) > 5, len(told)
for instance in told:
    assert client.wait_for_orchestration(instance, 20_000).output == [1, 2], instance
runtime.shutdown()
provider.close()
"""


@pytest.mark.skipif(os.name == "nt", reason="needs signals to a process")
@pytest.mark.parametrize("implementation", ["c", "python"])
def test_ctrl_c_at_any_moment_loses_nothing_that_was_told(tmp_path: Path, implementation: str) -> None:
    command = [sys.executable, "-c", HAMMERED, str(tmp_path / "x.db"), implementation]
    done = subprocess.run(command, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


ENDINGS = [SystemExit(3), KeyboardInterrupt("stop"), GeneratorExit(), StopIteration(5), RecursionError("deep"), MemoryError()]


@pytest.mark.parametrize("error", ENDINGS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("when", ["at once", "after a step", "in a plain function"])
def test_what_an_orchestration_raises_is_its_failure_and_stops_no_thread(rig: Rig, error: BaseException, when: str) -> None:
    def plain(ctx: Any, _: Any) -> Any:
        raise error

    def bad(ctx: Any, _: Any) -> Any:
        if when == "after a step":
            yield ctx.schedule_activity("echo", 1)
        raise error
        yield

    def good(ctx: Any, _: Any) -> Any:
        return (yield ctx.schedule_activity("echo", 1))

    rig.runtime(plain, bad, good, orchestration_concurrency=1)
    failed = rig.run("i", "plain" if when == "in a plain function" else "bad")
    assert failed.status == "Failed" and failed.error
    assert rig.run("j", "good").output == 1


def test_an_orchestration_that_never_yields_and_one_that_is_no_generator_complete(rig: Rig) -> None:
    def plain(ctx: Any, value: Any) -> Any:
        return value

    def silent(ctx: Any, value: Any) -> Any:
        return value
        yield

    rig.runtime(plain, silent)
    assert rig.run("i", "silent", 4).output == 4
    assert rig.run("j", "plain", 5).status in ("Completed", "Failed")
