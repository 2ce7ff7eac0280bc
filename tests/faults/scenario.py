"""One program that uses every feature, with outcomes that do not hang on who died when.

Owns the code, what is started and what a client sends while it runs. `ledger` is a file to which each call of an activity appends
a line before it does anything.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

Registered = dict[str, Callable[..., Any]]

STARTS: list[tuple[Any, ...]] = [
    ("fan", "fan", 4), ("race", "race"), ("clock", "clock"), ("event", "event"), ("queue", "queue", []), ("parent", "parent"),
    ("detach", "detach"), ("kv", "kv", 0), ("session", "session"), ("tag", "tag"), ("cancelled", "cancelled"), ("old", "versions", 5, "1.0.0"),
    ("new", "versions", 5), ("fails", "fails"),
]  # fmt: skip

# instance -> (status, output or error's end); "detached" and the children come into being on the way.
EXPECTED: dict[str, tuple[str, Any]] = {
    "fan": ("Completed", [0, 1, 2, 3, "at last"]), "race": ("Completed", [0, "fast"]), "clock": ("Completed", [True, True]),
    "event": ("Completed", {"from": "outside"}), "queue": ("Completed", [0, 1, 2, 3]), "parent": ("Completed", ["kid 1", "kid 2", "caught"]),
    "detach": ("Completed", "started"), "detached": ("Completed", "leaf"), "kv": ("Completed", ["1", "one", "two"]),
    "session": ("Completed", [1, 2]), "tag": ("Completed", "tagged"), "cancelled": ("Failed", "canceled: not needed"),
    "old": ("Completed", ["1.0.0", 5]), "new": ("Completed", ["2.0.0", 5]), "fails": ("Failed", "ValueError: always"),
    "kid-2": ("Completed", "kid 2"),
}  # fmt: skip


class Activities:
    def __init__(self, ledger: str) -> None:
        self.ledger = os.open(ledger, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def note(self, ctx: Any, value: Any) -> None:
        entry = [ctx.instance_id, ctx.execution_id, ctx.activity_name, value]
        os.write(self.ledger, (json.dumps(entry) + "\n").encode())

    def echo(self, ctx: Any, value: Any) -> Any:
        self.note(ctx, value)
        return value

    def always_fails(self, ctx: Any, value: Any) -> Any:
        self.note(ctx, value)
        raise ValueError("always")

    def flaky(self, ctx: Any, value: Any) -> Any:
        """Fails on its first two calls, whatever process makes them."""
        self.note(ctx, value)
        path = f"/proc/self/fd/{self.ledger}"
        with open(path, encoding="utf-8") as ledger:
            if sum('"flaky"' in line for line in ledger) < 3:
                raise ValueError("not yet")
        return value


def registered(ledger: str) -> Registered:
    activities = Activities(ledger)
    return {"echo": activities.echo, "always_fails": activities.always_fails, "flaky": activities.flaky}


def fan(ctx: Any, width: int) -> Any:
    tasks = [ctx.schedule_activity("echo", n) for n in range(width)]
    policy = {"max_attempts": 9, "backoff": {"type": "fixed", "initial_ms": 5}}
    return (yield ctx.all_typed([*tasks, ctx.schedule_activity_with_retry("flaky", "at last", policy)]))


def race(ctx: Any, _: Any) -> Any:
    won = yield ctx.race(ctx.schedule_activity("echo", "fast"), ctx.wait_for_event("never"), ctx.schedule_timer(3_600_000))
    yield ctx.schedule_timer(5)
    return [won["index"], won["value"]]


def clock(ctx: Any, _: Any) -> Any:
    guid = yield ctx.new_guid()
    now = yield ctx.utc_now()
    yield ctx.schedule_timer(10)
    seen = yield ctx.schedule_activity("echo", [guid, now])
    return [seen[0] == guid, seen[1] == now]


def event(ctx: Any, _: Any) -> Any:
    ctx.set_custom_status("waiting")
    return (yield ctx.wait_for_event("go"))


def queue(ctx: Any, seen: list[int]) -> Any:
    seen = [*seen, (yield ctx.dequeue_event("inbox"))]
    yield ctx.schedule_activity("echo", seen[-1])
    if len(seen) < 4:
        yield ctx.continue_as_new(seen)
    return seen


def parent(ctx: Any, _: Any) -> Any:
    first = ctx.schedule_sub_orchestration("kid", "kid 1")
    second = ctx.schedule_sub_orchestration_with_id("kid", "kid-2", "kid 2")
    found = yield ctx.all_typed([first, second])
    try:
        yield ctx.schedule_sub_orchestration("fails", None)
    except Exception:
        return [*found, "caught"]


def kid(ctx: Any, name: str) -> Any:
    yield ctx.schedule_timer(3)
    return (yield ctx.schedule_activity("echo", name))


def fails(ctx: Any, _: Any) -> Any:
    yield ctx.schedule_activity("always_fails", ctx.instance_id)


def detach(ctx: Any, _: Any) -> Any:
    yield ctx.start_orchestration("leaf", "detached", "leaf")
    return "started"


def leaf(ctx: Any, name: str) -> Any:
    return (yield ctx.schedule_activity("echo", name))


def kv(ctx: Any, turn: int) -> Any:
    if turn == 0:
        ctx.set_kv_value("a", "one")
        ctx.set_kv_value("gone", "x")
        yield ctx.schedule_activity("echo", "between")
        ctx.set_kv_value("b", "two")
        ctx.clear_kv_value("gone")
        ctx.set_custom_status("first")
        yield ctx.continue_as_new(1)
    yield ctx.schedule_activity("echo", "after")
    return [str(turn), ctx.get_kv_value("a"), ctx.get_kv_value("b")] + ([] if ctx.get_kv_value("gone") is None else ["gone"])


def session(ctx: Any, _: Any) -> Any:
    first = yield ctx.schedule_activity_on_session("echo", 1, "s")
    second = yield ctx.schedule_activity_on_session("echo", 2, "s")
    return [first, second]


def tag(ctx: Any, _: Any) -> Any:
    return (yield ctx.schedule_activity("echo", "tagged").with_tag("gpu"))


def cancelled(ctx: Any, _: Any) -> Any:
    yield ctx.race(ctx.wait_for_event("never"), ctx.schedule_timer(3_600_000))


def version(number: str) -> Callable[..., Any]:
    def versions(ctx: Any, value: Any) -> Any:
        return [number, (yield ctx.schedule_activity("echo", value))]

    return versions


def register(runtime: Any, ledger: str) -> None:
    for name, activity in registered(ledger).items():
        runtime.register_activity(name, activity)
    for function in (fan, race, clock, event, queue, parent, kid, fails, detach, leaf, kv, session, tag, cancelled):
        runtime.register_orchestration(function.__name__, function)
    for number in ("1.0.0", "2.0.0"):
        runtime.register_orchestration_versioned("versions", number, version(number))
