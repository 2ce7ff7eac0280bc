"""The reference's native names, kept importable: calls by token, and the value classes under both of their names.

A token is `ctx._ctx_token` or `ctx._trace_token`; for a token that nobody has (any more) every call is a silent no-op.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from . import arguments
from .client import Client
from .context import ActivityContext, OrchestrationContext, of_token
from .options import InstanceFilter, PruneOptions, RuntimeOptions
from .postgres import PostgresEntraOptions, PostgresProvider
from .results import (
    DeleteInstanceResult,
    Event,
    ExecutionInfo,
    InstanceInfo,
    InstanceTree,
    MetricsSnapshot,
    OrchestrationStatus,
    PruneResult,
    QueueDepths,
    SystemMetrics,
    SystemStats,
)
from .runtime.runtime import Runtime
from .storage.sqlite import SqliteProvider
from .tracing import init_tracing

PyClient: TypeAlias = Client
PyRuntime: TypeAlias = Runtime
PySqliteProvider: TypeAlias = SqliteProvider
PyPostgresProvider: TypeAlias = PostgresProvider
PyPostgresEntraOptions: TypeAlias = PostgresEntraOptions

__all__ = [
    "DeleteInstanceResult", "Event", "ExecutionInfo", "InstanceFilter", "InstanceInfo", "InstanceTree", "MetricsSnapshot",
    "OrchestrationStatus", "PruneOptions", "PruneResult", "PyClient", "PyPostgresEntraOptions", "PyPostgresProvider", "PyRuntime",
    "PySqliteProvider", "QueueDepths", "RuntimeOptions", "SystemMetrics", "SystemStats", "activity_get_client",
    "activity_is_cancelled", "activity_tag", "activity_trace_log", "init_tracing", "orchestration_clear_all_kv_values",
    "orchestration_clear_kv_value", "orchestration_get_custom_status", "orchestration_get_kv_all_keys",
    "orchestration_get_kv_all_values", "orchestration_get_kv_length", "orchestration_get_kv_value", "orchestration_prune_kv_values",
    "orchestration_reset_custom_status", "orchestration_set_custom_status", "orchestration_set_kv_value", "orchestration_trace_log",
]  # fmt: skip


def _orchestration(token: str) -> OrchestrationContext | None:
    context = of_token(arguments.text("token", token))
    return context if isinstance(context, OrchestrationContext) else None


def _activity(token: str) -> ActivityContext | None:
    context = of_token(arguments.text("token", token))
    return context if isinstance(context, ActivityContext) else None


def _trace(context: Any, level: str, message: str) -> None:
    wanted, text = arguments.text("level", level), arguments.text("message", message)
    if context is not None:
        context._trace(wanted, text)


def orchestration_trace_log(token: str, level: str, message: str) -> None:
    """`OrchestrationContext.trace_info` and its sisters, by `level` (info, warn, error, debug; others count as info)."""
    _trace(_orchestration(token), level, message)


def activity_trace_log(token: str, level: str, message: str) -> None:
    """`ActivityContext.trace_info` and its sisters, by `level`."""
    _trace(_activity(token), level, message)


def activity_is_cancelled(token: str) -> bool:
    """`ActivityContext.is_cancelled`; False for a token that nobody has."""
    context = _activity(token)
    return context is not None and context.is_cancelled()


def activity_tag(token: str) -> str | None:
    """`ActivityContext.tag`; None for a token that nobody has."""
    context = _activity(token)
    return None if context is None else context.tag()


def activity_get_client(token: str) -> Client | None:
    """`ActivityContext.get_client`; None for a token that nobody has."""
    context = _activity(token)
    return None if context is None else context.get_client()


def orchestration_set_custom_status(token: str, status: str) -> None:
    """`OrchestrationContext.set_custom_status`."""
    context = _orchestration(token)
    if context is not None:
        context.set_custom_status(status)


def orchestration_reset_custom_status(token: str) -> None:
    """`OrchestrationContext.reset_custom_status`."""
    context = _orchestration(token)
    if context is not None:
        context.reset_custom_status()


def orchestration_get_custom_status(token: str) -> str | None:
    """`OrchestrationContext.get_custom_status`."""
    context = _orchestration(token)
    return None if context is None else context.get_custom_status()


def orchestration_set_kv_value(token: str, key: str, value: str) -> None:
    context = _orchestration(token)
    if context is not None:
        context.set_kv_value(key, value)


def orchestration_get_kv_value(token: str, key: str) -> str | None:
    context = _orchestration(token)
    return None if context is None else context.get_kv_value(key)


def orchestration_get_kv_all_keys(token: str) -> list[str]:
    context = _orchestration(token)
    return [] if context is None else context.get_kv_all_keys()


def orchestration_get_kv_all_values(token: str) -> dict[str, str]:
    context = _orchestration(token)
    return {} if context is None else context.get_kv_all_values()


def orchestration_get_kv_length(token: str) -> int:
    context = _orchestration(token)
    return 0 if context is None else context.get_kv_length()


def orchestration_clear_kv_value(token: str, key: str) -> None:
    context = _orchestration(token)
    if context is not None:
        context.clear_kv_value(key)


def orchestration_clear_all_kv_values(token: str) -> None:
    context = _orchestration(token)
    if context is not None:
        context.clear_all_kv_values()


def orchestration_prune_kv_values(token: str, cutoff_ms: int) -> int:
    context = _orchestration(token)
    return 0 if context is None else context.prune_kv_values_updated_before(cutoff_ms)
