"""The tables and indexes of a PostgreSQL schema, as text; `{s}` stands for the quoted name of the schema.

Owns the reference's tables (same names, columns, defaults) and our own indexes beside them. Knows no connection and no order of events.
"""

from __future__ import annotations

# What the reference's own ledger holds, once it has made a schema. 22 and 24 do not exist there.
REFERENCE_VERSIONS = frozenset((*range(1, 22), 23, 25))
REFERENCE_LEDGER = "_duroxide_migrations"
# Ours. The reference passes over tables that it does not know.
LEDGER = "dx_schema"
LEDGER_TABLE = "CREATE TABLE IF NOT EXISTS {s}.dx_schema (version integer PRIMARY KEY, made_at timestamptz NOT NULL DEFAULT now())"

# Column definitions in the reference's order; the key stands last. Times of leases and of sessions are Unix ms.
TABLES: dict[str, tuple[tuple[tuple[str, str], ...], str]] = {
    "instances": ((
        ("instance_id", "text NOT NULL"), ("orchestration_name", "text NOT NULL"), ("orchestration_version", "text"),
        ("current_execution_id", "bigint NOT NULL DEFAULT 1"), ("created_at", "timestamptz NOT NULL"),
        ("updated_at", "timestamptz NOT NULL"), ("parent_instance_id", "text"), ("custom_status", "text"),
        ("custom_status_version", "integer NOT NULL DEFAULT 0"),
    ), "PRIMARY KEY (instance_id)"),
    "executions": ((
        ("instance_id", "text NOT NULL"), ("execution_id", "bigint NOT NULL"), ("status", "text NOT NULL DEFAULT 'Running'"),
        ("output", "text"), ("started_at", "timestamptz NOT NULL"), ("completed_at", "timestamptz"),
        ("duroxide_version_major", "integer"), ("duroxide_version_minor", "integer"), ("duroxide_version_patch", "integer"),
    ), "PRIMARY KEY (instance_id, execution_id)"),
    "history": ((
        ("instance_id", "text NOT NULL"), ("execution_id", "bigint NOT NULL"), ("event_id", "bigint NOT NULL"),
        ("event_type", "text NOT NULL"), ("event_data", "text NOT NULL"), ("created_at", "timestamptz NOT NULL"),
    ), "PRIMARY KEY (instance_id, execution_id, event_id)"),
    "orchestrator_queue": ((
        ("id", "bigserial"), ("instance_id", "text NOT NULL"), ("work_item", "text NOT NULL"), ("visible_at", "timestamptz NOT NULL"),
        ("lock_token", "text"), ("locked_until", "bigint"), ("created_at", "timestamptz NOT NULL"),
        ("attempt_count", "integer NOT NULL DEFAULT 0"),
    ), "PRIMARY KEY (id)"),
    "worker_queue": ((
        ("id", "bigserial"), ("work_item", "text NOT NULL"), ("visible_at", "timestamptz NOT NULL"), ("lock_token", "text"),
        ("locked_until", "bigint"), ("created_at", "timestamptz NOT NULL"), ("attempt_count", "integer NOT NULL DEFAULT 0"),
        ("instance_id", "text"), ("execution_id", "bigint"), ("activity_id", "bigint"), ("session_id", "text"), ("tag", "text"),
    ), "PRIMARY KEY (id)"),
    "instance_locks": ((
        ("instance_id", "text NOT NULL"), ("lock_token", "text NOT NULL"), ("locked_until", "bigint NOT NULL"),
        ("locked_at", "bigint NOT NULL"),
    ), "PRIMARY KEY (instance_id)"),
    "sessions": ((
        ("session_id", "text NOT NULL"), ("worker_id", "text NOT NULL"), ("locked_until", "bigint NOT NULL"),
        ("last_activity_at", "bigint NOT NULL"),
    ), "PRIMARY KEY (session_id)"),
    "kv_store": ((
        ("instance_id", "text NOT NULL"), ("key", "text NOT NULL"), ("value", "text NOT NULL"), ("execution_id", "bigint NOT NULL"),
        ("last_updated_at_ms", "bigint NOT NULL DEFAULT 0"),
    ), "PRIMARY KEY (instance_id, key)"),
    "kv_delta": ((
        ("instance_id", "text NOT NULL"), ("key", "text NOT NULL"), ("value", "text"), ("last_updated_at_ms", "bigint NOT NULL"),
    ), "PRIMARY KEY (instance_id, key)"),
}  # fmt: skip

# The reference's indexes, made with new tables only. Left out: idx_history_lookup (the primary key once more) and
# idx_kv_store_execution (nobody reads it); both would only cost on each write.
REFERENCE_INDEXES: tuple[str, ...] = (
    "CREATE INDEX idx_instances_parent ON {s}.instances (parent_instance_id)",
    "CREATE INDEX idx_instance_locks_locked_until ON {s}.instance_locks (locked_until)",
    "CREATE INDEX idx_orch_instance ON {s}.orchestrator_queue (instance_id)",
    "CREATE INDEX idx_orch_visible ON {s}.orchestrator_queue (visible_at, lock_token)",
    "CREATE INDEX idx_orch_lock ON {s}.orchestrator_queue (lock_token) WHERE lock_token IS NOT NULL",
    "CREATE INDEX idx_worker_available ON {s}.worker_queue (lock_token, id)",
    "CREATE INDEX idx_worker_visible ON {s}.worker_queue (visible_at, lock_token)",
    "CREATE INDEX idx_worker_activity_lookup ON {s}.worker_queue (instance_id, execution_id, activity_id)",
    "CREATE INDEX idx_worker_queue_session_id ON {s}.worker_queue (session_id) WHERE session_id IS NOT NULL",
    "CREATE INDEX idx_worker_queue_tag ON {s}.worker_queue (tag) WHERE tag IS NOT NULL",
)

# Ours, in every schema, adopted ones too: what the admin calls stand on. `postgres_exchange_sql` has those of the hot statements.
ADMIN_INDEXES: tuple[str, ...] = (
    # Without the completed ones, which are most: lists of what runs or failed, at little cost where instances complete.
    "CREATE INDEX IF NOT EXISTS dx_executions_open ON {s}.executions (status, instance_id) WHERE status IN ('Running', 'Failed')",
    "CREATE INDEX IF NOT EXISTS dx_instances_created ON {s}.instances (created_at, instance_id)",
)

# name of the schema -> (table, column, whether it must be filled: NOT NULL without a default)
COLUMNS = (
    "SELECT c.relname, a.attname, a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''"
    " FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p')"
    " JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped WHERE n.nspname = %s"
)
# name of the schema -> names of its usable indexes
INDEXES = (
    "SELECT c.relname FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid"
    " JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid AND i.indisvalid WHERE n.nspname = %s"
)
# name of the schema -> names of its functions
FUNCTIONS = (
    "SELECT p.proname FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_proc p ON p.pronamespace = n.oid WHERE n.nspname = %s"
)
SCHEMA_EXISTS = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = %s"
REFERENCE_APPLIED = "SELECT version FROM {s}._duroxide_migrations"
APPLIED = "SELECT version FROM {s}.dx_schema"
STAMP = "INSERT INTO {s}.dx_schema (version) VALUES (%s) ON CONFLICT DO NOTHING"
CREATE_SCHEMA = "CREATE SCHEMA {s}"
LOCK = "SELECT pg_catalog.pg_advisory_xact_lock(%s)"
# Making indexes on a big adopted schema may take longer than any timeout of the role.
PATIENT = "SET LOCAL statement_timeout = 0", "SET LOCAL lock_timeout = 0", "SET LOCAL idle_in_transaction_session_timeout = 0"
