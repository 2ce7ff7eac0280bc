"""PostgreSQL schemas that the reference made: handed over in both directions, and worked on by two of each at once.

Needs `-m oracle`, DUROXIDE_ORACLE and, for the older version, DUROXIDE_ORACLE_0_1_24.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from compat import matrix
from compat.matrix import OURS, Journey
from compat.schema import Schema
from postgres_server import Server
from test_compat import HANDOVERS, check, needs

pytestmark = pytest.mark.oracle


def schema_of(postgres: Server, name: str, rider: str, scratch: Path) -> Schema:
    """Made by the reference, of the version that comes first."""
    scratch.mkdir(exist_ok=True)
    url = postgres.url.replace(":@/", "@localhost/")  # it wants a host
    return Schema(url, name).made_by("0.2.2" if rider == OURS else rider, scratch)


@pytest.mark.parametrize(("riders", "instead"), HANDOVERS, ids=lambda riders: "-".join(riders))
def test_every_state_of_a_schema_ends_as_if_nobody_had_taken_over(riders: list[str], instead: list[str], postgres: Server, tmp_path: Path) -> None:
    needs(riders)
    states = matrix.states_for(riders)
    found = []
    for who in (instead, riders):
        with postgres.schema() as name:
            scratch = tmp_path / "-".join(who)
            found.append(Journey(schema_of(postgres, name, who[0], scratch), who, states, scratch).run())
    check(matrix.comparable(found[0]), found[1], riders, states)


# ── at once ──

# One runtime of four; the same lines for both packages. `where` is the tag that only this package's runtimes serve.
RUNTIME = """
import json, sys, time
import duroxide

url, schema, who, where, log = sys.argv[1:]
provider = duroxide.PostgresProvider.connect_with_schema(url, schema)
options = duroxide.RuntimeOptions(
    dispatcher_poll_interval_ms=10, orchestration_concurrency=2, worker_concurrency=4, worker_lock_timeout_ms=2_000, max_attempts=3,
    session_lock_timeout_ms=3_000, worker_node_id=who, worker_tag_filter=duroxide.TagFilter.default_and([where]),
)
runtime = duroxide.Runtime(provider, options)

def noted(ctx, value):
    with open(log, "a") as f:
        f.write(json.dumps([ctx.instance_id, who, value]) + chr(10))
    return who

def slow(ctx, value):
    time.sleep(3)  # longer than its lease: it must be renewed, and nobody may take it over
    return noted(ctx, value)

def fail(ctx, value):
    raise ValueError("no")

def kid(ctx, n):
    first = yield ctx.schedule_activity("noted", "kid")
    return [n, (yield ctx.dequeue_event("q"))]

def flow(ctx, n):
    theirs = yield ctx.schedule_activity("noted", "theirs").with_tag("theirs")
    ours = yield ctx.schedule_activity("noted", "ours").with_tag("ours")
    ctx.set_kv_value("n", str(n))
    on = []
    for k in range(3):
        on.append((yield ctx.schedule_activity_on_session("noted", f"session {k}", f"s{n}")))
    both = yield ctx.all([ctx.schedule_activity("slow", "slow") if n % 5 == 0 else ctx.schedule_timer(5), ctx.wait_for_event("go")])
    child = yield ctx.schedule_sub_orchestration_with_id("kid", f"kid{n}", n)
    try:
        yield ctx.schedule_activity_with_retry("fail", n, {"max_attempts": 2, "backoff": "linear"})
    except Exception as error:
        failed = str(error)
    if n < 1000:
        yield ctx.continue_as_new(n + 1000)
    return [theirs[:4], ours[:4], len(set(on)), child, failed, ctx.get_kv_value("n")]

def unknown(ctx, n):
    return (yield ctx.schedule_activity("nobody has it", n))

for activity in (noted, slow, fail):
    runtime.register_activity(activity.__name__, activity)
for orchestration in (kid, flow, unknown):
    runtime.register_orchestration(orchestration.__name__, orchestration)
