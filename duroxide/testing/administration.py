"""Cases: the cold calls that only look: lists, information, numbers."""

from __future__ import annotations

from duroxide.storage.base import OK
from duroxide.testing.case import admin
from duroxide.testing.world import World, work


@admin(51)
def all_instances_are_listed_newest_first(w: World) -> None:
    w.born("a")
    w.later(1)
    w.born("b")
    assert w.store.instances() == ["b", "a"]


@admin(52)
def instances_are_listed_by_status(w: World) -> None:
    w.born("a")
    w.born("b", status="Completed")
    w.born("c", status="Failed")
    assert [w.store.instances(status) for status in ("Running", "Completed", "Failed")] == [["a"], ["b"], ["c"]]
    assert w.store.instances("ContinuedAsNew") == w.store.instances("completed") == []


@admin(53)
def executions_are_listed_in_order(w: World) -> None:
    w.born("i", status="ContinuedAsNew")
    w.next_turn("i", status="ContinuedAsNew")
    w.next_turn("i")
    assert w.store.executions("i") == [1, 2, 3] and w.store.executions("nobody") == []


@admin(54)
def instance_info_tells_what_is_stored(w: World) -> None:
    w.born("i", status="Completed", output="[1]")
    info = w.store.instance_info("i")
    wanted = {
        "instance_id": "i", "orchestration_name": "flow", "orchestration_version": "1.0.0", "current_execution_id": 1,
        "status": "Completed", "output": "[1]", "parent_instance_id": None,
    }  # fmt: skip
    assert {key: info[key] for key in wanted} == wanted and w.store.instance_info("nobody") is None


@admin(55)
def execution_info_tells_what_is_stored(w: World) -> None:
    w.born("i", status="Failed", output="why", events=3)
    info = w.store.execution_info("i", 1)
    wanted = {"execution_id": 1, "status": "Failed", "output": "why", "event_count": 3}
    assert {key: info[key] for key in wanted} == wanted and w.store.execution_info("i", 2) is None


@admin(56)
def system_metrics_count(w: World) -> None:
    w.born("a", events=2)
    w.born("b", status="Completed", events=3)
    w.born("c", status="Failed")
    assert w.store.system_metrics() == {
        "total_instances": 3, "total_executions": 3, "running_instances": 1, "completed_instances": 1, "failed_instances": 1,
        "total_events": 6,
    }  # fmt: skip


@admin(57)
def queue_depths_count_what_nobody_holds(w: World) -> None:
    w.born("i", work=[work("i", n) for n in range(2, 5)])
    w.send("i")
    w.take(work=1)
    depths = w.store.queue_depths(w.now)
    assert (depths["orchestrator_queue"], depths["worker_queue"]) == (1, 2)


@admin(58)
def stats_measure_one_instance(w: World) -> None:
    w.born("i", events=3, kv=[(0, "k", "1234", 5)])
    stats = w.store.stats("i")
    size = sum(len(text) for _, text in w.load("i").events)
    assert (stats["history_event_count"], stats["history_size_bytes"]) == (3, size)
    assert (stats["kv_user_key_count"], stats["kv_total_value_bytes"]) == (1, 4)
    assert w.store.stats("nobody") is None


@admin()
def broken_history_is_measured_too(w: World) -> None:
    w.start("i")
    turn = w.turn(w.claim_one(), events=0)
    turn.events = [(1, "Some", "{broken")]
    assert w.commit(turn) == [OK]
    stats = w.store.stats("i")
    assert (stats["history_event_count"], stats["history_size_bytes"], stats["queue_pending_count"]) == (1, 7, 0)
