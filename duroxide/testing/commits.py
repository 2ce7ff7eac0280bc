"""Cases: turns land whole or not at all, and only under a live lease."""

from __future__ import annotations

from duroxide.storage.base import LOST, OK, REFUSED
from duroxide.testing.case import case
from duroxide.testing.world import LEASE_MS, World, item, work


@case(1)
def failed_commit_changes_nothing(w: World) -> None:
    w.start("i")
    claim = w.claim_one()
    turn = w.turn(claim, work=[work("i")], messages=[("j", item("StartOrchestration", "j"), 0)], custom_status=("s",))
    turn.lease = "lock_a:nobody"
    assert w.commit(turn) == [LOST]
    assert not w.known("i") and not w.claim("b") and not w.take("b")
    w.later(LEASE_MS)
    assert [m[0] for m in w.claim_one("b").messages] == [m[0] for m in claim.messages]


@case(2)
def commit_with_many_outputs_lands_whole(w: World) -> None:
    w.start("i")
    outputs = [(f"child{n}", item("StartOrchestration", f"child{n}"), 0) for n in range(20)]
    turn = w.turn(w.claim_one(), events=50, work=[work("i", n) for n in range(2, 22)], messages=outputs, custom_status=("x",))
    turn.kv = [(0, f"k{n}", str(n), w.now) for n in range(20)]
    assert w.commit(turn) == [OK]
    assert w.events("i") == list(range(1, 51)) and len(w.values("i")) == 20 and w.load("i").custom_status == "x"
    assert len(w.take()) == 20 and {c.instance for c in w.claim("b")} == {f"child{n}" for n in range(20)}


@case(3)
def only_a_successful_commit_frees_the_lease(w: World) -> None:
    w.start("i")
    claim = w.claim_one()
    w.send("i")
    bad = w.turn(claim, events=1)
    bad.events *= 2
    assert w.commit(bad) == [REFUSED] and not w.claim("b")
    assert w.commit(w.turn(claim)) == [OK] and w.claim_one("b").instance == "i"


@case(4)
def two_commits_under_one_lease_one_wins(w: World) -> None:
    w.start("i")
    claim = w.claim_one()
    assert w.commit(w.turn(claim, events=2), w.turn(claim, events=3)) == [OK, LOST]
    assert w.events("i") == [1, 2]


@case(5)
def commit_under_a_wrong_token_is_refused(w: World) -> None:
    w.start("i", "j")
    claims = {c.instance: c for c in w.claim()}
    stranger = w.turn(claims["i"])
    stranger.lease = claims["j"].lease
    assert w.commit(stranger) == [LOST] and not w.known("i")


@case(6)
def duplicate_event_id_is_refused_and_nothing_written(w: World) -> None:
    w.born("i")
    w.send("i")
    claim = w.claim_one()
    twice = w.turn(claim, work=[work("i")], messages=[("j", item("StartOrchestration", "j"), 0)])
    twice.events = [(1, "Some", "{}")]
    assert w.commit(twice) == [REFUSED]
    assert w.events("i") == [1] and not w.take() and not w.claim("b")
    assert w.commit(w.turn(claim)) == [OK] and w.events("i") == [1, 2]


@case(7)
def turn_of_an_instance_that_is_gone_consumes_and_creates_nothing(w: World) -> None:
    w.start("i")
    claim = w.claim_one()
    nothing = w.turn(claim, events=0)
    nothing.name = nothing.version = nothing.pinned = None
    assert w.commit(nothing) == [OK]
    assert not w.known("i") and not w.claim("b")


@case(8)
def message_that_is_no_json_stops_nobody(w: World) -> None:
    w.exchange(messages=[("nobody", "{nonsense", 0)])
    w.born("i")
    w.exchange(messages=[("i", "}{", 0)])
    [claim] = w.claim()
    assert (claim.instance, claim.messages[0][1]) == ("i", "}{")
    assert w.commit(w.turn(claim)) == [OK]


@case(9)
def commit_after_the_lease_ended_is_refused(w: World) -> None:
    w.start("i")
    claim = w.claim_one()
    w.later(LEASE_MS)
    assert w.commit(w.turn(claim)) == [LOST] and not w.known("i")


@case()
def turn_with_two_results_of_one_row_is_lost(w: World) -> None:
    """A row that was taken twice, the second time after its lease had ended: one of the two results is stale."""
    w.born("i", work=[work("i")])
    first = w.take_one(work_lease_ms=100)
    w.later(100)
    second = w.take_one()
    assert first.row_id == second.row_id and first.token != second.token
    w.send("i")
    claim = w.claim_one()
    both = [(first.row_id, first.token), (second.row_id, second.token)]
    assert w.commit(w.turn(claim, acks=both)) == [LOST] and w.events("i") == [1]
    assert w.commit(w.turn(claim, acks=[(second.row_id, second.token)])) == [OK] and not w.take("b")
