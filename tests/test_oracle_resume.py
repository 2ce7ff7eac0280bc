"""There and back: a file that this package left in mid-flight, killed, is resumed by the reference to the same results.

The other way is in test_fixture.py. Needs the reference in an environment of its own: DUROXIDE_ORACLE=its python, `-m oracle`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_fixture import DATA, STALE_STATUS, expected

pytestmark = pytest.mark.oracle

BEGIN = """
import os, signal, sys, time
sys.path.insert(0, sys.argv[2])
import duroxide, inflight_orchestrations as code
provider = duroxide.SqliteProvider.open(sys.argv[1])
client = duroxide.Client(provider)
runtime = duroxide.Runtime(provider, duroxide.RuntimeOptions(dispatcher_poll_interval_ms=5))
code.register(runtime)
runtime.start()
for instance, (name, value, version) in code.STARTS.items():
    if version is None:
        client.start_orchestration(instance, name, value)
    else:
        client.start_orchestration_versioned(instance, name, value, version)
while len(client.list_instances_by_status("Running")) < 15:
    time.sleep(0.05)
client.raise_event("i_wait", "go", "first")
for message in ("m1", "m2"):
    client.enqueue_event("i_queue", "inbox", message)
time.sleep(2)
os.kill(os.getpid(), signal.SIGKILL)
"""
FINISH = """
import sys, time
sys.path.insert(0, sys.argv[2])
import duroxide, inflight_orchestrations as code
provider = duroxide.SqliteProvider.open(sys.argv[1])
client = duroxide.Client(provider)
runtime = duroxide.Runtime(provider, duroxide.RuntimeOptions(dispatcher_poll_interval_ms=5))
code.register(runtime)
runtime.start()
for verb, instance, name, data in code.FINISH:
    (client.raise_event if verb == "raise" else client.enqueue_event)(instance, name, data)
client.cancel_instance("i_timer_long", "fixture cancel")
for instance in sys.argv[3:]:
    result = client.wait_for_orchestration(instance, 60_000)
    error = (result.error or "").replace("\\n", " ")
    if "Traceback" in error:
        error = " " + error[error.rindex("f_fail"):]
    print("RESULT", instance, result.status, result.output, error, result.custom_status, result.custom_status_version, flush=True)
import os; os._exit(0)
"""


def results(python: str, path: Path, instances: list[str]) -> dict[str, str]:
    done = subprocess.run([python, "-c", FINISH, str(path), str(DATA), *instances], capture_output=True, text=True, timeout=300, cwd=path.parent)
    lines = [line.split(" ", 2) for line in done.stdout.splitlines() if line.startswith("RESULT")]
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return {line[1]: line[2] for line in lines}


def comparable(text: str) -> str:
    """Without the GUID and the time of the run, and with the status that the reference reads stale (D8)."""
    return "stable" if text.startswith("Completed ['") and len(text) > 60 else text.replace(*STALE_STATUS)


def test_the_reference_resumes_what_this_package_left(tmp_path: Path) -> None:
    path = tmp_path / "left.db"
    killed = subprocess.run([sys.executable, "-c", BEGIN, str(path), str(DATA)], timeout=60)
    assert killed.returncode == -9
    wanted = {instance: text for instance, text in expected().items() if instance != "i_unfetched"}
    found = results(os.environ["DUROXIDE_ORACLE"], path, list(wanted))
    ours = tmp_path / "ours.db"
    subprocess.run([sys.executable, "-c", BEGIN, str(ours), str(DATA)], timeout=60)
    own = results(sys.executable, ours, list(wanted))
    assert {i: comparable(t) for i, t in found.items()} == {i: comparable(t) for i, t in own.items()}
