"""Events, work items and error details as JSON text: how each is written, read and shown.

Owns the texts that the runtime, the client and other processes exchange; field names and order of meaning are the stored format.
Refuses to know history matching, stores and threads. Imports nothing of ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from json import encoder
from typing import Any

STAMP = "0.1.32"  # written into every event; its triple pins the execution
PINNED = (0, 1, 32)
VERSIONS = (0, 1032)  # packed range of pins that this engine replays
SYSCALL = "__duroxide_syscall:"

quote: Callable[[str], str] = encoder.encode_basestring  # a text as JSON, other alphabets as they are

# Stored type -> the kind that users see where the two differ.
_SHOWN = {
    "ExternalSubscribedPersistent": "QueueSubscribed",
    "ExternalEventPersistent": "QueueEventDelivered",
    "ExternalSubscribedPersistentCancelled": "QueueSubscriptionCancelled",
}

KINDS = (
    "OrchestrationStarted", "OrchestrationCompleted", "OrchestrationFailed", "ActivityScheduled", "ActivityCompleted", "ActivityFailed",
    "ActivityCancelRequested", "TimerCreated", "TimerFired", "ExternalSubscribed", "ExternalEvent", "ExternalSubscribedCancelled",
    "ExternalSubscribedPersistent", "ExternalEventPersistent", "ExternalSubscribedPersistentCancelled", "SubOrchestrationScheduled",
    "SubOrchestrationCompleted", "SubOrchestrationFailed", "SubOrchestrationCancelRequested", "OrchestrationChained",
    "OrchestrationContinuedAsNew", "OrchestrationCancelRequested", "CustomStatusUpdated", "KeyValueSet", "KeyValueCleared",
    "KeyValuesCleared",
)  # fmt: skip


# What each kind must hold to be read: field -> "s" text, "i" whole number, "d" error details, "c" carried messages; upper case: or null, or
# left out. Of work items:
_LINK = {"parent_instance": "S", "parent_id": "I", "parent_execution_id": "I"}
_ANSWER = {"instance": "s", "execution_id": "i", "id": "i"}
_TO_PARENT = {"parent_instance": "s", "parent_execution_id": "i", "parent_id": "i"}
_NAMED = {"instance": "s", "name": "s", "data": "s"}
ITEM_SHAPES: dict[str, dict[str, str]] = {
    "StartOrchestration": {"instance": "s", "orchestration": "s", "input": "s", "version": "S", **_LINK},
    "ContinueAsNew": {"instance": "s", "orchestration": "s", "input": "s", "version": "S", **_LINK, "carry_forward_events": "C", "initial_custom_status": "S"},
    "ActivityCompleted": {**_ANSWER, "result": "s"},
    "ActivityFailed": {**_ANSWER, "details": "d"},
    "TimerFired": {**_ANSWER, "fire_at_ms": "i"},
    "ExternalRaised": _NAMED,
    "QueueMessage": _NAMED,
    "SubOrchCompleted": {**_TO_PARENT, "result": "s"},
    "SubOrchFailed": {**_TO_PARENT, "details": "d"},
    "CancelInstance": {"instance": "s", "reason": "s"},
    "ActivityExecute": {**_ANSWER, "name": "s", "input": "s", "session_id": "S", "tag": "S"},
}  # fmt: skip
# And of events, beside their number:
_OF = {"source_event_id": "i"}
EVENT_SHAPES: dict[str, dict[str, str]] = {
    "OrchestrationStarted": {"name": "s", "version": "s", "input": "s", **_LINK, "carry_forward_events": "C", "initial_custom_status": "S"},
    "OrchestrationCompleted": {"output": "s"},
    "OrchestrationFailed": {"details": "d"},
    "ActivityScheduled": {"name": "s", "input": "s", "session_id": "S", "tag": "S"},
    "ActivityCompleted": {**_OF, "result": "s"},
    "ActivityFailed": {**_OF, "details": "d"},
    "ActivityCancelRequested": {**_OF, "reason": "s"},
    "TimerCreated": {"fire_at_ms": "i"},
    "TimerFired": {**_OF, "fire_at_ms": "i"},
    "ExternalSubscribed": {"name": "s"},
    "ExternalEvent": {"name": "s", "data": "s"},
    "ExternalSubscribedCancelled": {**_OF, "reason": "s"},
    "ExternalSubscribedPersistent": {"name": "s"},
    "ExternalEventPersistent": {"name": "s", "data": "s"},
    "ExternalSubscribedPersistentCancelled": {**_OF, "reason": "s"},
    "SubOrchestrationScheduled": {"name": "s", "instance": "s", "input": "s"},
    "SubOrchestrationCompleted": {**_OF, "result": "s"},
    "SubOrchestrationFailed": {**_OF, "details": "d"},
    "SubOrchestrationCancelRequested": {**_OF, "reason": "s"},
    "OrchestrationChained": {"name": "s", "instance": "s", "input": "s"},
    "OrchestrationContinuedAsNew": {"input": "s"},
    "OrchestrationCancelRequested": {"reason": "s"},
    "CustomStatusUpdated": {"status": "S"},
    "KeyValueSet": {"key": "s", "value": "s", "last_updated_at_ms": "I"},
    "KeyValueCleared": {"key": "s"},
    "KeyValuesCleared": {},
}


def misshapen(fields: dict[str, Any], shape: dict[str, str]) -> str | None:
    """Which field is missing or of another kind than its shape says, and what it holds; None if all are as they should be."""
    for name, kind in shape.items():
        value = fields.get(name)
        if value is None:
            if kind.islower():
                return f"its {name} is missing"
        elif not _is(value, kind.lower()):
            return f"its {name} is {value!r:.80}"
    return None


def _is(value: Any, kind: str) -> bool:
    if kind == "s":
        return type(value) is str
    if kind == "i":
        return type(value) is int and -(1 << 63) <= value < 1 << 63
    if kind == "c":
        return type(value) is list and all(type(pair) is list and len(pair) == 2 and all(type(part) is str for part in pair) for pair in value)
    try:
        return type(value) is dict and all(type(text) is str for text in display(value))
    except (KeyError, TypeError, AttributeError, StopIteration):
        return False


def compact(value: Any) -> str:
    """JSON text without blanks and without ASCII escapes, as stored items and details have it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _optional(text: str | None) -> str:
    return "null" if text is None else quote(text)


