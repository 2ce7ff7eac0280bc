"""A process that makes worker processes on request; each may be told to die at a commit point, and to have a planted bug.

usage: python worker.py [postgres]; then a JSON line per worker on stdin (see `run`); answered by a line with its exit status.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from faults import scenario, stepped  # noqa: E402
from faults.bugs import BUGS  # noqa: E402
from faults.points import Points  # noqa: E402

import duroxide  # noqa: E402
from duroxide.runtime import loop  # noqa: E402


kinds: dict[str, type[Points]] = {}  # of points, where they are not SQLite's


def run(path: str, ledger: str, implementation: str, kill_at: int, bug: str | None, life: int, mode: str) -> None:
    """Run the scenario on `path` to its end, with the points that `kinds` has for its kind of store. `mode`: "threads", or "steps" (one thread, the same steps every time), or that with
    one turn a commit ("singly"), or with leases that end by time only ("expiry")."""
    points = kinds.get(implementation, Points)(kill_at)
    native = points.open(path, implementation)
    if bug is not None:
        native.exchange = BUGS[bug](native.exchange)
    if mode == "threads":
        threads(native, ledger, 60_000 if bug is None else 2_000)
    else:
        if mode == "singly":
            loop.TURNS = 1
        if mode == "expiry":
            native.reclaim = lambda now: 0
        stepped.Life(native, ledger, life).run()
    native.close()
    print(f"points {points.count}", file=sys.stderr)


def threads(native: Any, ledger: str, patience_ms: int) -> None:
    provider = duroxide.SqliteProvider(native)
    client = duroxide.Client(provider)
    runtime = duroxide.Runtime(provider, duroxide.RuntimeOptions(worker_tag_filter=duroxide.TagFilter.ANY, dispatcher_poll_interval_ms=5))
    scenario.register(runtime, ledger)
    runtime.start()
    for instance in scenario.EXPECTED:
        client.wait_for_orchestration(instance, patience_ms)
    runtime.shutdown()


def forked(**job: Any) -> int:
    """The exit status of a worker: 0, or minus the signal that killed it."""
    child = os.fork()
    if child == 0:
        try:
            run(**job)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    if sys.argv[1:] == ["postgres"]:
        from faults_postgres.points import PostgresPoints

        kinds["postgres"] = PostgresPoints
    for line in sys.stdin:
        print(json.dumps(forked(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
