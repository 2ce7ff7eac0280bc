"""Every call that takes a function in place of its name: `test_types.py` has both type checkers check the types, and runs it."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, TypedDict

from duroxide import ActivityContext, ActivityError, Client, OrchestrationContext, Runtime, ScheduledTask, SqliteProvider, TypedTask

if TYPE_CHECKING:
    from typing_extensions import assert_type
else:

    def assert_type(value: Any, kind: Any) -> Any:
        return value


class Order(TypedDict):
    id: int
    items: list[str]


provider = SqliteProvider.open(":memory:")
runtime = Runtime(provider)


@runtime.register_activity("charge-a-card")
def charge(ctx: ActivityContext, order: Order) -> str:
    return f"paid {order['id']}"


@runtime.register_activity_typed("count")
def count(ctx: ActivityContext, text: str) -> int:
    return len(text)


@runtime.register_activity("now")
def rate(ctx: ActivityContext, nothing: None) -> float:
    return 1.5


class Shop:
    def close(self, ctx: ActivityContext, day: int) -> bool:
        return day > 5


shop = Shop()
runtime.register_activity("close", shop.close)


@runtime.register_orchestration("child")
def child(ctx: OrchestrationContext, number: int) -> Generator[Any, Any, list[int]]:
    yield ctx.schedule_timer(1)
    return [number] * number


@runtime.register_orchestration_versioned("lonely", "1.0.0")
def lonely(ctx: OrchestrationContext, nothing: None) -> Generator[Any, Any, str]:
    return (yield ctx.utc_now()) and "alone"


@runtime.register_orchestration_typed("parent")
def parent(ctx: OrchestrationContext, order: Order) -> Generator[Any, Any, dict[str, Any]]:
    paid = yield from ctx.schedule_activity_typed(charge, order).with_tag(None).result()
    assert_type(paid, str)
    counted = yield from ctx.schedule_activity_typed(count, "1234567").result()  # a value: by name it would be JSON text
    assert_type(counted, int)
    rated = yield from ctx.schedule_activity_typed(rate).result()
    assert_type(rated, float)
    closed = yield from ctx.schedule_activity_on_session_typed(shop.close, 6, "desk").result()
    assert_type(closed, bool)
    again = yield from ctx.schedule_activity_with_retry_typed(count, "12").result()
    assert_type(again, int)
    there = yield from ctx.schedule_activity_with_retry_on_session_typed(count, "123", {"max_attempts": 2}, "desk").result()
    assert_type(there, int)
    tripled = yield from ctx.schedule_sub_orchestration_typed(child, 3).result()
    assert_type(tripled, list[int])
    doubled = yield from ctx.schedule_sub_orchestration_with_id_typed(child, f"{ctx.instance_id}/two", 2).result()
    assert_type(doubled, list[int])
    alone = yield from ctx.schedule_sub_orchestration_typed(lonely).result()
    assert_type(alone, str)
    counts = yield from ctx.all_typed([ctx.schedule_activity_typed(count, item) for item in order["items"]]).result()
    assert_type(counts, list[int | dict[str, str]])
    named = yield from ctx.schedule_activity_typed("count", '"by name"', int).result()
    assert_type(named, int)
    also = yield from ctx.schedule_activity_typed("now", result_type=float).result()
    assert_type(also, float)
    try:
        unknown = yield from ctx.schedule_activity_typed("count", "123").result()  # JSON text: the number 123, which has no length
        assert_type(unknown, Any)
    except ActivityError as error:
        return {"all": [paid, counted, rated, closed, again, there, tripled, doubled, alone, counts, named, also], "error": error.error_type}
    return {}


@runtime.register_orchestration("starter")
def starter(ctx: OrchestrationContext, nothing: None) -> Generator[Any, Any, None]:
    yield ctx.start_orchestration_typed(child, "detached-1", 1)
    yield ctx.start_orchestration_versioned_typed(lonely, "1.0.0", "detached-2", None)


def direct(ctx: ActivityContext) -> str:
    """Decorators keep what they decorate."""
    return charge(ctx, Order(id=1, items=[]))


plain: ScheduledTask = ScheduledTask(type="activity")  # the class alone stays a type, as before it had a parameter
wide: TypedTask[object] = ScheduledTask[str](type="activity")


def main() -> None:
    runtime.start()
    client = Client(provider)
    client.start_orchestration("p", "parent", Order(id=7, items=["lamp", "desks"]))
    client.start_orchestration("s", "starter")
    result = client.wait_for_orchestration("p", 20_000)
    print(result.status, result.output, result.error)
    print(client.wait_for_orchestration("s", 20_000).status, *(client.wait_for_orchestration_typed(f"detached-{n}") for n in (1, 2)))
    runtime.shutdown()
    provider.close()


if __name__ == "__main__":
    main()
