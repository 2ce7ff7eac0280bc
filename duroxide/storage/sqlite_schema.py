"""The tables of a SQLite file: made in a fresh one, completed in an older one, refused in one that is newer than this engine.

Owns the reference's schema (tables, columns, names, its migration ledger) and our own indexes beside it. Everything is one transaction.
"""

from __future__ import annotations

import apsw

from duroxide.errors import ProviderError
from duroxide.storage.sqlite_sql import INDEXES

# Version, description and checksum of each step in the ledger: with these rows the reference finds nothing to do.
LEDGER: tuple[tuple[int, str, str], ...] = (
    (20240101000000, "initial schema", "E895B04735FC88843BF88C1FD038A4073C789DA7A74BE5E1A77EDD3AD38A832B158761F5A11410A7CF6CCB49808DA9BA"),
    (20240102000000, "add attempt count", "A1AF64E4A4211FA289189A141FF453F875D6468F72E0680ACC54518F006368BDA3E877DE040B75A9693CFFA24C280008"),
    (20240103000000, "add worker visible at", "01CFC0A852726929F1F7223FA9CCCF1584B34525FB49B6DB60210F143EA9923EDBF9B407958E01989FC00EE4415F6419"),
    (20240104000000, "add worker activity identity", "25FAFC591102BD90CF724C5D6F2855113F9118880B7B7FB5DD7210E4086FDE7021F55A2EA7141D478363C78504CD123B"),
    (20240105000000, "add parent instance id", "621CFAD15D7FECE832B660B57185BFDB753AD03561C91367897DFDC148E48EBF34FF6578BBCD6D3F139E9505BFA5EEA9"),
    (20240106000000, "add pinned version", "13F4C421EDA183F3E3F1CE807E211727E2BEE2149C38EFE07F5CC12055B3E75A054900F15287295B51D7F8A29C807C00"),
    (20240107000000, "add sessions", "F0AD65793A65A6D56FEEE893F24975A1B989817CC5DE694F66EF7896ABD6DD508B7A33F0E6BFC34ABD7F95945E0F0EC1"),
    (20240108000000, "add custom status", "5A715BCAD01CE5A1CAFA01BA5AC66EC28E3A9E7388EC99DC239F54C189748EBC4EE2C1F0DDA132051839BACD070BFD2B"),
    (20240109000000, "add activity tags", "90E079AA69023ACF1F4F08F5CDFCFC20AD2DD08573486EB10259C6BD8543B09B65CC8A05B1BCDD170CAC73715CC56384"),
    (20240110000000, "add kv store", "B02718981675751D3E7FE23714483C837DF6B44FFC7C7EC83ABC3F7563ADF3DCA8427569BA0F07E7027BA16E82276985"),
    (20240111000000, "add kv last updated", "3F003C0CF9EA6F0FD8EAE9E8764AEE547B1368D77B6FE88CF5CD63A8E1E3E00264B55C1F7DE23108018585C1F53C4390"),
    (20240112000000, "add kv delta", "FA25F50C9660870E43CCFE64E019FEC5AB5FC92A608378A249CBC614CFC8499B00BB940FCBB31DFF96850FE6C0FDA9B4"),
)  # fmt: skip
NEWEST = LEDGER[-1][0]

