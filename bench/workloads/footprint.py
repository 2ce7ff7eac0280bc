"""What it takes when little happens: CPU of an idle runtime, bytes and memory of instances that wait, import time, size of the package."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # dbos takes two of these workloads, and has no program of ours
    from program import Bench

Figures = dict[str, Any]

LONG_MS = 86_400_000


def idle(bench: Bench, size: int) -> Figures:
    """What a runtime without anything to do costs in `size` tenths of a second: percent of a core."""
    bench.runtime.start()
    bench.client.start_orchestration("warm", "one", 0)
    bench.finish("warm")
    time.sleep(1.0)
    began, used = time.perf_counter(), time.process_time()
    time.sleep(size / 10)
    return {"idle": (time.process_time() - used) / (time.perf_counter() - began) * 100}


def memory() -> float:
    """Resident bytes of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return float(line.split()[1]) * 1024
    raise RuntimeError("no VmRSS in /proc/self/status")


def stored(bench: Bench) -> float:
    """Bytes of the database's file, log included."""
    return float(sum(path.stat().st_size for path in Path(bench.target).parent.glob("bench.db*") if path.is_file()))


def parked(bench: Bench, size: int) -> Figures:
    """`size` instances that each wait for an event: bytes of the file and of memory for each, beyond those that the first thousand take."""
    bench.runtime.start()

    def park(first: int, last: int) -> None:
        for n in range(first, last):
            bench.client.start_orchestration(f"i{n}", "waiter", 1)
        while bench.client.get_queue_depths().orchestrator_queue:
            time.sleep(0.02)
        time.sleep(0.3)

    few = min(1_500, size // 10)  # the cache of live generators is full then
    park(0, few)
    rss, file = memory(), stored(bench)
    park(few, size)
    return {"rss": max(0.0, memory() - rss) / (size - few), "file": (stored(bench) - file) / (size - few), "all_rss": memory() / 2**20}


def sleeping(bench: Bench, size: int) -> Figures:
    """`size` timers that sleep, a thousand an instance: bytes of the file and of memory for each, and CPU of the runtime meanwhile."""
    bench.runtime.start()
    width = min(1_000, size)
    rss, file = memory(), stored(bench)
    began = time.perf_counter()
    for n in range(size // width):
        bench.client.start_orchestration(f"i{n}", "sleepers", {"width": width, "ms": LONG_MS})
    while bench.client.get_queue_depths().timer_queue + bench.client.get_queue_depths().orchestrator_queue < size:
        time.sleep(0.05)
    took = time.perf_counter() - began
    time.sleep(1.0)
    began, used = time.perf_counter(), time.process_time()
    time.sleep(2.0)
    busy = (time.process_time() - used) / (time.perf_counter() - began) * 100
    return {"rss": max(0.0, memory() - rss) / size, "file": (stored(bench) - file) / size, "rate": size / took, "idle": busy}


def importing(bench: Bench | None, size: int) -> Figures:
    """`import` of the package in a fresh process, without the interpreter's own start: ms, the least of `size`."""
    code = "import time; t = time.perf_counter(); import {}; print((time.perf_counter() - t) * 1e3)"
    took = []
    for _ in range(size):
        command = [sys.executable, "-c", code.format("dbos" if importlib.util.find_spec("dbos") else "duroxide")]
        took.append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    return {"import": min(took)}


def packaged(bench: Bench | None, size: int) -> Figures:
    """KiB of a wheel with the package's own files, deflated as pip's tools do."""
    name = "dbos" if importlib.util.find_spec("dbos") else "duroxide"
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None
    root, buffer = Path(spec.origin).parent, io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(root.rglob("*")):
            if path.suffix in (".py", ".pyi", ".so", ".pyd", ".typed", ".json") and "__pycache__" not in path.parts:
                archive.write(path, path.relative_to(root.parent))
    return {"wheel": len(buffer.getvalue()) / 1024, "version": importlib.metadata.version(name)}


WORKLOADS = {f.__name__: f for f in (idle, parked, sleeping, importing, packaged)}
ALONE = (importing, packaged)  # need no database
