"""The cold calls on a store with many instances: lists, metrics, one instance, deletion and pruning in bulk."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from program import Bench, Figures

import duroxide

BULK = 500
# Of each instance two executions of three events; every thousandth still runs. Where rows go in as they are, a million takes a minute.
_ROWS = (
    "INSERT INTO {s}.instances (instance_id, orchestration_name, orchestration_version, current_execution_id, created_at, updated_at)"
    " SELECT 'i' || n, 'one', '1.0.0', 2, now() - n * interval '1 ms', now() FROM generate_series(0, {size} - 1) n",
    "INSERT INTO {s}.executions (instance_id, execution_id, status, output, started_at, completed_at)"
    " SELECT 'i' || n, e, CASE WHEN e = 1 THEN 'ContinuedAsNew' WHEN n % 1000 = 7 THEN 'Running' ELSE 'Completed' END, '1', now(),"
    " CASE WHEN e = 2 AND n % 1000 <> 7 THEN now() - interval '1 hour' END FROM generate_series(0, {size} - 1) n, generate_series(1, 2) e",
    "INSERT INTO {s}.history (instance_id, execution_id, event_id, event_type, event_data, created_at)"
    " SELECT 'i' || n, e, k, 'Event', repeat('x', 150), now() FROM generate_series(0, {size} - 1) n, generate_series(1, 2) e,"
    " generate_series(1, 3) k",
    "ANALYZE {s}.instances", "ANALYZE {s}.executions", "ANALYZE {s}.history",
)  # fmt: skip


def _fill(bench: Bench, size: int) -> None:
    url, _, schema = bench.target.partition("#")
    if not schema:  # a file: by running them
        names = bench.enqueue("one", size, 1)
        bench.runtime.start()
        for name in names:
            bench.finish(name)
        return
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        for statement in _ROWS:
            connection.execute(statement.replace("{s}", f'"{schema}"').replace("{size}", str(size)))


def admin(bench: Bench, size: int) -> Figures:
    """ms of each call: the best of three where it reads, the worst where it removes, 500 instances a call."""
    _fill(bench, size)
    client: Any = bench.client

    def of_three(call: Callable[[], Any], which: Callable[[list[float]], float] = min) -> float:
        took = []
        for _ in range(3):
            began = time.perf_counter()
            call()
            took.append((time.perf_counter() - began) * 1e3)
        return which(took)

    def bulk() -> Any:
        return duroxide.InstanceFilter(limit=BULK)

    return {
        "metrics": of_three(client.get_system_metrics),
        "depths": of_three(client.get_queue_depths),
        "running": of_three(lambda: client.list_instances_by_status("Running")),
        "list": of_three(client.list_all_instances),
        "info": of_three(lambda: client.get_instance_info(f"i{size - 1}")),
        "prune": of_three(lambda: client.prune_executions_bulk(bulk(), duroxide.PruneOptions(keep_last=1)), max),
        "delete": of_three(lambda: client.delete_instance_bulk(bulk()), max),
    }


WORKLOADS = {"admin": admin}
