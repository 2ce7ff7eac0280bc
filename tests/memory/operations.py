"""Every client call, verb and cycle of a runtime, as something that can be done a thousand times on one store, for `growth.leak`.

usage: python operations.py GROUP COUNT PATH IMPLEMENTATION; a line for each operation that keeps something, then "done N".
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from memory.growth import leak  # noqa: E402

import duroxide  # noqa: E402
from duroxide.engine import _codec  # noqa: E402
from duroxide.runtime.clock import Clock  # noqa: E402
from duroxide.storage import sqlite  # noqa: E402
from duroxide.storage.base import Appetite, Done, Renewal, Request, TurnBack, TurnDone  # noqa: E402

Operation = Callable[[int], object]
DEEP = {"deep": [{"a": [1, 2.5, None, True, "ü" * 50]}] * 20}


def small_pages(connect: Any) -> Any:
    """SQLite's page cache grows with the file up to its limit: 20 pages here."""

    def connected(*arguments: Any) -> Any:
        connection = connect(*arguments)
        connection.execute("PRAGMA cache_size=20")
        return connection

    return connected


def refused(call: Callable[[], object]) -> None:
    """It is not accepted, and leaves nothing behind."""
    try:
        call()
    except Exception:
        return
    raise AssertionError("it was accepted")


# ── orchestrations: each ends by itself ──


def echo(ctx: Any, value: Any) -> Any:
    return value


def fails(ctx: Any, value: Any) -> Any:
    raise ValueError(str(value))


def chain(ctx: Any, n: int) -> Any:
    for _ in range(3):
        n = yield ctx.schedule_activity("echo", n)
    return n


def fan(ctx: Any, n: int) -> Any:
    return (yield ctx.all_typed([ctx.schedule_activity("echo", k) for k in range(5)]))


def race(ctx: Any, n: int) -> Any:
    won = yield ctx.race(ctx.schedule_activity("echo", n), ctx.schedule_timer(3_600_000), ctx.wait_for_event("never"))
    return won["index"]


def values(ctx: Any, n: int) -> Any:
    ctx.set_kv_value("a", str(n))
    ctx.set_custom_status(f"at {n}")
    guid, now = (yield ctx.new_guid()), (yield ctx.utc_now())
    found = yield ctx.get_kv_value_from_instance(ctx.instance_id, "a")
    ctx.clear_kv_value("a")
    return [len(guid), now > 0, found]


def caught(ctx: Any, n: int) -> Any:
    try:
        yield ctx.schedule_activity_with_retry("fails", n, {"max_attempts": 2, "backoff": {"type": "fixed", "initial_ms": 1}})
    except Exception as error:
        return str(error)


def failing(ctx: Any, n: int) -> Any:
    yield ctx.schedule_activity("fails", n)


def parent(ctx: Any, n: int) -> Any:
    return (yield ctx.schedule_sub_orchestration("chain", n))


def rounds(ctx: Any, n: int) -> Any:
    yield ctx.schedule_timer(1)
    if n > 0:
        yield ctx.continue_as_new(n - 1)
    return n


def waits(ctx: Any, n: int) -> Any:
    first = yield ctx.dequeue_event("inbox")
    return [first, (yield ctx.wait_for_event("go"))]


def nonsense(ctx: Any, n: int) -> Any:
    yield object()


def seated(ctx: Any, n: int) -> Any:
    return (yield ctx.schedule_activity_on_session("echo", n, "s"))


FLOWS = (chain, fan, race, values, caught, failing, parent, rounds, waits, nonsense, seated)


def started(provider: Any) -> duroxide.Runtime:
    options = duroxide.RuntimeOptions(log_level="off", worker_concurrency=2, orchestration_concurrency=1, dispatcher_poll_interval_ms=20)
    runtime = duroxide.Runtime(provider, options)
    runtime.register_activity("echo", echo)
    runtime.register_activity("fails", fails)
    for flow in FLOWS:
        runtime.register_orchestration(flow.__name__, flow)
    runtime.start()
    return runtime


# ── the groups ──


