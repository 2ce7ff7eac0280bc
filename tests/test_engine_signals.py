"""External events and queues under both policies, children, continue-as-new, KV, limits, and the defects that must not come back."""

import json

import pytest
from engine_harness import World

from duroxide.events import cancel_item, external_item, queue_item, start_item


@pytest.fixture(params=["live", "replayed"])
def world(request):
    w = World(live=request.param == "live")
    w.activities.update(echo=lambda x: x)
    return w


def start(world, function, input=None, *together):
    world.orchestration(function, "main")
    world.send(start_item("i", "main", json.dumps(input)), *together)
    world.run()


def result(world, instance="i"):
    assert world.rows[instance].status == "Completed", world.rows[instance].output
    return json.loads(world.rows[instance].output)


def legacy(world, instance="i"):
    """Rewrite the stamp of the start event: this history is from before the policy changed."""
    history = world.rows[instance].histories[1]
    history[0] = (1, history[0][1], history[0][2].replace('"0.1.32"', '"0.1.29"'))
    world.executions.pop(instance, None)


# ── events by name ───────────────────────────────────────────────────────────────────────────────────────────


def test_an_event_before_its_wait_is_recorded_and_lost(world):
    def main(ctx, input):
        yield ctx.schedule_timer(50)
        return (yield ctx.race(ctx.wait_for_event("go"), ctx.schedule_timer(10)))

    start(world, main, None, external_item("i", "go", "1"))
    assert result(world)["index"] == 1 and "ExternalEvent" in world.kinds("i")


def test_events_reach_concurrent_waits_in_order_of_subscription(world):
    def main(ctx, input):
        return (yield ctx.all_typed([ctx.wait_for_event("go"), ctx.wait_for_event("go"), ctx.wait_for_event("other")]))

    start(world, main)
    world.send(external_item("i", "go", "1"), external_item("i", "other", "3"), external_item("i", "go", "2"))
    world.run()
    assert result(world) == [1, 2, 3]


def test_the_second_event_of_a_batch_is_lost_to_a_later_wait(world):
    def main(ctx, input):
        first = yield ctx.wait_for_event("go")
        second = yield ctx.race(ctx.wait_for_event("go"), ctx.schedule_timer(5))
        return [first, second["index"]]

    start(world, main)
    world.send(external_item("i", "go", "1"), external_item("i", "go", "2"))
    world.run()
    assert result(world) == [1, 1]


def test_a_dropped_wait_swallows_no_event(world):
    def main(ctx, input):
        yield ctx.race(ctx.wait_for_event("go"), ctx.schedule_timer(5))
        return (yield ctx.wait_for_event("go"))

    start(world, main)
    world.send(external_item("i", "go", "7"))
    world.run()
    assert result(world) == 7


# ── queues ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_queue_messages_wait_for_whoever_asks_first_by_name(world):
    def main(ctx, input):
        yield ctx.schedule_timer(50)
        a = yield ctx.dequeue_event("a")
        b = yield ctx.dequeue_event("b")
        a2 = yield ctx.dequeue_event("a")
        return [a, b, a2]

    start(world, main, None, *(queue_item("i", n, d) for n, d in (("a", "1"), ("b", '"x"'), ("a", "2"))))
    assert result(world) == [1, "x", 2]


def test_thousands_of_messages_drain_in_one_turn(world):
    """No cliff at 100 (defect D5)."""

    def main(ctx, input):
        yield ctx.schedule_timer(5)
        got = []
        while len(got) < 3_000:
            got.append((yield ctx.dequeue_event("q")))
        return [len(got), got[0], got[-1]]

    start(world, main, None, *(queue_item("i", "q", str(n)) for n in range(3_000)))
    assert result(world) == [3_000, 0, 2_999]


def test_a_cancelled_dequeue_consumes_nothing(world):
    def main(ctx, input):
        lost = yield ctx.race(ctx.schedule_timer(5), ctx.dequeue_event("q"))
        return [lost["index"], (yield ctx.dequeue_event("q")), (yield ctx.dequeue_event("q"))]

    start(world, main)
    world.send(queue_item("i", "q", "1"), queue_item("i", "q", "2"))
    world.run()
    assert result(world) == [0, 1, 2]
    assert "ExternalSubscribedPersistentCancelled" in world.kinds("i")


def test_two_ready_dequeues_race_to_the_first_and_the_other_keeps_its_message(world):
    def main(ctx, input):
        yield ctx.schedule_timer(5)
        won = yield ctx.race(ctx.dequeue_event("a"), ctx.dequeue_event("b"))
        return [won, (yield ctx.dequeue_event("b"))]

    start(world, main, None, queue_item("i", "b", "2"), queue_item("i", "a", "1"))
    assert result(world) == [{"index": 0, "value": 1}, 2]


