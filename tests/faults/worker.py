"""A process that makes worker processes on request; each may be told to die at a commit point, and to have a planted bug.

usage: python worker.py; then a JSON line per worker on stdin, {"path", "ledger", "implementation", "kill_at", "bug"}; answered by a line
with its exit status. Points are numbered: one inside each COMMIT that writes, one after each verb that wrote.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from faults import scenario  # noqa: E402

import duroxide  # noqa: E402
from duroxide.storage import sqlite  # noqa: E402
from duroxide.storage.base import Done, Request, Taken  # noqa: E402


class Points:
    """Counts; the process dies at `kill_at`."""

    def __init__(self, kill_at: int) -> None:
        self.kill_at = kill_at
        self.count = 0

    def reach(self) -> None:
        self.count += 1
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def connect(self, connect: Callable[..., Any]) -> Callable[..., Any]:
        def connected(*arguments: Any) -> Any:
            connection = connect(*arguments)
            connection.set_commit_hook(lambda: self.reach() or False)
            return connection

        return connected

    def after(self, verb: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            before = self.count
            answer = verb(*arguments)
            if self.count > before:
                self.reach()
            return answer

        return called


# ── bugs to be caught ──


def messages_later(exchange: Callable[..., Any]) -> Callable[..., Any]:
    """What a turn sends goes into a transaction of its own."""

    def planted(requests: Sequence[Request]) -> list[Taken]:
        later = Done()
        for request in requests:
            for turn in request.done.turns if request.done else ():
                later.messages += turn.messages
                turn.messages = []
        answers = exchange(requests)
        if later.messages:
            exchange([Request(requests[0].now, later)])
        return answers

    return planted


def results_later(exchange: Callable[..., Any]) -> Callable[..., Any]:
    """Rows of finished work go before the turn that has their results."""

    def planted(requests: Sequence[Request]) -> list[Taken]:
        first = Done()
        from duroxide.storage.base import WorkDone

        for request in requests:
            for turn in request.done.turns if request.done else ():
                first.work += [WorkDone(row, token, turn.instance, None) for row, token in turn.acks]
                turn.acks = []
        if first.work:
            exchange([Request(requests[0].now, first)])
        return exchange(requests)

    return planted


def messages_twice(exchange: Callable[..., Any]) -> Callable[..., Any]:
    """Messages that a turn has read are not deleted with its commit, but afterwards."""

    def planted(requests: Sequence[Request]) -> list[Taken]:
        from duroxide.storage.base import TurnDone

        later = Done()
        for request in requests:
            for turn in request.done.turns if request.done else ():
                if turn.consumed and turn.keep:
                    after = TurnDone(turn.lease, turn.instance, turn.execution_id)
                    after.consumed, turn.consumed, after.keep = turn.consumed, [], True
                    later.turns.append(after)
        answers = exchange(requests)
        if later.turns:
            exchange([Request(requests[0].now, later)])
        return answers

    return planted


BUGS = {bug.__name__: bug for bug in (messages_later, results_later, messages_twice)}


# ── a worker ──


def run(path: str, ledger: str, implementation: str, kill_at: int, bug: str | None) -> None:
    """Run the scenario on `path` to its end."""
    points = Points(kill_at)
    sqlite._connect = points.connect(sqlite._connect)
    native = sqlite.open_sqlite(path, synchronous="normal", implementation=implementation)
    native.exchange = points.after(native.exchange)  # type: ignore[method-assign]
    if bug is not None:
        native.exchange = BUGS[bug](native.exchange)  # type: ignore[method-assign]
    native.renew = points.after(native.renew)  # type: ignore[method-assign]
    native.reclaim = points.after(native.reclaim)  # type: ignore[method-assign]
    provider = duroxide.SqliteProvider(native)
    client = duroxide.Client(provider)
    client.start_orchestrations(scenario.STARTS)
    runtime = duroxide.Runtime(provider, duroxide.RuntimeOptions(worker_tag_filter=duroxide.TagFilter.ANY, dispatcher_poll_interval_ms=5))
    scenario.register(runtime, ledger)
    runtime.start()
    for instance in scenario.EXPECTED:
        client.wait_for_orchestration(instance, 60_000 if bug is None else 2_000)
    runtime.shutdown()
    native.close()
    print(f"points {points.count}", file=sys.stderr)


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
    for line in sys.stdin:
        print(json.dumps(forked(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
