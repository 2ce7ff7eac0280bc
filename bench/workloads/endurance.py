"""Timers and their lateness, cold replay, several processes on one store, and how fast work goes on after a SIGKILL."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from program import TAG, Bench, Figures
from throughput import timed

RUN = str(Path(__file__).resolve().parent / "run.py")
NAP_MS = 250
NAPS = 20


def timers(bench: Bench, size: int) -> Figures:
    """`size` instances, each twenty timers of 250 ms one after the other: lateness in ms (asked for until code goes on, less 250)."""
    for n in range(size):
        bench.client.start_orchestration(f"i{n}", "naps", {"name": f"i{n}", "count": NAPS, "ms": NAP_MS})
    bench.runtime.start()
    took = timed(lambda: [bench.finish(f"i{n}") for n in range(size)])
    seen = bench.seen
    late = sorted((seen[name, at + 1] - seen[name, at]) * 1e3 - NAP_MS for name, at in seen if at % 2 == 0)
    return {"late_p50": statistics.median(late), "late_p99": late[int(len(late) * 0.99)], "rate": size * NAPS / took}


def replay(bench: Bench, size: int) -> Figures:
    """A history of `size` events (a chain that then waits), not in memory: raising the event until the end. Events per second."""
    bench.runtime.start()
    steps = size // 2
    bench.client.start_orchestration("i", "chain_then_wait", steps)
    while len(bench.marks) < steps:
        time.sleep(0.01)
    time.sleep(0.5)
    bench.close()
    bench.runtime = bench.made()
    bench.runtime.start()
    time.sleep(0.1)

    def wake() -> None:
        bench.client.raise_event("i", "go", 1)
        bench.finish("i")

    took = timed(wake)
    return {"replay": size / took, "ms": took * 1e3}


def _child(bench: Bench, name: str, size: int) -> subprocess.Popen[str]:
    command = [sys.executable, RUN, name, str(size), bench.target, json.dumps(bench.options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)


def _says(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == word:
            return
    raise RuntimeError(f"a child ended without saying {word!r}")


def _tells(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def processes(bench: Bench, size: int) -> Figures:
    """`size` queued instances of one activity, drained by three processes together: instances per second."""
    return {"drain": _drained(bench, size, 3, "i")}


def crew(bench: Bench, size: int) -> Figures:
    """The same by one process, by two, by four, each crew on `size` instances of its own, twice and the better of the two; and four to one."""
    found = {
        name: max(_drained(bench, size, workers, f"{name}-{n}-") for n in range(2)) for name, workers in (("one", 1), ("two", 2), ("four", 4))
    }
    return {**found, "share": found["four"] / found["one"]}


def _drained(bench: Bench, size: int, workers: int, prefix: str) -> float:
    names = bench.enqueue("one", size, 1, prefix)
    children = [_child(bench, "_join", 0) for _ in range(workers)]
    for child in children:
        _says(child, "ready")
    for child in children:
        _tells(child)
    took = timed(lambda: [bench.finish(name) for name in names])
    for child in children:
        _tells(child)
        child.wait(30)
    return size / took


def _join(bench: Bench, size: int) -> Figures:
    """In a child: run what there is until told to stop."""
    print("ready", flush=True)
    sys.stdin.readline()
    bench.runtime.start()
    sys.stdin.readline()
    return {}


def recovery(bench: Bench, size: int) -> Figures:
    """`size` instances in flight in a process that is killed: from the start of another's runtime to the first and last step that goes on.

    All have taken one step and have another in the queue; the dead one had begun some of these and held more.
    """
    bench.enqueue("two", size, 1)
    child = _child(bench, "_die", size)
    _says(child, "busy")
    child.send_signal(signal.SIGKILL)
    child.wait(30)
    bench.marks.clear()
    bench.runtime = bench.made(tags=[TAG])
    began = time.perf_counter()
    bench.runtime.start()
    for n in range(size):
        bench.finish(f"i{n}")
    return {"first": (bench.marks[0] - began) * 1e3, "last": (bench.marks[-1] - began) * 1e3}


def _die(bench: Bench, size: int) -> Figures:
    """In a child: the first step of all, then the second of some, which does not end."""
    bench.runtime.start()
    while bench.client.get_queue_depths().worker_queue < size:
        time.sleep(0.02)
    bench.close()
    bench.later = lambda ctx, value: time.sleep(3_600)  # type: ignore[method-assign]
    bench.runtime = bench.made(tags=[TAG])
    bench.runtime.start()
    time.sleep(0.5)
    print("busy", flush=True)
    time.sleep(60)
    os._exit(1)


WORKLOADS = {f.__name__: f for f in (timers, replay, processes, crew, _join, recovery, _die)}
