from collections.abc import Callable
from typing import Any, Protocol, type_check_only

from duroxide.engine._execution import Execution as Execution
from duroxide.engine._turn import Turn
from duroxide.storage.base import Loaded, TurnBack, TurnDone

@type_check_only
class Environment(Protocol):
    """What a turn asks of its runtime."""

    max_attempts: int
    def resolve(self, name: str, version: str | None) -> tuple[str, Callable[..., Any]] | None: ...
    def context(self, execution: Execution) -> Any: ...
    def parent_execution(self, instance: str) -> int: ...
    def guid(self) -> str: ...

class Ran:
    done: TurnDone | None
    back: TurnBack | None
    execution: Execution | None
    outcome: str
    category: str | None
    error: str | None
    started: bool
    warnings: list[str]
    def __init__(self, done: TurnDone | None = None, back: TurnBack | None = None, outcome: str = "continue") -> None: ...

def needs_load(turn: Turn) -> bool: ...
def run_turn(turn: Turn, loaded: Loaded | None, env: Environment, now_ms: int) -> Ran: ...
