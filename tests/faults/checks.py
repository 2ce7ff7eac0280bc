"""What must hold of a store, whatever happened to it. `Wrong` says what does not."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from faults import scenario
from faults.story import Histories

import duroxide

COMPLETIONS = ("ActivityCompleted", "ActivityFailed", "TimerFired", "SubOrchestrationCompleted", "SubOrchestrationFailed")


class Wrong(AssertionError):
    pass


def histories(native: Any) -> Histories:
    return {(i, n): native.load(i, n).events for i in native.instances() for n in native.executions(i)}


def check_outcomes(client: duroxide.Client) -> None:
    """Of the scenario."""
    for instance, (status, output) in scenario.EXPECTED.items():
        result = client.get_status(instance)
        ending = (result.error or "").strip().endswith(str(output)) if status == "Failed" else result.output == output
        if result.status != status or not ending:
            raise Wrong(f"{instance}: expected {status} {output!r}, found {result}")


def check_history(instance: str, execution: int, events: list[tuple[int, str]]) -> None:
    """Dense ids; every schedule completed once at most."""
    if [id for id, _ in events] != list(range(1, len(events) + 1)):
        raise Wrong(f"{instance}#{execution}: ids {[id for id, _ in events]}")
    done = Counter(e["source_event_id"] for e in map(json.loads, (t for _, t in events)) if e["type"] in COMPLETIONS)
    if done and max(done.values()) > 1:
        raise Wrong(f"{instance}#{execution}: completed twice: {done}")


def results(events: list[tuple[int, str]], name: str, value: Any) -> bool:
    """Whether each activity `name(value)` that these events schedule has its result in them."""
    decoded = [json.loads(text) for _, text in events]
    wanted = {e["event_id"] for e in decoded if e["type"] == "ActivityScheduled" and (e["name"], e["input"]) == (name, json.dumps(value))}
    done = {e["source_event_id"] for e in decoded if e["type"] in COMPLETIONS}
    return bool(wanted) and wanted <= done