# ── the older policy ─────────────────────────────────────────────────────────────────────────────────────────


def test_before_the_policy_change_a_dropped_wait_keeps_its_place_until_its_cancel_event():
    """The event of the batch in which the wait is dropped is kept for the next wait, which sees it when the code next runs."""

    def main(ctx, input):
        yield ctx.race(ctx.wait_for_event("go"), ctx.dequeue_event("stop"))
        return (yield ctx.wait_for_event("go"))

    world = World(live=True)
    start(world, main)
    legacy(world)
    world.send(queue_item("i", "stop", "0"), external_item("i", "go", "1"))
    world.run()
    world.send(external_item("i", "go", "3"))
    world.run()
    assert world.rows["i"].status == "Running"
    world.send(queue_item("i", "stop", "0"))
    world.run()
    assert result(world) == 1
    assert world.outcomes == ["continue"] * 3 + ["completed"] and not world.executions  # the older policy always replays


def test_since_the_policy_change_the_event_of_that_batch_is_lost():
    def main(ctx, input):
        yield ctx.race(ctx.wait_for_event("go"), ctx.dequeue_event("stop"))
        return (yield ctx.wait_for_event("go"))

    world = World(live=False)
    start(world, main)
    world.send(queue_item("i", "stop", "0"), external_item("i", "go", "1"))
    world.run()
    world.send(external_item("i", "go", "3"))
    world.run()
    assert result(world) == 3


def test_before_the_policy_change_subscriptions_and_arrivals_are_matched_by_index():
    def main(ctx, input):
        yield ctx.race(ctx.dequeue_event("q"), ctx.dequeue_event("stop"))
        got = [(yield ctx.dequeue_event("q"))]
        yield ctx.schedule_timer(5)
        got.append((yield ctx.dequeue_event("q")))
        return got

    world = World(live=True)
    start(world, main)
    legacy(world)
    world.send(queue_item("i", "stop", "0"))
    world.run()
    world.send(queue_item("i", "q", "1"), queue_item("i", "q", "2"))
    world.run()
    assert result(world) == [1, 2]


def test_before_the_policy_change_a_dropped_dequeue_leaves_when_the_arrivals_of_its_turn_are_over():
    """The message that comes in the batch which decides the race is for the next dequeue, in the same turn and in every replay of it."""

    def main(ctx, input):
        got = []
        for _ in range(3):
            won = yield ctx.race(ctx.dequeue_event("a"), ctx.dequeue_event("b"))
            got += [won, (yield ctx.dequeue_event("ba"[won["index"]]))]
        return got

    world = World(live=True)
    start(world, main)
    legacy(world)
    for n in range(3):
        world.send(queue_item("i", "b", f'"b{n}"'), queue_item("i", "a", f'"a{n}"'))
        world.run()
    assert result(world) == [part for n in range(3) for part in ({"index": 1, "value": f"b{n}"}, f"a{n}")]


def test_before_the_policy_change_a_place_that_becomes_free_is_seen_when_the_code_next_runs():
    """A race that it decides drops its loser then, not at once: as the reference stored it, and so as it replays it."""

    def main(ctx, input):
        won = yield ctx.race(ctx.wait_for_event("a"), ctx.wait_for_event("b"))
        return [won, (yield ctx.race(ctx.wait_for_event("b"), ctx.dequeue_event("out")))]

    world = World(live=True)
    start(world, main)
    legacy(world)
    world.send(external_item("i", "a", "1"), external_item("i", "b", "1"))
    world.run()
    world.send(external_item("i", "b", "2"))
    world.run()
    assert world.kinds("i")[-2:] == ["ExternalSubscribedCancelled", "ExternalEvent"], "nothing of the second race yet"
    world.send(queue_item("i", "out", "3"))
    world.run()
    assert result(world) == [{"index": 0, "value": 1}, {"index": 0, "value": 1}]
    assert world.kinds("i")[-3:] == ["ExternalEventPersistent", "ExternalSubscribedPersistentCancelled", "OrchestrationCompleted"]


def test_before_the_policy_change_a_dropped_dequeue_hands_on_to_one_that_waits():
    """Two dequeues of one queue, the first one dropped: the message of that batch is for the second."""

    def main(ctx, input):
        return (yield ctx.all([ctx.race(ctx.dequeue_event("a"), ctx.dequeue_event("b")), ctx.dequeue_event("a")]))

    world = World(live=True)
    start(world, main)
    legacy(world)
    world.send(queue_item("i", "b", "1"), queue_item("i", "a", "2"))
    world.run()
    assert result(world) == [{"ok": {"index": 1, "value": 1}}, {"ok": 2}]


