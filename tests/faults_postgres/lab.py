"""A runtime at work on a PostgreSQL schema while something goes wrong, and what must hold when it is over.

Owns the program, who starts it, and the checks: every instance that somebody was told of has the right outcome, histories are whole,
no result counts twice, and the runtime is the one that was there before.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import duroxide
from duroxide.storage.postgres import PostgresNative, open_postgres
from postgres_server import Server

PATIENCE_S = 90.0
COMPLETIONS = ("ActivityCompleted", "TimerFired", "SubOrchestrationCompleted")


def flow(ctx: Any, n: int) -> Any:
    """A step, a fan, a timer, a child, a value, a status."""
    first = yield ctx.schedule_activity("note", ["first", n])
    fan = yield ctx.all_typed([ctx.schedule_activity("note", ["fan", k]) for k in range(3)])
    yield ctx.schedule_timer(10)
    child = yield ctx.schedule_sub_orchestration("child", n)
    ctx.set_kv_value("sum", str(n + child))
    ctx.set_custom_status("late")
    last = yield ctx.schedule_activity("note", ["last", n])
    return [first[1], len(fan), child, last[1], ctx.get_kv_value("sum")]


def child(ctx: Any, n: int) -> Any:
    found = yield ctx.schedule_activity("note", ["child", n])
    return found[1] * 2


class Laboratory:
    """`runtimes` of them on one schema, through `url` (the server's own if None); `begin` starts instances until `finish`."""

    def __init__(self, server: Server, schema: str, url: str | None = None, runtimes: int = 1, **options: Any) -> None:
        self.server, self.schema = server, schema
        self.calls: Counter[str] = Counter()
        self.natives: list[PostgresNative] = []
        self.runtimes: list[Any] = []
        self.told: list[int] = []  # instances whose start was acknowledged
        self.refused: list[str] = []  # what callers heard instead
        self._stop = threading.Event()
        self._starter: threading.Thread | None = None
        for _ in range(runtimes):
            native = open_postgres(url or server.url, schema)
            self.natives.append(native)
            self.runtimes.append(self._runtime(native, options))
        self.client = duroxide.Client(duroxide.PostgresProvider(self.natives[0]))

    def _runtime(self, native: PostgresNative, options: dict[str, Any]) -> Any:
        options = {"dispatcher_poll_interval_ms": 10, "orchestrator_lock_timeout_ms": 2_000, "worker_lock_timeout_ms": 2_000, **options}
        runtime = duroxide.Runtime(duroxide.PostgresProvider(native), duroxide.RuntimeOptions(**options))

        def note(ctx: Any, value: Any) -> Any:
            self.calls[f"{ctx.instance_id} {value}"] += 1
            return value

        runtime.register_activity("note", note)
        runtime.register_orchestration("flow", flow)
        runtime.register_orchestration("child", child)
        runtime.start()
        return runtime

    # ── work ──

    def begin(self, pause_s: float = 0.02, most: int = 1_000) -> None:
        def start() -> None:
            for n in range(most):
                if self._stop.is_set():
                    return
                self.start(n)
                time.sleep(pause_s)

        self._starter = threading.Thread(target=start, name="starter", daemon=True)
        self._starter.start()

    def start(self, n: int) -> None:
        """A caller as they are: hears of an error, and tries something else then."""
        try:
            self.client.start_orchestration(f"i{n}", "flow", n)
            self.told.append(n)
        except RuntimeError as error:
            self.refused.append(str(error))

    def stop(self) -> None:
        self._stop.set()
        if self._starter is not None:
            self._starter.join(PATIENCE_S)
            assert not self._starter.is_alive(), "a caller is stuck"

    def progress(self, least: int, within_s: float = PATIENCE_S) -> None:
        """Wait until so many more calls of activities than now."""
        before, deadline = sum(self.calls.values()), time.monotonic() + within_s
        while sum(self.calls.values()) < before + least:
            assert time.monotonic() < deadline, f"nothing moves: {sum(self.calls.values()) - before} calls in {within_s} s"
            time.sleep(0.01)

    # ── what must hold ──

    def finish(self, least: int = 1) -> None:
        """The fault is gone: everything that was begun ends, by the runtimes that were there all the time."""
        self.stop()
        assert len(self.told) >= least, f"only {len(self.told)} starts got through: {self.refused[:3]}"
        deadline = time.monotonic() + PATIENCE_S
        for n in self.told:
            result = self.client.wait_for_orchestration(f"i{n}", max(1, int((deadline - time.monotonic()) * 1_000)))
            assert result.output == [n, 3, 2 * n, n, str(3 * n)], f"i{n}: {result}"
        assert self.client.start_orchestration("last", "flow", 7) is None
        assert self.client.wait_for_orchestration("last", int(PATIENCE_S * 1_000)).output == [7, 3, 14, 7, "21"]
        self.check_histories()
        self.check_rest()

    def check_histories(self) -> None:
        """Dense ids, and nothing completed twice, read past everything of ours."""
        rows = self.server.execute(
            f'SELECT instance_id, execution_id, event_id, event_data FROM "{self.schema}".history ORDER BY 1, 2, 3'
        )
        found: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for instance, execution, _, text in rows:
            found.setdefault((instance, execution), []).append(json.loads(text))
        for key, events in found.items():
            assert [event["event_id"] for event in events] == list(range(1, len(events) + 1)), key
            done = Counter(event["source_event_id"] for event in events if event["type"] in COMPLETIONS)
            assert not done or max(done.values()) == 1, f"{key}: completed twice: {done}"

    def check_rest(self) -> None:
        """Queues run empty, leases of what has ended go."""
        rest = " UNION ALL ".join(f'SELECT count(*) FROM "{self.schema}".{t}' for t in ("worker_queue", "orchestrator_queue", "instance_locks"))
        deadline = time.monotonic() + PATIENCE_S
        while (left := self.server.execute(rest)) != [(0,), (0,), (0,)]:
            assert time.monotonic() < deadline, f"left over: {left}"
            time.sleep(0.05)

    def reruns(self) -> int:
        """Calls of activities beyond the first of each."""
        return sum(self.calls.values()) - len(self.calls)

    def close(self) -> None:
        self._stop.set()
        for runtime in self.runtimes:
            runtime.shutdown(0)
        for native in self.natives:
            native.close()


def until(condition: Callable[[], Any], within_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)
