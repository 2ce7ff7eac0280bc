"""A schema of a PostgreSQL database as a provider: its connections, and who of its owners is alive.

Owns how connections are made and lent, closing, forks, and the takeover from dead owners. Refuses to know turns (`postgres_store`), cold calls
(`postgres_admin`) and tables (`postgres_schema`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import selectors
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from weakref import WeakSet

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from duroxide.errors import ProviderError
from duroxide.storage import postgres_connect, postgres_schema
from duroxide.storage.base import Loaded, Renewal, Renewed, Request, StoreError, Taken
from duroxide.storage.postgres_admin import PostgresAdmin
from duroxide.storage.postgres_connect import Address, Line
from duroxide.storage.postgres_exchange_sql import channel, filled
from duroxide.storage.postgres_signals import Heard, Signals
from duroxide.storage.postgres_store import PostgresStore

log: logging.Logger = logging.getLogger("duroxide.storage")

Connection = psycopg.Connection[Any]
MOST_CONNECTIONS = 10
LEAST_CONNECTIONS = 3  # one writes, one listens, one reads
ACQUIRE_S = 30.0
GRACE_S = 0.29  # an owner whose lock is free at two looks so far apart is dead: a live one announces again at once. Two looks of a keeper
AFTER_START_S = 5.0  # of the server: until then those that it had before have to come back first
RECONNECT_S = 0.5  # how long the pool tries on by itself; its pauses would double and outlast an outage (20 s of it: 12 s more)
ADMIN_LIMIT_S = 600.0
FORKED = "was opened before this process was forked: open it in the child instead"


class PostgresNative(PostgresAdmin):
    """One schema: the verbs of the store, the admin calls, liveness. Threads may share it."""

    name = "postgres"
    holds_nul = False

    def __init__(self, address: Address, schema: str, connections: int, acquire_s: float) -> None:
        self.schema: str = postgres_schema.folded(schema)
        self.peer: str = f"{os.getpid():x}-{secrets.token_hex(6)}"
        self._address = address
        self._options = {"autocommit": True, **address.named(f"duroxide {self.peer}")}
        self._ended = ""
        self._suspects: dict[str, float] = {}  # owners whose lock was found free, since when
        self._moved: tuple[float, int, str] = (0.0, 0, "")
        self._acquire_s = acquire_s
        with contextlib.closing(address.first(acquire_s, **self._options)) as first:
            first.limit_s = postgres_connect.UNLIMITED_S  # indexes on a big schema that is adopted
            postgres_schema.prepare(first, self.schema)
        readers = max(0, min(2, connections - LEAST_CONNECTIONS))
        self._pool = ConnectionPool(
            address.conninfo, connection_class=address.connection_class, kwargs=self._options, min_size=0, max_size=connections - 2 - readers,
            open=True, name=f"duroxide-{self.peer}", check=_check, max_idle=120.0, reconnect_timeout=RECONNECT_S,
        )  # fmt: skip
        self._store = PostgresStore(self.connect, self._lend, self.sql, self.peer, readers=readers)
        self._signals = Signals(self.connect, self._store.sql, self.schema, channel(self.schema), self.peer)
        self._store.told = self._signals.tell
        self._sweep_at = time.monotonic() + 60.0
        _natives.add(self)

    # ── connections ──────────────────────────────────────────────────────────────────────────────────────────

    def connect(self) -> Line:
        """A connection of one's own, in autocommit."""
        return self._address.connect(**self._options)

    @contextlib.contextmanager
    def _lend(self, limit_s: float | None = None) -> Iterator[Connection]:
        """One of the pool, in autocommit, on which nobody waits longer than `limit_s`; a broken one is not lent again."""
        connection = self._borrow()
        connection.limit_s = Line.limit_s if limit_s is None else limit_s
        try:
            yield connection
        finally:
            self._pool.putconn(connection)

    def _borrow(self) -> Line:
        """Asked for again and again: each time the pool begins anew to connect, and its own pauses do not outlast an outage."""
        deadline = time.monotonic() + self._acquire_s
        while True:
            if self._ended:
                raise ProviderError(f"the provider of schema '{self.schema}' {self._ended}")
            left = deadline - time.monotonic()
            try:
                return self._pool.getconn(max(0.0, min(left, 2 * RECONNECT_S)))
            except PoolTimeout as error:
                if left <= 2 * RECONNECT_S:
                    text = f"pool timed out while waiting for an open connection: none in {self._acquire_s:g} s"
                    raise psycopg.OperationalError(text) from error

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """One of the pool, in a transaction."""
        with self._lend(ADMIN_LIMIT_S) as connection, connection.transaction():
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """As `reading`."""
        with self.reading() as connection:
            yield connection

    @contextlib.contextmanager
    def session(self) -> Iterator[Connection]:
        """One of the pool, in autocommit. ProviderError for what the server says."""
        try:
            with self._lend() as connection:
                yield connection
        except psycopg.Error as error:
            raise ProviderError(f"schema '{self.schema}': {error}") from error

    def sql(self, template: str) -> str:
        return filled(template, self.schema)

    def close(self) -> None:
        """Close all connections; later calls raise StoreError or ProviderError. Idempotent."""
        if self._ended:
            return
        self._ended = "is closed"
        self._signals.close()
        self._store.close()
        self._pool.close()

    def abandon(self) -> None:
        """In a forked child: the connections are the parent's, and a word on one of them would be taken for the parent's."""
        self._ended = FORKED
        self._store.abandon(FORKED)
        self._signals.abandon()

    # ── the verbs ────────────────────────────────────────────────────────────────────────────────────────────

    def exchange(self, requests: Sequence[Request]) -> list[Taken]:
        return self._store.exchange(requests)

    def load(self, instance: str, execution_id: int | None = None, after: int = 0) -> Loaded | None:
        return self._store.load(instance, execution_id, after)

    def renew(self, renewal: Renewal) -> Renewed:
        return self._store.renew(renewal)

    # ── signs of change ──────────────────────────────────────────────────────────────────────────────────────

    def subscribe(self, heard: Heard) -> bool:
        """Call `heard(ready, instances)` when others have committed; False: nobody can listen here, ask `version`."""
        return not self._ended and self._signals.subscribe(heard)

    def version(self) -> int:
        """Without a query while one listens; else it asks, at most every 10 ms."""
        if self._signals.listening or self._ended:
            return self._signals.moves
        at, number, seen = self._moved
        now = time.monotonic()
        if now - at < 0.01:
            return number
        row = self._asked("moved")
        self._moved = now, number + (row != seen), row
        return self._moved[1]

    def _asked(self, name: str) -> str:
        with self.session() as connection:
            row = connection.execute(self._store.sql[name], {"peer": self.peer}).fetchone()
            return str(row[0]) if row else ""

    # ── liveness ─────────────────────────────────────────────────────────────────────────────────────────────

    def announce(self, owner: str) -> Callable[[], None]:
        if self._ended:
            raise ProviderError(f"the provider of schema '{self.schema}' {self._ended}")
        return self._signals.announce(owner)

    def reclaim(self, now: int) -> int:
        """An owner is dead if its lock was free at two looks, `GRACE_S` apart. Costs one round trip while all live, none while nobody else is there."""
        dead = self._again_free(self._signals.others) if self._signals.others else []
        if not dead:
            return 0
        try:
            with self._lend() as connection, connection.transaction():
                dead = [str(row[0]) for row in connection.execute(self._store.sql["owners_dead"], {"owners": dead})]
                freed = self._free(connection, dead) if dead else 0
        except psycopg.Error as error:
            raise StoreError(f"reclaim: {error}", operation="reclaim", retryable=True) from error
        if dead:
            log.info("%d rows freed that dead owners had leased: %s", freed, ", ".join(dead))
            self._signals.tell(True, [])
        return freed

    def _again_free(self, seen: int) -> list[str]:
        """Whose lock is free and was at an earlier look. `seen`: what `Signals.others` said before it."""
        values = {"peer": self.peer, "after_start": AFTER_START_S}
        try:
            with self._lend() as connection:
                watched = connection.execute(self._store.sql["owners_watched"], values).fetchall()
        except psycopg.Error as error:
            raise StoreError(f"reclaim: {error}", operation="reclaim", retryable=True) from error
        if not watched:
            self._signals.nobody_since(seen)
        at = time.monotonic()
        self._suspects = {owner: self._suspects.get(owner, at) for owner, free in watched if free}
        return [owner for owner, since in self._suspects.items() if at - since >= GRACE_S]

    def _free(self, connection: Connection, owners: list[str]) -> int:
        freed = 0
        for name in ("free_leases", "free_routed", "free_work", "free_sessions"):
            cursor = connection.execute(self._store.sql[name], {"owners": owners})
            row = cursor.fetchone() if cursor.description else None
            freed += row[0] if row else cursor.rowcount
        connection.execute(self._store.sql["owners_drop"], {"owners": owners})
        return freed

    def sweep_sessions(self, now: int) -> int:
        def sweep(connection: Connection) -> int:
            connection.execute(self._store.sql["peer_sweep"], {"peer": self.peer})
            connection.execute(self._store.sql["owners_sweep"], {"peer": self.peer})
            return connection.execute(self._store.sql["session_sweep"], {"now": now}).rowcount

        return self._store._again("sweep_sessions", sweep)