def calls(provider: Any) -> dict[str, Operation]:
    """Every call of a client, on a store with something in it; what is written is deleted again."""
    client = duroxide.Client(provider)
    runtime = started(provider)
    client.start_orchestration("seed", "values", 1)
    client.start_orchestration("twice", "rounds", 1)
    for instance in ("seed", "twice"):
        client.wait_for_orchestration(instance)
    runtime.shutdown()
    everything = duroxide.InstanceFilter(instance_ids=["nobody"])

    def started_and_deleted(n: int) -> None:
        client.start_orchestration(f"i{n}", "nowhere", DEEP)
        client.start_orchestration_versioned(f"i{n}", "nowhere", DEEP, "1.2.3")
        client.start_orchestrations([(f"i{n}", "nowhere", n), (f"i{n}", "nowhere", n)])
        client.raise_event(f"i{n}", "e", DEEP)
        client.enqueue_event(f"i{n}", "q", DEEP)
        client.cancel_instance(f"i{n}", "because")
        provider._native._cold.execute("DELETE FROM orchestrator_queue")

    def unknown(n: int) -> None:
        refused(lambda: client.get_instance_info(f"none{n}"))
        refused(lambda: client.wait_for_orchestration(f"none{n}", 1))
        refused(lambda: client.wait_for_status_change(f"none{n}", 99, timeout_ms=1))
        refused(lambda: client.wait_for_kv_value("seed", "none", 1))
        refused(lambda: client.start_orchestration(f"x\ud800{n}", "f"))
        refused(lambda: client.start_orchestration(f"i{n}", "f", object()))
        refused(lambda: client.start_orchestration(n, "f"))  # type: ignore[arg-type]

    return {
        "start, raise, enqueue, cancel": started_and_deleted,
        "what is refused": unknown,
        "get_status": lambda n: client.get_status("seed"),
        "get_status of nobody": lambda n: client.get_status(f"none{n}"),
        "wait_for_orchestration": lambda n: client.wait_for_orchestration("seed"),
        "wait_for_orchestration_typed": lambda n: client.wait_for_orchestration_typed("seed"),
        "wait_for_status_change": lambda n: client.wait_for_status_change("seed", 0),
        "get_kv_value": lambda n: client.get_kv_value("seed", "a"),
        "get_system_metrics": lambda n: client.get_system_metrics(),
        "get_orchestration_stats": lambda n: client.get_orchestration_stats("seed"),
        "get_queue_depths": lambda n: client.get_queue_depths(),
        "list_all_instances": lambda n: client.list_all_instances(),
        "list_instances_by_status": lambda n: client.list_instances_by_status("Completed"),
        "list_executions": lambda n: client.list_executions("twice"),
        "get_instance_info": lambda n: client.get_instance_info("seed"),
        "get_execution_info": lambda n: client.get_execution_info("twice", 2),
        "read_execution_history": lambda n: client.read_execution_history("seed", 1),
        "get_instance_tree": lambda n: client.get_instance_tree("seed"),
        "delete_instance_bulk": lambda n: client.delete_instance_bulk(everything),
        "prune_executions": lambda n: client.prune_executions("twice", duroxide.PruneOptions(keep_last=5)),
        "prune_executions_bulk": lambda n: client.prune_executions_bulk(everything, duroxide.PruneOptions(keep_last=5)),
        "a client of its own": lambda n: duroxide.Client(provider),
    }


def verbs(provider: Any) -> dict[str, Operation]:
    """The store's, and the parts of the engine that have no thread."""
    native = provider._native
    client = duroxide.Client(provider)
    client.start_orchestration("i", "f", DEEP)
    now = Clock().now()
    appetite = Appetite("o", 4, 4, 60_000, 60_000)

    def claimed_and_given_back(n: int) -> None:
        (taken,) = native.exchange([Request(now, None, appetite)])
        done = Done()
        for turn in taken.turns:
            done.turns.append(TurnDone("lost", turn.instance, 1))  # comes to nothing
            done.turn_backs.append(TurnBack(turn.lease, turn.instance, 0, True))
        native.exchange([Request(now, done)])

    def no_text(n: int) -> None:
        done = Done()
        done.messages = [("i", "{}", 0), ("j", "x\ud800", 0)]
        refused(lambda: native.exchange([Request(now, done)]))

    def no_record(n: int) -> None:
        refused(lambda: native.exchange([Request(now, Done()), None]))

    text = _codec.dumps(DEEP)
    return {
        "exchange": claimed_and_given_back,
        "exchange of nothing": lambda n: native.exchange([]),
        "exchange of what is no text": no_text,
        "exchange of what is no record": no_record,
        "load": lambda n: native.load("seed", None),
        "load of nobody": lambda n: native.load(f"none{n}", 3),
        "renew": lambda n: native.renew(Renewal(now, [("i", "t")], 1_000, [(1, "t")], 1_000)),
        "dumps": lambda n: _codec.dumps(DEEP),
        "dumps of what has no JSON": lambda n: refused(lambda: _codec.dumps({"x": [object()]})),
        "loads": lambda n: _codec.loads(text),
        "loads of damage": lambda n: refused(lambda: _codec.loads(text[:-9])),
    }


