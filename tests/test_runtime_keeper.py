"""The keeper, tick by tick on a clock that stands still between them: what is renewed, when, and what a loss means."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import duroxide
from duroxide.registry import Registry
from duroxide.runtime.clock import Clock
from duroxide.runtime.leases import Job
from duroxide.runtime.runtime import Engine
from duroxide.storage.base import Appetite, Renewal, Renewed, StoreError
from duroxide.storage.memory import MemoryStore

NOW = 1_700_000_000_000


class Standing(Clock):
    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> int:
        return NOW + int(self.at * 1000)

    def monotonic(self) -> float:
        return self.at


class Asked(MemoryStore):
    """Notes what the keeper asks for, and loses what it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.renewals: list[Renewal] = []
        self.lose: tuple[list[int], list[int]] = ([], [])
        self.reclaims = self.sweeps = self.dead = self.commits = 0

    def renew(self, renewal: Renewal) -> Renewed:
        self.renewals.append(renewal)
        return Renewed(*self.lose)

    def reclaim(self, now: int) -> int:
        self.reclaims += 1
        return self.dead

    def sweep_sessions(self, now: int) -> int:
        self.sweeps += 1
        return 0

    def version(self) -> int:
        return self.commits


class Bench:
    def __init__(self, **options: Any) -> None:
        self.store, self.clock = Asked(), Standing()
        self.provider = duroxide.SqliteProvider(self.store)  # type: ignore[arg-type]
        self.engine = Engine(self.provider, Registry(), duroxide.RuntimeOptions(**options), self.clock)
        self.keeper, self.holdings = self.engine.keeper, self.engine.holdings

    def hold(self, activity: int, session: str | None = None) -> Job:
        """An activity of instance 'i', which is leased here."""
        if not self.holdings.leases:
            self.store._send("i", '{"StartOrchestration":{"instance":"i"}}', 1)
            assert self.engine.queue.take(Appetite(self.engine.owner, turns=1), 0, None, self.clock.now).turns
            self.holdings.claimed("i", lambda instance: None)
            [lease] = self.holdings.next_ready(1)
            lease.claim = None
        job = Job(activity, f"t{activity}", 1, "{}", "o", "1.0.0")
        job.instance, job.execution_id, job.activity_id, job.name, job.input, job.session_id = "i", 1, activity, "a", "1", session
        self.holdings.hold([job])
        return job

    def settle(self) -> None:
        """The turn of 'i' is committed, the lease kept for what is in flight."""
        assert self.holdings.ran(self.holdings.leases["i"], True)

    def ticks(self, seconds: float, step: float = 0.025) -> list[Renewal]:
        """What is asked for in that time."""
        self.store.renewals.clear()
        for _ in range(round(seconds / step)):
            self.clock.at += step
            self.keeper.tick()
        return list(self.store.renewals)


@pytest.fixture
def bench() -> Iterator[Bench]:
    yield Bench(orchestrator_lock_timeout_ms=6_000, worker_lock_timeout_ms=30_000)


def test_leases_are_renewed_thrice_in_their_time_and_for_their_full_time(bench: Bench) -> None:
    bench.hold(1)
    bench.ticks(2)
    found = bench.ticks(30)
    assert [r.lease_ms for r in found if r.lease_ms] == [6_000] * 15
    assert [r.work_lease_ms for r in found if r.work_lease_ms] == [30_000] * 3
    token = bench.holdings.leases["i"].token
    assert all((r.leases, r.work) == ([("i", token)], [(1, "t1")]) for r in found)
    assert [r.now for r in found] == sorted({r.now for r in found})


def test_a_runtime_that_holds_nothing_asks_for_nothing(bench: Bench) -> None:
    bench.store.commits = 5
    assert bench.ticks(30) == []
    assert bench.keeper.pause() == 0.2
    bench.hold(1)
    assert bench.keeper.pause() == 0.025, "whoever works must hear of a cancellation within 100 ms"


def test_a_commit_elsewhere_is_looked_at_once_and_extends_nothing(bench: Bench) -> None:
    bench.hold(1)
    bench.ticks(3)
    bench.store.commits += 1
    assert [(r.lease_ms, r.work_lease_ms, r.session_owner) for r in bench.ticks(1)] == [(0, 0, None)]


