"""What runs in the simulation: small programs that together use every feature, with outcomes that hang on nobody's speed or death.

Owns the code of the programs and what the outside sends them. Every call of an activity gives a number that no other call gives,
so that a result that changed is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .hub import Hub

NEVER_MS = 3_600_000


@dataclass
class Ledger:
    """What the activities did, outside of all processes. `gave`: the numbers given to each (instance, execution, activity)."""

    hub: Hub
    gave: dict[tuple[str, int, int], list[int]] = field(default_factory=dict)
    tries: dict[str, list[int]] = field(default_factory=dict)
    count: int = 0

    def enter(self, ctx: Any) -> int:
        self.hub.task()  # a dead process writes nothing
        self.count += 1
        self.gave.setdefault((ctx.instance_id, ctx.execution_id, ctx._activity_id), []).append(self.count)
        return self.count

    def step(self, ctx: Any, value: Any) -> Any:
        number = self.enter(ctx)
        self.hub.sleep(self.hub.lots.choice((0.0, 0.001, 0.02, 0.2)))
        return {"value": value, "number": number}

    def flaky(self, ctx: Any, value: Any) -> Any:
        """Fails for the first two that are asked for, however often each is called."""
        number = self.enter(ctx)
        tries = self.tries.setdefault(ctx.instance_id, [])
        if ctx._activity_id not in tries:
            tries.append(ctx._activity_id)
        self.hub.sleep(0.001)
        if tries.index(ctx._activity_id) < 2:
            raise ValueError("not yet")
        return {"value": value, "number": number}

    def fails(self, ctx: Any, value: Any) -> Any:
        self.enter(ctx)
        raise ValueError(f"no {value}")

    def hangs(self, ctx: Any, value: Any) -> Any:
        """Until nobody wants it any more."""
        number = self.enter(ctx)
        while not ctx.is_cancelled():
            self.hub.sleep(0.05)
        return {"value": value, "number": number}


def chain(ctx: Any, length: int) -> Any:
    """Each activity is given the number of the one before: a result that changed would not fit its history."""
    last, values = None, []
    for n in range(length):
        found = yield ctx.schedule_activity("step", [n, last])
        last = found["number"]
        values.append(found["value"][0])
    return values


def fan(ctx: Any, width: int) -> Any:
    policy = {"max_attempts": 9, "backoff": {"type": "fixed", "initial_ms": 5}}
    retried = ctx.schedule_activity_with_retry("flaky", "at last", policy)
    found = yield ctx.all_typed([*(ctx.schedule_activity("step", n) for n in range(width)), retried])
    again = yield ctx.schedule_activity("step", [each["number"] for each in found])
    return [each["value"] for each in found] + [len(again["value"])]


def race(ctx: Any, _: Any) -> Any:
    won = yield ctx.race(ctx.schedule_activity("step", "won"), ctx.wait_for_event("never"), ctx.schedule_timer(NEVER_MS))
    return [won["index"], won["value"]["value"]]


def loser(ctx: Any, _: Any) -> Any:
    won = yield ctx.race(ctx.schedule_activity("hangs", "lost"), ctx.dequeue_event("never"), ctx.schedule_timer(10))
    yield ctx.schedule_activity("step", "after")
    return won["index"]


def clock(ctx: Any, _: Any) -> Any:
    guid = yield ctx.new_guid()
    now = yield ctx.utc_now()
    yield ctx.schedule_timer(15)
    seen = yield ctx.schedule_activity("step", [guid, now])
    return seen["value"] == [guid, now]


def timers(ctx: Any, _: Any) -> Any:
    yield ctx.all([ctx.schedule_timer(ms) for ms in (0, 1, 30)])
    yield ctx.schedule_timer(5)
    return "fired"


def event(ctx: Any, _: Any) -> Any:
    ctx.set_custom_status("waiting")
    first = yield ctx.wait_for_event("go")
    seen = yield ctx.schedule_activity("step", first)
    ctx.set_custom_status("went")
    return seen["value"]


def queue(ctx: Any, seen: list[int]) -> Any:
    """A message an execution, and one more that the next one must be given."""
    seen = [*seen, (yield ctx.dequeue_event("inbox"))]
    yield ctx.schedule_activity("step", seen[-1])
    if len(seen) < MESSAGES:
        yield ctx.continue_as_new(seen)
    return seen


def drain(ctx: Any, _: Any) -> Any:
    seen = []
    while len(seen) < MESSAGES:
        seen.append((yield ctx.dequeue_event("inbox")))
        if len(seen) % 2:
            yield ctx.schedule_activity("step", seen[-1])
    return seen


MESSAGES = 5


def parent(ctx: Any, _: Any) -> Any:
    first = ctx.schedule_sub_orchestration("kid", "first")
    second = ctx.schedule_sub_orchestration_with_id("kid", f"{ctx.instance_id}/second", "second")
    found = yield ctx.all_typed([first, second])
    try:
        yield ctx.schedule_sub_orchestration("failing", "child")
    except Exception as error:
        return [*found, str(error).strip().splitlines()[-1]]


def kid(ctx: Any, name: str) -> Any:
    yield ctx.schedule_timer(3)
    found = yield ctx.schedule_activity("step", name)
    return found["value"]


def failing(ctx: Any, value: Any) -> Any:
    yield ctx.schedule_activity("fails", value)


def detach(ctx: Any, _: Any) -> Any:
    yield ctx.start_orchestration("kid", f"{ctx.instance_id}/detached", "detached")
    return "started"


def values(ctx: Any, execution: int) -> Any:
    if execution == 0:
        ctx.set_kv_value("a", "one")
        ctx.set_kv_value("gone", "x")
        yield ctx.schedule_activity("step", "between")
        ctx.set_kv_value("b", "two")
        ctx.clear_kv_value("gone")
        ctx.set_custom_status("first")
        yield ctx.continue_as_new(1)
    yield ctx.schedule_activity("step", "after")
    ctx.set_kv_value("c", "three")
    return [ctx.get_kv_value(key) for key in ("a", "b", "gone")]


def session(ctx: Any, _: Any) -> Any:
    found = []
    for n in range(3):
        found.append((yield ctx.schedule_activity_on_session("step", n, f"s-{ctx.instance_id}"))["value"])
    return found


def tag(ctx: Any, _: Any) -> Any:
    return (yield ctx.schedule_activity("step", "tagged").with_tag("gpu"))["value"]


def cancelled(ctx: Any, _: Any) -> Any:
    hanging = ctx.schedule_activity("hangs", 1)
    waiting = ctx.schedule_sub_orchestration_with_id("waiting", f"{ctx.instance_id}/waiting", None)
    yield ctx.all([hanging, waiting, ctx.schedule_timer(NEVER_MS)])


def waiting(ctx: Any, _: Any) -> Any:
    yield ctx.wait_for_event("never")


def version_of(number: str) -> Callable[..., Any]:
    def versions(ctx: Any, value: Any) -> Any:
        found = yield ctx.schedule_activity("step", value)
        return [number, found["value"]]

    return versions


ORCHESTRATIONS = (
    chain, fan, race, loser, clock, timers, event, queue, drain, parent, kid, failing, detach, values, session, tag, cancelled, waiting,
)  # fmt: skip
# name of a program -> (orchestration, input, version)
STARTS: dict[str, tuple[str, Any, str | None]] = {
    "chain": ("chain", 4, None), "fan": ("fan", 4, None), "race": ("race", None, None), "loser": ("loser", None, None),
    "clock": ("clock", None, None), "timers": ("timers", None, None), "event": ("event", None, None), "queue": ("queue", [], None),
    "drain": ("drain", None, None), "parent": ("parent", None, None), "failing": ("failing", "way", None), "detach": ("detach", None, None),
    "values": ("values", 0, None), "session": ("session", None, None), "tag": ("tag", None, None), "cancelled": ("cancelled", None, None),
    "old": ("versions", 7, "1.0.0"), "new": ("versions", 7, None),
}  # fmt: skip
# name of a program -> further instances that it brings into being, by the end of their ids
FAMILY: dict[str, tuple[str, ...]] = {
    "parent": ("::sub::2", "/second", "::sub::6"), "detach": ("/detached",), "cancelled": ("/waiting",),
}  # fmt: skip
# What a program is sent: (kind of event that must be in its history first, or "" for at once; verb; argument), in order.
MAIL: dict[str, list[tuple[str, str, Any]]] = {
    "event": [("ExternalSubscribed", "raise", {"from": "outside"})],
    "queue": [("", "enqueue", n) for n in range(MESSAGES)],
    "drain": [("", "enqueue", n) for n in range(MESSAGES)],
    "cancelled": [("SubOrchestrationScheduled", "cancel", "not needed")],
}  # fmt: skip


def register(runtime: Any, ledger: Ledger) -> None:
    """`runtime`: whatever has `register_activity` and the like."""
    for activity in (ledger.step, ledger.flaky, ledger.fails, ledger.hangs):
        runtime.register_activity(activity.__name__, activity)
    for function in ORCHESTRATIONS:
        runtime.register_orchestration(function.__name__, function)
    for number in ("1.0.0", "2.0.0"):
        runtime.register_orchestration_versioned("versions", number, version_of(number))
