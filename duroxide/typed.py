"""The typed variants of the calls that schedule: by a registered function, whose parameter and result types are checked, or by name.

Owns these calls' signatures and what a function's name is. Refuses to know everything else about a context.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .registry import name_of
from .tasks import ScheduledTask, Task, TypedTask, dumps, retry_policy

if TYPE_CHECKING:
    from .context import ActivityContext, OrchestrationContext

I = TypeVar("I")  # noqa: E741 - the input
R = TypeVar("R")  # the result

Retry = dict[str, Any]
Failed = dict[str, str]  # {"err": text}


class TypedCalls:
    """The `*_typed` calls of an orchestration's context.

    `name` is a registered function or its name. By function, `input` has the type of its second parameter and is passed as the value that
    it is, and `yield from task.result()` has the function's result type, as far as that survives JSON (a tuple arrives as a list).
    TypeError for a function that is not registered in this process, or under several names.

    By name, a str as `input` is JSON text and passed on as it is, so "123" arrives as the number: the reference's meaning. `result_type` is
    for type checkers only.
    """

    # ── activities ──

    @overload
    def schedule_activity_typed(self, name: Callable[[ActivityContext, None], R], input: None = None) -> ScheduledTask[R]: ...
    @overload
    def schedule_activity_typed(self, name: Callable[[ActivityContext, I], R], input: I) -> ScheduledTask[R]: ...
    @overload
    def schedule_activity_typed(self, name: str, input: Any, result_type: type[R]) -> ScheduledTask[R]: ...
    @overload
    def schedule_activity_typed(self, name: str, input: Any = None, *, result_type: type[R]) -> ScheduledTask[R]: ...
    @overload
    def schedule_activity_typed(self, name: str, input: Any = None, result_type: None = None) -> ScheduledTask: ...
    def schedule_activity_typed(self, name: Any, input: Any = None, result_type: Any = None) -> ScheduledTask[Any]:
        """As `schedule_activity`, by function or by name."""
        name, input = _activity(name, input)
        return ScheduledTask(type="activity", name=name, input=input, _typed=True)

    @overload
    def schedule_activity_on_session_typed(
        self, name: Callable[[ActivityContext, I], R], input: I, session_id: str
    ) -> ScheduledTask[R]: ...
    @overload
    def schedule_activity_on_session_typed(
        self, name: str, input: Any = None, session_id: str | None = None
    ) -> ScheduledTask: ...
    def schedule_activity_on_session_typed(
        self, name: Any, input: Any = None, session_id: str | None = None
    ) -> ScheduledTask[Any]:
        """As `schedule_activity_on_session`, by function or by name."""
        name, input = _activity(name, input)
        return ScheduledTask(type="activityWithSession", name=name, input=input, sessionId=session_id, _typed=True)

    @overload
    def schedule_activity_with_retry_typed(
        self, name: Callable[[ActivityContext, I], R], input: I, retry: Retry | None = None
    ) -> ScheduledTask[R]: ...
    @overload
    def schedule_activity_with_retry_typed(self, name: str, input: Any = None, retry: Retry | None = None) -> ScheduledTask: ...
    def schedule_activity_with_retry_typed(self, name: Any, input: Any = None, retry: Retry | None = None) -> ScheduledTask[Any]:
        """As `schedule_activity_with_retry`, by function or by name; no `retry` is `{}`."""
        name, input = _activity(name, input)
        return ScheduledTask(type="activityWithRetry", name=name, input=input, retry=retry_policy(retry or {}), _typed=True)

    @overload
    def schedule_activity_with_retry_on_session_typed(
        self, name: Callable[[ActivityContext, I], R], input: I, retry: Retry | None, session_id: str
    ) -> ScheduledTask[R]: ...
    @overload
    def schedule_activity_with_retry_on_session_typed(
        self, name: str, input: Any = None, retry: Retry | None = None, session_id: str | None = None
    ) -> ScheduledTask: ...
    def schedule_activity_with_retry_on_session_typed(
        self, name: Any, input: Any = None, retry: Retry | None = None, session_id: str | None = None
    ) -> ScheduledTask[Any]:
        """As `schedule_activity_with_retry_on_session`, by function or by name."""
        name, input = _activity(name, input)
        task = ScheduledTask[Any](type="activityWithRetryOnSession", name=name, input=input, retry=retry_policy(retry or {}))
        task.update(sessionId=session_id, _typed=True)
        return task

    # ── events and queues ──

    def wait_for_event_typed(self, name: str) -> Task:
        """As `OrchestrationContext.wait_for_event`."""
        return {"type": "waitEvent", "name": name, "_typed": True}

    def dequeue_event_typed(self, queue_name: str) -> Task:
        """As `OrchestrationContext.dequeue_event`."""
        return {"type": "dequeueEvent", "queueName": queue_name, "_typed": True}

    # ── other orchestrations ──

    @overload
    def schedule_sub_orchestration_typed(
        self, name: Callable[[OrchestrationContext, None], Generator[Any, Any, R]], input: None = None
    ) -> TypedTask[R]: ...
    @overload
    def schedule_sub_orchestration_typed(
        self, name: Callable[[OrchestrationContext, I], Generator[Any, Any, R]], input: I
    ) -> TypedTask[R]: ...
    @overload
    def schedule_sub_orchestration_typed(self, name: str, input: Any, result_type: type[R]) -> TypedTask[R]: ...
    @overload
    def schedule_sub_orchestration_typed(self, name: str, input: Any = None, *, result_type: type[R]) -> TypedTask[R]: ...
    @overload
    def schedule_sub_orchestration_typed(self, name: str, input: Any = None, result_type: None = None) -> TypedTask: ...
    def schedule_sub_orchestration_typed(self, name: Any, input: Any = None, result_type: Any = None) -> TypedTask[Any]:
        """As `schedule_sub_orchestration`, by generator function or by name."""
        name, input = _orchestration(name, input)
        return TypedTask(type="subOrchestration", name=name, input=input, _typed=True)

    @overload
    def schedule_sub_orchestration_with_id_typed(
        self, name: Callable[[OrchestrationContext, I], Generator[Any, Any, R]], instance_id: str, input: I
    ) -> TypedTask[R]: ...
    @overload
    def schedule_sub_orchestration_with_id_typed(self, name: str, instance_id: str, input: Any = None) -> TypedTask: ...
    def schedule_sub_orchestration_with_id_typed(self, name: Any, instance_id: str, input: Any = None) -> TypedTask[Any]:
        """As `schedule_sub_orchestration_with_id`, by generator function or by name."""
        name, input = _orchestration(name, input)
        return TypedTask(type="subOrchestrationWithId", name=name, instanceId=instance_id, input=input, _typed=True)

    @overload
    def start_orchestration_typed(self, name: Callable[[OrchestrationContext, I], Any], instance_id: str, input: I) -> Task: ...
    @overload
    def start_orchestration_typed(self, name: str, instance_id: str, input: Any = None) -> Task: ...
    def start_orchestration_typed(self, name: Any, instance_id: str, input: Any = None) -> Task:
        """As `OrchestrationContext.start_orchestration`, by function or by name."""
        name, input = _orchestration(name, input)
        return {"type": "orchestration", "name": name, "instanceId": instance_id, "input": input}

    @overload
    def start_orchestration_versioned_typed(
        self, name: Callable[[OrchestrationContext, I], Any], version: str, instance_id: str, input: I
    ) -> Task: ...
    @overload
    def start_orchestration_versioned_typed(self, name: str, version: str, instance_id: str, input: Any = None) -> Task: ...
    def start_orchestration_versioned_typed(self, name: Any, version: str, instance_id: str, input: Any = None) -> Task:
        """As `OrchestrationContext.start_orchestration_versioned`, by function or by name."""
        name, input = _orchestration(name, input)
        return {"type": "orchestrationVersioned", "name": name, "version": version, "instanceId": instance_id, "input": input}

    def continue_as_new_typed(self, input: Any = None) -> Task:
        """As `OrchestrationContext.continue_as_new`; a str as `input` is JSON text."""
        return {"type": "continueAsNew", "input": _raw(input)}

    # ── several at once ──

    @overload
    def all_typed(self, tasks: Sequence[TypedTask[R]]) -> TypedTask[list[R | Failed]]: ...
    @overload
    def all_typed(self, tasks: list[Any] | tuple[Any, ...]) -> TypedTask[list[Any]]: ...
    def all_typed(self, tasks: Any) -> TypedTask[Any]:
        """As `OrchestrationContext.all`, with the plain value in place of {"ok": value}; {"err": text} stays."""
        return TypedTask(type="join", tasks=tasks, _typed_all=True)

    def race_typed(self, *tasks: Any) -> Task:
        """As `OrchestrationContext.race`."""
        return {"type": "select", "tasks": list(tasks), "_typed_race": True}


def _activity(name: Any, input: Any) -> tuple[Any, str]:
    return (name_of("activity", name), dumps(input)) if callable(name) else (name, _raw(input))


def _orchestration(name: Any, input: Any) -> tuple[Any, str]:
    return (name_of("orchestration", name), dumps(input)) if callable(name) else (name, _raw(input))


def _raw(input: Any) -> str:
    return input if isinstance(input, str) else dumps(input)
