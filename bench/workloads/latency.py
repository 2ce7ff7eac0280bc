"""How long one thing takes when nothing else is going on: p50 and p99, in ms."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from program import WAIT_MS, Bench, Figures

PAUSE_S = 0.002  # so that the next one does not ride on what the last one woke


def quantiles(took: list[float]) -> Figures:
    return {"p50": statistics.median(took), "p99": sorted(took)[min(int(len(took) * 0.99), len(took) - 1)]}


def repeated(size: int, once: Callable[[int], None]) -> Figures:
    took = []
    for n in range(size):
        began = time.perf_counter()
        once(n)
        took.append((time.perf_counter() - began) * 1e3)
        time.sleep(PAUSE_S)
    return quantiles(took)


def _instances(bench: Bench, name: str, size: int) -> Figures:
    """From `start_orchestration` to the result, one instance at a time."""
    bench.runtime.start()

    def once(n: int) -> None:
        bench.client.start_orchestration(f"i{n}", name, 1)
        bench.finish(f"i{n}")

    for n in range(3):
        once(-1 - n)
    return repeated(size, once)


def instance(bench: Bench, size: int) -> Figures:
    """An instance with one activity."""
    return _instances(bench, "one", size)


def child(bench: Bench, size: int) -> Figures:
    """An instance whose only step is a child orchestration, which has none."""
    return _instances(bench, "parent", size)


def event(bench: Bench, size: int) -> Figures:
    """From `raise_event` until the status says that it was seen."""
    bench.runtime.start()
    bench.client.start_orchestration("i", "waiter", size)
    bench.until_running("i")
    time.sleep(0.1)
    version = 0

    def once(n: int) -> None:
        nonlocal version
        bench.client.raise_event("i", "go", n)
        version = bench.client.wait_for_status_change("i", version, 10, WAIT_MS).custom_status_version

    return repeated(size, once)


def message(bench: Bench, size: int) -> Figures:
    """From `enqueue_event` until the status says that it was taken."""
    bench.runtime.start()
    bench.client.start_orchestration("i", "inbox", {"done": 0, "all": size})
    bench.until_running("i")
    version = 0

    def once(n: int) -> None:
        nonlocal version
        bench.client.enqueue_event("i", "inbox", n)
        version = bench.client.wait_for_status_change("i", version, 10, WAIT_MS).custom_status_version

    found = repeated(size, once)
    bench.finish("i")
    return found


def _payload(bench: Bench, size: int, length: int) -> Figures:
    bench.runtime.start()
    text = "x" * length

    def once(n: int) -> None:
        bench.client.start_orchestration(f"i{n}", "one", text)
        if bench.finish(f"i{n}") != text:
            raise RuntimeError("another text came back")

    once(-1)
    return repeated(size, once)


def payload_1k(bench: Bench, size: int) -> Figures:
    """A text through input, activity, result and output."""
    return _payload(bench, size, 1_000)


def payload_100k(bench: Bench, size: int) -> Figures:
    return _payload(bench, size, 100_000)


def payload_5m(bench: Bench, size: int) -> Figures:
    return _payload(bench, size, 5_000_000)


WORKLOADS = {f.__name__: f for f in (instance, child, event, message, payload_1k, payload_100k, payload_5m)}
