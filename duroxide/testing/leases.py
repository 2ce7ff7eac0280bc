"""Cases: who has a lease on an instance or on work, until when, and who gets it next."""

from __future__ import annotations

from duroxide.storage.base import LOST, OK, TurnBack, WorkBack, WorkDone
from duroxide.testing.case import case
from duroxide.testing.world import LEASE_MS, WORK_LEASE_MS, World, item, work

# ── who holds what ───────────────────────────────────────────────────────────────────────────────────────────────


@case(10)
def leased_instance_is_claimed_by_nobody_else(w: World) -> None:
    w.start("i")
    assert w.claim("a") and not w.claim("b")


@case(11)
def tokens_are_unique_and_name_their_owner(w: World) -> None:
    w.start(*(f"i{n}" for n in range(10)))
    tokens = [c.lease for c in w.claim("a", turns=5)] + [c.lease for c in w.claim("b")]
    assert len(set(tokens)) == 10
    assert all(token.startswith("lock_a:") for token in tokens[:5]) and all(token.startswith("lock_b:") for token in tokens[5:])


@case(12)
def unknown_token_commits_and_gives_back_nothing(w: World) -> None:
    w.start("i")
    claim = w.claim_one()
    turn = w.turn(claim)
    turn.lease = "lock_x:1"
    taken = w.exchange(turns=[turn], turn_backs=[TurnBack("lock_x:1", "i")])
    assert (taken.turn_codes, taken.turn_back_codes) == ([LOST], [LOST])
    assert not w.claim("b") and w.commit(w.turn(claim)) == [OK]


@case(13)
def each_of_many_claimants_gets_an_instance_of_its_own(w: World) -> None:
    w.start(*(f"i{n}" for n in range(5)))
    assert {w.claim(f"o{n}", turns=1)[0].instance for n in range(5)} == {f"i{n}" for n in range(5)}


@case(14)
def messages_that_arrive_during_a_lease_wait_for_it(w: World) -> None:
    w.start("i")
    claim = w.claim_one("a")
    w.send("i")
    assert not w.claim("b")
    assert w.commit(w.turn(claim)) == [OK]
    assert len(w.claim_one("b").messages) == 1


@case()
def owner_of_a_kept_lease_gets_later_messages_under_it(w: World) -> None:
    w.start("i")
    claim = w.claim_one("a")
    assert w.commit(w.turn(claim, keep=True)) == [OK]
    w.send("i")
    assert not w.claim("b")
    more = w.claim_one("a")
    assert (more.lease, len(more.messages), more.last_event_id) == (claim.lease, 1, 1)


@case()
def owners_whose_names_begin_alike_do_not_share_leases(w: World) -> None:
    w.start("i", "j")
    for owner in ("a:1", "ab"):
        [claim] = w.claim(owner, turns=1)
        assert w.commit(w.turn(claim, keep=True)) == [OK]
    w.send("i")
    w.send("j")
    assert not w.claim("a")
    assert [claim.instance for owner in ("a:1", "ab", "a") for claim in w.claim(owner)] == ["i", "j"]


@case(15)
def lease_on_one_instance_blocks_no_other(w: World) -> None:
    w.start("i")
    w.claim_one("a")
    w.start("j")
    assert w.claim_one("b").instance == "j"


@case(16)
def commit_deletes_only_what_it_claimed(w: World) -> None:
    w.start("i", "j")
    claims = {c.instance: c for c in w.claim()}
    greedy = w.turn(claims["i"])
    greedy.consumed += [m[0] for m in claims["j"].messages]
    assert w.commit(greedy) == [OK]
    w.later(LEASE_MS)
    assert w.claim_one("b").instance == "j"


@case(17)
def messages_that_came_after_the_claim_survive_the_commit(w: World) -> None:
    w.born("i")
    w.send("i")
    claim = w.claim_one()
    for _ in range(3):
        w.send("i")
    assert w.commit(w.turn(claim)) == [OK]
    assert len(w.claim_one("b").messages) == 3