# Column definitions in file order; the key columns stand apart.
TABLES: dict[str, tuple[tuple[tuple[str, str], ...], str]] = {
    "instances": ((
        ("instance_id", "TEXT PRIMARY KEY"), ("orchestration_name", "TEXT NOT NULL"), ("orchestration_version", "TEXT NOT NULL"),
        ("current_execution_id", "INTEGER NOT NULL DEFAULT 1"), ("created_at", "TIMESTAMP DEFAULT CURRENT_TIMESTAMP"),
        ("updated_at", "TIMESTAMP DEFAULT CURRENT_TIMESTAMP"), ("parent_instance_id", "TEXT REFERENCES instances(instance_id)"),
        ("custom_status", "TEXT"), ("custom_status_version", "INTEGER NOT NULL DEFAULT 0"),
    ), ""),
    "executions": ((
        ("instance_id", "TEXT NOT NULL"), ("execution_id", "INTEGER NOT NULL"), ("status", "TEXT NOT NULL DEFAULT 'Running'"),
        ("output", "TEXT"), ("started_at", "TIMESTAMP DEFAULT CURRENT_TIMESTAMP"), ("completed_at", "TIMESTAMP"),
        ("duroxide_version_major", "INTEGER"), ("duroxide_version_minor", "INTEGER"), ("duroxide_version_patch", "INTEGER"),
    ), "PRIMARY KEY (instance_id, execution_id)"),
    "history": ((
        ("instance_id", "TEXT NOT NULL"), ("execution_id", "INTEGER NOT NULL"), ("event_id", "INTEGER NOT NULL"),
        ("event_type", "TEXT NOT NULL"), ("event_data", "TEXT NOT NULL"), ("created_at", "TIMESTAMP DEFAULT CURRENT_TIMESTAMP"),
    ), "PRIMARY KEY (instance_id, execution_id, event_id)"),
    "orchestrator_queue": ((
        ("id", "INTEGER PRIMARY KEY AUTOINCREMENT"), ("instance_id", "TEXT NOT NULL"), ("work_item", "TEXT NOT NULL"),
        ("visible_at", "TIMESTAMP DEFAULT CURRENT_TIMESTAMP"), ("lock_token", "TEXT"), ("locked_until", "TIMESTAMP"),
        ("created_at", "TIMESTAMP DEFAULT CURRENT_TIMESTAMP"),
        ("attempt_count", "INTEGER NOT NULL DEFAULT 0 CHECK(attempt_count >= 0)"),
    ), ""),
    "worker_queue": ((
        ("id", "INTEGER PRIMARY KEY AUTOINCREMENT"), ("work_item", "TEXT NOT NULL"), ("lock_token", "TEXT"),
        ("locked_until", "TIMESTAMP"), ("created_at", "TIMESTAMP DEFAULT CURRENT_TIMESTAMP"),
        ("attempt_count", "INTEGER NOT NULL DEFAULT 0 CHECK(attempt_count >= 0)"), ("visible_at", "INTEGER NOT NULL DEFAULT 0"),
        ("instance_id", "TEXT"), ("execution_id", "INTEGER"), ("activity_id", "INTEGER"), ("session_id", "TEXT"), ("tag", "TEXT"),
    ), ""),
    "timer_queue": ((
        ("id", "INTEGER PRIMARY KEY AUTOINCREMENT"), ("work_item", "TEXT NOT NULL"), ("fire_at", "TIMESTAMP NOT NULL"),
        ("lock_token", "TEXT"), ("locked_until", "TIMESTAMP"), ("created_at", "TIMESTAMP DEFAULT CURRENT_TIMESTAMP"),
    ), ""),
    "instance_locks": ((
        ("instance_id", "TEXT PRIMARY KEY"), ("lock_token", "TEXT NOT NULL"), ("locked_until", "INTEGER NOT NULL"),
        ("locked_at", "INTEGER NOT NULL"),
    ), ""),
    "sessions": ((
        ("session_id", "TEXT PRIMARY KEY"), ("worker_id", "TEXT NOT NULL"), ("locked_until", "INTEGER NOT NULL"),
        ("last_activity_at", "INTEGER NOT NULL"),
    ), ""),
    "kv_store": ((
        ("instance_id", "TEXT NOT NULL"), ("key", "TEXT NOT NULL"), ("value", "TEXT NOT NULL"),
        ("last_updated_at_ms", "INTEGER NOT NULL DEFAULT 0"),
    ), "PRIMARY KEY (instance_id, key)"),
    "kv_delta": ((
        ("instance_id", "TEXT NOT NULL"), ("key", "TEXT NOT NULL"), ("value", "TEXT"), ("last_updated_at_ms", "INTEGER NOT NULL"),
    ), "PRIMARY KEY (instance_id, key)"),
}  # fmt: skip