def _check(connection: psycopg.Connection[Any]) -> None:
    """Before it is lent: one that the server has closed has something to read, and nothing else has. Costs no round trip."""
    pgconn = connection.pgconn
    with selectors.DefaultSelector() as looking:
        looking.register(pgconn.socket, selectors.EVENT_READ)
        if looking.select(0):
            pgconn.consume_input()
            if pgconn.status != psycopg.pq.ConnStatus.OK:
                raise psycopg.OperationalError("the server closed the connection")


def open_postgres(
    address: Address | str, schema: str = "public", *, max_connections: int | None = None, acquire_timeout_ms: int | None = None
) -> PostgresNative:
    """Open or create the schema. Raises ProviderError if it cannot be had.

    `max_connections`: 10, or what the environment's DUROXIDE_PG_POOL_MAX says; `acquire_timeout_ms`: 30,000.
    """
    if max_connections is None:
        asked = os.environ.get("DUROXIDE_PG_POOL_MAX", "")
        max_connections = int(asked) if asked.isdecimal() else MOST_CONNECTIONS
    acquire_s = ACQUIRE_S if acquire_timeout_ms is None else acquire_timeout_ms / 1_000
    connections = max(LEAST_CONNECTIONS, max_connections)
    place = Address(address) if isinstance(address, str) else address
    try:
        return PostgresNative(place, schema, connections, acquire_s)
    except psycopg.Error as error:
        raise ProviderError(f"{place.what}: {str(error).strip()}") from error


# ── forks ────────────────────────────────────────────────────────────────────────────────────────────────────

_natives: WeakSet[PostgresNative] = WeakSet()
_inherited: list[PostgresNative] = []  # kept by a forked child: closing them would end the parent's sessions


def _forked() -> None:
    _inherited.extend(_natives)
    _natives.clear()
    for native in _inherited:
        native.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


