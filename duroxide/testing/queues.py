"""Cases: executions and their histories, both queues, when instances come into being, and how often things were tried."""

from __future__ import annotations

from duroxide.storage.base import LOST, OK, PARKED, Appetite, TurnBack, WorkBack, WorkDone
from duroxide.testing.case import case
from duroxide.testing.world import LEASE_MS, WORK_LEASE_MS, World, item, work

# ── executions ───────────────────────────────────────────────────────────────────────────────────────────────────


def continued(w: World, instance: str, times: int = 1) -> None:
    """An instance that continued as new `times` times."""
    w.born(instance, status="ContinuedAsNew", output="1")
    for n in range(times):
        last = n == times - 1
        w.next_turn(instance, events=2, status=None if last else "ContinuedAsNew")


@case(34)
def histories_of_executions_are_apart(w: World) -> None:
    continued(w, "i")
    assert (w.events("i", 1), w.events("i", 2)) == ([1], [1, 2])


@case(35)
def load_without_an_execution_gives_the_latest(w: World) -> None:
    continued(w, "i")
    assert (w.load("i").execution_id, w.events("i")) == (2, [1, 2])


@case(36)
def executions_are_numbered_from_one(w: World) -> None:
    w.born("i")
    assert w.load("i").execution_id == 1


@case(37)
def continue_as_new_makes_the_next_execution(w: World) -> None:
    w.born("i", status="ContinuedAsNew")
    w.send("i", "ContinueAsNew")
    claim = w.claim_one()
    assert (claim.execution_id, claim.status, claim.last_event_id) == (1, "ContinuedAsNew", 1)
    assert w.commit(w.turn(claim)) == [OK]
    w.send("i")
    assert (w.claim_one().execution_id, w.load("i").status) == (2, "Running")


@case(38)
def all_histories_persist(w: World) -> None:
    continued(w, "i", 4)
    assert [len(w.events("i", n)) for n in range(1, 6)] == [1, 2, 2, 2, 2]


@case()
def commit_to_an_older_execution_leaves_the_current_one(w: World) -> None:
    continued(w, "i")
    w.send("i")
    late = w.turn(w.claim_one(), execution_id=1, name="flow", version="1.0.0")
    late.events = [(2, "Late", "{}")]
    assert w.commit(late) == [OK]
    assert (w.load("i").execution_id, w.events("i", 1), w.events("i")) == (2, [1, 2], [1, 2])


@case()
def stored_event_texts_are_kept_to_the_byte(w: World) -> None:
    w.born("i")
    text = '{"event_id":2,"duroxide_version":"9.9.9", "unknown": "é\\ud800 \\u0000" }'
    w.next_turn("i", events=0)
    w.send("i")
    turn = w.turn(w.claim_one(), events=0)
    turn.events = [(2, "Foreign", text)]
    assert w.commit(turn) == [OK]
    assert w.load("i").events[1] == (2, text)


# ── queues ───────────────────────────────────────────────────────────────────────────────────────────────────────


@case(39)
def work_is_first_in_first_out(w: World) -> None:
    w.born("i", work=[work("i", n) for n in range(2, 7)])
    assert [w.take(f"o{n}", work=1)[0].item for n in range(5)] == [work("i", n).item for n in range(2, 7)]


@case(40)
def claimed_work_stays_until_it_is_acknowledged(w: World) -> None:
    w.born("i", work=[work("i")])
    first = w.take_one("a")
    assert not w.take("b")
    w.later(WORK_LEASE_MS)
    assert w.take_one("b").row_id == first.row_id


@case(41)
def result_and_acknowledgement_are_one(w: World) -> None:
    w.born("i", work=[work("i")])
    taken = w.take_one("a")
    done = WorkDone(taken.row_id, taken.token, "i", item("ActivityCompleted", "i"))
    assert w.exchange(work=[done, done]).work_codes == [OK, LOST]
    assert len(w.claim_one().messages) == 1 and not w.take("b")


@case(42)
def timers_are_hidden_until_due(w: World) -> None:
    w.born("i", messages=[("i", item("TimerFired", "i"), w.now + 1_000)])
    taken = w.exchange(Appetite("a", turns=1))
    assert not taken.turns and taken.next_visible_at == w.now + 1_000
    w.later(999)
    assert not w.claim()
    w.later(1)
    assert w.claim()


