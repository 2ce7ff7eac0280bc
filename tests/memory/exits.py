"""A program that leaves while a runtime works: usage `python exits.py PATH IMPLEMENTATION HOW AFTER_MS`.

Each start that it was told of is a line on stdout. HOW: as in `WAYS`.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any

import duroxide
from duroxide.storage.sqlite import open_sqlite


def flow(ctx: Any, n: int) -> Any:
    total = 0
    for step in range(4):
        total += yield ctx.schedule_activity("work", n + step)
    yield ctx.schedule_timer(5)
    return total


def work(ctx: Any, value: int) -> int:
    time.sleep(0.001 * (value % 3))
    return value


def raises() -> None:
    raise RuntimeError("on purpose")


WAYS = {
    "falls off its end": lambda: None,
    "sys.exit": lambda: sys.exit(3),
    "an exception": raises,
    "os._exit": lambda: os._exit(4),
    "sys.exit in an activity": lambda: time.sleep(0.1),
}


def main(path: str, implementation: str, how: str, after_ms: str) -> None:
    provider = duroxide.SqliteProvider(open_sqlite(path, implementation=implementation))
    client, runtime = duroxide.Client(provider), duroxide.Runtime(provider, duroxide.RuntimeOptions(log_level="off"))
    runtime.register_activity("work", work if how != "sys.exit in an activity" else lambda ctx, value: sys.exit(9))
    runtime.register_orchestration("flow", flow)
    runtime.start()

    def load(name: str) -> None:
        for n in range(1_000_000):
            client.start_orchestration(f"{name}{n}", "flow", n)
            os.write(1, f"{name}{n}\n".encode())
            if n % 5 == 4:
                client.wait_for_orchestration(f"{name}{n}")

    def wait() -> None:
        client.wait_for_orchestration("nobody", 600_000)

    def look() -> None:
        while True:
            client.read_execution_history("a0", 1), client.get_status("a0")

    for target in (lambda: load("a"), lambda: load("b"), wait, look):
        threading.Thread(target=target, daemon=True).start()
    time.sleep(int(after_ms) / 1_000)
    WAYS[how]()


if __name__ == "__main__":
    main(*sys.argv[1:])
