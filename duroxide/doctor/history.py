"""The events of one execution, one after the other: are they a history, and what do they leave open?

Owns what may follow what. Keeps only what is open and what was set; events stream by.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from duroxide.doctor.findings import Finding
from duroxide.events import KINDS, display

ENDS = {"OrchestrationCompleted": "Completed", "OrchestrationFailed": "Failed", "OrchestrationContinuedAsNew": "ContinuedAsNew"}
OPENS = ("ActivityScheduled", "TimerCreated", "SubOrchestrationScheduled")
ANSWERS = {
    "ActivityCompleted": "ActivityScheduled", "ActivityFailed": "ActivityScheduled", "TimerFired": "TimerCreated",
    "SubOrchestrationCompleted": "SubOrchestrationScheduled", "SubOrchestrationFailed": "SubOrchestrationScheduled",
}  # fmt: skip
DROPS = {
    "ActivityCancelRequested": "ActivityScheduled", "SubOrchestrationCancelRequested": "SubOrchestrationScheduled",
    "ExternalSubscribedCancelled": "ExternalSubscribed", "ExternalSubscribedPersistentCancelled": "ExternalSubscribedPersistent",
}  # fmt: skip
WAITS = ("ExternalSubscribed", "ExternalSubscribedPersistent")
# The reference gives the end of an execution that it could not read this id.
UNREADABLE_END = 99_999
CUT = 120


class History:
    """Fed with the rows of one execution (`add`), it yields what is wrong with them and knows what they leave open.

    `open`: {schedule id: (type, event)} without answer or drop; `waits`: subscriptions that nobody dropped; `sets`: {key: value or None
    where it was cleared}, `cleared`: everything before was cleared too; `status`: [the last custom status set], if any was.
    """

    def __init__(self, instance: str, execution: Any) -> None:
        self.instance: str = instance
        self.execution: Any = execution
        self.last: Any = 0
        self.readable: bool = True
        self.started: dict[str, Any] | None = None
        self.end: dict[str, Any] | None = None
        self.open: dict[int, tuple[str, dict[str, Any]]] = {}
        self.kinds: dict[int, str] = {}
        self.answered: set[int] = set()
        self.dropped: set[int] = set()
        self.waits: set[int] = set()
        self.sets: dict[str, str | None] = {}
        self.cleared: bool = False
        self.status: list[str | None] = []

    def wrong(self, rule: str, row: Any, found: str) -> Finding:
        return Finding(rule, self.instance, "history", f"{self.execution}/{row}", found)

    def add(self, id: Any, type: Any, text: Any) -> Iterator[Finding]:
        if not isinstance(id, int):
            self.readable = False
            yield self.wrong("row-type", id, f"its event_id is no whole number: {id!r:.{CUT}}")
            return
        if id != self.last + 1 and not (id == UNREADABLE_END and not self.readable):
            yield self.wrong("event-ids", id, f"event {id} follows event {self.last}")
        self.last = id
        event = self._read(text)
        if isinstance(event, str):
            self.readable = False
            yield self.wrong("event-unreadable", id, event)
            return
        yield from self._envelope(id, type, event)
        try:
            yield from self._take(id, event["type"], event)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            self.readable = False
            yield self.wrong("event-unreadable", id, f"a field is missing or of another kind: {error.__class__.__name__}: {error}")

    @staticmethod
    def _read(text: Any) -> dict[str, Any] | str:
        """The event, or what is wrong with its text."""
        try:
            text.encode()
            event = json.loads(text)
            if event["type"] not in KINDS:
                return f"no kind that this package knows: {event['type']!r:.{CUT}}"
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return f"no event: {error.__class__.__name__}: {error}"
        return event if isinstance(event, dict) else "no event"

    def _envelope(self, id: int, type: Any, event: dict[str, Any]) -> Iterator[Finding]:
        said = event.get("event_id"), event.get("instance_id"), event.get("execution_id")
        if said != (id, self.instance, self.execution) and said != (id, "", 0):  # the reference leaves these two out at times
            yield self.wrong("event-envelope", id, f"it says that it is event {said[0]!r} of {said[1]!r}, execution {said[2]!r}")
        if type not in ("Event", event["type"]):  # on PostgreSQL each is an "Event"
            yield self.wrong("event-envelope", id, f"the row says {type!r:.{CUT}}, its text {event['type']!r}")

    def _take(self, id: int, kind: str, event: dict[str, Any]) -> Iterator[Finding]:
        if (kind == "OrchestrationStarted") != (id == 1):
            yield self.wrong("event-first", id, f"event {id} is {kind}")
        if self.end is not None and kind not in DROPS:
            yield self.wrong("event-end", id, f"{kind} after the end, {self.end['type']} at event {self.end['event_id']}")
        if kind in OPENS or kind in WAITS:
            self.kinds[id] = kind
            if kind in OPENS:
                self.open[id] = kind, event
            else:
                self.waits.add(id)
        elif kind in ANSWERS or kind in DROPS:
            yield from self._answer(id, kind, event["source_event_id"])
        elif kind == "OrchestrationStarted":
            self.started = event
            if event["input"] is None or event["name"] is None:
                raise ValueError("name or input is null")
        elif kind in ENDS:
            self.end = self.end or event
        elif kind == "CustomStatusUpdated":
            self.status = [event["status"]]
        elif kind == "KeyValueSet":
            self.sets[event["key"]] = event["value"]
        elif kind == "KeyValueCleared":
            self.sets[event["key"]] = None
        elif kind == "KeyValuesCleared":
            self.sets = dict.fromkeys(self.sets)
            self.cleared = True

    def _answer(self, id: int, kind: str, source: Any) -> Iterator[Finding]:
        wanted = ANSWERS.get(kind) or DROPS[kind]
        if self.kinds.get(source) != wanted:
            yield self.wrong("event-source", id, f"{kind} of event {source!r}, which is {self.kinds.get(source, 'no such event')}, no {wanted}")
            return
        seen = self.answered if kind in ANSWERS else self.dropped
        if source in seen:
            yield self.wrong("event-source", id, f"{kind} of event {source}, which has had one")
        seen.add(source)
        self.open.pop(source, None)
        self.waits.discard(source)

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────

    def finish(self, status: Any, output: Any) -> Iterator[Finding]:
        """What the rest of the store says of this execution."""
        if self.last == 0:
            yield self.wrong("event-first", 1, "the execution has no events")
            return
        ended = "Running" if self.end is None else ENDS[self.end["type"]]
        if ended != status and self.readable:
            yield self.wrong("event-end", self.last, f"its history says {ended}, its status {status!r:.{CUT}}")
        elif self.end is not None and self.readable and output != self._output():
            yield self.wrong("output", self.last, f"the execution has {output!r:.{CUT}}, its last event {self._output()!r:.{CUT}}")

    def _output(self) -> Any:
        assert self.end is not None
        if self.end["type"] == "OrchestrationFailed":
            try:
                return display(self.end["details"])[1]
            except (KeyError, TypeError, AttributeError, ValueError, StopIteration) as error:
                return f"unreadable details: {error!r}"
        return self.end["output" if self.end["type"] == "OrchestrationCompleted" else "input"]
