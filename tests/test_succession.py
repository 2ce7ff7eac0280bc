"""What reaches an execution that follows another: starts that come twice, inputs between the two, messages that nobody read."""

import json

import pytest
from engine_harness import World

from duroxide.events import activity_completed_item, cancel_item, external_item, queue_item, start_item


@pytest.fixture(params=["live", "replayed"])
def world(request):
    return World(live=request.param == "live")


def result(world, instance="i"):
    assert world.rows[instance].status == "Completed", world.rows[instance].output
    return json.loads(world.rows[instance].output)


def started(world, execution_id):
    """Input and version that an execution was started with."""
    event = world.events("i", execution_id)[0]
    return json.loads(event["input"]), event["version"]


def hidden_successor(world):
    """`main` of i has continued as new; its start is taken out of the queue, as a delay hides it, and returned."""
    world.run()
    world.send(external_item("i", "go", "1"))
    world.turn("i")
    assert world.rows["i"].status == "ContinuedAsNew"
    [start] = [message for message in world.queue if "ContinueAsNew" in message[2]]
    world.queue.remove(start)
    return start


def again(then):
    """First run: waits for "go" and continues as new with "again". Second run: `then`."""

    def main(ctx, input):
        if input != "again":
            yield ctx.wait_for_event("go")
            yield ctx.continue_as_new("again")
        return (yield from then(ctx))

    return main


def messages(count):
    def then(ctx):
        got = []
        for _ in range(count):
            got.append((yield ctx.dequeue_event("q")))
        return got

    return then


# ── starts that come twice ───────────────────────────────────────────────────────────────────────────────────


def test_a_duplicate_start_changes_neither_code_nor_version_nor_input(world):
    def old(ctx, input):
        yield ctx.wait_for_event("go")
        return ["old", input]

    world.orchestration(old, "main")
    world.send(start_item("i", "main", '"first"'))
    world.run()
    world.orchestration(lambda ctx, input: ["new", input], "main", "2.0.0")
    world.send(start_item("i", "main", '"second"', "2.0.0"))
    world.run()
    world.executions.clear()
    world.send(external_item("i", "go", "1"))
    world.run()
    assert result(world) == ["old", "first"] and started(world, 1) == ("first", "1.0.0")
    assert world.kinds("i").count("OrchestrationStarted") == 1 and world.rows["i"].execution_id == 1


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_duplicate_start_does_not_replace_that_of_the_successor(world, order):
    world.orchestration(again(messages(0)), "main")
    world.send(start_item("i", "main", '"first"'))
    start = hidden_successor(world)
    world.send(start_item("i", "main", '"impostor"'))
    world.turn("i")
    assert world.outcomes[-1] == "back" and world.rows["i"].execution_id == 1
    world.queue.insert(0 if order == "after" else 1, start)
    world.run()
    assert started(world, 2)[0] == "again" and world.rows["i"].execution_id == 2


def test_a_parent_that_wants_the_id_of_a_successor_is_told(world):
    def parent(ctx, input):
        try:
            yield ctx.schedule_sub_orchestration_with_id("main", "i")
        except Exception as error:
            return str(error)

    world.orchestration(parent)
    world.orchestration(again(messages(1)), "main")
    world.send(start_item("i", "main", '"first"'))
    start = hidden_successor(world)
    world.send(start_item("p", "parent", "null"))
    world.turn("p")
    world.queue.append(start)
    world.run()
    assert result(world, "p") == "sub-orchestration instance id 'i' already exists"
    assert world.rows["i"].status == "Running" and world.rows["i"].parent is None


# ── between two executions ───────────────────────────────────────────────────────────────────────────────────


def test_inputs_wait_for_a_successor_that_a_delay_hides_and_come_after_what_it_carries(world):
    world.orchestration(again(messages(4)), "main")
    world.send(start_item("i", "main", '"first"'), queue_item("i", "q", "1"), queue_item("i", "q", "2"))
    start = hidden_successor(world)
    world.send(queue_item("i", "q", "3"))
    world.turn("i")
    assert world.outcomes[-1] == "back" and world.attempts["i"] == 0, "the wait costs no attempt"
    world.queue.append(start)
    world.send(queue_item("i", "q", "4"))
    world.run()
    assert result(world) == [1, 2, 3, 4]


