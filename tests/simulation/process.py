"""One process of a world: its way to the store, where time passes and faults strike, and the runtimes on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import duroxide
from duroxide.runtime.runtime import Runtime
from duroxide.storage._queue import Queue
from duroxide.storage.base import (
    LOST,
    OK,
    Done,
    Loaded,
    Renewal,
    Renewed,
    Request,
    StoreError,
    Taken,
    TurnBack,
    WorkBack,
    WorkOut,
)

from . import programs
from .hub import GreenClock, Machine

if TYPE_CHECKING:
    from .world import World


class Port:
    """One process's way to the store. `Client` and `Runtime` take it as a provider."""

    def __init__(self, world: World, machine: Machine, native: Any) -> None:
        self.world, self.machine, self.native = world, machine, native
        self._native = self  # what wraps a provider is the provider
        self.name = native.name
        self.seen = 0
        self.blind_until = 0.0
        self.slow_until = 0.0
        self.failures: list[str] = []  # of the next exchanges: "before" their commit, or "after" it

    def __getattr__(self, name: str) -> Any:
        return getattr(self.native, name)

    def exchange(self, requests: Sequence[Request]) -> list[Taken]:
        failure = self.failures.pop() if self.failures else ""
        self._pass()
        if failure == "before":
            raise StoreError("exchange: simulated", operation="exchange", retryable=True)
        answers: list[Taken] = self.native.exchange(requests)
        self.world.exchanged(self, requests, answers)
        self._pass()
        return self._lost(requests, answers) if failure == "after" else answers

    def _lost(self, requests: Sequence[Request], answers: Sequence[Taken]) -> list[Taken]:
        """The answer did not arrive, and the store found out that it had committed: what it gave out is freed, the rest is told as lost."""
        back = Request(requests[0].now, Done())
        told = []
        for request, taken in zip(requests, answers):
            lost, done = Taken(), request.done or Done()
            lost.turn_codes, lost.held = [LOST] * len(done.turns), [[] for _ in done.turns]
            lost.turn_back_codes, lost.work_codes = [OK] * len(done.turn_backs), [OK] * len(done.work)
            lost.work_back_codes = [OK] * len(done.work_backs)
            told.append(lost)
            held = {
                row: work.lease for turn, rows in zip(done.turns, taken.held) for row, work in zip(rows, filter(_held, turn.work))
            }
            back.done.turn_backs += [TurnBack(claim.lease, claim.instance, 0, True) for claim in taken.turns]
            back.done.turn_backs += [TurnBack(turn.lease, turn.instance, 0, True) for turn in done.turns if turn.keep]
            back.done.work_backs += [WorkBack(work.row_id, work.token, 0, True) for work in taken.work]
            back.done.work_backs += [WorkBack(row, token, 0, True) for row, token in held.items()]
        self.world.exchanged(self, [back], self.native.exchange([back]))
        return told

    def load(self, instance: str, execution_id: int | None = None, after: int = 0) -> Loaded | None:
        self._pass()
        loaded: Loaded | None = self.native.load(instance, execution_id, after)
        self._pass()
        return loaded

    def renew(self, renewal: Renewal) -> Renewed:
        self._pass()
        answer: Renewed = self.native.renew(renewal)
        self.world.seen(lambda: self.world.witness.renewed(renewal, answer))
        self._pass()
        return answer

    def _pass(self) -> None:
        hub, world = self.world.hub, self.world
        hub.task()
        world.passes += 1
        if world.passes in world.plan:
            hub.at(hub.time_s, lambda passes=world.passes: world.fault(world.plan[passes], self.machine))  # type: ignore[misc]
        hub.sleep(hub.lots.random() * (0.3 if hub.time_s < self.slow_until else 0.002))

    rest = None  # real files are written to at no simulated time

    def version(self) -> int:
        if self.world.hub.time_s >= self.blind_until:
            self.seen = self.native.version() if self.world.store.own_versions else self.world.versions - self.world.own[self]
        return self.seen

    def announce(self, owner: str) -> Callable[[], None]:
        self.world.owners[owner] = self.machine
        return lambda: self.world.owners.pop(owner, None) and None

    def reclaim(self, now: int) -> int:
        return self.world.reclaim() if self.world.liveness else 0

    def sweep_sessions(self, now: int) -> int:
        return int(self.native.sweep_sessions(now))


def _held(work: WorkOut) -> bool:
    return work.lease is not None


class Process:
    """One process: its port, and one or two runtimes on it."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.machine = Machine(name)
        self.port = Port(world, self.machine, world.store.open())
        self.runtimes: list[Runtime] = []

    def client(self) -> Any:
        return duroxide.Client(self.port)

    def start(self) -> None:
        for _ in range(self.world.lots.choice((1, 1, 2))):
            self.world.hub.spawn(self.machine, self._start, "start")

    def _start(self) -> None:
        world, lots = self.world, self.world.lots
        options = duroxide.RuntimeOptions(
            orchestration_concurrency=lots.choice((1, 2, 3)), worker_concurrency=lots.choice((1, 2, 4)), dispatcher_poll_interval_ms=100,
            orchestrator_lock_timeout_ms=world.lease_ms, worker_lock_timeout_ms=world.work_lease_ms, max_attempts=1_000,
            worker_tag_filter=duroxide.TagFilter.ANY, session_lock_timeout_ms=lots.choice((500, 3_000)),
        )  # fmt: skip
        runtime = Runtime(self.port, options, clock=GreenClock(world.hub, self.machine))
        programs.register(runtime, world.ledger)
        runtime.start()
        self.runtimes.append(runtime)
        world.note(self.machine.name, f"started, {options}")

    def leave(self) -> list[Any]:
        """Begin an orderly shutdown; the tasks that do it."""
        hub = self.world.hub
        timeout = self.world.lots.choice((0, 50, 1_000))
        return [hub.spawn(self.machine, lambda runtime=runtime: runtime.shutdown(timeout), "leave") for runtime in self.runtimes]

    def wake(self) -> None:
        """Everybody wakes for nothing."""

        def touch() -> None:
            queue = Queue.of(self.port)
            queue.touch()
            queue.wake()

        self.world.hub.spawn(self.machine, touch, "touch")
