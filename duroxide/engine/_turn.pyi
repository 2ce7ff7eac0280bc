from typing import Any

from duroxide.storage.base import ClaimedTurn

class WorkResult:
    instance: str
    execution_id: int
    activity_id: int
    ok: bool
    payload: str
    row_id: int
    token: str
    def __init__(
        self, instance: str, execution_id: int, activity_id: int, ok: bool, payload: str, row_id: int, token: str
    ) -> None: ...

class Turn:
    instance: str
    lease: str
    execution: Any
    messages: list[tuple[int, str, int]]
    results: list[WorkResult]
    attempt: int
    name: str | None
    version: str | None
    status: str | None
    execution_id: int
    last_event_id: int
    def __init__(self, claim: ClaimedTurn | None, instance: str, lease: str, execution: Any = None) -> None: ...
