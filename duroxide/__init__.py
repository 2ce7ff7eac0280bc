"""Durable execution inside a Python process: the public names. Start with `SqliteProvider`, `Runtime` and `Client`."""

from duroxide.client import Client
from duroxide.context import ActivityContext, OrchestrationContext, ScheduledTask
from duroxide.driver import create_generator, dispose_generator, next_step
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
from duroxide.runtime.runtime import Runtime
from duroxide.storage.sqlite import SqliteProvider
from duroxide.tracing import init_tracing

__version__ = "0.3.0"
