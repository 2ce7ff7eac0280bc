"""Who is alive and who has committed something: the one connection of a provider that listens.

Owns the thread that waits on it, the session-level advisory locks that show owners alive, and what peers tell each other. When the
connection breaks it comes back by itself and announces again. Refuses to know turns and claims.
"""

from __future__ import annotations

import json
import logging
import secrets
import select
import socket
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg

from duroxide.storage.base import TurnDone
from duroxide.storage.postgres_connect import Line
from duroxide.storage.postgres_errors import retryable

log: logging.Logger = logging.getLogger("duroxide.storage")

Connection = psycopg.Connection[Any]
Heard = Callable[[bool, "list[str] | None"], None]  # may there be something to claim; which instances moved (None: any)
BEAT_S = 10.0  # how often a silent session is asked whether it lives: by it our leases are known to be a live one's
LONGEST = 7_900  # bytes of one notification; PostgreSQL takes 8,000
PATIENCE_S = 5.0  # how long an announcement waits for the server
SHORTEST_S, LONGEST_S = 0.02, 1.0  # between two tries to connect


def key_of(schema: str, owner: str, session: str) -> int:
    """The advisory lock of an owner in one session: 64 bits. Another one in each, or a session whose network died, and of which the server
    does not know so yet, would keep its own successor out."""
    text = f"{schema}/{owner}/{session}".encode()
    return (zlib.crc32(text) << 31) ^ zlib.crc32(text[::-1], 77)


