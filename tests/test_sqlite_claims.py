"""What the C store does beyond the letter of the contract: routing, parking, sweeping, and what none of it may cost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bare_store import NOW, Bare, born, handed, item, start, turn, work

from duroxide.storage.base import (
    KV_CLEAR,
    KV_CLEAR_ALL,
    KV_SET,
    LOST,
    OK,
    PARKED,
    REFUSED,
    Appetite,
    Renewal,
    Request,
    TurnBack,
    WorkBack,
    WorkDone,
)  # fmt: skip


@pytest.fixture(params=["file", "memory"])
def bare(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bare]:
    store = Bare(tmp_path / "s.db" if request.param == "file" else None)
    yield store
    store.close()


# ── claims of turns ──────────────────────────────────────────────────────────────────────────────────────────


def test_claims_come_in_the_order_of_visibility_then_of_arrival(bare: Bare) -> None:
    bare.send(start("late"), at=NOW - 1)
    bare.send(start("early"), at=NOW - 5)
    bare.send(start("last"), at=NOW - 1)
    assert [t.instance for t in bare.do(appetite=Appetite("me", turns=2)).turns] == ["early", "late"]
    assert [t.instance for t in bare.do(appetite=Appetite("me", turns=9)).turns] == ["last"]


def test_messages_of_a_leased_instance_are_routed_to_its_owner_and_passed_over_once(bare: Bare) -> None:
    lease = born(bare, "i")["i"]
    bare.send(("i", item("ExternalRaised")), ("i", item("QueueMessage")))
    assert bare.do(appetite=Appetite("other", turns=5)).turns == []
    assert bare.sql("SELECT COUNT(*) FROM orchestrator_queue WHERE lock_token IS NULL") == [(0,)]
    [more] = bare.do(appetite=Appetite("me", turns=5)).turns
    assert (more.lease, [m[2] for m in more.messages], more.last_event_id) == (lease, [1, 1], 1)
    assert bare.do(appetite=Appetite("me", turns=5)).turns == []


def test_routed_messages_are_free_again_when_the_lease_ends(bare: Bare) -> None:
    lease = born(bare, "i")["i"]
    bare.send(("i", item("ExternalRaised")))
    bare.do(appetite=Appetite("other", turns=5))
    assert bare.do(handed(turns=[turn(lease, "i")])).turn_codes == [OK]
    [t] = bare.do(appetite=Appetite("other", turns=5)).turns
    assert (t.instance, t.attempt) == ("i", 1)


def test_giving_back_delays_and_refunds_only_what_was_handed_out(bare: Bare) -> None:
    bare.send(start("i"))
    [t] = bare.do(appetite=Appetite("me", turns=1)).turns
    bare.send(("i", item("QueueMessage")))
    bare.do(appetite=Appetite("other", turns=1))
    assert bare.do(handed(turn_backs=[TurnBack(t.lease, "i", 500, True), TurnBack("lock_me:0", "i")])).turn_back_codes == [OK, LOST]
    assert bare.sql("SELECT visible_at, attempt_count, lock_token FROM orchestrator_queue ORDER BY id") == [
        (NOW + 500, 0, None), (NOW, 0, None),
    ]  # fmt: skip


def test_owner_names_that_are_prefixes_do_not_share_leases(bare: Bare) -> None:
    born(bare, "i", owner="a:1")
    bare.send(("i", item("QueueMessage")))
    assert bare.do(appetite=Appetite("a", turns=5)).turns == []
    assert len(bare.do(appetite=Appetite("a:1", turns=5)).turns) == 1


@pytest.mark.parametrize("sweep", [True, False])
def test_an_expired_lease_is_taken_over_and_its_holder_loses(bare: Bare, sweep: bool) -> None:
    bare.send(start("i"))
    [t] = bare.do(appetite=Appetite("me", turns=1, lease_ms=10)).turns
    [taken] = bare.do(appetite=Appetite("other", turns=1, sweep=sweep), now=NOW + 10).turns
    assert (taken.instance, taken.attempt) == ("i", 2) and taken.lease != t.lease
    assert bare.do(handed(turns=[turn(t.lease, "i", (1,))]), now=NOW + 10).turn_codes == [LOST]


def test_a_batch_that_the_reference_abandoned_is_found_and_one_that_it_holds_is_not(bare: Bare) -> None:
    bare.send(start("held"), start("left"))
    bare.sql("UPDATE orchestrator_queue SET lock_token = 'lock_0b9f-' || instance_id, attempt_count = 1")
    bare.sql("INSERT INTO instance_locks VALUES ('held', 'lock_0b9f-held', ?, ?)", NOW + 5000, NOW)
    [t] = bare.do(appetite=Appetite("me", turns=5)).turns
    assert (t.instance, t.attempt) == ("left", 2)


def test_more_than_one_message_comes_by_row_id_with_the_highest_attempt(bare: Bare) -> None:
    bare.send(("i", item("QueueMessage")), at=NOW - 1)
    bare.send(start("i"), at=NOW - 9)
    bare.sql("UPDATE orchestrator_queue SET attempt_count = 4 WHERE id = 1")
    [t] = bare.do(appetite=Appetite("me", turns=5)).turns
    assert ([m[0] for m in t.messages], t.attempt, t.execution_id, t.name) == ([1, 2], 5, 0, None)


# ── orphans ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_messages_for_nobody_are_dropped_and_block_nothing(bare: Bare) -> None:
    bare.send(("ghost", item("ExternalRaised")), ("ghost", item("QueueMessage")), ("ghost", item("TimerFired")), start("i"))
    assert [t.instance for t in bare.do(appetite=Appetite("me", turns=1)).turns] == ["i"]
    assert bare.sql("SELECT instance_id FROM orchestrator_queue") == [("i",)]


def test_a_cancellation_waits_for_its_instance_to_be_born(bare: Bare) -> None:
    bare.send(("late", '{ "CancelInstance" : {}}'))
    taken = bare.do(appetite=Appetite("me", turns=1))
    assert (taken.turns, taken.next_visible_at) == ([], None)
    assert bare.sql("SELECT visible_at FROM orchestrator_queue") == [(PARKED,)]
    bare.send(start("late"))
    [t] = bare.do(appetite=Appetite("me", turns=1)).turns
    assert [m[1] for m in t.messages] == ['{ "CancelInstance" : {}}', item("StartOrchestration", "late")]


def test_messages_wait_for_a_start_that_was_given_back_with_a_delay(bare: Bare) -> None:
    bare.send(start("i"))
    [t] = bare.do(appetite=Appetite("me", turns=1)).turns
    bare.do(handed(turn_backs=[TurnBack(t.lease, "i", 1000)]))
    bare.send(("i", item("QueueMessage")))
    taken = bare.do(appetite=Appetite("me", turns=1))
    assert (taken.turns, taken.next_visible_at) == ([], NOW + 1000)
    [t] = bare.do(appetite=Appetite("me", turns=1), now=NOW + 1000).turns
    assert len(t.messages) == 2


# ── versions ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_instances_pinned_elsewhere_are_skipped_untouched_and_starve_nobody(bare: Bare) -> None:
    many = [f"old-{n}" for n in range(200)]
    born(bare, *many, keep=False)
    bare.send(*((name, item("QueueMessage")) for name in many))
    bare.send(start("fit"), now=NOW + 1)
    elsewhere = Appetite("me", turns=3, versions=(2_000_000, 3_000_000))
    assert [t.instance for t in bare.do(appetite=elsewhere, now=NOW + 1).turns] == ["fit"]
    assert bare.sql("SELECT COUNT(*) FROM orchestrator_queue WHERE attempt_count = 0 AND lock_token IS NULL") == [(200,)]
    bare.send(start("fit too"), now=NOW + 2)
    assert [t.instance for t in bare.do(appetite=elsewhere, now=NOW + 2).turns] == ["fit too"]
    assert bare.do(appetite=Appetite("me", turns=3, versions=())).turns == []
    here = Appetite("me", turns=300, versions=(0, 1032))
    assert len(bare.do(appetite=here, now=NOW + 2).turns) == 200


# ── commits ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_turn_without_one_of_its_work_rows_is_lost_whole(bare: Bare) -> None:
    lease = born(bare, "i", work=[work(2, lease="lock_me:w"), work(3, lease="lock_me:w")])["i"]
    acks = [(1, "lock_me:w"), (2, "lock_other:w")]
    before = bare.sql("SELECT COUNT(*) FROM history") + bare.sql("SELECT id FROM worker_queue")
    assert bare.do(handed(turns=[turn(lease, "i", (2,), acks=acks)])).turn_codes == [LOST]
    assert bare.sql("SELECT COUNT(*) FROM history") + bare.sql("SELECT id FROM worker_queue") == before
    assert bare.do(handed(turns=[turn(lease, "i", (2,), acks=[(1, "lock_me:w")])])).turn_codes == [OK]


def test_a_refused_turn_takes_nothing_of_its_group_with_it(bare: Bare) -> None:
    leases = born(bare, "a", "b", "c")
    turns = [turn(leases["a"], "a", (2,)), turn(leases["b"], "b", (2, 1)), turn(leases["c"], "c", (2,))]
    first, second = bare.store.exchange(
        [Request(NOW, handed(turns=turns)), Request(NOW, handed(messages=[(*start("d"), 0)]), Appetite("me", turns=1))]
    )
    assert (first.turn_codes, first.held, [t.instance for t in second.turns]) == ([OK, REFUSED, OK], [[], [], []], ["d"])
    assert bare.sql("SELECT instance_id FROM history WHERE event_id = 2 ORDER BY 1") == [("a",), ("c",)]
    assert bare.sql("SELECT instance_id FROM instance_locks ORDER BY 1") == [("b",), ("d",)]


def test_scheduled_and_cancelled_in_one_turn_is_nothing(bare: Bare) -> None:
    lease = born(bare, "i")["i"]
    done = turn(lease, "i", work=[work(2), work(3)], cancelled=[("i", 1, 2), ("unknown", 1, 1)])
    assert bare.do(handed(turns=[done])).turn_codes == [OK]
    assert bare.sql("SELECT activity_id FROM worker_queue") == [(3,)]


def test_held_work_is_locked_from_its_first_moment_and_its_rows_are_named(bare: Bare) -> None:
    lease = born(bare, "i")["i"]
    done = handed(turns=[turn(lease, "i", keep=True, work=[work(2), work(3, lease="lock_me:7")])])
    taken = bare.do(done, Appetite("me", work_lease_ms=700))
    assert taken.held == [[2]]
    assert bare.sql("SELECT lock_token, locked_until, attempt_count FROM worker_queue WHERE id = 2") == [("lock_me:7", NOW + 700, 1)]
    assert [w.row_id for w in bare.do(appetite=Appetite("x", work=9)).work] == [1]


def test_a_parent_that_is_gone_leaves_no_link(bare: Bare) -> None:
    born(bare, "child", parent="nobody")
    born(bare, "root")
    born(bare, "other", parent="root")
    assert bare.sql("SELECT instance_id, parent_instance_id FROM instances ORDER BY 1") == [
        ("child", None), ("other", "root"), ("root", None),
    ]  # fmt: skip


def test_kv_changes_merge_when_the_execution_ends(bare: Bare) -> None:
    lease = born(bare, "i", kv=[(KV_SET, "a", "1", 5), (KV_SET, "b", "1", 5)], status="ContinuedAsNew", output="null")["i"]
    kv = [(KV_CLEAR, "a", None, 6), (KV_SET, "c", "", 7)]
    assert bare.do(handed(turns=[turn(lease, "i", kv=kv, keep=True)])).turn_codes == [OK]
    loaded = bare.store.load("i")
    assert loaded is not None
    assert (loaded.kv, loaded.kv_delta) == ({"a": ("1", 5), "b": ("1", 5)}, {"a": (None, 6), "c": ("", 7)})
    kv = [(KV_CLEAR_ALL, None, None, 8), (KV_SET, "d", "4", 9)]
    assert bare.do(handed(turns=[turn(lease, "i", kv=kv, status="Completed")])).turn_codes == [OK]
    loaded = bare.store.load("i")
    assert loaded is not None and (loaded.kv, loaded.kv_delta) == ({"d": ("4", 9)}, {})


# ── work ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_work_is_taken_by_tag_oldest_first_across_tags(bare: Bare) -> None:
    lease = born(bare, "i")["i"]
    tags = ["x", None, "y", "x", None]
    bare.do(handed(turns=[turn(lease, "i", work=[work(n, tag=t) for n, t in enumerate(tags)])]))
    modes: list[tuple[str, tuple[str, ...], list[int]]] = [
        ("none", (), []), ("default_only", (), [2, 5]), ("tags", ("x",), [1, 4]), ("default_and", ("y", "z"), [2, 3, 5]),
        ("any", (), [1, 2, 3, 4, 5]),
    ]  # fmt: skip
    for mode, wanted, rows in modes:
        taken = bare.do(appetite=Appetite("w", work=9, tag_mode=mode, tags=wanted))
        assert [w.row_id for w in taken.work] == rows, mode
        bare.do(handed(work_backs=[WorkBack(w.row_id, w.token, 0, True) for w in taken.work]))
    assert bare.sql("SELECT DISTINCT attempt_count FROM worker_queue") == [(0,)]


def test_expired_work_comes_back_at_its_old_place_and_its_holder_loses(bare: Bare) -> None:
    lease = born(bare, "i")["i"]
    bare.do(handed(turns=[turn(lease, "i", work=[work(1), work(2)])]))
    [w] = bare.do(appetite=Appetite("w", work=1, work_lease_ms=10)).work
    late = bare.do(handed(work=[WorkDone(w.row_id, w.token, "i", item("ActivityCompleted"))]), now=NOW + 10)
    assert late.work_codes == [LOST]
    assert bare.store.renew(Renewal(NOW + 10, work=[(w.row_id, w.token)], work_lease_ms=100)).lost_work == [0]
    again = bare.do(appetite=Appetite("w", work=2), now=NOW + 10).work
    assert [(x.row_id, x.attempt, x.name, x.version) for x in again] == [(1, 2, "flow", "1.0.0"), (2, 1, "flow", "1.0.0")]


def test_sessions_stay_with_their_owner_and_within_the_room(bare: Bare) -> None:
    lease = born(bare, "i")["i"]
    sessions = ["s1", None, "s1", "s2", "s3"]
    bare.do(handed(turns=[turn(lease, "i", work=[work(n, session_id=s) for n, s in enumerate(sessions)])]))
    mine = bare.do(appetite=Appetite("w", work=9, session_owner="me", session_room=1)).work
    assert [w.row_id for w in mine] == [1, 2, 3]
    assert bare.do(appetite=Appetite("w", work=9, session_owner="me", session_room=0, sessions=("s1",))).work == []
    assert bare.do(appetite=Appetite("w", work=9)).work == []
    yours = bare.do(appetite=Appetite("v", work=9, session_owner="you", session_room=9)).work
    assert [w.session_id for w in yours] == ["s2", "s3"]
    bare.do(handed(work_backs=[WorkBack(mine[0].row_id, mine[0].token)]))
    assert bare.do(appetite=Appetite("v", work=9, session_owner="you", session_room=9)).work == []
    ended = NOW + 30_000
    [w] = bare.do(appetite=Appetite("v", work=1, session_owner="you", session_room=9, sweep=False), now=ended).work
    assert (w.row_id, bare.sql("SELECT worker_id FROM sessions WHERE session_id = 's1'")) == (1, [("you",)])


def test_acks_and_renewals_show_that_a_session_is_in_use(bare: Bare) -> None:
    lease = born(bare, "i")["i"]
    bare.do(handed(turns=[turn(lease, "i", work=[work(1, session_id="s"), work(2, session_id="s")])]))
    w, v = bare.do(appetite=Appetite("w", work=9, session_owner="me", session_room=1)).work
    bare.do(handed(work=[WorkDone(w.row_id, w.token, "i", None)]), now=NOW + 5)
    assert bare.sql("SELECT last_activity_at FROM sessions") == [(NOW + 5,)]
    bare.store.renew(Renewal(NOW + 6, work=[(v.row_id, v.token)], work_lease_ms=100))
    assert bare.sql("SELECT last_activity_at FROM sessions") == [(NOW + 6,)]
    renewed = bare.store.renew(Renewal(NOW + 100, session_owner="me", session_lock_ms=50, session_idle_ms=94))
    assert (renewed.sessions, bare.sql("SELECT locked_until FROM sessions")) == (1, [(NOW + 150,)])
    assert bare.store.renew(Renewal(NOW + 101, session_owner="me", session_lock_ms=50, session_idle_ms=94)).sessions == 0


def test_a_check_of_leases_writes_nothing(bare: Bare) -> None:
    lease = born(bare, "i")["i"]
    before = bare.sql("SELECT * FROM instance_locks")
    renewed = bare.store.renew(Renewal(NOW, leases=[("i", lease), ("i", "lock_x:1")], work=[(1, "t")]))
    assert (renewed.lost_leases, renewed.lost_work, bare.sql("SELECT * FROM instance_locks")) == ([1], [0], before)


# ── cost ─────────────────────────────────────────────────────────────────────────────────────────────────────


def steps(bare: Bare, appetite: Appetite, now: int) -> int:
    """SQLite's own measure of work, free of clocks: progress callbacks, one in a hundred virtual machine steps."""
    count = 0

    def tick() -> bool:
        nonlocal count
        count += 1
        return False

    bare.writer.set_progress_handler(tick, 100)
    bare.do(appetite=appetite, now=now)
    bare.writer.set_progress_handler(None)
    return count


