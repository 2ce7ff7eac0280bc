"""The demo: an order is fulfilled by a worker process that is killed half-way and started again; nothing is lost.

Owns its workflow, the worker process and what the terminal shows. Uses nothing but the public API.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

from duroxide.client import Client
from duroxide.context import ActivityContext, OrchestrationContext
from duroxide.runtime.runtime import Runtime
from duroxide.storage.sqlite import SqliteProvider

ITEMS = ["lamp", "desk", "chair"]
EXPECTED: dict[str, object] = {
    "order": 7,
    "reserved": ["lamp", "desk", "chair"],
    "payment": "paid 7",
    "approved_by": "ada",
    "parcel": "parcel of 3",
}
TIMEOUT_S = 30.0


# ── the workflow ─────────────────────────────────────────────────────────────────────────────────────────────


def fulfil(ctx: OrchestrationContext, order: int) -> Generator[Any, Any, Any]:
    """Fan-out, retry, timer, event, child orchestration."""
    ctx.set_custom_status("reserving")
    reserved = yield ctx.all_typed([ctx.schedule_activity("reserve", item) for item in ITEMS])
    ctx.set_custom_status("charging")
    payment = yield ctx.schedule_activity_with_retry("charge", order, {"max_attempts": 4})
    ctx.set_custom_status("waiting for the bank")
    yield ctx.schedule_timer(700)
    ctx.set_custom_status("waiting for approval")
    approval = yield ctx.wait_for_event("approved")
    ctx.set_custom_status("shipping")
    parcel = yield ctx.schedule_sub_orchestration("ship", reserved)
    ctx.set_custom_status("done")
    return {"order": order, "reserved": reserved, "payment": payment, "approved_by": approval, "parcel": parcel}


def ship(ctx: OrchestrationContext, items: list[str]) -> Generator[Any, Any, Any]:
    for item in items:
        yield ctx.schedule_activity("pack", item)
    return f"parcel of {len(items)}"


class Ledger:
    """A side file with one line for every activity that ran: what is in it happened, whatever was killed."""

    def __init__(self, path: str) -> None:
        self.path = path

    def note(self, line: str) -> int:
        """Append; returns how often this line stands there now."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        return self.counts()[line]

    def counts(self) -> Counter[str]:
        try:
            return Counter(Path(self.path).read_text(encoding="utf-8").splitlines())
        except FileNotFoundError:
            return Counter()


def work(db: str, ledger_path: str) -> None:
    """The worker process: runs until it is killed or its parent closes its standard input."""
    ledger = Ledger(ledger_path)

    def reserve(ctx: ActivityContext, item: str) -> str:
        ledger.note(f"reserve {item}")
        return item

    def charge(ctx: ActivityContext, order: int) -> str:
        if ledger.note(f"charge {order}") < 3:
            raise ConnectionError("the bank does not answer")
        return f"paid {order}"

    def pack(ctx: ActivityContext, item: str) -> None:
        ledger.note(f"pack {item}")
        time.sleep(0.25)

    provider = SqliteProvider.open(db)
    runtime = Runtime(provider)
    for name, activity in (("reserve", reserve), ("charge", charge), ("pack", pack)):
        runtime.register_activity(name, activity)
    runtime.register_orchestration("fulfil", fulfil)
    runtime.register_orchestration("ship", ship)
    runtime.start()
    sys.stdin.read()
    runtime.shutdown(1_000)
    provider.close()


# ── the show ─────────────────────────────────────────────────────────────────────────────────────────────────


class Screen:
    """Lines with the time since the start; on a terminal the last one is rewritten while only its time changes."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._live = sys.stdout.isatty()
        self._open = False

    def line(self, text: str) -> None:
        self._end()
        print(f"{time.monotonic() - self._began:6.2f} s  {text}", flush=True)

    def live(self, text: str) -> None:
        if self._live:
            print(f"\r{time.monotonic() - self._began:6.2f} s  {text}\033[K", end="", flush=True)
            self._open = True

    def _end(self) -> None:
        if self._open:
            print("\r\033[K", end="")
            self._open = False


class Worker:
    """The worker process, under its number; killed and started again as often as the show wants."""

    def __init__(self, db: str, ledger: str) -> None:
        code = "import sys; from duroxide.demo import work; work(sys.argv[1], sys.argv[2])"
        self._command = [sys.executable, "-c", code, db, ledger]
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        # In a session of its own: a Ctrl-C on the terminal is for the demo, which then ends it.
        return subprocess.Popen(self._command, stdin=subprocess.PIPE, start_new_session=True)

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def again(self) -> None:
        self._process = self._start()

    def end(self) -> None:
        """Let it shut down; kill it if it does not."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(3.0)
        except subprocess.TimeoutExpired:
            self.kill()


