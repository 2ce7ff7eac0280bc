"""The reference and this package at work on one PostgreSQL schema at once, in a process each: needs `-m oracle` and DUROXIDE_ORACLE."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from postgres_server import Server

pytestmark = pytest.mark.oracle

COUNT = 20
# The same program for both: knows only the API that they share. The event is sent when everybody waits for it.
PROGRAM = """
import sys, time
import duroxide

url, schema, who, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])

def kid(ctx, n):
    return (yield ctx.schedule_activity("echo", n))

def flow(ctx, n):
    total = 0
    for k in range(3):
        total += yield ctx.schedule_activity("echo", k)
    yield ctx.schedule_timer(20)
    total += yield ctx.schedule_sub_orchestration("kid", n)
    yield ctx.dequeue_event("go")
    return total

provider = duroxide.PostgresProvider.connect_with_schema(url, schema)
options = duroxide.RuntimeOptions(orchestration_concurrency=2, worker_concurrency=2, dispatcher_poll_interval_ms=10)
runtime = duroxide.Runtime(provider, options)
runtime.register_activity("echo", lambda ctx, value: value)
runtime.register_orchestration("kid", kid)
runtime.register_orchestration("flow", flow)
print("ready", flush=True)
if who != "nobody":
    sys.stdin.readline()
    runtime.start()
    client = duroxide.Client(provider)
    for n in range(count):
        client.start_orchestration(f"{who}{n}", "flow", n)
    for n in range(count):
        client.enqueue_event(f"{who}{n}", "go", 1)
    for n in range(count):
        result = client.wait_for_orchestration(f"{who}{n}", 60_000)
        assert (result.status, int(result.output)) == ("Completed", 3 + n), (who, n, result.status, result.error)
    print("all", flush=True)
    sys.stdin.readline()  # the other one may still need us
    runtime.shutdown(500)
"""


def begin(python: str, url: str, schema: str, who: str, directory: Path) -> subprocess.Popen[str]:
    command = [python, "-c", PROGRAM, url, schema, who, str(COUNT)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=directory)


def said(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdin is not None and process.stdout is not None
    for line in process.stdout:  # the reference logs there too
        if line == word + "\n":
            return
    raise AssertionError(f"it ended before it said {word!r}")


def test_both_at_once_on_a_schema_of_the_reference(postgres: Server, schema: str, tmp_path: Path) -> None:
    oracle = os.environ["DUROXIDE_ORACLE"]
    url = postgres.url.replace(":@/", "@localhost/")  # it wants a host
    maker = begin(oracle, url, schema, "nobody", tmp_path)
    said(maker, "ready")
    maker.communicate(timeout=60)
    both = [begin(oracle, url, schema, "theirs", tmp_path), begin(sys.executable, url, schema, "ours", tmp_path)]
    try:
        for word in ("ready", "all"):
            for process in both:
                said(process, word)
            for process in both:
                assert process.stdin is not None
                process.stdin.write("on\n")
                process.stdin.flush()
        for process in both:
            assert process.wait(60) == 0
    finally:
        for process in both:
            process.kill()
            process.communicate()
    queues = ("orchestrator_queue", "worker_queue", "instance_locks")
    assert [postgres.execute(f"SELECT count(*) FROM {schema}.{table}") for table in queues] == [[(0,)]] * 3
    ended = postgres.execute(f"SELECT status, count(*) FROM {schema}.executions GROUP BY status")
    assert ended == [("Completed", 4 * COUNT)]