def test_lost_work_is_told_to_the_activity_that_lost_it(bench: Bench) -> None:
    first, second = bench.hold(1), bench.hold(2)
    bench.ticks(3)
    bench.store.lose = ([], [1])
    bench.store.commits += 1
    bench.ticks(0.025)
    assert (first.cancelled, second.cancelled) == (False, True)


@pytest.mark.parametrize("runs", [True, False])
def test_a_lost_lease_is_let_go_unless_its_turn_runs(bench: Bench, runs: bool) -> None:
    bench.hold(1)
    bench.ticks(3)
    if not runs:
        bench.settle()
    bench.store.lose = ([0], [])
    bench.store.commits += 1
    bench.ticks(0.025)
    assert ("i" in bench.holdings.leases) is runs, "a running turn hears of it when it commits"


def test_a_renewal_that_failed_is_tried_again_soon(bench: Bench) -> None:
    bench.hold(1)
    bench.ticks(2)
    renew = bench.store.renew

    def fail(renewal: Renewal) -> Renewed:
        bench.store.renewals.append(renewal)
        raise StoreError("busy", retryable=True)

    bench.store.renew = fail  # type: ignore[method-assign]
    with pytest.raises(StoreError):
        bench.ticks(2.1)
    assert bench.store.renewals[-1].lease_ms == 6_000
    bench.store.renew = renew  # type: ignore[method-assign]
    assert [r.lease_ms for r in bench.ticks(0.3) if r.lease_ms] == [6_000]


def sessions(renewals: list[Renewal]) -> list[tuple[str | None, int, int]]:
    return [(r.session_owner, r.session_lock_ms, r.session_idle_ms) for r in renewals if r.session_owner is not None]


def test_sessions_stay_here_from_their_first_work_until_they_were_idle_for_long(bench: Bench) -> None:
    bench.hold(1)
    assert sessions(bench.ticks(30)) == []
    used = bench.hold(2, session="s")
    one = (bench.engine.session_owner, 30_000, 300_000)
    assert sessions(bench.ticks(30)) == [one] * 3
    bench.holdings.finished(used, True, "1")
    assert sessions(bench.ticks(299, 1)) == [one] * 30, "between two activities too"
    assert sessions(bench.ticks(60, 1)) == []


def test_short_sessions_are_renewed_in_their_own_time() -> None:
    bench = Bench(session_lock_timeout_ms=3_000, session_lock_renewal_buffer_ms=1_000)
    bench.hold(1, session="s")
    assert len(sessions(bench.ticks(30))) == 30


def test_work_of_a_session_that_came_and_went_between_two_looks_counts(bench: Bench) -> None:
    job = bench.hold(1, session="s")
    bench.engine.workers.add([job])
    bench.holdings.finished(job, True, "1")
    assert len(sessions(bench.ticks(30))) == 3


def test_the_dead_are_looked_for_often_and_what_they_held_wakes_the_loops(bench: Bench) -> None:
    bench.ticks(0.3)
    bench.store.reclaims = 0
    bench.ticks(30)
    assert 90 <= bench.store.reclaims <= 100, "within a second of a death"
    before = bench.engine.queue.generation
    bench.store.dead = 1
    bench.ticks(0.6)
    assert bench.engine.queue.generation > before


def test_sessions_that_ended_are_swept_every_five_minutes(bench: Bench) -> None:
    bench.ticks(290, 1)
    assert bench.store.sweeps == 0
    bench.ticks(610, 1)
    assert bench.store.sweeps == 3


def test_an_error_of_the_store_does_not_end_the_keeper(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """`run` goes on after whatever a tick raises."""
    ticks: list[int] = []

    def tick() -> None:
        ticks.append(1)
        if len(ticks) == 3:
            bench.engine.stopped.set()
        raise [StoreError("busy"), ValueError("odd"), RuntimeError("end")][len(ticks) - 1]

    bench.keeper.tick = tick  # type: ignore[method-assign]
    bench.clock.wait = lambda event, seconds: event.is_set()  # type: ignore[method-assign]
    bench.keeper.run()
    assert len(ticks) == 3 and "keeping leases: busy" in caplog.text and bench.engine.counters["provider_errors"] == 1