LEDGER_TABLE = (
    "CREATE TABLE IF NOT EXISTS _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL,"
    " installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL, checksum BLOB NOT NULL,"
    " execution_time BIGINT NOT NULL)"
)
# Those of the reference's indexes that somebody needs, by its names; where a statement always knows that the column is not NULL they leave
# out the rows in which it is, which are nearly all. A file of the reference keeps the ones that it has. Not made: idx_orch_visible,
# idx_orch_instance and idx_worker_available, which no statement of ours uses and which each message or activity would pay for twice.
REFERENCE_INDEXES = (
    "CREATE INDEX IF NOT EXISTS idx_worker_activity ON worker_queue(instance_id, execution_id, activity_id)",
    "CREATE INDEX IF NOT EXISTS idx_worker_queue_session ON worker_queue(session_id) WHERE session_id IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS idx_worker_queue_tag ON worker_queue(tag) WHERE tag IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS idx_timer_fire ON timer_queue(fire_at, lock_token)",
    "CREATE INDEX IF NOT EXISTS idx_instances_parent ON instances(parent_instance_id) WHERE parent_instance_id IS NOT NULL",
)
# Ours, for the admin calls; those of the hot statements stand beside them. Who looks for what is completed looks at nearly all anyway.
ADMIN_INDEXES = ("CREATE INDEX IF NOT EXISTS dx_executions_other ON executions(status) WHERE status <> 'Completed'",)


def check(connection: apsw.Connection, path: str) -> bool:
    """Whether the file has everything already. ProviderError if it is from a newer version than this one; reads only."""
    tables = {str(row[0]) for row in connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'index')")}
    complete = True
    if "_sqlx_migrations" in tables:
        (newest,) = connection.execute("SELECT MAX(version) FROM _sqlx_migrations").fetchone() or (None,)
        if newest is not None and int(newest) > NEWEST:
            raise ProviderError(
                f"Failed to open SQLite: '{path}' has schema version {newest}, this duroxide knows versions up to {NEWEST}: "
                "open it with the newer version that wrote it; nothing was changed"
            )
        complete = newest == NEWEST
    for table, (columns, _) in TABLES.items():
        if table not in tables:
            complete = False
            continue
        complete = _check_columns(connection, path, table, {name for name, _ in columns}) and complete
    wanted = {statement.split()[5] for statement in (*REFERENCE_INDEXES, *INDEXES, *ADMIN_INDEXES)}
    return complete and "_sqlx_migrations" in tables and wanted <= tables


def _check_columns(connection: apsw.Connection, path: str, table: str, known: set[str]) -> bool:
    found = {}
    for _, name, _, not_null, default, key in connection.execute(f"PRAGMA table_info({table})"):
        found[str(name)] = bool(not_null) and default is None and not key
    for name in found.keys() - known:
        if found[name]:
            raise ProviderError(
                f"Failed to open SQLite: '{path}' has a column {table}.{name} that this duroxide does not know and must not leave "
                "empty: open it with the newer version that wrote it; nothing was changed"
            )
    return known <= found.keys()


def install(connection: apsw.Connection, path: str) -> None:
    """Make or complete the schema, in one transaction; a no-op where it is complete."""
    if check(connection, path):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        check(connection, path)  # again: another process may have been faster
        for table, (columns, key) in TABLES.items():
            _install_table(connection, table, columns, key)
        connection.execute(LEDGER_TABLE)
        for version, description, checksum in LEDGER:
            connection.execute(
                "INSERT OR IGNORE INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (?, ?, 1, ?, 0)",
                (version, description, bytes.fromhex(checksum)),
            )
        for statement in (*REFERENCE_INDEXES, *INDEXES, *ADMIN_INDEXES):
            connection.execute(statement)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _install_table(connection: apsw.Connection, table: str, columns: tuple[tuple[str, str], ...], key: str) -> None:
    found = {str(row[1]) for row in connection.execute(f"PRAGMA table_info({table})")}
    if not found:
        parts = [f"{name} {definition}" for name, definition in columns] + ([key] if key else [])
        connection.execute(f"CREATE TABLE {table} ({', '.join(parts)})")
        return
    for name, definition in columns:
        if name not in found:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {name} {definition}")
