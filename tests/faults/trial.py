"""One trial: workers on one file that die where they are told, until one gets to the end.

Owns what must hold after every death and at the end of all lives (`checks`: at any time).
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from doctored import healthy
from faults import scenario
from faults.checks import Wrong, check_history, check_outcomes, histories, results
from faults.stepped import LIFE_MS, START_MS
from faults.story import Histories, stories

import duroxide
from duroxide.storage.sqlite import open_sqlite

HERE = Path(__file__).resolve().parent
PATIENCE_S = 20.0


class Zygote:
    """The process that makes workers; it has imported everything already."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py"), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
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
    """The outside world of workers with threads: it never dies, and does each act once."""

    def __init__(self, native: Any, journal: Path) -> None:
        super().__init__(daemon=True)
        self.native, self.journal = native, journal
        self.client = duroxide.Client(native)
        self.ended = threading.Event()

    def run(self) -> None:
        todo = list(scenario.ACTS)
        with self.journal.open("a") as journal:
            while todo and not self.ended.wait(0.003):
                early: set[str] = set()  # whose next one is not due: what comes after that waits, whatever happened meanwhile
                for act in list(todo):
                    if act.receiver in early or not act.due(self.native):
                        early |= {act.receiver} - {""}
                        continue
                    print("begin", act.name, file=journal, flush=True)
                    act.do(self.client)
                    print("heard", act.name, file=journal, flush=True)
                    todo.remove(act)


