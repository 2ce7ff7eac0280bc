"""Live executions between their turns, bounded by count and bytes; the least recently used leaves first.

Owns nothing but the bound: whoever takes an execution out checks it against the store. Refuses to know leases and turns.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from duroxide.engine._execution import Execution


class Cache:
    """`expect` before the exchange that gives a lease back, `put` after it, `take` before the next turn. Between the first two another
    thread may have taken the lease and even ended the instance: it called `take`, and what is put then is closed, for nobody would
    ever ask for it. `max_bytes` counts `Execution.size` (an estimate) at `put`."""

    def __init__(self, max_count: int = 10_000, max_bytes: int = 256 * 1024 * 1024) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._held: OrderedDict[str, tuple[Execution, int]] = OrderedDict()
        self._bytes = 0
        self._expected: set[str] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def expect(self, instance: str) -> None:
        """An execution of this instance will be put, unless somebody takes before."""
        with self._lock:
            self._expected.add(instance)

    def forget(self, instance: str) -> None:
        """It will not be put after all."""
        with self._lock:
            self._expected.discard(instance)

    def put(self, execution: Execution) -> None:
        """Keep it live if it is expected, else close it; others may be closed for it. Replaces an older one of the same instance."""
        closing: list[Execution] = []
        with self._lock:
            if execution.instance in self._expected:
                self._expected.remove(execution.instance)
                self._keep(execution, closing)
            else:
                closing.append(execution)
        for closed in closing:  # user code (`finally`) runs here: not under the lock
            closed.close()

    def _keep(self, execution: Execution, closing: list[Execution]) -> None:
        """Under the lock; `closing` gets what leaves for it."""
        old = self._held.pop(execution.instance, None)
        if old is not None:
            self._bytes -= old[1]
            if old[0] is not execution:
                closing.append(old[0])
        size = execution.size
        self._held[execution.instance] = (execution, size)
        self._bytes += size
        while self._held and (len(self._held) > self._max_count or self._bytes > self._max_bytes):
            _, (evicted, freed) = self._held.popitem(last=False)
            self._bytes -= freed
            closing.append(evicted)

    def take(self, instance: str) -> Execution | None:
        """The live execution of this instance, no longer held; None if there is none."""
        with self._lock:
            self._expected.discard(instance)
            found = self._held.pop(instance, None)
            if found is None:
                return None
            self._bytes -= found[1]
            return found[0]

    def clear(self) -> None:
        with self._lock:
            held, self._held, self._bytes = self._held, OrderedDict(), 0
            self._expected.clear()
        for execution, _ in held.values():
            execution.close()
