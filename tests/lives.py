"""One random life of several stores: the same steps on each, each step drawn, all answers equal.

Owns the steps and how often each comes. Where the contract leaves an order free (claims that no limit cuts), it is not compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from parties import INSTANCES, Build, Party

from duroxide.errors import ProviderError
from duroxide.storage.base import (
    KV_CLEAR,
    KV_CLEAR_ALL,
    KV_SET,
    Appetite,
    Done,
    Renewal,
    Request,
    Taken,
    TurnBack,
    TurnDone,
    WorkBack,
    WorkDone,
    WorkOut,
)
from duroxide.testing.world import LEASE_MS, START, WORK_LEASE_MS, item, work

OWNERS = ("a", "b")
PODS, SESSIONS, TAGS = ("a", "b", "pod", None), ("s", "t"), (None, "gpu", "eu")
MODES = ("any", "default_only", "tags", "default_and", "none")
KINDS = ("StartOrchestration", "ContinueAsNew", "QueueMessage", "CancelInstance")
STAYS = ("Running", "Running", "Running", "Completed", "Failed", "ContinuedAsNew", "ContinuedAsNew")
CHANGES = (
    (KV_SET, "x", "1", 5),
    (KV_SET, "x", "2", 6),
    (KV_SET, "y", "", 7),
    (KV_CLEAR, "x", None, 8),
    (KV_CLEAR_ALL, None, None, 9),
)
SESSION_MS, IDLE_MS = 9_000, 6_000
HELD = "lock_a:held"  # the token of work that is leased from its birth

Claim = tuple[str, str, list[int]]  # instance, lease, row ids
Draw = Callable[[st.SearchStrategy[Any]], Any]


class Life:
    """`turns` and `work`: everything ever claimed, live or not, under common names."""

    def __init__(self, parties: list[Party], draw: Draw, cold: bool = True) -> None:
        """`cold`: with the cold calls. Without them a store is a third party's: it may wake its caller too early, never too late."""
        self.parties, self.draw, self.cold = parties, draw, cold
        self.step = ANY_STEP if cold else HOT_STEP
        self.picture: Callable[[Party], Any] = Party.picture if cold else Party.stored
        self.model = parties[0].store()
        self.now, self.numbers = START, itertools.count(1)
        self.group: list[Build] = []
        self.turns: list[Claim] = []
        self.work: list[tuple[int, str, str]] = []  # (row id, token, instance)

    def live(self, steps: int) -> None:
        for _ in range(steps):
            getattr(self, self.draw(self.step))()
            if not self.group:
                self.alike(self.picture)
        self.alike(self.picture)

    def any(self, *values: Any) -> Any:
        return self.draw(st.sampled_from(values))

    def several(self, most: int, *values: Any) -> Any:
        return self.draw(st.lists(st.sampled_from(values), max_size=most)) if values else []

    # ── doing it everywhere ──

    def do(self, build: Build, ride: bool | None = None, in_order: bool = False) -> None:
        """`ride`: into one group with what comes next (None: maybe). `in_order`: the order of claims counts."""
        self.group.append(build)
        if self.any(False, False, True) if ride is None else ride:
            return
        group, self.group, via = self.group, [], next(self.numbers)
        answers, *others = [party.exchange(via, group, in_order) for party in self.parties]
        for other in others:
            if not self.cold:
                _wake_as(other, answers)
            assert other == answers, f"{other}\ninstead of\n{answers}"
        for taken in answers:
            self.turns += [(claim.instance, claim.lease, [row for row, _, _ in claim.messages]) for claim in taken.turns]
            self.work += [(row.row_id, row.token, row.instance or "") for row in taken.work]
            self.work += [(row_id, HELD, "i") for held in taken.held for row_id in held]

    def hand_in(self, ride: bool | None = None, **lists: Callable[[Party], list[Any]]) -> None:
        now = self.now

        def build(party: Party) -> Request:
            done = Done()
            for name, rows in lists.items():
                setattr(done, name, rows(party))
            return Request(now, done)

        self.do(build, ride)

    def flush(self) -> None:
        now = self.now
        if self.group:
            self.do(lambda party: Request(now), False)

    def alike(self, ask: Callable[[Party], Any]) -> None:
        """The answer, or the error, is the same from all; what waits for its group comes first."""
        self.flush()
        answer, *others = [_answer(ask, party) for party in self.parties]
        for other in others:
            assert other == answer, f"{other}\ninstead of\n{answer}"

    # ── what a runtime does most ──

    def turn(self) -> None:
        """Something comes, is claimed, and its turns are committed."""
        for _ in range(self.any(1, 2, 3)):
            self.send(True, "StartOrchestration")
        seen = len(self.turns)
        self.claim(False, None)
        keep = self.any(False, True)
        for claim in self.turns[seen:]:
            self.commit(claim, keep, True)
        self.flush()

    def job(self) -> None:
        """Work is taken, and some of it is finished."""
        self.flush()
        seen = len(self.work)
        self.take(False, "any")
        for row in self.work[seen:]:
            if self.any(True, False):
                self.finish(row, True)
        self.flush()

    # ── messages, claims ──

    def send(self, ride: bool | None = None, kind: str | None = None) -> None:
        instance, delay = self.any(*INSTANCES), self.any(0, 0, 0, 1, 4_000)
        kind, at = kind or self.any(*KINDS), self.now + delay if delay else 0
        self.hand_in(ride, messages=lambda party: [(instance, item(kind, instance), at)])

    def later(self) -> None:
        self.flush()
        self.now += self.any(1, 1_000, LEASE_MS, SESSION_MS, WORK_LEASE_MS)

    def claim(self, ride: bool | None = None, *versions: Any) -> None:
        limits = versions or (None, None, (0, 1_032), (1_033, 9_000), ())
        fields = {"turns": 100, "lease_ms": LEASE_MS, "versions": self.any(*limits), "sweep": self.any(True, False)}
        appetite, now = Appetite(self.any(*OWNERS), **fields), self.now
        self.do(lambda party: Request(now, None, appetite), ride)

    def claim_a_few(self) -> None:
        """By an owner without leases, for whom the order of claims is told: by visibility, then by arrival."""
        self.flush()
        owner, now, turns, work = f"new{next(self.numbers)}", self.now, self.any(1, 2), self.any(0, 1, 2)
        appetite = Appetite(owner, turns=turns, work=work, lease_ms=LEASE_MS, work_lease_ms=WORK_LEASE_MS, tag_mode="any")
        self.do(lambda party: Request(now, None, appetite), False, True)

    def take(self, ride: bool | None = None, mode: str | None = None) -> None:
        appetite = Appetite(
            self.any(*OWNERS),
            work=100,
            work_lease_ms=WORK_LEASE_MS,
            tag_mode=mode or self.any(*MODES),
            tags=self.any(("gpu",), ("gpu", "eu")),
            session_owner=self.any(*PODS),
            session_lock_ms=SESSION_MS,
            session_room=100,
            sweep=self.any(True, False),
        )
        now = self.now
        self.do(lambda party: Request(now, None, appetite), ride)

    def take_a_few(self) -> None:
        self.flush()
        owner, now = self.any(*OWNERS), self.now
        appetite = Appetite(
            owner,
            work=self.any(1, 2, 3),
            work_lease_ms=WORK_LEASE_MS,
            tag_mode="any",
            session_owner=owner,
            session_lock_ms=SESSION_MS,
            session_room=self.any(0, 1, 2),
            sessions=self.any((), ("s",), ("t", "u")),
        )
        self.do(lambda party: Request(now, None, appetite), False, True)

    # ── turns ──

    def held(self) -> Claim:
        """A claim: a live one if any, at times one of the last, whatever became of it."""
        names, leases = self.parties[0].names, self.model._state.leases
        live = [claim for claim in self.turns if claim[1] == names.get(leases.get(claim[0], ("",))[0])]
        return self.any(*live[-5:], *live[-5:], *self.turns[-3:])  # type: ignore[no-any-return]

    def commit(self, claim: Claim | None = None, keep: bool | None = None, ride: bool | None = None) -> None:
        if not self.turns:
            return
        instance, lease, rows = claim or self.held()
        turn = TurnDone(lease, instance, 1)
        turn.consumed = self.any(rows, rows, rows[:1], [])
        turn.keep = self.any(False, True) if keep is None else keep
        self._place(turn)
        acks = self.several(1, *self.work[-4:]) if claim is None else []
        turn.cancelled = [(self.any(*INSTANCES), 1, self.any(2, 3, 4)) for _ in range(self.any(0, 0, 1))]
        turn.work = [self._work() for _ in range(self.any(0, 1, 2, 3))]
        turn.messages = [self._message() for _ in range(self.any(0, 0, 1, 2))]

        def build(party: Party) -> list[TurnDone]:
            turn.lease = party.token(lease)
            turn.acks = [(row_id, party.token(token)) for row_id, token, _ in acks]
            return [turn]

        self.hand_in(ride, turns=build)

    def _work(self) -> WorkOut:
        fields = {"session_id": self.any(None, *SESSIONS), "tag": self.any(*TAGS), "lease": self.any(None, None, HELD)}
        return work(self.any(*INSTANCES), self.any(2, 3, 4), visible_at=self.any(0, 0, self.now + 1_500), **fields)

    def _message(self) -> tuple[str, str, int]:
        instance, delay = self.any(*INSTANCES), self.any(0, 2_000)
        return instance, item("TimerFired" if delay else "StartOrchestration", instance), self.now + delay if delay else 0

    def _place(self, turn: TurnDone) -> None:
        """Where the turn stands in its instance's life, as the model has it now; what it says of state and history."""
        found = self.model.load(turn.instance)
        last = found.events[-1][0] if found is not None and found.events else 0
        if found is not None:
            turn.execution_id = found.execution_id
        if found is None or found.status == "ContinuedAsNew":
            if self.any(True, True, True, False):
                self._bear(turn, found.execution_id + 1 if found else 1)
                last = 0
            elif found is None:
                return  # a turn that finds nobody: it consumes, and it writes nothing but work and messages
        first = last + self.any(1, 1, 1, 1, 1, 1, 0)  # 0: an id that there is already, if any is
        turn.events = [(id, "E", f'{{"event_id":{id}}}') for id in range(first, first + self.any(1, 2, 0)) if id]
        stay = self.any(*STAYS)
        if stay != "Running":
            turn.status, turn.output = stay, self.any(None, '"out"')
        turn.custom_status = self.any(None, None, ("half",), (None,))
        turn.kv = self.several(3, *CHANGES)

    def _bear(self, turn: TurnDone, execution_id: int) -> None:
        turn.name, turn.version, turn.execution_id = "flow", self.any("1.0.0", None), execution_id
        turn.pinned = self.any((0, 1, 32), (0, 1, 33), None)
        turn.parent = self.any(None, *(each for each in INSTANCES if each != turn.instance))

    def give_turn_back(self) -> None:
        if self.turns:
            (instance, lease, _), delay, refund = self.held(), self.any(0, 1_000), self.any(False, True)
            self.hand_in(turn_backs=lambda party: [TurnBack(party.token(lease), instance, delay, refund)])

    # ── work ──

    def finish(self, row: tuple[int, str, str] | None = None, ride: bool | None = None) -> None:
        if self.work:
            row_id, token, instance = row or self.any(*self.work[-6:])
            result = self.any(item("ActivityCompleted", instance), None)
            self.hand_in(ride, work=lambda party: [WorkDone(row_id, party.token(token), instance, result)])

    def give_work_back(self) -> None:
        if self.work:
            (row_id, token, _), delay, refund = self.any(*self.work[-6:]), self.any(0, 1_000), self.any(False, True)
            self.hand_in(work_backs=lambda party: [WorkBack(row_id, party.token(token), delay, refund)])

    def renew(self) -> None:
        leases, rows, via = self.turns[-4:], self.work[-4:], next(self.numbers)
        writes, pod = self.any(True, False), self.any(*PODS)

        def ask(party: Party) -> Any:
            return party.store(via).renew(
                Renewal(
                    self.now,
                    [(instance, party.token(lease)) for instance, lease, _ in leases],
                    LEASE_MS * writes,
                    [(row_id, party.token(token)) for row_id, token, _ in rows],
                    WORK_LEASE_MS * writes,
                    pod,
                    SESSION_MS,
                    IDLE_MS,
                )
            )

        self.alike(ask)

    # ── cold calls ──

    def sweep_sessions(self) -> None:
        self.alike(lambda party: party.store().sweep_sessions(self.now))

    def delete(self) -> None:
        instance, force, tree = self.any(*INSTANCES), self.any(False, True), self.any(True, False)
        self.alike(lambda party: party.store().delete(party.store().tree(instance) if tree else [instance], force))

    def delete_bulk(self) -> None:
        ids, before, limit = self.any(None, ("i",), INSTANCES), self._before(), self.any(None, 1)
        self.alike(lambda party: party.store().delete_bulk(ids, before, limit))

    def prune(self) -> None:
        instance, keep, before = self.any(*INSTANCES), self.any(None, 0, 1, 2), self._before()
        self.alike(lambda party: party.store().prune(instance, keep, before))

    def prune_bulk(self) -> None:
        before, limit, keep = self._before(), self.any(None, 1), self.any(None, 1)
        self.alike(lambda party: party.store().prune_bulk(None, before, limit, keep, None))

    def _before(self) -> int | None:
        ago = self.any(None, 0, 4_000)
        return None if ago is None else self.now - ago + 1


