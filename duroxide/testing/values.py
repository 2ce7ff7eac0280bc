"""Cases: values by key: the state that the last execution left, and the changes since."""

from __future__ import annotations

from typing import Any

from duroxide.storage.base import KV_CLEAR, KV_CLEAR_ALL, KV_SET
from duroxide.testing.case import case
from duroxide.testing.world import World


def put(key: str, value: str, at: int = 5) -> tuple[int, str, str, int]:
    return KV_SET, key, value, at


def clear(key: str) -> tuple[int, str, None, int]:
    return KV_CLEAR, key, None, 6


CLEAR_ALL = (KV_CLEAR_ALL, None, None, 7)


def carried(w: World, *changes: Any) -> None:
    """An instance whose first execution made `changes` and continued as new."""
    w.born("i", kv=list(changes), status="ContinuedAsNew")
    w.next_turn("i")


@case(178)
def value_is_set(w: World) -> None:
    w.born("i", kv=[put("k", "v")])
    assert w.values("i") == {"k": "v"}


@case(179)
def value_is_overwritten(w: World) -> None:
    w.born("i", kv=[put("k", "1"), put("k", "2")])
    w.next_turn("i", kv=[put("k", "3")])
    assert w.values("i") == {"k": "3"}


@case(180)
def value_is_cleared(w: World) -> None:
    w.born("i", kv=[put("k", "1"), put("l", "2")])
    w.next_turn("i", kv=[clear("k")])
    assert w.values("i") == {"l": "2"}


@case(181)
def all_values_are_cleared(w: World) -> None:
    carried(w, put("a", "1"))
    w.next_turn("i", kv=[put("b", "2")])
    w.next_turn("i", kv=[CLEAR_ALL])
    assert w.values("i") == {}


@case(182)
def missing_key_is_none(w: World) -> None:
    w.born("i", kv=[put("k", "v")])
    assert "other" not in w.values("i")


@case(183)
def snapshot_is_what_the_last_execution_left(w: World) -> None:
    carried(w, put("k", "v", 11))
    assert w.load("i").kv == {"k": ("v", 11)}


@case(184)
def snapshot_lacks_what_was_cleared(w: World) -> None:
    carried(w, put("k", "v"), put("l", "w"), clear("k"))
    assert list(w.load("i").kv) == ["l"]


@case(185)
def snapshot_is_empty_after_everything_was_cleared(w: World) -> None:
    carried(w, put("k", "v"), CLEAR_ALL)
    assert w.load("i").kv == {}


@case(186)
def value_belongs_to_the_instance_not_to_an_execution(w: World) -> None:
    carried(w, put("k", "v"))
    assert w.values("i") == {"k": "v"}


@case(187)
def next_execution_overwrites(w: World) -> None:
    carried(w, put("k", "old"))
    w.next_turn("i", kv=[put("k", "new")])
    assert w.values("i") == {"k": "new"} and w.load("i").kv["k"][0] == "old"


@case(188)
def value_is_removed_and_added_again(w: World) -> None:
    carried(w, put("k", "1"))
    w.next_turn("i", kv=[clear("k"), put("k", "2")])
    assert w.values("i") == {"k": "2"}


@case(189, needs="admin")
def pruning_keeps_values_of_pruned_executions(w: World) -> None:
    carried(w, put("k", "v"))
    w.store.prune("i", 1, None)
    assert w.values("i") == {"k": "v"}


@case(190, needs="admin")
def pruning_keeps_overwritten_values(w: World) -> None:
    carried(w, put("k", "old"))
    w.next_turn("i", kv=[put("k", "new")])
    w.store.prune("i", None, None)
    assert w.values("i") == {"k": "new"}


@case(191, needs="admin")
def pruning_brings_no_cleared_value_back(w: World) -> None:
    carried(w, put("k", "v"))
    w.next_turn("i", kv=[clear("k")])
    w.store.prune("i", None, None)
    assert w.values("i") == {}


@case(192)
def values_of_instances_are_apart(w: World) -> None:
    w.born("i", kv=[put("k", "1")])
    w.born("j", kv=[put("k", "2")])
    assert (w.values("i"), w.values("j")) == ({"k": "1"}, {"k": "2"})


@case(193, needs="admin")
def deletion_takes_the_values_along(w: World) -> None:
    carried(w, put("k", "v"))
    w.store.delete(["i"], True)
    w.born("i")
    assert w.values("i") == {}


@case(194)
def clearing_what_is_not_there_is_harmless(w: World) -> None:
    w.born("i", kv=[clear("nothing")])
    assert w.values("i") == {}


@case(195, needs="admin")
def unknown_instance_has_no_values(w: World) -> None:
    assert w.store.kv_values("nobody") == {} and w.store.kv_value("nobody", "k") is None


@case(196)
def clear_all_and_set_in_one_turn_keep_their_order(w: World) -> None:
    carried(w, put("a", "1"))
    w.next_turn("i", kv=[CLEAR_ALL, put("b", "2")])
    assert w.values("i") == {"b": "2"}


