"""`World`: one run of one program against whichever `duroxide` the process has imported.

Owns the client calls and waits that a program's driver makes, on the public API only, so that the reference and this package
run the same lines. Refuses to know how runs are recorded and compared.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

OPTIONS: dict[str, Any] = {"dispatcher_poll_interval_ms": 5, "orchestration_concurrency": 1, "worker_concurrency": 1}
PATIENCE_S = 30.0


class Nested:
    """Holds an exception class, so that its qualified name has a dot."""

    class Trouble(Exception):
        pass


class BadStr(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class World:
    """What a program's definition and driver are given. `sdk` is the imported `duroxide`, `provider` an open store.

    One orchestration turn and one activity at a time, so that the order of events does not hang on the machine's load;
    `pause()` stops the runtime, so that what is sent until `resume()` arrives in one batch.
    """

    def __init__(self, sdk: Any, provider: Any) -> None:
        self.sdk = sdk
        self.provider = provider
        self.options = dict(OPTIONS)
        self.gate = threading.Event()  # what the activity `gated` waits for
        self.calls: dict[str, int] = {}  # executions of the activity `flaky`, by its input's key
        self._orchestrations: list[tuple[str, str | None, Callable[..., Any]]] = []
        self._activities: dict[str, Callable[..., Any]] = {
            f.__name__: f for f in (echo, boom, add, raise_kind, unserialisable, self.gated, self.flaky, self.poll_cancelled)
        }
        self._runtime: Any = None

    @cached_property
    def client(self) -> Any:
        return self.sdk.Client(self.provider)

    # ── definitions ──

    def flows(self, *functions: Callable[..., Any]) -> None:
        """Register orchestrations under their own names; a second one of a name replaces the first at the next `resume`."""
        for f in functions:
            self._orchestrations = [o for o in self._orchestrations if (o[0], o[1]) != (f.__name__, None)]
            self._orchestrations.append((f.__name__, None, f))

    def versioned(self, name: str, version: str, function: Callable[..., Any]) -> None:
        self._orchestrations.append((name, version, function))

    @property
    def orchestrations(self) -> dict[tuple[str, str], Callable[..., Any]]:
        """(name, version) -> function, as a runtime would have them."""
        return {(name, version or "1.0.0"): function for name, version, function in self._orchestrations}

    def activity(self, function: Callable[..., Any]) -> Callable[..., Any]:
        self._activities[function.__name__] = function
        return function

    # ── the runtime ──

    def resume(self) -> None:
        runtime = self.sdk.Runtime(self.provider, self.sdk.RuntimeOptions(**self.options))
        for name, function in self._activities.items():
            runtime.register_activity(name, function)
        for name, version, function in self._orchestrations:
            if version is None:
                runtime.register_orchestration(name, function)
            else:
                runtime.register_orchestration_versioned(name, version, function)
        runtime.start()
        self._runtime = runtime

    def pause(self) -> None:
        if self._runtime is not None:
            self.gate.set()
            self._runtime.shutdown(2000)
            self._runtime = None

    # ── the client ──

    def start(self, instance: str, name: str, input: Any = None, version: str | None = None) -> None:
        if version is None:
            self.client.start_orchestration(instance, name, input)
        else:
            self.client.start_orchestration_versioned(instance, name, input, version)

    def wait(self, *instances: str) -> None:
        """Until each has ended."""
        for instance in instances:
            self.client.wait_for_orchestration(instance, int(PATIENCE_S * 1000))

    def run(self, name: str, input: Any = None, instance: str = "i") -> None:
        self.start(instance, name, input)
        self.wait(instance)

    def emit(self, instance: str, event: str, data: Any = None) -> None:
        self.client.raise_event(instance, event, data)

    def enqueue(self, instance: str, queue: str, data: Any = None) -> None:
        self.client.enqueue_event(instance, queue, data)

    def cancel(self, instance: str, reason: str | None = None) -> None:
        self.client.cancel_instance(instance, reason)

    def seen(self, instance: str, kind: str, count: int = 1, execution: int = 1) -> None:
        """Until that execution's history has `count` events of a kind."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            found = [e.kind for e in self.client.read_execution_history(instance, execution)]
            if found.count(kind) >= count:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{instance}: waited for {count} {kind}, found {found}")
            time.sleep(0.005)

    # ── activities that need the world ──

    def gated(self, ctx: Any, input: Any) -> Any:
        """Returns its input once the driver has opened the gate."""
        self.gate.wait(PATIENCE_S)
        return input

    def flaky(self, ctx: Any, input: dict[str, Any]) -> Any:
        """Fails the first `fail` times for its `key`, then returns how often it was called."""
        n = self.calls[input["key"]] = self.calls.get(input["key"], 0) + 1
        if n <= input["fail"]:
            raise ValueError(f"try {n}")
        return {"tries": n}

    def poll_cancelled(self, ctx: Any, input: Any) -> Any:
        """Works until it is told that nobody wants the result."""
        deadline = time.monotonic() + PATIENCE_S
        while not ctx.is_cancelled() and not self.gate.is_set() and time.monotonic() < deadline:
            time.sleep(0.01)
        return "stopped"


# ── activities that every program may call ──


def echo(ctx: Any, input: Any) -> Any:
    return input


def add(ctx: Any, input: list[int]) -> int:
    return sum(input)


def boom(ctx: Any, input: Any) -> Any:
    raise ValueError(f"boom {input}")


def raise_kind(ctx: Any, kind: str) -> Any:
    raise {
        "key": KeyError("kk"),
        "empty": ValueError(),
        "nested": Nested.Trouble("deep"),
        "bad_str": BadStr(),
        "exit": SystemExit(3),
        "interrupt": KeyboardInterrupt(),
        "unicode": ValueError("grüß ✓ \u0001 \"quoted\" \\ back"),
        "lines": ValueError("one\ntwo\n"),
        "os": FileNotFoundError(2, "No such file or directory", "x.txt"),
    }[kind]


def unserialisable(ctx: Any, input: Any) -> Any:
    return object()