def flows(provider: Any) -> dict[str, Operation]:
    """Instances from start to deletion, on a runtime that goes on."""
    client, runtime = duroxide.Client(provider), started(provider)

    def run(name: str) -> Operation:
        def operation(n: int) -> None:
            instance = f"{name}{n}"
            client.start_orchestration(instance, name, 2)
            if name == "waits":
                client.enqueue_event(instance, "inbox", n)
                while "ExternalSubscribed" not in {event.kind for event in client.read_execution_history(instance, 1)}:
                    pass
                client.raise_event(instance, "go", n)
            client.wait_for_orchestration(instance)
            client.delete_instance(instance, force=True)

        return operation

    found = {flow.__name__: run(flow.__name__) for flow in FLOWS}
    found["runtime"] = lambda n: runtime.metrics_snapshot()
    return found


def cycles(provider: Any) -> dict[str, Operation]:
    """Things that are made and ended as a whole."""
    directory = Path(sys.argv[3]).parent
    client = duroxide.Client(provider)

    def runtime(n: int) -> None:
        made = started(provider)
        client.start_orchestration(f"i{n}", "chain", n)
        client.wait_for_orchestration(f"i{n}")
        made.shutdown()
        client.delete_instance(f"i{n}", force=True)

    def idle_runtime(n: int) -> None:
        started(provider).shutdown()

    def opened(n: int) -> None:
        sqlite.open_sqlite(str(directory / "other.db"), implementation=sys.argv[4]).close()

    def forgotten(n: int) -> None:
        """Nobody closes it."""
        found = sqlite.open_sqlite(str(directory / "other.db"), implementation=sys.argv[4])
        found.load("x", None)

    def in_memory(n: int) -> None:
        found = duroxide.SqliteProvider.in_memory()
        duroxide.Client(found).get_status("x")
        found.close()

    def no_database(n: int) -> None:
        (directory / "no.db").write_text("this is no database" * 100)
        refused(lambda: sqlite.open_sqlite(str(directory / "no.db")))

    return {
        "a runtime": runtime, "an idle runtime": idle_runtime, "a provider": opened, "a provider that nobody closes": forgotten,
        "a store in memory": in_memory, "a file that is none": no_database,
    }  # fmt: skip


def planted(provider: Any) -> dict[str, Operation]:
    """To be caught: a reference too many, a list that grows, memory of C that nobody frees."""
    kept: list[object] = []
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    return {
        "a reference too many": lambda n: ctypes.pythonapi.Py_IncRef(ctypes.py_object(f"text {n}")),
        "a list that grows": lambda n: kept.append([n]),
        "memory that nobody frees": lambda n: library.malloc(100),
    }


GROUPS = {group.__name__: group for group in (calls, verbs, flows, cycles, planted)}


def main(group: str, count: str, path: str, implementation: str) -> None:
    sqlite._connect = small_pages(sqlite._connect)
    provider = duroxide.SqliteProvider(sqlite.open_sqlite(path, synchronous="normal", implementation=implementation))
    operations = GROUPS[group](provider)
    for name, operation in operations.items():
        kept = leak(operation, int(count))
        if kept:
            print(f"{name}: keeps {kept} a call", flush=True)
    print("done", len(operations), flush=True)
    with contextlib.suppress(Exception):
        provider.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
