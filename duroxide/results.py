"""The values that client calls return: status, metrics, infos, trees, events, counts.

Owns their names, attributes and the rule who may write them. Refuses to know how they are computed: the package builds
them through `_make`, users cannot build them (as in the reference).
"""

from __future__ import annotations

import json
from typing import Any, ClassVar, TypeVar

from . import arguments

_R = TypeVar("_R", bound="Record")


class Record:
    """Read-only attributes, identity equality, readable repr; copies and pickles."""

    @classmethod
    def _make(cls: type[_R], **values: Any) -> _R:
        made = object.__new__(cls)
        made.__dict__.update(values)
        return made

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__:
            raise AttributeError(f"attribute '{name}' of 'duroxide.{type(self).__name__}' objects is not writable")
        raise AttributeError(f"'duroxide.{type(self).__name__}' object has no attribute '{name}'")

    def __delattr__(self, name: str) -> None:
        self.__setattr__(name, None)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.__dict__)


def _restore(cls: type[_R], values: dict[str, Any]) -> _R:
    return cls._make(**values)


class Value(Record):
    """A record that only this package builds: its attributes are those annotated in its class."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Value:
        raise TypeError(f"No constructor defined for {cls.__name__}")


class WritableValue(Value):
    """A record whose attributes may be written with values of their own kind."""

    _texts: ClassVar[tuple[str, ...]] = ()
    _optional_texts: ClassVar[tuple[str, ...]] = ()
    _optional_numbers: ClassVar[tuple[str, ...]] = ()

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.__dict__:
            super().__setattr__(name, value)
        if name in self._texts:
            value = arguments.text(name, value)
        elif name in self._optional_texts:
            value = arguments.optional_text(name, value)
        elif value is not None or name not in self._optional_numbers:
            value = arguments.unsigned(name, value)
        self.__dict__[name] = value

    def __delattr__(self, name: str) -> None:
        raise AttributeError("can't delete attribute" if name in self.__dict__ else f"no attribute '{name}'")


class OrchestrationStatus(WritableValue):
    """A status as the reference's native calls return it; writable, `output` is JSON text as stored. See `OrchestrationResult`."""

    _texts = ("status",)
    _optional_texts = ("output", "error", "custom_status")
    status: str
    output: str | None
    error: str | None
    custom_status: str | None
    custom_status_version: int


class SystemMetrics(Value):
    """Counts over the whole store (`Client.get_system_metrics`); instances by the status of their current execution."""

    total_instances: int
    total_executions: int
    running_instances: int
    completed_instances: int
    failed_instances: int
    total_events: int


class SystemStats(Value):
    """Sizes of one instance (`Client.get_orchestration_stats`).

    :ivar history_event_count: events of its current execution
    :ivar history_size_bytes: their stored JSON text (on SQLite in characters, as the reference has it)
    :ivar queue_pending_count: queue messages that were carried into the current execution
    :ivar kv_user_key_count: key-value entries
    :ivar kv_total_value_bytes: their values together (on SQLite in characters)
    """

    history_event_count: int
    history_size_bytes: int
    queue_pending_count: int
    kv_user_key_count: int
    kv_total_value_bytes: int


class QueueDepths(Value):
    """Rows that wait in the queues and are not leased to anyone (`Client.get_queue_depths`).

    :ivar orchestrator_queue: messages for instances, pending timers included
    :ivar worker_queue: activities
    :ivar timer_queue: 0; timers are messages
    """

    orchestrator_queue: int
    worker_queue: int
    timer_queue: int


class InstanceInfo(WritableValue):
    """One instance (`Client.get_instance_info`); writable, times in Unix ms.

    :ivar status: "Running", "Completed", "Failed" or "ContinuedAsNew", of the current execution
    :ivar output: as stored: JSON text, or the error text of a failure; None while it runs
    :ivar parent_instance_id: None for a root
    """

    _texts = ("instance_id", "orchestration_name", "orchestration_version", "status")
    _optional_texts = ("output", "parent_instance_id")
    instance_id: str
    orchestration_name: str
    orchestration_version: str
    current_execution_id: int
    status: str
    output: str | None
    created_at: int
    updated_at: int
    parent_instance_id: str | None


