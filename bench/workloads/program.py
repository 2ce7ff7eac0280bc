"""The programs that the workloads run, on the API that this package and the reference share. Knows neither of the two packages.

Owns `Bench`: a provider, a client and a runtime with two turn threads, two workers and a poll of 10 ms.
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import duroxide

WAIT_MS = 600_000
TAG = "later"
Figures = dict[str, Any]  # numbers, and lists of [x, y] for plots


def provider_of(target: str, **options: Any) -> Any:
    """`target`: a PostgreSQL URL, else the path of a SQLite file. `options`: what only this package knows, such as `synchronous`."""
    if target.startswith("postgres"):
        url, _, schema = target.partition("#")
        return duroxide.PostgresProvider.connect_with_schema(url, schema)
    return duroxide.SqliteProvider.open(target, **options)


def target_in(place: str) -> str:
    """A new database for this run: a file in the directory `place`, or a schema of the server at the URL `place`."""
    if place.startswith("postgres"):
        return f"{place}#bench_{uuid.uuid4().hex[:12]}"
    return str(Path(place) / "bench.db")


class Bench:
    def __init__(self, target: str, workers: int = 2, tags: list[str] | None = None, **options: Any) -> None:
        self.target, self.options = target, options
        self.provider = provider_of(target, **options)
        self.client = duroxide.Client(self.provider)
        self.marks: list[float] = []  # when each activity ran
        self.seen: dict[tuple[str, int], float] = {}  # when an orchestration first came to one of its steps
        self.runtime = self.made(workers, tags)

    def made(self, workers: int = 2, tags: list[str] | None = None) -> Any:
        """A runtime that is not yet started."""
        filters = {} if tags is None else {"worker_tag_filter": duroxide.TagFilter.default_and(tags)}
        options = duroxide.RuntimeOptions(
            orchestration_concurrency=2, worker_concurrency=workers, dispatcher_poll_interval_ms=10, **filters
        )
        runtime = duroxide.Runtime(self.provider, options)
        for name in ("echo", "burn", "later"):
            runtime.register_activity(name, getattr(self, name))
        for function in (one, two, chain, chain_then_wait, fan, sleepers, waiter, parent, leaf, inbox, chat, burning):
            runtime.register_orchestration(function.__name__, function)
        runtime.register_orchestration("naps", self.naps)
        return runtime

    def echo(self, ctx: Any, value: Any) -> Any:
        self.marks.append(time.perf_counter())
        return value

    def later(self, ctx: Any, value: Any) -> Any:
        self.marks.append(time.perf_counter())
        return value

    def burn(self, ctx: Any, seconds: float) -> int:
        """CPU-bound Python: never gives up the GIL by itself."""
        end, n = time.perf_counter() + seconds, 0
        while time.perf_counter() < end:
            for _ in range(1_000):
                n += 1
        return n

    def naps(self, ctx: Any, job: dict[str, int]) -> Any:
        """Timers one after the other; `seen` has when each was first asked for and when it was first over."""
        for n in range(job["count"]):
            self.seen.setdefault((job["name"], 2 * n), time.time())
            yield ctx.schedule_timer(job["ms"])
            self.seen.setdefault((job["name"], 2 * n + 1), time.time())

    def finish(self, instance: str) -> Any:
        result = self.client.wait_for_orchestration(instance, WAIT_MS)
        if result.status != "Completed":
            raise RuntimeError(f"{instance}: {result.status} {result.error}")
        return result.output

    def until_running(self, instance: str) -> None:
        while self.client.get_status(instance).status == "NotFound":
            time.sleep(0.001)

    def enqueue(self, name: str, size: int, value: Any = None, prefix: str = "i") -> list[str]:
        """`size` instances, queued: at once where the client has a call for it."""
        names = [f"{prefix}{n}" for n in range(size)]
        if hasattr(self.client, "start_orchestrations"):
            for first in range(0, size, 1_000):
                self.client.start_orchestrations([(instance, name, value) for instance in names[first : first + 1_000]])
        else:
            for instance in names:
                self.client.start_orchestration(instance, name, value)
        return names

    def close(self) -> None:
        self.runtime.shutdown(200)


def one(ctx: Any, value: Any) -> Any:
    return (yield ctx.schedule_activity("echo", value))


def two(ctx: Any, value: Any) -> Any:
    """One step here, the other for whoever takes the tag."""
    yield ctx.schedule_activity("echo", value)
    task = ctx.schedule_activity("later", value)
    return (yield task.with_tag(TAG))


def chain(ctx: Any, steps: int) -> Any:
    for step in range(steps):
        yield ctx.schedule_activity("echo", step)
    return steps


def chain_then_wait(ctx: Any, steps: int) -> Any:
    for step in range(steps):
        yield ctx.schedule_activity("echo", step)
    return (yield ctx.wait_for_event("go"))


def burning(ctx: Any, seconds: float) -> Any:
    return (yield ctx.schedule_activity("burn", seconds))


def fan(ctx: Any, width: int) -> Any:
    return len((yield ctx.all([ctx.schedule_activity("echo", n) for n in range(width)])))


def sleepers(ctx: Any, job: dict[str, int]) -> Any:
    """As many timers at once, none of which ends soon."""
    yield ctx.all([ctx.schedule_timer(job["ms"]) for _ in range(job["width"])])


def waiter(ctx: Any, rounds: int) -> Any:
    """Takes events one by one and says how many."""
    for done in range(rounds or 1):
        yield ctx.wait_for_event("go")
        ctx.set_custom_status(done + 1)


def parent(ctx: Any, value: Any) -> Any:
    return (yield ctx.schedule_sub_orchestration("leaf", value))


def leaf(ctx: Any, value: Any) -> Any:
    return value


def inbox(ctx: Any, job: dict[str, int]) -> Any:
    """Takes messages one by one and says how many, fifty an execution: the reference fails on a hundred drained in one."""
    for done in range(job["done"], min(job["done"] + 50, job["all"])):
        yield ctx.dequeue_event("inbox")
        ctx.set_custom_status(done + 1)
    if job["done"] + 50 < job["all"]:
        yield ctx.continue_as_new({"done": job["done"] + 50, "all": job["all"]})
    return "drained"


def chat(ctx: Any, job: dict[str, int]) -> Any:
    """A message, an activity that answers it, a status with the answer, and anew: an execution a message."""
    yield ctx.dequeue_event("inbox")
    yield ctx.schedule_activity("echo", "an answer")
    ctx.set_custom_status(job["done"] + 1)
    if job["done"] + 1 < job["all"]:
        yield ctx.continue_as_new({"done": job["done"] + 1, "all": job["all"]})
    return "over"


