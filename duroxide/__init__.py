"""Durable execution inside a Python process: the public names. Start with `SqliteProvider`, `Runtime` and `Client`.

`__all__` is the reference's to the letter; what is public beside it is imported `as` itself, which is how type checkers are told.
"""

from typing import TypeAlias as _TypeAlias

from duroxide._duroxide import (
    PyClient as PyClient,
    PyPostgresEntraOptions as PyPostgresEntraOptions,
    PyPostgresProvider as PyPostgresProvider,
    PyRuntime as PyRuntime,
    PySqliteProvider as PySqliteProvider,
    activity_is_cancelled as activity_is_cancelled,
    activity_tag as activity_tag,
    activity_trace_log as activity_trace_log,
    orchestration_get_custom_status as orchestration_get_custom_status,
    orchestration_reset_custom_status as orchestration_reset_custom_status,
    orchestration_set_custom_status as orchestration_set_custom_status,
    orchestration_trace_log as orchestration_trace_log,
)
from duroxide.client import Client
from duroxide.context import ActivityContext, OrchestrationContext
from duroxide.driver import (
    create_generator as create_generator,
    dispose_generator as dispose_generator,
    next_step as next_step,
)
from duroxide.errors import (
    ActivityError as ActivityError,
    ActivityTimeout as ActivityTimeout,
    Cancelled as Cancelled,
    DuroxideError as DuroxideError,
    NondeterminismError as NondeterminismError,
    NotFound as NotFound,
    OperationTimeout as OperationTimeout,
    OptionError as OptionError,
    OrchestrationFailed as OrchestrationFailed,
    PoisonError as PoisonError,
    ProviderError as ProviderError,
    SubOrchestrationError as SubOrchestrationError,
)
from duroxide.options import (
    MAX_KV_KEYS,
    MAX_KV_VALUE_BYTES,
    MAX_TAG_NAME_BYTES,
    MAX_WORKER_TAGS,
    InstanceFilter,
    PruneOptions,
    RuntimeOptions,
    TagFilter,
)
from duroxide.postgres import PostgresEntraOptions, PostgresProvider
from duroxide.registry import functions as _orchestration_functions  # noqa: F401 - the reference has it
from duroxide.results import (
    DeleteInstanceResult,
    Event,
    ExecutionInfo,
    InstanceInfo,
    InstanceTree,
    MetricsSnapshot,
    OrchestrationResult,
    OrchestrationStatus,
    PruneResult,
    QueueDepths,
    SystemMetrics,
    SystemStats,
    of_status as _parse_status,  # noqa: F401 - the reference has it
    parse_result,
)
from duroxide.runtime.runtime import Runtime
from duroxide.storage.sqlite import SqliteProvider
from duroxide.tasks import ScheduledTask, TypedTask as TypedTask
from duroxide.tracing import init_tracing

__version__ = "0.3.0"

# Each on a line of its own: to type checkers that is an alias, two on one line are variables.
PyRuntimeOptions: _TypeAlias = RuntimeOptions
PyPruneOptions: _TypeAlias = PruneOptions
PyInstanceFilter: _TypeAlias = InstanceFilter
PyOrchestrationStatus: _TypeAlias = OrchestrationStatus
PySystemMetrics: _TypeAlias = SystemMetrics
PySystemStats: _TypeAlias = SystemStats
PyQueueDepths: _TypeAlias = QueueDepths
PyInstanceInfo: _TypeAlias = InstanceInfo
PyExecutionInfo: _TypeAlias = ExecutionInfo
PyInstanceTree: _TypeAlias = InstanceTree
PyDeleteInstanceResult: _TypeAlias = DeleteInstanceResult
PyPruneResult: _TypeAlias = PruneResult
PyEvent: _TypeAlias = Event
PyMetricsSnapshot: _TypeAlias = MetricsSnapshot

__all__ = [
    "SqliteProvider", "PostgresProvider", "PostgresEntraOptions", "Client", "Runtime", "OrchestrationResult", "RuntimeOptions",
    "OrchestrationContext", "ActivityContext", "ScheduledTask", "TagFilter", "OrchestrationStatus", "SystemMetrics", "SystemStats",
    "QueueDepths", "InstanceInfo", "ExecutionInfo", "InstanceTree", "DeleteInstanceResult", "PruneOptions", "PruneResult",
    "InstanceFilter", "Event", "MetricsSnapshot", "init_tracing", "parse_result", "MAX_WORKER_TAGS", "MAX_TAG_NAME_BYTES",
    "MAX_KV_KEYS", "MAX_KV_VALUE_BYTES", "PyRuntimeOptions", "PyOrchestrationStatus", "PySystemMetrics", "PySystemStats",
    "PyQueueDepths", "PyInstanceInfo", "PyExecutionInfo", "PyInstanceTree", "PyDeleteInstanceResult", "PyPruneOptions",
    "PyPruneResult", "PyInstanceFilter", "PyEvent", "PyMetricsSnapshot",
]  # fmt: skip