@case(43)
def what_a_lost_owner_claimed_comes_again(w: World) -> None:
    w.start("i")
    w.claim_one("gone")
    w.born("j", work=[work("j")])
    w.take_one("gone")
    w.later(max(LEASE_MS, WORK_LEASE_MS))
    assert w.claim_one("b").instance == "i" and w.take_one("b").instance == "j"


@case(44)
def messages_are_visible_at_once(w: World) -> None:
    w.start("i")
    assert w.claim()


@case(45)
def later_messages_are_skipped_though_nobody_holds_them(w: World) -> None:
    w.born("i")
    w.send("i", at=w.now + 5_000)
    w.send("i")
    assert len(w.claim_one().messages) == 1


@case()
def messages_of_a_claim_come_in_the_order_of_arrival(w: World) -> None:
    """Not in that of their visibility."""
    w.born("i")
    for delay in (3_000, 1_000, 2_000):
        w.send("i", at=w.now + delay)
    w.later(3_000)
    rows = [m[0] for m in w.claim_one().messages]
    assert len(rows) == 3 and rows == sorted(rows)


@case()
def who_asks_for_work_hears_when_the_next_is_due(w: World) -> None:
    w.born("i", work=[work("i", 2, visible_at=w.now + 700), work("i", 3, visible_at=w.now + 500, session_id="s")])
    plain, session = Appetite("a", work=1), Appetite("a", work=1, session_owner="a", session_room=1)
    at = w.exchange(plain).next_visible_at
    assert at is not None and w.now < at <= w.now + 700, "too early does no harm"
    assert w.exchange(session).next_visible_at == w.now + 500


@case(46)
def messages_for_nobody_are_dropped_those_for_somebody_kept(w: World) -> None:
    w.send("nobody")
    w.born("i")
    w.send("i")
    assert [c.instance for c in w.claim()] == ["i"]
    w.start("nobody")
    assert len(w.claim_one("b").messages) == 1


@case()
def signals_to_an_unknown_instance_stop_nobody(w: World) -> None:
    """However many there are, and first in the queue."""
    for n in range(150):
        w.exchange(messages=[(f"typo{n}", item("ExternalRaised", f"typo{n}"), 0)])
    w.start("i")
    assert [c.instance for _ in range(4) for c in w.claim()] == ["i"]


@case()
def messages_wait_for_a_start_that_was_given_back_with_a_delay(w: World) -> None:
    w.start("i")
    w.exchange(turn_backs=[TurnBack(w.claim_one().lease, "i", 1_000)])
    w.send("i")
    assert not w.claim()
    w.later(1_000)
    assert len(w.claim_one().messages) == 2


@case()
def messages_between_two_executions_wait_for_the_start_of_the_next(w: World) -> None:
    """However late that is: what came first is delivered first, once, and in one batch with it."""
    w.born("i")
    w.next_turn("i", status="ContinuedAsNew", messages=[("i", item("ContinueAsNew", "i"), w.now + 1_000)])
    for _ in range(2):
        w.send("i")
        w.send("i", "StartOrchestration")
        assert not w.claim()
        w.later(500)
    [claim] = w.claim()
    assert [row for row, _, _ in claim.messages] == sorted(row for row, _, _ in claim.messages) and len(claim.messages) == 5
    assert claim.attempt == 1 and claim.status == "ContinuedAsNew"


@case()
def messages_after_an_execution_that_lost_its_successor_are_told(w: World) -> None:
    """Nothing waits for a start that never comes."""
    w.born("i")
    w.next_turn("i", status="ContinuedAsNew")
    w.send("i")
    assert len(w.claim_one().messages) == 1


@case()
def cancel_waits_for_the_birth_of_its_instance(w: World) -> None:
    w.send("i", "CancelInstance")
    assert not w.claim()
    taken = w.exchange(Appetite("a", turns=1))
    assert taken.next_visible_at is None or taken.next_visible_at < PARKED, "a parked message is nobody's timer"
    w.later(1_000)
    w.start("i")
    assert [kind in m[1] for m, kind in zip(w.claim_one().messages, ("CancelInstance", "StartOrchestration"))] == [True, True]


