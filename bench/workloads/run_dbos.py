"""The workloads on PyPI's `dbos`, as near to ours as its model allows: `python run_dbos.py NAME SIZE PLACE`.

A step is a `@DBOS.step`, an instance a workflow, `all` a child workflow a member, a queue message `send`/`recv`, a custom status an event.
Its defaults, but polls of 10 ms as the others have; no limit on how many workflows run at once, which is faster than two.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from footprint import importing, packaged

Figures = dict[str, Any]
marks: list[float] = []
POLL_S = 0.01


def connect(place: str) -> str:
    from dbos import DBOS

    url = place if place.startswith("postgres") else f"sqlite:///{Path(place) / 'bench.sqlite'}"
    config: dict[str, Any] = {
        "name": "bench", "system_database_url": url, "log_level": "ERROR", "application_version": "1", "enable_otlp": False,
        "notification_listener_polling_interval_sec": POLL_S,
    }  # fmt: skip
    if place.startswith("postgres"):
        config["dbos_system_schema"] = f"bench_{uuid.uuid4().hex[:12]}"
    DBOS(config=config)
    define()
    DBOS.launch()
    return str(config.get("dbos_system_schema", "dbos"))


workflows: dict[str, Any] = {}


def define() -> None:
    from dbos import DBOS

    @DBOS.step()
    def echo(value: Any) -> Any:
        marks.append(time.perf_counter())
        return value

    @DBOS.workflow()
    def one(value: Any) -> Any:
        return echo(value)

    @DBOS.workflow()
    def chain(steps: int) -> int:
        for step in range(steps):
            echo(step)
        return steps

    @DBOS.workflow()
    def leaf(value: Any) -> Any:
        return value

    @DBOS.workflow()
    def parent(value: Any) -> Any:
        return DBOS.start_workflow(leaf, value).get_result()

    @DBOS.workflow()
    def fan(width: int) -> int:
        return len([handle.get_result() for handle in [DBOS.start_workflow(one, n) for n in range(width)]])

    @DBOS.workflow()
    def inbox(size: int) -> None:
        for n in range(size):
            DBOS.recv("inbox", timeout_seconds=600)
            DBOS.set_event(str(n), n)

    @DBOS.workflow()
    def naps(size: int) -> list[float]:
        late = []
        for _ in range(20):
            began = time.time()
            DBOS.sleep(0.25)
            late.append((time.time() - began - 0.25) * 1e3)
        return late

    workflows.update(one=one, chain=chain, leaf=leaf, parent=parent, fan=fan, inbox=inbox, naps=naps)


def queued(name: str, size: int, value: Any) -> float:
    """Seconds until `size` workflows that wait in a queue have ended, from the moment that the queue is listened to."""
    from dbos import DBOS, SetWorkflowID

    for n in range(size):
        with SetWorkflowID(f"i{n}"):
            DBOS.enqueue_workflow("bench", workflows[name], value)
    handles = [DBOS.retrieve_workflow(f"i{n}") for n in range(size)]
    began = time.perf_counter()
    DBOS.register_queue("bench", polling_interval_sec=POLL_S)
    for handle in handles:
        handle.get_result()
    return time.perf_counter() - began


def drain(size: int) -> Figures:
    return {"drain": size / queued("one", size, 1)}


def drain_ten(size: int) -> Figures:
    return {"drain_ten": size * 10 / queued("chain", size, 10)}


def repeated(size: int, once: Callable[[int], Any]) -> Figures:
    took = []
    for n in range(size):
        began = time.perf_counter()
        once(n)
        took.append((time.perf_counter() - began) * 1e3)
        time.sleep(0.002)
    return {"p50": statistics.median(took), "p99": sorted(took)[min(int(size * 0.99), size - 1)]}


def instance(size: int) -> Figures:
    from dbos import DBOS

    DBOS.start_workflow(workflows["one"], 1).get_result()
    return repeated(size, lambda n: DBOS.start_workflow(workflows["one"], n).get_result())


def child(size: int) -> Figures:
    from dbos import DBOS

    DBOS.start_workflow(workflows["parent"], 1).get_result()
    return repeated(size, lambda n: DBOS.start_workflow(workflows["parent"], n).get_result())


def message(size: int) -> Figures:
    from dbos import DBOS

    workflow = DBOS.start_workflow(workflows["inbox"], size).get_workflow_id()

    def once(n: int) -> None:
        DBOS.send(workflow, n, "inbox")
        if DBOS.get_event(workflow, str(n), 600) != n:
            raise RuntimeError("the event did not come")

    return repeated(size, once)


def _payload(size: int, length: int) -> Figures:
    from dbos import DBOS

    text = "x" * length
    return repeated(size, lambda n: DBOS.start_workflow(workflows["one"], text).get_result())


def payload_1k(size: int) -> Figures:
    return _payload(size, 1_000)


def payload_100k(size: int) -> Figures:
    return _payload(size, 100_000)


def payload_5m(size: int) -> Figures:
    return _payload(size, 5_000_000)


def chain(size: int) -> Figures:
    from dbos import DBOS

    DBOS.start_workflow(workflows["chain"], min(200, max(size // 2, 2))).get_result()
    marks.clear()
    DBOS.start_workflow(workflows["chain"], size).get_result()
    part = max(1, min(500, size // 10))

    def each(first: int, last: int) -> float:
        return (marks[last] - marks[first]) / (last - first) * 1e3

    along = [[at, each(at, min(at + part, size - 1))] for at in range(0, size - 1, part)]
    return {"step": each(0, size - 1), "first": along[0][1], "last": along[-1][1], "along": along}


def all_of(size: int) -> Figures:
    from dbos import DBOS

    DBOS.start_workflow(workflows["fan"], 3).get_result()
    began = time.perf_counter()
    DBOS.start_workflow(workflows["fan"], size).get_result()
    took = time.perf_counter() - began
    return {"all": took * 1e3, "member": took / size * 1e6}


def _starts(size: int, threads: int) -> Figures:
    from dbos import DBOS

    def start() -> None:
        for n in range(size // threads):
            DBOS.enqueue_workflow("nobody", workflows["one"], n)

    running = [threading.Thread(target=start) for _ in range(threads)]
    began = time.perf_counter()
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return {"starts": size // threads * threads / (time.perf_counter() - began)}


def starts_1(size: int) -> Figures:
    return _starts(size, 1)


def starts_8(size: int) -> Figures:
    return _starts(size, 8)


def starts_32(size: int) -> Figures:
    return _starts(size, 32)


def timers(size: int) -> Figures:
    from dbos import DBOS

    began = time.perf_counter()
    handles = [DBOS.start_workflow(workflows["naps"], n) for n in range(size)]
    late = sorted(value for handle in handles for value in handle.get_result())
    took = time.perf_counter() - began
    return {"late_p50": statistics.median(late), "late_p99": late[int(len(late) * 0.99)], "rate": size * 20 / took}


def idle(size: int) -> Figures:
    instance(1)
    time.sleep(1.0)
    began, used = time.perf_counter(), time.process_time()
    time.sleep(size / 10)
    return {"idle": (time.process_time() - used) / (time.perf_counter() - began) * 100}


WORKLOADS = {f.__name__: f for f in (
    drain, drain_ten, instance, child, message, payload_1k, payload_100k, payload_5m, chain, all_of, starts_1, starts_8, starts_32,
    timers, idle,
)}  # fmt: skip


def main(name: str, size: str, place: str, _options: str = "{}") -> None:
    alone = {"importing": importing, "packaged": packaged}
    if name in alone:
        print(json.dumps(alone[name](None, int(size))), flush=True)
        return
    from dbos import DBOS

    connect(place)
    figures = WORKLOADS[name](int(size))
    print(json.dumps(figures), flush=True)
    DBOS.destroy(workflow_completion_timeout_sec=0)


if __name__ == "__main__":
    main(*sys.argv[1:])
