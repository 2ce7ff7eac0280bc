"""Where the time of one workload goes: CPU per thread, transactions and their sizes, and the way of one instance step by step.

usage: python bench/profile_run.py [--synchronous full|normal] [--directory DIR] WORKLOAD SIZE

Ours only. It stands between the queue and the store and notes when calls begin and end; that costs about 2 us a call.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duroxide
from duroxide.runtime import loop, workers
from duroxide.storage.sqlite import open_sqlite

sys.path.insert(0, str(Path(__file__).resolve().parent / "workloads"))
import program
from run import WORKLOADS

Mark = tuple[float, str, int]  # when, what, the thread


class Marks:
    """What happened when and on which thread."""

    def __init__(self) -> None:
        self.all: list[Mark] = []

    def add(self, what: str) -> None:
        self.all.append((time.perf_counter(), what, threading.get_native_id()))

    def around(self, what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def marked(*args: Any, **kwargs: Any) -> Any:
            self.add(f"{what} begins")
            try:
                return function(*args, **kwargs)
            finally:
                self.add(f"{what} ends")

        return marked


class Observed:
    """The store, with each of its transactions noted."""

    def __init__(self, store: Any, marks: Marks) -> None:
        self._store, self._marks = store, marks
        self.groups: list[tuple[float, int, int, bool]] = []  # seconds, requests, turns handed in, whether anything was done
        self.load = marks.around("load", store.load)
        self.renew = marks.around("renew", store.renew)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def exchange(self, requests: Any) -> Any:
        writes = [request.done for request in requests if request.done is not None]
        kind = "commit" if writes else "look"
        self._marks.add(f"{kind} begins")
        began = time.perf_counter()
        answers = self._store.exchange(requests)
        took = time.perf_counter() - began
        found = bool(writes) or any(answer.turns or answer.work for answer in answers)
        if kind == "look" and found:
            kind = "claim"
        self._marks.add(f"{kind} ends")
        self.groups.append((took, len(requests), sum(len(done.turns) for done in writes), found))
        return answers


def observe(marks: Marks) -> None:
    """Note turns, activities and what the client does."""
    loop.run_turn = marks.around("turn", loop.run_turn)
    workers.Workers._call = marks.around("activity", workers.Workers._call)  # type: ignore[method-assign]
    for call in ("start_orchestration", "wait_for_orchestration"):
        setattr(duroxide.Client, call, marks.around(call, getattr(duroxide.Client, call)))


# ── what is told ─────────────────────────────────────────────────────────────────────────────────────────────────


def milliseconds(values: list[float]) -> str:
    cuts = statistics.quantiles(values, n=10) if len(values) > 1 else values * 9
    return f"p50 {statistics.median(values) * 1e3:7.3f} ms, p90 {cuts[8] * 1e3:7.3f} ms"


def tell_groups(groups: list[tuple[float, int, int, bool]], seconds: float) -> None:
    for title, chosen in (("wrote or claimed", True), ("found nothing", False)):
        those = [group for group in groups if group[3] is chosen]
        if those:
            count, spent = len(those), sum(group[0] for group in those)
            print(f"transactions that {title}: {count} ({count / seconds:,.0f}/s), {milliseconds([group[0] for group in those])}")
            requests, turns = (sum(group[n] for group in those) / count for n in (1, 2))
            print(f"    {spent / seconds:.0%} of the time; {requests:.2f} requests and {turns:.2f} turns each")


def tell_threads(seconds: float) -> None:
    """While the threads still live."""
    for thread in threading.enumerate():
        if hasattr(time, "pthread_getcpuclockid") and thread.ident is not None:
            spent = time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
            print(f"CPU of {thread.name}: {spent / seconds:.1%} of the time")


def tell_way(marks: list[Mark]) -> None:
    """The median time between two marks of an instance that runs alone, over the instances that went the usual way."""
    ways: dict[tuple[str, ...], list[list[float]]] = {}
    current: list[Mark] = []
    for mark in sorted(marks):
        if mark[1] == "start_orchestration begins":
            current = []
        current.append(mark)
        if mark[1] == "wait_for_orchestration ends":
            times = [when for when, _, _ in current]
            ways.setdefault(tuple(what for _, what, _ in current), []).append([b - a for a, b in zip(times, times[1:])])
    usual, gaps = max(ways.items(), key=lambda item: len(item[1]))
    total = sum(len(found) for found in ways.values())
    print(f"{len(ways)} ways; the most usual one was gone by {len(gaps)} of {total} instances; median of each stretch, us:")
    at = 0.0
    for what, *stretch in zip(usual[1:], *gaps):
        at += statistics.median(stretch) * 1e6
        print(f"    {statistics.median(stretch) * 1e6:8.0f}  {at:8.0f}  {what}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("size", type=int)
    parser.add_argument("--synchronous", default="full")
    parser.add_argument("--directory", type=Path, help="where the database is made (default: the system's temporary directory)")
    given = parser.parse_args()
    marks = Marks()
    observe(marks)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=given.directory) as directory:
        store = Observed(open_sqlite(str(Path(directory) / "bench.db"), synchronous=given.synchronous), marks)
        program.provider_of = lambda target, **options: duroxide.SqliteProvider(store)
        bench = program.Bench("observed")
        began = time.perf_counter()
        print(WORKLOADS[given.workload](bench, given.size))
        seconds = time.perf_counter() - began
        tell_threads(seconds)
        bench.runtime.shutdown(200)
    tell_groups(store.groups, seconds)
    if given.workload == "instance":
        tell_way(marks.all)


if __name__ == "__main__":
    main()
