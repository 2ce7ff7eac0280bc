"""A runtime on a store that the test can look into, with a clock that the test moves. Owns no assertions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import duroxide
from duroxide.runtime.clock import Clock
from duroxide.storage._queue import Queue
from duroxide.storage.memory import MemoryStore

PATIENCE_S = 20.0


class MovingClock(Clock):
    """The system's clock plus what the test has skipped. Skipping wakes who sleeps in the queue, so that it looks again."""

    def __init__(self) -> None:
        self.skipped = 0.0
        self.queues: list[Queue] = []

    def now(self) -> int:
        return super().now() + int(self.skipped * 1000)

    def monotonic(self) -> float:
        return super().monotonic() + self.skipped

    def wait(self, event: threading.Event, seconds: float) -> bool:
        end = self.monotonic() + seconds
        while (left := end - self.monotonic()) > 0:
            if event.wait(min(left, 0.005)):
                return True
        return event.is_set()

    def skip(self, seconds: float) -> None:
        self.skipped += seconds
        for queue in self.queues:
            queue.touch()


class Rig:
    """One provider, its client, its clock and the runtimes that a test starts on it."""

    def __init__(self, native: Any = None) -> None:
        self.native = MemoryStore() if native is None else native
        self.provider = duroxide.SqliteProvider(self.native)
        self.client = duroxide.Client(self.provider)
        self.queue = Queue.of(self.native)
        self.clock = MovingClock()
        self.clock.queues.append(self.queue)
        self.runtimes: list[Any] = []

    def runtime(self, *functions: Callable[..., Any], activities: dict[str, Callable[..., Any]] | None = None, **options: Any) -> Any:
        """A started runtime with these orchestrations, by their names."""
        options = {"dispatcher_poll_interval_ms": 5, **options}
        runtime = duroxide.Runtime(self.provider, duroxide.RuntimeOptions(**options), clock=self.clock)
        runtime.register_activity("echo", lambda ctx, value: value)
        for name, activity in (activities or {}).items():
            runtime.register_activity(name, activity)
        for function in functions:
            runtime.register_orchestration(function.__name__, function)
        runtime.start()
        self.runtimes.append(runtime)
        return runtime

    def run(self, instance: str, name: str, input: Any = None) -> Any:
        self.client.start_orchestration(instance, name, input)
        return self.wait(instance)

    def wait(self, instance: str) -> Any:
        return self.client.wait_for_orchestration(instance, int(PATIENCE_S * 1000))

    def kinds(self, instance: str) -> list[str]:
        return [event.kind for event in self.client.read_execution_history(instance, 1)]

    def close(self) -> None:
        for runtime in self.runtimes:
            runtime.shutdown(0)


def until(condition: Callable[[], Any], moving: Callable[[], Any] = lambda: None) -> None:
    """Wait for other threads; `moving` is called between two looks, to move a clock for example."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        moving()
        time.sleep(0.002)
