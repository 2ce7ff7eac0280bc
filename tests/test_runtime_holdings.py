"""`Holdings` alone: who gets a result, what happens to a lease in each of its states, and that nothing is owed twice or never."""

from __future__ import annotations

from typing import Any

import pytest

import duroxide
from duroxide.registry import Registry
from duroxide.runtime.clock import Clock
from duroxide.runtime.leases import IDLE, READY, RUNNING, Holdings, Job, Lease
from duroxide.runtime.runtime import Engine
from duroxide.storage.base import ClaimedTurn, Taken
from duroxide.storage.memory import MemoryStore


class Live:
    """Stands for an execution: counts how often it was closed."""

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def claim(token: str = "lock_o:1", instance: str = "i", messages: int = 1) -> ClaimedTurn:
    return ClaimedTurn(instance, token, [(n, "{}", 1) for n in range(messages)], 1, 1, 1, "o", "1.0.0", "Running")


def job(activity: int, instance: str = "i", session: str | None = None) -> Job:
    made = Job(activity, f"lock_o:h{activity}", 1, "{}", "o", "1.0.0")
    made.instance, made.execution_id, made.activity_id, made.name, made.input = instance, 1, activity, "a", "null"
    made.session_id = session
    return made


@pytest.fixture
def holdings() -> Holdings:
    return Holdings()


def bring(holdings: Holdings, *claims: ClaimedTurn) -> None:
    """An exchange claimed these, and its loop has come."""
    holdings.arrived(list(claims))
    for each in claims:
        holdings.claimed(each.instance, lambda instance: None)


def running(holdings: Holdings, *jobs: Job) -> Lease:
    """A lease whose turn runs, with these activities held for it."""
    bring(holdings, claim())
    [lease] = holdings.next_ready(1)
    lease.claim = None
    holdings.hold(list(jobs))
    return lease


def idle(holdings: Holdings, *jobs: Job) -> Lease:
    lease = running(holdings, *jobs)
    assert holdings.ran(lease, True)
    return lease


def owed(holdings: Holdings) -> tuple[list[int], list[int], list[str]]:
    """(rows of results, rows given back, released tokens); asked a second time there is nothing."""
    work, backs, turn_backs, _ = holdings.owed()
    assert holdings.owed() == ([], [], [], [])
    return [w.row_id for w in work], [b.row_id for b in backs], [t.lease for t in turn_backs]


def test_what_an_earlier_exchange_brought_goes_first_whichever_loop_comes_first(holdings: Holdings) -> None:
    lease = running(holdings, job(1))
    first, second = claim(), claim()
    first.messages, second.messages = [(7, "first", 1)], [(8, "second", 1)]
    holdings.arrived([first])
    holdings.arrived([second])
    holdings.claimed("i", lambda instance: None)
    assert lease.messages == [(7, "first", 1), (8, "second", 1)]
    holdings.claimed("i", lambda instance: None)
    assert len(lease.messages) == 2, "the loop that comes later finds it done"


def test_a_claim_is_ready_once_however_many_messages_follow(holdings: Holdings) -> None:
    bring(holdings, claim())
    bring(holdings, claim(messages=2))
    [lease] = holdings.next_ready(9)
    assert (lease.state, len(lease.messages), holdings.next_ready(9)) == (RUNNING, 2, [])
    bring(holdings, claim())
    assert holdings.next_ready(9) == [], "never twice at once"
    lease.messages, lease.claim = [], None
    bring(holdings, claim())
    assert holdings.ran(lease, True) and holdings.next_ready(9) == [lease]


def test_a_result_goes_into_the_inbox_while_the_lease_is_held(holdings: Holdings) -> None:
    first, second = job(1), job(2)
    lease = idle(holdings, first, second)
    assert (lease.state, lease.in_flight) == (IDLE, 2)
    holdings.finished(first, True, "1")
    assert (lease.state, lease.in_flight, [r.row_id for r in lease.results]) == (READY, 1, [1])
    assert owed(holdings) == ([], [], [])


