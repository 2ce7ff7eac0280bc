"""A runtime without threads: turns, activities, the keeper and the outside world take their steps in one thread, by a clock that
stands still while they do. The same program takes the same steps every time.

Owns the order of steps. `Outside` writes down what it is about to do and what it has heard, so that it can go on after a death.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
from pathlib import Path
from typing import Any

from faults.scenario import ACTS, EXPECTED, append, register

import duroxide
from duroxide import errors
from duroxide.registry import Registry
from duroxide.runtime import loop
from duroxide.runtime.clock import Clock
from duroxide.runtime.runtime import Engine

START_MS = 2_200_000_000_000  # after any real now: what a client sends is due at once
LIFE_MS = 60_000  # longer than any lease: who is born later finds the leases of the dead expired
MOST_STEPS = 2_000
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.002, 2.0  # while nothing happens; the timers of losers are an hour away


class Stuck(Exception):
    pass


class SteppedClock(Clock):
    """Stands still but for `skip`; guids and tokens come from a seed."""

    def __init__(self, life: int) -> None:
        self.began, self.skipped = START_MS + life * LIFE_MS, 0.0
        self.lots, self.numbers, self.life = random.Random(life), itertools.count(1), life

    def now(self) -> int:
        return self.began + int(self.skipped * 1000)

    def monotonic(self) -> float:
        return self.skipped

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.skipped += seconds
        return event.is_set()

    def between(self, low: float, high: float) -> float:
        return self.lots.uniform(low, high)

    def token(self) -> str:
        return f"{self.life:08x}{next(self.numbers):08x}"

    def guid(self) -> str:
        return f"{self.lots.getrandbits(32):08x}-0000-4000-8000-{self.lots.getrandbits(48):012x}"


class Stepped:
    """One runtime on `provider` (a wrapper with `_native`) with whatever `register` registers."""

    def __init__(self, provider: Any, registry: Registry, clock: SteppedClock, **options: Any) -> None:
        options = {"orchestration_concurrency": 1, "worker_concurrency": 2, "worker_tag_filter": duroxide.TagFilter.ANY, **options}
        self.clock = clock
        self.engine = Engine(provider, registry, duroxide.RuntimeOptions(**options), clock)
        self.withdraw = provider._native.announce(self.engine.owner)

    def step(self) -> bool:
        """Whether something was run or taken. What the store raises passes through, as in a thread's loop."""
        engine = self.engine
        engine.keeper.tick()
        before = engine.queue.generation
        idle, loop.IDLE_S = loop.IDLE_S, 0.0  # nobody else could wake it
        try:
            engine.loops[0].step()
        finally:
            loop.IDLE_S = idle
        calls = self.call()
        return calls > 0 or bool(engine.holdings.ready) or engine.queue.generation > before

    def call(self) -> int:
        """Run the activities that wait; how many."""
        workers, count = self.engine.workers, 0
        while workers.queue:
            job = workers.queue.popleft()
            workers.running[0] = job
            try:
                workers._do(job, "work-0")
            finally:
                workers.running.pop(0, None)
            count += 1
        return count

    def end(self) -> None:
        self.engine.stopping.set()
        self.engine.leave()
        self.engine.queue.forget(self.engine.owner)
        self.withdraw()
        self.engine.cache.clear()


class Outside:
    """Clients that do each act once. A line `begin` in the journal before the call, `heard` after it."""

    def __init__(self, native: Any, journal: Path) -> None:
        self.native, self.client = native, duroxide.Client(native)
        self.journal = journal
        journal.touch()
        lines = journal.read_text().splitlines()
        self.todo = [act for act in ACTS if f"heard {act.name}" not in lines]
        self.begun = {act.name for act in self.todo if f"begin {act.name}" in lines}  # perhaps done, perhaps not: again

    def receivers_again(self) -> set[str]:
        """Who may have got one more of something, because nobody had heard that it was sent."""
        begun = self.journal.read_text().splitlines()
        return {act.receiver for act in ACTS if begun.count(f"begin {act.name}") > 1}

    def step(self) -> bool:
        for act in self.todo:
            if act.name in self.begun or act.due(self.native):
                append(self.journal, f"begin {act.name}")
                self.begun.add(act.name)
                with contextlib.suppress(errors.NotFound):  # deleted already, by the call that nobody heard of
                    act.do(self.client)
                append(self.journal, f"heard {act.name}")
                self.todo.remove(act)
                return True
        return False


def done(native: Any) -> bool:
    return all(ended(native, instance) for instance in EXPECTED) and bool(native.queue_depths(0)["worker_queue"] == 0)


class Life:
    """The scenario with its outside world on one opened provider. `ledger`: see scenario; acts are in `ledger`.acts."""

    def __init__(self, native: Any, ledger: str, life: int) -> None:
        provider, registry = duroxide.SqliteProvider(native), Registry()
        register(_Registering(registry), ledger)
        self.native = native
        self.runtime = Stepped(provider, registry, SteppedClock(life))
        self.outside = Outside(native, Path(ledger + ".acts"))
        self.pause = FIRST_PAUSE_S

    def step(self) -> bool:
        """False once everything has been done. What the store raises passes through: then step again."""
        if self.outside.step() | self.runtime.step():
            self.pause = FIRST_PAUSE_S
            return True
        if not self.outside.todo and done(self.native):
            return False
        self.runtime.clock.skipped += self.pause
        self.pause = min(self.pause * 1.2, LONGEST_PAUSE_S)
        return True

    def run(self) -> None:
        for _ in range(MOST_STEPS):
            if not self.step():
                self.runtime.end()
                return
        left = [instance for instance in EXPECTED if not ended(self.native, instance)]
        raise Stuck(f"not done: {[act.name for act in self.outside.todo]}, not ended: {left}")


def ended(native: Any, instance: str) -> bool:
    row = native.load(instance, None, 1 << 62)
    return row is not None and row.status in ("Completed", "Failed")


class _Registering:
    """A registry with a runtime's names for its methods."""

    def __init__(self, registry: Registry) -> None:
        self.register_activity = registry.add_activity
        self.registry = registry

    def register_orchestration(self, name: str, function: Any) -> None:
        self.registry.add_orchestration(name, None, function)

    def register_orchestration_versioned(self, name: str, version: str, function: Any) -> None:
        self.registry.add_orchestration(name, version, function)
