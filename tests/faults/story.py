"""What a history says, apart from when: to compare a run that was killed with one that was not.

Owns which differences do not count: times, guids, event ids where members of a fan finished in another order, attempts that were
made again, and in which turn a queue's message arrived.
"""

from __future__ import annotations

import json
import re
from typing import Any

Histories = dict[tuple[str, int], list[tuple[int, str]]]

_GUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"\b[12]\d{12}\b")
_RETRIED = ('"flaky"', "'call' call failed: StoreError")  # how often these failed hangs on whose calls died with them, or met a fault
_OWN = ("event_id", "timestamp_ms", "source_event_id", "carry_forward_events")


def plain(text: str) -> str:
    return _TIME.sub("<ms>", _GUID.sub("<guid>", text))


def story(events: list[tuple[int, str]]) -> list[str]:
    """Each event with what it answers, in an order that does not hang on who was first."""
    decoded: list[dict[str, Any]] = [json.loads(text) for _, text in events]
    said = {e["event_id"]: plain(json.dumps({k: v for k, v in e.items() if k not in _OWN})) for e in decoded}
    lines = [
        said[e["event_id"]] + (" <- " + said[e["source_event_id"]] if e.get("source_event_id") in said else "")
        for e in decoded
        if e["type"] != "ExternalEventPersistent"
    ]
    if any(retried in line for line in lines for retried in _RETRIED):
        lines = list({line for line in lines if not any(kind in line for kind in ("TimerCreated", "TimerFired", '"ActivityFailed"'))})
    return sorted(lines)


def stories(found: Histories) -> dict[tuple[str, int], list[str]]:
    return {key: story(events) for key, events in found.items()}