@case(18)
def threads_that_contend_lose_nothing(w: World) -> None:
    w.start(*(f"i{n}" for n in range(40)))

    def run(owner: str) -> list[str]:
        done = []
        while claims := w.claim(owner, turns=3):
            assert w.commit(*map(w.turn, claims)) == [OK] * len(claims)
            done += [c.instance for c in claims]
        return done

    found = w.at_once([lambda owner=f"o{n}": run(owner) for n in range(4)])  # type: ignore[misc]
    assert sorted(sum(found, [])) == sorted(f"i{n}" for n in range(40))


@case(19)
def no_message_is_claimed_twice(w: World) -> None:
    w.start(*(f"i{n}" for n in range(30)))
    found = w.at_once([lambda owner=f"o{n}": w.claim(owner, turns=10) for n in range(6)])  # type: ignore[misc]
    rows = [m[0] for claims in found for c in claims for m in c.messages]
    assert len(rows) == len(set(rows)) == 30


@case(20)
def ended_lease_is_taken_over_with_its_messages(w: World) -> None:
    w.start("i")
    first = w.claim_one("a")
    w.later(LEASE_MS)
    second = w.claim_one("b")
    assert second.lease != first.lease and [m[:2] for m in second.messages] == [m[:2] for m in first.messages]


# ── expiry ───────────────────────────────────────────────────────────────────────────────────────────────────────


@case(21)
def lease_ends_at_its_time_and_not_before(w: World) -> None:
    w.start("i")
    w.claim_one("a")
    w.later(LEASE_MS - 1)
    assert not w.claim("b")
    w.later(1)
    assert w.claim("b")


@case(22)
def giving_back_frees_at_once(w: World) -> None:
    w.start("i")
    claim = w.claim_one("a")
    assert w.exchange(turn_backs=[TurnBack(claim.lease, "i")]).turn_back_codes == [OK]
    assert w.claim_one("b").instance == "i"


@case()
def messages_given_back_by_a_fast_clock_keep_their_place(w: World) -> None:
    w.start("i")
    w.later(60_000)
    claim = w.claim_one("ahead")
    w.exchange(turn_backs=[TurnBack(claim.lease, "i", 0, True)])
    w.later(-59_000)
    w.send("i")
    assert [kind in m[1] for m, kind in zip(w.claim_one("b").messages, ("StartOrchestration", "QueueMessage"))] == [True, True]


@case()
def giving_back_with_a_delay_hides_only_what_was_claimed(w: World) -> None:
    w.born("i")
    w.send("i")
    claim = w.claim_one("a")
    w.send("i")
    assert not w.claim("b"), "it is seen and left to the holder"
    w.exchange(turn_backs=[TurnBack(claim.lease, "i", 1_000)])
    assert [m[0] for m in w.claim_one("b").messages] != [m[0] for m in claim.messages]
    w.later(LEASE_MS)
    assert len(w.claim_one("b").messages) == 2


@case(23)
def commit_frees_at_once(w: World) -> None:
    w.start("i")
    w.commit(w.turn(w.claim_one("a")))
    w.send("i")
    assert w.claim("b")


@case(24)
def of_many_claimants_of_an_ended_lease_one_wins(w: World) -> None:
    w.start("i")
    w.claim_one("a")
    w.later(LEASE_MS)
    found = w.at_once([lambda owner=f"o{n}": w.claim(owner) for n in range(5)])  # type: ignore[misc]
    assert sum(map(len, found)) == 1


@case(25)
def work_lease_is_renewed(w: World) -> None:
    w.born("i", work=[work("i")])
    taken = w.take_one()
    w.later(WORK_LEASE_MS - 1)
    assert w.renew(work=[(taken.row_id, taken.token)]).lost_work == []
    w.later(WORK_LEASE_MS - 1)
    assert not w.take("b")


@case(26)
def work_lease_of_another_is_not_renewed(w: World) -> None:
    w.born("i", work=[work("i")])
    taken = w.take_one()
    assert w.renew(work=[(taken.row_id, "lock_b:1"), (taken.row_id + 99, taken.token)]).lost_work == [0, 1]


