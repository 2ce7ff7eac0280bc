"""The parts, each on every implementation: `python -m pytest bench`. Read ratios within one run, not figures of two.

A bench of a store measures one verb; what it needs is set up outside the measured time.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import duroxide
from bench.parts import Cold, Live
from duroxide.engine._codec import dumps, loads
from duroxide.storage._queue import Queue
from duroxide.storage.base import Appetite, Done, Request
from duroxide.storage.memory import MemoryStore
from duroxide.storage.sqlite import open_sqlite
from duroxide.testing import World
from duroxide.testing.world import work

STORES: dict[str, Callable[[Path], Any]] = {
    "memory": lambda directory: MemoryStore(),
    "c": lambda directory: open_sqlite(str(directory / "c.db"), implementation="c"),
    "python": lambda directory: open_sqlite(str(directory / "p.db"), implementation="python"),
}


@pytest.fixture(params=STORES)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    store = STORES[request.param](tmp_path)
    yield World(store)
    store.close()


# ── codec ────────────────────────────────────────────────────────────────────────────────────────────────────────

VALUES = {"int": 12345, "text": "a text of usual length, é", "dict": {"id": 17, "items": ["a", "b"], "ok": True, "price": 1.5}}


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("codec", ["ours", "json"])
def test_dumps(benchmark: Any, codec: str, value: str) -> None:
    benchmark(dumps if codec == "ours" else json.dumps, VALUES[value])


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("codec", ["ours", "json"])
def test_loads(benchmark: Any, codec: str, value: str) -> None:
    benchmark(loads if codec == "ours" else json.loads, json.dumps(VALUES[value]))


# ── engine ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_turn_of_a_live_execution(benchmark: Any) -> None:
    """A result in, the next activity out: what one step of a chain costs the engine."""
    benchmark(Live().step)


@pytest.mark.parametrize("steps", [50, 500, 5_000])
def test_replay_per_event(benchmark: Any, steps: int) -> None:
    """A cold turn: history decoded and replayed, 2 events a step."""
    cold = Cold(steps)
    benchmark(cold.replay)
    benchmark.extra_info["events"] = len(cold.events)
    if benchmark.stats is not None:
        benchmark.extra_info["us per event"] = benchmark.stats.stats.median / len(cold.events) * 1e6


@pytest.mark.parametrize("width", [100, 1_000])
def test_matching(benchmark: Any, width: int) -> None:
    """One `all` of as many activities against its stored events, no result among them: decoding and matching alone."""
    cold = Cold(0, width)
    benchmark(cold.replay)
    if benchmark.stats is not None:
        benchmark.extra_info["us per event"] = benchmark.stats.stats.median / len(cold.events) * 1e6


# ── stores ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [1, 4, 16, 48, 128, 256])
def test_exchange_of_finished_turns(benchmark: Any, world: World, size: int) -> None:
    """Each turn consumes a message, appends two events and schedules an activity; `size` of them are one transaction."""
    numbers = itertools.count()

    def started() -> tuple[tuple[Any, ...], dict[str, Any]]:
        names = [f"i{next(numbers)}" for _ in range(size)]
        world.start(*names)
        claims = world.claim("bench", turns=size)
        return ([world.turn(claim, events=2, work=[work(claim.instance)], status="Completed") for claim in claims],), {}

    benchmark.pedantic(lambda turns: world.commit(*turns), setup=started, rounds=max(10, 240 // size))
    if benchmark.stats is not None:
        benchmark.extra_info["us per turn"] = benchmark.stats.stats.median / size * 1e6


@pytest.mark.parametrize("depth", [100, 10_000])
def test_claim_from_a_deep_queue(benchmark: Any, world: World, depth: int) -> None:
    """What waits behind must not cost."""
    if depth > 1_000 and world.store.name == "memory":
        pytest.skip("the model looks at every row by design")
    for n in range(0, depth, 500):
        world.start(*(f"i{k}" for k in range(n, min(n + 500, depth))))
    benchmark.pedantic(lambda: world.claim("bench", turns=1), rounds=50)


@pytest.mark.parametrize("events", [10, 1_000])
def test_load(benchmark: Any, world: World, events: int) -> None:
    world.born("i", events=events)
    benchmark(world.store.load, "i")


@pytest.mark.parametrize("threads", [1, 8, 32])
def test_client_calls_from_threads(benchmark: Any, tmp_path: Path, threads: int) -> None:
    """400 starts, each durable before it returns; those that meet ride in one commit."""
    store = open_sqlite(str(tmp_path / "starts.db"))
    queue, numbers = Queue.of(store), itertools.count()

    def start() -> None:
        for _ in range(400 // threads):
            done = Done()
            name = f"i{next(numbers)}"
            done.messages = [(name, f'{{"StartOrchestration":{{"instance":"{name}"}}}}', 0)]
            queue.submit(Request(1_000, done))

    def run() -> None:
        each = [threading.Thread(target=start) for _ in range(threads)]
        for thread in each:
            thread.start()
        for thread in each:
            thread.join()

    benchmark.pedantic(run, rounds=5)
    store.close()


@pytest.mark.parametrize("owners", [1, 50])
def test_an_empty_look(benchmark: Any, world: World, owners: int) -> None:
    """What an idle runtime's look costs."""
    requests = [Request(world.now, None, Appetite(f"o{n}", turns=48, work=10)) for n in range(owners)]
    benchmark(world.store.exchange, requests)


# ── the whole ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", STORES)
def test_one_instance_from_start_to_result(benchmark: Any, tmp_path: Path, kind: str) -> None:
    provider = duroxide.SqliteProvider(STORES[kind](tmp_path))
    runtime = duroxide.Runtime(provider)
    runtime.register_activity("echo", lambda ctx, value: value)

    def one(ctx: Any, value: Any) -> Any:
        return (yield ctx.schedule_activity("echo", value))

    runtime.register_orchestration("one", one)
    runtime.start()
    client, numbers = duroxide.Client(provider), itertools.count()

    def run() -> None:
        name = f"i{next(numbers)}"
        client.start_orchestration(name, "one", 1)
        client.wait_for_orchestration(name)

    benchmark.pedantic(run, rounds=100, warmup_rounds=5)
    runtime.shutdown(0)