class Signals:
    """`connect` makes a connection in autocommit; `sql` are the statements of `postgres_sql`, with the schema filled in."""

    def __init__(self, connect: Callable[[], Line], sql: dict[str, str], schema: str, channel: str, peer: str) -> None:
        self._connect, self._sql, self._schema, self._channel, self._peer = connect, sql, schema, channel, peer
        self._guard = threading.Lock()
        self._owners: dict[str, bool] = {}  # owner -> locked in this session
        self._leaving: list[str] = []
        self._heard: list[Heard] = []
        self._ready, self._moved, self._telling = False, set[str](), False
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition(self._guard)
        self._bell: tuple[socket.socket, socket.socket] | None = None
        self._closed = False
        self._session = ""
        self.moves: int = 0  # how often somebody else committed, as far as one heard
        self.others: int = 1  # how often somebody else announced itself; 0: nobody else with a runtime is there
        self._greetings = 1
        self.listening: bool = False
        self.possible: bool = True  # to listen, and to hold a lock; False: behind a pooler

    # ── from any thread ──────────────────────────────────────────────────────────────────────────────────────

    def subscribe(self, heard: Heard) -> bool:
        """Call `heard` whenever somebody else has committed; False if one cannot listen here: then the caller looks for himself."""
        self._begin()
        with self._guard:
            deadline = time.monotonic() + PATIENCE_S
            while not self.listening and self.possible and not self._closed:
                remaining = deadline - time.monotonic()
                if remaining <= 0 or not self._changed.wait(remaining):
                    break  # the server is away: the thread goes on trying
            if self.possible:
                self._heard.append(heard)
            return self.possible

    def announce(self, owner: str) -> Callable[[], None]:
        """Show `owner` alive until the returned function is called. Waits until it is, as long as the server answers."""
        with self._guard:
            self._owners[owner] = False
        self._begin()
        self._ring()
        with self._guard:
            deadline = time.monotonic() + PATIENCE_S
            while not self._owners.get(owner, True) and self.possible and not self._closed:
                remaining = deadline - time.monotonic()
                if remaining <= 0 or not self._changed.wait(remaining):
                    log.warning("owner %s could not be announced yet: until then its leases end only by time after a crash", owner)
                    break
        return lambda: self._withdraw(owner)

    def _withdraw(self, owner: str) -> None:
        with self._guard:
            if self._owners.pop(owner, None) is not None:
                self._leaving.append(owner)
        self._ring()

    def tell(self, ready: bool, turns: list[TurnDone]) -> None:
        """What others should hear of. Sent soon, together with what else there is by then."""
        if self._thread is None:
            self._begin()
        with self._guard:
            self._ready = self._ready or ready
            self._moved.update(turn.instance for turn in turns)
            if self._telling:
                return
            self._telling = True
        self._ring()

    def nobody_since(self, greeting: int) -> None:
        """Nobody else was there after that greeting: until the next one there is nobody to watch, as long as one can hear it."""
        with self._guard:
            if self.listening and greeting == self._greetings:
                self.others = 0

    def _greeted(self) -> None:
        with self._guard:
            self._greetings += 1
            self.others = self._greetings

    def close(self) -> None:
        with self._guard:
            self._closed = True
            thread = self._thread
            self._changed.notify_all()
        self._ring()
        if thread is not None and thread is not threading.current_thread():
            thread.join(2.0)

    def abandon(self) -> None:
        """In a forked child: thread and connection are the parent's."""
        self._guard = threading.Lock()
        self._changed = threading.Condition(self._guard)
        self._closed, self._thread, self._bell = True, None, None

    def _begin(self) -> None:
        with self._guard:
            if self._thread is not None or self._closed:
                return
            self._bell = socket.socketpair()
            for end in self._bell:
                end.setblocking(False)
            thread = threading.Thread(target=self._run, name="duroxide-listen", daemon=True)
            thread.start()
            self._thread = thread

    def _ring(self) -> None:
        bell = self._bell
        if bell is not None:
            with suppress(OSError):
                bell[0].send(b"!")

    # ── the thread ───────────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        assert self._bell is not None
        bell = self._bell[1]
        pause, said = SHORTEST_S, False
        while not self._closed:
            line: Line | None = None
            try:
                line = self._connect()
                self._open(line)
                pause, said = SHORTEST_S, False
                self._hear(True, None)
                while not self._closed:
                    self._serve(line)
                    self._wait(line, bell)
                self._farewell(line)
            except psycopg.Error as error:
                if not said:
                    log.warning("the connection that listens: %s; it is tried again", str(error).strip())
                said = True
                if not retryable(error):
                    pause = LONGEST_S
            except OSError as error:
                log.warning("the connection that listens: %s; it is tried again", error)
            finally:
                with self._guard:
                    self.listening = False
                    self.others = self._greetings
                    for owner in self._owners:
                        self._owners[owner] = False
                if line is not None:
                    line.close()
            if not self._closed:
                select.select([bell], [], [], pause) if pause > 0.1 else time.sleep(pause)
                pause = min(pause * 2, LONGEST_S)
        with self._guard:
            self._changed.notify_all()

    def _open(self, line: Line) -> None:
        """Listen, if this is a session of our own; else this line only tells."""
        if not line.own_session:
            if self.possible:
                log.warning(
                    "between us and PostgreSQL stands a pooler, through which nobody can listen: changes made elsewhere are looked for "
                    "every poll interval, and leases of a killed process end by time"
                )
            with self._guard:
                self.possible = False
                self._changed.notify_all()
            return
        self._session = secrets.token_hex(8)
        with suppress(psycopg.Error):  # not on every system: a host that lost its power is gone for the server in half a minute, not two hours
            line.execute(self._sql["keepalives"])
        line.execute(f'LISTEN "{self._channel}"')
        self._greeted()  # what one did not hear before
        self._lock(line, self._peer)
        with self._guard:
            self.listening = self.possible = True
            self._changed.notify_all()

    def _lock(self, line: Connection, owner: str) -> None:
        """First the lock, then the row that others look at."""
        key = key_of(self._schema, owner, self._session)
        row = line.execute(self._sql["owner_lock"], {"key": key}).fetchone()
        if row is None or not row[0]:
            raise psycopg.OperationalError(f"the lock of owner {owner} is looked at by somebody")
        line.execute(self._sql["owner_put"], {"owner": owner, "peer": self._peer, "key": key, "channel": self._channel})

    def _serve(self, line: Connection) -> None:
        """Do what other threads asked for."""
        with self._guard:
            new = [owner for owner, locked in self._owners.items() if not locked] if self.possible else []
            leaving, self._leaving = self._leaving if self.possible else [], []
            telling, self._telling = self._telling, False
            ready, self._ready = self._ready, False
            moved, self._moved = self._moved, set()
        for owner in new:
            self._lock(line, owner)
        with self._guard:
            for owner in new:
                if owner in self._owners:
                    self._owners[owner] = True
                else:
                    self._leaving.append(owner)
            self._changed.notify_all()
        for owner in leaving:
            line.execute(self._sql["owner_drop"], {"owner": owner})
            line.execute(self._sql["owner_unlock"], {"key": key_of(self._schema, owner, self._session)})
        if telling:
            payload = f"{self._peer} {'ready' if ready else 'moved'} {json.dumps(sorted(moved))}"
            if len(payload) > LONGEST:
                payload = f"{self._peer} {'ready' if ready else 'moved'} any"
            line.execute(self._sql["tell"], {"channel": self._channel, "payload": payload})

    def _wait(self, line: Connection, bell: socket.socket) -> None:
        """Until there is something to hear or to do."""
        pgconn = line.pgconn
        if not self._take(pgconn):
            sources: list[Any] = [pgconn.socket, bell]
            found, _, _ = select.select(sources, [], [], BEAT_S)
            if not found:
                line.execute(self._sql["beat"])
            if bell in found:
                with suppress(BlockingIOError):
                    bell.recv(4096)
            if pgconn.socket in found:
                pgconn.consume_input()
                if pgconn.status != psycopg.pq.ConnStatus.OK:
                    raise psycopg.OperationalError("the server closed the connection")
                self._take(pgconn)

    def _take(self, pgconn: Any) -> bool:
        heard = False
        while (notice := pgconn.notifies()) is not None:
            heard = True
            sender, _, rest = notice.extra.decode().partition(" ")
            if sender == self._peer:
                continue
            kind, _, ids = rest.partition(" ")
            if kind == "here":
                self._greeted()
                continue
            try:
                instances = [] if not ids else None if ids == "any" else json.loads(ids)
            except ValueError:
                instances = None
            self._hear(kind != "moved", instances)
        return heard

    def _hear(self, ready: bool, instances: list[str] | None) -> None:
        self.moves += 1
        with self._guard:
            heard = list(self._heard)
        for each in heard:
            each(ready, instances)

    def _farewell(self, line: Connection) -> None:
        with suppress(psycopg.Error):
            self._serve(line)
            for owner in [*self._owners, self._peer] if self.possible else []:
                line.execute(self._sql["owner_drop"], {"owner": owner})