def test_what_comes_between_two_executions_reaches_the_next_once(world):
    def then(ctx):
        first = yield ctx.dequeue_event("q")
        rest = yield ctx.race(ctx.dequeue_event("q"), ctx.schedule_timer(10))
        return [first, rest]

    world.orchestration(again(then), "main")
    world.send(start_item("i", "main", '"first"'))
    start = hidden_successor(world)
    world.queue.append(start)
    world.send(queue_item("i", "q", "1"), external_item("i", "e", "2"), activity_completed_item("i", 1, 2, '"stale"'))
    world.run()
    assert result(world) == [1, {"index": 1, "value": None}]
    kinds = world.kinds("i", 2)
    assert kinds.count("ExternalEvent") == kinds.count("ExternalEventPersistent") == 1 and "ActivityCompleted" not in kinds


def test_a_cancellation_between_two_executions_reaches_the_next(world):
    world.orchestration(again(messages(1)), "main")
    world.send(start_item("i", "main", '"first"'))
    start = hidden_successor(world)
    world.send(cancel_item("i", "enough"))
    world.turn("i")
    world.queue.append(start)
    world.run()
    assert (world.rows["i"].status, world.rows["i"].execution_id) == ("Failed", 2)
    assert world.rows["i"].output == "canceled: enough" and world.kinds("i", 2).count("OrchestrationCancelRequested") == 1


# ── messages that nobody read ────────────────────────────────────────────────────────────────────────────────


def test_the_successor_carries_what_was_not_read_wherever_it_stood(world):
    def main(ctx, round):
        if round == 0:
            yield ctx.wait_for_event("go")
            assert [(yield ctx.dequeue_event("b")), (yield ctx.dequeue_event("b"))] == [2, 4]
            yield ctx.continue_as_new(1)

    world.orchestration(main)
    world.send(start_item("i", "main", "0"))
    world.run()
    world.send(*(queue_item("i", name, str(n)) for n, name in enumerate("ababbc", 1)), external_item("i", "go", "1"))
    world.run()
    assert world.events("i", 2)[0]["carry_forward_events"] == [["a", "1"], ["a", "3"], ["b", "5"], ["c", "6"]]


def test_the_successor_carries_what_the_loser_of_a_race_could_have_had(world):
    """Both were there when the race was run: the loser handed nothing to the code."""

    def main(ctx, round):
        if round == 0:
            yield ctx.wait_for_event("go")
            won = yield ctx.race(ctx.dequeue_event("a"), ctx.dequeue_event("b"))
            assert won == {"index": 0, "value": 2}
            yield ctx.continue_as_new(1)
        return [(yield ctx.dequeue_event("b")), (yield ctx.dequeue_event("a"))]

    world.orchestration(main)
    world.send(start_item("i", "main", "0"), *(queue_item("i", name, str(n)) for n, name in enumerate("baa", 1)))
    world.run()
    world.send(external_item("i", "go", "1"))
    world.run()
    assert world.events("i", 2)[0]["carry_forward_events"] == [["b", "1"], ["a", "3"]] and result(world) == [1, 3]


def test_races_of_queues_replay_as_they_ran_under_the_stamp_of_the_reference():
    """The first to come wins the race that waits; of what is there already, the first member wins. Losers keep their messages."""
    queues = [f"q{n}" for n in range(1, 7)]

    def main(ctx, input):
        got = []
        for _ in range(3):
            won = yield ctx.race(*(ctx.dequeue_event(name) for name in queues))
            got.append([queues[won["index"]], won["value"]])
        got.append((yield ctx.all([ctx.dequeue_event("q2"), ctx.dequeue_event("q6")])))
        return got

    histories = []
    for live in (True, False):
        world = World(live=live)
        world.orchestration(main)
        world.send(start_item("i", "main", "null"))
        world.run()
        history = world.rows["i"].histories[1]
        history[0] = (1, history[0][1], history[0][2].replace('"0.1.32"', '"0.1.31"'))
        for name, value in (("q6", 1), ("q2", 2), ("q1", 3), ("q1", 4), ("q6", 5)):
            world.send(queue_item("i", name, str(value)))
        world.run()
        histories.append([json.loads(text)["type"] for _, _, text in history])
        assert result(world) == [["q6", 1], ["q1", 3], ["q1", 4], [{"ok": 2}, {"ok": 5}]]
    assert histories[0] == histories[1]
