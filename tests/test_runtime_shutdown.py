"""`shutdown(timeout_ms)`: what arrives in time is committed, the rest is given back at once, and the time is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from runtime_rig import PATIENCE_S, Rig, until


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


class Gated:
    def __init__(self) -> None:
        self.began, self.gate, self.calls = threading.Event(), threading.Event(), 0

    def __call__(self, ctx: Any, value: Any) -> Any:
        self.calls += 1
        self.began.set()
        self.gate.wait(PATIENCE_S)
        return value


def flow(ctx: Any, value: Any) -> Any:
    first = yield ctx.schedule_activity("gated", value)
    second = yield ctx.schedule_activity("echo", first)
    return second


def test_a_result_in_time_is_committed_and_not_run_again(rig: Rig) -> None:
    gated = Gated()
    runtime = rig.runtime(flow, activities={"gated": gated})
    rig.client.start_orchestration("i", "flow", 7)
    assert gated.began.wait(PATIENCE_S)
    threading.Timer(0.05, gated.gate.set).start()
    runtime.shutdown(int(PATIENCE_S * 1000))
    rig.runtime(flow, activities={"gated": gated})
    assert rig.wait("i").output == 7 and gated.calls == 1


def test_the_time_is_kept_though_an_activity_blocks(rig: Rig) -> None:
    gated = Gated()
    runtime = rig.runtime(flow, activities={"gated": gated})
    rig.client.start_orchestration("i", "flow", 7)
    assert gated.began.wait(PATIENCE_S)
    began = time.monotonic()
    runtime.shutdown(100)
    assert time.monotonic() - began < PATIENCE_S / 2
    gated.gate.set()


def test_what_did_not_end_is_given_back_at_once(rig: Rig) -> None:
    first, second = Gated(), Gated()
    runtime = rig.runtime(flow, activities={"gated": first})
    rig.client.start_orchestration("i", "flow", 7)
    assert first.began.wait(PATIENCE_S)
    runtime.shutdown(0)
    second.gate.set()
    rig.runtime(flow, activities={"gated": second})
    assert rig.wait("i").output == 7 and second.calls == 1, "leases of 30 s would have ended too late"
    first.gate.set()


def test_a_late_result_is_discarded(rig: Rig) -> None:
    gated, others = Gated(), set(threading.enumerate())
    runtime = rig.runtime(flow, activities={"gated": gated})
    rig.client.start_orchestration("i", "flow", "late")
    assert gated.began.wait(PATIENCE_S)
    runtime.shutdown(0)
    gated.gate.set()
    until(lambda: not any(t.name.startswith("duroxide-worker") for t in set(threading.enumerate()) - others))
    assert "ActivityCompleted" not in rig.kinds("i")


def test_activities_are_not_told_that_they_are_cancelled(rig: Rig) -> None:
    seen, began, gate = [], threading.Event(), threading.Event()

    def gated(ctx: Any, value: Any) -> Any:
        began.set()
        gate.wait(PATIENCE_S)
        seen.append(ctx.is_cancelled())

    runtime = rig.runtime(flow, activities={"gated": gated})
    rig.client.start_orchestration("i", "flow")
    assert began.wait(PATIENCE_S)
    threading.Timer(0.02, gate.set).start()
    runtime.shutdown(int(PATIENCE_S * 1000))
    assert seen == [False]


def test_shutdown_is_idempotent_and_a_new_runtime_goes_on(rig: Rig) -> None:
    def parked(ctx: Any, _: Any) -> Any:
        return (yield ctx.wait_for_event("go"))

    for n in range(3):
        runtime = rig.runtime(parked)
        rig.client.start_orchestration(f"i{n}", "parked")
        until(lambda n=n: "ExternalSubscribed" in rig.kinds(f"i{n}"))  # type: ignore[misc]
        runtime.shutdown()
        runtime.shutdown(0)
        assert runtime.metrics_snapshot() is None
    rig.runtime(parked)
    for n in range(3):
        rig.client.raise_event(f"i{n}", "go", n)
        assert rig.wait(f"i{n}").output == n


def test_a_runtime_starts_once(rig: Rig) -> None:
    runtime = rig.runtime()
    with pytest.raises(RuntimeError, match="Generator driver not set"):
        runtime.start()
    runtime.shutdown()
    with pytest.raises(RuntimeError, match="Generator driver not set"):
        runtime.start()


def test_generators_end_with_their_runtime(rig: Rig) -> None:
    ended = threading.Event()

    def parked(ctx: Any, _: Any) -> Any:
        try:
            yield ctx.wait_for_event("never")
        finally:
            ended.set()

    runtime = rig.runtime(parked)
    rig.client.start_orchestration("i", "parked")
    until(lambda: "ExternalSubscribed" in rig.kinds("i"))
    runtime.shutdown()
    assert ended.is_set()
