"""A program as users of type checkers write it; `test_types.py` checks it strictly and runs it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypedDict

import duroxide
from duroxide import (
    ActivityContext,
    Client,
    OrchestrationContext,
    OrchestrationResult,
    Runtime,
    RuntimeOptions,
    SqliteProvider,
    TagFilter,
)


class Order(TypedDict):
    id: int
    items: list[str]


provider: SqliteProvider = SqliteProvider.open(":memory:", synchronous="full")
runtime = Runtime(provider, RuntimeOptions(worker_concurrency=2, worker_tag_filter=TagFilter.default_and(["gpu"])))


@runtime.register_activity("charge")
def charge(ctx: ActivityContext, order: Order) -> str:
    if ctx.is_cancelled():
        return "too late"
    ctx.trace_info(f"charging {order['id']} for {ctx.instance_id}")
    return f"paid {order['id']}"


@runtime.register_activity("pack")
def pack(ctx: ActivityContext, item: str) -> str:
    return item.upper()


@runtime.register_orchestration("fulfil")
def fulfil(ctx: OrchestrationContext, order: Order) -> Generator[Any, Any, dict[str, Any]]:
    ctx.set_custom_status("charging")
    payment: str = yield ctx.schedule_activity_with_retry("charge", order, {"max_attempts": 3, "backoff": "fixed"})
    packed: list[str] = yield ctx.all_typed([ctx.schedule_activity("pack", item).with_tag("gpu") for item in order["items"]])
    first: dict[str, Any] = yield ctx.race(ctx.wait_for_event("approved"), ctx.schedule_timer(3_600_000))
    try:
        yield ctx.schedule_sub_orchestration("nobody", order["id"])
    except duroxide.SubOrchestrationError as error:
        ctx.set_kv_value("error", error.orchestration)
    return {"payment": payment, "packed": packed, "approved": first["index"] == 0}


@runtime.register_orchestration_versioned("nobody", "1.0.0")
def nobody(ctx: OrchestrationContext, number: int) -> None:
    raise ValueError(number)


def main() -> dict[str, Any]:
    runtime.start()
    client: Client = Client(provider)
    client.start_orchestrations([("order-7", "fulfil", Order(id=7, items=["lamp"]))])
    while not any(event.kind == "ExternalSubscribed" for event in client.read_execution_history("order-7", 1)):
        client.wait_for_status_change("order-7", 0)
    client.raise_event("order-7", "approved")
    result: OrchestrationResult = client.wait_for_orchestration("order-7", timeout_ms=20_000)
    status: str = result.status
    error: str | None = result.error
    key: str | None = client.get_kv_value("order-7", "error")
    metrics = runtime.metrics_snapshot()
    runtime.shutdown(timeout_ms=1_000)
    provider.close()
    return {"status": status, "error": error, "output": result.output, "key": key, "starts": metrics.orch_starts if metrics else 0}


if __name__ == "__main__":
    print(main())