@case(27)
def ended_work_lease_is_not_revived(w: World) -> None:
    w.born("i", work=[work("i")])
    taken = w.take_one("a")
    w.later(WORK_LEASE_MS)
    assert w.renew(work=[(taken.row_id, taken.token)]).lost_work == [0]
    assert w.take("b")


@case(28)
def renewal_extends_from_now(w: World) -> None:
    w.start("i")
    claim = w.claim_one("a")
    w.later(LEASE_MS - 1)
    assert w.renew([("i", claim.lease)]).lost_leases == []
    w.later(LEASE_MS - 1)
    assert not w.claim("b") and w.commit(w.turn(claim)) == [OK]


@case()
def renewal_by_nothing_only_looks(w: World) -> None:
    w.start("i")
    claim = w.claim_one("a")
    w.later(LEASE_MS - 1)
    assert w.renew([("i", claim.lease)], lease_ms=0).lost_leases == []
    w.later(1)
    assert w.renew([("i", claim.lease)], lease_ms=0).lost_leases == [0] and w.claim("b")


@case(29)
def finished_work_cannot_be_renewed(w: World) -> None:
    w.born("i", work=[work("i")])
    taken = w.take_one()
    assert w.exchange(work=[WorkDone(taken.row_id, taken.token, "i", None)]).work_codes == [OK]
    assert w.renew(work=[(taken.row_id, taken.token)]).lost_work == [0]


@case(30)
def work_given_back_is_free_at_once(w: World) -> None:
    w.born("i", work=[work("i")])
    taken = w.take_one("a")
    assert w.exchange(work_backs=[WorkBack(taken.row_id, taken.token)]).work_back_codes == [OK]
    assert w.take_one("b").row_id == taken.row_id


@case(31)
def work_given_back_with_a_delay_is_hidden_for_it(w: World) -> None:
    w.born("i", work=[work("i")])
    taken = w.take_one("a")
    w.exchange(work_backs=[WorkBack(taken.row_id, taken.token, 1_000)])
    w.later(999)
    assert not w.take("b")
    w.later(1)
    assert w.take("b")


@case(32)
def result_after_the_work_lease_ended_is_refused(w: World) -> None:
    w.born("i", work=[work("i")])
    taken = w.take_one("a")
    w.later(WORK_LEASE_MS)
    assert w.exchange(work=[WorkDone(taken.row_id, taken.token, "i", item("ActivityCompleted", "i"))]).work_codes == [LOST]
    assert not w.claim() and w.take_one("b").row_id == taken.row_id


@case()
def results_of_lost_work_spoil_the_turn_that_consumes_them(w: World) -> None:
    w.start("i")
    claim = w.claim_one("a")
    assert w.commit(w.turn(claim, keep=True, work=[work("i")])) == [OK]
    taken = w.take_one("a")
    w.later(LEASE_MS - 1)
    w.renew([("i", claim.lease)], lease_ms=WORK_LEASE_MS * 2)
    w.later(WORK_LEASE_MS)
    late = w.turn(claim, acks=[(taken.row_id, taken.token)])
    late.name, late.events = None, [(2, "Some", "{}")]
    assert w.commit(late) == [LOST] and w.events("i") == [1]


@case(33)
def ended_lease_is_not_revived(w: World) -> None:
    w.start("i")
    claim = w.claim_one("a")
    w.later(LEASE_MS)
    assert w.renew([("i", claim.lease)]).lost_leases == [0]
    assert w.claim("b")


@case(needs="liveness")
def leases_of_a_live_owner_are_not_reclaimed(w: World) -> None:
    withdraw = w.store.announce("a")
    try:
        w.born("j", work=[work("j")])
        w.start("i")
        claim, taken = w.claim_one("a"), w.take_one("a")
        assert w.store.reclaim(w.now) == 0 and not w.claim("b") and not w.take("b")
        assert w.exchange(work=[WorkDone(taken.row_id, taken.token, "j", None)]).work_codes == [OK]
        assert w.commit(w.turn(claim)) == [OK]
    finally:
        withdraw()