def test_a_claim_costs_the_same_whatever_waits_behind_it_or_at_others(bare: Bare) -> None:
    bare.send(*(start(f"few-{n}") for n in range(40)))
    few = steps(bare, Appetite("me", turns=20), NOW)
    born(bare, *(f"theirs-{n}" for n in range(3000)), owner="others")
    bare.send(*((f"theirs-{n}", item("QueueMessage")) for n in range(3000)), at=NOW - 5)
    bare.do(appetite=Appetite("me", turns=1))  # meets them once
    bare.send(*(start(f"more-{n}") for n in range(3000)))
    bare.send(("theirs-1", item("TimerFired")), at=NOW + 10**9)
    bare.do(appetite=Appetite("me", turns=20))  # some of theirs are free and have two messages
    assert steps(bare, Appetite("me", turns=20), NOW) <= few * 1.5 + 5


def test_looking_costs_nothing_for_work_and_versions_that_are_not_ours(bare: Bare) -> None:
    lease = born(bare, "i", keep=True)["i"]
    few = steps(bare, Appetite("me", turns=5, work=5), NOW)
    others = [work(n, tag="gpu") for n in range(2000)] + [work(n, session_id="s") for n in range(2000)]
    bare.do(handed(turns=[turn(lease, "i", work=others)]))
    born(bare, *(f"old-{n}" for n in range(1000)), keep=False)
    bare.do(handed(messages=[(f"old-{n}", item("QueueMessage"), NOW - 2000 + n) for n in range(1000)]))
    newer = Appetite("me", turns=5, work=5, versions=(2_000_000, 3_000_000))
    bare.do(appetite=newer)  # walks over them once a second
    assert steps(bare, newer, NOW + 500) <= few * 1.5 + 5
