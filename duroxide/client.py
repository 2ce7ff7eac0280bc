"""`Client`: starts instances, sends them things, waits for them, looks at them and removes them.

Owns the checks of what is passed, the waits and the shapes of what comes back. Refuses to know any named backend and the
engine: it hands messages to the store's queue and reads rows; the runtimes do the rest.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from . import arguments, errors, events
from .options import InstanceFilter, PruneOptions
from .registry import version_key
from .results import (
    DeleteInstanceResult,
    Event,
    ExecutionInfo,
    InstanceInfo,
    InstanceTree,
    OrchestrationResult,
    PruneResult,
    QueueDepths,
    SystemMetrics,
    SystemStats,
    decoded,
)
from .runtime import clock
from .storage._queue import Queue
from .storage.base import NO_EVENTS, Done, Loaded, Provider, Request

_T = TypeVar("_T")

UNLIMITED = 1 << 62
BULK_LIMIT = 1_000  # instances that a bulk call touches if its filter has no limit
FOREVER = float("inf")
_FAILURES = {"Configuration": errors.NondeterminismError, "Poison": errors.PoisonError}


class Client:
    """Calls of one program on one store; thread-safe, cheap to make, any number per provider.

    What a call returned from is durable. Every wait ends as soon as the store changes; times are in ms.

    Every call raises TypeError, OverflowError or UnicodeEncodeError for arguments of the wrong kind, before anything is
    written, and a RuntimeError when the store cannot do what was asked (`StoreError` from those that write or read an instance,
    `ProviderError` from those that look and remove). Payloads are what `json.dumps` takes. The typed variants of starts, events
    and queues are the same calls under a second name.

    `provider`: a `SqliteProvider` or another store, as for `Runtime`.
    """

    def __init__(self, provider: Any) -> None:
        self._native: Provider = arguments.native(provider)
        self._queue = Queue.of(self._native)

    def __repr__(self) -> str:
        return f"Client({self._native.name})"

    def _send(self, messages: list[tuple[str, str, int]]) -> None:
        done = Done()
        done.messages = messages
        self._queue.submit(Request(clock.now(), done))

    # ── start and send ──

    def start_orchestration(self, instance_id: str, name: str, input: Any = None) -> None:
        """Start the latest version of an orchestration. Does nothing if the id exists, running or finished.

        Whether `name` is registered anywhere is not looked at: the instance waits for a runtime that has it. Raises OptionError
        for an id that begins with `sub::` or contains `::sub::`, which the engine uses for children.
        """
        self._send([_start(instance_id, name, input)])

    def start_orchestration_versioned(self, instance_id: str, name: str, input: Any, version: str) -> None:
        """As `start_orchestration`, of that version (`major.minor.patch`); OptionError if the text is no version."""
        self._send([_start(instance_id, name, input, arguments.text("version", version))])

    def start_orchestrations(self, starts: Iterable[tuple[Any, ...]]) -> None:
        """Start many in one transaction: (instance_id, name), (instance_id, name, input) or (instance_id, name, input, version) each.

        All or none: an argument that is refused, or a store that fails, starts nothing.
        """
        messages = [_start(*_arguments_of(index, start)) for index, start in enumerate(starts)]
        if messages:
            self._send(messages)

    def raise_event(self, instance_id: str, event_name: str, data: Any = None) -> None:
        """Send an event to whoever waits for it now (`OrchestrationContext.wait_for_event`).

        It is not kept: one that nobody waits for is lost, and one to an id that does not exist goes nowhere, without an error.
        See `enqueue_event` for messages that are kept.
        """
        payload, instance = json.dumps(data), arguments.text("instance_id", instance_id)
        self._send([(instance, events.external_item(instance, arguments.text("event_name", event_name), payload), 0)])

    def enqueue_event(self, instance_id: str, queue_name: str, data: Any = None) -> None:
        """Append a message to a queue of a started instance; kept until `OrchestrationContext.dequeue_event` takes it.

        To an id that does not exist, or has ended, it goes nowhere, without an error.
        """
        payload, instance = json.dumps(data), arguments.text("instance_id", instance_id)
        self._send([(instance, events.queue_item(instance, arguments.text("queue_name", queue_name), payload), 0)])

    def cancel_instance(self, instance_id: str, reason: str | None = None) -> None:
        """Cancel at the instance's next turn, children included; one that does not exist yet is cancelled when it starts.

        It ends as "Failed" with the error `canceled: {reason}`. One that has ended stays as it is; the first reason counts.
        """
        instance = arguments.text("instance_id", instance_id)
        self._send([(instance, events.cancel_item(instance, arguments.optional_text("reason", reason) or ""), 0)])

    start_orchestration_typed = start_orchestration
    start_orchestration_versioned_typed = start_orchestration_versioned
    raise_event_typed = raise_event
    enqueue_event_typed = enqueue_event

    # ── status and waits ──

    def get_status(self, instance_id: str) -> OrchestrationResult:
        """The status now; "NotFound" until the first turn of an instance is committed."""
        return self._status(arguments.text("instance_id", instance_id))

    def _status(self, instance: str) -> OrchestrationResult:
        row = self._native.load(instance, None, NO_EVENTS)
        return OrchestrationResult("NotFound") if row is None else _result(row)

    def wait_for_orchestration(self, instance_id: str, timeout_ms: int = 30_000) -> OrchestrationResult:
        """The status, as soon as the instance has ended. A negative timeout waits for ever, 0 looks once.

        Raises OperationTimeout (a RuntimeError and TimeoutError), also for an id that does not exist.
        """
        instance, limit = arguments.text("instance_id", instance_id), arguments.signed("timeout_ms", timeout_ms)
        return self._wait(instance, lambda: _if(_ended, self._status(instance)), FOREVER if limit < 0 else limit)

    def wait_for_orchestration_typed(self, instance_id: str, timeout_ms: int = 30_000) -> Any:
        """The output, decoded, as soon as the instance has ended.

        Raises OrchestrationFailed (or its subclass NondeterminismError or PoisonError) with the error's text if it failed,
        OperationTimeout as `wait_for_orchestration`.
        """
        result = self.wait_for_orchestration(instance_id, timeout_ms)
        if result.status == "Failed":
            raise self._failure(instance_id)(result.error or "Orchestration failed", instance_id)
        return result.output

    def _failure(self, instance: str) -> type[errors.OrchestrationFailed]:
        """The class of an instance's failure, from the details in its history (newest first)."""
        row = self._native.load(instance)
        for _, text in reversed(row.events if row else []):
            try:
                event = json.loads(text)
                if event["type"] == "OrchestrationFailed":
                    return _FAILURES.get(next(iter(event["details"])), errors.OrchestrationFailed)
            except (ValueError, TypeError, KeyError):
                break  # not readable: its text is all there is to say
        return errors.OrchestrationFailed

    def wait_for_status_change(
        self, instance_id: str, last_seen_version: int = 0, poll_interval_ms: int = 200, timeout_ms: int = 30_000
    ) -> OrchestrationResult:
        """The status as soon as its `custom_status_version` is above `last_seen_version`, or the instance has ended.

        Passing the `custom_status_version` of the last answer makes a loop that misses nothing but what was overwritten meanwhile.
        `poll_interval_ms` is accepted and not needed. Raises OperationTimeout; OverflowError for a negative number.
        """
        instance, seen = arguments.text("instance_id", instance_id), arguments.unsigned("last_seen_version", last_seen_version)
        arguments.unsigned("poll_interval_ms", poll_interval_ms)
        limit = arguments.unsigned("timeout_ms", timeout_ms)

        def changed(result: OrchestrationResult) -> bool:
            return result.custom_status_version > seen or _ended(result)

        return self._wait(instance, lambda: _if(changed, self._status(instance)), limit)

    def _wait(self, instance: str, look: Callable[[], _T | None], limit_ms: float, text: str = "Operation timed out") -> _T:
        """What `look` finds, asked again after every change; at least once, however short the limit."""
        deadline = time.monotonic() + limit_ms / 1_000
        with self._queue.watch(instance) as watch:  # before the first look: what comes after it is heard
            while True:
                found = look()
                if found is not None:
                    return found
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    raise errors.OperationTimeout(text)
                # In pieces: no platform takes a wait of 292 million years.
                watch.wait(min(remaining, 3_600.0))

    # ── key-value ──

    def get_kv_value(self, instance_id: str, key: str) -> str | None:
        """The text that the instance has stored under `key`, as of its last committed turn; None if there is no such entry or instance."""
        return self._native.kv_value(arguments.text("instance_id", instance_id), arguments.text("key", key))

    def get_kv_value_typed(self, instance_id: str, key: str) -> Any:
        """The stored JSON text decoded, or None; ValueError if it is not JSON."""
        value = self.get_kv_value(instance_id, key)
        return None if value is None else json.loads(value)

    def wait_for_kv_value(self, instance_id: str, key: str, timeout_ms: int = 30_000) -> str:
        """The text stored under `key`, as soon as there is one. Raises OperationTimeout; OverflowError for a negative timeout."""
        instance, name = arguments.text("instance_id", instance_id), arguments.text("key", key)
        limit = arguments.unsigned("timeout_ms", timeout_ms)
        text = f"Timed out waiting for value '{name}' on instance '{instance}'"
        return self._wait(instance, lambda: self._native.kv_value(instance, name), limit, text)

    def wait_for_kv_value_typed(self, instance_id: str, key: str, timeout_ms: int = 30_000) -> Any:
        """As `wait_for_kv_value`, decoded; ValueError if it is not JSON."""
        return json.loads(self.wait_for_kv_value(instance_id, key, timeout_ms))

    # ── numbers and lists ──

    def get_system_metrics(self) -> SystemMetrics:
        """Counts over the whole store; it reads all of it, so ask it every some seconds at most."""
        return SystemMetrics._make(**self._native.system_metrics())

    def get_orchestration_stats(self, instance_id: str) -> SystemStats | None:
        """Sizes of one instance (`SystemStats`), None if there is no such instance."""
        found = self._native.stats(arguments.text("instance_id", instance_id))
        return None if found is None else SystemStats._make(**found)

    def get_queue_depths(self) -> QueueDepths:
        """What waits in the queues now."""
        return QueueDepths._make(**self._native.queue_depths(clock.now()))

    def list_all_instances(self) -> list[str]:
        """All ids, newest first."""
        return self._native.instances(None)

    def list_instances_by_status(self, status: str) -> list[str]:
        """Ids by "Running", "Completed", "Failed" or "ContinuedAsNew" (exact case), newest first; anything else: []."""
        return self._native.instances(arguments.text("status", status))

    def list_executions(self, instance_id: str) -> list[int]:
        """Execution ids in order; [] for an unknown instance."""
        return self._native.executions(arguments.text("instance_id", instance_id))

    def get_instance_info(self, instance_id: str) -> InstanceInfo:
        """Name, version, status, output and times of an instance. Raises NotFound (a RuntimeError and LookupError)."""
        instance = arguments.text("instance_id", instance_id)
        found = self._native.instance_info(instance)
        if found is None:
            raise errors.NotFound(f"get_instance_info: Instance {instance} not found")
        return InstanceInfo._make(**found)

    def get_execution_info(self, instance_id: str, execution_id: int) -> ExecutionInfo:
        """Status, output, times and event count of one execution. Raises NotFound (a RuntimeError and LookupError)."""
        instance, number = arguments.text("instance_id", instance_id), arguments.signed("execution_id", execution_id)
        found = self._native.execution_info(instance, number)
        if found is None:
            raise errors.NotFound(f"get_execution_info: Execution {number} not found for instance {instance}")
        return ExecutionInfo._make(**found)

    def read_execution_history(self, instance_id: str, execution_id: int) -> list[Event]:
        """The events of one execution in order; [] if it is unknown. Raises ProviderError on an event that cannot be read."""
        instance, number = arguments.text("instance_id", instance_id), arguments.signed("execution_id", execution_id)
        row = self._native.load(instance, number)
        return [_event(text) for _, text in (row.events if row else [])]

    def get_instance_tree(self, instance_id: str) -> InstanceTree:
        """The instance and its descendants, root first, depth first; an unknown id is a tree of its own."""
        instance = arguments.text("instance_id", instance_id)
        ids = self._native.tree(instance) or [instance]
        return InstanceTree._make(root_id=instance, all_ids=ids, size=len(ids))

    # ── removal ──

    def delete_instance(self, instance_id: str, force: bool = False) -> DeleteInstanceResult:
        """Remove a root instance with its whole tree, history and queued messages; the id is free again.

        Raises NotFound; ProviderError (a RuntimeError) for a child, and without `force` for a tree in which something runs.
        """
        instance, forced = arguments.text("instance_id", instance_id), arguments.flag("force", force)
        info = self._native.instance_info(instance)
        if info is None:
            raise errors.NotFound(f"Instance {instance} not found")
        if info["parent_instance_id"] is not None:
            raise errors.ProviderError(
                f"Cannot delete sub-orchestration {instance} directly. Delete the root orchestration instead."
            )
        return DeleteInstanceResult._make(**self._native.delete(self._native.tree(instance), forced))

    def delete_instance_bulk(self, filter: InstanceFilter | None = None) -> DeleteInstanceResult:
        """Remove root instances that have ended, with their trees; others are skipped. At most 1,000 unless the filter's `limit` says so."""
        chosen = _instance(filter, "filter", InstanceFilter)
        return DeleteInstanceResult._make(
            **self._native.delete_bulk(chosen.instance_ids, chosen.completed_before, _limit(chosen.limit))
        )

    def prune_executions(self, instance_id: str, options: PruneOptions | None = None) -> PruneResult:
        """Remove old executions of one instance (all without options), never the current or a running one. Raises NotFound."""
        instance, chosen = arguments.text("instance_id", instance_id), _instance(options, "options", PruneOptions)
        if self._native.load(instance, None, NO_EVENTS) is None:
            raise errors.NotFound(f"prune_executions: Instance {instance} not found")
        found = self._native.prune(instance, _keep_last(chosen), chosen.completed_before)
        return PruneResult._make(**found)

    def prune_executions_bulk(self, filter: InstanceFilter | None = None, options: PruneOptions | None = None) -> PruneResult:
        """Remove old executions of all instances that the filter names, at most 1,000 unless its `limit` says so."""
        which, chosen = _instance(filter, "filter", InstanceFilter), _instance(options, "options", PruneOptions)
        return PruneResult._make(
            **self._native.prune_bulk(
                which.instance_ids, which.completed_before, _limit(which.limit), _keep_last(chosen), chosen.completed_before
            )
        )


