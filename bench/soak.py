"""A long run under mixed load: does anything grow? One line of CSV a sample, a chart, and a verdict as the exit code.

    python bench/soak.py --minutes 60 --csv soak.csv --svg docs/soak.svg

One process has the clients and a runtime, and is the one that is measured (Linux: /proc). A neighbour process works on the same file and
is killed with SIGKILL now and then; the runtime is shut down and made anew in between; ended instances are deleted as a user would.
Every story of `soak_load.py` checks its own result. `soak_verdict.py` says what "flat" means.
"""

from __future__ import annotations

import argparse
import csv
import gc
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import soak_load
import soak_verdict

import duroxide

FOREVER, IDLE = 5, 500  # instances that live as long as the soak: loops, and those that wait for an event


def new_runtime(provider: Any) -> duroxide.Runtime:
    options = duroxide.RuntimeOptions(worker_concurrency=6, orchestration_concurrency=2, log_level="error")
    runtime = duroxide.Runtime(provider, options)
    soak_load.register(runtime)
    runtime.start()
    return runtime


def neighbour(path: str) -> None:
    """The other process: works until it is killed, or its parent is gone."""
    runtime = new_runtime(duroxide.SqliteProvider.open(path))
    sys.stdin.read()
    runtime.shutdown()


class Soak:
    """The measured process: client threads, the runtime, the gardener, the counters."""

    def __init__(self, path: Path, rate: float, clients: int) -> None:
        self.path, self.rate, self.clients = path, rate, clients
        self.provider = duroxide.SqliteProvider.open(str(path))
        self.client = duroxide.Client(self.provider)
        self.runtime = new_runtime(self.provider)
        self.neighbour = self.new_neighbour()
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.ended = self.killed = self.restarted = self.deleted = 0
        self.wrong: list[str] = []
        self.took: list[float] = []
        starts: list[tuple[Any, ...]] = [(f"forever-{n}", "soak_forever", 0) for n in range(FOREVER)]
        self.client.start_orchestrations(starts + [(f"idle-{n}", "soak_approval", n) for n in range(IDLE)])

    def new_neighbour(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, __file__, "--neighbour", str(self.path)], stdin=subprocess.PIPE)

    # ── what goes on at the same time ──

    def tell(self, slot: int) -> None:
        """One client: story after story, begun at its share of the rate; late ones are not made up for."""
        names = list(soak_load.STORIES)
        n = slot
        while not self.over.is_set():
            began = time.monotonic()
            name = names[(n + n // len(names)) % len(names)]
            try:
                got, wanted = soak_load.STORIES[name](self.client, f"{name}-{n}", n)
                fault = "" if got == wanted else f"{name}-{n}: {got!r}, expected {wanted!r}"
            except Exception as error:
                fault = f"{name}-{n}: {error!r}"
            with self.lock:
                self.ended += 1
                self.took.append((time.monotonic() - began) * 1e3)
                if fault:
                    self.wrong.append(fault)
                    print(fault, flush=True)  # while it is warm
            n += self.clients
            self.over.wait(max(0.0, began + self.clients / self.rate - time.monotonic()))

    def tend(self) -> None:
        """What an operator does: delete what has ended, keep few executions, look, open the file a second time."""
        ended = duroxide.InstanceFilter(completed_before=int(time.time() * 1e3) - 20_000, limit=2_000)
        self.deleted += self.client.delete_instance_bulk(ended).instances_deleted
        for n in range(FOREVER):
            self.client.enqueue_event(f"forever-{n}", "nudge")
            self.client.prune_executions(f"forever-{n}", duroxide.PruneOptions(keep_last=2))
        second = duroxide.SqliteProvider.open(str(self.path))
        duroxide.Client(second).list_instances_by_status("Running")
        second.close()

    def kill(self) -> None:
        self.neighbour.send_signal(signal.SIGKILL)
        self.neighbour.wait()
        if self.neighbour.stdin:
            self.neighbour.stdin.close()
        self.neighbour = self.new_neighbour()
        self.killed += 1

    def restart(self) -> None:
        self.runtime.shutdown()
        self.runtime = new_runtime(self.provider)
        self.restarted += 1

    # ── the run ──

    def run(self, minutes: float, sample_s: float, write: Callable[[dict[str, float]], None]) -> None:
        threads = [threading.Thread(target=self.tell, args=(slot,), daemon=True) for slot in range(self.clients)]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        rounds = max(1, round(minutes * 60 / sample_s))
        for n in range(1, rounds + 1):
            time.sleep(max(0.0, began + n * sample_s - time.monotonic()))
            self.tend()
            if n % 8 == 0:
                self.kill()
            if n % 20 == 0:
                self.restart()
            write(self.sample(time.monotonic() - began, sample_s))
        self.over.set()
        for thread in threads:
            thread.join(soak_load.WAIT_MS / 1e3)
        assert self.neighbour.stdin
        self.neighbour.stdin.close()
        self.neighbour.wait()
        self.runtime.shutdown()

    def sample(self, elapsed_s: float, sample_s: float) -> dict[str, float]:
        with self.lock:
            took, self.took = sorted(self.took), []
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
        wal = Path(f"{self.path}-wal")
        return {
            "minute": round(elapsed_s / 60, 2),
            "rss_mb": round(int(status["VmRSS"].split()[0]) / 1024, 2),
            "threads": int(status["Threads"]),
            "files": len(os.listdir("/proc/self/fd")),
            "wal_mb": round(wal.stat().st_size / 2**20, 2) if wal.exists() else 0,
            "database_mb": round(self.path.stat().st_size / 2**20, 2),
            "objects": len(gc.get_objects()),
            "ended": self.ended,
            "per_s": round(len(took) / sample_s, 2),
            "p50_ms": round(took[len(took) // 2], 1) if took else 0,
            "p99_ms": round(took[int(len(took) * 0.99)], 1) if took else 0,
            "deleted": self.deleted,
            "killed": self.killed,
            "restarted": self.restarted,
            "wrong": len(self.wrong),
        }


def main(arguments: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(arguments.directory or directory) / "soak.db"
        soak = Soak(path, arguments.rate, arguments.clients)
        samples: list[dict[str, float]] = []
        with open(arguments.csv, "w", newline="", encoding="utf-8") as file:

            def write(sample: dict[str, float]) -> None:
                if not samples:
                    csv.writer(file).writerow(sample)
                csv.writer(file).writerow(sample.values())
                file.flush()
                samples.append(sample)

            soak.run(arguments.minutes, arguments.sample, write)
        faults = soak.wrong[:20] + soak_verdict.judge(samples)
        soak.provider.close()
    if arguments.svg:
        Path(arguments.svg).write_text(soak_verdict.chart(samples), encoding="utf-8")
    print(soak_verdict.summary(samples))
    for fault in faults:
        print(f"NOT FLAT OR WRONG: {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=20, help="stories begun a second")
    parser.add_argument("--clients", type=int, default=8, help="threads that tell them")
    parser.add_argument("--sample", type=float, default=15, help="seconds between samples")
    parser.add_argument("--csv", default="soak.csv")
    parser.add_argument("--svg", help="where to draw the chart")
    parser.add_argument("--directory", help="where the database goes; a temporary directory if left out")
    parser.add_argument("--neighbour", metavar="FILE", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.neighbour:
        neighbour(chosen.neighbour)
    else:
        sys.exit(main(chosen))
