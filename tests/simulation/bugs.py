"""Bugs to be planted: each is put into the memory model or the runtime for one world, and has to be caught there.

Owns one function a bug; it changes the world's store, or replaces a name for the time of the run (see `planted`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from duroxide.runtime import leases, loop
from duroxide.storage.base import TurnDone

from .hub import replaced
from .world import World

Names = list[tuple[Any, str, Any]]


def ignores_a_lost_lease(world: World) -> Names:
    """A zombie's turn is committed."""
    native = world.store.native
    commit, live = native._commit, native._lease_live

    def planted(turn: TurnDone, now: int, lease_ms: int) -> Any:
        native._lease_live = lambda instance, token, now: True
        try:
            return commit(turn, now, lease_ms)
        finally:
            native._lease_live = live

    native._commit = planted
    return []


def ignores_a_lost_activity(world: World) -> Names:
    """A zombie's result counts."""
    world.store.native._live_work = lambda row_id, token, now: world.store.native._state.work.get(row_id)
    return []


def delivers_twice(world: World) -> Names:
    """Some commits leave the messages that they have read."""
    native, commits = world.store.native, [0]
    commit = native._commit

    def planted(turn: TurnDone, now: int, lease_ms: int) -> Any:
        commits[0] += 1
        if commits[0] % 4 == 0:
            turn.consumed = []
        return commit(turn, now, lease_ms)

    native._commit = planted
    return []


def drops_a_message(world: World) -> Names:
    """One that is not a start, at times."""
    native, sent = world.store.native, [0]
    send = native._send

    def planted(instance: str, item: str, visible_at: int) -> None:
        sent[0] += "Start" not in item
        if sent[0] % 5 or "Start" in item:
            send(instance, item, visible_at)

    native._send = planted
    return []


def trusts_a_stale_cache(world: World) -> Names:
    """A live execution is taken as it is, whatever the store has."""
    needs_load = loop.needs_load
    return [(loop, "needs_load", lambda turn: turn.execution is None and needs_load(turn))]


def keeps_the_execution_of_a_lost_turn(world: World) -> Names:
    """What ran under a lost lease goes on with the next one, unchecked."""

    def refused(self: Any, lease: Any, outcome: Any, turn: TurnDone, code: int) -> None:
        self.engine.holdings.lost(lease)
        if outcome.execution is not None:
            self.engine.cache.expect(lease.instance)
            self.engine.cache.put(outcome.execution)

    return [(loop.Loop, "_refused", refused), *trusts_a_stale_cache(world)]


def frees_the_living(world: World) -> Names:
    """Leases of a process that only seems dead are given to others; it is told, but goes on."""
    own = world.reclaim

    def reclaim() -> int:
        return own() + sum(world.store.free(owner) for owner in list(world.owners)[:1])

    world.reclaim = reclaim  # type: ignore[method-assign]
    world.liveness = True
    return []


def revives_an_ended_lease(world: World) -> Names:
    """Renewal asks only whose lease it was."""
    native = world.store.native
    renew = native._renew_lease

    def planted(renewal: Any, instance: str, token: str) -> bool:
        held = native._state.leases.get(instance)
        if held is not None and held[0] == token and renewal.lease_ms > 0:
            native._state.leases[instance] = (token, renewal.now + renewal.lease_ms)
        return bool(renew(renewal, instance, token))

    native._renew_lease = planted
    return []


def takes_claims_as_they_wake(world: World) -> Names:
    """The messages of an instance that came last are taken in first."""

    def planted(self: Any, claims: list[Any]) -> None:
        with self.lock:
            for claim in claims:
                self._arrived.setdefault(claim.instance, []).insert(0, claim)

    return [(leases.Holdings, "arrived", planted)]


def starts_work_again_that_is_here(world: World) -> Names:
    """An activity whose lease ended by a clock that jumped is started beside itself, and the first is told nothing."""

    def planted(self: Any, jobs: list[Any]) -> list[Any]:
        for job in jobs:
            self.jobs.pop((job.instance, job.execution_id, job.activity_id), None)
        return hold(self, jobs)

    hold = leases.Holdings.hold
    return [(leases.Holdings, "hold", planted)]


def calls_nobody(world: World) -> Names:
    """A result that came in wakes no loop: it is found when somebody looks by chance."""
    return [(leases.Holdings, "finished", _silent(leases.Holdings.finished))]


def _silent(finished: Callable[..., None]) -> Callable[..., None]:
    def planted(self: Any, *arguments: Any) -> None:
        poke, self.poke = self.poke, lambda: None
        finished(self, *arguments)
        self.poke = poke

    return planted


BUGS: dict[str, Callable[[World], Names]] = {
    bug.__name__: bug
    for bug in (
        ignores_a_lost_lease, ignores_a_lost_activity, delivers_twice, drops_a_message, trusts_a_stale_cache,
        keeps_the_execution_of_a_lost_turn, frees_the_living, revives_an_ended_lease, takes_claims_as_they_wake,
        starts_work_again_that_is_here, calls_nobody,
    )
}  # fmt: skip


# Bugs that need a certain mixture: programs, and what goes wrong.
RARE: dict[str | None, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "takes_claims_as_they_wake": (("drain", "queue"), ("slow",)),
    "starts_work_again_that_is_here": (("cancelled", "loser"), ("jump",)),
}


def planted(world: World, bug: str | None) -> AbstractContextManager[None]:
    return replaced(BUGS[bug](world) if bug else [])
