"""Random lives of a store: the memory model, the store in C and the store in Python answer alike, whatever is handed in.

Owns the random steps and what of an answer is compared: all of it, with tokens under common names. Where the contract leaves an order
free (of claims that no limit cuts), both are sorted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

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
from duroxide.storage.memory import MemoryStore
from duroxide.storage.sqlite import open_sqlite
from duroxide.testing.world import LEASE_MS, START, WORK_LEASE_MS, item, work

INSTANCES = ("i", "j", "k")
OWNERS = ("a", "b")
SESSIONS = ("s", "t", "u")
TAGS = (None, "gpu", "eu")
STAYS = ("Running", "Running", "Running", "Completed", "Failed", "ContinuedAsNew")
SESSION_MS, IDLE_MS = 9_000, 6_000

instances, owners, sessions = st.sampled_from(INSTANCES), st.sampled_from(OWNERS), st.sampled_from(SESSIONS)
rides = st.booleans()  # does it go into one group with what comes next?
pauses = st.sampled_from((0, 1, 1_000, LEASE_MS, SESSION_MS, WORK_LEASE_MS))
Build = Callable[["Party"], Request]


class Party:
    """One of the stores compared. Its tokens are told by the names `t0`, `t1`, ... in the order in which they were seen."""

    def __init__(self, *stores: Any) -> None:
        self.stores = stores
        self.names: dict[str, str] = {}
        self.tokens: dict[str, str] = {}

    def name(self, token: str) -> str:
        if token not in self.names:
            self.names[token] = f"t{len(self.names)}"
            self.tokens[self.names[token]] = token
        return self.names[token]

    def token(self, name: str) -> str:
        return self.tokens.get(name, name)

    def exchange(self, via: int, builds: Sequence[Build], in_order: bool) -> list[Taken]:
        answers = self.store(via).exchange([build(self) for build in builds])
        for taken in answers:
            if not in_order:
                taken.turns.sort(key=lambda claim: claim.instance)
                taken.work.sort(key=lambda row: row.row_id)
            for claim in taken.turns:
                claim.lease = self.name(claim.lease)
            for row in taken.work:
                row.token = self.name(row.token)
        return answers  # type: ignore[no-any-return]

    def store(self, via: int = 0) -> Any:
        """One of the ways to the same rows: several providers of one file take turns."""
        return self.stores[via % len(self.stores)]

    def close(self) -> None:
        for store in self.stores:
            store.close()

    # ── all that can be asked ──

    def picture(self) -> dict[str, Any]:
        store = self.store()
        return {
            "instances": store.instances(),
            "by status": {status: store.instances(status) for status in set(STAYS)},
            "metrics": store.system_metrics(),
            "each": {instance: self.portrait(instance) for instance in INSTANCES},
        }

    def portrait(self, instance: str) -> Any:
        store = self.store(1)
        executions = [n for n in store.executions(instance)]
        info = [store.instance_info(instance), *(store.execution_info(instance, n) for n in executions)]
        told = [{key: value for key, value in each.items() if key not in CLOCKS} for each in info if each]
        loaded = [store.load(instance, n, after) for n in (None, *executions) for after in (0, 1)]
        lists = store.children(instance), store.tree(instance), store.stats(instance)
        values = store.kv_values(instance), [store.kv_value(instance, key) for key in KEYS]
        return executions, told, loaded, lists, values


CLOCKS = ("created_at", "updated_at", "started_at")  # SQLite fills them by its own clock
KEYS = ("x", "y")


class Lives(RuleBasedStateMachine):
    """`turns` and `work`: everything ever claimed, live or not, under common names."""

    def __init__(self, parties: Callable[[], list[Party]]) -> None:
        super().__init__()
        self.parties = parties()
        self.model = self.parties[0].store()
        self.now, self.numbers = START, itertools.count(1)
        self.group: list[Build] = []
        self.turns: list[tuple[str, str, list[int]]] = []  # (instance, lease, row ids)
        self.work: list[tuple[int, str, str]] = []  # (row id, token, instance)

    def teardown(self) -> None:
        for party in self.parties:
            party.close()

    # ── doing it everywhere ──

    def do(self, build: Build, ride: bool = False, in_order: bool = False) -> None:
        self.group.append(build)
        if ride:
            return
        group, self.group, via = self.group, [], next(self.numbers)
        answers, *others = [party.exchange(via, group, in_order) for party in self.parties]
        for other in others:
            assert other == answers
        for taken in answers:
            self.turns += [(claim.instance, claim.lease, [row for row, _, _ in claim.messages]) for claim in taken.turns]
            self.work += [(row.row_id, row.token, row.instance or "") for row in taken.work]
            self.work += [(row_id, "lock_a:held", "") for held in taken.held for row_id in held]

    def hand_in(self, ride: bool, **lists: Callable[[Party], list[Any]]) -> None:
        def build(party: Party) -> Request:
            done = Done()
            for name, rows in lists.items():
                setattr(done, name, rows(party))
            return Request(now, done)

        now = self.now
        self.do(build, ride)

    def flush(self) -> None:
        if self.group:
            self.do(lambda party: Request(self.now))

    def alike(self, ask: Callable[[Party], Any]) -> None:
        """The answer, or the error, is the same from all; what waits for its group comes first."""
        self.flush()
        answer, *others = [_answer(ask, party) for party in self.parties]
        for other in others:
            assert other == answer

    # ── messages, claims ──

    @initialize()
    def begin(self) -> None:
        self.send("i", "StartOrchestration", 0, False)

    @rule(
        instance=instances,
        kind=st.sampled_from(("StartOrchestration", "StartOrchestration", "ContinueAsNew", "QueueMessage", "CancelInstance")),
        delay=st.sampled_from((0, 0, 0, 1, 4_000)),
        ride=rides,
    )
    def send(self, instance: str, kind: str, delay: int, ride: bool) -> None:
        at = self.now + delay if delay else 0
        self.hand_in(ride, messages=lambda party: [(instance, item(kind, instance), at)])

    @rule(ms=pauses)
    def later(self, ms: int) -> None:
        self.flush()
        self.now += ms

    @rule(owner=owners, sweep=st.booleans(), versions=st.sampled_from((None, None, None, (0, 1_032), (1_033, 9_000), ())), ride=rides)
    def claim(self, owner: str, sweep: bool, versions: Any, ride: bool) -> None:
        now = self.now
        self.do(lambda party: Request(now, None, Appetite(owner, turns=100, lease_ms=LEASE_MS, versions=versions, sweep=sweep)), ride)

    @rule(turns=st.integers(1, 2), work=st.integers(0, 2))
    def claim_a_few(self, turns: int, work: int) -> None:
        """By an owner without leases, for whom the order of claims is told: by visibility, then by arrival."""
        self.flush()
        owner, now = f"new{next(self.numbers)}", self.now
        appetite = Appetite(owner, turns=turns, work=work, lease_ms=LEASE_MS, work_lease_ms=WORK_LEASE_MS, tag_mode="any")
        self.do(lambda party: Request(now, None, appetite), in_order=True)

    @rule(
        owner=owners,
        mode=st.sampled_from(("default_only", "tags", "default_and", "any", "none")),
        tags=st.sampled_from((("gpu",), ("gpu", "eu"))),
        pod=st.sampled_from((None, "a", "b", "pod")),
        sweep=st.booleans(),
        ride=rides,
    )
    def take(self, owner: str, mode: str, tags: tuple[str, ...], pod: str | None, sweep: bool, ride: bool) -> None:
        now = self.now
        appetite = Appetite(
            owner, work=100, work_lease_ms=WORK_LEASE_MS, tag_mode=mode, tags=tags, session_owner=pod, session_lock_ms=SESSION_MS,
            session_room=100, sweep=sweep,
        )  # fmt: skip
        self.do(lambda party: Request(now, None, appetite), ride)

    @rule(owner=owners, room=st.integers(0, 2), known=st.sampled_from(((), ("s",), ("t", "u"))), count=st.integers(1, 3))
    def take_a_few(self, owner: str, room: int, known: tuple[str, ...], count: int) -> None:
        self.flush()
        appetite = Appetite(
            owner, work=count, work_lease_ms=WORK_LEASE_MS, tag_mode="any", session_owner=owner, session_lock_ms=SESSION_MS,
            session_room=room, sessions=known,
        )  # fmt: skip
        self.do(lambda party: Request(self.now, None, appetite), in_order=True)

    # ── turns ──

    @precondition(lambda self: self.turns)
    @rule(data=st.data(), keep=st.booleans(), ride=rides)
    def commit(self, data: st.DataObject, keep: bool, ride: bool) -> None:
        instance, lease, rows = data.draw(st.sampled_from(self.turns[-6:]))
        turn = TurnDone(lease, instance, 1)
        turn.consumed, turn.keep = data.draw(st.sampled_from((rows, rows, rows[:1], []))), keep
        self._place(turn, data)
        acks = data.draw(st.lists(st.sampled_from(self.work[-4:]), max_size=1)) if self.work else []
        turn.cancelled = data.draw(st.lists(st.tuples(instances, st.just(1), st.integers(2, 5)), max_size=2))
        turn.work = data.draw(st.lists(st.builds(_work, instances, st.integers(2, 5), st.sampled_from((None, *SESSIONS)), st.sampled_from(TAGS),
                                                 st.sampled_from((None, None, "lock_a:held"))), max_size=3))  # fmt: skip
        turn.messages = data.draw(st.lists(st.builds(self._message, instances, st.sampled_from((0, 2_000))), max_size=2))

        def build(party: Party) -> list[TurnDone]:
            turn.lease = party.token(lease)
            turn.acks = [(row_id, party.token(token)) for row_id, token, _ in acks]
            return [turn]

        self.hand_in(ride, turns=build)

    def _message(self, instance: str, delay: int) -> tuple[str, str, int]:
        return instance, item("TimerFired" if delay else "StartOrchestration", instance), self.now + delay if delay else 0

    def _place(self, turn: TurnDone, data: st.DataObject) -> None:
        """Where the turn stands in its instance's life, as the model has it now; what it says of state and history."""
        found = self.model.load(turn.instance)
        last = found.events[-1][0] if found is not None and found.events else 0
        if found is None or found.status == "ContinuedAsNew":
            if data.draw(st.booleans(), "first turn"):
                turn.execution_id, last = (found.execution_id + 1 if found else 1), 0
                turn.name, turn.version = "flow", data.draw(st.sampled_from(("1.0.0", None)))
                turn.pinned = data.draw(st.sampled_from(((0, 1, 32), (0, 1, 33), None)))
                turn.parent = data.draw(st.sampled_from((None, *(each for each in INSTANCES if each != turn.instance))))
            elif found is None:
                return  # a turn that finds nobody: it consumes, and it writes nothing but work and messages
        if turn.name is None and found is not None:
            turn.execution_id = found.execution_id
        first = last + data.draw(st.sampled_from((1, 1, 1, 1, 0)))  # 0: an id that there is already, if any is
        turn.events = [(id, "E", f'{{"event_id":{id}}}') for id in range(first, first + data.draw(st.integers(0, 3))) if id]
        stay = data.draw(st.sampled_from(STAYS))
        if stay != "Running":
            turn.status, turn.output = stay, data.draw(st.sampled_from((None, '"out"')))
        turn.custom_status = data.draw(st.sampled_from((None, None, ("half",), (None,))))
        turn.kv = data.draw(st.lists(st.sampled_from(CHANGES), max_size=3))

    @precondition(lambda self: self.turns)
    @rule(data=st.data(), delay=st.sampled_from((0, 1_000)), refund=st.booleans(), ride=rides)
    def give_turn_back(self, data: st.DataObject, delay: int, refund: bool, ride: bool) -> None:
        instance, lease, _ = data.draw(st.sampled_from(self.turns[-6:]))
        self.hand_in(ride, turn_backs=lambda party: [TurnBack(party.token(lease), instance, delay, refund)])

    # ── work ──

    @precondition(lambda self: self.work)
    @rule(data=st.data(), silent=st.booleans(), ride=rides)
    def finish(self, data: st.DataObject, silent: bool, ride: bool) -> None:
        row_id, token, instance = data.draw(st.sampled_from(self.work[-6:]))
        result = None if silent else item("ActivityCompleted", instance)
        self.hand_in(ride, work=lambda party: [WorkDone(row_id, party.token(token), instance, result)])

    @precondition(lambda self: self.work)
    @rule(data=st.data(), delay=st.sampled_from((0, 1_000)), refund=st.booleans(), ride=rides)
    def give_work_back(self, data: st.DataObject, delay: int, refund: bool, ride: bool) -> None:
        row_id, token, _ = data.draw(st.sampled_from(self.work[-6:]))
        self.hand_in(ride, work_backs=lambda party: [WorkBack(row_id, party.token(token), delay, refund)])

    @rule(writes=st.booleans(), pod=st.sampled_from((None, "a", "b", "pod")))
    def renew(self, writes: bool, pod: str | None) -> None:
        leases, rows, via = self.turns[-4:], self.work[-4:], next(self.numbers)

        def ask(party: Party) -> Any:
            return party.store(via).renew(
                Renewal(
                    self.now, [(instance, party.token(lease)) for instance, lease, _ in leases], LEASE_MS * writes,
                    [(row_id, party.token(token)) for row_id, token, _ in rows], WORK_LEASE_MS * writes, pod, SESSION_MS, IDLE_MS,
                )
            )  # fmt: skip

        self.alike(ask)

    @rule()
    def sweep_sessions(self) -> None:
        self.alike(lambda party: party.store().sweep_sessions(self.now))

    # ── removal ──

    @rule(instance=instances, force=st.booleans(), tree=st.booleans())
    def delete(self, instance: str, force: bool, tree: bool) -> None:
        self.alike(lambda party: party.store().delete(party.store().tree(instance) if tree else [instance], force))

    @rule(ids=st.sampled_from((None, ("i",), INSTANCES)), ago=st.sampled_from((None, 0, 4_000)), limit=st.sampled_from((None, 1)))
    def delete_bulk(self, ids: Any, ago: int | None, limit: int | None) -> None:
        before = None if ago is None else self.now - ago
        self.alike(lambda party: party.store().delete_bulk(ids, before, limit))

    @rule(instance=instances, keep=st.sampled_from((None, 0, 1, 2)), ago=st.sampled_from((None, 0, 4_000)))
    def prune(self, instance: str, keep: int | None, ago: int | None) -> None:
        self.alike(lambda party: party.store().prune(instance, keep, None if ago is None else self.now - ago))

    @rule(limit=st.sampled_from((None, 1)), keep=st.sampled_from((None, 1)))
    def prune_bulk(self, limit: int | None, keep: int | None) -> None:
        self.alike(lambda party: party.store().prune_bulk(None, self.now, limit, keep, None))

    @invariant()
    def what_is_stored_is_alike(self) -> None:
        if not self.group:
            self.alike(Party.picture)