# ── children and detached starts ─────────────────────────────────────────────────────────────────────────────


def test_child_ids_link_and_results(world):
    world.orchestration(lambda ctx, input: [ctx.instance_id, input], "child")

    def main(ctx, round):
        a = yield ctx.schedule_sub_orchestration("child", 1)
        b = yield ctx.schedule_sub_orchestration_with_id("child", "own", 2)
        if round == 0:
            yield ctx.continue_as_new(1)
        return [a, b]

    start(world, main, 0)
    assert world.rows["i"].status == "Failed"  # 'own' exists: execution 2 is told so
    assert "sub-orchestration instance id 'own' already exists and is terminal" in world.rows["i"].output
    assert {"i::sub::2", "own", "i::sub::2_2"} <= world.rows.keys()
    started = world.events("i::sub::2_2")[0]
    assert (started["parent_instance"], started["parent_id"], started["parent_execution_id"]) == ("i", 2, 2)


def test_a_child_that_continues_as_new_answers_with_its_last_execution(world):
    def child(ctx, n):
        if n:
            yield ctx.continue_as_new(n - 1)
        return "last"

    world.orchestration(child)
    start(world, lambda ctx, input: (yield ctx.schedule_sub_orchestration("child", 3)))
    assert result(world) == "last" and world.rows["i::sub::2"].execution_id == 4


def test_a_running_id_refuses_another_parent_and_ignores_its_own(world):
    def child(ctx, input):
        yield ctx.wait_for_event("never")

    def main(ctx, input):
        ctx.set_custom_status("on")
        try:
            yield ctx.schedule_sub_orchestration_with_id("child", "c")
        except Exception as error:
            return str(error)

    world.orchestration(child)
    world.send(start_item("c", "child", "1"))
    start(world, main)
    assert result(world) == "sub-orchestration instance id 'c' already exists"
    assert world.rows["c"].status == "Running"


def test_two_children_with_one_id_in_one_turn_end_the_second_not_the_parent(world):
    """Defect D6: the second waited for ever."""
    world.orchestration(lambda ctx, input: "c", "child")

    def main(ctx, input):
        twin = ctx.schedule_sub_orchestration_with_id("child", "c")
        return (yield ctx.all([twin, twin]))

    start(world, main)
    first, second = result(world)
    assert first == {"ok": "c"} and second["err"].startswith("sub-orchestration instance id 'c' already exists")


def test_a_reserved_child_id_fails_at_the_yield_and_records_nothing(world):
    def main(ctx, input):
        try:
            yield ctx.schedule_sub_orchestration_with_id("child", "sub::x")
        except Exception as error:
            return str(error)

    start(world, main)
    assert result(world).startswith("sub-orchestration instance id 'sub::x' starts with the reserved marker 'sub::', ")
    assert world.kinds("i") == ["OrchestrationStarted", "OrchestrationCompleted"]


@pytest.mark.parametrize("id", ["sub::x", "a::sub::b"])
def test_a_reserved_detached_id_panics(world, id):
    start(world, lambda ctx, input: (yield ctx.start_orchestration("main", id)))
    assert world.rows["i"].output.startswith(f"orchestration panicked: detached orchestration instance id '{id}' uses the reserved")


def test_cancelling_a_parent_cancels_the_children_that_exist(world):
    """Defect D2: a child that was only just asked for is not cancelled into the void, nor ever started."""
    def waiting(ctx, input):
        yield ctx.wait_for_event("never")

    def main(ctx, input):
        yield ctx.race(ctx.schedule_sub_orchestration("waiting"), ctx.wait_for_event("more"))
        yield ctx.schedule_sub_orchestration_with_id("waiting", "late")

    world.orchestration(waiting)
    start(world, main)
    world.send(external_item("i", "more", "1"), cancel_item("i", "stop"))
    world.run()
    assert world.rows["i"].output == "canceled: stop"
    assert world.rows["i::sub::2"].output == "canceled: parent dropped sub-orchestration future"
    assert "late" not in world.rows


def test_children_of_a_cancelled_parent_say_so(world):
    def waiting(ctx, input):
        yield ctx.wait_for_event("never")

    world.orchestration(waiting)
    start(world, lambda ctx, input: (yield ctx.schedule_sub_orchestration("waiting")))
    world.send(cancel_item("i", "x"))
    world.run()
    assert world.rows["i::sub::2"].output == "canceled: parent canceled"


