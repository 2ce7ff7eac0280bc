"""One trial: workers on one file that die where they are told, until one gets to the end; the test's own process sends and checks.

Owns what must hold after every death and at the end. `Wrong` says what does not.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from faults import scenario

import duroxide
from duroxide.storage.sqlite import open_sqlite

HERE = Path(__file__).resolve().parent
Histories = dict[tuple[str, int], list[tuple[int, str]]]


class Wrong(AssertionError):
    pass


class Zygote:
    """The process that makes workers; it has imported everything already."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, **job: Any) -> int:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return int(json.loads(self.process.stdout.readline()))

    def close(self) -> str:
        """Ends it; what its workers wrote to stderr."""
        return self.process.communicate()[1]


class Sender(threading.Thread):
    """The outside world: it never dies, sends each thing once, and only when somebody waits for it."""

    def __init__(self, native: Any) -> None:
        super().__init__(daemon=True)
        self.native = native
        self.client = duroxide.Client(native)
        self.ended = threading.Event()

    def waiting(self, instance: str, event: str) -> bool:
        row = self.native.load(instance)
        return row is not None and any(f'"type":"{event}"' in text for _, text in row.events)

    def run(self) -> None:
        todo = {"event": self.send_event, "queue": self.send_messages, "cancelled": self.cancel}
        while todo and not self.ended.wait(0.003):
            for instance in [name for name, send in todo.items() if send()]:
                del todo[instance]

    def send_event(self) -> bool:
        if self.waiting("event", "ExternalSubscribed"):
            self.client.raise_event("event", "go", {"from": "outside"})
            return True
        return False

    def send_messages(self) -> bool:
        if self.waiting("queue", "OrchestrationStarted"):
            for n in range(4):
                self.client.enqueue_event("queue", "inbox", n)
            return True
        return False

    def cancel(self) -> bool:
        if self.waiting("cancelled", "TimerCreated"):
            self.client.cancel_instance("cancelled", "not needed")
            return True
        return False


class Trial:
    """`kills`: the commit point at which the first worker dies, the second, ...; the next one lives."""

    def __init__(self, zygote: Zygote, directory: Path, implementation: str, bug: str | None = None) -> None:
        directory.mkdir()
        self.zygote, self.bug, self.implementation = zygote, bug, implementation
        self.path, self.ledger = str(directory / "trial.db"), directory / "ledger"
        self.ledger.touch()
        self.deaths = 0

    def run(self, kills: list[int]) -> int:
        """How many of the kills were reached. Raises Wrong."""
        native = open_sqlite(self.path, synchronous="normal")
        sender = Sender(native)
        sender.start()
        try:
            before: Histories = {}
            for kill_at in [*kills, 0]:
                ran = self.calls()
                status = self.zygote.run(
                    path=self.path, ledger=str(self.ledger), implementation=self.implementation, kill_at=kill_at, bug=self.bug
                )
                after = self.histories(native)
                self.check_step(before, after, ran)
                before = after
                if status == 0:
                    break
                if status != -9:
                    raise Wrong(f"a worker ended with {status}")
                self.deaths += 1
            self.check_end(native, after)
            return self.deaths
        finally:
            sender.ended.set()
            sender.join()
            native.close()

    # ── what is there ──

    def histories(self, native: Any) -> Histories:
        return {(i, n): native.load(i, n).events for i in native.instances() for n in native.executions(i)}

    def calls(self) -> Counter[str]:
        return Counter(self.ledger.read_text().splitlines())

    # ── what must hold ──

    def check_step(self, before: Histories, after: Histories, ran: Counter[str]) -> None:
        """Nothing that was stored is lost or changed; what had a result does not run again (unless it is asked for again: retries)."""
        for key, events in before.items():
            if after.get(key, [])[: len(events)] != events:
                raise Wrong(f"history of {key} changed: it was {events}, it is {after.get(key)}")
        for call, count in (self.calls() - ran).items():
            instance, execution, name, value = json.loads(call)
            if name != "flaky" and results(before.get((instance, execution), []), name, value) and ran[call]:
                raise Wrong(f"{call} has a stored result and ran again ({count} times)")

    def check_end(self, native: Any, found: Histories) -> None:
        client = duroxide.Client(native)
        for instance, (status, output) in scenario.EXPECTED.items():
            result = client.get_status(instance)
            ending = (result.error or "").strip().endswith(str(output)) if status == "Failed" else result.output == output
            if result.status != status or not ending:
                raise Wrong(f"{instance}: expected {status} {output!r}, found {result}")
        for (instance, execution), events in found.items():
            self.check_history(instance, execution, events)
        self.check_ledger(found)
        self.check_rest(native)

    def check_history(self, instance: str, execution: int, events: list[tuple[int, str]]) -> None:
        """Dense ids; every schedule completed once at most."""
        if [id for id, _ in events] != list(range(1, len(events) + 1)):
            raise Wrong(f"{instance}#{execution}: ids {[id for id, _ in events]}")
        done = Counter(e["source_event_id"] for e in map(json.loads, (t for _, t in events)) if e["type"] in COMPLETIONS)
        if done and max(done.values()) > 1:
            raise Wrong(f"{instance}#{execution}: completed twice: {done}")
        if instance == "queue" and sum('"ExternalEventPersistent"' in text for _, text in events) > 4:
            raise Wrong(f"{instance}#{execution}: a message was delivered twice")

    def check_ledger(self, found: Histories) -> None:
        """Every result in history comes from a call; no call ran more often than workers lived."""
        calls = self.calls()
        for (instance, execution), events in found.items():
            for text in (t for _, t in events if '"type":"ActivityScheduled"' in t):
                event = json.loads(text)
                call = json.dumps([instance, execution, event["name"], json.loads(event["input"] or "null")])
                if not event["name"].startswith("__") and not calls[call]:
                    raise Wrong(f"{call} has a history but was never called")
        for call, count in calls.items():
            if count > self.deaths + (3 if '"flaky"' in call else 1):
                raise Wrong(f"{call} ran {count} times with {self.deaths} deaths")

    def check_rest(self, native: Any) -> None:
        """Nothing is left to do but the timers of the losers."""
        deadline = time.monotonic() + 5
        while True:
            depths = native.queue_depths(0)
            if depths["worker_queue"] == 0:
                return
            if time.monotonic() > deadline:
                raise Wrong(f"work is left: {depths}")
            time.sleep(0.01)


COMPLETIONS = ("ActivityCompleted", "ActivityFailed", "TimerFired", "SubOrchestrationCompleted", "SubOrchestrationFailed")


def results(events: list[tuple[int, str]], name: str, value: Any) -> bool:
    """Whether each activity `name(value)` that these events schedule has its result in them."""
    decoded = [json.loads(text) for _, text in events]
    wanted = {e["event_id"] for e in decoded if e["type"] == "ActivityScheduled" and (e["name"], e["input"]) == (name, json.dumps(value))}
    done = {e["source_event_id"] for e in decoded if e["type"] in COMPLETIONS}
    return bool(wanted) and wanted <= done
