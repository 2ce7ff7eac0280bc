"""Activities: what they may raise and return, how they learn that nobody wants the result, what a slow one may not stop."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runtime_rig import PATIENCE_S, Rig, until

from duroxide.storage.sqlite import open_sqlite


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


def call(ctx: Any, name: str) -> Any:
    return (yield ctx.schedule_activity(name, 1))


class Odd(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def raising(error: BaseException) -> Any:
    def activity(ctx: Any, _: Any) -> Any:
        raise error

    return activity


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("bad"), "ValueError: bad"), (SystemExit(3), "SystemExit: 3"), (KeyboardInterrupt("now"), "KeyboardInterrupt: now"),
        (GeneratorExit(), "GeneratorExit: "), (Odd(), "Odd: <exception str() failed>"), (ValueError("a\ud800b"), "ValueError: a\ufffdb"),
        (ValueError("nul \x00"), "ValueError: nul \x00"), (RecursionError("deep"), "RecursionError: deep"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_whatever_an_activity_raises_is_its_failure_and_stops_nobody(rig: Rig, error: BaseException, text: str) -> None:
    rig.runtime(call, activities={"bad": raising(error)}, worker_concurrency=1)
    failed = rig.run("i", "call", "bad")
    assert failed.status == "Failed" and f"Activity 'bad' call failed: {text}" in failed.error
    assert rig.run("j", "call", "echo").output == 1


@pytest.mark.parametrize("result", [object(), {1, 2}, b"bytes", {("a",): 1}, 1j], ids=lambda value: type(value).__name__)
def test_a_result_that_json_cannot_hold_is_a_failure_that_says_so(rig: Rig, result: Any) -> None:
    rig.runtime(call, activities={"odd": lambda ctx, _: result})
    failed = rig.run("i", "call", "odd")
    assert failed.status == "Failed" and "Activity 'odd' call failed: TypeError: " in failed.error


def test_a_blocked_activity_does_not_stop_others(rig: Rig) -> None:
    gate = threading.Event()
    rig.runtime(call, activities={"block": lambda ctx, _: gate.wait(PATIENCE_S)}, worker_concurrency=2)
    rig.client.start_orchestration("blocked", "call", "block")
    for n in range(30):
        assert rig.run(f"i{n}", "call", "echo").output == 1
    gate.set()
    assert rig.wait("blocked").output is True


def test_work_behind_a_blocked_activity_goes_to_another_runtime(rig: Rig) -> None:
    gate, began = threading.Event(), threading.Event()

    def block(ctx: Any, _: Any) -> Any:
        began.set()
        return gate.wait(PATIENCE_S)

    def fan(ctx: Any, width: int) -> Any:
        found = yield ctx.all([ctx.schedule_activity("block")] + [ctx.schedule_activity("echo", n) for n in range(width)])
        return len(found)

    rig.runtime(fan, activities={"block": block}, worker_concurrency=1)
    rig.client.start_orchestration("i", "fan", 10)
    assert began.wait(PATIENCE_S)
    rig.runtime(fan, activities={"block": block}, worker_concurrency=1)
    until(lambda: rig.kinds("i").count("ActivityCompleted") == 10, lambda: rig.clock.skip(0.01))
    gate.set()
    assert rig.wait("i").output == 11


# ── cancellation ─────────────────────────────────────────────────────────────────────────────────────────────────


class Patient:
    """An activity that works until it is told that nobody wants its result."""

    def __init__(self) -> None:
        self.began, self.told, self.give_up = threading.Event(), threading.Event(), threading.Event()

    def __call__(self, ctx: Any, _: Any) -> Any:
        self.began.set()
        while not self.give_up.wait(0.002):
            if ctx.is_cancelled():
                self.told.set()
                return "stopped"
        return "gave up"


def test_a_cancelled_instance_tells_its_activity(rig: Rig) -> None:
    patient = Patient()
    rig.runtime(call, activities={"patient": patient})
    rig.client.start_orchestration("i", "call", "patient")
    assert patient.began.wait(PATIENCE_S)
    rig.client.cancel_instance("i", "enough")
    assert rig.wait("i").error == "canceled: enough"
    assert patient.told.wait(1.0), "it learns of it with the commit, not at the next renewal (10 s)"


def test_a_lost_race_tells_the_loser(rig: Rig) -> None:
    patient = Patient()

    def flow(ctx: Any, _: Any) -> Any:
        winner = yield ctx.race(ctx.schedule_activity("patient"), ctx.wait_for_event("stop"))
        return winner["index"]

    rig.runtime(flow, activities={"patient": patient})
    rig.client.start_orchestration("i", "flow")
    assert patient.began.wait(PATIENCE_S)
    rig.client.raise_event("i", "stop")
    assert rig.wait("i").output == 1 and patient.told.wait(1.0)


def test_a_cancel_by_another_process_tells_the_activity_too(tmp_path: Path) -> None:
    """The turn that cancels runs on another provider of the same file."""
    path = str(tmp_path / "shared.db")
    patient = Patient()
    here, there = Rig(open_sqlite(path, synchronous="normal")), Rig(open_sqlite(path, synchronous="normal"))
    try:
        here.runtime(activities={"patient": patient}, orchestration_concurrency=0)
        there.runtime(call, worker_concurrency=0)
        there.client.start_orchestration("i", "call", "patient")
        assert patient.began.wait(PATIENCE_S)
        there.client.cancel_instance("i")
        assert there.wait("i").status == "Failed"
        assert patient.told.wait(1.0)
    finally:
        patient.give_up.set()
        for rig in (here, there):
            rig.close()
            rig.native.close()