CHANGES = (
    (KV_SET, "x", "1", 5), (KV_SET, "x", "2", 6), (KV_SET, "y", "", 7), (KV_CLEAR, "x", None, 8), (KV_CLEAR_ALL, None, None, 9),
)  # fmt: skip


def _answer(ask: Callable[[Party], Any], party: Party) -> Any:
    try:
        return ask(party)
    except ProviderError as error:
        return str(error)


def _work(instance: str, activity_id: int, session: str | None, tag: str | None, lease: str | None) -> WorkOut:
    return work(instance, activity_id, session_id=session, tag=tag, lease=lease)


def lives(parties: Callable[[], list[Party]], examples: int, steps: int, **options: Any) -> None:
    """Lets that many random lives pass; a difference is told as the shortest life that shows it."""
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    run_state_machine_as_test(
        lambda: Lives(parties),
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=checks, database=None, **options
        ),
    )


def in_memory() -> list[Party]:
    return [Party(MemoryStore()), *(Party(open_sqlite(":memory:", implementation=kind)) for kind in ("c", "python"))]


def on_files(directory: Path) -> list[Party]:
    """Two providers of each file that take turns, and one file that the store in C and the one in Python share."""
    number = len(list(directory.iterdir()))
    parties = [Party(MemoryStore())]
    for kinds in (("c", "c"), ("c", "python")):
        path = directory / f"{number}-{'-'.join(kinds)}.db"
        parties.append(Party(*(open_sqlite(str(path), synchronous="normal", implementation=kind) for kind in kinds)))
    return parties


def test_stores_answer_alike_whatever_is_done() -> None:
    lives(in_memory, 60, 40, derandomize=True)


def test_providers_that_share_a_file_answer_as_one_store(tmp_path: Path) -> None:
    lives(lambda: on_files(tmp_path), 12, 40, derandomize=True)


@pytest.mark.soak
@pytest.mark.timeout(3_000)
def test_stores_answer_alike_for_a_long_time(tmp_path: Path) -> None:
    lives(in_memory, 2_000, 100)
    lives(lambda: on_files(tmp_path), 300, 100)