def run(db: str | None = None) -> int:
    """Play the demo; 0 if the order ended as it should, 1 otherwise."""
    if db is not None:
        return _play(db)
    with tempfile.TemporaryDirectory(prefix="duroxide-demo-", ignore_cleanup_errors=True) as directory:
        return _play(os.path.join(directory, "orders.db"))


def _play(db: str) -> int:
    screen = Screen()
    provider = SqliteProvider.open(db)
    try:
        return _show(provider, db, screen)
    finally:
        provider.close()


def _show(provider: SqliteProvider, db: str, screen: Screen) -> int:
    client = Client(provider)
    instance = f"order-{time.time_ns() // 1_000_000}"
    ledger = Ledger(f"{db}.{instance}.ledger")
    screen.line(f"store: {provider.name} at {db}")
    client.start_orchestration(instance, "fulfil", 7)
    screen.line(f"started {instance}: it is on disk, nobody works on it yet")
    worker = Worker(db, ledger.path)
    try:
        screen.line(f"worker process {worker.pid} started")
        killed = _watch(client, instance, worker, screen)
        with contextlib.suppress(TimeoutError):
            client.wait_for_orchestration(instance, 5_000)
        result, ran = client.get_status(instance), ledger.counts()
    finally:
        worker.end()
        Path(ledger.path).unlink(missing_ok=True)
    _table(client, instance, screen)
    _accounts(ran, screen)
    if result.output != EXPECTED or killed != 2:
        screen.line(f"WRONG: {result.status} {result.error or result.output!r}, expected {EXPECTED!r}")
        return 1
    screen.line(f"result: {result.output}")
    return 0


def _watch(client: Client, instance: str, worker: Worker, screen: Screen) -> int:
    """Show each status; kill the worker while it waits for the bank and again while it ships; approve when asked.
    Returns how often it was killed."""
    seen, kills, deadline = "", {"waiting for the bank", "shipping"}, time.monotonic() + TIMEOUT_S
    killed = 0
    while seen != "done" and time.monotonic() < deadline:
        now = client.get_status(instance)
        status = now.custom_status or ""
        if now.status == "Failed":
            break
        if status == seen:
            screen.live(f"{status or 'waiting for the worker'} ...")
            time.sleep(0.02)
            continue
        seen = status
        screen.line(status)
        if status == "waiting for approval":
            client.raise_event(instance, "approved", "ada")
            screen.line("raised the event 'approved'")
        if status in kills:
            time.sleep(0.35)
            worker.kill()
            killed += 1
            screen.line(f"worker {worker.pid} killed (SIGKILL)")
            worker.again()
            screen.line(f"worker process {worker.pid} started: it goes on from the file")
    return killed


def _table(client: Client, instance: str, screen: Screen) -> None:
    screen.line("history of the order:")
    events = client.read_execution_history(instance, 1)
    began = events[0].timestamp_ms
    for event in events:
        of = "" if event.source_event_id is None else f"of {event.source_event_id}"
        data = (event.data or "").replace("\n", " ")
        print(f"    {event.event_id:>3}  {event.timestamp_ms - began:>6} ms  {event.kind:<26} {of:<6} {data[:70]}")


def _accounts(ran: Counter[str], screen: Screen) -> None:
    """One line: what ran once, what again, and why."""
    again = {line: count for line, count in ran.items() if count > 1 and not line.startswith("charge")}
    extra = ", ".join(f"'{line}' {count} times" for line, count in again.items()) or "nothing"
    screen.line(
        f"activities: {sum(ran.values())} runs of {len(ran)}; run again because the kill came before their result was on disk: {extra}; "
        f"'charge 7' {ran['charge 7']} times, as its retry policy asks"
    )
