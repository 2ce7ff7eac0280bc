"""Pieces of the engine, ready to be run again and again: a live execution, and a history that is replayed. For benches and the gate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from duroxide.context import OrchestrationContext
from duroxide.engine._replay import needs_load, run_turn
from duroxide.engine._turn import Turn, WorkResult
from duroxide.storage.base import ClaimedTurn, Loaded


class Environment:
    """One orchestration: first an `all` over `width` activities, if any, then a chain without an end."""

    max_attempts = 10

    def __init__(self, width: int = 0) -> None:
        self.width = width

    def chain(self, ctx: Any, _: Any) -> Any:
        if self.width:
            yield ctx.all([ctx.schedule_activity("echo", n) for n in range(self.width)])
        while True:
            yield ctx.schedule_activity("echo", 1)

    def resolve(self, name: str, version: str | None) -> tuple[str, Callable[..., Any]]:
        return "1.0.0", self.chain

    def context(self, execution: Any) -> OrchestrationContext:
        return OrchestrationContext(execution)


class Live:
    """A live execution: `step` gives it a result and takes its next activity."""

    def __init__(self, steps: int = 10, width: int = 0) -> None:
        self.env = Environment(width)
        self.events: list[tuple[int, str]] = []
        start = '{"StartOrchestration":{"instance":"i","orchestration":"chain","input":"null","version":null}}'
        self._keep(run_turn(Turn(ClaimedTurn("i", "t", [(1, start, 1)], 1, 0, 0, None, None, None), "i", "t"), None, self.env, 1_000))
        for _ in range(steps):
            self._keep(self.step())

    def _keep(self, ran: Any) -> None:
        self.events += [(id, text) for id, _, text in ran.done.events]
        self.execution, self.last = ran.execution, ran.done.events[-1][0]

    def step(self) -> Any:
        turn = Turn(None, "i", "t", self.execution)
        turn.results.append(WorkResult("i", 1, self.last, True, "1", 1, "w"))
        ran = run_turn(turn, None, self.env, 1_000)
        self.last = ran.done.events[-1][0]
        return ran


class Cold:
    """A history of `steps` finished steps, or of an `all` over `width`, and a result that it waits for: `replay` decodes and replays it."""

    def __init__(self, steps: int, width: int = 0) -> None:
        live = Live(steps, width)
        self.env, self.events = live.env, live.events
        self.message = f'{{"ActivityCompleted":{{"instance":"i","execution_id":1,"id":{live.last},"result":"1"}}}}'
        self.loaded = Loaded("i", 1, "chain", "1.0.0", "Running", None, None, None, 0, self.events, {}, {})

    def replay(self) -> None:
        claim = ClaimedTurn("i", "t", [(1, self.message, 1)], 1, 1, self.events[-1][0], "chain", "1.0.0", "Running")
        turn = Turn(claim, "i", "t")
        assert needs_load(turn)
        run_turn(turn, self.loaded, self.env, 1_000).execution.close()
