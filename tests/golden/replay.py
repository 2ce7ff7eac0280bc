"""A recorded execution, cut into its turns and fed to the engine again, a turn at a time.

Owns the way back from stored events to the messages that caused them. Everything is pure: no store, no clock, no activities.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from duroxide import events as texts
from duroxide.context import OrchestrationContext
from duroxide.engine._replay import Ran, needs_load, run_turn
from duroxide.engine._turn import Turn
from duroxide.storage.base import ClaimedTurn, Loaded

from . import compare

NOW = 1_700_000_000_000
ARRIVALS = (*compare.COMPLETIONS, "ExternalEvent", "ExternalEventPersistent", "OrchestrationCancelRequested")
IN_TURN = ("new_guid", "utc_now_ms")  # system calls that need no worker here: their result stands in the turn that asked
Stored = dict[str, Any]


class Environment:
    """What the engine asks of its runtime; `functions` maps (name, version) to an orchestration."""

    max_attempts = 10

    def __init__(self, functions: dict[tuple[str, str], Any]) -> None:
        self.functions = functions
        self._guids = 0

    def resolve(self, name: str, version: str | None) -> tuple[str, Any] | None:
        found = self.functions.get((name, version or ""))
        return None if found is None else (version or "", found)

    def context(self, execution: Any) -> OrchestrationContext:
        return OrchestrationContext(execution)

    def parent_execution(self, instance: str) -> int:
        return 1

    def guid(self) -> str:
        self._guids += 1
        return f"00000000-0000-4000-8000-{self._guids:012d}"


class Execution:
    """One recorded execution of one instance. `row` is the instance's recording, `number` the execution."""

    def __init__(self, instance: str, row: dict[str, Any], number: int, functions: dict[tuple[str, str], Any]) -> None:
        self.instance, self.row, self.number = instance, row, number
        self.events: list[Stored] = row["executions"][number]
        self.started = self.events[0]
        self.env = Environment(functions)
        self.write: Callable[[Stored], str] = texts.compact  # an event as the store has it

    # ── cutting ──

    def turns(self) -> list[tuple[int, int]]:
        """(first, end) positions: a turn begins where something arrives after commands."""
        starts = [n for n in range(1, len(self.events)) if self._arrived(n) and not self._arrived(n - 1) and n > self._carried]
        bounds = [0, *starts, len(self.events)]
        cuts = [(a, b) for a, b in zip(bounds, bounds[1:])]
        merged = [cuts[0]]
        for a, b in cuts[1:]:
            if self._resolved_in_turn(a):
                merged[-1] = (merged[-1][0], b)
            else:
                merged.append((a, b))
        return merged

    @property
    def _carried(self) -> int:
        return len(self.started.get("carry_forward_events") or ())

    def _arrived(self, n: int) -> bool:
        return n == 0 or self.events[n]["type"] in ARRIVALS

    def _resolved_in_turn(self, n: int) -> bool:
        asked = next((e for e in self.events if e["event_id"] == self.events[n].get("source_event_id")), {})
        return str(asked.get("name", "")).removeprefix(compare.SYSCALL) in IN_TURN and "input" in asked

    # ── back to messages ──

    def messages(self, first: int, end: int) -> list[str]:
        found = []
        for n in range(first, end):
            if n == 0:
                found.append(self._start())
            elif n > self._carried and self._arrived(n) and not self._resolved_in_turn(n):
                found.append(self._message(self.events[n]))
        return found

    @property
    def _parent(self) -> tuple[str, int, int] | None:
        s = self.started
        return None if s["parent_instance"] is None else (s["parent_instance"], s["parent_id"], s.get("parent_execution_id", 1))

    def _start(self) -> str:
        s = self.started
        if self.number == 1:
            return texts.child_start_item(self.instance, s["name"], s["input"], s["version"], self._parent)
        carried = [(name, data) for name, data in s.get("carry_forward_events") or ()]
        status = s.get("initial_custom_status")
        return texts.continue_item(self.instance, s["name"], s["input"], s["version"], self._parent, carried, status)

    def _message(self, e: Stored) -> str:
        i, x, source = self.instance, self.number, e.get("source_event_id")
        kind = e["type"]
        if kind == "ActivityCompleted":
            return texts.activity_completed_item(i, x, source, e["result"])
        if kind == "ActivityFailed":
            return texts.activity_failed_item(i, x, source, json.dumps(e["details"]))
        if kind == "TimerFired":
            return texts.timer_item(i, x, source, e["fire_at_ms"])
        if kind == "SubOrchestrationCompleted":
            return texts.child_completed_item((i, source, x), e["result"])
        if kind == "SubOrchestrationFailed":
            return texts.child_failed_item((i, source, x), json.dumps(e["details"]))
        if kind == "ExternalEvent":
            return texts.external_item(i, e["name"], e["data"])
        if kind == "ExternalEventPersistent":
            return texts.queue_item(i, e["name"], e["data"])
        return texts.cancel_item(i, e["reason"])

    # ── the state of the store at a cut ──

    def loaded(self, end: int) -> Loaded:
        """The instance as a store has it after `end` events of this execution."""
        custom: tuple[str | None, int] = (None, 0)
        kv: dict[str, tuple[str, int]] = {}
        delta: dict[str, tuple[str | None, int]] = {}
        for number in range(1, self.number + 1):
            delta = {}
            for e in self.row["executions"][number][: end if number == self.number else None]:
                if e["type"] == "CustomStatusUpdated":
                    custom = (e["status"], custom[1] + 1)
                elif e["type"] == "KeyValueSet":
                    delta[e["key"]] = (e["value"], e["last_updated_at_ms"])
                elif e["type"] == "KeyValueCleared":
                    delta[e["key"]] = (None, e["timestamp_ms"])
                elif e["type"] == "KeyValuesCleared":
                    delta = dict.fromkeys((*kv, *delta), (None, e["timestamp_ms"]))
            if number < self.number:
                kv = {k: v for k, v in {**kv, **delta}.items() if v[0] is not None}  # type: ignore[misc]
        s = self.started
        stored = [(e["event_id"], self.write(e)) for e in self.events[:end]]
        return Loaded(
            self.instance, self.number, s["name"], s["version"], "Running", None, s["parent_instance"], custom[0], custom[1],
            stored, kv, delta,
        )  # fmt: skip

    # ── running ──

    def run(self, first: int, end: int, live: Any = None, extra: tuple[str, ...] = ()) -> Ran:
        """The turn that stored events `first` to `end`, from what a store holds, or with the execution kept from the turn before."""
        s = self.started
        messages = [(n + 1, text, 1) for n, text in enumerate([*self.messages(first, end), *extra])]
        if first:
            claim = ClaimedTurn(self.instance, "lease", messages, 1, self.number, first, s["name"], s["version"], "Running")
        elif self.number > 1:
            before = self.row["executions"][self.number - 1]
            claim = ClaimedTurn(
                self.instance, "lease", messages, 1, self.number - 1, len(before), s["name"], s["version"], "ContinuedAsNew"
            )
        else:
            claim = ClaimedTurn(self.instance, "lease", messages, 1, 0, 0, None, None, None)
        turn = Turn(claim, self.instance, "lease", live)
        loaded = self._load(first) if needs_load(turn) else None
        return run_turn(turn, loaded, self.env, NOW)

    def _load(self, first: int) -> Loaded | None:
        if first:
            return self.loaded(first)
        if self.number == 1:
            return None
        before = Execution(self.instance, self.row, self.number - 1, self.env.functions)
        ended = before.loaded(len(before.events))
        ended.status = "ContinuedAsNew"
        ended.kv = {k: v for k, v in {**ended.kv, **ended.kv_delta}.items() if v[0] is not None}  # type: ignore[misc]
        ended.kv_delta = {}
        return ended

    def expected(self, first: int, end: int) -> list[dict[str, Any]]:
        return compare.events(self.events[:end])[first:]

    def found(self, ran: Ran, first: int) -> list[dict[str, Any]]:
        new = [json.loads(text) for _, _, text in ran.done.events] if ran.done is not None else []
        return compare.events(self.events[:first] + new)[first:]