# ── work items ───────────────────────────────────────────────────────────────────────────────────────────────


def start_item(instance: str, name: str, input: str, version: str | None = None) -> str:
    """A client's or a detached start: no parent."""
    return child_start_item(instance, name, input, version, None)


def child_start_item(instance: str, name: str, input: str, version: str | None, parent: tuple[str, int, int] | None) -> str:
    """StartOrchestration; `parent` is (parent instance, id of its schedule event, its execution)."""
    link = '"parent_instance":null,"parent_id":null'
    if parent is not None:
        link = f'"parent_instance":{quote(parent[0])},"parent_id":{parent[1]},"parent_execution_id":{parent[2]}'
    return (
        f'{{"StartOrchestration":{{"instance":{quote(instance)},"orchestration":{quote(name)},"input":{quote(input)},'
        f'"version":{_optional(version)},{link},"execution_id":1}}}}'
    )


def continue_item(
    instance: str,
    name: str,
    input: str,
    version: str | None,
    parent: tuple[str, int, int] | None,
    carried: list[tuple[str, str]],
    custom_status: str | None,
) -> str:
    """ContinueAsNew: the start of the next execution, with the queue messages and the status that it inherits."""
    link = ""
    if parent is not None:
        link = f',"parent_instance":{quote(parent[0])},"parent_id":{parent[1]},"parent_execution_id":{parent[2]}'
    status = "" if custom_status is None else f',"initial_custom_status":{quote(custom_status)}'
    return (
        f'{{"ContinueAsNew":{{"instance":{quote(instance)},"orchestration":{quote(name)},"input":{quote(input)},'
        f'"version":{_optional(version)}{link},"carry_forward_events":{compact(carried)}{status}}}}}'
    )


