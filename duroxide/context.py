"""What an orchestration and an activity are given: `OrchestrationContext` and `ActivityContext`.

Owns the calls that make descriptors (`tasks`; the typed ones are in `typed`) and the immediate calls (status, KV, traces).
Refuses to know storage, runtime, time and randomness: those reach an orchestration only through what it yields.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakValueDictionary

from . import arguments, tracing
from .tasks import ScheduledTask as ScheduledTask, Task, dumps, retry_policy
from .typed import TypedCalls

if TYPE_CHECKING:
    from .client import Client


class Execution(Protocol):
    """What a context asks of the execution behind it; silent and empty once the turn is over."""

    @property
    def instance(self) -> str: ...
    @property
    def execution_id(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def is_replaying(self) -> bool: ...

    def set_custom_status(self, text: str | None) -> None: ...
    def get_custom_status(self) -> str | None: ...
    def kv_set(self, key: str, value: str) -> None: ...
    def kv_get(self, key: str) -> str | None: ...
    def kv_clear(self, key: str) -> None: ...
    def kv_clear_all(self) -> None: ...
    def kv_items(self) -> dict[str, str]: ...
    def kv_prune(self, cutoff_ms: int) -> int: ...


class _NoExecution:
    """Stands behind a context that was built by hand from its ids: every immediate call is a no-op."""

    is_replaying = True

    def __init__(self, ctx_info: dict[str, Any]) -> None:
        self.instance: str = ctx_info["instanceId"]
        self.execution_id: int = ctx_info["executionId"]
        self.name: str = ctx_info["orchestrationName"]
        self.version: str = ctx_info["orchestrationVersion"]

    def set_custom_status(self, text: str | None) -> None:
        pass

    def get_custom_status(self) -> str | None:
        return None

    def kv_set(self, key: str, value: str) -> None:
        pass

    def kv_get(self, key: str) -> str | None:
        return None

    def kv_clear(self, key: str) -> None:
        pass

    def kv_clear_all(self) -> None:
        pass

    def kv_items(self) -> dict[str, str]:
        return {}

    def kv_prune(self, cutoff_ms: int) -> int:
        return 0


# Handles that the token functions of `duroxide._duroxide` take, for those contexts whose token somebody asked for.
_tokens: WeakValueDictionary[str, OrchestrationContext | ActivityContext] = WeakValueDictionary()
_token_numbers = itertools.count()


def of_token(token: str) -> OrchestrationContext | ActivityContext | None:
    """The living context that gave out this token."""
    return _tokens.get(token)


class OrchestrationContext(TypedCalls):
    """The first argument of an orchestration.

    Methods that schedule return a descriptor (a dict) and do nothing else: yield it, or an `all` or `race` of several, to get
    the result. They raise TypeError for an `input` that `json.dumps` does not take; a descriptor with wrong kinds in it fails
    the instance when it is yielded. The methods for status, key-value and traces act at once and are written with the turn.

    Results are what `json.loads` makes of what was stored. An activity or child that fails raises at the yield:
    `ActivityError`, `SubOrchestrationError`. The typed variants differ in one thing: a str as `input` is passed on as it is,
    as JSON text, so "123" arrives as the number. They also take a registered function in place of its name (`TypedCalls`).

    Made by the runtime from an execution; or by hand from a dict with instanceId, executionId, orchestrationName and
    orchestrationVersion, and then the immediate calls do nothing.

    :ivar instance_id: the id that `Client.start_orchestration` was given, or that of a child
    :ivar execution_id: 1, and one more after each `continue_as_new`
    :ivar orchestration_name: the name under which the function is registered
    :ivar orchestration_version: the version of it that runs, for example "1.0.0"
    """

    instance_id: str
    execution_id: int
    orchestration_name: str
    orchestration_version: str

    def __init__(self, ctx_info: Any) -> None:
        execution: Execution = ctx_info if hasattr(ctx_info, "is_replaying") else _NoExecution(ctx_info)
        self._execution = execution
        self.instance_id = execution.instance
        self.execution_id = execution.execution_id
        self.orchestration_name = execution.name
        self.orchestration_version = execution.version

    @property
    def _ctx_token(self) -> str:
        return _token(self, "orch-")

    # ── activities ──

    def schedule_activity(self, name: str, input: Any = None, session_id: str | None = None) -> ScheduledTask:
        """Run an activity; yields its result. With `session_id`, on the runtime that owns that session."""
        return _activity(name, dumps(input), session_id)

    def schedule_activity_on_session(self, name: str, input: Any, session_id: str) -> ScheduledTask:
        """Run an activity on the runtime that owns the session; `session_id` is any str."""
        return ScheduledTask(type="activityWithSession", name=name, input=dumps(input), sessionId=session_id)

    def schedule_activity_with_retry(self, name: str, input: Any, retry: dict[str, Any]) -> ScheduledTask:
        """Run an activity up to `max_attempts` times (default 3), with pauses between the attempts.

        `retry` may have: `backoff`, which is None or "exponential" (100 ms, doubling, at most 30 s), "fixed" (1 s), any other
        text for linear (100 ms per attempt, at most 30 s), or a dict {"type": "exponential" | "linear" | "fixed", "initial_ms",
        "multiplier", "max_ms"}; `timeout_ms`, which limits one attempt and ends the whole retry when it is over
        (`total_timeout_ms` overrides it, the reference's meaning); `overall_timeout_ms`, which limits all attempts and pauses
        together. Raises at the yield: the last attempt's `ActivityError`, or `ActivityTimeout`.
        """
        return ScheduledTask(type="activityWithRetry", name=name, input=dumps(input), retry=retry_policy(retry))

    def schedule_activity_with_retry_on_session(
        self, name: str, input: Any, retry: dict[str, Any], session_id: str
    ) -> ScheduledTask:
        """As `schedule_activity_with_retry`, each attempt on the runtime that owns the session."""
        return ScheduledTask(
            type="activityWithRetryOnSession", name=name, input=dumps(input), retry=retry_policy(retry), sessionId=session_id
        )

    # ── timers, events, queues ──

    def schedule_timer(self, delay_ms: int) -> Task:
        """Sleep for `delay_ms` ms (an int, 0 or more), across restarts; yields None. Never early; late by what the machine needs,
        or by how long nobody ran."""
        return {"type": "timer", "delayMs": delay_ms}

    def wait_for_event(self, name: str) -> Task:
        """Yields the payload of the next `Client.raise_event` of that name. Not kept: an event that nobody waits for is lost."""
        return {"type": "waitEvent", "name": name}

    def dequeue_event(self, queue_name: str) -> Task:
        """Yields the next message of that queue (`Client.enqueue_event`), first in first out, kept until somebody takes it."""
        return {"type": "dequeueEvent", "queueName": queue_name}

    # ── other orchestrations ──

    def schedule_sub_orchestration(self, name: str, input: Any = None) -> Task:
        """Run a child, of the latest registered version; yields its output. Its id is made from that of this instance."""
        return {"type": "subOrchestration", "name": name, "input": dumps(input)}

    def schedule_sub_orchestration_with_id(self, name: str, instance_id: str, input: Any = None) -> Task:
        """Run a child under an id of yours; `SubOrchestrationError` at the yield if there is an instance of that id already."""
        return {"type": "subOrchestrationWithId", "name": name, "instanceId": instance_id, "input": dumps(input)}

    def schedule_sub_orchestration_versioned(self, name: str, version: str | None = None, input: Any = None) -> Task:
        """Run a child of that version; None: the latest registered."""
        return {"type": "subOrchestrationVersioned", "name": name, "version": version, "input": dumps(input)}

    def schedule_sub_orchestration_versioned_with_id(
        self, name: str, version: str | None, instance_id: str, input: Any = None
    ) -> Task:
        """Run a child of that version (None: the latest) under an id of yours."""
        task = {"type": "subOrchestrationVersionedWithId", "name": name, "version": version, "instanceId": instance_id}
        return {**task, "input": dumps(input)}

    def start_orchestration(self, name: str, instance_id: str, input: Any = None) -> Task:
        """Start an orchestration of its own, nobody's child. Yields None at once; nothing happens if the id exists."""
        return {"type": "orchestration", "name": name, "instanceId": instance_id, "input": dumps(input)}

    def start_orchestration_versioned(self, name: str, version: str, instance_id: str, input: Any = None) -> Task:
        """As `start_orchestration`, of that version."""
        task = {"type": "orchestrationVersioned", "name": name, "version": version, "instanceId": instance_id}
        return {**task, "input": dumps(input)}

    def continue_as_new(self, input: Any = None) -> Task:
        """End this execution and begin the next with `input`, an empty history and the latest registered version.

        Has to be yielded, and never comes back. Custom status, key-value entries and unread queue messages go over.
        """
        return {"type": "continueAsNew", "input": dumps(input)}

    def continue_as_new_versioned(self, input: Any, version: str | None = None) -> Task:
        """As `continue_as_new`, with that version; None: the latest registered."""
        return {"type": "continueAsNewVersioned", "input": dumps(input), "version": version}

    # ── values that must not differ on replay ──

    def new_guid(self) -> Task:
        """Yields a random UUID (version 4) as text of 36 characters; the same one at each replay."""
        return {"type": "newGuid"}

    def utc_now(self) -> Task:
        """Yields the time as an int in Unix ms; the same one at each replay."""
        return {"type": "utcNow"}

    def get_kv_value_from_instance(self, instance_id: str, key: str) -> ScheduledTask:
        """Yields the text stored under `key` in another instance, as it is then; None if there is no such entry or instance."""
        input = dumps({"instance_id": instance_id, "key": key})
        return ScheduledTask(type="activity", name="__duroxide_syscall:get_kv_value", input=input)

    # ── several at once ──

    def all(self, tasks: list[Any] | tuple[Any, ...]) -> Task:
        """Wait for all; yields a list in the order of `tasks`, of {"ok": value} or {"err": text} each.

        A member that fails does not raise. Members are what the schedule methods return, waits, timers, and other `all` and
        `race`, in any number and to any depth. `all([])` yields [].
        """
        return {"type": "join", "tasks": tasks}

    def race(self, *tasks: Any) -> Task:
        """Wait for the first of any number of tasks; yields {"index": its place from 0, "value": what it gave}.

        The others are dropped: activities are told (`ActivityContext.is_cancelled`), children cancelled, waits taken back
        without losing a message. Raises if the winner failed.
        """
        return {"type": "select", "tasks": list(tasks)}

    # ── custom status and KV: immediate, kept with the turn ──

    def set_custom_status(self, status: Any) -> None:
        """Publish `str(status)` (at most 262,144 bytes) with this turn; the last one of a turn counts.

        Clients see it in `OrchestrationResult.custom_status` and wait for it with `Client.wait_for_status_change`.
        """
        self._execution.set_custom_status(arguments.text("status", str(status)))

    def reset_custom_status(self) -> None:
        """Take the custom status back: None again."""
        self._execution.set_custom_status(None)

    def get_custom_status(self) -> str | None:
        """The custom status as set last, in this turn or before; None if there is none."""
        return self._execution.get_custom_status()

    def set_kv_value(self, key: Any, value: Any) -> None:
        """Store `str(value)` (at most `MAX_KV_VALUE_BYTES`) under `str(key)` (at most `MAX_KV_KEYS` keys).

        Too much of either fails the instance at the end of the turn.
        """
        self._execution.kv_set(arguments.text("key", str(key)), arguments.text("value", str(value)))

    def get_kv_value(self, key: Any) -> str | None:
        """The text stored under `str(key)`, in this turn or before; None if there is none."""
        return self._execution.kv_get(arguments.text("key", str(key)))

    def get_kv_all_keys(self) -> list[str]:
        """All keys, sorted."""
        return sorted(self._execution.kv_items())

    def get_kv_all_values(self) -> dict[str, str]:
        """A copy of all entries, sorted by key: code that walks over them does the same in every replay, whatever order the store has."""
        return dict(sorted(self._execution.kv_items().items()))

    def get_kv_length(self) -> int:
        """How many entries there are."""
        return len(self._execution.kv_items())

    def clear_kv_value(self, key: Any) -> None:
        """Remove the entry, if it is there."""
        self._execution.kv_clear(arguments.text("key", str(key)))

    def clear_all_kv_values(self) -> None:
        """Remove all entries."""
        self._execution.kv_clear_all()

    def prune_kv_values_updated_before(self, cutoff_ms: int) -> int:
        """Remove the keys last written before `cutoff_ms` (Unix ms); returns how many."""
        return self._execution.kv_prune(arguments.unsigned("cutoff_ms", cutoff_ms))

    # ── traces: logged once, not again on replay ──

    def trace_info(self, message: Any) -> None:
        """Log `str(message)` at INFO with the ids of the instance, once: not again at a replay."""
        self._trace("info", message)

    def trace_warn(self, message: Any) -> None:
        """As `trace_info`, at WARNING."""
        self._trace("warn", message)

    def trace_error(self, message: Any) -> None:
        """As `trace_info`, at ERROR."""
        self._trace("error", message)

    def trace_debug(self, message: Any) -> None:
        """As `trace_info`, at DEBUG."""
        self._trace("debug", message)

    def _trace(self, level: str, message: Any) -> None:
        text = str(message)
        if not self._execution.is_replaying:
            tracing.orchestration(level, text, self)


class ActivityContext:
    """The first argument of an activity: who asked for it, whether the answer is still wanted, and a client.

    `ctx_info` has the keys instanceId, executionId, orchestrationName, orchestrationVersion, activityName, workerId and maybe
    activityId, sessionId, tag. `cancelled` and `client` are what `is_cancelled()` and `get_client()` ask while it runs.

    :ivar instance_id: the instance that asked
    :ivar execution_id: its execution, from 1
    :ivar orchestration_name: its orchestration's name
    :ivar orchestration_version: and version
    :ivar activity_name: under which the function is registered
    :ivar worker_id: the thread and the runtime: `work-{n}-{worker_node_id}`
    :ivar session_id: the session that it was scheduled on, or None
    """

    def __init__(
        self,
        ctx_info: dict[str, Any],
        *,
        cancelled: Callable[[], bool] | None = None,
        client: Callable[[], Client] | None = None,
    ) -> None:
        self.instance_id: str = ctx_info["instanceId"]
        self.execution_id: int = ctx_info["executionId"]
        self.orchestration_name: str = ctx_info["orchestrationName"]
        self.orchestration_version: str = ctx_info["orchestrationVersion"]
        self.activity_name: str = ctx_info["activityName"]
        self.worker_id: str = ctx_info["workerId"]
        self.session_id: str | None = ctx_info.get("sessionId")
        self._tag: str | None = ctx_info.get("tag")
        self._activity_id: int | None = ctx_info.get("activityId")
        self._cancelled = cancelled
        self._client = client

    @property
    def _trace_token(self) -> str:
        return _token(self, "act-")

    def _end(self) -> None:
        """The activity returned: from here on nothing is cancelled, traced or asked."""
        self._cancelled = self._client = None

    def tag(self) -> str | None:
        """The tag it was scheduled with (`ScheduledTask.with_tag`), or None."""
        return self._tag

    def is_cancelled(self) -> bool:
        """Whether nobody waits for the result any more; long activities should look.

        True from the commit on that makes it so: the instance ended or was cancelled, a race was lost, a retry ran out of time,
        the lease on this work was lost. False once the activity has returned.
        """
        cancelled = self._cancelled
        return cancelled is not None and cancelled()

    def get_client(self) -> Client:
        """A client on the same store; it stays valid after the activity. RuntimeError once the activity has returned."""
        client = self._client
        if client is None:
            raise RuntimeError("Activity context not found")
        return client()

    def trace_info(self, message: Any) -> None:
        """Log `str(message)` at INFO with the ids of the instance and the activity."""
        self._trace("info", message)

    def trace_warn(self, message: Any) -> None:
        """As `trace_info`, at WARNING."""
        self._trace("warn", message)

    def trace_error(self, message: Any) -> None:
        """As `trace_info`, at ERROR."""
        self._trace("error", message)

    def trace_debug(self, message: Any) -> None:
        """As `trace_info`, at DEBUG."""
        self._trace("debug", message)

    def _trace(self, level: str, message: Any) -> None:
        text = str(message)
        if self._cancelled is not None:
            tracing.activity(level, text, self)


def _token(context: OrchestrationContext | ActivityContext, kind: str) -> str:
    token = context.__dict__.get("_token")
    if token is None:
        token = context.__dict__["_token"] = f"{kind}{next(_token_numbers)}"
        _tokens[token] = context
    return str(token)


def _activity(name: str, input: str, session_id: str | None) -> ScheduledTask:
    if session_id is None:
        return ScheduledTask(type="activity", name=name, input=input)
    return ScheduledTask(type="activityWithSession", name=name, input=input, sessionId=session_id)
