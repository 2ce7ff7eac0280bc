"""One program that uses every feature, with outcomes that do not hang on who died when.

Owns the code, what is started and what the outside world does while it runs. `ledger` is a file to which each call of an activity
appends a line before it does anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duroxide

Registered = dict[str, Callable[..., Any]]
HOUR_MS = 3_600_000

STARTS: list[tuple[Any, ...]] = [
    ("fan", "fan", 4), ("race", "race"), ("nested", "nested"), ("clock", "clock"), ("event", "event"), ("queue", "queue", []),
    ("parent", "parent"), ("detach", "detach"), ("kv", "kv", 0), ("reader", "reader"), ("session", "session"), ("tag", "tag"),
    ("cancelled", "cancelled"), ("tree", "tree"), ("old", "versions", 5, "1.0.0"), ("new", "versions", 5), ("fails", "fails"),
    ("status", "status"), ("caller", "caller"), ("pruned", "pruned", 0), ("doomed", "leaf", "doomed"),
]  # fmt: skip

# instance -> (status, output or error's end); "detached" and the children come into being on the way, "doomed" is deleted.
EXPECTED: dict[str, tuple[str, Any]] = {
    "fan": ("Completed", [0, 1, 2, 3, "at last"]), "race": ("Completed", [0, "fast"]), "clock": ("Completed", [True, True]),
    "nested": ("Completed", [[0, 1], "three", "four"]),
    "event": ("Completed", {"from": "outside"}), "queue": ("Completed", [0, 1, 2, 3]), "parent": ("Completed", ["kid 1", "kid 2", "caught"]),
    "detach": ("Completed", "started"), "detached": ("Completed", "leaf"), "detached-old": ("Completed", ["1.0.0", 7]),
    "kv": ("Completed", ["1", "one", "two", ["a", "b"], 2]), "reader": ("Completed", ["kept", None, ["1.0.0", 8]]),
    "session": ("Completed", [1, 2, 3]), "tag": ("Completed", "tagged"), "cancelled": ("Failed", "canceled: not needed"),
    "tree": ("Failed", "canceled: all of it"), "tree-kid": ("Failed", "canceled: parent canceled"),
    "old": ("Completed", ["1.0.0", 5]), "new": ("Completed", ["2.0.0", 5]), "fails": ("Failed", "ValueError: always"),
    "kid-2": ("Completed", "kid 2"), "status": ("Completed", [None, "half", None]), "caller": ("Completed", "called"),
    "called": ("Completed", "by an activity"), "pruned": ("Completed", 3),
}  # fmt: skip


@dataclass(frozen=True)
class Act:
    """Something that the outside world does once, as soon as it is due. Doing it again because nobody answered must be harmless."""

    name: str
    due: Callable[[Any], bool]  # of a native provider
    do: Callable[[Any], Any]  # with a client
    receiver: str = ""  # who gets what is sent, if it is a thing that would count twice


def waiting(instance: str, event: str) -> Callable[[Any], bool]:
    """Whether the current execution has such an event."""

    def due(native: Any) -> bool:
        row = native.load(instance)
        return row is not None and any(f'"type":"{event}"' in text for _, text in row.events)

    return due


def ended(instance: str) -> Callable[[Any], bool]:
    def due(native: Any) -> bool:
        row = native.load(instance, None, 1 << 62)
        return row is not None and row.status == "Completed"

    return due


def put(n: int) -> Callable[[Any], Any]:
    return lambda client: client.enqueue_event("queue", "inbox", n)


ACTS = [
    Act("start", lambda native: True, lambda client: client.start_orchestrations(STARTS)),
    Act("raise", waiting("event", "ExternalSubscribed"), lambda client: client.raise_event("event", "go", {"from": "outside"}), "event"),
    *(Act(f"put {n}", waiting("queue", "OrchestrationStarted"), put(n), "queue") for n in range(4)),
    Act("cancel", waiting("cancelled", "TimerCreated"), lambda client: client.cancel_instance("cancelled", "not needed")),
    Act("cancel tree", waiting("tree-kid", "TimerCreated"), lambda client: client.cancel_instance("tree", "all of it")),
    Act("delete", ended("doomed"), lambda client: client.delete_instance("doomed", True)),
    Act("prune", ended("pruned"), lambda client: client.prune_executions("pruned", duroxide.PruneOptions(keep_last=2))),
]


def append(path: Path, line: str) -> None:
    """A whole line, whatever others append; nothing stays open."""
    with path.open("ab", buffering=0) as file:
        file.write(f"{line}\n".encode())


class Activities:
    def __init__(self, ledger: str) -> None:
        self.ledger = Path(ledger)
        self.ledger.touch()

    def note(self, ctx: Any, value: Any) -> None:
        entry = [ctx.instance_id, ctx.execution_id, ctx.activity_name, value]
        append(self.ledger, json.dumps(entry))

    def echo(self, ctx: Any, value: Any) -> Any:
        self.note(ctx, value)
        return value

    def always_fails(self, ctx: Any, value: Any) -> Any:
        self.note(ctx, value)
        raise ValueError("always")

    def flaky(self, ctx: Any, value: Any) -> Any:
        """Fails on its first two calls, whatever process makes them."""
        self.note(ctx, value)
        if sum('"flaky"' in line for line in self.ledger.read_text().splitlines()) < 3:
            raise ValueError("not yet")
        return value

    def call(self, ctx: Any, value: Any) -> Any:
        """Starts an instance through its own client; a second start of the same id changes nothing."""
        self.note(ctx, value)
        ctx.get_client().start_orchestration("called", "leaf", value)
        return "called"


def registered(ledger: str) -> Registered:
    activities = Activities(ledger)
    return {"echo": activities.echo, "always_fails": activities.always_fails, "flaky": activities.flaky, "call": activities.call}


def fan(ctx: Any, width: int) -> Any:
    tasks = [ctx.schedule_activity("echo", n) for n in range(width)]
    policy = {"max_attempts": 9, "backoff": {"type": "fixed", "initial_ms": 5}}
    return (yield ctx.all_typed([*tasks, ctx.schedule_activity_with_retry("flaky", "at last", policy)]))


def race(ctx: Any, _: Any) -> Any:
    won = yield ctx.race(ctx.schedule_activity("echo", "fast"), ctx.wait_for_event("never"), ctx.schedule_timer(HOUR_MS))
    yield ctx.schedule_timer(5)
    return [won["index"], won["value"]]


def nested(ctx: Any, _: Any) -> Any:
    pair = ctx.all_typed([ctx.schedule_activity("echo", 0), ctx.schedule_activity("echo", 1)])
    never = ctx.race(ctx.wait_for_event("never"), ctx.dequeue_event("never"))
    first = yield ctx.race(pair, ctx.schedule_timer(HOUR_MS), never)
    second = yield ctx.all_typed([ctx.race(ctx.schedule_activity("echo", "three"), ctx.schedule_timer(HOUR_MS)), ctx.schedule_timer(2)])
    policy = {"max_attempts": 2, "timeout_ms": HOUR_MS}
    last = yield ctx.schedule_activity_with_retry("echo", "four", policy)
    return [first["value"], second[0]["value"], last]


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
    message = yield ctx.dequeue_event("inbox")
    if message in seen:  # the outside world died between sending it and hearing so
        yield ctx.continue_as_new(seen)
    seen = [*seen, message]
    yield ctx.schedule_activity("echo", message)
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
    yield ctx.start_orchestration_versioned("versions", "1.0.0", "detached-old", 7)
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
    ctx.prune_kv_values_updated_before(1)
    return [str(turn), ctx.get_kv_value("a"), ctx.get_kv_value("b"), ctx.get_kv_all_keys(), ctx.get_kv_length()]


def keeper(ctx: Any, value: Any) -> Any:
    ctx.set_kv_value("old", "x")
    yield ctx.schedule_timer(1)
    ctx.clear_all_kv_values()
    ctx.set_kv_value("kept", value)


def reader(ctx: Any, _: Any) -> Any:
    yield ctx.schedule_sub_orchestration_with_id("keeper", "keeper", "kept")
    kept = yield ctx.get_kv_value_from_instance("keeper", "kept")
    old = yield ctx.get_kv_value_from_instance("keeper", "old")
    return [kept, old, (yield ctx.schedule_sub_orchestration_versioned("versions", "1.0.0", 8))]


def session(ctx: Any, _: Any) -> Any:
    first = yield ctx.schedule_activity_on_session("echo", 1, "s")
    second = yield ctx.schedule_activity_on_session("echo", 2, "s")
    third = yield ctx.schedule_activity_with_retry_on_session("echo", 3, {"max_attempts": 2}, "s")
    return [first, second, third]


def tag(ctx: Any, _: Any) -> Any:
    return (yield ctx.schedule_activity("echo", "tagged").with_tag("gpu"))


def cancelled(ctx: Any, _: Any) -> Any:
    yield ctx.race(ctx.wait_for_event("never"), ctx.schedule_timer(HOUR_MS))


def tree(ctx: Any, _: Any) -> Any:
    yield ctx.schedule_sub_orchestration_with_id("cancelled", "tree-kid")


def status(ctx: Any, _: Any) -> Any:
    found = [ctx.get_custom_status()]
    ctx.set_custom_status("half")
    yield ctx.schedule_timer(4)
    found.append(ctx.get_custom_status())
    ctx.reset_custom_status()
    yield ctx.schedule_activity("echo", "reset")
    return [*found, ctx.get_custom_status()]


def caller(ctx: Any, _: Any) -> Any:
    policy = {"max_attempts": 9, "backoff": {"type": "fixed", "initial_ms": 5}}  # its store may fail
    return (yield ctx.schedule_activity_with_retry("call", "by an activity", policy))


def pruned(ctx: Any, n: int) -> Any:
    yield ctx.schedule_activity("echo", n)
    if n < 3:
        yield ctx.continue_as_new_versioned(n + 1, "1.0.0")
    return n


def version(number: str) -> Callable[..., Any]:
    def versions(ctx: Any, value: Any) -> Any:
        return [number, (yield ctx.schedule_activity("echo", value))]

    return versions


ORCHESTRATIONS = (
    fan, race, nested, clock, event, queue, parent, kid, fails, detach, leaf, kv, keeper, reader, session, tag, cancelled, tree, status,
    caller, pruned,
)  # fmt: skip


def register(runtime: Any, ledger: str) -> None:
    for name, activity in registered(ledger).items():
        runtime.register_activity(name, activity)
    for function in ORCHESTRATIONS:
        runtime.register_orchestration(function.__name__, function)
    for number in ("1.0.0", "2.0.0"):
        runtime.register_orchestration_versioned("versions", number, version(number))
