"""The SQLite store in Python, through APSW: the fallback where the one in C does not load, and its twin in tests.

Owns one transaction per verb over the statements of `sqlite_sql.HOT`; claims are in `sqlite_claims`. Semantics are those of csrc/sqlite_*.c,
function by function. Refuses to know files and pragmas.
"""

from __future__ import annotations

import itertools
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import apsw

from duroxide.storage.base import (
    KV_CLEAR_ALL,
    KV_SET,
    LOST,
    NO_EVENTS,
    OK,
    REFUSED,
    Loaded,
    Renewal,
    Renewed,
    Request,
    StoreError,
    Taken,
    TurnBack,
    TurnDone,
    WorkBack,
    WorkDone,
)
from duroxide.storage.sqlite_claims import claim_turns, claim_work
from duroxide.storage.sqlite_sql import HOT

BUSY_S = 60.0
DEFAULT_WORK_LEASE_MS = 30_000
MAY_HELP_TO_RETRY = (
    apsw.BusyError, apsw.LockedError, apsw.NoMemError, apsw.InterruptError, apsw.IOError, apsw.FullError, apsw.ProtocolError,
)  # fmt: skip
_NUMBER = re.compile(r"\s*[+-]?[0-9]+")
T = TypeVar("T")


class Refused(Exception):
    """The constraints refuse the turn with this number in its group."""

    def __init__(self, turn: int) -> None:
        self.turn = turn


class Declared:
    """What the columns of a statement are declared to hold; `seen`: the kinds of sound rows that there were."""

    __slots__ = ("kinds", "seen")

    def __init__(self, kinds: list[type | None]) -> None:
        self.kinds = kinds
        self.seen: set[tuple[type, ...]] = set()


_statements: dict[str, Declared] = {}


def _declared(name: str, cursor: apsw.Cursor) -> Declared | None:
    found = _statements.get(name)
    if found is None:
        try:
            of = {"TEXT": str, "INTEGER": int, "BIGINT": int}
            found = _statements[name] = Declared([of.get(kind or "") for _, kind in cursor.get_description()])
        except apsw.ExecutionCompleteError:  # no row
            return None
    return found


def _sound(row: tuple[Any, ...], declared: Declared | None) -> tuple[Any, ...]:
    """The row with values of the kinds that are declared: SQLite lets others write anything anywhere. As the store in C reads it."""
    if declared is None:
        return row
    kinds = tuple(map(type, row))
    if kinds in declared.seen:
        return row
    if all(kind is None or value is None or type(value) is kind for value, kind in zip(row, declared.kinds)):
        declared.seen.add(kinds)
        return row
    return tuple(value if kind is None or value is None else _as(value, kind) for value, kind in zip(row, declared.kinds))


def _as(value: Any, kind: type) -> Any:
    if type(value) is kind:
        return value
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    if kind is str:
        return text
    number = _NUMBER.match(text)
    return max(-(1 << 63), min(int(number[0]), (1 << 63) - 1)) if number else 0


