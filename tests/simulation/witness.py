"""What must hold at every exchange, seen from outside of the store and of the processes.

Owns its own account of who holds which lease until when, of every committed event and of every consumed message: it never asks
the code under test. `Wrong` names what was broken.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from duroxide.storage.base import OK, REFUSED, Renewal, Renewed, Request, Taken, TurnDone

Held = tuple[str, int]  # token, until


class Wrong(AssertionError):
    pass


class Witness:
    def __init__(self) -> None:
        self.leases: dict[str, Held] = {}
        self.work: dict[int, Held] = {}
        self.ended: set[str] = set()  # tokens whose time is over by the clock of somebody who may have freed them
        self.consumed: set[int] = set()
        self.delivered: Counter[int] = Counter()
        self.finished: set[int] = set()  # worker rows
        self.events: dict[tuple[str, int], list[tuple[int, str]]] = {}
        self.claims: Counter[tuple[str, int, int]] = Counter()  # of each activity
        self.rows: dict[int, tuple[str, int, int]] = {}  # worker row -> its activity
        self.commits = 0

    def exchanged(self, requests: Sequence[Request], answers: Sequence[Taken]) -> None:
        for request, taken in zip(requests, answers):
            if request.done is not None:
                self._handed_in(request, taken)
        for request, taken in zip(requests, answers):
            if request.appetite is not None:
                self._swept(request.now)
                self._claimed(request, taken)

    # ── handed in ────────────────────────────────────────────────────────────────────────────────────────────

    def _handed_in(self, request: Request, taken: Taken) -> None:
        done, now = request.done, request.now
        assert done is not None
        lease_ms = request.appetite.work_lease_ms if request.appetite is not None else 30_000
        for turn, code, held in zip(done.turns, taken.turn_codes, taken.held, strict=True):
            if code == OK:
                self._committed(turn, held, now, lease_ms)
            elif code == REFUSED:
                raise Wrong(f"a turn of {turn.instance} did not fit what is stored: {[id for id, _, _ in turn.events]}")
        for back, code in zip(done.turn_backs, taken.turn_back_codes, strict=True):
            if code == OK:
                self._end(back.instance, back.lease)
        for work, code in zip(done.work, taken.work_codes, strict=True):
            if code == OK:
                self._finish(work.row_id, work.token, now)
        for given, code in zip(done.work_backs, taken.work_back_codes, strict=True):
            if code == OK and self.work.pop(given.row_id, ("", 0))[0] != given.token:
                raise Wrong(f"work row {given.row_id} was given back by {given.token}, who did not hold it")

    def _committed(self, turn: TurnDone, held: list[int], now: int, lease_ms: int) -> None:
        self.commits += 1
        token, until = self.leases.get(turn.instance, ("nobody", 0))
        if token != turn.lease or until <= now:
            raise Wrong(f"{turn.instance}: committed under {turn.lease} at {now}, but {token} holds it until {until}")
        for row_id, work_token in turn.acks:
            self._finish(row_id, work_token, now)
        for row_id in turn.consumed:
            if row_id in self.consumed:
                raise Wrong(f"{turn.instance}: message {row_id} was consumed twice")
            self.consumed.add(row_id)
        stored = self.events.setdefault((turn.instance, turn.execution_id), [])
        for id, _, text in turn.events:
            if id != len(stored) + 1:
                raise Wrong(f"{turn.instance}#{turn.execution_id}: event {id} was committed after {len(stored)}")
            stored.append((id, text))
        leased = iter(held)
        for work in turn.work:
            if work.lease is not None:
                row_id = next(leased)
                self.work[row_id] = work.lease, now + lease_ms
                self.rows[row_id] = work.instance, work.execution_id, work.activity_id
                self.claims[self.rows[row_id]] += 1
        gone = {tuple(key) for key in turn.cancelled}
        for row_id in [row for row, key in self.rows.items() if key in gone]:
            self.finished.add(row_id)
            self.work.pop(row_id, None)
        if not turn.keep:
            self._end(turn.instance, turn.lease)

    def _finish(self, row_id: int, token: str, now: int) -> None:
        holder, until = self.work.pop(row_id, ("nobody", 0))
        if holder != token or until <= now:
            raise Wrong(f"work row {row_id}: finished under {token} at {now}, but {holder} holds it until {until}")
        self.finished.add(row_id)

    def _end(self, instance: str, token: str) -> None:
        if self.leases.pop(instance, ("nobody", 0))[0] != token:
            raise Wrong(f"{instance}: the lease {token} was given back by somebody who did not have it")

    # ── claimed ──────────────────────────────────────────────────────────────────────────────────────────────

    def _swept(self, now: int) -> None:
        for table in (self.leases, self.work):
            self.ended.update(token for token, until in table.values() if until <= now)  # type: ignore[attr-defined]

    def _claimed(self, request: Request, taken: Taken) -> None:
        now, appetite = request.now, request.appetite
        assert appetite is not None
        for claim in taken.turns:
            token, until = self.leases.get(claim.instance, ("nobody", 0))
            if token != claim.lease:
                if until > now and token not in self.ended:
                    raise Wrong(f"{claim.instance}: leased to {claim.lease} at {now} while {token} holds it until {until}")
                self.leases[claim.instance] = claim.lease, now + appetite.lease_ms
            for row_id, _, _ in claim.messages:
                self.delivered[row_id] += 1
                if row_id in self.consumed:
                    raise Wrong(f"{claim.instance}: message {row_id} was delivered after it had been consumed")
        for work in taken.work:
            token, until = self.work.get(work.row_id, ("nobody", 0))
            if (until > now and token not in self.ended) or work.row_id in self.finished:
                raise Wrong(f"work row {work.row_id}: leased to {work.token} at {now}; held by {token} until {until}")
            self.work[work.row_id] = work.token, now + appetite.work_lease_ms
            body = json.loads(work.item)["ActivityExecute"]
            self.rows[work.row_id] = body["instance"], body["execution_id"], body["id"]
            self.claims[self.rows[work.row_id]] += 1

    # ── leases ───────────────────────────────────────────────────────────────────────────────────────────────

    def renewed(self, renewal: Renewal, answer: Renewed) -> None:
        for index, (instance, token) in enumerate(renewal.leases):
            self._renewed(self.leases, instance, token, index in answer.lost_leases, renewal.now, renewal.lease_ms)
        for index, (row_id, token) in enumerate(renewal.work):
            self._renewed(self.work, row_id, token, index in answer.lost_work, renewal.now, renewal.work_lease_ms)

    def _renewed(self, table: dict[Any, Held], key: Any, token: str, lost: bool, now: int, by_ms: int) -> None:
        holder, until = table.get(key, ("nobody", 0))
        live = holder == token and until > now
        if live is lost and not (lost and token in self.ended):
            raise Wrong(
                f"lease {token} on {key}: said to be {'lost' if lost else 'live'} at {now}; {holder} holds it until {until}"
            )
        if live and not lost and by_ms > 0:
            table[key] = token, now + by_ms
            self.ended.discard(token)

    def freed(self, owner: str) -> None:
        """Everything of an owner that died."""
        for table in (self.leases, self.work):
            for key in [key for key, (token, _) in table.items() if token.rpartition(":")[0] == f"lock_{owner}"]:
                del table[key]  # type: ignore[attr-defined]
