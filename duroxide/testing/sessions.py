"""Cases: work that belongs to a session goes to whoever holds it, one at a time, for as long as its lease lasts."""

from __future__ import annotations

from typing import Any

from duroxide.storage.base import OK, ClaimedWork, WorkBack, WorkDone
from duroxide.testing.case import case
from duroxide.testing.world import WORK_LEASE_MS, World, work

LOCK_MS = 10_000
IDLE_MS = 60_000


def queue(w: World, *sessions: str | None, instance: str = "i") -> None:
    """An instance with one activity for each session (None: none), in order."""
    w.born(instance, work=[work(instance, n, session_id=session) for n, session in enumerate(sessions, 2)])


def take(w: World, worker: str, count: int = 100, room: int = 10, **appetite: Any) -> list[ClaimedWork]:
    """What a process `worker`, which is a session owner of that name, is given."""
    fields = {"session_owner": worker, "session_room": room, "session_lock_ms": LOCK_MS, **appetite}
    return w.take(fields.pop("owner", worker), count, **fields)


def renewed(w: World, worker: str, idle_ms: int = IDLE_MS) -> int:
    return w.renew(session_owner=worker, session_lock_ms=LOCK_MS, session_idle_ms=idle_ms).sessions


def finish(w: World, taken: ClaimedWork) -> None:
    assert w.exchange(work=[WorkDone(taken.row_id, taken.token, "i", None)]).work_codes == [OK]


@case(71)
def work_without_a_session_is_for_anyone(w: World) -> None:
    queue(w, None, None)
    assert len(take(w, "a", 1)) == 1 and len(w.take("b", 1)) == 1


@case(72)
def free_session_is_claimed_with_its_work(w: World) -> None:
    queue(w, "s")
    [taken] = take(w, "a")
    assert taken.session_id == "s" and renewed(w, "a") == 1


@case(73)
def owner_keeps_its_session(w: World) -> None:
    queue(w, "s", "s")
    assert len(take(w, "a", 1)) == 1 and len(take(w, "a", 1, room=0, sessions=("s",))) == 1


@case(74)
def work_of_a_held_session_is_not_for_others(w: World) -> None:
    queue(w, "s", "s")
    take(w, "a", 1)
    assert take(w, "b") == []


@case(75)
def two_sessions_have_two_owners(w: World) -> None:
    queue(w, "s", "t", "s", "t")
    assert [t.session_id for t in take(w, "a", 1) + take(w, "b", 1)] == ["s", "t"]
    assert [t.session_id for t in take(w, "b", room=0, sessions=("t",)) + take(w, "a", room=0, sessions=("s",))] == ["t", "s"]


@case(76)
def mixed_queue_serves_each_what_is_for_it(w: World) -> None:
    queue(w, "s", None, "t", None)
    assert [t.session_id for t in w.take("plain")] == [None, None]
    assert [t.session_id for t in take(w, "a")] == ["s", "t"]


@case(77)
def session_is_claimed_when_its_lease_ended(w: World) -> None:
    queue(w, "s", "s")
    finish(w, take(w, "a", 1)[0])
    w.later(LOCK_MS - 1)
    assert take(w, "b") == []
    w.later(1)
    assert len(take(w, "b")) == 1


@case(78)
def who_takes_no_sessions_gets_only_plain_work(w: World) -> None:
    queue(w, "s", None)
    assert [t.session_id for t in w.take("a")] == [None]


@case(79)
def who_takes_sessions_gets_both(w: World) -> None:
    queue(w, "s", None)
    assert [t.session_id for t in take(w, "a")] == ["s", None]


@case()
def no_more_sessions_are_claimed_than_there_is_room(w: World) -> None:
    queue(w, "s", "t", "u", "s")
    assert [t.session_id for t in take(w, "a", room=1)] == ["s", "s"]
    assert [t.session_id for t in take(w, "a", room=1, sessions=("s",))] == ["t"]
    assert take(w, "b", room=0) == []


@case()
def sessions_in_flight_take_no_room(w: World) -> None:
    queue(w, "s", "t", "u")
    assert [t.session_id for t in take(w, "a", room=1, sessions=("s",))] == ["s", "t"]


@case()
def room_counts_sessions_whose_work_was_leased_too(w: World) -> None:
    """Also for who asks for fresh work first and for what ended leases held only then."""
    queue(w, "s", "t")
    take(w, "gone")
    w.later(WORK_LEASE_MS)
    queue(w, "u", instance="j")
    taken = take(w, "a", room=1, sweep=False)
    assert len(taken) == 1 and renewed(w, "a") == 1


@case(80)
def sessions_in_use_are_renewed(w: World) -> None:
    queue(w, "s", "s")
    take(w, "a", 1)
    w.later(LOCK_MS - 1)
    assert renewed(w, "a") == 1
    w.later(LOCK_MS - 1)
    assert take(w, "b") == []


@case(81)
def idle_sessions_are_not_renewed(w: World) -> None:
    queue(w, "s")
    take(w, "a")
    w.later(2_000)
    assert renewed(w, "a", idle_ms=1_000) == 0 and renewed(w, "a", idle_ms=2_000) == 1


@case(82)
def who_holds_no_session_renews_none(w: World) -> None:
    queue(w, "s")
    take(w, "a")
    assert renewed(w, "b") == 0


@case(83, needs="liveness")
def ended_empty_sessions_are_swept(w: World) -> None:
    queue(w, "s")
    finish(w, take(w, "a")[0])
    w.later(LOCK_MS)
    assert w.store.sweep_sessions(w.now) == 1 and w.store.sweep_sessions(w.now) == 0


