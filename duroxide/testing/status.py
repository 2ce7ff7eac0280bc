"""Cases: the custom status of an instance, and the version that tells who waits for it that it was set."""

from __future__ import annotations

from duroxide.testing.case import case
from duroxide.testing.world import World


def status(w: World, instance: str = "i") -> tuple[str | None, int]:
    found = w.load(instance)
    return found.custom_status, found.custom_status_version


@case(150)
def status_is_set(w: World) -> None:
    w.born("i", custom_status=("half way",))
    assert status(w) == ("half way", 1)


@case(151)
def status_is_cleared(w: World) -> None:
    w.born("i", custom_status=("x",))
    w.next_turn("i", custom_status=(None,))
    assert status(w) == (None, 2)


@case(152)
def status_is_kept_by_turns_that_say_nothing(w: World) -> None:
    w.born("i", custom_status=("x",))
    w.next_turn("i")
    assert status(w) == ("x", 1)


@case(153)
def status_version_counts_the_turns_that_set_it(w: World) -> None:
    w.born("i", custom_status=("x",))
    for _ in range(3):
        w.next_turn("i", custom_status=("x",))
    assert status(w) == ("x", 4)


@case(154)
def status_version_stays_without_a_change(w: World) -> None:
    w.born("i", custom_status=("x",))
    before = status(w)
    w.send("i")
    w.claim()
    assert status(w) == before


@case(155)
def unknown_instance_has_no_status(w: World) -> None:
    assert w.store.load("nobody") is None


@case(156)
def status_is_nothing_at_version_zero_by_default(w: World) -> None:
    w.born("i")
    assert status(w) == (None, 0)
