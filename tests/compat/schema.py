"""A PostgreSQL schema for legs, as `matrix.File` is a file: made by the reference, looked at between two legs."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psycopg

from .matrix import python
from .state import HOUR_MS

MAKE = "import sys, os, duroxide; duroxide.PostgresProvider.connect_with_schema(sys.argv[1], sys.argv[2]); os._exit(0)"


@dataclasses.dataclass
class Schema:
    """`url` as the reference takes it: with a host."""

    url: str
    name: str

    @property
    def where(self) -> str:
        return f"{self.url}#{self.name}"

    def made_by(self, rider: str, scratch: Path) -> Schema:
        command = [python(rider), "-I", "-c", MAKE, self.url, self.name]
        subprocess.run(command, check=True, cwd=scratch, stdout=subprocess.DEVNULL, timeout=60)
        return self

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url, options=f"-c search_path={self.name}")

    def rows(self, sql: str) -> list[Any]:
        with self._connect() as connection:
            return connection.execute(sql).fetchall()  # type: ignore[call-overload,no-any-return]

    def change(self, statements: Iterable[str]) -> None:
        with self._connect() as connection:
            for statement in statements:
                connection.execute(statement)  # type: ignore[call-overload]

    def hour_passes(self) -> None:
        moved = {
            "orchestrator_queue": ("locked_until",), "worker_queue": ("locked_until",), "instance_locks": ("locked_until", "locked_at"),
            "sessions": ("locked_until", "last_activity_at"),
        }  # fmt: skip
        self.change(f"UPDATE {table} SET {', '.join(f'{c} = {c} - {HOUR_MS}' for c in columns)}" for table, columns in moved.items())
        queues = ("orchestrator_queue", "worker_queue")
        self.change(f"UPDATE {table} SET visible_at = visible_at - interval '{HOUR_MS} milliseconds'" for table in queues)
