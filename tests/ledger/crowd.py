"""Many processes at work on one SQLite file: killed, stopped for longer than their leases, and locked out by a writer that is not ours.

Owns the chaos, the clients and how long they waited; `account.py` says what must hold. A client's call that fails is Wrong at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doctored import healthy
from faults.bugs import BUGS
from faults.checks import Wrong
from ledger.account import Watch, check
from ledger.bank import Ledger
from ledger.reruns import EVERYONE, check_reruns

import duroxide
from duroxide.storage.sqlite import open_sqlite

LOCKER = """
import sys, time, apsw
connection = apsw.Connection(sys.argv[1])
connection.set_busy_timeout(60_000)
connection.execute("BEGIN IMMEDIATE")
time.sleep(float(sys.argv[2]))
connection.execute("ROLLBACK")
"""


@dataclass
class Plan:
    """How much chaos. Times in seconds; `kill_s`, `stop_s`, `lock_s`: between two of a kind."""

    processes: int
    seconds: float
    clients: int
    pause_s: float  # of each client, between two stories
    lease_s: float
    kill_s: float
    stop_s: float
    lock_s: float
    locked_for_s: float
    patience_s: float = 120.0
    implementation: str = "c"
    bug: str | None = None  # one of faults/bugs.py, or "not_renewed"
    steps: int = 20  # of a statement
    stories: tuple[str, ...] = ("transfer", "transfer", "transfer", "till", "transfer", "statement", "transfer", "till")


class Crowd:
    def __init__(self, directory: Path, plan: Plan, seed: int = 1) -> None:
        self.plan, self.path, self.lots = plan, str(directory / "crowd.db"), random.Random(seed)
        self.ledger = Ledger(str(directory / "ledger"))
        self.native = open_sqlite(self.path, synchronous="normal")
        if plan.bug in BUGS:
            self.native.exchange = BUGS[plan.bug](self.native.exchange)
        self.client, self.watch = duroxide.Client(self.native), Watch(self.native, random.Random(seed))
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115
        job = {"path": self.path, "ledger": self.ledger.path, "lease_ms": int(plan.lease_s * 1000),
               "implementation": plan.implementation, "bug": plan.bug}  # fmt: skip
        self.nursery = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "worker.py"), json.dumps(job)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said, text=True,
        )  # fmt: skip
        self.alive: dict[str, int] = {}
        self.counts = dict.fromkeys(("started", "killed", "stopped", "locked"), 0)
        self.over, self.lock = threading.Event(), threading.Lock()
        self.told: list[str] = []
        self.wrong: list[str] = []
        self.took: dict[str, list[float]] = {"start": [], "story": []}

    # ── the chaos: one thread each, until it is over ──

    def make(self) -> None:
        name = f"w{self.counts['started']}"
        self.counts["started"] += 1
        assert self.nursery.stdin is not None and self.nursery.stdout is not None
        self.nursery.stdin.write(name + "\n")
        self.nursery.stdin.flush()
        self.alive[name] = int(self.nursery.stdout.readline())

    def kill_one(self) -> None:
        with self.lock:
            name = self.lots.choice(sorted(self.alive))
            self.ledger.write("killing", worker=name)
            os.kill(self.alive.pop(name), signal.SIGKILL)
            self.counts["killed"] += 1
            self.make()

    def stop_one(self) -> None:
        """For longer than its leases; it may be killed meanwhile."""
        with self.lock:
            name = self.lots.choice(sorted(self.alive))
            self.ledger.write("stopping", worker=name)
            os.kill(self.alive[name], signal.SIGSTOP)
            self.counts["stopped"] += 1
        self.over.wait(1.5 * self.plan.lease_s)
        with self.lock:
            if name in self.alive:
                os.kill(self.alive[name], signal.SIGCONT)

    def lock_out(self) -> None:
        since = time.monotonic()
        subprocess.run([sys.executable, "-c", LOCKER, self.path, str(self.plan.locked_for_s)], check=True)
        if self.plan.locked_for_s > self.plan.lease_s / 3:
            self.ledger.write("gap", worker=EVERYONE, since=since)
        self.counts["locked"] += 1

    def again_and_again(self, strike: Callable[[], None], every_s: float) -> None:
        while not self.over.wait(every_s):
            try:
                strike()
            except Exception as error:  # else the run would go on without
                self.fail(f"{strike.__name__}: {error!r}")

    # ── the clients ──

    def tell(self, slot: int) -> None:
        """Story after story."""
        n = slot
        while not self.over.is_set():
            try:
                self.story(n)
            except Exception as error:
                self.fail(f"story {n}: {error!r}")
            n += self.plan.clients
            self.over.wait(self.plan.pause_s)

    def story(self, n: int) -> None:
        lots = random.Random(n)
        name = self.plan.stories[n % len(self.plan.stories)]
        if name == "statement":
            given: Any = self.plan.steps
        elif name == "till":
            given = [lots.randint(2, 5), []]
        else:
            given = [f"a{lots.randint(0, 9)}", f"b{lots.randint(0, 9)}", lots.randint(1, 100), lots.random() < 0.3]
        instance, began = f"{name}-{n}", time.monotonic()
        self.client.start_orchestration(instance, name, given)
        self.took["start"].append(time.monotonic() - began)
        self.ledger.write("told", instance=instance, story=name, given=given)
        self.told.append(instance)
        for k in range(given[0] if name == "till" else 0):
            self.client.enqueue_event(instance, "slips", f"{instance}-{k}")
            self.ledger.write("heard", slip=f"{instance}-{k}")
        ended = self.client.wait_for_orchestration(instance, int(self.plan.patience_s * 1000))
        self.ledger.write("ended", instance=instance, output=ended.output)
        self.took["story"].append(time.monotonic() - began)

    def fail(self, fault: str) -> None:
        self.wrong.append(fault)
        self.over.set()

    # ── the run ──

    def run(self) -> dict[str, Any]:
        """Figures; raises Wrong."""
        for _ in range(self.plan.processes):
            self.make()
        strikes = [(self.kill_one, self.plan.kill_s), (self.stop_one, self.plan.stop_s), (self.lock_out, self.plan.lock_s)]
        threads = [threading.Thread(target=self.again_and_again, args=strike) for strike in strikes if strike[1]]
        threads += [threading.Thread(target=self.tell, args=(slot,)) for slot in range(self.plan.clients)]
        try:
            for thread in threads:
                thread.start()
            end = time.monotonic() + self.plan.seconds
            while time.monotonic() < end and not self.over.wait(0.2):
                self.watch.look_around(list(self.told))
            self.over.set()
            for thread in threads:
                thread.join()
            return self.check()
        finally:
            self.over.set()
            self.close()

    def check(self) -> dict[str, Any]:
        if self.wrong:
            raise Wrong("; ".join(self.wrong[:3]))
        lines = self.ledger.lines()
        check(lines, self.native, self.plan.lease_s)
        for instance in self.told:
            self.watch.look(instance)
        if self.native._cold.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
            raise Wrong("the file is damaged")
        healthy(self.path, wrong=Wrong)
        found = {f"{name} p{share:g} s": round(sorted(took)[int(len(took) * share / 100)], 3) for name, took in self.took.items() for share in (50, 99)}
        found |= {f"{name} max s": round(max(took), 3) for name, took in self.took.items()}
        ran = sum(line["kind"] == "ran" for line in lines)
        return {**self.counts, "stories": len(self.told), "calls": ran, "again": check_reruns(lines, self.plan.lease_s), "looks": self.watch.looks, **found}

    def close(self) -> None:
        for process in self.alive.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.nursery.communicate()
        self.native.close()

    def heard(self) -> str:
        """What the workers wrote to stderr."""
        self.said.seek(0)
        return self.said.read()
