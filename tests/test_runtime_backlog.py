"""A runtime takes no more than it can run next: what waits in its memory is leased away from others, and run again after a kill."""

from __future__ import annotations

from typing import Any

from runtime_rig import Rig

from duroxide.runtime.loop import TURNS
from duroxide.runtime.workers import MOST_HELD
from duroxide.storage.base import Request, Taken
from duroxide.storage.memory import MemoryStore


class Counting(MemoryStore):
    """Notes the most instances that were leased after any exchange."""

    most_leases = 0

    def exchange(self, requests: list[Request]) -> list[Taken]:  # type: ignore[override]
        taken = super().exchange(requests)
        self.most_leases = max(self.most_leases, len(self._state.leases))
        return taken


def two(ctx: Any, n: int) -> Any:
    first = yield ctx.schedule_activity("echo", n)
    return (yield ctx.schedule_activity("echo", first))


def test_a_backlog_stays_in_the_store() -> None:
    """Each claim of 48 gave 48 results beside the next 48 claims: the heap of uncommitted results grew with the backlog."""
    rig = Rig(Counting())
    try:
        rig.client.start_orchestrations([(f"i{n}", "two", n) for n in range(3_000)])
        runtime = rig.runtime(two)
        loops = len(runtime._engine.loops)
        assert [rig.wait(f"i{n}").output for n in range(3_000)] == list(range(3_000))
        assert rig.native.most_leases <= MOST_HELD + 2 * TURNS * (loops + 1)
    finally:
        rig.close()