def external_item(instance: str, name: str, data: str) -> str:
    return f'{{"ExternalRaised":{{"instance":{quote(instance)},"name":{quote(name)},"data":{quote(data)}}}}}'


def queue_item(instance: str, name: str, data: str) -> str:
    return f'{{"QueueMessage":{{"instance":{quote(instance)},"name":{quote(name)},"data":{quote(data)}}}}}'


def cancel_item(instance: str, reason: str) -> str:
    return f'{{"CancelInstance":{{"instance":{quote(instance)},"reason":{quote(reason)}}}}}'


def activity_completed_item(instance: str, execution_id: int, activity_id: int, result: str) -> str:
    return (
        f'{{"ActivityCompleted":{{"instance":{quote(instance)},"execution_id":{execution_id},"id":{activity_id},'
        f'"result":{quote(result)}}}}}'
    )


def activity_failed_item(instance: str, execution_id: int, activity_id: int, details_json: str) -> str:
    return (
        f'{{"ActivityFailed":{{"instance":{quote(instance)},"execution_id":{execution_id},"id":{activity_id},'
        f'"details":{details_json}}}}}'
    )


def timer_item(instance: str, execution_id: int, timer_id: int, fire_at_ms: int) -> str:
    return (
        f'{{"TimerFired":{{"instance":{quote(instance)},"execution_id":{execution_id},"id":{timer_id},'
        f'"fire_at_ms":{fire_at_ms}}}}}'
    )


def child_completed_item(parent: tuple[str, int, int], result: str) -> str:
    return (
        f'{{"SubOrchCompleted":{{"parent_instance":{quote(parent[0])},"parent_execution_id":{parent[2]},"parent_id":{parent[1]},'
        f'"result":{quote(result)}}}}}'
    )


def child_failed_item(parent: tuple[str, int, int], details_json: str) -> str:
    return (
        f'{{"SubOrchFailed":{{"parent_instance":{quote(parent[0])},"parent_execution_id":{parent[2]},"parent_id":{parent[1]},'
        f'"details":{details_json}}}}}'
    )


def execute_item(
    instance: str, execution_id: int, activity_id: int, name: str, input: str, session_id: str | None, tag: str | None
) -> str:
    affinity = "" if session_id is None else f',"session_id":{quote(session_id)}'
    if tag is not None:
        affinity += f',"tag":{quote(tag)}'
    return (
        f'{{"ActivityExecute":{{"instance":{quote(instance)},"execution_id":{execution_id},"id":{activity_id},"name":{quote(name)},'
        f'"input":{quote(input)}{affinity}}}}}'
    )


# The order in which each kind of item is written; PostgreSQL's jsonb, through which some pass, keeps another.
_START = ("instance", "orchestration", "input", "version", "parent_instance", "parent_id", "parent_execution_id")
_ITEM_FIELDS = {
    "StartOrchestration": (*_START, "execution_id"),
    "ContinueAsNew": (*_START, "carry_forward_events", "initial_custom_status"),
    "ActivityExecute": ("instance", "execution_id", "id", "name", "input", "session_id", "tag"),
    "ActivityCompleted": ("instance", "execution_id", "id", "result"),
    "ActivityFailed": ("instance", "execution_id", "id", "details"),
    "TimerFired": ("instance", "execution_id", "id", "fire_at_ms"),
    "SubOrchCompleted": ("parent_instance", "parent_execution_id", "parent_id", "result"),
    "SubOrchFailed": ("parent_instance", "parent_execution_id", "parent_id", "details"),
}


