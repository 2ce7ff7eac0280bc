"""What a runtime holds: leases kept while work is in flight, renewed, lost, given back; attempts that end in poison."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from runtime_rig import PATIENCE_S, Rig, until

from duroxide.storage.base import Done, Request, Taken
from duroxide.storage.memory import MemoryStore


class Watched(MemoryStore):
    """Keeps what was handed in."""

    def __init__(self) -> None:
        super().__init__()
        self.handed: list[Done] = []

    def exchange(self, requests: list[Request]) -> list[Taken]:  # type: ignore[override]
        self.handed += [request.done for request in requests if request.done is not None]
        return super().exchange(requests)

    @property
    def leases(self) -> dict[str, tuple[str, int]]:
        return self._state.leases


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig(Watched())
    yield made
    made.close()


def chain(ctx: Any, steps: int) -> Any:
    for n in range(steps):
        yield ctx.schedule_activity("echo", n)
    return steps


def test_a_step_costs_one_commit_and_no_queue_row(rig: Rig) -> None:
    rig.runtime(chain, orchestration_concurrency=1)
    assert rig.run("i", "chain", 20).output == 20
    turns = [turn for done in rig.native.handed for turn in done.turns]
    assert len(turns) == 21, "one for the start, one for each result"
    assert [work for done in rig.native.handed for work in done.work] == [], "no result became a queue row"
    assert [len(turn.acks) for turn in turns] == [0] + [1] * 20
    assert [turn.keep for turn in turns] == [True] * 20 + [False]


def test_a_parked_instance_is_not_leased(rig: Rig) -> None:
    def parked(ctx: Any, _: Any) -> Any:
        yield ctx.schedule_activity("echo", 1)
        return (yield ctx.wait_for_event("go"))

    rig.runtime(parked)
    rig.client.start_orchestration("i", "parked")
    until(lambda: "ExternalSubscribed" in rig.kinds("i"))
    until(lambda: not rig.native.leases)
    rig.client.raise_event("i", "go", 5)
    assert rig.wait("i").output == 5


def test_a_turn_whose_lease_was_lost_commits_nothing(rig: Rig) -> None:
    entered, gate, ran = threading.Event(), threading.Event(), []

    def slow(ctx: Any, _: Any) -> Any:
        value = yield ctx.schedule_activity("echo", "x")
        ran.append(value)
        if len(ran) == 1:
            entered.set()
            gate.wait(PATIENCE_S)
        yield ctx.schedule_activity("echo", "y")
        return "done"

    rig.runtime(slow)
    rig.client.start_orchestration("i", "slow")
    assert entered.wait(PATIENCE_S)
    token, _ = rig.native.leases["i"]
    rig.native.leases["i"] = ("lock_stranger:1", 0)  # somebody else had it, and let it go
    gate.set()
    assert rig.wait("i").output == "done" and token
    assert rig.kinds("i").count("ActivityScheduled") == 2 and rig.kinds("i")[-1] == "OrchestrationCompleted"


def test_leases_of_long_work_are_renewed(rig: Rig) -> None:
    began, gate, calls = threading.Event(), threading.Event(), []

    def long(ctx: Any, _: Any) -> Any:
        calls.append(1)
        began.set()
        gate.wait(PATIENCE_S)
        return "once"

    def flow(ctx: Any, _: Any) -> Any:
        return (yield ctx.schedule_activity("long"))

    rig.runtime(flow, activities={"long": long}, orchestrator_lock_timeout_ms=3_000, worker_lock_timeout_ms=3_000)
    rig.client.start_orchestration("i", "flow")
    assert began.wait(PATIENCE_S)
    for _ in range(8):  # twelve seconds
        until(lambda: rig.native.leases["i"][1] > rig.clock.now() + 1_900)
        rig.clock.skip(1.5)
    gate.set()
    assert rig.wait("i").output == "once" and calls == [1]


def test_an_unregistered_orchestration_is_poisoned_after_its_attempts(rig: Rig) -> None:
    rig.runtime(max_attempts=2)
    rig.client.start_orchestration("i", "nobody_knows_it")
    until(lambda: rig.client.get_status("i").status == "Failed", lambda: rig.clock.skip(0.5))
    assert rig.client.get_status("i").error == "poison: orchestration i exceeded 3 attempts (max 2)"


def test_what_is_registered_after_start_runs(rig: Rig) -> None:
    runtime = rig.runtime()
    rig.client.start_orchestration("i", "late")

    def late(ctx: Any, _: Any) -> Any:
        return (yield ctx.schedule_activity("later", 1))

    runtime.register_orchestration("late", late)
    runtime.register_activity("later", lambda ctx, value: value + 1)
    until(lambda: rig.client.get_status("i").status == "Completed", lambda: rig.clock.skip(0.5))
    assert rig.client.get_status("i").output == 2


def test_a_run_leaves_nothing_behind(rig: Rig) -> None:
    def flow(ctx: Any, n: int) -> Any:
        found = yield ctx.all_typed([ctx.schedule_activity("echo", k) for k in range(3)])
        yield ctx.race(ctx.schedule_activity("echo", n), ctx.wait_for_event("never"))
        return sum(found)

    before = set(threading.enumerate())
    runtime = rig.runtime(flow)
    rig.client.start_orchestrations([(f"i{n}", "flow", n) for n in range(300)])
    assert {rig.wait(f"i{n}").output for n in range(300)} == {3}
    state, holdings = rig.native._state, runtime._engine.holdings
    until(lambda: not (state.leases or state.messages or state.work or holdings.leases or holdings.jobs))
    assert not (holdings.results or holdings.backs or holdings.releases or holdings.ready)
    assert len(runtime._engine.cache) == 0 and runtime._engine._reserved == 0
    runtime.shutdown()
    until(lambda: {t for t in set(threading.enumerate()) - before if t.name != "duroxide-watch"} == set())
