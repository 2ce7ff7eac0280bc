"""Runs programs on whichever `duroxide` the process has imported, and tells what became of them.

usage: python runner.py FILE < programs.json > outcomes.json
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent))

from randomized import programs

PATIENCE_S = 120.0


class Flaky:
    """Fails as often as its input says, by the input's name."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.lock = threading.Lock()

    def __call__(self, ctx: Any, value: list[Any]) -> Any:
        name, failures = value
        with self.lock:
            self.calls[name] += 1
            if self.calls[name] <= failures:
                raise ValueError(f"try {self.calls[name]}")
        return name


def fail(ctx: Any, value: Any) -> Any:
    raise KeyError(str(value))


def runtime_on(sdk: Any, provider: Any) -> Any:
    options = sdk.RuntimeOptions(dispatcher_poll_interval_ms=5, orchestration_concurrency=1, worker_concurrency=1)
    runtime = sdk.Runtime(provider, options)
    runtime.register_activity("echo", lambda ctx, value: value)
    runtime.register_activity("fail", fail)
    runtime.register_activity("flaky", Flaky())
    runtime.register_orchestration("program", programs.program)
    runtime.register_orchestration("child", programs.child)
    return runtime


class Driver:
    """The outside of all programs: sends what each waits for, and cancels those that only a cancel ends."""

    def __init__(self, client: Any, made: dict[str, dict[str, Any]]) -> None:
        self.client, self.made = client, made
        self.todo = {name: programs.signals(program, name) for name, program in made.items()}
        self.cancelled: set[str] = set()

    def step(self) -> bool:
        """Whether every program has ended."""
        open_ones = [name for name in self.made if self.client.get_status(name).status in ("Running", "NotFound")]
        for name in open_ones:
            if self.client.get_status(name).status == "Running":
                self.serve(name)
        return not open_ones

    def serve(self, name: str) -> None:
        waiting = self.waiting(name)
        for signal in list(self.todo[name]):
            verb, _, key, value = signal
            if key in waiting:
                send = self.client.raise_event if verb == "event" else self.client.enqueue_event
                send(waiting[key], key, value)
                self.todo[name].remove(signal)
        if "never" in waiting and name not in self.cancelled:
            self.cancelled.add(name)
            self.client.cancel_instance(name, "not needed")

    def waiting(self, name: str) -> dict[str, str]:
        """Names that somebody in the tree waits for -> instance."""
        found = {}
        for instance in self.client.get_instance_tree(name).all_ids:
            for execution in self.client.list_executions(instance):
                for event in self.client.read_execution_history(instance, execution):
                    if event.kind in ("ExternalSubscribed", "QueueSubscribed"):
                        found[json.loads(event.data)["name"]] = instance
        return found


def without_frames(value: Any) -> Any:
    """Tracebacks by their last line: the frames are those of whoever runs the code."""
    if isinstance(value, str) and "Traceback (most recent call last)" in value:
        return value.strip().splitlines()[-1]
    if isinstance(value, list):
        return [without_frames(each) for each in value]
    if isinstance(value, dict):
        return {key: without_frames(each) for key, each in value.items()}
    return value


def outcome(client: Any, name: str) -> dict[str, Any]:
    """What must be the same wherever the program ran."""
    tree = sorted(client.get_instance_tree(name).all_ids)
    found = {}
    for instance in tree:
        status = client.get_status(instance)
        kinds = [[e.kind for e in client.read_execution_history(instance, n)] for n in client.list_executions(instance)]
        values = {key: client.get_kv_value(instance, key) for key in ("k0", "k1", "k2")}
        found[instance] = {
            "status": status.status, "output": without_frames(status.output), "error": without_frames(status.error), "custom_status": status.custom_status, "values": values,
            "kinds": [dict(sorted(Counter(each).items())) for each in kinds],
        }  # fmt: skip
    return found


def run(sdk: Any, provider: Any, made: dict[str, dict[str, Any]]) -> dict[str, Any]:
    client, runtime = sdk.Client(provider), runtime_on(sdk, provider)
    runtime.start()
    for name, each in made.items():
        client.start_orchestration(name, "program", {**each, "execution": 0, "results": []})
    driver, end = Driver(client, made), time.monotonic() + PATIENCE_S
    while not driver.step():
        if time.monotonic() > end:
            raise TimeoutError(f"still open: {[n for n in made if client.get_status(n).status == 'Running'][:5]}")
        time.sleep(0.005)
    outcomes = {name: outcome(client, name) for name in made}
    runtime.shutdown(100)
    return outcomes


def main(path: str) -> None:
    import os

    import duroxide

    print(json.dumps(run(duroxide, duroxide.SqliteProvider.open(path), json.load(sys.stdin))), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
