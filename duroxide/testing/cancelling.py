"""Cases: work of instances that ended or are gone, and work that a turn cancels."""

from __future__ import annotations

from duroxide.storage.base import LOST, OK, WorkBack, WorkDone
from duroxide.testing.case import case
from duroxide.testing.world import World, item, work


def left_behind(w: World, status: str | None) -> None:
    """Work of an instance that has that status by now."""
    w.born("i", work=[work("i")])
    w.next_turn("i", status=status)


def is_taken(w: World) -> None:
    taken = w.take_one()
    assert (taken.instance, taken.name, taken.version) == ("i", "flow", "1.0.0")


def is_renewed(w: World) -> None:
    taken = w.take_one()
    assert w.renew(work=[(taken.row_id, taken.token)]).lost_work == []


@case(114)
def work_of_a_running_instance_is_taken(w: World) -> None:
    left_behind(w, None)
    is_taken(w)


@case(115)
def work_of_a_completed_instance_is_taken(w: World) -> None:
    left_behind(w, "Completed")
    is_taken(w)


@case(116)
def work_of_a_failed_instance_is_taken(w: World) -> None:
    left_behind(w, "Failed")
    is_taken(w)


@case(117)
def work_of_an_instance_that_continued_as_new_is_taken(w: World) -> None:
    left_behind(w, "ContinuedAsNew")
    is_taken(w)


@case(118)
def work_of_an_instance_that_is_gone_is_taken(w: World) -> None:
    w.start("i")
    turn = w.turn(w.claim_one(), work=[work("gone")])
    assert w.commit(turn) == [OK]
    taken = w.take_one()
    assert (taken.instance, taken.name, taken.version) == ("gone", None, None)


@case(119)
def work_of_a_running_instance_is_renewed(w: World) -> None:
    left_behind(w, None)
    is_renewed(w)


@case(120)
def work_of_an_ended_instance_is_renewed(w: World) -> None:
    left_behind(w, "Completed")
    is_renewed(w)


@case(121)
def work_of_an_instance_that_is_gone_is_renewed(w: World) -> None:
    w.start("i")
    assert w.commit(w.turn(w.claim_one(), work=[work("gone")])) == [OK]
    is_renewed(w)


@case(122)
def work_acknowledged_without_a_result_sends_nothing(w: World) -> None:
    w.born("i", work=[work("i")])
    taken = w.take_one()
    assert w.exchange(work=[WorkDone(taken.row_id, taken.token, "i", None)]).work_codes == [OK]
    assert not w.claim() and not w.take("b")


@case(123)
def cancelled_work_is_gone_with_the_commit(w: World) -> None:
    w.born("i", work=[work("i", 2), work("i", 3)])
    w.next_turn("i", cancelled=[("i", 1, 2)])
    assert w.take_one().item == work("i", 3).item


@case(124)
def result_of_cancelled_work_is_refused(w: World) -> None:
    w.born("i", work=[work("i")])
    taken = w.take_one()
    w.next_turn("i", cancelled=[("i", 1, 2)])
    done = w.exchange(
        work=[WorkDone(taken.row_id, taken.token, "i", item("ActivityCompleted", "i"))],
        work_backs=[WorkBack(taken.row_id, taken.token)],
    )
    assert (done.work_codes, done.work_back_codes) == ([LOST], [LOST])
    assert not w.claim()


@case(125)
def cancelled_work_is_not_renewed(w: World) -> None:
    w.born("i", work=[work("i")])
    taken = w.take_one()
    w.next_turn("i", cancelled=[("i", 1, 2)])
    assert w.renew(work=[(taken.row_id, taken.token)]).lost_work == [0]


@case(126)
def cancelling_what_is_not_there_is_harmless(w: World) -> None:
    w.born("i", work=[work("i")])
    w.next_turn("i", cancelled=[("i", 1, 99), ("i", 2, 2), ("nobody", 1, 2)])
    assert w.take_one().instance == "i"


@case(127)
def many_are_cancelled_at_once(w: World) -> None:
    w.born("i", work=[work("i", n) for n in range(2, 102)])
    w.next_turn("i", cancelled=[("i", 1, n) for n in range(2, 101)])
    assert w.take_one().item == work("i", 101).item


@case(128)
def work_that_its_own_turn_cancels_never_is(w: World) -> None:
    w.born("i")
    w.next_turn("i", work=[work("i", 2), work("i", 3)], cancelled=[("i", 1, 2)])
    assert w.take_one().item == work("i", 3).item


@case(129, needs="admin")
def result_for_a_deleted_instance_is_harmless(w: World) -> None:
    w.start("i")
    assert w.commit(w.turn(w.claim_one(), work=[work("gone")])) == [OK]
    w.store.delete(["i"], True)
    taken = w.take_one()
    assert w.exchange(work=[WorkDone(taken.row_id, taken.token, "gone", item("ActivityCompleted", "gone"))]).work_codes == [OK]
    assert not w.claim()
    w.born("j")
