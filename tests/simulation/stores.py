"""The stores that a world can stand on: one that all processes share, or a file that each opens for itself.

Owns how a process opens it, what the checks read, and how everything of a dead owner is freed there (in real life a lock says who
is dead).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

from duroxide.storage import sqlite
from duroxide.storage.memory import MemoryStore

KINDS = ("memory", "sqlite-c", "sqlite-python", "file-c", "file-python")


class Store:
    """Shared by all processes. `native` is what the checks read."""

    own_versions = False  # whether each process's own native knows when others have committed

    def __init__(self, native: Any, free: Callable[[str], int]) -> None:
        self.native, self.free = native, free

    def open(self) -> Any:
        return self.native

    def leave(self, native: Any) -> None:
        """The process that opened `native` has died."""

    def close(self) -> None:
        self.native.close()


class File(Store):
    """A file in a directory of its own."""

    own_versions = True

    def __init__(self, implementation: str) -> None:
        self.directory = tempfile.TemporaryDirectory(prefix="simulation-")
        self.path = f"{self.directory.name}/a.db"
        self.implementation = implementation
        self.opened: list[Any] = []
        super().__init__(self.open(), lambda owner: free_in_file(self.native, owner))

    def open(self) -> Any:
        self.opened.append(
            sqlite.open_sqlite(self.path, synchronous="normal", implementation=self.implementation)
        )
        return self.opened[-1]

    def leave(self, native: Any) -> None:
        native.close()

    def close(self) -> None:
        for native in self.opened:
            native.close()
        self.directory.cleanup()


def open_store(kind: str) -> Store:
    if kind == "memory":
        native = MemoryStore()
        return Store(native, lambda owner: free_in_memory(native, owner))
    where, _, implementation = kind.partition("-")
    if where == "file":
        return File(implementation)
    opened = sqlite.open_sqlite(":memory:", implementation=implementation)
    return Store(opened, lambda owner: free_in_file(opened, owner))


def free_in_file(native: sqlite.SqliteNative, owner: str) -> int:
    with native.writing() as connection:
        return sqlite._free(connection, owner)


def free_in_memory(native: MemoryStore, owner: str) -> int:
    state, mine = native._state, f"lock_{owner}:"
    leases = [(instance, token) for instance, (token, _) in state.leases.items() if token.startswith(mine)]
    for instance, token in leases:
        native._end_lease(instance, token)
    rows = [row for row in state.work.values() if row.token is not None and row.token.startswith(mine)]
    for row in rows:
        row.token = None
    sessions = [session for session, (holder, _, _) in state.sessions.items() if holder == owner]
    for session in sessions:
        del state.sessions[session]
    return len(leases) + len(rows) + len(sessions)
