"""Makes workers on one file, each a process of its own that runs until it is killed.

usage: python worker.py JOB (JSON: path, ledger, lease_ms, implementation, bug); a name on stdin makes one, its process id is the answer.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from faults.bugs import BUGS  # noqa: E402
from ledger.bank import Activities, Ledger  # noqa: E402

import duroxide  # noqa: E402
from duroxide.runtime.leases import Keeper  # noqa: E402
from duroxide.storage.base import Renewal, Renewed  # noqa: E402
from duroxide.storage.sqlite import open_sqlite  # noqa: E402


def nothing(*_: Any) -> None:
    """In place of what a planted bug leaves out."""


def none_lost(renew: Callable[[Renewal], Renewed]) -> Callable[[Renewal], Renewed]:
    """A bug to be caught: what renewal found lost goes on as if it were not."""
    return lambda renewal: Renewed([], [], renew(renewal).sessions)


def slow_said(renew: Callable[[Renewal], Renewed], ledger: Ledger, worker: str, lease_s: float) -> Callable[[Renewal], Renewed]:
    """Whoever could not write for a third of a lease stood still as well."""

    def renewing(renewal: Renewal) -> Renewed:
        since = time.monotonic()
        try:
            return renew(renewal)
        finally:
            if time.monotonic() - since > lease_s / 3:
                ledger.write("gap", worker=worker, since=since)

    return renewing


def run(name: str, job: dict[str, Any]) -> None:
    ledger, lease_s = Ledger(job["ledger"]), job["lease_ms"] / 1_000
    native = open_sqlite(job["path"], synchronous="normal", implementation=job["implementation"])
    if job["bug"] == "not_renewed":
        Keeper.renew = nothing  # type: ignore[method-assign]
    elif job["bug"]:
        if job["bug"] == "lost_lease_ignored":
            native.renew = none_lost(native.renew)  # type: ignore[method-assign]
        native.exchange = BUGS[job["bug"]](native.exchange)  # type: ignore[method-assign]
    native.renew = slow_said(native.renew, ledger, name, lease_s)  # type: ignore[method-assign]
    options = duroxide.RuntimeOptions(
        dispatcher_poll_interval_ms=20, orchestrator_lock_timeout_ms=job["lease_ms"], worker_lock_timeout_ms=job["lease_ms"],
        orchestration_concurrency=1, worker_concurrency=3,
    )  # fmt: skip
    runtime = duroxide.Runtime(duroxide.SqliteProvider(native), options)
    Activities(ledger, name, 1.5 * lease_s).register(runtime)
    runtime.start()
    beat(ledger, name, lease_s)


def beat(ledger: Ledger, name: str, lease_s: float) -> None:
    """Whoever stood still for a third of a lease, the time between two renewals, says so: the machine may be too busy as well."""
    last = time.monotonic()
    while True:
        threading.Event().wait(lease_s / 20)
        now = time.monotonic()
        if now - last > lease_s / 3:
            ledger.write("gap", worker=name, since=last)
        last = now


def main(job: dict[str, Any]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended
    for line in sys.stdin:
        born = os.fork()
        if born == 0:
            try:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                run(line.strip(), job)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        print(born, flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
