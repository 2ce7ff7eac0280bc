"""Cases: which work and which instances a claimant takes at all, by tag and by the version that an execution is pinned to."""

from __future__ import annotations

from duroxide.storage.base import OK, WorkBack
from duroxide.testing.case import case
from duroxide.testing.world import LEASE_MS, World, work

TAGS = (None, "gpu", "eu", "other")


def queue(w: World) -> None:
    """One activity of each tag."""
    w.born("i", work=[work("i", n, tag=tag) for n, tag in enumerate(TAGS, 2)])


def tags(w: World, mode: str, *wanted: str, owner: str = "a") -> list[str | None]:
    return [taken.tag for taken in w.take(owner, tag_mode=mode, tags=wanted)]


# ── tags ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@case(104)
def default_takes_only_untagged_work(w: World) -> None:
    queue(w)
    assert tags(w, "default_only") == [None]


@case(105)
def tags_take_only_their_own(w: World) -> None:
    queue(w)
    assert tags(w, "tags", "gpu") == ["gpu"]


@case(106)
def default_and_tags_take_both(w: World) -> None:
    queue(w)
    assert tags(w, "default_and", "eu") == [None, "eu"]


@case(107)
def none_takes_nothing(w: World) -> None:
    queue(w)
    assert tags(w, "none") == [] and len(tags(w, "any", owner="b")) == 4


@case(108)
def several_tags_take_each(w: World) -> None:
    queue(w)
    assert tags(w, "tags", "gpu", "eu") == ["gpu", "eu"]


@case(109)
def tag_is_told_to_who_takes_it(w: World) -> None:
    odd = 'a"b\\c é %_'
    w.born("i", work=[work("i", tag=odd)])
    assert tags(w, "tags", odd) == [odd]


@case(110)
def any_takes_everything(w: World) -> None:
    queue(w)
    assert tags(w, "any") == list(TAGS)


@case(111)
def tag_survives_being_given_back(w: World) -> None:
    w.born("i", work=[work("i", tag="gpu")])
    taken = w.take_one(tag_mode="tags", tags=("gpu",))
    w.exchange(work_backs=[WorkBack(taken.row_id, taken.token)])
    assert tags(w, "default_only") == [] and tags(w, "tags", "gpu") == ["gpu"]


@case(113)
def tag_survives_the_commit_that_made_it(w: World) -> None:
    w.born("i")
    w.next_turn("i", work=[work("i", 5, tag="gpu", session_id="s")])
    [taken] = w.take(tag_mode="any", session_owner="a", session_room=1)
    assert (taken.tag, taken.session_id) == ("gpu", "s")


# ── versions: packed major * 1,000,000 + minor * 1,000 + patch ───────────────────────────────────────────────────

PINS = {"old": (0, 1, 30), "now": (0, 1, 32), "next": (0, 2, 0)}
NOW = (0, 1_032)


def pinned(w: World, *names: str) -> None:
    for name in names:
        w.born(name, pinned=PINS[name])
    for name in names:
        w.send(name)


def claimed(w: World, versions: tuple[int, int] | tuple[()] | None, owner: str = "a") -> list[str]:
    return [claim.instance for claim in w.claim(owner, versions=versions)]


@case(130)
def no_filter_claims_any(w: World) -> None:
    pinned(w, "old", "next")
    assert claimed(w, None) == ["old", "next"]


@case(131)
def fitting_execution_is_claimed(w: World) -> None:
    pinned(w, "now")
    assert claimed(w, NOW) == ["now"]


@case(132)
def execution_of_another_version_is_skipped(w: World) -> None:
    pinned(w, "next")
    assert claimed(w, NOW) == []


@case(133)
def fitting_one_is_found_behind_others(w: World) -> None:
    pinned(w, "next", "now")
    assert claimed(w, NOW) == ["now"]


@case()
def fitting_one_is_found_behind_many_others(w: World) -> None:
    for n in range(300):
        w.born(f"next{n}", pinned=PINS["next"])
        w.send(f"next{n}")
    pinned(w, "now")
    assert claimed(w, NOW) == ["now"]


@case(134)
def skipped_execution_is_not_leased(w: World) -> None:
    pinned(w, "next")
    claimed(w, NOW)
    assert claimed(w, None, "b") == ["next"]


@case(135)
def execution_without_a_pin_fits_everyone(w: World) -> None:
    w.born("i", pinned=None)
    w.send("i")
    assert claimed(w, NOW) == ["i"]


@case(136)
def bounds_are_inclusive(w: World) -> None:
    pinned(w, "old", "now")
    assert claimed(w, (1_031, 1_031)) == [] and claimed(w, (1_030, 1_032)) == ["old", "now"]


@case(137)
def pin_is_stored_by_the_first_commit(w: World) -> None:
    w.born("i", pinned=(3, 4, 5))
    w.send("i")
    assert claimed(w, (3_004_004, 3_004_004)) == [] and claimed(w, (3_004_005, 3_004_005)) == ["i"]


@case(138)
def pin_is_not_changed_by_later_commits(w: World) -> None:
    pinned(w, "old")
    assert w.commit(w.turn(w.claim_one())) == [OK]
    w.send("old")
    assert claimed(w, (1_030, 1_030)) == ["old"]


@case(139)
def next_execution_has_a_pin_of_its_own(w: World) -> None:
    w.born("i", status="ContinuedAsNew", pinned=PINS["old"])
    w.next_turn("i", pinned=PINS["next"])
    w.send("i")
    assert claimed(w, (0, 1_032)) == [] and claimed(w, (2_000, 2_000)) == ["i"]


@case(140)
def empty_range_claims_nothing(w: World) -> None:
    pinned(w, "now")
    w.start("unborn")
    assert claimed(w, ()) == [] and claimed(w, None, "b") != []


@case(141)
def filter_does_not_claim_what_is_leased(w: World) -> None:
    pinned(w, "now")
    assert claimed(w, NOW) == ["now"] and claimed(w, NOW, "b") == []


@case(142, 143)
def pin_is_changed_by_a_commit_that_says_so(w: World) -> None:
    pinned(w, "old")
    turn = w.turn(w.claim_one())
    turn.name, turn.version, turn.pinned = "flow", "1.0.0", PINS["next"]
    assert w.commit(turn) == [OK]
    w.send("old")
    assert claimed(w, NOW) == [] and claimed(w, None) == ["old"]


def corrupt(w: World, instance: str, pin: tuple[int, int, int] = (0, 1, 32)) -> None:
    """An instance whose stored history is no JSON."""
    w.start(instance)
    turn = w.turn(w.claim_one(), events=0, pinned=pin)
    turn.events = [(1, "Some", "{broken")]
    assert w.commit(turn) == [OK]
    w.send(instance)


@case(144)
def broken_history_is_claimed_unless_filtered(w: World) -> None:
    corrupt(w, "i", PINS["next"])
    assert claimed(w, NOW) == [] and claimed(w, None) == ["i"]
    assert w.load("i").events == [(1, "{broken")]


@case(147)
def filter_looks_at_no_history(w: World) -> None:
    corrupt(w, "i", PINS["next"])
    pinned(w, "now")
    assert claimed(w, NOW) == ["now"]


@case(148)
def range_is_one_range(w: World) -> None:
    pinned(w, "old", "now", "next")
    assert claimed(w, (1_031, 1_999)) == ["now"]


@case(149)
def commit_appends_to_a_broken_history(w: World) -> None:
    corrupt(w, "i")
    assert w.commit(w.turn(w.claim_one())) == [OK] and w.events("i") == [1, 2]
    w.later(LEASE_MS)
    assert not w.claim()