class ExecutionInfo(WritableValue):
    """One execution of an instance (`Client.get_execution_info`); writable, times in Unix ms.

    :ivar output: as stored: JSON text, the error text of a failure, or the next input of one that continued as new
    :ivar completed_at: None while it runs
    """

    _texts = ("status",)
    _optional_texts = ("output",)
    _optional_numbers = ("completed_at",)
    execution_id: int
    status: str
    output: str | None
    started_at: int
    completed_at: int | None
    event_count: int


class InstanceTree(Value):
    """An instance with all its descendants, root first, depth first (`Client.get_instance_tree`); `size` is their number."""

    root_id: str
    all_ids: list[str]
    size: int


class DeleteInstanceResult(Value):
    """What a delete removed, children included."""

    instances_deleted: int
    executions_deleted: int
    events_deleted: int
    queue_messages_deleted: int


class PruneResult(Value):
    """What a prune looked at and removed."""

    instances_processed: int
    executions_deleted: int
    events_deleted: int


class Event(Value):
    """One history event (`Client.read_execution_history`).

    :ivar event_id: from 1, without a gap, per execution
    :ivar kind: one of 26, such as "ActivityScheduled"
    :ivar source_event_id: of a completion or a cancel request: the id of the event that asked
    :ivar timestamp_ms: when it was written, Unix ms
    :ivar data: the payload as text, None for kinds that have none: names, inputs and results spliced as they are stored
    """

    event_id: int
    kind: str
    source_event_id: int | None
    timestamp_ms: int
    data: str | None


class MetricsSnapshot(Value):
    """Counters of one runtime since it started (`Runtime.metrics_snapshot`); each thing is counted once.

    :ivar orch_starts: executions that began here
    :ivar orch_completions: those that returned
    :ivar orch_failures: those that failed or were cancelled; the next four say why
    :ivar activity_success: activities whose result is stored; the next four count failures by cause
    :ivar orch_dispatcher_items_fetched: turns claimed
    :ivar worker_dispatcher_items_fetched: activities claimed
    :ivar orch_continue_as_new: executions that continued as new
    :ivar suborchestration_calls: children asked for
    :ivar provider_errors: errors of the store
    """

    orch_starts: int
    orch_completions: int
    orch_failures: int
    orch_application_errors: int
    orch_infrastructure_errors: int
    orch_configuration_errors: int
    orch_poison: int
    activity_success: int
    activity_app_errors: int
    activity_infra_errors: int
    activity_config_errors: int
    activity_poison: int
    orch_dispatcher_items_fetched: int
    worker_dispatcher_items_fetched: int
    orch_continue_as_new: int
    suborchestration_calls: int
    provider_errors: int


class OrchestrationResult:
    """What `Client.get_status` and the waits return: an ordinary object with `output` decoded.

    :ivar status: "NotFound", "Running", "Completed" or "Failed"; a cancelled instance is "Failed"
    :ivar output: what a completed instance returned; None otherwise
    :ivar error: the text of a failure: a traceback, `canceled: {reason}`, `nondeterministic: ...`, `poison: ...`; None otherwise
    :ivar custom_status: the text set last, None if there is none
    :ivar custom_status_version: how many turns have written it
    """

    def __init__(
        self,
        status: str,
        output: Any = None,
        error: str | None = None,
        custom_status: str | None = None,
        custom_status_version: int = 0,
    ) -> None:
        self.status = status
        self.output = output
        self.error = error
        self.custom_status = custom_status
        self.custom_status_version = custom_status_version

    def __repr__(self) -> str:
        return f"OrchestrationResult({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


def decoded(text: str | None) -> Any:
    """The value of a stored JSON text; the text itself where it is not JSON (the reference stores such, too)."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def of_status(raw: OrchestrationStatus) -> OrchestrationResult:
    """The public form of a raw status."""
    return OrchestrationResult(raw.status, decoded(raw.output), raw.error, raw.custom_status, raw.custom_status_version)


def parse_result(result: Any) -> Any:
    """The plain values of an `all` result: {"ok": v} becomes v, in a list or alone; a lone {"err": text} is raised as an Exception."""
    if isinstance(result, list):
        return [item["ok"] if isinstance(item, dict) and "ok" in item else item for item in result]
    if isinstance(result, dict):
        if "ok" in result:
            return result["ok"]
        if "err" in result:
            raise Exception(result["err"])
    return result
