"""Several processes on one store, the outside world that talks to them, and what goes wrong: all drawn from one seed.

Owns the processes' lives, the faults and the end of a run. Knows nothing of how a process reaches the store (`process`) and of what
must hold at each exchange (`witness`).
"""

from __future__ import annotations

import gc
import json
import logging
import random
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from doctored import healthy

from duroxide.storage.base import Request, StoreError, Taken

from . import programs
from .hub import EPOCH_S, Hub, Machine, green
from .process import Port, Process
from .stores import File, Store
from .witness import Witness, Wrong

LIMIT_S = 600.0  # of simulated time: whoever is not done by then never will be
FAULTS = ("crash", "crash", "pause", "pause", "jump", "leave", "wake", "blind", "slow", "fail", "fail")


class World:
    """`names`: of the programs that run. `faults`: how many, of which `kinds`."""

    def __init__(self, seed: str, store: Store, names: Sequence[str], faults: int, kinds: Sequence[str] = FAULTS) -> None:
        self.hub = Hub(seed)
        lots = self.lots = random.Random(f"plan {seed}")
        self.hub.preempt = lots.choice((0.0, 0.05, 0.3)) if faults else 0.0
        self.store = store
        self.names = list(names)
        self.witness = Witness()
        self.ledger = programs.Ledger(self.hub)
        self.liveness = lots.random() < 0.7
        self.lease_ms = lots.choice((300, 1_000, 5_000))
        self.work_lease_ms = lots.choice((300, 1_000, 5_000))
        self.owners: dict[str, Machine] = {}
        self.own: Counter[Port] = Counter()
        self.versions = 0
        self.processes = [self.process(f"p{n}") for n in range(lots.choice((1, 2, 2, 3)))]
        self.outside = self.process("outside")
        self.births = len(self.processes)
        # Faults come while somebody is on the way to the store or back: then a commit hangs on them.
        self.plan = {lots.randint(1, 40 * len(names)): lots.choice(kinds) for _ in range(faults)}
        self.waiting = len(self.names)
        self.over = False
        self.wrong: Wrong | None = None
        self.passes = 0
        self.ended_s = 0.0
        self.trace: list[str] | None = None
        self.checked = zlib.crc32(seed.encode()) % 25 == 0  # after every exchange; the others only at their end

    def process(self, name: str) -> Process:
        return Process(self, name)

    # ── what ports tell ──────────────────────────────────────────────────────────────────────────────────────

    def exchanged(self, port: Port, requests: Sequence[Request], answers: Sequence[Taken]) -> None:
        if any(request.done is not None for request in requests) or any(taken.turns or taken.work for taken in answers):
            self.versions += 1
            self.own[port] += 1
        if self.trace is not None:
            for request, taken in zip(requests, answers):
                if what := told(request, taken):
                    self.note(port.machine.name, what)
        self.seen(lambda: self.witness.exchanged(requests, answers))
        if self.checked:
            self.seen(self.check_health)

    def seen(self, look: Callable[[], None]) -> None:
        """What the witness finds ends the run; the code under test does not hear of it."""
        try:
            look()
        except Wrong as wrong:
            self.wrong = self.wrong or wrong

    def reclaim(self) -> int:
        freed = 0
        for owner in [owner for owner, machine in self.owners.items() if machine.dead]:
            del self.owners[owner]
            freed += self.store.free(owner)
            self.witness.freed(owner)
        return freed

    def note(self, who: str, what: str) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.hub.time_s:10.6f} {who}: {what}")

    # ── a run ────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> dict[str, Any]:
        """The outcome of every instance. Raises Wrong."""
        said = Said()
        gc.disable()
        logging.getLogger("duroxide").addHandler(said)
        try:
            with green(self.hub):
                try:
                    self._run()
                finally:
                    self.hub.close()
        finally:
            logging.getLogger("duroxide").removeHandler(said)
            gc.enable()
        if said.errors:
            raise Wrong(f"somebody said: {said.errors[0]}")
        self.check_end()
        return self.outcomes()

    def _run(self) -> None:
        for process in self.processes:
            process.start()
        self.hub.spawn(self.outside.machine, self.start_all, "starts")
        over = self.hub.run(lambda: self.waiting == 0 or self.wrong is not None or bool(self.hub.errors), LIMIT_S)
        if self.wrong is not None:
            raise self.wrong
        if not over:
            raise Wrong(f"not over after {self.hub.time_s:.0f} s: {self.unfinished()}")
        if self.hub.errors:
            task, error = self.hub.errors[0]
            raise error if isinstance(error, Wrong) else Wrong(f"{task.machine.name}, {task.name}: {error!r}") from error
        self.ended_s = self.hub.time_s
        self.settle()

    def settle(self) -> None:
        """Everybody leaves in peace."""
        self.over = True
        left: list[Any] = []
        for process in self.processes:
            if not process.machine.dead:
                self.hub.resume(process.machine)
                left += process.leave()
        if not self.hub.run(lambda: all(task.over for task in left), self.hub.time_s + 60):
            raise Wrong("a shutdown did not end")

    def unfinished(self) -> dict[str, str]:
        """Instances that have not ended, with their last event."""
        found = {}
        for name in [*self.names, *(n + end for n in self.names for end in programs.FAMILY.get(n, ()))]:
            loaded = self.store.native.load(name)
            if loaded is None or loaded.status not in ("Completed", "Failed"):
                found[name] = "not there" if loaded is None else f"{loaded.status}, {loaded.events[-1:]}"
        return found

    # ── the outside ──────────────────────────────────────────────────────────────────────────────────────────

    def start_all(self) -> None:
        client = self.outside.client()
        for name in self.names:
            orchestration, input, version = programs.STARTS[name]
            if version is None:
                client.start_orchestration(name, orchestration, input)
            else:
                client.start_orchestration_versioned(name, orchestration, input, version)
            self.hub.spawn(self.outside.machine, lambda name=name: self.attend(name), name, main=self.lots.random() < 0.2)  # type: ignore[misc]

    def attend(self, name: str) -> None:
        """Sends an instance its mail and waits for its end, and for that of its family."""
        client, pauses = self.outside.client(), self.lots.choice(((0.0,), (0.0, 0.03, 0.2)))
        for event, verb, argument in programs.MAIL.get(name, ()):
            self.hub.sleep(self.lots.choice(pauses))
            while event and not self.has(name, event):
                self.hub.sleep(0.01)
            if verb == "raise":
                client.raise_event(name, "go", argument)
            elif verb == "enqueue":
                client.enqueue_event(name, "inbox", argument)
            else:
                client.cancel_instance(name, argument)
        for instance in (name, *(name + end for end in programs.FAMILY.get(name, ()))):
            while not self.ended(client, instance):
                pass
        self.waiting -= 1

    def has(self, name: str, event: str) -> bool:
        return any(f'"type":"{event}"' in text for _, text in self.witness.events.get((name, 1), ()))

    def ended(self, client: Any, instance: str) -> bool:
        try:
            client.wait_for_orchestration(instance, 2_000)
        except TimeoutError:
            return False
        return True

    # ── faults ───────────────────────────────────────────────────────────────────────────────────────────────

    def fault(self, kind: str, machine: Machine) -> None:
        """Something goes wrong with that process; if it is the outside, with one of the others."""
        lots, hub = self.lots, self.hub
        process = next((each for each in self.processes if each.machine is machine), lots.choice(self.processes))
        machine = process.machine
        if self.over or machine.dead:
            return
        self.note(machine.name, f"fault: {kind}")
        if kind == "crash":
            hub.kill(machine)
            self.store.leave(process.port.native)
            hub.at(hub.time_s + lots.choice((0.0, 0.1, 2.0)), lambda: self.reborn(process))
        elif kind == "pause":
            hub.stop(machine)
            hub.at(hub.time_s + lots.choice((0.05, 0.5, 2.0, 8.0)), lambda: hub.resume(machine))
        elif kind == "jump":
            machine.ahead_s += lots.choice((-6.0, -0.5, 0.4, 1.5, 6.0))
        elif kind == "leave":
            left = process.leave()
            hub.at(hub.time_s + 0.5, lambda: self.reborn(process, left))
        elif kind == "wake":
            process.wake()
        elif kind == "blind":
            process.port.blind_until = hub.time_s + lots.choice((0.2, 3.0))
        elif kind == "slow":
            process.port.slow_until = hub.time_s + lots.choice((0.2, 1.0))
        else:
            process.port.failures += [lots.choice(("before", "after")) for _ in range(lots.choice((1, 2, 8)))]

    def reborn(self, process: Process, left: Sequence[Any] = ()) -> None:
        """Another process takes its place, at the latest when it has left."""
        if self.over or process not in self.processes:
            return
        if not process.machine.dead and not all(task.over for task in left):
            self.hub.at(self.hub.time_s + 0.5, lambda: self.reborn(process, left))
        else:
            self.births += 1
            born = self.processes[self.processes.index(process)] = self.process(f"p{self.births - 1}")
            born.start()

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────

    def check_end(self) -> None:
        native = self.store.native
        for (instance, execution), events in self.witness.events.items():
            loaded = native.load(instance, execution)
            if loaded is None or loaded.events != events:
                raise Wrong(f"{instance}#{execution} is not what was committed: {loaded and loaded.events} instead of {events}")
            self.check_results(instance, execution, events)
        for activity, numbers in self.ledger.gave.items():
            if len(numbers) > self.witness.claims[activity]:
                raise Wrong(f"{activity} was called {len(numbers)} times and claimed {self.witness.claims[activity]} times")
        depths = native.queue_depths(0)
        if depths["worker_queue"]:
            raise Wrong(f"work is left: {depths}")
        self.check_health()

    def check_health(self) -> None:
        """What the doctor says of the store."""
        where = self.store.path if isinstance(self.store, File) else self.store.native
        healthy(where, now=int((EPOCH_S + self.hub.time_s) * 1000), wrong=Wrong)

    def check_results(self, instance: str, execution: int, events: list[tuple[int, str]]) -> None:
        """What is stored as a result was given by a call of that activity; every schedule was completed once at most."""
        done: Counter[int] = Counter()
        for event in (json.loads(text) for _, text in events):
            source = event["source_event_id"]
            if event["type"] in COMPLETIONS:
                done[source] += 1
            if event["type"] == "ActivityCompleted" and event["result"].startswith("{"):  # not of a system call
                result = json.loads(event["result"])
                if result["number"] not in self.ledger.gave.get((instance, execution, source), ()):
                    raise Wrong(f"{instance}#{execution}: no call of activity {source} gave {result}")
        if done and max(done.values()) > 1:
            raise Wrong(f"{instance}#{execution}: completed twice: {done}")

    def outcomes(self) -> dict[str, Any]:
        native, found = self.store.native, {}
        for instance in [n + end for n in self.names for end in ("", *programs.FAMILY.get(n, ()))]:
            loaded = native.load(instance)
            kinds = [
                dict(sorted(Counter(json.loads(text)["type"] for _, text in native.load(instance, n).events).items()))
                for n in native.executions(instance)
            ]
            for each in kinds:
                each.pop("ExternalEventPersistent", None)  # how many a turn finds hangs on when it runs
            found[instance] = {
                "status": loaded.status, "output": loaded.output, "custom status": loaded.custom_status, "values": native.kv_values(instance),
                "kinds": kinds,
            }  # fmt: skip
        return found


