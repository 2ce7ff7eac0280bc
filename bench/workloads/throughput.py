"""How much per second: drains, starts, batches of messages, wide joins, long chains, a conversation."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

from program import WAIT_MS, Bench, Figures


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def drain(bench: Bench, size: int) -> Figures:
    """Instances of one activity each, all queued before the runtime starts: instances per second."""
    names = bench.enqueue("one", size, 1)
    bench.runtime.start()
    return {"drain": size / timed(lambda: [bench.finish(name) for name in names])}


def drain_ten(bench: Bench, size: int) -> Figures:
    """The same with ten activities in sequence each: steps per second."""
    names = bench.enqueue("chain", size, 10)
    bench.runtime.start()
    return {"drain_ten": size * 10 / timed(lambda: [bench.finish(name) for name in names])}


def chain(bench: Bench, size: int) -> Figures:
    """One instance, `size` activities one after the other: ms per step over all, and along the chain.

    Another chain goes first: a log that still grows and cold code make first steps dearer, which is not the question.
    """
    bench.runtime.start()
    for instance, length in (("warm", min(200, max(size // 2, 2))), ("i", size)):
        bench.marks.clear()
        bench.client.start_orchestration(instance, "chain", length)
        bench.finish(instance)
    marks = bench.marks
    part = max(1, min(500, size // 10))

    def each(first: int, last: int) -> float:
        return (marks[last] - marks[first]) / (last - first) * 1e3

    along = [[at, each(at, min(at + part, size - 1))] for at in range(0, size - 1, part)]
    return {"step": each(0, size - 1), "first": along[0][1], "last": along[-1][1], "along": along}


def all_of(bench: Bench, size: int) -> Figures:
    """`all()` over `size` activities: ms from start to result, and us a member."""
    bench.runtime.start()
    bench.client.start_orchestration("warm", "fan", 3)
    bench.finish("warm")

    def run() -> None:
        bench.client.start_orchestration("i", "fan", size)
        bench.finish("i")

    took = timed(run)
    return {"all": took * 1e3, "member": took / size * 1e6}


def batches(bench: Bench, size: int) -> Figures:
    """`size` queue messages in batches of fifty, each taken whole before the next is sent: messages per second."""
    bench.runtime.start()
    bench.client.start_orchestration("i", "inbox", {"done": 0, "all": size})
    bench.until_running("i")

    def send() -> None:
        for first in range(0, size, 50):
            for n in range(first, min(first + 50, size)):
                bench.client.enqueue_event("i", "inbox", n)
            answered(bench, min(first + 50, size))
        bench.finish("i")

    return {"batches": size / timed(send)}


def answered(bench: Bench, count: int) -> None:
    """Wait until the status says that `count` messages were taken."""
    while True:
        seen = bench.client.get_status("i")
        if seen.custom_status and json.loads(seen.custom_status) >= count:
            return
        bench.client.wait_for_status_change("i", seen.custom_status_version, 10, WAIT_MS)


def chat(bench: Bench, size: int) -> Figures:
    """A message, an activity that answers, a status, continue-as-new; the next message when the answer is there: ms a round."""
    bench.runtime.start()
    bench.client.start_orchestration("i", "chat", {"done": 0, "all": size})
    bench.until_running("i")
    took = []
    for n in range(size):
        began = time.perf_counter()
        bench.client.enqueue_event("i", "inbox", n)
        answered(bench, n + 1)
        took.append((time.perf_counter() - began) * 1e3)
    bench.finish("i")
    return {"chat": statistics.median(took)}


def _starts(bench: Bench, size: int, threads: int) -> float:
    each = size // threads

    def start(thread: int) -> None:
        for n in range(each):
            bench.client.start_orchestration(f"i{thread}-{n}", "one", n)

    running = [threading.Thread(target=start, args=(thread,)) for thread in range(threads)]

    def run() -> None:
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()

    return each * threads / timed(run)


def starts_1(bench: Bench, size: int) -> Figures:
    """`start_orchestration`, each call returned before the next, nothing runs them: starts per second."""
    return {"starts": _starts(bench, size, 1)}


def starts_8(bench: Bench, size: int) -> Figures:
    return {"starts": _starts(bench, size, 8)}


def starts_32(bench: Bench, size: int) -> Figures:
    return {"starts": _starts(bench, size, 32)}


def starts_bulk(bench: Bench, size: int) -> Figures:
    """`start_orchestrations`, a thousand a call: starts per second."""
    return {"starts": size / timed(lambda: bench.enqueue("one", size, 1))}


def mixed(bench: Bench, size: int) -> Figures:
    """Instances of one activity for two seconds each: alone, then while one more worker runs an activity that is CPU-bound Python.

    `size` instances are always under way; instances per second, and the share of the pace that is left.
    """
    bench.runtime = bench.made(workers=3)
    bench.runtime.start()

    def pace(prefix: str, seconds: float) -> float:
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            names = [f"{prefix}{done + n}" for n in range(size)]
            for name in names:
                bench.client.start_orchestration(name, "one", 1)
            for name in names:
                bench.finish(name)
            done += size
        return done / (time.perf_counter() - began)

    pace("w", 0.3)
    alone = pace("a", 2.0)
    bench.client.start_orchestration("burning", "burning", 4.0)
    time.sleep(0.3)
    beside = pace("b", 2.5)
    return {"alone": alone, "beside": beside, "share": beside / alone * 100}


WORKLOADS = {f.__name__: f for f in (
    drain, drain_ten, chain, all_of, batches, chat, starts_1, starts_8, starts_32, starts_bulk, mixed,
)}  # fmt: skip