# How often each step comes: what a runtime does all day, what it does at times, and what people do.
WEIGHTS = {
    "turn": 8, "job": 5, "later": 5, "send": 4, "claim": 4, "take": 4, "commit": 6, "finish": 3, "claim_a_few": 2, "take_a_few": 3,
    "give_turn_back": 2, "give_work_back": 2, "renew": 3,
}  # fmt: skip
COLD = {"sweep_sessions": 2, "delete": 1, "delete_bulk": 1, "prune": 1, "prune_bulk": 1}


def _weighted(weights: dict[str, int]) -> st.SearchStrategy[str]:
    return st.sampled_from([step for step, weight in weights.items() for _ in range(weight)])


HOT_STEP, ANY_STEP = _weighted(WEIGHTS), _weighted(WEIGHTS | COLD)


def _wake_as(answers: list[Taken], model: list[Taken]) -> None:
    """Where the store wakes its caller no later than the model does, put the model's time."""
    for taken, wanted in zip(answers, model):
        at = taken.next_visible_at
        if wanted.next_visible_at is None or (at is not None and at <= wanted.next_visible_at):
            taken.next_visible_at = wanted.next_visible_at


def _answer(ask: Callable[[Party], Any], party: Party) -> Any:
    try:
        return ask(party)
    except ProviderError as error:
        return str(error)
