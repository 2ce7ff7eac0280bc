"""The mixed load of `soak.py`: stories that together use every feature, each with the one result it may have.

Owns orchestrations, activities and the client's part of each story. Refuses to know processes, samples and time limits.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import duroxide

WAIT_MS = 120_000
Story = Callable[[duroxide.Client, str, int], tuple[Any, Any]]  # (client, instance, n) -> (what came, what has to come)


# ── activities ──


def add(ctx: Any, pair: list[int]) -> int:
    return pair[0] + pair[1]


def flaky(ctx: Any, value: int) -> int:
    if random.random() < 0.3:
        raise ConnectionError("try again")
    return value


def refuse(ctx: Any, value: int) -> None:
    raise ValueError(f"no {value}")


def until_cancelled(ctx: Any, limit_s: float) -> str:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if ctx.is_cancelled():
            return "cancelled"
        time.sleep(0.01)
    return "waited in vain"


def blob(ctx: Any, size: int) -> str:
    return "x" * size


# ── orchestrations ──


def chain(ctx: Any, n: int) -> Any:
    total = 0
    for step in range(10):
        total = yield ctx.schedule_activity("add", [total, n + step])
    return total


def fan(ctx: Any, n: int) -> Any:
    return sum((yield ctx.all_typed([ctx.schedule_activity("add", [n, k]) for k in range(20)])))


def sleeper(ctx: Any, n: int) -> Any:
    began = yield ctx.utc_now()
    yield ctx.schedule_timer(50 + n % 50)
    ended = yield ctx.utc_now()
    return ended - began >= 50


def approval(ctx: Any, n: int) -> Any:
    ctx.set_custom_status("waiting")
    first = yield ctx.race(ctx.wait_for_event("approved"), ctx.schedule_timer(3_600_000))
    return [first["index"], n]


def mailbox(ctx: Any, n: int) -> Any:
    found = []
    for _ in range(5):
        found.append((yield ctx.dequeue_event("mail")))
    return found


def parent(ctx: Any, n: int) -> Any:
    children = [ctx.schedule_sub_orchestration("soak_fan", n + k) for k in range(3)]
    detached = yield ctx.new_guid()
    yield ctx.start_orchestration("soak_sleeper", f"{ctx.instance_id}-own-{detached}", n)
    return sum((yield ctx.all_typed(children)))


def rounds(ctx: Any, state: list[int]) -> Any:
    left, total = state
    if left == 0:
        return total
    total = yield ctx.schedule_activity("add", [total, left])
    yield ctx.continue_as_new([left - 1, total])


def stubborn(ctx: Any, n: int) -> Any:
    policy = {"max_attempts": 40, "backoff": {"type": "fixed", "initial_ms": 5}}
    return (yield ctx.schedule_activity_with_retry("flaky", n, policy))


def loser(ctx: Any, n: int) -> Any:
    first = yield ctx.race(ctx.schedule_activity("until_cancelled", 60), ctx.schedule_timer(30))
    return first["index"]


def forgiving(ctx: Any, n: int) -> Any:
    try:
        yield ctx.schedule_activity("refuse", n)
    except duroxide.ActivityError as error:
        return str(error)


def careless(ctx: Any, n: int) -> Any:
    yield ctx.schedule_activity("refuse", n)


def seated(ctx: Any, n: int) -> Any:
    first = yield ctx.schedule_activity("add", [n, 1], session_id=f"session-{n % 5}")
    return (yield ctx.schedule_activity("add", [first, 1], session_id=f"session-{n % 5}"))


def keeper(ctx: Any, n: int) -> Any:
    ctx.set_kv_value("n", n)
    yield ctx.schedule_timer(1)
    other = yield ctx.get_kv_value_from_instance(ctx.instance_id, "n")
    ctx.clear_kv_value("n")
    return [other, ctx.get_kv_length()]


def heavy(ctx: Any, n: int) -> Any:
    return len((yield ctx.schedule_activity("blob", 50_000 + n % 1_000)))


def forever(ctx: Any, turn: int) -> Any:
    """Lives as long as the soak does: fifty short sleeps and a message from outside now and then, an execution after the other."""
    for _ in range(50):
        yield ctx.race(ctx.schedule_timer(500), ctx.dequeue_event("nudge"))
        ctx.set_kv_value("turn", turn)
    yield ctx.continue_as_new(turn + 1)


ACTIVITIES = (add, flaky, refuse, until_cancelled, blob)
ORCHESTRATIONS = (
    chain, fan, sleeper, approval, mailbox, parent, rounds, stubborn, loser, forgiving, careless, seated, keeper, heavy, forever,
)  # fmt: skip


def register(runtime: duroxide.Runtime) -> None:
    for activity in ACTIVITIES:
        runtime.register_activity(activity.__name__, activity)
    for orchestration in ORCHESTRATIONS:
        runtime.register_orchestration(f"soak_{orchestration.__name__}", orchestration)


# ── what the client does in each story ──


def _told(name: str, expected: Callable[[int], Any], input: Callable[[int], Any] = lambda n: n) -> Story:
    def story(client: duroxide.Client, instance: str, n: int) -> tuple[Any, Any]:
        client.start_orchestration(instance, f"soak_{name}", input(n))
        return client.wait_for_orchestration(instance, WAIT_MS).output, expected(n)

    return story


def _approve(client: duroxide.Client, instance: str, n: int) -> tuple[Any, Any]:
    client.start_orchestration(instance, "soak_approval", n)
    client.wait_for_status_change(instance, 0, timeout_ms=WAIT_MS)
    client.raise_event(instance, "approved")
    return client.wait_for_orchestration(instance, WAIT_MS).output, [0, n]


def _post(client: duroxide.Client, instance: str, n: int) -> tuple[Any, Any]:
    client.start_orchestration(instance, "soak_mailbox", n)
    for k in range(5):
        client.enqueue_event(instance, "mail", n + k)
    return client.wait_for_orchestration(instance, WAIT_MS).output, [n + k for k in range(5)]


def _cancel(client: duroxide.Client, instance: str, n: int) -> tuple[Any, Any]:
    client.start_orchestration(instance, "soak_approval", n)
    client.cancel_instance(instance, "changed my mind")
    result = client.wait_for_orchestration(instance, WAIT_MS)
    return (result.status, "changed my mind" in (result.error or "")), ("Failed", True)


def _fail(client: duroxide.Client, instance: str, n: int) -> tuple[Any, Any]:
    client.start_orchestration(instance, "soak_careless", n)
    result = client.wait_for_orchestration(instance, WAIT_MS)
    return (result.status, f"no {n}" in (result.error or "")), ("Failed", True)


def _look(client: duroxide.Client, instance: str, n: int) -> tuple[Any, Any]:
    client.start_orchestration(instance, "soak_chain", n)
    client.wait_for_orchestration(instance, WAIT_MS)
    kinds = [event.kind for event in client.read_execution_history(instance, 1)]
    client.get_system_metrics(), client.get_queue_depths(), client.get_instance_tree(instance), client.get_orchestration_stats(instance)
    return kinds.count("ActivityCompleted"), 10


STORIES: dict[str, Story] = {
    "chain": _told("chain", lambda n: 10 * n + 45),
    "fan": _told("fan", lambda n: 20 * n + 190),
    "sleeper": _told("sleeper", lambda n: True),
    "approval": _approve,
    "mailbox": _post,
    "parent": _told("parent", lambda n: sum(20 * (n + k) + 190 for k in range(3))),
    "rounds": _told("rounds", lambda n: 15, lambda n: [5, 0]),
    "stubborn": _told("stubborn", lambda n: n),
    "loser": _told("loser", lambda n: 1),
    "forgiving": _told("forgiving", lambda n: f"Activity 'refuse' call failed: ValueError: no {n}"),
    "careless": _fail,
    "cancelled": _cancel,
    "seated": _told("seated", lambda n: n + 2),
    "keeper": _told("keeper", lambda n: [str(n), 0]),
    "heavy": _told("heavy", lambda n: 50_000 + n % 1_000),
    "look": _look,
}