@case(84, needs="liveness")
def sessions_with_work_are_not_swept(w: World) -> None:
    queue(w, "s", "s")
    finish(w, take(w, "a", 1)[0])
    w.later(LOCK_MS)
    assert w.store.sweep_sessions(w.now) == 0


@case(85, needs="liveness")
def live_sessions_are_not_swept(w: World) -> None:
    queue(w, "s")
    finish(w, take(w, "a")[0])
    w.later(LOCK_MS - 1)
    assert w.store.sweep_sessions(w.now) == 0 and renewed(w, "a") == 1


@case(86)
def result_is_a_sign_of_use(w: World) -> None:
    queue(w, "s")
    [taken] = take(w, "a")
    w.later(900)
    finish(w, taken)
    w.later(600)
    assert renewed(w, "a", idle_ms=1_000) == 1


@case(87)
def renewal_of_work_is_a_sign_of_use(w: World) -> None:
    queue(w, "s")
    [taken] = take(w, "a")
    w.later(900)
    w.renew(work=[(taken.row_id, taken.token)])
    w.later(600)
    assert renewed(w, "a", idle_ms=1_000) == 1


@case(88)
def work_of_a_session_comes_in_order(w: World) -> None:
    queue(w, "s", "s", "s")
    assert [take(w, "a", 1)[0].item for _ in range(3)] == [work("i", n).item for n in (2, 3, 4)]


@case(89)
def plain_work_is_taken_without_room_for_sessions(w: World) -> None:
    queue(w, None, "s")
    assert [t.session_id for t in take(w, "a", room=0)] == [None]


@case(90)
def processes_of_one_session_owner_share_its_sessions(w: World) -> None:
    queue(w, "s", "s")
    assert len(take(w, "pod", 1, owner="a")) == 1 and len(take(w, "pod", 1, owner="b")) == 1


@case(91)
def of_many_that_claim_a_session_one_wins(w: World) -> None:
    queue(w, *["s"] * 10)
    found = w.at_once([lambda owner=f"o{n}": take(w, owner, 1) for n in range(5)])  # type: ignore[misc]
    assert sum(map(len, found)) == 1


@case(92)
def ended_session_is_taken_over(w: World) -> None:
    queue(w, "s", "s")
    take(w, "a", 1)
    w.later(LOCK_MS)
    assert len(take(w, "b")) == 1 and renewed(w, "a") == 0 and renewed(w, "b") == 1


@case(93, needs="liveness")
def swept_session_comes_into_being_again(w: World) -> None:
    queue(w, "s")
    finish(w, take(w, "a")[0])
    w.later(LOCK_MS)
    w.store.sweep_sessions(w.now)
    queue(w, "s", instance="j")
    assert len(take(w, "b")) == 1


@case(94)
def session_work_given_back_counts_the_try(w: World) -> None:
    queue(w, "s")
    [taken] = take(w, "a")
    w.exchange(work_backs=[WorkBack(taken.row_id, taken.token)])
    [again] = take(w, "a")
    assert (again.attempt, again.session_id) == (2, "s")


@case(95)
def session_work_refunded_does_not(w: World) -> None:
    queue(w, "s")
    [taken] = take(w, "a")
    w.exchange(work_backs=[WorkBack(taken.row_id, taken.token, refund=True)])
    assert take(w, "a")[0].attempt == 1


@case(96)
def ended_session_is_not_revived(w: World) -> None:
    queue(w, "s")
    take(w, "a")
    w.later(LOCK_MS)
    assert renewed(w, "a") == 0


@case(97)
def first_owner_may_claim_its_ended_session_again(w: World) -> None:
    queue(w, "s", "s")
    finish(w, take(w, "a", 1)[0])
    w.later(LOCK_MS)
    assert len(take(w, "a")) == 1 and renewed(w, "a") == 1


@case(98)
def work_whose_lease_ended_stays_with_the_live_session(w: World) -> None:
    queue(w, "s")
    take(w, "a", work_lease_ms=1_000)
    w.later(1_000)
    assert take(w, "b") == [] and len(take(w, "a")) == 1


@case(99)
def work_of_a_lost_session_goes_to_the_next_owner_when_its_lease_ends(w: World) -> None:
    queue(w, "s")
    take(w, "a")
    w.later(LOCK_MS)
    assert take(w, "b") == []
    w.later(WORK_LEASE_MS - LOCK_MS)
    assert len(take(w, "b")) == 1


@case(100)
def same_worker_takes_its_work_again(w: World) -> None:
    queue(w, "s")
    [taken] = take(w, "a", work_lease_ms=1_000)
    w.later(1_000)
    [again] = take(w, "a")
    assert (again.row_id, again.attempt) == (taken.row_id, 2) and again.token != taken.token


@case(101)
def when_both_leases_ended_anyone_may_take_it(w: World) -> None:
    queue(w, "s")
    take(w, "a")
    w.later(WORK_LEASE_MS)
    assert len(take(w, "b")) == 1


@case(102)
def result_counts_though_the_session_was_lost(w: World) -> None:
    queue(w, "s")
    [taken] = take(w, "a")
    w.later(LOCK_MS)
    finish(w, taken)


@case(103)
def renewal_extends_a_session(w: World) -> None:
    queue(w, "s", "s")
    take(w, "a", 1)
    for _ in range(3):
        w.later(LOCK_MS - 1)
        assert renewed(w, "a") == 1
    assert take(w, "b") == []
