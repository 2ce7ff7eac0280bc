"""Threads that are switched every microsecond, at any line: the mixed load of the soak, each story with the one result it may have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"
PROGRAM = """
import sys, threading, time
sys.path.insert(0, sys.argv[1])
import duroxide, soak_load
from duroxide.storage.sqlite import open_sqlite
sys.setswitchinterval(1e-6)
path, implementation, seconds = sys.argv[2], sys.argv[3], float(sys.argv[4])
provider = duroxide.SqliteProvider(open_sqlite(path, synchronous="normal", implementation=implementation))
client, runtimes, wrong, ended = duroxide.Client(provider), [], [], 0
for _ in range(2):
    runtime = duroxide.Runtime(provider, duroxide.RuntimeOptions(worker_concurrency=4, orchestration_concurrency=2, log_level="off"))
    soak_load.register(runtime)
    runtime.start()
    runtimes.append(runtime)
end, names = time.monotonic() + seconds, list(soak_load.STORIES)

def tell(slot):
    global ended
    n = slot
    while time.monotonic() < end:
        name = names[n % len(names)]
        try:
            got, wanted = soak_load.STORIES[name](client, f"{name}-{n}", n)
            if got != wanted:
                wrong.append((name, n, got, wanted))
        except Exception as error:
            wrong.append((name, n, repr(error)))
        ended += 1
        n += 5

threads = [threading.Thread(target=tell, args=(slot,)) for slot in range(5)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for runtime in runtimes:
    runtime.shutdown()
provider.close()
assert not wrong, wrong[:5]
assert ended > 10, ended
print(ended)
"""


def stories(directory: Path, implementation: str, seconds: float) -> int:
    command = [sys.executable, "-c", PROGRAM, str(BENCH), str(directory / "x.db"), implementation, str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 200)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr[-3_000:]
    return int(done.stdout)


def test_switching_at_any_line_breaks_nothing(tmp_path: Path) -> None:
    stories(tmp_path, "c", 2.5)


@pytest.mark.soak
@pytest.mark.parametrize("implementation", ["c", "python"])
def test_switching_at_any_line_breaks_nothing_for_minutes(tmp_path: Path, implementation: str) -> None:
    print(implementation, stories(tmp_path, implementation, 120), "stories")