class Trial:
    """`kills`: the commit point at which the first worker dies, the second, ...; the next one lives."""

    def __init__(self, zygote: Zygote, directory: Path, implementation: str, mode: str = "steps", bug: str | None = None) -> None:
        self.zygote, self.directory, self.implementation, self.mode, self.bug = zygote, directory, implementation, mode, bug
        self.path, self.ledger = str(directory / "trial.db"), directory / "ledger"
        self.journal = directory / "ledger.acts"
        self.deaths = 0
        self.before: Histories = {}
        self.sender: Sender | None = None
        if not directory.exists():
            directory.mkdir()
            self.ledger.touch()
            self.journal.touch()

    def run(self, kills: list[int]) -> int:
        """How many of the kills were reached. Raises Wrong."""
        if self.mode != "threads":
            return self._run(kills)
        with self.opened() as native:
            self.sender = Sender(native, self.journal)
            self.sender.start()
            try:
                return self._run(kills)
            finally:
                self.sender.ended.set()
                self.sender.join()

    def _run(self, kills: list[int]) -> int:
        for kill_at in [*kills, 0]:
            if self.life(kill_at):
                break
        self.check_end()
        return self.deaths

    def life(self, kill_at: int) -> bool:
        """One worker's; True if it got to the end."""
        ran = self.calls()
        status = self.zygote.run(
            path=self.path, ledger=str(self.ledger), implementation=self.implementation, kill_at=kill_at, bug=self.bug,
            life=self.deaths, mode=self.mode,
        )  # fmt: skip
        if status not in (0, -9):
            raise Wrong(f"a worker ended with {status}")
        if status == 0 and self.sender is not None:
            self.sender.join(PATIENCE_S)  # what is left to do, such as the last removal, is done before anybody looks
        heard = self.acts("heard")
        after = self.histories()
        self.check_health(None if self.mode == "threads" else START_MS + self.deaths * LIFE_MS)
        self.check_step(self.before, after, ran, heard)
        self.before = after
        self.deaths += status != 0
        return status == 0

    def copy(self, directory: Path) -> Trial:
        """The same at this moment, to go on in another way."""
        shutil.copytree(self.directory, directory)
        other = Trial(self.zygote, directory, self.implementation, self.mode, self.bug)
        other.deaths, other.before = self.deaths, self.before
        return other

    # ── what is there ──

    @contextlib.contextmanager
    def opened(self) -> Iterator[Any]:
        """A provider of what the workers work on."""
        native = open_sqlite(self.path, synchronous="normal")
        try:
            yield native
        finally:
            native.close()

    def histories(self) -> Histories:
        with self.opened() as native:
            return histories(native)

    def calls(self) -> Counter[str]:
        return Counter(self.ledger.read_text().splitlines())

    def acts(self, state: str) -> Counter[str]:
        """How often each act was begun, or heard of."""
        return Counter(line.split(" ", 1)[1] for line in self.journal.read_text().splitlines() if line.startswith(state))

    def removed(self) -> set[tuple[str, int]]:
        """Executions that may be gone, because somebody began to remove them."""
        begun = self.acts("begin")
        doomed = {("doomed", 1)} if begun["delete"] else set()
        return doomed | ({("pruned", 1), ("pruned", 2)} if begun["prune"] else set())

    # ── what must hold ──

    def check_health(self, now: int | None) -> None:
        """By the worker's clock: a stepped one is years ahead."""
        healthy(self.path, now=now, wrong=Wrong)

    def check_step(self, before: Histories, after: Histories, ran: Counter[str], heard: Counter[str]) -> None:
        """Nothing that was stored is lost or changed; what had a result does not run again (unless it is asked for again: retries)."""
        for key, events in before.items():
            if after.get(key, [])[: len(events)] != events and not (key not in after and key in self.removed()):
                raise Wrong(f"history of {key} changed: it was {events}, it is {after.get(key)}")
        for key in self.removed() & after.keys():
            if heard["delete" if key[0] == "doomed" else "prune"]:
                raise Wrong(f"{key} was removed and is there again")
        for call, count in (self.calls() - ran).items():
            instance, execution, name, value = json.loads(call)
            if name != "flaky" and results(before.get((instance, execution), []), name, value) and ran[call]:
                raise Wrong(f"{call} has a stored result and ran again ({count} times)")

    def check_end(self) -> None:
        with self.opened() as native:
            check_outcomes(duroxide.Client(native))
            self.check_rest(native)
        for (instance, execution), events in self.before.items():
            check_history(instance, execution, events)
        self.check_ledger(self.before)
        self.check_messages()

    def check_messages(self) -> None:
        """Each message to the queue was taken once for each time that it was sent; one whose sending nobody heard of, perhaps not."""
        begun, heard = self.acts("begin"), self.acts("heard")
        taken: Counter[str] = Counter()
        for (instance, _), events in self.before.items():
            for event in (json.loads(text) for _, text in events) if instance == "queue" else ():
                if event["type"] == "ActivityScheduled":
                    taken[f"put {event['input']}"] += 1
        arrived = self.arrivals()
        for n in range(4):
            act = f"put {n}"
            if taken[act] != 1 or not heard[act] <= arrived[act] <= begun[act]:
                raise Wrong(f"{act}: begun {begun[act]}, heard of {heard[act]}, arrived {arrived[act]}, used {taken[act]}")

    def arrivals(self) -> Counter[str]:
        """How often each message came out of the store: what a new execution carries over does not count again."""
        found: Counter[str] = Counter()
        for (instance, _), events in self.before.items():
            for event in [json.loads(text) for _, text in events] if instance == "queue" else ():
                if event["type"] == "ExternalEventPersistent":
                    found[f"put {event['data']}"] += 1
                for _, text in event.get("carry_forward_events") or ():
                    found[f"put {text}"] -= 1
        return found

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

    def check_story(self, unkilled: Trial) -> None:
        """Apart from times the histories are those of a run without a death."""
        mine, theirs = stories(self.before), stories(unkilled.before)
        begun = self.acts("begin")
        sent_again = {act.receiver for act in scenario.ACTS if begun[act.name] > 1}  # nobody had heard of it: there may be one more
        for each in (mine, theirs):
            for key in [key for key in each if key[0] in sent_again]:
                del each[key]
        if mine != theirs:
            raise Wrong("\n".join(f"{key}: {mine.get(key)}\ninstead of {theirs.get(key)}" for key in mine.keys() | theirs.keys()
                                  if mine.get(key) != theirs.get(key)))  # fmt: skip