# ── birth ────────────────────────────────────────────────────────────────────────────────────────────────────────


@case(47)
def instance_is_made_by_its_first_commit(w: World) -> None:
    w.start("i")
    claim = w.claim_one()
    assert (claim.name, claim.execution_id, claim.last_event_id, claim.status) == (None, 0, 0, None)
    assert not w.known("i") and w.commit(w.turn(claim)) == [OK]
    found = w.load("i")
    assert (found.name, found.version, found.status, found.execution_id) == ("flow", "1.0.0", "Running", 1)


@case(48)
def messages_make_no_instance(w: World) -> None:
    w.start("i")
    w.send("j")
    w.claim()
    assert not w.known("i") and not w.known("j")


@case(49)
def instance_without_a_version_is_unknown(w: World) -> None:
    w.born("i", version=None)
    assert w.load("i").version == "unknown"


@case(50)
def children_are_made_as_others_are(w: World) -> None:
    w.born("p", messages=[("p::sub::2", item("StartOrchestration", "p::sub::2"), 0)])
    assert not w.known("p::sub::2")
    claim = w.claim_one()
    assert claim.instance == "p::sub::2" and w.commit(w.turn(claim, parent="p")) == [OK]
    assert w.load("p::sub::2").parent == "p"


# ── attempts ─────────────────────────────────────────────────────────────────────────────────────────────────────


@case(62)
def first_claim_is_attempt_one(w: World) -> None:
    w.start("i")
    claim = w.claim_one()
    assert (claim.attempt, claim.messages[0][2]) == (1, 1)


@case(63)
def attempts_grow_when_given_back(w: World) -> None:
    w.start("i")
    for attempt in (1, 2, 3):
        claim = w.claim_one()
        assert claim.attempt == attempt
        w.exchange(turn_backs=[TurnBack(claim.lease, "i")])


@case(64)
def first_claim_of_work_is_attempt_one(w: World) -> None:
    w.born("i", work=[work("i")])
    assert w.take_one().attempt == 1


@case(65)
def attempts_of_work_grow_when_its_lease_ends(w: World) -> None:
    w.born("i", work=[work("i")])
    for attempt in (1, 2, 3):
        assert w.take_one(f"o{attempt}").attempt == attempt
        w.later(WORK_LEASE_MS)


@case()
def work_held_from_its_birth_counts_as_tried_once(w: World) -> None:
    w.start("i")
    taken = w.exchange(turns=[w.turn(w.claim_one(), keep=True, work=[work("i", lease="lock_a:h1"), work("i", 3)])])
    [[row_id]] = taken.held
    assert w.take_one("b").row_id != row_id
    w.later(WORK_LEASE_MS)
    assert {t.row_id: t.attempt for t in w.take("b")}[row_id] == 2


@case(66)
def attempts_are_counted_per_message(w: World) -> None:
    w.born("i")
    w.send("i")
    claim = w.claim_one()
    w.exchange(turn_backs=[TurnBack(claim.lease, "i")])
    w.send("i")
    assert [m[2] for m in w.claim_one().messages] == [2, 1]


@case(67)
def refunded_work_keeps_its_count(w: World) -> None:
    w.born("i", work=[work("i")])
    for _ in range(3):
        taken = w.take_one()
        assert taken.attempt == 1
        w.exchange(work_backs=[WorkBack(taken.row_id, taken.token, refund=True)])


@case(68)
def refunded_turn_keeps_its_count(w: World) -> None:
    w.start("i")
    for _ in range(3):
        claim = w.claim_one()
        assert claim.attempt == 1
        w.exchange(turn_backs=[TurnBack(claim.lease, "i", refund=True)])


@case(69)
def counts_are_never_below_zero(w: World) -> None:
    w.start("i")
    claim = w.claim_one()
    back = TurnBack(claim.lease, "i", refund=True)
    assert w.exchange(turn_backs=[back, back]).turn_back_codes == [OK, LOST]
    assert w.claim_one().attempt == 1


@case(70)
def attempt_of_a_batch_is_that_of_its_oldest_hand(w: World) -> None:
    w.born("i")
    w.send("i")
    for _ in range(2):
        w.exchange(turn_backs=[TurnBack(w.claim_one().lease, "i")])
    w.send("i")
    assert w.claim_one().attempt == 3