def test_a_result_for_a_lease_just_released_goes_to_the_store(holdings: Holdings) -> None:
    late = job(1)
    lease = running(holdings, late)
    assert not holdings.ran(lease, False), "the commit said: parked"
    holdings.finished(late, True, "1")
    assert owed(holdings) == ([1], [], []) and not holdings.leases and not holdings.jobs


def test_a_result_that_came_while_the_turn_was_parked_goes_to_the_store(holdings: Holdings) -> None:
    late = job(1)
    lease = running(holdings, late)
    holdings.finished(late, False, "{}")
    assert lease.state == RUNNING
    holdings.ran(lease, False)
    assert owed(holdings) == ([1], [], [])


def test_a_lease_with_nothing_in_flight_is_released(holdings: Holdings) -> None:
    idle(holdings)
    assert owed(holdings) == ([], [], ["lock_o:1"]) and not holdings.leases


def test_a_lease_whose_work_was_given_back_is_released(holdings: Holdings) -> None:
    late = job(1)
    idle(holdings, late)
    holdings.give_back([late])
    assert owed(holdings) == ([], [1], ["lock_o:1"]) and not holdings.leases and not holdings.jobs


def test_a_cancelled_activity_has_no_result_and_is_not_given_back(holdings: Holdings) -> None:
    ran, waiting = job(1), job(2)
    idle(holdings, ran, waiting)
    holdings.cancel([("i", 1, 1), ("i", 1, 2), ("i", 1, 99), ("unknown", 1, 1)])
    assert ran.cancelled and waiting.cancelled
    holdings.finished(ran, True, "1")
    holdings.give_back([waiting])
    assert owed(holdings) == ([], [], ["lock_o:1"])


def test_a_result_whose_activity_is_cancelled_before_the_next_turn_is_forgotten(holdings: Holdings) -> None:
    """Its row is gone with the commit that cancelled it: a turn that hands it in would be refused whole."""
    loser, other = job(1), job(2)
    lease = running(holdings, loser, other)
    holdings.finished(loser, True, "1")
    holdings.finished(other, True, "2")
    holdings.cancel([("i", 1, 1)])
    assert holdings.ran(lease, True)
    assert [r.row_id for r in lease.results] == [2] and holdings.next_ready(1) == [lease]


@pytest.mark.parametrize("state", [IDLE, READY, RUNNING])
def test_a_lost_lease_keeps_no_result_to_itself(holdings: Holdings, state: int) -> None:
    done, late = job(1), job(2)
    lease = running(holdings, done, late) if state == RUNNING else idle(holdings, done, late)
    if state != IDLE:
        holdings.finished(done, True, "1")
    lease.execution = live = Live()  # type: ignore[assignment]
    holdings.lost(lease)
    holdings.lost(lease)
    holdings.finished(late, True, "2")
    assert owed(holdings)[0] == ([2] if state == IDLE else [1, 2])
    assert live.closed == (0 if state == RUNNING else 1), "who runs it closes it"
    assert not holdings.leases and holdings.next_ready(9) == []


def test_results_that_a_lost_turn_had_consumed_go_to_the_store(holdings: Holdings) -> None:
    done = job(1)
    lease = idle(holdings, done)
    holdings.finished(done, True, "1")
    assert holdings.next_ready(1) == [lease]
    lease.consumed, lease.results = lease.results, []
    holdings.lost(lease)
    assert owed(holdings)[0] == [1]


@pytest.mark.parametrize("state", [IDLE, READY, RUNNING])
def test_a_claim_under_a_new_token_takes_the_place_of_a_lease_that_ended_unnoticed(holdings: Holdings, state: int) -> None:
    """After a stop of the machine the store may give us again what we believe to hold."""
    done, late = job(1), job(2)
    old = running(holdings, done, late) if state == RUNNING else idle(holdings, done, late)
    if state != IDLE:
        holdings.finished(done, True, "1")
    old.execution = live = Live()  # type: ignore[assignment]
    bring(holdings, claim("lock_o:2"))
    [new] = holdings.next_ready(9)
    assert new.token == "lock_o:2" and new is not old
    assert owed(holdings)[0] == ([] if state == IDLE else [1])
    assert live.closed == (0 if state == RUNNING else 1)
    holdings.finished(late, True, "2")
    assert [r.row_id for r in new.results] == [2]
    assert not holdings.ran(old, True) and holdings.leases["i"] is new, "the old turn's end is nothing to the new lease"


