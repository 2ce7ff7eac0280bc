"""Commit points of a process, counted: one inside each COMMIT that writes, one after each verb that wrote. It dies at the one it is told.

Owns how a provider is opened with its points, for every kind of store. `inside` tells a point within a commit from one after it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from duroxide.storage import sqlite

VERBS = ("exchange", "renew", "reclaim", "sweep_sessions", "delete", "delete_bulk", "prune", "prune_bulk")


class Points:
    """Counts; the process dies at `kill_at`."""

    def __init__(self, kill_at: int) -> None:
        self.kill_at = kill_at
        self.count = 0

    def reach(self) -> None:
        self.count += 1
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def after(self, verb: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            before = self.count
            answer = verb(*arguments)
            if self.count > before:
                self.reach()
            return answer

        return called

    def open(self, path: str, implementation: str) -> Any:
        """A provider of the database at `path`, in a process that opens nothing else."""
        connect = sqlite._connect

        def connected(*arguments: Any) -> Any:
            connection = connect(*arguments)
            connection.set_commit_hook(lambda: self.reach() or False)
            return connection

        sqlite._connect = connected
        native = sqlite.open_sqlite(path, synchronous="normal", implementation=implementation)
        for verb in VERBS:
            setattr(native, verb, self.after(getattr(native, verb)))
        return native
