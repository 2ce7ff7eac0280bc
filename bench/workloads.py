"""The workloads of `compare.py`, on the API that this package and the reference share; one workload a process.

usage: python workloads.py NAME SIZE DIRECTORY-or-postgresql-URL  -> one line of JSON with the figures. Knows neither of the two packages.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duroxide

WAIT_MS = 600_000
Figures = dict[str, float]


class Bench:
    """A runtime with two turn threads, two workers and a poll of 10 ms."""

    def __init__(self, provider: Any) -> None:
        self.provider = provider
        self.client = duroxide.Client(self.provider)
        self.marks: list[float] = []
        options = duroxide.RuntimeOptions(orchestration_concurrency=2, worker_concurrency=2, dispatcher_poll_interval_ms=10)
        self.runtime = duroxide.Runtime(self.provider, options)
        self.runtime.register_activity("echo", self.echo)
        for function in (one, chain, fan, inbox):
            self.runtime.register_orchestration(function.__name__, function)

    def echo(self, ctx: Any, value: Any) -> Any:
        self.marks.append(time.perf_counter())
        return value

    def finish(self, instance: str) -> Any:
        result = self.client.wait_for_orchestration(instance, WAIT_MS)
        if result.status != "Completed":
            raise RuntimeError(f"{instance}: {result.status} {result.error}")
        return result.output


def one(ctx: Any, value: Any) -> Any:
    return (yield ctx.schedule_activity("echo", value))


def chain(ctx: Any, steps: int) -> Any:
    for step in range(steps):
        yield ctx.schedule_activity("echo", step)
    return steps


def fan(ctx: Any, width: int) -> Any:
    return len((yield ctx.all([ctx.schedule_activity("echo", n) for n in range(width)])))


def inbox(ctx: Any, job: dict[str, int]) -> Any:
    """Takes messages one by one and says how many, fifty an execution: the reference fails on a hundred drained in one."""
    for done in range(job["done"], min(job["done"] + 50, job["all"])):
        yield ctx.dequeue_event("inbox")
        ctx.set_custom_status(done + 1)
    if job["done"] + 50 < job["all"]:
        yield ctx.continue_as_new({"done": job["done"] + 50, "all": job["all"]})
    return "drained"


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def drain(bench: Bench, size: int) -> Figures:
    """Instances of one activity each, all queued before the runtime starts: instances per second."""
    for n in range(size):
        bench.client.start_orchestration(f"i{n}", "one", n)
    bench.runtime.start()
    return {"drain": size / timed(lambda: [bench.finish(f"i{n}") for n in range(size)])}


def latency(bench: Bench, size: int) -> Figures:
    """From `start_orchestration` to the result of an instance with one activity, one at a time: ms."""
    bench.runtime.start()
    bench.client.start_orchestration("warm", "one", 0)
    bench.finish("warm")
    took = []
    for n in range(size):
        began = time.perf_counter()
        bench.client.start_orchestration(f"i{n}", "one", n)
        bench.finish(f"i{n}")
        took.append((time.perf_counter() - began) * 1e3)
        time.sleep(0.002)  # so that the next start does not ride on what the last one woke
    return {"latency_p50": statistics.median(took), "latency_p99": sorted(took)[int(len(took) * 0.99)]}


def steps(bench: Bench, size: int) -> Figures:
    """One instance, `size` activities one after the other: ms per step, over all and over the first and last hundred.

    Another chain goes first: a log that still grows and cold code make first steps dearer, which is not the question.
    """
    bench.runtime.start()
    for instance, length in (("warm", size // 2), ("i", size)):
        bench.marks.clear()
        bench.client.start_orchestration(instance, "chain", length)
        bench.finish(instance)
    marks = bench.marks
    part = max(1, min(100, size // 4))

    def each(first: int, last: int) -> float:
        return (marks[last] - marks[first]) / (last - first) * 1e3

    return {"step": each(0, size - 1), "step_first": each(0, part), "step_last": each(size - 1 - part, size - 1)}


def width(bench: Bench, size: int) -> Figures:
    """`all()` over `size` activities: ms from start to result."""
    bench.runtime.start()

    def run() -> None:
        bench.client.start_orchestration("i", "fan", size)
        bench.finish("i")

    return {"all": timed(run) * 1e3}


def messages(bench: Bench, size: int) -> Figures:
    """A queue message and the status that answers it, one at a time: ms from `enqueue_event` to the status."""
    bench.runtime.start()
    bench.client.start_orchestration("i", "inbox", {"done": 0, "all": size})
    while bench.client.get_status("i").status == "NotFound":
        time.sleep(0.001)
    seen, took = 0, []
    for n in range(size):
        began = time.perf_counter()
        bench.client.enqueue_event("i", "inbox", n)
        seen = bench.client.wait_for_status_change("i", seen, 10, WAIT_MS).custom_status_version
        took.append((time.perf_counter() - began) * 1e3)
    bench.finish("i")
    return {"message": statistics.median(took)}


def batches(bench: Bench, size: int) -> Figures:
    """`size` queue messages in batches of fifty, each taken whole before the next is sent: messages per second."""
    bench.runtime.start()
    bench.client.start_orchestration("i", "inbox", {"done": 0, "all": size})

    def send() -> None:
        for first in range(0, size, 50):
            for n in range(first, min(first + 50, size)):
                bench.client.enqueue_event("i", "inbox", n)
            status = None
            while status != min(first + 50, size):
                seen = bench.client.get_status("i")
                status = seen.custom_status and json.loads(seen.custom_status)
                if status != min(first + 50, size):
                    bench.client.wait_for_status_change("i", seen.custom_status_version, 10, WAIT_MS)
        bench.finish("i")

    return {"batches": size / timed(send)}


def idle(bench: Bench, size: int) -> Figures:
    """What a runtime without anything to do costs in `size` tenths of a second: ms of CPU per second."""
    bench.runtime.start()
    bench.client.start_orchestration("warm", "one", 0)
    bench.finish("warm")
    time.sleep(0.5)
    began, used = time.perf_counter(), time.process_time()
    time.sleep(size / 10)
    return {"idle": (time.process_time() - used) / (time.perf_counter() - began) * 1e3}


WORKLOADS = {function.__name__: function for function in (drain, latency, steps, width, messages, batches, idle)}


def main(name: str, size: str, directory: str) -> None:
    if directory.startswith("postgresql:"):  # that database, a schema of its own
        provider = duroxide.PostgresProvider.connect_with_schema(directory, f"bench_{name}_{os.getpid()}")
    else:
        provider = duroxide.SqliteProvider.open(str(Path(directory) / "bench.db"))
    bench = Bench(provider)
    figures = WORKLOADS[name](bench, int(size))
    bench.runtime.shutdown(200)
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