def canonical(item: str) -> str:
    """A work item as the engine writes it, whatever a store made of its text; a text that is no item stays as it is."""
    try:
        [(kind, body)] = json.loads(item).items()
        order = {name: at for at, name in enumerate(_ITEM_FIELDS.get(kind, ("instance", "name", "data", "reason")))}
        return compact({kind: dict(sorted(body.items(), key=lambda field: order.get(field[0], len(order))))})
    except (ValueError, AttributeError, TypeError, RecursionError):
        return item


class Work:
    """An ActivityExecute item, decoded."""

    __slots__ = ("activity_id", "execution_id", "input", "instance", "item", "name", "session_id", "tag")

    def __init__(self, item: str) -> None:
        """ValueError if the text is no such item."""
        try:
            [(kind, body)] = json.loads(item).items()
            wrong = f"it is a {kind!r:.80}" if kind != "ActivityExecute" else misshapen(body, ITEM_SHAPES[kind])
            if "\\u" in item:
                compact(body).encode()  # raises for a lone surrogate, which no store can hold
        except (TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from None
        if wrong is not None:
            raise ValueError(wrong)
        self.item: str = item
        self.instance: str = body["instance"]
        self.execution_id: int = body["execution_id"]
        self.activity_id: int = body["id"]
        self.name: str = body["name"]
        self.input: str = body["input"]
        self.session_id: str | None = body.get("session_id")
        self.tag: str | None = body.get("tag")


def work_poison(row_id: int, instance: str | None, item: str, error: str, attempts: int, max_attempts: int) -> tuple[str, str] | None:
    """(instance, message) to be sent in the place of a work item that cannot be read: the failure of its activity if the text says which one it
    is, else one that poisons the `instance` of its row. None if nobody can be told."""
    try:
        body = json.loads(item)["ActivityExecute"]
        if misshapen(body, _ANSWER) is None:
            body["instance"].encode()
            name = body.get("name")
            details = activity_poison(body["instance"], body["execution_id"], str(name), body["id"], attempts, max_attempts, item)
            return body["instance"], activity_failed_item(body["instance"], body["execution_id"], body["id"], details)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    said = f"not there: worker row {row_id} holds no activity: {error}".encode(errors="replace").decode()
    return None if instance is None else (instance, compact({"ActivityFailed": {"instance": instance, "execution_id": said}}))


# ── error details ────────────────────────────────────────────────────────────────────────────────────────────


def application_failure(message: str, kind: str = "ActivityFailed") -> str:
    """Details of an error in user code. `kind`: ActivityFailed, OrchestrationFailed or Panicked."""
    return f'{{"Application":{{"kind":"{kind}","message":{quote(message)},"retryable":false}}}}'


def cancelled_failure(reason: str) -> str:
    return f'{{"Application":{{"kind":{{"Cancelled":{{"reason":{quote(reason)}}}}},"message":"","retryable":false}}}}'


def nondeterminism(message: str) -> str:
    return f'{{"Configuration":{{"kind":"Nondeterminism","resource":"","message":{quote(message)}}}}}'


def infrastructure(operation: str, message: str, retryable: bool = False) -> str:
    return compact({"Infrastructure": {"operation": operation, "message": message, "retryable": retryable}})


def _poison(attempts: int, max_attempts: int, message_type: dict[str, Any], message: str) -> str:
    text = compact(
        {"Poison": {"attempt_count": attempts, "max_attempts": max_attempts, "message_type": message_type, "message": message}}
    )
    return text.encode(errors="replace").decode()  # what poisons may hold lone surrogates; its end must be stored all the same


def activity_poison(
    instance: str, execution_id: int, name: str, activity_id: int, attempts: int, max_attempts: int, item: str
) -> str:
    """Details for an activity that was fetched more than `max_attempts` times."""
    where = {"instance": instance, "execution_id": execution_id, "activity_name": name, "activity_id": activity_id}
    return _poison(attempts, max_attempts, {"Activity": where}, canonical(item))


def orchestration_poison(
    instance: str, execution_id: int, attempts: int, max_attempts: int, items: list[str], error: str | None = None
) -> str:
    """Details for an instance whose messages were fetched too often; `error`: why its history could not be read."""
    where: dict[str, Any] = {"instance": instance, "execution_id": execution_id}
    kind = "Orchestration"
    if error is not None:
        kind, where["error"] = "FailedDeserialization", error
    return _poison(attempts, max_attempts, {kind: where}, "[" + ",".join(map(canonical, items)) + "]")


def display(details: dict[str, Any]) -> tuple[str, str]:
    """(category, text) of decoded details: what `status.error` shows and where it is counted."""
    kind, body = next(iter(details.items()))
    if kind == "Application":
        return "application", _display_application(body)
    if kind == "Configuration":
        message = body.get("message")
        return (
            "configuration",
            f"nondeterministic in {body.get('resource')}" if message is None else f"nondeterministic: {message}",
        )
    if kind == "Infrastructure":
        return "infrastructure", f"infrastructure:{body['operation']}: {body['message']}"
    return "poison", _display_poison(body)


def _display_application(body: dict[str, Any]) -> str:
    kind = body["kind"]
    if isinstance(kind, dict):
        return f"canceled: {kind['Cancelled']['reason']}"
    message: str = body["message"]
    return f"orchestration panicked: {message}" if kind == "Panicked" else message


def _display_poison(body: dict[str, Any]) -> str:
    kind, where = next(iter(body["message_type"].items()))
    n, most = body["attempt_count"], body["max_attempts"]
    if kind == "Activity":
        return f"poison: activity {where['activity_name']}#{where['activity_id']} exceeded {n} attempts (max {most})"
    if kind == "Orchestration":
        return f"poison: orchestration {where['instance']} exceeded {n} attempts (max {most})"
    return f"poison: orchestration {where['instance']} history deserialization failed after {n} attempts (max {most}): {where['error']}"


# ── what a user sees of a stored event ───────────────────────────────────────────────────────────────────────


def public_event(text: str) -> tuple[int, str, int | None, int, str | None]:
    """(event_id, kind, source_event_id, timestamp_ms, data) of a stored event. `data` splices payload texts as they are.
    Raises ValueError on text that is no event; the message names an unknown type."""
    event = json.loads(text)
    kind = event["type"]
    if kind not in KINDS:
        known = ", ".join(f"`{k}`" for k in KINDS)
        raise ValueError(f"Failed to deserialize event: unknown variant `{kind}`, expected one of {known}")
    return event["event_id"], _SHOWN.get(kind, kind), event.get("source_event_id"), event["timestamp_ms"], _data(kind, event)


def _data(kind: str, event: dict[str, Any]) -> str | None:
    if kind == "OrchestrationStarted":
        return f'{{"name":{quote(event["name"])},"version":{quote(event["version"])},"input":{event["input"]}}}'
    if kind in ("ActivityScheduled",):
        return f'{{"name":{quote(event["name"])},"input":{event["input"]}}}'
    if kind == "SubOrchestrationScheduled":
        return f'{{"name":{quote(event["name"])},"instance":{quote(event["instance"])},"input":{event["input"]}}}'
    if kind in ("ExternalEvent", "ExternalEventPersistent"):
        return f'{{"name":{quote(event["name"])},"data":{event["data"]}}}'
    if kind in ("ExternalSubscribed", "ExternalSubscribedPersistent"):
        return f'{{"name":{quote(event["name"])}}}'
    if kind in ("TimerCreated", "TimerFired"):
        return f'{{"fireAtMs":{event["fire_at_ms"]}}}'
    if kind == "OrchestrationCompleted":
        return str(event["output"])
    if kind in ("ActivityCompleted", "SubOrchestrationCompleted"):
        return str(event["result"])
    if kind in ("OrchestrationFailed", "ActivityFailed", "SubOrchestrationFailed"):
        return compact(event["details"])
    return None
