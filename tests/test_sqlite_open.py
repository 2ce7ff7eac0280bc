"""Opening a SQLite file: what a path means, what is adopted, what is refused before a byte is written, and what is really set."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import apsw
import pytest

import duroxide
from duroxide.errors import ProviderError
from duroxide.storage import _sqlite, sqlite, sqlite_schema
from duroxide.storage.base import Done, Request, StoreError
from duroxide.storage.sqlite import open_memory, open_sqlite

REFERENCE = Path(__file__).resolve().parent / "data" / "sqlite_inflight_0.2.2.db"
PATIENCE_S = 30.0


@pytest.fixture
def adopted(tmp_path: Path) -> Path:
    return Path(shutil.copy(REFERENCE, tmp_path / "adopted.db"))


def rows(path: Path, *tables: str) -> dict[str, list[tuple[Any, ...]]]:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    found = {table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall() for table in tables}
    connection.close()
    return found


def change(path: Path, *statements: str) -> None:
    connection = apsw.Connection(str(path))
    for statement in statements:
        connection.execute(statement)
    connection.close()


def contents(directory: Path) -> dict[str, bytes | None]:
    """Every file below with its bytes."""
    return {str(p.relative_to(directory)): p.read_bytes() if p.is_file() else None for p in directory.rglob("*")}


def refused(path: Path | str, reason: str, directory: Path, **options: Any) -> None:
    """It is refused with the path and the reason, and the directory is byte for byte what it was."""
    before = contents(directory)
    with pytest.raises(ProviderError) as raised:
        open_sqlite(str(path), **options)
    assert reason in str(raised.value) and str(path) in str(raised.value)
    assert contents(directory) == before


# ── adoption ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_of_the_reference_keeps_every_row_and_gets_our_indexes(adopted: Path) -> None:
    tables = (*sqlite_schema.TABLES, "_sqlx_migrations")
    before = rows(adopted, *tables)
    assert len(before["history"]) > 10 and before["orchestrator_queue"]
    for _ in range(2):
        open_sqlite(str(adopted)).close()
        assert rows(adopted, *tables) == before
    indexes = {name for (name,) in rows(adopted, "(SELECT name, 0, 0 FROM sqlite_master WHERE type = 'index')").popitem()[1] for name in [name]} if False else {
        row[0] for row in rows(adopted, "(SELECT name, type, 0 FROM sqlite_master)")["(SELECT name, type, 0 FROM sqlite_master)"]
    }
    assert {"dx_orch_ready", "dx_work_ready", "idx_orch_visible"} <= indexes
