"""What comes too late: results that nobody wants any more, turns and commits after a shutdown, a store that fails at the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from runtime_rig import PATIENCE_S, Rig, until

from duroxide.storage.base import Request, StoreError, Taken
from duroxide.storage.memory import MemoryStore


class Noting(MemoryStore):
    """Keeps every code that is not OK; fails as often as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: list[int] = []
        self.failures = 0

    def exchange(self, requests: list[Request]) -> list[Taken]:  # type: ignore[override]
        if self.failures and any(request.done is not None for request in requests):
            self.failures -= 1
            raise StoreError("planted", operation="exchange", retryable=True)
        answers = super().exchange(requests)
        for taken in answers:
            self.refused += [code for code in taken.turn_codes + taken.work_codes + taken.turn_back_codes if code]
        return answers


@pytest.fixture
def rig() -> Iterator[Any]:
    made = Rig(Noting())
    yield made
    made.close()


class Gate:
    """An activity or a piece of an orchestration that waits to be let through."""

    def __init__(self) -> None:
        self.began, self.open, self.calls = threading.Event(), threading.Event(), 0

    def __call__(self, ctx: Any = None, value: Any = None) -> Any:
        self.calls += 1
        self.began.set()
        self.open.wait(PATIENCE_S)
        return value


def threads(prefix: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(prefix)]


def test_the_result_of_a_loser_that_comes_while_it_is_cancelled_refuses_no_turn(rig: Any) -> None:
    loser, turns = Gate(), list[None]()

    def flow(ctx: Any, _: Any) -> Any:
        winner = yield ctx.race(ctx.schedule_activity("loser"), ctx.wait_for_event("stop"))
        if not turns:
            turns.append(None)
            loser.open.set()
            until(lambda: runtime._engine.holdings.leases["i"].results)
        return [winner["index"], (yield ctx.schedule_activity("echo", 3))]

    runtime = rig.runtime(flow, activities={"loser": loser})
    rig.client.start_orchestration("i", "flow")
    assert loser.began.wait(PATIENCE_S)
    rig.client.raise_event("i", "stop")
    assert rig.wait("i").output == [1, 3]
    assert rig.native.refused == [], "no turn was run for nothing"


def test_what_is_dropped_in_the_turn_that_scheduled_it_is_not_run(rig: Any) -> None:
    calls: list[Any] = []

    def flow(ctx: Any, _: Any) -> Any:
        winner = yield ctx.race(ctx.schedule_activity("never"), ctx.dequeue_event("q"))
        return [winner["index"], (yield ctx.schedule_activity("echo", 3))]

    rig.client.start_orchestration("i", "flow")
    rig.client.enqueue_event("i", "q", 1)
    rig.runtime(flow, activities={"never": lambda ctx, _: calls.append(1)})
    assert rig.wait("i").output == [1, 3]
    assert calls == [] and rig.native.refused == []


def blocking(gate: Gate) -> Any:
    def slow(ctx: Any, _: Any) -> Any:
        gate()
        return (yield ctx.schedule_activity("echo", gate.calls))

    return slow


def test_a_turn_that_ends_after_the_shutdown_commits_nothing_and_takes_nothing(rig: Any) -> None:
    gate = Gate()
    runtime = rig.runtime(blocking(gate), orchestration_concurrency=1)
    rig.client.start_orchestration("i", "slow")
    assert gate.began.wait(PATIENCE_S)
    runtime.shutdown(0)
    rig.client.start_orchestration("j", "slow")
    gate.open.set()
    until(lambda: not threads("duroxide-loop"))
    state = rig.native._state
    assert not state.instances and not state.leases and not any(message.token for message in state.messages.values())
    rig.runtime(blocking(gate))
    assert (rig.wait("i").status, rig.wait("j").status) == ("Completed", "Completed")


def test_what_a_slow_commit_brings_after_the_shutdown_goes_back(rig: Any) -> None:
    """The store answers when `shutdown` has given up waiting for the thread: it committed, and its activity was held here."""
    gate, exchange = Gate(), rig.native.exchange

    def slow(requests: list[Request]) -> list[Taken]:
        answers: list[Taken] = exchange(requests)
        if any(request.done is not None and request.done.turns for request in requests):
            gate()
        return answers

    def flow(ctx: Any, _: Any) -> Any:
        return (yield ctx.schedule_activity("echo", 5))

    rig.native.exchange = slow
    runtime = rig.runtime(flow, orchestration_concurrency=1)
    rig.client.start_orchestration("i", "flow")
    assert gate.began.wait(PATIENCE_S)
    stopping = threading.Thread(target=runtime.shutdown, args=(0,))
    stopping.start()
    until(lambda: runtime._engine is None and not threads("duroxide-keeper"))
    gate.open.set()
    stopping.join(PATIENCE_S)
    until(lambda: not threads("duroxide-loop"))
    state = rig.native._state
    assert not state.leases and [row.token for row in state.work.values()] == [None]
    rig.runtime(flow)
    assert rig.wait("i").output == 5


def test_a_store_that_fails_at_the_end_is_asked_again(rig: Any) -> None:
    gate = Gate()

    def flow(ctx: Any, _: Any) -> Any:
        return (yield ctx.schedule_activity("gate", 7))

    runtime = rig.runtime(flow, activities={"gate": gate})
    rig.client.start_orchestration("i", "flow")
    assert gate.began.wait(PATIENCE_S)
    stopping = threading.Thread(target=runtime.shutdown, args=(int(PATIENCE_S * 1000),))
    stopping.start()
    until(lambda: not threads("duroxide-loop"))
    rig.native.failures = 2
    gate.open.set()
    stopping.join(PATIENCE_S)
    assert rig.native.failures == 0 and not rig.native._state.leases
    rig.runtime(flow, activities={"gate": gate})
    assert rig.wait("i").output == 7 and gate.calls == 1, "its result came in time"


def test_generators_end_with_their_runtime_though_their_activity_was_still_to_begin(rig: Any) -> None:
    gate, ended = Gate(), []

    def flow(ctx: Any, _: Any) -> Any:
        try:
            yield ctx.schedule_activity("gate")
        finally:
            ended.append(ctx.instance_id)

    runtime = rig.runtime(flow, activities={"gate": gate}, worker_concurrency=1)
    for instance in ("i", "j"):
        rig.client.start_orchestration(instance, "flow")
    until(lambda: len(runtime._engine.holdings.jobs) == 2 and gate.began.is_set())
    runtime.shutdown(0)
    assert sorted(ended) == ["i", "j"] and gate.calls == 1
    gate.open.set()
