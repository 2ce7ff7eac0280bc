"""Commit points of a process on PostgreSQL: one in the middle of each exchange that hands something in, when it was sent and nobody has heard
of it yet; one inside each transaction of an admin call; one after each verb that wrote. It dies at the one it is told.

Owns how a schema is opened with its points. The server may do what was sent although the sender is dead: that is the point.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any

from faults.points import VERBS, Points

from duroxide.storage import postgres
from duroxide.storage.base import Done, Request, Taken
from duroxide.storage.postgres_store import _EXCHANGE, _FORMATS

ADMIN = [verb for verb in VERBS if verb.startswith(("delete", "prune"))]


class PostgresPoints(Points):
    def open(self, path: str, implementation: str) -> Any:
        """`path`: JSON of a URL and a schema's name. Who was alive is known at once: the next process begins long after the first died."""
        postgres.GRACE_S = postgres.AFTER_START_S = 0.0
        url, schema = json.loads(path)
        native: Any = postgres.open_postgres(url, schema)
        self.store, self.writes = native._store, False
        ask = native._store._ask
        native._store._ask = lambda line, parameters: (self.sent(line, parameters), ask(line, parameters))[1]
        native.exchange = self.exchange(native.exchange)
        for verb in ("reclaim", "sweep_sessions"):
            setattr(native, verb, self.whatever(getattr(native, verb)))
        native.writing = self.transaction(native.writing)
        for verb in ADMIN:
            setattr(native, verb, self.after(getattr(native, verb)))
        return native

    def exchange(self, verb: Any) -> Any:
        def called(requests: Sequence[Request]) -> list[Taken]:
            self.writes = any(request.done is not None and request.done != Done() for request in requests)
            answers: list[Taken] = verb(requests)
            if self.writes or any(taken.turns or taken.work for taken in answers):
                self.reach()
            return answers

        return called

    def sent(self, line: Any, parameters: list[bytes | None]) -> None:
        if not self.writes:
            return
        if self.count + 1 == self.kill_at:
            line.pgconn.send_query_prepared(_EXCHANGE, parameters, _FORMATS, 1)
            while line.pgconn.flush():
                pass
            os.kill(os.getpid(), signal.SIGKILL)
        self.reach()

    def whatever(self, verb: Any) -> Any:
        """A point after it if it says that it changed something."""

        def called(*arguments: Any) -> Any:
            answer = verb(*arguments)
            if answer:
                self.reach()
            return answer

        return called

    def transaction(self, writing: Any) -> Any:
        @contextlib.contextmanager
        def begun() -> Iterator[Any]:
            with writing() as connection:
                yield connection
                self.reach()

        return begun
