"""The verbs of the contract over psycopg: an exchange is one call of a function on the server, one transaction, one round trip.

Owns the connection that writes, what happens when that call fails (again, turn by turn, or finding out whether it was committed), loads
and renewals. Refuses to know how connections are made and who is alive.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, TypeVar

import psycopg
from psycopg import generators
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, Format

from duroxide.storage.base import LOST, REFUSED, Done, Loaded, Renewal, Renewed, Request, StoreError, Taken, TurnDone
from duroxide.storage.postgres_apply_sql import PARAMETERS
from duroxide.storage.postgres_connect import Line
from duroxide.storage.postgres_errors import retryable
from duroxide.storage.postgres_exchange_sql import CALL, FENCED, LOAD_CALL
from duroxide.storage.postgres_rows import NUMBERS, Group, Repeats, Unstorable, lost
from duroxide.storage.postgres_sql import COLD

log: logging.Logger = logging.getLogger("duroxide.storage")

Connection = psycopg.Connection[Any]
T = TypeVar("T")
PATIENCE_S = 10.0  # how long a verb tries again before it is the caller's turn to decide
FIRST_PAUSE_S = 0.01
LONGEST_PAUSE_S = 0.5
_EXCHANGE, _LOAD = b"dx_exchange", b"dx_load"  # names of prepared statements
_FORMATS = [Format.BINARY] * (len(PARAMETERS) - 1) + [Format.TEXT]
# A member of the group that the tables refuse: data that do not fit, a constraint, a limit of the server.
_REFUSALS = ("22", "23", "54")


def _refused(error: BaseException) -> bool:
    """Whether a member of the group is to blame, which the others should not suffer for."""
    return isinstance(error, Unstorable) or isinstance(error, psycopg.Error) and (error.sqlstate or "")[:2] in _REFUSALS


def text_of(error: BaseException) -> str:
    """What the server said, without its statement and its place in our functions."""
    said = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return said or str(error).strip()


def _prepared(line: Line, name: bytes, statement: bytes) -> None:
    if line.own_session:
        result = line.pgconn.prepare(name, statement)
        if result.status != ExecStatus.COMMAND_OK:
            raise error_from_result(result)


def _rows_of(
    line: Connection, statement: bytes, name: bytes | None, values: Sequence[bytes | None], formats: Sequence[Format] | None
) -> list[tuple[Any, ...]]:
    """The rows of one statement, prepared under `name` or not; past psycopg's cursor, whose adapting takes longer than all the rest."""
    if name is not None:
        line.pgconn.send_query_prepared(name, values, formats, Format.BINARY)
    else:
        line.pgconn.send_query_params(statement, values, None, formats, Format.BINARY)
    result = line.wait(generators.execute(line.pgconn))[0]
    if result.status != ExecStatus.TUPLES_OK:
        raise error_from_result(result)
    transformer = Transformer(line)
    transformer.set_pgresult(result)
    return transformer.load_rows(0, result.ntuples, tuple)


def pause(tries: int) -> float:
    """Seconds before the next try; grows, and differs between processes."""
    return float(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(tries, 10)) * (0.75 + os.urandom(1)[0] / 512))


class Doubt:
    """An exchange of which nobody knows yet how it ended: its number, and what it may have taken."""

    def __init__(self, number: int, requests: Sequence[Request], writes: bool, patterns: list[str]) -> None:
        self.number: int = number
        self.requests: Sequence[Request] = requests
        self.writes: bool = writes
        self.patterns: list[str] = patterns
        self.turns: list[TurnDone] = [turn for request in requests if request.done is not None for turn in request.done.turns]