def test_a_lease_that_was_released_meanwhile_is_not_lost(holdings: Holdings) -> None:
    """The keeper asked the store before the release and hears after it: the execution may be in the cache by now."""
    lease = idle(holdings)
    lease.execution = live = Live()  # type: ignore[assignment]
    holdings.lost(lease)
    assert live.closed == 0 and lease.execution is not None


def test_a_poke_follows_every_result_and_every_return(holdings: Holdings) -> None:
    pokes: list[Any] = []
    holdings.poke = lambda: pokes.append(None)
    one, two = job(1), job(2)
    idle(holdings, one, two)
    holdings.finished(one, True, "1")
    holdings.give_back([two])
    assert len(pokes) == 2


def test_two_loops_take_the_messages_of_one_queue_in_the_order_of_the_store() -> None:
    """The loop that brought the first message is held up before it hands it over; the second message has come by then."""
    store, clock = MemoryStore(), Clock()
    provider = duroxide.SqliteProvider(store)  # type: ignore[arg-type]
    client, registry, found = duroxide.Client(provider), Registry(), list[str]()

    def flow(ctx: Any, _: Any) -> Any:
        away = ctx.schedule_activity("away")  # in flight: the lease stays here
        for _ in range(2):
            first = yield ctx.race(ctx.dequeue_event("mail"), away)
            found.append(first["value"])

    registry.add_orchestration("flow", None, flow)
    engine = Engine(provider, registry, duroxide.RuntimeOptions(), clock)
    early, late = engine.loops

    def take() -> Taken:
        taken = engine.queue.take(early.appetite(48), 0, None, clock.now)
        assert taken is not None and len(taken.turns) == 1
        return taken

    client.start_orchestration("i", "flow")
    early._take(take())
    early.step()
    assert engine.holdings.leases["i"].in_flight == 1
    client.enqueue_event("i", "mail", "first")
    held_up = take()
    client.enqueue_event("i", "mail", "second")
    late._take(take())
    late.step()
    early._take(held_up)
    early.step()
    assert found == ["first", "second"]


def test_a_message_that_another_loop_brings_before_the_start_is_not_lost() -> None:
    """Both were claimed under one lease; run by itself the message would find no instance and be dropped."""
    store, clock = MemoryStore(), Clock()
    provider = duroxide.SqliteProvider(store)  # type: ignore[arg-type]
    client, registry, found = duroxide.Client(provider), Registry(), list[str]()

    def flow(ctx: Any, _: Any) -> Any:
        found.append((yield ctx.dequeue_event("mail")))

    registry.add_orchestration("flow", None, flow)
    engine = Engine(provider, registry, duroxide.RuntimeOptions(), clock)
    early, late = engine.loops
    client.start_orchestration("i", "flow")
    held_up = engine.queue.take(early.appetite(48), 0, None, clock.now)
    client.enqueue_event("i", "mail", "kept")
    brought = engine.queue.take(late.appetite(48), 0, None, clock.now)
    assert held_up is not None and brought is not None
    late._take(brought)
    late.step()
    early._take(held_up)
    early.step()
    assert found == ["kept"] and client.get_status("i").status == "Completed"


def test_work_that_comes_again_while_it_is_here_goes_on_under_its_new_token(holdings: Holdings) -> None:
    """Its lease had ended by a clock that jumped: one thread runs it, and that one hears of a cancellation."""
    first, again = job(1), job(1)
    again.token, again.attempt = "lock_o:9", 2
    holdings.hold([first])
    assert holdings.hold([again]) == [] and (first.token, first.attempt) == ("lock_o:9", 2)
    holdings.cancel([("i", 1, 1)])
    assert first.cancelled


def test_work_that_comes_again_in_another_row_is_the_one_that_counts(holdings: Holdings) -> None:
    first, again = job(1), job(1)
    again.row_id = 7
    holdings.hold([first])
    assert holdings.hold([again]) == [again] and first.cancelled and not again.cancelled
    holdings.finished(first, True, "1")
    holdings.finished(again, True, "2")
    assert owed(holdings) == ([7], [], [])
