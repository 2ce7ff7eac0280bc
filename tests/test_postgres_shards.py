"""One schema is one store: several on a server are shards that know nothing of each other (docs/scaling.md)."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

import duroxide
from duroxide.storage.postgres import PostgresNative, open_postgres
from postgres_server import Server

SHARDS, CUSTOMERS = 4, 24
WORKERS = ((0, 1), (1, 2, 3))  # which shards each process works for: one of them two processes share


def place(key: str) -> int:
    return zlib.crc32(key.encode()) % SHARDS


def order(ctx: Any, customer: str) -> Any:
    """A step, a child, a word to the audit: all in the shard of the one that begins them."""
    shard = yield ctx.schedule_activity("where", customer)
    child = yield ctx.schedule_sub_orchestration("parcel", customer)
    yield ctx.start_orchestration("parcel", f"{customer}/audit", customer)
    return [shard, child]


def parcel(ctx: Any, customer: str) -> Any:
    return (yield ctx.schedule_activity("where", customer))


@pytest.fixture
def shards(postgres: Server) -> Iterator[list[str]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(postgres.schema()) for _ in range(SHARDS)]


def test_shards_work_side_by_side_and_hear_nothing_of_each_other(postgres: Server, shards: list[str]) -> None:
    with contextlib.ExitStack() as stack:
        heard: list[set[str]] = [set() for _ in shards]

        def opened(shard: int) -> PostgresNative:
            native = open_postgres(postgres.url, shards[shard], max_connections=3)
            stack.callback(native.close)
            return native

        def work(shard: int) -> None:
            runtime = duroxide.Runtime(duroxide.PostgresProvider(opened(shard)), duroxide.RuntimeOptions(dispatcher_poll_interval_ms=10))
            runtime.register_activity("where", lambda ctx, customer: shard)
            runtime.register_orchestration("order", order)
            runtime.register_orchestration("parcel", parcel)
            runtime.start()
            stack.callback(runtime.shutdown, 0)

        natives = [opened(shard) for shard in range(SHARDS)]
        for shard, native in enumerate(natives):
            assert native.subscribe(lambda ready, instances, shard=shard: heard[shard].update(instances or []))  # type: ignore[misc]
        for process in WORKERS:
            for shard in process:
                work(shard)
        clients = [duroxide.Client(native) for native in natives]
        customers = [f"customer-{n}" for n in range(CUSTOMERS)]
        for customer in customers:
            clients[place(customer)].start_orchestration(customer, "order", customer)
        for customer in customers:
            shard = place(customer)
            assert clients[shard].wait_for_orchestration(customer, 30_000).output == [shard, shard]
            assert clients[shard].wait_for_orchestration(f"{customer}/audit", 30_000).output == shard
        for shard, client in enumerate(clients):
            mine = {customer for customer in customers if place(customer) == shard}
            there = set(client.list_all_instances())
            assert mine and len(there) == 3 * len(mine) and {name.partition("/")[0].partition("::")[0] for name in there} == mine
            assert heard[shard] and heard[shard] <= there
        assert sum(client.get_system_metrics().total_instances for client in clients) == 3 * CUSTOMERS
