"""One leg in a process of its own, in the python of whoever rides it: `python -I leg.py STORE LEG LEGS`, or `... --unfetched`.

Prints READY when every state is reached, and lives on until it is killed; the last leg prints DONE when every instance has ended.
STORE is a path or a PostgreSQL URL with `#schema`. What activities ran is written beside, to the file of COMPAT_LOG.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent))

import duroxide
from compat import states_data, states_trees, states_waits, states_work  # noqa: F401
from compat.state import STATES, Leg, State

OPTIONS: dict[str, Any] = {
    "dispatcher_poll_interval_ms": 5,
    "orchestration_concurrency": 6,  # three turns get stuck
    "worker_concurrency": 16,  # ten activities get stuck
    "worker_lock_timeout_ms": 4_000,
    "max_sessions_per_runtime": 30,
}


def open_store(where: str) -> Any:
    if where.startswith("postgres"):
        url, _, schema = where.partition("#")
        return duroxide.PostgresProvider.connect_with_schema(url, schema)
    implementation = os.environ.get("COMPAT_IMPLEMENTATION")
    if implementation:  # ours only
        from duroxide.storage.sqlite import open_sqlite

        return duroxide.SqliteProvider(open_sqlite(where, implementation=implementation))
    return duroxide.SqliteProvider.open(where)


def chosen() -> list[type[State]]:
    names = os.environ.get("COMPAT_STATES")
    return [STATES[name] for name in names.split()] if names else list(STATES.values())


def each(states: list[State], step: Callable[[State], None]) -> None:
    """The step for every state, several at a time: most of it is waiting."""
    rest = list(states)
    failed: list[str] = []

    def work() -> None:
        while rest and not failed:
            state = rest.pop(0)
            try:
                step(state)
            except Exception as error:
                failed.append(f"{state.name}: {type(error).__name__}: {error}")

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise SystemExit("; ".join(failed))


def ride(leg: Leg, states: list[State], legs: int) -> None:
    n = leg.number
    for state in states:
        if n:
            state.before(state.id(n - 1), n - 1)
    leg.resume()

    def start(state: State) -> None:
        if state.repeats and n == 0:
            state.start(state.id(0), 0, legs - 1)
        elif not state.repeats and n < legs - 1:
            state.start(state.id(n), n, n + 1)

    def in_and_out(state: State) -> None:
        if n:
            state.release(state.id(n - 1), n - 1)
        if n < legs - 1:
            state.arrive(state.id(n), n)
        else:
            state.end(state.id(n))

    each(states, start)
    each(states, in_and_out)
    if n < legs - 1:
        for state in states:
            state.strike(state.id(n), n)


def ended(client: Any) -> None:
    """Until nothing runs any more, but what was never started."""
    deadline = time.monotonic() + float(os.environ.get("COMPAT_PATIENCE_S", "60"))
    while True:
        running = client.list_instances_by_status("Running")
        if not running:
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"still running: {sorted(running)}")
        time.sleep(0.02)


def main(where: str, number: int, legs: int, unfetched: bool) -> None:
    provider = open_store(where)
    leg = Leg(duroxide, provider, number, Path(os.environ["COMPAT_LOG"]))
    # A name for the node: else the reference gives a session to one worker slot, which may get stuck.
    node = os.environ.get("COMPAT_NODE") or f"leg{number}"
    leg.options.update(OPTIONS, worker_tag_filter=duroxide.TagFilter.default_and([f"leg{number}"]), worker_node_id=node)
    states = [cls(leg) for cls in chosen()]
    if unfetched:
        for state in states:
            state.unfetched(state.id(number), number)
        os.kill(os.getpid(), signal.SIGKILL)
    for state in states:
        state.register()
    try:
        ride(leg, states, legs)
        if number < legs - 1:
            print("READY", flush=True)
            signal.pause()
        ended(leg.client)
        print("DONE", flush=True)
    except BaseException as error:
        print("FAILED", error, flush=True)
        raise
    finally:
        sys.stdout.flush()
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), "--unfetched" in sys.argv)