def _arguments_of(index: int, start: object) -> tuple[Any, ...]:
    if not isinstance(start, (tuple, list)) or not 2 <= len(start) <= 4:
        raise TypeError(f"start {index} is {start!r:.200}, expected (instance_id, name[, input[, version]])")
    return tuple(start)


def _start(instance_id: Any, name: Any, input: Any = None, version: Any = None) -> tuple[str, str, int]:
    payload, instance = json.dumps(input), arguments.root_instance("instance_id", instance_id)
    orchestration, wanted = arguments.text("orchestration_name", name), arguments.optional_text("version", version)
    if wanted is not None and version_key(wanted) is None:
        raise errors.OptionError(
            f"Version should be valid semver: '{wanted}' is not; expected major.minor.patch, for example 1.2.0"
        )
    return instance, events.start_item(instance, orchestration, payload, wanted), 0


def _result(row: Loaded) -> OrchestrationResult:
    if row.status == "Completed":
        return OrchestrationResult("Completed", decoded(row.output), None, row.custom_status, row.custom_status_version)
    if row.status == "Failed":
        return OrchestrationResult("Failed", None, row.output, row.custom_status, row.custom_status_version)
    return OrchestrationResult("Running", None, None, row.custom_status, row.custom_status_version)


def _ended(result: OrchestrationResult) -> bool:
    return result.status in ("Completed", "Failed")


def _if(condition: Callable[[_T], bool], value: _T) -> _T | None:
    return value if condition(value) else None


def _event(text: str) -> Event:
    try:
        event_id, kind, source, timestamp, data = events.public_event(text)
    except (ValueError, KeyError, TypeError) as error:
        raise errors.ProviderError(f"read: {error}") from error
    return Event._make(event_id=event_id, kind=kind, source_event_id=source, timestamp_ms=timestamp, data=data)


def _instance(value: Any, argument: str, wanted: type[_T]) -> _T:
    """`value`, or an empty one for None; TypeError for anything of another class."""
    if value is None:
        return wanted()
    if not isinstance(value, wanted):
        raise TypeError(f"argument '{argument}': '{type(value).__name__}' object cannot be converted to '{wanted.__name__}'")
    return value


def _limit(limit: int | None) -> int:
    if limit is None:
        return BULK_LIMIT
    return limit if limit >= 0 else UNLIMITED


def _keep_last(options: PruneOptions) -> int | None:
    """A negative number keeps everything, as in the reference."""
    return options.keep_last if options.keep_last is None or options.keep_last >= 0 else UNLIMITED
