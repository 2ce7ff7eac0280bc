"""What must hold of a ledger and its store after any chaos, and a watch that reads what was acknowledged again and again.

Refuses to know how the chaos was made: the ledger says who was killed and who stood still; `reruns.py` has what that excuses.
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from typing import Any

from faults.checks import Wrong, check_history
from ledger.bank import Line
from ledger.reruns import check_reruns

ENDS = ("OrchestrationCompleted", "OrchestrationFailed")


def check(lines: list[Line], native: Any, lease_s: float) -> None:
    """After everything has ended. Raises Wrong."""
    told = [line for line in lines if line["kind"] == "told"]
    histories = {line["instance"]: events_of(native, line["instance"]) for line in told}
    for instance in list(histories):
        for event in histories[instance]:
            if event["type"] == "SubOrchestrationScheduled":
                child = event["instance"] if event["instance"].startswith(instance) else f"{instance}::{event['instance']}"
                histories[child] = events_of(native, child)
    for line in told:
        check_end(line["instance"], native, histories[line["instance"]])
    for line in (line for line in lines if line["kind"] == "ended"):
        if (found := json.loads(native.load(line["instance"], None).output)) != line["output"]:
            raise Wrong(f"{line['instance']} had the result {line['output']}, now it is {found}")
    check_results(lines, histories)
    check_money(lines, told, native)
    check_slips(lines, histories)
    check_reruns(lines, lease_s)


def events_of(native: Any, instance: str) -> list[dict[str, Any]]:
    """Of all executions."""
    found = []
    for execution in native.executions(instance):
        events = native.load(instance, execution).events
        check_history(instance, execution, events)
        found += [json.loads(text) for _, text in events]
    return found


def check_end(instance: str, native: Any, events: list[dict[str, Any]]) -> None:
    """An acknowledged start ends once."""
    row = native.load(instance, None)
    if row is None or row.status != "Completed":
        raise Wrong(f"{instance} was started and is {row and (row.status, row.output)}")
    ends = [event for event in events if event["type"] in ENDS]
    if len(ends) != 1:
        raise Wrong(f"{instance} ended {len(ends)} times")


def check_results(lines: list[Line], histories: dict[str, list[dict[str, Any]]]) -> None:
    """Each result in history was said by a call that the ledger has, of that very activity."""
    calls = {line["call"]: (line["key"], line["step"]) for line in lines if line["kind"] == "ran"}
    for instance, events in histories.items():
        asked: dict[int, Any] = {}
        for event in events:
            if event["type"] == "OrchestrationStarted":
                asked = {}  # of another execution
            elif event["type"] == "ActivityScheduled" and event["name"] in ("move", "slow"):
                asked[event["event_id"]] = (event["name"], json.loads(event["input"]))
            elif event["type"] == "ActivityCompleted" and event["source_event_id"] in asked:
                name, given = asked[event["source_event_id"]]
                wanted = (given, "slow") if name == "slow" else tuple(given[:2])
                call = json.loads(event["result"])
                if calls.get(call) != wanted:
                    raise Wrong(f"{instance}: {wanted} has the result {call}, in the ledger that is {calls.get(call)}")


def check_money(lines: list[Line], told: list[Line], native: Any) -> None:
    """Each transfer took once, and gave once or gave back once; what is done again under the same key counts once."""
    moved: dict[str, dict[str, tuple[str, int]]] = defaultdict(dict)
    for line in lines:
        if line["kind"] == "ran" and line["step"] in ("debit", "credit", "refund"):
            move = line["account"], line["amount"]
            if moved[line["key"]].setdefault(line["step"], move) != move:
                raise Wrong(f"{line['instance']}: {line['step']} was {moved[line['key']][line['step']]}, then {move}")
    for line in told:
        if line["story"] == "transfer":
            end, key, *_ = json.loads(native.load(line["instance"], None).output)
            source, target, amount, fails = line["given"]
            back = {"refund": (source, amount)} if fails else {"credit": (target, amount)}
            steps, wanted = moved.pop(key, {}), {"debit": (source, -amount), **back}
            if end != ("refunded" if fails else "moved") or steps != wanted:
                raise Wrong(f"{line['instance']}: {end}, but the ledger has {steps} in the place of {wanted}")
    if moved:
        raise Wrong(f"money was moved for nobody: {dict(moved)}")


def check_slips(lines: list[Line], histories: dict[str, list[dict[str, Any]]]) -> None:
    """Each message that was acknowledged was taken once."""
    taken = Counter(
        json.loads(event["input"])[0]
        for instance, events in histories.items() if instance.startswith("till")
        for event in events if event["type"] == "ActivityScheduled"
    )  # fmt: skip
    for slip in (line["slip"] for line in lines if line["kind"] == "heard"):
        if taken[slip] != 1:
            raise Wrong(f"slip {slip} was taken {taken[slip]} times")


class Watch:
    """What was read once must be read again for ever: events of any execution, and how an instance ended."""

    def __init__(self, native: Any, lots: random.Random) -> None:
        self.native, self.lots = native, lots
        self.events: dict[tuple[str, int], list[tuple[int, str]]] = {}
        self.ends: dict[str, tuple[str, str]] = {}
        self.looks = 0

    def look(self, instance: str) -> None:
        for execution in self.native.executions(instance):
            row = self.native.load(instance, execution)
            before = self.events.get((instance, execution), [])
            if row.events[: len(before)] != before:
                raise Wrong(f"history of {instance}#{execution} changed: it was {before}, it is {row.events}")
            self.events[instance, execution] = row.events
        row = self.native.load(instance, None)
        end = (row.status, row.output) if row is not None and row.status in ("Completed", "Failed") else None
        if self.ends.get(instance, end) != end:
            raise Wrong(f"{instance} had ended with {self.ends[instance]}, now it is {end}")
        if end is not None:
            self.ends[instance] = end
        self.looks += 1

    def look_around(self, instances: list[str], most: int = 20) -> None:
        for instance in self.lots.sample(instances, min(most, len(instances))):
            self.look(instance)