class Transaction:
    """The statements of one transaction on one connection."""

    def __init__(self, connection: apsw.Connection, tokens: Iterator[int]) -> None:
        self.connection = connection
        self._tokens = tokens
        self._stamp: str | None = None

    def rows(self, name: str, *values: Any) -> list[tuple[Any, ...]]:
        cursor = self.connection.execute(HOT[name], values)
        declared = _declared(name, cursor)
        return [_sound(row, declared) for row in cursor]

    def row(self, name: str, *values: Any) -> tuple[Any, ...] | None:
        found = self.rows(name, *values)
        return found[0] if found else None

    def each(self, name: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Row by row, for those who stop early; nothing may be written before that."""
        cursor = self.connection.cursor()
        try:
            cursor.execute(HOT[name], values)
            declared = _declared(name, cursor)
            for row in cursor:
                yield _sound(row, declared)
        finally:
            cursor.close(True)

    def run(self, name: str, *values: Any) -> int:
        """How many rows changed."""
        self.connection.execute(HOT[name], values)
        return self.connection.changes()

    def stamp(self) -> str:
        """When rows of this transaction are made: as SQLite's CURRENT_TIMESTAMP writes it, asked once."""
        if self._stamp is None:
            ((self._stamp,),) = self.rows("stamp")
        return self._stamp

    def token(self, owner: str) -> str:
        return f"lock_{owner}:{next(self._tokens)}"

    # ── what several steps ask ───────────────────────────────────────────────────────────────────────────────

    def lease_live(self, instance: str, token: str, now: float) -> bool:
        found = self.row("lease_get", instance)
        return found is not None and found[0] == token and found[1] > now

    def work_live(self, row_id: int, token: str, now: int) -> tuple[bool, str | None]:
        """(still held by `token`, its session)."""
        found = self.row("work_get", row_id)
        if found is None or found[0] != token or found[1] is None or found[1] <= now:
            return False, None
        return True, found[2]

    def touch(self, session: str | None, now: int) -> None:
        if session is not None:
            self.run("session_touch", now, session)

    def drop_work(self, row_id: int, session: str | None, now: int) -> None:
        self.run("work_drop", row_id)
        self.touch(session, now)

    def send(self, message: tuple[str, str, int], now: int) -> None:
        instance, item, visible_at = message
        self.run("message_put", instance, item, visible_at or now, self.stamp())


class PythonStore:
    """exchange, load, renew on two connections (`reader` None: one serves all). Takes them over; `close` closes them."""

    def __init__(self, writer: apsw.Connection, reader: apsw.Connection | None) -> None:
        self._writer, self._reader = writer, reader or writer
        self._write_lock = threading.RLock()
        self._read_lock = self._write_lock if reader is None else threading.RLock()
        self._tokens = itertools.count(int.from_bytes(os.urandom(6), "big"))
        self._closed = False

    def close(self) -> None:
        with self._write_lock, self._read_lock:
            self._closed = True
            self._reader.close()
            self._writer.close()

    def version(self) -> int:
        """Moves when somebody has committed past this store; not beside a verb, which would not wait for others while a read is open."""
        with self._write_lock:
            try:
                return int(_patiently(lambda: self._writer.execute("PRAGMA data_version").get))
            except apsw.Error as error:
                raise StoreError(f"version: {error}", operation="version") from error

    @contextmanager
    def _transaction(self, operation: str, write: bool) -> Iterator[Transaction]:
        connection, lock = (self._writer, self._write_lock) if write else (self._reader, self._read_lock)
        with lock:
            if self._closed:
                raise StoreError(f"{operation}: the store is closed", operation=operation)
            try:
                try:  # Ctrl-C may strike the main thread anywhere: it must not leave a transaction open
                    _patiently(lambda: connection.execute(HOT["begin" if write else "begin_read"]))
                    yield Transaction(connection, self._tokens)
                    connection.execute(HOT["commit"])
                except BaseException:
                    if connection.in_transaction:
                        connection.execute(HOT["rollback"])
                    raise
            except apsw.Error as error:
                retryable = isinstance(error, MAY_HELP_TO_RETRY)
                raise StoreError(f"{operation}: {error}", operation=operation, retryable=retryable) from error
            except UnicodeEncodeError as error:
                raise StoreError(f"{operation}: text with a lone surrogate cannot be stored: {error}", operation=operation) from error

    # ── exchange ─────────────────────────────────────────────────────────────────────────────────────────────

    def exchange(self, requests: Sequence[Request]) -> list[Taken]:
        refused: set[int] = set()
        while True:
            try:
                with self._transaction("exchange", True) as tx:
                    return self._attempt(tx, requests, refused)
            except Refused as culprit:  # the group runs again without it
                refused.add(culprit.turn)

    def _attempt(self, tx: Transaction, requests: Sequence[Request], refused: set[int]) -> list[Taken]:
        answers = [Taken() for _ in requests]
        numbers = itertools.count()
        for request, taken in zip(requests, answers):
            if request.done is not None:
                self._apply(tx, request, taken, refused, numbers)
        for request, taken in zip(requests, answers):
            if request.appetite is not None:
                claim_turns(tx, request.appetite, request.now, taken)
                claim_work(tx, request.appetite, request.now, taken)
        return answers

    def _apply(self, tx: Transaction, request: Request, taken: Taken, refused: set[int], numbers: Iterator[int]) -> None:
        done, now = request.done, request.now
        assert done is not None
        for turn in done.turns:
            number = next(numbers)
            code = REFUSED
            held: list[int] = []
            if number not in refused:
                try:
                    code, held = commit_turn(tx, turn, request)
                except apsw.ConstraintError:
                    raise Refused(number) from None
            taken.turn_codes.append(code)
            taken.held.append(held)
        taken.turn_back_codes = [give_turn_back(tx, back, now) for back in done.turn_backs]
        taken.work_codes = [finish_work(tx, work, now) for work in done.work]
        taken.work_back_codes = [give_work_back(tx, back, now) for back in done.work_backs]
        for message in done.messages:
            tx.send(message, now)

    # ── load and renew ───────────────────────────────────────────────────────────────────────────────────────

    def load(self, instance: str, execution_id: int | None = None, after: int = 0) -> Loaded | None:
        with self._transaction("load", False) as tx:
            found = tx.row("load_instance", instance, execution_id or 0)
            if found is None:
                return None
            execution, name, version, parent, custom_status, status_version, status, output = found
            if after >= NO_EVENTS:
                return Loaded(instance, execution, name, version, status, output, parent, custom_status, status_version, [], {}, {})
            events = tx.rows("load_events", instance, execution, after)
            kv = {key: (value, at) for key, value, at in tx.rows("load_kv", instance)}
            delta = {key: (value, at) for key, value, at in tx.rows("load_kv_delta", instance)}
            return Loaded(
                instance, execution, name, version, status, output, parent, custom_status, status_version, events, kv, delta
            )

    def renew(self, renewal: Renewal) -> Renewed:
        r = renewal
        writes = bool(r.leases and r.lease_ms > 0 or r.work and r.work_lease_ms > 0 or r.session_owner is not None)
        with self._transaction("renew", writes) as tx:
            lost_leases = [i for i, (instance, token) in enumerate(r.leases) if not self._renew_lease(tx, r, instance, token)]
            lost_work = [i for i, (row_id, token) in enumerate(r.work) if not self._renew_work(tx, r, row_id, token)]
            sessions = 0
            if r.session_owner is not None and r.session_lock_ms > 0:
                sessions = tx.run("session_renew", r.now + r.session_lock_ms, r.session_owner, r.now, r.now - r.session_idle_ms)
            return Renewed(lost_leases, lost_work, sessions)

    @staticmethod
    def _renew_lease(tx: Transaction, r: Renewal, instance: str, token: str) -> bool:
        if r.lease_ms <= 0:
            return tx.lease_live(instance, token, r.now)
        return tx.run("lease_renew", r.now + r.lease_ms, instance, token, r.now) > 0

    @staticmethod
    def _renew_work(tx: Transaction, r: Renewal, row_id: int, token: str) -> bool:
        live, session = tx.work_live(row_id, token, r.now)
        if live and r.work_lease_ms > 0:
            tx.run("work_renew", r.now + r.work_lease_ms, row_id, token, r.now)
            tx.touch(session, r.now)
        return live


def _patiently(step: Callable[[], T]) -> T:
    """Again while another process writes, in short sleeps."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            return step()
        except apsw.BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.001)


# ── what is handed in ────────────────────────────────────────────────────────────────────────────────────────


def commit_turn(tx: Transaction, turn: TurnDone, request: Request) -> tuple[int, list[int]]:
    """(code, row ids of held work). Checked before the first write."""
    now = request.now
    if not _admit(tx, turn, now):
        return LOST, []
    for row_id in turn.consumed:
        tx.run("message_drop", row_id, turn.lease)
    if turn.name is not None:
        tx.run("instance_put", turn.instance, turn.name, turn.version or "unknown", turn.execution_id, turn.parent, tx.stamp())
        tx.run("execution_put", turn.instance, turn.execution_id, *(turn.pinned or (None, None, None)), tx.stamp())
    for event_id, kind, text in turn.events:
        tx.run("event_put", turn.instance, turn.execution_id, event_id, kind, text, tx.stamp())
    _put_state(tx, turn, now)
    held = _put_outbox(tx, turn, request)
    if not turn.keep:
        if turn.acks:
            tx.run("lease_end", turn.instance, turn.lease, now)
        if tx.row("message_carries", turn.lease):
            tx.run("message_free", turn.lease)
    return OK, held


def _admit(tx: Transaction, turn: TurnDone, now: int) -> bool:
    """Is the turn still the caller's? Then the rows that it acknowledges go. Only the last thing that is asked may be a write."""
    if not turn.keep and not turn.acks:
        return tx.run("lease_end", turn.instance, turn.lease, now) > 0
    if not tx.lease_live(turn.instance, turn.lease, now):
        return False
    if len(turn.acks) == 1 and tx.run("work_end", *turn.acks[0], now):
        return True
    acks = [(row_id, *tx.work_live(row_id, token, now)) for row_id, token in turn.acks]
    if not all(live for _, live, _ in acks):
        return False
    for row_id, _, session in acks:
        tx.drop_work(row_id, session, now)
    return True


def _put_state(tx: Transaction, turn: TurnDone, now: int) -> None:
    if turn.status is not None:
        tx.run("execution_end", turn.instance, turn.execution_id, turn.status, turn.output, now)
    if turn.custom_status is not None:
        tx.run("custom_status_put", turn.instance, turn.custom_status[0])
    for op, key, value, at in turn.kv:
        if op == KV_CLEAR_ALL:
            tx.run("kv_clear_delta", turn.instance, at)
            tx.run("kv_clear_store", turn.instance, at)
        else:
            tx.run("kv_put", turn.instance, key, value if op == KV_SET else None, at)
    if turn.status is not None and tx.row("kv_any", turn.instance):
        for step in ("kv_merge_put", "kv_merge_drop", "kv_merge_end"):
            tx.run(step, turn.instance)


def _put_outbox(tx: Transaction, turn: TurnDone, request: Request) -> list[int]:
    now, held = request.now, []
    lease_ms = request.appetite.work_lease_ms if request.appetite is not None else DEFAULT_WORK_LEASE_MS
    for work in turn.work:
        leased = work.lease is not None
        tx.run(
            "work_put", work.item, work.lease, now + lease_ms if leased else None, int(leased), work.visible_at or now, work.instance,
            work.execution_id, work.activity_id, work.session_id, work.tag, tx.stamp(),
        )  # fmt: skip
        if leased:
            held.append(tx.connection.last_insert_rowid())
    for key in turn.cancelled:
        tx.run("work_cancel", *key)
    for message in turn.messages:
        tx.send(message, now)
    return held


def give_turn_back(tx: Transaction, back: TurnBack, now: int) -> int:
    if not tx.lease_live(back.instance, back.lease, float("-inf")):
        return LOST
    tx.run("message_unroute", back.lease)  # never handed out: neither delayed nor refunded
    tx.run("message_back", back.lease, now + back.delay_ms if back.delay_ms else 0, int(back.refund))
    tx.run("lease_drop", back.instance)
    return OK


def finish_work(tx: Transaction, work: WorkDone, now: int) -> int:
    live, session = tx.work_live(work.row_id, work.token, now)
    if not live:
        return LOST
    tx.drop_work(work.row_id, session, now)
    if work.item is not None:
        tx.send((work.instance, work.item, 0), now)
    return OK


def give_work_back(tx: Transaction, back: WorkBack, now: int) -> int:
    return OK if tx.run("work_back", now + back.delay_ms, int(back.refund), back.row_id, back.token) else LOST
