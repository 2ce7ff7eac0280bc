"""Cases: deletion of instances with their trees, pruning of executions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from duroxide.storage.base import LOST, OK, WorkDone
from duroxide.testing.case import admin
from duroxide.testing.world import World, item, work


def refused(call: Callable[..., Any], *arguments: Any) -> str:
    """The text with which the call refuses."""
    try:
        call(*arguments)
    except RuntimeError as error:
        return str(error)
    raise AssertionError("it was not refused")


# ── deletion ─────────────────────────────────────────────────────────────────────────────────────────────────────


@admin(157)
def ended_instance_is_deleted(w: World) -> None:
    w.born("i", status="Completed", events=2)
    counts = w.store.delete(["i"], False)
    assert (counts["instances_deleted"], counts["executions_deleted"], counts["events_deleted"]) == (1, 1, 2)
    assert not w.known("i")


@admin(158)
def running_instance_is_deleted_only_by_force(w: World) -> None:
    w.born("i")
    assert refused(w.store.delete, ["i"], False) == "Instance i is still running. Use force=true or cancel first."
    assert w.known("i")
    w.store.delete(["i"], True)
    assert not w.known("i")


@admin(159)
def deleting_what_is_not_there_deletes_nothing(w: World) -> None:
    assert w.store.delete(["nobody"], True)["instances_deleted"] == 0


@admin(160)
def deletion_cleans_queues_and_leases_and_frees_the_id(w: World) -> None:
    w.born("i", work=[work("i")])
    w.send("i")
    w.claim("a")
    w.store.delete(["i"], True)
    assert not w.take() and not w.claim("b")
    w.born("i")
    assert w.events("i") == [1]


@admin()
def deletion_leaves_a_session_that_others_use(w: World) -> None:
    for name in ("i", "j"):
        w.born(name, work=[work(name, session_id="s")])
    fields: dict[str, Any] = {"session_room": 1, "session_lock_ms": 60_000}
    assert w.take_one("a", work=1, session_owner="a", **fields).instance == "i"
    w.store.delete(["i"], True)
    assert not w.take("b", session_owner="b", **fields)
    assert w.take_one("a", session_owner="a", **fields).instance == "j"


@admin(161)
def deletion_takes_the_tree_along(w: World) -> None:
    w.born("p", status="Completed")
    w.born("c", parent="p", status="Completed")
    w.born("g", parent="c", status="Completed")
    assert w.store.delete(w.store.tree("p"), False)["instances_deleted"] == 3


@admin(162)
def commit_after_deletion_fails_and_brings_nothing_back(w: World) -> None:
    w.born("i")
    w.send("i")
    claim = w.claim_one()
    w.store.delete(["i"], True)
    assert w.commit(w.turn(claim)) == [LOST] and not w.known("i")


@admin(163)
def children_are_the_direct_ones(w: World) -> None:
    w.born("p")
    w.born("c", parent="p")
    w.born("g", parent="c")
    assert (w.store.children("p"), w.store.children("c"), w.store.children("g")) == (["c"], ["g"], [])


@admin(164)
def parent_is_told(w: World) -> None:
    w.born("p")
    w.born("c", parent="p")
    assert w.store.instance_info("c")["parent_instance_id"] == "p" and w.store.instance_info("p")["parent_instance_id"] is None


@admin(165)
def tree_begins_with_the_root(w: World) -> None:
    w.born("p")
    for child in ("c", "d"):
        w.born(child, parent="p")
    w.born("g", parent="d")
    tree = w.store.tree("p")
    assert tree[0] == "p" and sorted(tree) == ["c", "d", "g", "p"]


@admin(166)
def many_are_deleted_whole_or_not_at_all(w: World) -> None:
    w.born("a", status="Completed")
    w.born("b")
    refused(w.store.delete, ["a", "b"], False)
    assert w.known("a") and w.known("b")


@admin(167)
def force_deletes_running_trees(w: World) -> None:
    w.born("p")
    w.born("c", parent="p")
    assert w.store.delete(["p", "c"], True)["instances_deleted"] == 2


@admin(168)
def child_born_meanwhile_stops_the_deletion(w: World) -> None:
    w.born("p", status="Completed")
    tree = w.store.tree("p")
    w.born("c", parent="p")
    assert "c" in refused(w.store.delete, tree, True)
    assert w.known("p") and w.known("c")


@admin(169)
def stale_result_does_not_reach_the_next_of_that_id(w: World) -> None:
    w.born("i", work=[work("i")])
    taken = w.take_one()
    w.store.delete(["i"], True)
    w.born("i")
    assert w.exchange(work=[WorkDone(taken.row_id, taken.token, "i", item("ActivityCompleted", "i"))]).work_codes == [LOST]
    assert not w.claim()


@admin(170)
def bulk_deletion_filters_by_id_and_time(w: World) -> None:
    for name in ("a", "b", "c"):
        w.born(name, status="Completed")
        w.later(1_000)
    cut = w.now - 1_500
    assert w.store.delete_bulk(["nobody"], None, None)["instances_deleted"] == 0
    assert w.store.delete_bulk(["a", "c"], cut, None)["instances_deleted"] == 1
    assert w.store.delete_bulk(["c"], None, None)["instances_deleted"] == 1
    assert w.store.delete_bulk(None, None, None)["instances_deleted"] == 1 and w.store.instances() == []


@admin(171)
def bulk_deletion_skips_running_ones_and_keeps_its_limit(w: World) -> None:
    w.born("running")
    for n in range(5):
        w.born(f"i{n}", status="Completed")
    assert w.store.delete_bulk(None, None, 2)["instances_deleted"] == 2
    assert w.store.delete_bulk(None, None, 100)["instances_deleted"] == 3
    assert w.store.instances() == ["running"]


@admin(172)
def bulk_deletion_by_time_is_strict(w: World) -> None:
    w.born("i", status="Completed")
    assert w.store.delete_bulk(None, w.now, None)["instances_deleted"] == 0
    assert w.store.delete_bulk(None, w.now + 1, None)["instances_deleted"] == 1


@admin(173)
def bulk_deletion_takes_trees_along_and_no_child_alone(w: World) -> None:
    w.born("p", status="Completed")
    w.born("c", parent="p", status="Completed")
    w.born("q", status="Completed")
    w.born("d", parent="q")
    assert w.store.delete_bulk(["c"], None, None)["instances_deleted"] == 0
    assert w.store.delete_bulk(None, None, None)["instances_deleted"] == 2
    assert sorted(w.store.instances()) == ["d", "q"]


# ── pruning ──────────────────────────────────────────────────────────────────────────────────────────────────────


def chain(w: World, instance: str, executions: int, last: str | None = None) -> None:
    """An instance of so many executions, one a second; all but the last continued as new."""
    w.born(instance, status="ContinuedAsNew" if executions > 1 else last)
    for n in range(2, executions + 1):
        w.later(1_000)
        w.next_turn(instance, status="ContinuedAsNew" if n < executions else last)


@admin(174)
def pruning_keeps_what_its_options_say(w: World) -> None:
    chain(w, "a", 5)
    assert w.store.prune("a", 3, None) == {"instances_processed": 1, "executions_deleted": 2, "events_deleted": 2}
    assert w.store.executions("a") == [3, 4, 5]
    assert w.store.prune("a", None, w.now - 1_500)["executions_deleted"] == 1
    assert w.store.prune("a", 1, w.now - 10_000)["executions_deleted"] == 0
    assert w.store.prune("a", None, None)["executions_deleted"] == 1 and w.store.executions("a") == [5]


@admin(175)
def current_execution_is_never_pruned(w: World) -> None:
    chain(w, "running", 3)
    chain(w, "ended", 3, "Completed")
    for name in ("running", "ended"):
        w.store.prune(name, 0, None)
        assert w.store.executions(name) == [3]


@admin(176)
def bulk_pruning_sums_up(w: World) -> None:
    chain(w, "a", 3, "Completed")
    chain(w, "b", 4, "Completed")
    found = w.store.prune_bulk(None, None, None, 1, None)
    assert (found["instances_processed"], found["executions_deleted"]) == (2, 5)
    assert w.store.prune_bulk(["nobody"], None, None, 1, None)["instances_processed"] == 0


@admin(177)
def bulk_pruning_includes_running_instances(w: World) -> None:
    chain(w, "a", 3)
    assert w.store.prune_bulk(["a"], None, None, 1, None)["executions_deleted"] == 2
    w.send("a")
    assert w.commit(w.turn(w.claim_one())) == [OK]