@pytest.mark.parametrize("ending", ["continue", "cancel", "complete", "fail"])
def test_detached_starts_happen_however_the_turn_ends(world, ending):
    """Defect D3."""
    world.orchestration(lambda ctx, input: "d", "other")

    def main(ctx, round):
        if round == 0:
            yield ctx.start_orchestration("other", "d1")
            if ending == "continue":
                yield ctx.continue_as_new(1)
            if ending == "fail":
                raise ValueError("x")
            if ending == "cancel":
                yield ctx.wait_for_event("never")

    start(world, main, 0, *([cancel_item("i", "c")] if ending == "cancel" else []))
    assert result(world, "d1") == "d"


def test_a_losing_child_is_cancelled_even_when_the_turn_continues_as_new(world):
    """Defect D4."""
    def waiting(ctx, input):
        yield ctx.wait_for_event("never")

    def main(ctx, round):
        if round == 0:
            yield ctx.race(ctx.schedule_sub_orchestration_with_id("waiting", "w"), ctx.schedule_timer(5))
            yield ctx.continue_as_new(1)

    world.orchestration(waiting)
    start(world, main, 0)
    assert world.rows["w"].output == "canceled: parent dropped sub-orchestration future"


# ── continue-as-new, KV, status ──────────────────────────────────────────────────────────────────────────────


def test_continue_as_new_carries_status_kv_and_every_unread_message_in_order(world):
    def main(ctx, state):
        if state["n"] == 0:
            ctx.set_custom_status("carried")
            ctx.set_kv_value("k", "1")
            ctx.set_kv_value("gone", "1")
            yield ctx.dequeue_event("a")
            ctx.clear_kv_value("gone")
            yield ctx.continue_as_new({"n": 1})
        got = [(yield ctx.dequeue_event("b"))]
        for _ in range(149):
            got.append((yield ctx.dequeue_event("a")))
        return [ctx.get_custom_status(), ctx.get_kv_all_values(), got[:3], len(got), ctx.execution_id]

    start(world, main, {"n": 0})
    world.send(*(queue_item("i", "b" if n == 1 else "a", str(n)) for n in range(151)))
    world.run()
    assert result(world) == ["carried", {"k": "1"}, [1, 2, 3], 150, 2]
    carried = world.events("i")[0]["carry_forward_events"]
    assert [name for name, _ in carried[:3]] == ["b", "a", "a"] and len(carried) == 150
    assert world.kinds("i")[1:151] == ["ExternalEventPersistent"] * 150


def test_a_new_status_replaces_the_carried_one_at_once(world):
    """Defect D8: the carried one came back after the first wait."""
    def main(ctx, round):
        seen = [ctx.get_custom_status()]
        ctx.set_custom_status(f"new {round}")
        seen.append(ctx.get_custom_status())
        yield ctx.schedule_timer(5)
        seen.append(ctx.get_custom_status())
        if round == 0:
            yield ctx.continue_as_new(1)
        return seen

    start(world, main, 0)
    assert result(world) == ["new 0", "new 1", "new 1"]


def test_inputs_wait_for_a_successor_whose_code_is_not_registered_yet(world):
    def main(ctx, input):
        yield ctx.continue_as_new_versioned(1, "2.0.0")

    start(world, lambda ctx, input: (yield ctx.wait_for_event("go")))
    world.functions["main"] = {"1.0.0": main}
    world.executions.clear()
    world.send(external_item("i", "x", "1"))
    world.rows["i"].histories[1] = world.rows["i"].histories[1][:1]
    world.turn("i")
    assert world.rows["i"].status == "ContinuedAsNew"
    world.turn("i")
    assert world.outcomes[-1] == "back"
    world.functions["main"]["2.0.0"] = lambda ctx, input: (yield ctx.dequeue_event("q"))
    world.send(queue_item("i", "q", '"kept"'))
    world.run()
    assert result(world) == "kept"


def test_an_unregistered_orchestration_backs_off_then_poisons(world):
    world.max_attempts = 4
    world.send(start_item("i", "nobody", "1"))
    world.run()
    assert world.outcomes == ["back"] * 4 + ["failed"]
    assert world.warnings[3] == "orchestration 'nobody' of 'i' is not registered here: given back (attempt 4)"
    assert world.now == 1_000 + 1_000 + 2_000 + 4_000 + 8_000
    assert world.rows["i"].output == "poison: orchestration i exceeded 5 attempts (max 4)"
    assert world.rows["i"].version == "unknown" and world.kinds("i") == ["OrchestrationStarted", "OrchestrationFailed"]
    details = world.events("i")[-1]["details"]["Poison"]
    assert details["message_type"] == {"Orchestration": {"instance": "i", "execution_id": 1}}
    assert json.loads(details["message"])[0]["StartOrchestration"]["orchestration"] == "nobody"