COMPLETIONS = ("ActivityCompleted", "ActivityFailed", "TimerFired", "SubOrchestrationCompleted", "SubOrchestrationFailed")


class Said(logging.Handler):
    """Errors that the code under test said it did not expect."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, (StoreError, type(None))) and type(error).__name__ not in ("Dead", "Wrong"):
            self.errors.append(f"{record.getMessage()}: {error!r}")


def told(request: Request, taken: Taken) -> str:
    parts = []
    if request.done is not None:
        turns = [
            (t.instance, [id for id, _, _ in t.events], "keep" if t.keep else "", t.status or "") for t in request.done.turns
        ]
        parts.append(f"turns {turns} -> {taken.turn_codes}") if turns else None
        rows = [(w.instance, w.row_id) for w in request.done.work]
        parts.append(f"work {rows} -> {taken.work_codes}") if rows else None
        backs = [(b.instance, b.delay_ms) for b in request.done.turn_backs] + [b.row_id for b in request.done.work_backs]  # type: ignore[operator]
        parts.append(f"back {backs} -> {taken.turn_back_codes + taken.work_back_codes}") if backs else None
        parts.append(f"messages {[m[1][:60] for m in request.done.messages]}") if request.done.messages else None
    parts.append(f"claims {[(c.instance, [m[0] for m in c.messages]) for c in taken.turns]}") if taken.turns else None
    parts.append(f"takes {[(w.instance, w.row_id) for w in taken.work]}") if taken.work else None
    return "; ".join(parts)