runtime.start()
print("ready", flush=True)
sys.stdin.readline()
runtime.shutdown(500)
import os; os._exit(0)
"""
COUNT = 20


class Together:
    """Two runtimes of each package on one schema."""

    def __init__(self, schema: Schema, scratch: Path) -> None:
        self.schema, self.log = schema, scratch / "ran.log"
        self.processes: dict[str, subprocess.Popen[str]] = {}
        for rider, where in ((OURS, "ours"), ("0.2.2", "theirs")):
            for n in range(2):
                who = f"{where}-{n}"
                command = [matrix.python(rider), "-I", "-c", RUNTIME, schema.url, schema.name, who, where, str(self.log)]
                out = (scratch / f"{who}.out").open("w")
                self.processes[who] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=out, text=True, cwd=scratch)

    def kill(self, who: str) -> None:
        self.processes.pop(who).kill()

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.communicate()

    def ran(self) -> list[list[Any]]:
        import json

        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.mark.parametrize("killed", [(), ("theirs-0", "ours-0")], ids=["all live", "one of each killed"])
def test_two_of_each_share_a_schema(killed: tuple[str, ...], postgres: Server, schema: str, tmp_path: Path) -> None:
    import duroxide

    shared = schema_of(postgres, schema, "0.2.2", tmp_path)
    together = Together(shared, tmp_path)
    provider = duroxide.PostgresProvider.connect_with_schema(postgres.url, schema)
    client = duroxide.Client(provider)
    try:
        for n in range(COUNT):
            client.start_orchestration(f"i{n}", "flow", n)
        client.start_orchestration("poison", "unknown", 1)
        deadline = time.monotonic() + 150
        pending = {f"i{n}" for n in range(COUNT)}
        enqueued: set[tuple[str, int]] = set()
        victims = list(killed)
        while pending and time.monotonic() < deadline:
            for instance in sorted(pending):
                execution = max(client.list_executions(instance), default=0)
                kinds = [e.kind for e in client.read_execution_history(instance, execution)] if execution else []
                number = int(instance[1:])
                if kinds.count("ExternalSubscribed") > kinds.count("ExternalEvent"):
                    client.raise_event(instance, "go", number)
                    if victims:
                        together.kill(victims.pop())
                kid = f"kid{number + 1000 * (execution - 1)}"
                if "SubOrchestrationScheduled" in kinds and (kid, execution) not in enqueued:
                    subscribed = [e.kind for e in client.read_execution_history(kid, 1)]
                    if "QueueSubscribed" in subscribed:
                        client.enqueue_event(kid, "q", "m")
                        enqueued.add((kid, execution))
                if client.get_status(instance).status in ("Completed", "Failed"):
                    pending.discard(instance)
            time.sleep(0.05)
        assert not pending, sorted(pending)
        for n in range(COUNT):
            found = client.get_status(f"i{n}")
            assert found.status == "Completed", (n, found.error)
            theirs, ours, owners, child, failed, kept = found.output
            assert (theirs, ours, kept) == ("thei", "ours", str(n + 1000)), found.output
            assert child == [n + 1000, "m"] and failed == "Activity 'fail' call failed: ValueError: no"
            assert killed or owners == 1, "a session moved although its owner lives"
        poison = client.wait_for_orchestration("poison", 60_000)
        assert poison.status == "Failed" and poison.error == "poison: activity nobody has it#2 exceeded 4 attempts (max 3)"
        assert {who.split("-")[0] for _, who, value in together.ran() if value == "theirs"} == {"theirs"}
        assert {who.split("-")[0] for _, who, value in together.ran() if value == "ours"} == {"ours"}
        if not killed:  # nothing ran twice: leases were respected, and renewed while the work was slow
            calls = [(instance, value) for instance, _, value in together.ran() if not instance.startswith("kid")]
            assert all(calls.count(call) == 2 for call in calls), "each once an execution"
        queues = ("orchestrator_queue", "worker_queue", "instance_locks")
        left = {queue: shared.rows(f"SELECT count(*) FROM {queue}")[0][0] for queue in queues}
        assert left["worker_queue"] == 0, left
    finally:
        together.close()
        provider.close()
