"""The verbs on dicts in plain Python: the model that other stores are compared with, and a fast double for users' tests.

Owns the rules of the contract in their plainest form, under one lock; nothing survives the process. Refuses to be clever: every claim
looks at every row.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any

from duroxide.storage.base import (
    KV_CLEAR,
    KV_SET,
    LOST,
    OK,
    PARKED,
    REFUSED,
    Appetite,
    ClaimedTurn,
    ClaimedWork,
    Done,
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
from duroxide.storage.memory_admin import MemoryAdmin

_KIND = re.compile(r'\s*\{\s*"(\w+)"')
_STARTS = ("StartOrchestration", "ContinueAsNew")


def _kind(item: str) -> str:
    match = _KIND.match(item)
    return match.group(1) if match else ""


class Execution:
    def __init__(self, now: int, pin: tuple[int, int, int] | None) -> None:
        self.status: str = "Running"
        self.pin: tuple[int, int, int] | None = pin
        self.started_at: int = now
        self.output: str | None = None
        self.completed_at: int | None = None
        self.events: dict[int, tuple[str, str]] = {}  # id -> (type, JSON)


class Instance:
    def __init__(self, name: str, version: str, parent: str | None, now: int) -> None:
        self.name: str = name
        self.version: str = version
        self.parent: str | None = parent
        self.current: int = 1
        self.created_at: int = now
        self.custom_status: str | None = None
        self.custom_status_version: int = 0
        self.executions: dict[int, Execution] = {}
        self.kv: dict[str, tuple[str, int]] = {}
        self.kv_delta: dict[str, tuple[str | None, int]] = {}


class Message:
    def __init__(self, instance: str, item: str, visible_at: int) -> None:
        self.instance: str = instance
        self.item: str = item
        self.visible_at: int = visible_at
        self.token: str | None = None
        self.attempts: int = 0


class WorkRow:
    def __init__(self, item: str, instance: str, execution_id: int, activity_id: int, session: str | None, tag: str | None) -> None:
        self.item: str = item
        self.key: tuple[str, int, int] = (instance, execution_id, activity_id)
        self.session: str | None = session
        self.tag: str | None = tag
        self.visible_at: int = 0
        self.until: int = 0
        self.attempts: int = 0
        self.token: str | None = None


class State:
    """All tables."""

    def __init__(self) -> None:
        self.instances: dict[str, Instance] = {}
        self.messages: dict[int, Message] = {}
        self.work: dict[int, WorkRow] = {}
        self.leases: dict[str, tuple[str, int]] = {}  # instance -> (token, until)
        self.sessions: dict[str, tuple[str, int, int]] = {}  # session -> (owner, until, last activity)
        self.last_message = self.last_work = 0


class MemoryStore(MemoryAdmin):
    """A provider in memory. `Client` and `Runtime` take it wrapped: any object with it as `_native`."""

    name = "memory"

    def __init__(self) -> None:
        self._state = State()
        self._lock = threading.RLock()
        self._tokens = itertools.count(1)
        self._closed = False

    # ── the verbs ────────────────────────────────────────────────────────────────────────────────────────────

    def exchange(self, requests: Sequence[Request]) -> list[Taken]:
        with self._lock:
            self._check_open("exchange")
            for request in requests:
                _check_texts(request.done)
            answers = [Taken() for _ in requests]
            for request, taken in zip(requests, answers):
                if request.done is not None:
                    self._apply(request, request.done, taken)
            for request, taken in zip(requests, answers):
                if request.appetite is not None:
                    self._claim_turns(request.appetite, request.now, taken)
                    self._claim_work(request.appetite, request.now, taken)
            return answers

    def load(self, instance: str, execution_id: int | None = None, after: int = 0) -> Loaded | None:
        with self._lock:
            self._check_open("load")
            found = self._state.instances.get(instance)
            if found is None:
                return None
            number = execution_id or found.current
            execution = found.executions.get(number)
            events = [] if execution is None else [(id, text) for id, (_, text) in sorted(execution.events.items()) if id > after]
            status, output = ("Running", None) if execution is None else (execution.status, execution.output)
            return Loaded(
                instance, number, found.name, found.version, status, output, found.parent, found.custom_status,
                found.custom_status_version, events, dict(found.kv), dict(found.kv_delta),
            )  # fmt: skip

    def renew(self, renewal: Renewal) -> Renewed:
        r = renewal
        with self._lock:
            self._check_open("renew")
            lost_leases = [i for i, (instance, token) in enumerate(r.leases) if not self._renew_lease(r, instance, token)]
            lost_work = [i for i, (row_id, token) in enumerate(r.work) if not self._renew_work(r, row_id, token)]
            sessions = 0
            if r.session_owner is not None and r.session_lock_ms > 0:
                for session, (owner, until, active) in self._state.sessions.items():
                    if owner == r.session_owner and until > r.now and active >= r.now - r.session_idle_ms:
                        self._state.sessions[session] = (owner, r.now + r.session_lock_ms, active)
                        sessions += 1
            return Renewed(lost_leases, lost_work, sessions)

    def _renew_lease(self, r: Renewal, instance: str, token: str) -> bool:
        live = self._lease_live(instance, token, r.now)
        if live and r.lease_ms > 0:
            self._state.leases[instance] = (token, r.now + r.lease_ms)
        return live

    def _renew_work(self, r: Renewal, row_id: int, token: str) -> bool:
        row = self._live_work(row_id, token, r.now)
        if row is not None and r.work_lease_ms > 0:
            row.until = r.now + r.work_lease_ms
            self._touch(row.session, r.now)
        return row is not None

    def close(self) -> None:
        self._closed = True

    def _check_open(self, operation: str) -> None:
        if self._closed:
            raise StoreError(f"{operation}: the store is closed", operation=operation)

    # ── liveness ─────────────────────────────────────────────────────────────────────────────────────────────

    def version(self) -> int:
        return 0

    def announce(self, owner: str) -> Callable[[], None]:
        return lambda: None

    def reclaim(self, now: int) -> int:
        return 0

    def sweep_sessions(self, now: int) -> int:
        with self._lock:
            pending = {row.session for row in self._state.work.values()}
            ended = [s for s, (_, until, _) in self._state.sessions.items() if until <= now and s not in pending]
            for session in ended:
                del self._state.sessions[session]
            return len(ended)

    # ── what is handed in ────────────────────────────────────────────────────────────────────────────────────

    def _apply(self, request: Request, done: Done, taken: Taken) -> None:
        now = request.now
        lease_ms = request.appetite.work_lease_ms if request.appetite is not None else 30_000
        for turn in done.turns:
            code, held = self._commit(turn, now, lease_ms)
            taken.turn_codes.append(code)
            taken.held.append(held)
        taken.turn_back_codes = [self._turn_back(back, now) for back in done.turn_backs]
        taken.work_codes = [self._finish(work, now) for work in done.work]
        taken.work_back_codes = [self._work_back(back, now) for back in done.work_backs]
        for instance, item, visible_at in done.messages:
            self._send(instance, item, visible_at or now)

    def _commit(self, turn: TurnDone, now: int, lease_ms: int) -> tuple[int, list[int]]:
        state = self._state
        if not self._lease_live(turn.instance, turn.lease, now):
            return LOST, []
        if any(self._live_work(row_id, token, now) is None for row_id, token in turn.acks):
            return LOST, []
        if self._violates(turn):
            return REFUSED, []
        for row_id, _ in turn.acks:
            self._touch(state.work.pop(row_id).session, now)
        for row_id in turn.consumed:
            if row_id in state.messages and state.messages[row_id].token == turn.lease:
                del state.messages[row_id]
        self._write(turn, now)
        held = self._put_work(turn, now, lease_ms)
        for key in turn.cancelled:
            state.work = {row_id: row for row_id, row in state.work.items() if row.key != tuple(key)}
        for instance, item, visible_at in turn.messages:
            self._send(instance, item, visible_at or now)
        if not turn.keep:
            self._end_lease(turn.instance, turn.lease)
        return OK, held

    def _violates(self, turn: TurnDone) -> bool:
        """Would it break a key? Nothing is written then."""
        found = self._state.instances.get(turn.instance)
        stored = found.executions.get(turn.execution_id) if found is not None else None
        ids = [id for id, _, _ in turn.events]
        return len(set(ids)) < len(ids) or (stored is not None and any(id in stored.events for id in ids))

    def _write(self, turn: TurnDone, now: int) -> None:
        state = self._state
        if turn.name is not None:
            instance = state.instances.get(turn.instance)
            if instance is None:
                parent = turn.parent if turn.parent in state.instances else None
                instance = state.instances[turn.instance] = Instance(turn.name, turn.version or "unknown", parent, now)
            instance.name, instance.version = turn.name, turn.version or "unknown"
            instance.current = max(instance.current, turn.execution_id)
            execution = instance.executions.setdefault(turn.execution_id, Execution(now, turn.pinned))
            execution.pin = turn.pinned or execution.pin
        found = state.instances.get(turn.instance)
        if found is None:
            return
        stored = found.executions.get(turn.execution_id)
        if stored is None and turn.events:
            stored = found.executions[turn.execution_id] = Execution(now, None)
        if stored is not None:
            stored.events.update({id: (kind, text) for id, kind, text in turn.events})
            if turn.status is not None:
                stored.status, stored.output, stored.completed_at = turn.status, turn.output, now
        if turn.custom_status is not None:
            found.custom_status, found.custom_status_version = turn.custom_status[0], found.custom_status_version + 1
        self._change_kv(found, turn)

    @staticmethod
    def _change_kv(found: Instance, turn: TurnDone) -> None:
        for op, key, value, at in turn.kv:
            if op in (KV_SET, KV_CLEAR):
                assert key is not None
                found.kv_delta[key] = (value if op == KV_SET else None, at)
            else:
                found.kv_delta = dict.fromkeys([*found.kv_delta, *found.kv], (None, at))
        if turn.status is not None:
            for key, (text, at) in found.kv_delta.items():
                if text is None:
                    found.kv.pop(key, None)
                else:
                    found.kv[key] = (text, at)
            found.kv_delta = {}

    def _put_work(self, turn: TurnDone, now: int, lease_ms: int) -> list[int]:
        held = []
        for work in turn.work:
            row = WorkRow(work.item, work.instance, work.execution_id, work.activity_id, work.session_id, work.tag)
            row.visible_at = work.visible_at or now
            self._state.last_work += 1
            self._state.work[self._state.last_work] = row
            if work.lease is not None:
                row.token, row.until, row.attempts = work.lease, now + lease_ms, 1
                held.append(self._state.last_work)
        return held

    def _send(self, instance: str, item: str, visible_at: int) -> None:
        self._state.last_message += 1
        self._state.messages[self._state.last_message] = Message(instance, item, visible_at)

    def _turn_back(self, back: TurnBack, now: int) -> int:
        if self._state.leases.get(back.instance, ("", 0))[0] != back.lease:
            return LOST
        for message in self._state.messages.values():
            if message.token == back.lease:
                message.token = None
                if back.delay_ms:
                    message.visible_at = max(message.visible_at, now + back.delay_ms)
                message.attempts = max(message.attempts - back.refund, 0)
        del self._state.leases[back.instance]
        return OK

    def _finish(self, work: WorkDone, now: int) -> int:
        row = self._live_work(work.row_id, work.token, now)
        if row is None:
            return LOST
        del self._state.work[work.row_id]
        self._touch(row.session, now)
        if work.item is not None:
            self._send(work.instance, work.item, now)
        return OK

    def _work_back(self, back: WorkBack, now: int) -> int:
        row = self._state.work.get(back.row_id)
        if row is None or row.token is None or row.token != back.token:
            return LOST
        row.token, row.visible_at, row.attempts = None, now + back.delay_ms, max(row.attempts - back.refund, 0)
        return OK

    # ── leases ───────────────────────────────────────────────────────────────────────────────────────────────

    def _lease_live(self, instance: str, token: str, now: int) -> bool:
        found = self._state.leases.get(instance)
        return found is not None and found[0] == token and found[1] > now

    def _live_work(self, row_id: int, token: str, now: int) -> WorkRow | None:
        row = self._state.work.get(row_id)
        return row if row is not None and row.token == token and row.until > now else None

    def _end_lease(self, instance: str, token: str) -> None:
        self._state.leases.pop(instance, None)
        for message in self._state.messages.values():
            if message.token == token:
                message.token = None

    def _touch(self, session: str | None, now: int) -> None:
        found = self._state.sessions.get(session) if session is not None else None
        if session is not None and found is not None and found[1] > now:
            self._state.sessions[session] = (found[0], found[1], now)

    # ── claims ───────────────────────────────────────────────────────────────────────────────────────────────

    def _claim_turns(self, appetite: Appetite, now: int, taken: Taken) -> None:
        if appetite.turns <= 0 or appetite.versions == ():
            return
        for instance, (token, until) in list(self._state.leases.items()):
            if until <= now:
                self._end_lease(instance, token)
        waiting = sorted((m.visible_at, id) for id, m in self._state.messages.items() if m.token is None and m.visible_at <= now)
        for _, id in waiting:
            message = self._state.messages.get(id)
            if len(taken.turns) >= appetite.turns:
                break
            if message is not None and message.token is None and message.visible_at <= now:
                self._claim_instance(message.instance, appetite, now, taken)
        later = [m.visible_at for m in self._state.messages.values() if m.token is None and m.visible_at > now]
        later += [until for _, until in self._state.leases.values()] if appetite.sweep else []
        self._come_due(taken, later)

    @staticmethod
    def _come_due(taken: Taken, times: list[int]) -> None:
        known = [at for at in (*times, taken.next_visible_at) if at is not None and at < PARKED]
        taken.next_visible_at = min(known, default=None)

    def _claim_instance(self, instance: str, appetite: Appetite, now: int, taken: Taken) -> None:
        state = self._state
        held = state.leases.get(instance)
        if held is not None and held[0].rpartition(":")[0] != f"lock_{appetite.owner}":
            return
        found = state.instances.get(instance)
        execution = found.executions.get(found.current) if found is not None else None
        if held is None and not _fits(appetite, execution):
            return
        if found is None and held is None and not self._is_birth(instance, now):
            return
        if held is None and execution is not None and execution.status == "ContinuedAsNew" and self._is_between(instance, now):
            return
        token = held[0] if held is not None else f"lock_{appetite.owner}:{next(self._tokens)}"
        if held is None:
            state.leases[instance] = (token, now + appetite.lease_ms)
        batch = []
        for id, message in sorted(state.messages.items()):
            if message.instance == instance and message.token is None and message.visible_at <= now:
                message.token, message.attempts = token, message.attempts + 1
                batch.append((id, message.item, message.attempts))
        attempt = max(attempts for _, _, attempts in batch)
        if found is None:
            taken.turns.append(ClaimedTurn(instance, token, batch, attempt, 0, 0, None, None, None))
            return
        last = max(execution.events, default=0) if execution is not None else 0
        status = execution.status if execution is not None else None
        taken.turns.append(ClaimedTurn(instance, token, batch, attempt, found.current, last, found.name, found.version, status))

    def _is_birth(self, instance: str, now: int) -> bool:
        """Does a start wait for this unborn id? Then what was parked for it comes along; else its messages are settled."""
        mine = {id: m for id, m in self._state.messages.items() if m.instance == instance and m.token is None}
        ready = {id: m for id, m in mine.items() if m.visible_at <= now}
        if any(_kind(m.item) in _STARTS for m in ready.values()):
            for message in mine.values():
                if message.visible_at == PARKED:
                    message.visible_at = now
            return True
        due = min((m.visible_at for m in mine.values() if now < m.visible_at < PARKED and _kind(m.item) in _STARTS), default=0)
        for id, message in ready.items():
            if due or _kind(message.item) == "CancelInstance":
                message.visible_at = due or PARKED
            else:
                del self._state.messages[id]
        return False

    def _is_between(self, instance: str, now: int) -> bool:
        """Is the start of the next execution still to come? Then what came before waits for it, so that nothing overtakes it."""
        mine = [m for m in self._state.messages.values() if m.instance == instance and m.token is None]
        due = min((m.visible_at for m in mine if m.visible_at < PARKED and _kind(m.item) == "ContinueAsNew"), default=0)
        if due <= now:
            return False
        for message in mine:
            if message.visible_at <= now:
                message.visible_at = due
        return True

    def _claim_work(self, appetite: Appetite, now: int, taken: Taken) -> None:
        if appetite.work <= 0 or appetite.tag_mode == "none":
            return
        for row in self._state.work.values():
            if row.token is not None and row.until <= now:
                row.token = None
        free = {id: r for id, r in self._state.work.items() if r.token is None and _serves(appetite, r.tag) and self._reachable(r, appetite, now)}
        opened: set[str] = set()
        for id, row in sorted(free.items(), key=lambda pair: (pair[1].visible_at, pair[0])):
            if len(taken.work) >= appetite.work or row.visible_at > now:
                break
            if row.session is None or self._open(row.session, appetite, now, opened):
                taken.work.append(self._take(id, row, appetite, now))
        later = [row.visible_at for row in free.values() if row.visible_at > now]
        later += [row.until for row in self._state.work.values() if row.token is not None and row.until > now] if appetite.sweep else []
        self._come_due(taken, later)

    def _reachable(self, row: WorkRow, appetite: Appetite, now: int) -> bool:
        """Is its session free, ours, or none?"""
        if row.session is None:
            return True
        if appetite.session_owner is None or (appetite.session_room <= 0 and row.session not in appetite.sessions):
            return False
        owner, until, _ = self._state.sessions.get(row.session, ("", 0, 0))
        return until <= now or owner == appetite.session_owner

    def _open(self, session: str, appetite: Appetite, now: int, opened: set[str]) -> bool:
        if session in opened:
            return True
        if session not in appetite.sessions and len(opened - set(appetite.sessions)) >= appetite.session_room:
            return False
        opened.add(session)
        assert appetite.session_owner is not None
        self._state.sessions[session] = (appetite.session_owner, now + appetite.session_lock_ms, now)
        return True

    def _take(self, id: int, row: WorkRow, appetite: Appetite, now: int) -> ClaimedWork:
        row.token, row.until = f"lock_{appetite.owner}:{next(self._tokens)}", now + appetite.work_lease_ms
        row.attempts += 1
        found = self._state.instances.get(row.key[0])
        name, version = (None, None) if found is None else (found.name, found.version)
        return ClaimedWork(id, row.token, row.item, row.attempts, row.key[0], row.session, row.tag, name, version)


def _fits(appetite: Appetite, execution: Execution | None) -> bool:
    if not appetite.versions or execution is None or execution.pin is None:
        return True
    major, minor, patch = execution.pin
    return appetite.versions[0] <= major * 1_000_000 + minor * 1_000 + patch <= appetite.versions[1]


def _serves(appetite: Appetite, tag: str | None) -> bool:
    mode = appetite.tag_mode
    if mode == "any" or (tag is None and mode != "tags"):
        return True
    return mode in ("tags", "default_and") and tag in appetite.tags


def _check_texts(done: Done | None) -> None:
    """Texts must be UTF-8: the whole request is refused before anything is written."""
    if done is None:
        return
    texts: list[Any] = [part for message in done.messages for part in message[:2]]
    for turn in done.turns:
        texts += [turn.output, *(turn.custom_status or ()), *(part for op in turn.kv for part in op[1:3])]
        texts += [part for message in turn.messages for part in message[:2]] + [event[2] for event in turn.events]
        texts += [work.item for work in turn.work]
    try:
        for text in texts:
            if text is not None:
                text.encode()
    except UnicodeEncodeError as error:
        raise StoreError(f"exchange: text with a lone surrogate cannot be stored: {error}", operation="exchange") from error