@case(197)
def empty_text_is_a_value(w: World) -> None:
    w.born("i", kv=[put("k", "")])
    assert w.values("i") == {"k": ""}


@case(198)
def large_value_is_kept_whole(w: World) -> None:
    large = "x" * 65_536
    w.born("i", kv=[put("k", large)])
    assert w.values("i") == {"k": large}


@case(199)
def odd_keys_are_keys(w: World) -> None:
    keys = ["", " ", "a'b", 'a"b', "a;--", "é✓", "%_", "\t\n", "k" * 1_000]
    w.born("i", kv=[put(key, key) for key in keys])
    assert w.values("i") == {key: key for key in keys}


@case(200)
def snapshot_of_a_new_instance_is_empty(w: World) -> None:
    w.born("i")
    assert w.load("i").kv == {} and w.load("i").kv_delta == {}


@case(201)
def snapshot_grows_over_executions(w: World) -> None:
    carried(w, put("a", "1"))
    w.next_turn("i", kv=[put("b", "2")], status="ContinuedAsNew")
    w.next_turn("i")
    assert {key: value for key, (value, _) in w.load("i").kv.items()} == {"a": "1", "b": "2"}


@case(202, needs="admin")
def keeping_only_the_last_execution_keeps_all_values(w: World) -> None:
    carried(w, put("a", "1"), put("b", "2"))
    w.store.prune("i", 1, None)
    assert w.values("i") == {"a": "1", "b": "2"} and w.store.executions("i") == [2]


@case(203, needs="admin")
def deletion_takes_the_values_of_children_along(w: World) -> None:
    w.born("p")
    w.born("c", parent="p", kv=[put("k", "v")])
    w.store.delete(w.store.tree("p"), True)
    w.born("c")
    assert w.values("c") == {}


@case(204)
def clearing_touches_no_other_instance(w: World) -> None:
    w.born("i", kv=[put("k", "1")])
    w.born("j", kv=[put("k", "2")])
    w.next_turn("i", kv=[CLEAR_ALL])
    assert w.values("j") == {"k": "2"}


@case(205)
def snapshot_excludes_the_current_execution(w: World) -> None:
    w.born("i", kv=[put("k", "v", 9)])
    assert w.load("i").kv == {} and w.load("i").kv_delta == {"k": ("v", 9)}


@case(206)
def snapshot_includes_a_completed_execution(w: World) -> None:
    w.born("i", kv=[put("k", "v", 9)], status="Completed")
    assert w.load("i").kv == {"k": ("v", 9)} and w.load("i").kv_delta == {}


@case(207, needs="admin")
def clients_see_both_merged(w: World) -> None:
    carried(w, put("a", "1"), put("b", "old"))
    w.next_turn("i", kv=[put("b", "new"), put("c", "3")])
    assert w.store.kv_values("i") == {"a": "1", "b": "new", "c": "3"}


@case(208, needs="admin")
def cleared_value_is_gone_for_clients_at_once(w: World) -> None:
    carried(w, put("k", "v"))
    w.next_turn("i", kv=[clear("k")])
    assert w.store.kv_value("i", "k") is None and w.load("i").kv_delta["k"][0] is None


@case(209, needs="admin")
def clearing_all_hides_the_snapshot_too(w: World) -> None:
    carried(w, put("a", "1"), put("b", "2"))
    w.next_turn("i", kv=[CLEAR_ALL])
    assert w.store.kv_values("i") == {} and set(w.load("i").kv) == {"a", "b"}


@case(210)
def changes_become_the_snapshot_on_completion(w: World) -> None:
    carried(w, put("a", "1"), put("b", "2"))
    w.next_turn("i", kv=[clear("a"), put("c", "3")], status="Completed")
    assert (set(w.load("i").kv), w.load("i").kv_delta) == ({"b", "c"}, {})


@case(211)
def changes_become_the_snapshot_on_continue_as_new(w: World) -> None:
    carried(w, put("a", "1"))
    w.next_turn("i", kv=[CLEAR_ALL, put("b", "2")], status="ContinuedAsNew")
    w.next_turn("i")
    assert (set(w.load("i").kv), w.load("i").kv_delta) == ({"b"}, {})


@case(212, needs="admin")
def changes_are_deleted_with_their_instance(w: World) -> None:
    w.born("i", kv=[put("k", "v")])
    w.store.delete(["i"], True)
    w.born("i", status="Completed")
    assert w.values("i") == {}


@case(213, needs="admin")
def untouched_value_survives_pruning(w: World) -> None:
    carried(w, put("k", "v"))
    for _ in range(3):
        w.next_turn("i", status="ContinuedAsNew")
    w.next_turn("i")
    w.store.prune("i", 1, None)
    assert w.values("i") == {"k": "v"} and len(w.store.executions("i")) == 1
