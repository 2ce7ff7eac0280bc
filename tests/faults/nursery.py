"""A process that makes runtimes on one file, each in a process of its own, as often as asked; it does not wait for them.

usage: python nursery.py PATH LEDGER; a line on stdin makes one; its process id is the answer. They run until they are killed.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import duroxide  # noqa: E402


def flow(ctx: Any, n: int) -> Any:
    """A chain, a fan, a timer, a child, values, a guid."""
    first = yield ctx.schedule_activity("note", ["first", n])
    fan = yield ctx.all_typed([ctx.schedule_activity("note", ["fan", k]) for k in range(3)])
    yield ctx.schedule_timer(20)
    child = yield ctx.schedule_sub_orchestration("child", n)
    ctx.set_kv_value("sum", str(n + child))
    yield ctx.schedule_activity("note", ["last", n])
    guid = yield ctx.new_guid()
    again = yield ctx.schedule_activity("note", ["guid", guid])
    return [first[1], len(fan), child, again[1] == guid, ctx.get_kv_value("sum")]


def child(ctx: Any, n: int) -> Any:
    found = yield ctx.schedule_activity("note", ["child", n])
    return found[1] * 2


def run(path: str, ledger: str) -> None:
    descriptor = os.open(ledger, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def note(ctx: Any, value: Any) -> Any:
        os.write(descriptor, f"{ctx.instance_id} {value[0]} {os.getpid()}\n".encode())
        return value

    provider = duroxide.SqliteProvider.open(path, synchronous="normal")
    runtime = duroxide.Runtime(provider, duroxide.RuntimeOptions(dispatcher_poll_interval_ms=10))
    runtime.register_activity("note", note)
    runtime.register_orchestration("flow", flow)
    runtime.register_orchestration("child", child)
    runtime.start()
    while True:
        time.sleep(60)


def main(path: str, ledger: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended
    for _ in sys.stdin:
        born = os.fork()
        if born == 0:
            try:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                run(path, ledger)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        print(born, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