def test_a_finished_instance_is_never_poisoned_again(world):
    """Defect D10: a second OrchestrationFailed."""
    world.max_attempts = 0
    start(world, lambda ctx, input: "x")
    before = world.kinds("i")
    world.send(external_item("i", "x", "1"))
    world.run()
    assert world.kinds("i") == before and world.kinds("i").count("OrchestrationFailed") == 1


def test_kv_prune_decides_alike_on_every_replay(world):
    """Defect D9: keys were stamped anew at each replay."""
    def main(ctx, input):
        ctx.set_kv_value("old", 1)
        yield ctx.schedule_timer(100)
        ctx.set_kv_value("new", 2)
        first = ctx.prune_kv_values_updated_before(1_050)
        yield ctx.schedule_timer(10_000)
        second = ctx.prune_kv_values_updated_before(1_050)
        yield ctx.schedule_timer(10_000)
        return [first, second, ctx.get_kv_all_values()]

    start(world, main)
    assert result(world) == [1, 0, {"new": "2"}] and world.values("i") == {"new": "2"}


def test_kv_reads_see_the_snapshot_and_this_execution(world):
    def main(ctx, round):
        ctx.set_kv_value("a", round)
        if round == 0:
            ctx.set_kv_value("b", "b")
            yield ctx.schedule_timer(5)
            yield ctx.continue_as_new(1)
        ctx.clear_kv_value("nothing")
        seen = [ctx.get_kv_value("a"), ctx.get_kv_value("b"), ctx.get_kv_all_keys(), ctx.get_kv_length()]
        ctx.clear_all_kv_values()
        ctx.set_kv_value("c", "")
        return [*seen, ctx.get_kv_all_values(), ctx.get_kv_value("b")]

    start(world, main, 0)
    assert result(world) == ["1", "b", ["a", "b"], 2, {"c": ""}, None]
    assert world.values("i") == {"c": ""}


def test_the_status_version_counts_turns_that_wrote_it(world):
    def main(ctx, input):
        for text in "abc":
            ctx.set_custom_status(text)
        yield ctx.schedule_timer(5)
        ctx.reset_custom_status()

    start(world, main)
    assert (world.rows["i"].custom_status, world.rows["i"].status_version) == (None, 2)


# ── limits: the instance fails, and what was over the limit is not stored (defect D13) ────────────────────────


@pytest.mark.parametrize(
    ("write", "text"),
    [
        (lambda ctx: ctx.set_custom_status("é" * 131_073), "Custom status size (262146 bytes) exceeds limit (262144 bytes)"),
        (lambda ctx: ctx.set_kv_value("big", "x" * 65_537), "KV value for key 'big' (65537 bytes) exceeds limit (65536 bytes)"),
        (lambda ctx: [ctx.set_kv_value(str(n), n) for n in range(151)], "KV key count (151) exceeds limit (150)"),
    ],
)
def test_over_a_limit(world, write, text):
    def main(ctx, input):
        write(ctx)
        yield ctx.schedule_timer(5)

    start(world, main)
    assert world.rows["i"].output == text
    assert world.rows["i"].custom_status is None and len(world.values("i")) in (0, 150) and not world.timers


def test_over_the_tag_limit_no_activity_leaves(world):
    def main(ctx, input):
        yield ctx.all([ctx.schedule_activity("echo", 1), ctx.schedule_activity("echo", 1).with_tag("t" * 257)])

    start(world, main)
    assert world.rows["i"].output == "Activity 'echo' tag size (257 bytes) exceeds limit (256 bytes)"
    assert not world.work


def test_at_the_limits_all_is_well(world):
    def main(ctx, input):
        ctx.set_custom_status("x" * 262_145)
        ctx.set_custom_status("x" * 262_144)
        for n in range(151):
            ctx.set_kv_value(str(n), "x" * 65_536)
        ctx.clear_kv_value("0")
        return (yield ctx.schedule_activity("echo", 1).with_tag("t" * 256))

    start(world, main)
    assert result(world) == 1 and len(world.values("i")) == 150


def test_messages_that_are_no_work_items_are_dropped_with_a_warning(world):
    """Defect D17: they vanished without a word."""
    start(world, lambda ctx, input: (yield ctx.wait_for_event("go")))
    world.queue.extend([("i", 90, "not json"), ("i", 91, '{"Unknown":{"instance":"i"}}'), ("i", 92, external_item("i", "go", "5"))])
    world.run()
    assert result(world) == 5 and len(world.warnings) == 2
