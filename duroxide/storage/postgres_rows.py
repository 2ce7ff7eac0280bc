"""A group of requests as the parameters of the exchange on the server, and its rows as answers.

Owns that layout, in which arrays of one kind run parallel, and the check that PostgreSQL can store the texts. Knows no connection.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from duroxide.storage._postgres import int8s, texts
from duroxide.storage.base import (
    KV_CLEAR_ALL,
    KV_SET,
    LOST,
    OK,
    PARKED,
    REFUSED,
    Appetite,
    ClaimedTurn,
    ClaimedWork,
    Request,
    StoreError,
    Taken,
    TurnBack,
    TurnDone,
    WorkOut,
)
from duroxide.storage.postgres_apply_sql import PARAMETERS

DEFAULT_WORK_LEASE_MS = 30_000
LATEST_MS = 9_200_000_000_000_000  # PostgreSQL's time ends in the year 294276; 'infinity' is for what is parked
NUMBERS = 1_000_000  # tokens that one exchange may give to one owner
_ALWAYS = -(1 << 63)
_FEW = {"p_peer", "p_mark", "p_appetites"}
_TEXT = {name: kind == "text[]" for name, kind in PARAMETERS.items() if name not in _FEW}


class Unstorable(StoreError):
    """A text that PostgreSQL cannot hold, or a number."""


class Repeats(Exception):
    """Two members of the group are about one lease or one worker row: what the second means depends on the first."""


def instant(at: int, now: int) -> int:
    """A time that PostgreSQL can hold; 0 is now."""
    return min(at, LATEST_MS) if at else now


class Group:
    """The parameters of one exchange, from `add`ed requests; `answers` reads what came back."""

    def __init__(self) -> None:
        self.columns: dict[str, list[Any]] = {name: [] for name in _TEXT}
        self.requests: list[Request] = []
        self.turns: list[TurnDone] = []
        self.writes: bool = False
        self._backs: list[tuple[TurnBack, int]] = []
        self._appetites: list[dict[str, Any]] = []
        self._leases: set[str] = set()
        self._rows: set[int] = set()
        self.now: int = 0

    # ── what is handed in ────────────────────────────────────────────────────────────────────────────────────

    def add(self, request: Request, base: int, work_lease_ms: int | None = None) -> None:
        """`base`: after which number its tokens begin; `work_lease_ms`: of activities held from birth, if its appetite does not say.

        `Repeats` if it needs an exchange of its own."""
        slot = len(self.requests)
        self.requests.append(request)
        self.now = max(self.now, request.now)
        done, appetite = request.done, request.appetite
        if done is not None:
            self.writes = self.writes or bool(done.turns or done.turn_backs or done.work or done.work_backs or done.messages)
            lease_ms = appetite.work_lease_ms if appetite is not None else work_lease_ms or DEFAULT_WORK_LEASE_MS
            for turn in done.turns:
                self._turn(turn, request.now, lease_ms)
            for back in done.turn_backs:
                self._leased(back.instance)
                self._backs.append((back, request.now))
            for work in done.work:
                self._worked(work.row_id, work.token, request.now, 0, work.instance, work.item)
            for given in done.work_backs:
                self._worked(given.row_id, given.token, _ALWAYS, -1, at=instant(request.now + given.delay_ms, 0), refund=given.refund)
            self._messages(0, done.messages, request.now)
        if appetite is not None:
            self._hungry(slot, appetite, request.now, base)

    def _put(self, kind: str, **values: Any) -> None:
        columns = self.columns
        for name, value in values.items():
            columns[f"p_{kind}_{name}"].append(value)

    def _leased(self, instance: str) -> None:
        if instance in self._leases:
            raise Repeats(instance)
        self._leases.add(instance)

    def _worked(
        self, row: int, token: str, now: int, turn: int, instance: str | None = None, item: str | None = None, at: int = 0,
        refund: bool = False,
    ) -> None:  # fmt: skip
        if row in self._rows:
            raise Repeats(row)
        self._rows.add(row)
        self._put("work", row=row, token=token, now=now, turn=turn, instance=instance, item=item, at=at, refund=int(refund))

    def _messages(self, turn: int, messages: Iterable[tuple[str, str, int]], now: int) -> None:
        columns = self.columns
        turns, instances = columns["p_message_turn"], columns["p_message_instance"]
        items, times = columns["p_message_item"], columns["p_message_at"]
        for instance, item, at in messages:
            turns.append(turn)
            instances.append(instance)
            items.append(item)
            times.append(instant(at, now))

    def _turn(self, turn: TurnDone, now: int, work_lease_ms: int) -> None:
        instance = turn.instance
        self._leased(instance)
        self.turns.append(turn)
        n, columns = len(self.turns), self.columns
        self._put("lease", instance=instance, token=turn.lease, now=now)
        for row, token in turn.acks:
            self._worked(row, token, now, n)
        for row in turn.consumed:
            self._put("consumed", turn=n, row=row, token=turn.lease)
        custom = {} if turn.custom_status is None else {"custom": 1, "custom_text": turn.custom_status[0]}
        custom = custom or {"custom": 0, "custom_text": None}
        if turn.name is not None:
            pin = None if turn.pinned is None else turn.pinned[0] * 1_000_000 + turn.pinned[1] * 1_000 + turn.pinned[2]
            self._put(
                "first", turn=n, instance=instance, execution=turn.execution_id, name=turn.name, version=turn.version or "unknown",
                parent=turn.parent, pin=pin, **custom,
            )  # fmt: skip
        else:
            self._put("later", turn=n, instance=instance, **custom)
        for id, _, text in turn.events:
            columns["p_event_turn"].append(n)
            columns["p_event_instance"].append(instance)
            columns["p_event_execution"].append(turn.execution_id)
            columns["p_event_id"].append(id)
            columns["p_event_text"].append(text)
        if turn.status is not None:
            self._put("end", turn=n, instance=instance, execution=turn.execution_id, status=turn.status, output=_plain(turn.output))
        if turn.kv:
            self._values(n, turn)
        for work in turn.work:
            self._out(n, work, now, work_lease_ms)
        for of, execution, activity in turn.cancelled:
            self._put("cancel", turn=n, instance=of, execution=execution, activity=activity)
        self._messages(n, turn.messages, now)
        if not turn.keep:
            self._put("free", turn=n, instance=instance)

    def _values(self, n: int, turn: TurnDone) -> None:
        """One row a key: the last word on it. What was set before a clear-all leaves a tombstone."""
        last: dict[str | None, tuple[str | None, int]] = {}
        cleared = None
        for op, key, value, at in turn.kv:
            if op == KV_CLEAR_ALL:
                cleared = at
                last = dict.fromkeys(last, (None, at))
            else:
                last[key] = (value if op == KV_SET else None, at)
        if cleared is not None:
            self._put("clear", turn=n, instance=turn.instance, at=cleared)
        for key, (value, at) in last.items():
            self._put("kv", turn=n, instance=turn.instance, key=key, value=value, at=at)

    def _out(self, n: int, work: WorkOut, now: int, lease_ms: int) -> None:
        until = None if work.lease is None else now + lease_ms
        self._put(
            "out", turn=n, instance=work.instance, execution=work.execution_id, activity=work.activity_id, item=work.item,
            token=work.lease, at=instant(work.visible_at, now), until=until, session=work.session_id, tag=work.tag,
        )  # fmt: skip

    def _hungry(self, slot: int, appetite: Appetite, now: int, base: int) -> None:
        asked: dict[str, Any] = {"slot": slot, "now": now, "owner": appetite.owner, "base": base}
        if appetite.turns > 0 and appetite.versions != ():
            asked |= {"turns": appetite.turns, "lease_ms": appetite.lease_ms}
            if appetite.versions:
                asked |= {"low": appetite.versions[0], "high": appetite.versions[1]}
        if appetite.work > 0 and appetite.tag_mode != "none":
            asked |= {
                "work": appetite.work, "work_lease_ms": appetite.work_lease_ms, "mode": appetite.tag_mode, "tags": appetite.tags,
                "session_owner": appetite.session_owner, "session_ms": appetite.session_lock_ms,
                "room": max(0, appetite.session_room), "sessions": appetite.sessions,
            }  # fmt: skip
        if len(asked) > 4:
            self._appetites.append(asked)

    def parameters(self, peer: str, epoch: int, number: int) -> list[bytes | None]:
        """In the order of `PARAMETERS`, all binary but the last, which is text. `number`: of this exchange. `Unstorable` names the first text that is."""
        columns = self.columns
        for back, now in self._backs:
            self._put("lease", instance=back.instance, token=back.lease, now=_ALWAYS)
            self._put("back", at=instant(now + back.delay_ms, 0) if back.delay_ms else 0, refund=int(back.refund))
        self._backs = []
        mark = int8s([epoch, number if self.writes else 0, self.now, len(self.turns)])
        made: list[bytes | None] = [peer.encode(), mark]
        try:
            for name, is_text in _TEXT.items():
                column = columns[name]
                made.append((texts(column) if is_text else int8s(column)) if column else None)
        except (ValueError, OverflowError) as error:
            raise Unstorable(f"exchange: cannot be stored in PostgreSQL: {error}", operation="exchange") from error
        made.append(json.dumps(self._appetites).encode() if self._appetites else None)
        return made

    def patterns(self) -> list[str]:
        """Regular expressions for the tokens that this exchange gives to those who are hungry."""
        return [f"^lock_{re.escape(asked['owner'])}:{asked['base'] // NUMBERS}[0-9]{{6}}$" for asked in self._appetites]

    # ── what comes out ───────────────────────────────────────────────────────────────────────────────────────

    def answers(self, rows: Sequence[tuple[Any, ...]]) -> list[Taken]:
        """One a request, from the rows of the exchange."""
        taken = [Taken() for _ in self.requests]
        messages: list[dict[str, list[tuple[int, str, int]]]] = [{} for _ in self.requests]
        for kind, slot, n1, n2, t1, t2, t3, t4, t5, t6, t7 in rows:
            if kind == 2:
                messages[slot].setdefault(t1, []).append((n1, t2, n2))
            elif kind == 1:
                batch = messages[slot].get(t1)
                if batch:
                    attempt = max([message[2] for message in batch])
                    taken[slot].turns.append(ClaimedTurn(t1, t2, batch, attempt, n1 or 0, n2 or 0, t3, t4, t5))
            elif kind == 3:
                taken[slot].work.append(ClaimedWork(n1, t1, t2, n2, t3, t4, t5, t6, t7))
            elif kind == 4:
                at = taken[slot].next_visible_at
                taken[slot].next_visible_at = n1 if at is None else min(at, n1)
            elif kind == 0:
                self._codes(taken, t1, t2, t3, t4)
        return taken

    def _codes(self, taken: list[Taken], clean: str | None, leased: str | None, worked: str | None, held: str | None) -> None:
        """`clean`: flags of the turns, None if all are fine; `leased`, `worked`: numbers of those that are ours, None likewise."""
        fine = None if clean is None else clean.split(",")
        ours = set() if leased is None else set(leased.split(","))
        live = None if worked is None else set(worked.split(","))
        ids = iter(() if not held else map(int, held.split(",")))
        numbers = _numbers(self.columns["p_work_turn"])
        turn, back = 0, len(self.turns)
        for request, answer in zip(self.requests, taken):
            done = request.done
            if done is None:
                continue
            for each in done.turns:
                ok = fine is None or fine[turn] == "t"
                answer.turn_codes.append(OK if ok else LOST)
                answer.held.append([next(ids) for work in each.work if work.lease is not None] if ok else [])
                turn += 1
            for _ in done.turn_backs:
                back += 1
                answer.turn_back_codes.append(OK if str(back) in ours else LOST)
            answer.work_codes = [OK if live is None or next(numbers[0]) in live else LOST for _ in done.work]
            answer.work_back_codes = [OK if live is None or next(numbers[-1]) in live else LOST for _ in done.work_backs]


def _numbers(turns: list[int]) -> dict[int, Any]:
    """The numbers (from 1) of worker rows that are finished (0) and given back (-1), in order."""
    return {kind: iter([str(n) for n, turn in enumerate(turns, 1) if turn == kind]) for kind in (0, -1)}


def lost(requests: Sequence[Request]) -> list[Taken]:
    """What is answered when it is known that the exchange was committed but not what it said: every turn is to be loaded anew."""
    answers = []
    for request in requests:
        taken = Taken()
        if request.done is not None:
            taken.turn_codes = [LOST] * len(request.done.turns)
            taken.held = [[] for _ in request.done.turns]
            taken.turn_back_codes = [OK] * len(request.done.turn_backs)
            taken.work_codes = [OK] * len(request.done.work)
            taken.work_back_codes = [OK] * len(request.done.work_backs)
        answers.append(taken)
    return answers


def _plain(output: str | None) -> str | None:
    """What code raised may have a NUL character, and is to be read nevertheless; results are JSON and have none."""
    return output.replace("\0", "\\u0000") if output is not None and "\0" in output else output


__all__ = ["NUMBERS", "PARKED", "REFUSED", "Group", "Repeats", "Unstorable", "instant", "lost"]