class PostgresStore:
    """exchange, load, renew. `connect` makes a connection in autocommit, `lend` lends one of a pool, `fill` puts the schema into SQL;
    `peer` names this store in the schema, `told` hears of what was committed: whether something is left for others, which turns."""

    def __init__(
        self,
        connect: Callable[[], Line],
        lend: Callable[[], AbstractContextManager[Connection]],
        fill: Callable[[str], str],
        peer: str,
        readers: int = 2,
    ) -> None:
        self._connect, self._lend, self._peer = connect, lend, peer
        self.sql: dict[str, str] = {name: fill(text) for name, text in COLD.items()}
        self._call, self._load = fill(CALL).encode(), fill(LOAD_CALL).encode()
        self._parents: list[Line] = []  # of the process that this one was forked from: closing them would end its sessions
        self._readers: list[Line] = []  # idle ones of our own; who finds none borrows one of the pool
        self._may_read = readers
        self.told: Callable[[bool, list[TurnDone]], None] = lambda ready, turns: None
        self._lock = threading.RLock()
        self._line: Line | None = None
        self._epoch = 0
        self._numbers = itertools.count(1)
        self._bases = itertools.count(int.from_bytes(os.urandom(5), "big"))  # times NUMBERS: below 2^63
        self._doubt: Doubt | None = None
        self._closed = ""

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = "is closed"
            line, self._line = self._line, None
            if line is not None:
                with suppress(psycopg.Error):
                    line.execute(self.sql["peer_leave"], {"peer": self._peer})
                line.close()
            while self._readers:
                self._readers.pop().close()

    def abandon(self, why: str) -> None:
        """In a forked child: the connections are the parent's, and stay open."""
        self._lock = threading.RLock()
        self._closed = why
        self._parents, self._readers = self._readers, []

    # ── exchange ─────────────────────────────────────────────────────────────────────────────────────────────

    def exchange(self, requests: Sequence[Request]) -> list[Taken]:
        with self._lock:
            group = Group()
            try:
                for request in requests:
                    group.add(request, self._base())
            except Repeats:
                return self._patiently(requests, lambda: self._one_by_one(requests))
            return self._patiently(requests, lambda: self._at_once(group, requests))

    def _base(self) -> int:
        return next(self._bases) * NUMBERS

    def _patiently(self, requests: Sequence[Request], work: Callable[[], list[Taken]]) -> list[Taken]:
        """`work`, again as long as it is certain that nothing of it was written."""
        deadline, tries = time.monotonic() + PATIENCE_S, 0
        while True:
            try:
                if self._closed:
                    raise StoreError(f"exchange: the store {self._closed}", operation="exchange")
                if self._doubt is not None and self._committed() is requests:
                    return lost(requests)
                return work()
            except psycopg.Error as error:
                state = error.sqlstate
                if state == FENCED:
                    self._hang_up()
                elif not retryable(error) and not self._broken():
                    raise StoreError(f"exchange: {text_of(error)}", operation="exchange") from error
                if time.monotonic() > deadline:
                    raise self._given_up(requests, error) from error
                if state == "25006":
                    self._hang_up()  # a standby now: the address may lead to the new primary
                log.info("exchange: try %d failed, it is tried again: %s", tries + 1, text_of(error))
            time.sleep(pause(tries))
            tries += 1

    def _given_up(self, requests: Sequence[Request], error: psycopg.Error) -> StoreError:
        doubt = self._doubt
        unsure = doubt is not None and doubt.requests is requests and doubt.writes and self._broken()
        text = f"exchange: {text_of(error)}" + ("; whether it was written before the connection was lost is not known" if unsure else "")
        return StoreError(text, operation="exchange", retryable=True, in_doubt=unsure)

    def _at_once(self, group: Group, requests: Sequence[Request]) -> list[Taken]:
        try:
            return group.answers(self._run(group, requests))
        except (psycopg.Error, Unstorable) as error:
            if not group.turns or self._broken() or not _refused(error):
                raise
        return self._one_by_one(requests)

    def _run(self, group: Group, requests: Sequence[Request]) -> Sequence[tuple[Any, ...]]:
        """One exchange as a transaction of its own."""
        line = self._enter()
        number = next(self._numbers)
        parameters = group.parameters(self._peer, self._epoch, number)
        self._doubt = Doubt(number, requests, group.writes, group.patterns())
        rows = self._ask(line, parameters)
        self._doubt = None
        self._tell(group, rows)
        return rows

    def _ask(self, line: Line, parameters: list[bytes | None]) -> list[tuple[Any, ...]]:
        """The rows of the exchange. Past psycopg's cursor: adapting so many parameters would take longer than all the rest (0020)."""
        return _rows_of(line, self._call, _EXCHANGE if line.own_session else None, parameters, _FORMATS)

    def _tell(self, group: Group, rows: Sequence[tuple[Any, ...]]) -> None:
        kind, _, ready = rows[-1][:3]
        if kind == 5:  # somebody else listens
            self.told(bool(ready), group.turns)

    # ── turn by turn, after an error that one of them must have caused ───────────────────────────────────────

    def _one_by_one(self, requests: Sequence[Request]) -> list[Taken]:
        """The same transaction in steps; a turn that the tables refuse is left out."""
        line = self._enter()
        number = next(self._numbers)
        doubt = self._doubt = Doubt(number, requests, True, [])
        try:
            with line.transaction():
                answers = [self._steps(line, number, request) for request in requests]
                for request, taken in zip(requests, answers):
                    if request.appetite is not None:
                        [claimed] = self._step(line, number, Request(request.now, None, request.appetite))
                        taken.turns, taken.work, taken.next_visible_at = claimed.turns, claimed.work, claimed.next_visible_at
        except BaseException:
            if not self._broken():
                self._doubt = None  # the server said so itself: nothing was written
            raise
        self._doubt = None
        self.told(True, doubt.turns)
        return answers

    def _step(self, line: Line, number: int, request: Request, work_lease_ms: int | None = None) -> list[Taken]:
        group = Group()
        group.add(request, self._base(), work_lease_ms)
        parameters = group.parameters(self._peer, self._epoch, number)
        if self._doubt is not None:
            self._doubt.patterns += group.patterns()
        return group.answers(self._ask(line, parameters))

    def _steps(self, line: Line, number: int, request: Request) -> Taken:
        taken, done = Taken(), request.done or Done()
        lease_ms = None if request.appetite is None else request.appetite.work_lease_ms

        def step(**handed: list[Any]) -> Taken:
            part = Done()
            for name, rows in handed.items():
                setattr(part, name, rows)
            return self._step(line, number, Request(request.now, part), lease_ms)[0]

        for turn in done.turns:
            try:
                with line.transaction():
                    answer = step(turns=[turn])
                taken.turn_codes += answer.turn_codes
                taken.held += answer.held
                continue
            except Repeats:  # two results of one row: at most one is still ours
                code = LOST
            except (psycopg.Error, Unstorable) as error:
                if not _refused(error):
                    raise
                log.warning("exchange: the tables refuse a turn of '%s': %s", turn.instance, text_of(error))
                code = REFUSED
            taken.turn_codes.append(code)
            taken.held.append([])
        for back in done.turn_backs:
            taken.turn_back_codes += step(turn_backs=[back]).turn_back_codes
        for work in done.work:
            taken.work_codes += step(work=[work]).work_codes
        for given in done.work_backs:
            taken.work_back_codes += step(work_backs=[given]).work_back_codes
        if done.messages:
            step(messages=done.messages)
        return taken

    # ── the connection that writes ───────────────────────────────────────────────────────────────────────────

    def _broken(self) -> bool:
        return self._line is None or self._line.closed

    def _hang_up(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()

    def _enter(self) -> Line:
        """The line, in an epoch of its own: an exchange that was sent over an older one cannot be committed any more."""
        if self._line is None or self._line.closed:
            self._hang_up()
            line = self._connect()
            try:
                self._epoch, _ = self._epoch_of(line)
                _prepared(line, _EXCHANGE, self._call)
            except BaseException:
                line.close()
                raise
            self._line = line
        return self._line

    def _epoch_of(self, line: Connection) -> tuple[int, int]:
        row = line.execute(self.sql["peer_enter"], {"peer": self._peer}).fetchone()
        assert row is not None
        return row[0], row[1]

    def _committed(self) -> Sequence[Request] | None:
        """Ends the doubt. The requests of the exchange if it was committed, after everything that it took was freed again; else None."""
        doubt = self._doubt
        assert doubt is not None
        if not self._broken():
            self._doubt = None  # the server answered with an error: nothing was written
            return None
        self._hang_up()
        line = self._connect()
        try:
            with line.transaction():
                self._epoch, seq = self._epoch_of(line)
                committed = doubt.writes and seq == doubt.number
                if committed or not doubt.writes:
                    self._free(line, doubt)
            _prepared(line, _EXCHANGE, self._call)
        except BaseException:
            line.close()
            raise
        self._line, self._doubt = line, None
        if not committed:
            return None
        log.warning("the connection was lost while an exchange was committed: it was, and its %d turns are loaded anew", len(doubt.turns))
        return doubt.requests

    def _free(self, line: Connection, doubt: Doubt) -> None:
        values = {
            "patterns": doubt.patterns,
            "instances": [turn.instance for turn in doubt.turns],
            "tokens": [turn.lease for turn in doubt.turns],
            "work": [work.lease for turn in doubt.turns for work in turn.work if work.lease is not None],
        }
        line.execute(self.sql["lost_leases"], values)
        line.execute(self.sql["lost_work"], values)

    # ── load and renew ───────────────────────────────────────────────────────────────────────────────────────

    def _again(self, operation: str, work: Callable[[Connection], T]) -> T:
        """What may be done twice, until it succeeds."""
        deadline, tries = time.monotonic() + PATIENCE_S, 0
        while True:
            if self._closed:
                raise StoreError(f"{operation}: the store {self._closed}", operation=operation)
            try:
                with self._lend() as connection:
                    return work(connection)
            except psycopg.Error as error:
                again = retryable(error)
                if not again or time.monotonic() > deadline:
                    raise StoreError(f"{operation}: {text_of(error)}", operation=operation, retryable=again) from error
            time.sleep(pause(tries))
            tries += 1

    def _read(self, values: Sequence[bytes | None]) -> list[tuple[Any, ...]]:
        """What `dx_load` says; over a connection of our own if one is idle, which is quicker than to borrow one."""
        line = self._reader()
        if line is not None:
            try:
                rows = _rows_of(line, self._load, _LOAD if line.own_session else None, values, None)
                self._readers.append(line)
                return rows
            except psycopg.Error as error:
                with self._lock:
                    self._may_read += 1
                line.close()
                if not retryable(error):
                    raise StoreError(f"load: {text_of(error)}", operation="load") from error
        return self._again("load", lambda connection: _rows_of(connection, self._load, None, values, None))

    def _reader(self) -> Line | None:
        with suppress(IndexError):
            return self._readers.pop()
        with suppress(psycopg.Error):
            if self._may_read > 0 and not self._closed:
                self._may_read -= 1
                try:
                    line = self._connect()
                    _prepared(line, _LOAD, self._load)
                    return line
                except BaseException:
                    self._may_read += 1
                    raise
        return None

    def load(self, instance: str, execution_id: int | None = None, after: int = 0) -> Loaded | None:
        if "\0" in instance:
            return None
        try:
            values = [instance.encode(), b"%d" % (execution_id or 0), b"%d" % after]
        except UnicodeEncodeError as error:
            raise StoreError(f"load: text with a lone surrogate cannot be stored: {error}", operation="load") from error
        rows = self._read(values)
        row = rows[0] if rows else None
        if row is None:
            return None
        execution, name, version, status, output, parent, custom, custom_version = row[:8]
        ids, texts, keys, values_, times, changed, changed_values, changed_times = (column or () for column in row[8:])
        return Loaded(
            instance, execution, name, version, status or "Running", output, parent, custom, custom_version, list(zip(ids, texts)),
            dict(zip(keys, zip(values_, times))), dict(zip(changed, zip(changed_values, changed_times))),
        )  # fmt: skip

    def renew(self, renewal: Renewal) -> Renewed:
        return self._again("renew", lambda connection: self._renewed(connection, renewal))

    def _renewed(self, connection: Connection, r: Renewal) -> Renewed:
        def lost_of(kind: str, ms: int, count: int, **values: Any) -> list[int]:
            if not count:
                return []
            sql = self.sql[f"{kind}_renew" if ms > 0 else f"{kind}_live"]
            live = {row[0] - 1 for row in connection.execute(sql, {**values, "now": r.now, "until": r.now + ms})}
            return [n for n in range(count) if n not in live]

        with connection.transaction():
            leases = lost_of(
                "lease", r.lease_ms, len(r.leases), instances=[instance for instance, _ in r.leases], tokens=[token for _, token in r.leases]
            )
            work = lost_of("work", r.work_lease_ms, len(r.work), rows=[row for row, _ in r.work], tokens=[token for _, token in r.work])
            sessions = 0
            if r.session_owner is not None and r.session_lock_ms > 0:
                values = {"until": r.now + r.session_lock_ms, "owner": r.session_owner, "now": r.now, "since": r.now - r.session_idle_ms}
                sessions = connection.execute(self.sql["session_renew"], values).rowcount
        return Renewed(leases, work, sessions)
