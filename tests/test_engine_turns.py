"""The engine's turns: what code gets back, what history holds, and that live and replayed executions cannot be told apart."""

import json

import pytest
from engine_harness import World

from duroxide.errors import ActivityError, ActivityTimeout, Cancelled, SubOrchestrationError
from duroxide.events import KINDS, cancel_item, external_item, queue_item, start_item


@pytest.fixture(params=["live", "replayed"])
def world(request):
    w = World(live=request.param == "live")
    w.activities.update(echo=lambda x: x, double=lambda x: x * 2, fail=fail)
    return w


def fail(text):
    raise ValueError(text)


def result(world, instance="i"):
    row = world.rows[instance]
    assert row.status == "Completed", row.output
    return json.loads(row.output)


def run(world, function, input=None, *later):
    world.orchestration(function, "main")
    world.send(start_item("i", "main", json.dumps(input)))
    for item in later:
        world.send(item)
    world.run()
    return world


def test_activity_results_and_errors_reach_the_code_as_values_and_exceptions(world):
    seen = []

    def main(ctx, input):
        value = yield ctx.schedule_activity("echo", {"b": [1, None], "a": "é"})
        try:
            yield ctx.schedule_activity("fail", "boo")
        except ActivityError as error:
            seen.append((str(error), error.args, error.activity, error.error_type))
        return value

    run(world, main)
    assert result(world) == {"b": [1, None], "a": "é"}
    text = "Activity 'fail' call failed: ValueError: boo"
    assert seen[-1] == (text, (text,), "fail", "ValueError")


def test_ids_are_dense_and_completions_come_before_the_commands_they_cause(world):
    def main(ctx, input):
        yield ctx.all([ctx.schedule_activity("echo", i) for i in range(3)])
        ctx.set_custom_status("x")
        yield ctx.schedule_timer(5)

    run(world, main)
    assert world.kinds("i") == [
        "OrchestrationStarted", *["ActivityScheduled"] * 3, *["ActivityCompleted"] * 3, "CustomStatusUpdated", "TimerCreated",
        "TimerFired", "OrchestrationCompleted",
    ]  # fmt: skip
    events = world.events("i")
    assert [e["event_id"] for e in events] == list(range(1, 12))
    assert [e["source_event_id"] for e in events[4:7]] == [2, 3, 4]
    assert {e["duroxide_version"] for e in events} == {"0.1.32"}


def test_a_plain_function_completes_with_what_it_returns(world):
    run(world, lambda ctx, input: {"got": input}, [1])
    assert result(world) == {"got": [1]}


def test_a_function_that_raises_fails_with_its_traceback(world):
    def main(ctx, input):
        yield ctx.schedule_timer(1)
        raise KeyError("gone")

    run(world, main)
    text = world.rows["i"].output
    assert text.startswith("Traceback (most recent call last):\n") and text.endswith("KeyError: 'gone'\n")


def test_an_uncaught_activity_error_ends_the_traceback(world):
    def main(ctx, input):
        yield ctx.schedule_activity("fail", "zz")

    run(world, main)
    assert world.rows["i"].output.rstrip().endswith("Activity 'fail' call failed: ValueError: zz")


@pytest.mark.parametrize("error", [SystemExit(4), KeyboardInterrupt("k")])
def test_exits_raised_in_code_fail_the_instance_alone(world, error):
    def main(ctx, input):
        yield ctx.schedule_timer(1)
        raise error

    run(world, main)
    assert world.rows["i"].output == f"Generator next failed: {type(error).__name__}: {error}"


def test_output_that_json_cannot_hold_fails_with_the_traceback(world):
    run(world, lambda ctx, input: object())
    assert world.rows["i"].output.endswith("TypeError: Object of type object is not JSON serializable\n")


def test_input_is_decoded_empty_is_none_and_no_json_stays_text(world):
    world.orchestration(lambda ctx, input: [input, type(input).__name__], "main")
    for instance, text in (("a", ""), ("b", "not json"), ("c", '"x"')):
        world.send(start_item(instance, "main", text))
    world.run()
    assert [result(world, i) for i in "abc"] == [[None, "NoneType"], ["not json", "str"], ["x", "str"]]


def test_a_generator_is_kept_between_turns_and_its_finally_runs_once():
    world = World(live=True)
    world.activities["echo"] = lambda x: x
    log = []

    def main(ctx, input):
        log.append("begin")
        try:
            for i in range(5):
                yield ctx.schedule_activity("echo", i)
        finally:
            log.append("end")

    run(world, main)
    assert log == ["begin", "end"]


def test_context_calls_after_the_turn_are_silent(world):
    kept = []

    def main(ctx, input):
        kept.append(ctx)
        ctx.set_kv_value("a", 1)
        yield ctx.schedule_timer(1)

    run(world, main)
    ctx = kept[-1]
    ctx.set_kv_value("b", 2)
    ctx.set_custom_status("late")
    assert (ctx.get_kv_value("a"), ctx.get_kv_all_values(), ctx.get_custom_status()) == (None, {}, None)
    assert world.values("i") == {"a": "1"} and world.rows["i"].custom_status is None


# ── all, race, retry ─────────────────────────────────────────────────────────────────────────────────────────


def test_all_keeps_order_and_wraps_failures(world):
    def main(ctx, input):
        untyped = yield ctx.all([ctx.schedule_timer(9), ctx.schedule_activity("fail", "x"), ctx.schedule_activity("echo", 1)])
        typed = yield ctx.all_typed([ctx.schedule_activity("echo", 1), ctx.schedule_activity("fail", "y")])
        empty = yield ctx.all([])
        return [untyped, typed, empty]

    run(world, main)
    x, y = ({"err": f"Activity 'fail' call failed: ValueError: {t}"} for t in "xy")
    assert result(world) == [[{"ok": None}, x, {"ok": 1}], [1, y], []]


def test_values_pass_through_all_and_race_unchanged(world):
    value = {"z": 1, "a": [2**70, "\udc80"], "m": 1.5}

    def main(ctx, input):
        (one,) = yield ctx.all([ctx.schedule_activity("echo", value)])
        two = yield ctx.race(ctx.schedule_activity("echo", value), ctx.schedule_timer(1000))
        return [list(one["ok"]), one["ok"] == value, two["value"] == value]

    run(world, main)
    assert result(world) == [["z", "a", "m"], True, True]


@pytest.mark.parametrize("members", [1, 2, 3, 50])
def test_race_of_any_size_gives_index_and_value_and_drops_the_rest(world, members):
    def main(ctx, input):
        tasks = [ctx.wait_for_event(f"e{i}") for i in range(members - 1)]
        return (yield ctx.race(*tasks, ctx.schedule_timer(7)))

    run(world, main)
    assert result(world) == {"index": members - 1, "value": None}
    assert world.kinds("i").count("ExternalSubscribedCancelled") == members - 1


def test_the_winner_that_fails_raises(world):
    def main(ctx, input):
        try:
            yield ctx.race(ctx.schedule_activity("fail", "w"), ctx.schedule_timer(1000))
        except Exception as error:
            return [type(error).__name__, str(error)]

    run(world, main)
    assert result(world) == ["ActivityError", "Activity 'fail' call failed: ValueError: w"]


def test_all_and_race_nest_to_any_depth(world):
    def main(ctx, input):
        deep = ctx.schedule_activity("echo", 0)
        for _ in range(40):
            deep = ctx.all([deep])
        race = ctx.race(ctx.all([ctx.schedule_timer(50), ctx.schedule_activity("echo", 1)]), ctx.race(ctx.schedule_timer(5)))
        return (yield ctx.all([deep, race, ctx.all([])]))

    run(world, main)
    deep, race, empty = result(world)
    for _ in range(40):
        (deep,) = deep["ok"]
    assert deep == {"ok": 0} and empty == {"ok": []}
    assert race == {"ok": {"index": 1, "value": {"index": 0, "value": None}}}


def test_a_losing_activity_is_cancelled_once_and_its_late_result_interests_nobody(world):
    def main(ctx, input):
        won = yield ctx.race(ctx.schedule_timer(5), ctx.schedule_activity("echo", 1))
        yield ctx.schedule_timer(5)
        return won

    world.execute = lambda work: None  # the activity never comes back by itself
    run(world, main)
    assert result(world)["index"] == 0
    assert world.kinds("i").count("ActivityCancelRequested") == 1
    assert world.deleted_work == [("i", 1, 3)]


@pytest.mark.parametrize("name", ["newGuid", "utcNow", "orchestration", "continueAsNew"])
def test_what_cannot_be_a_member_fails_there_and_nothing_else(world, name):
    desc = {"type": name, "name": "n", "instanceId": "x", "input": "1"}

    def main(ctx, input):
        members = yield ctx.all([desc, ctx.schedule_activity("echo", 1)])
        try:
            yield ctx.race(desc, ctx.schedule_timer(1))
        except Exception as error:
            return [members, str(error)]

    run(world, main)
    assert result(world) == [[{"err": "unsupported task in join"}, {"ok": 1}], "unsupported task in select"]


@pytest.mark.parametrize(
    ("policy", "delays"),
    [
        ({"max_attempts": 4}, [100, 200, 400]),
        ({"max_attempts": 3, "backoff": "fixed"}, [1000, 1000]),
        ({"max_attempts": 4, "backoff": "linear"}, [100, 200, 300]),
        ({"max_attempts": 12}, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]),
        ({"max_attempts": 3, "backoff": {"type": "exponential", "initial_ms": 5, "multiplier": 3, "max_ms": 10}}, [5, 10]),
        ({"max_attempts": 3, "backoff": {"type": "fixed", "initial_ms": 0}}, []),
        ({"max_attempts": 1}, []),
    ],
)
def test_retry_waits_as_its_policy_says_and_raises_the_last_error(world, policy, delays):
    calls = []
    world.activities["flaky"] = lambda n: fail(str(calls.append(n) or len(calls)))

    def main(ctx, input):
        try:
            yield ctx.schedule_activity_with_retry("flaky", 1, policy)
        except Exception as error:
            return str(error)

    run(world, main)
    assert result(world) == f"Activity 'flaky' call failed: ValueError: {policy['max_attempts']}"
    events = world.events("i")
    assert [e["fire_at_ms"] - e["timestamp_ms"] for e in events if e["type"] == "TimerCreated"] == delays


@pytest.mark.parametrize("option", ["timeout_ms", "total_timeout_ms", "overall_timeout_ms"])
def test_a_retry_timeout_ends_the_whole_retry(world, option):
    world.execute = lambda work: None

    def main(ctx, input):
        try:
            yield ctx.schedule_activity_with_retry("slow", 1, {"max_attempts": 5, option: 30})
        except ActivityTimeout as error:
            return str(error)

    run(world, main)
    assert result(world) == "timeout: activity timed out"
    assert world.kinds("i").count("ActivityScheduled") == 1 and "ActivityCancelRequested" in world.kinds("i")


def test_an_overall_timeout_bounds_the_pauses_too(world):
    def main(ctx, input):
        try:
            yield ctx.schedule_activity_with_retry("fail", "x", {"max_attempts": 50, "overall_timeout_ms": 950})
        except Exception as error:
            return str(error)

    run(world, main)
    assert result(world) == "timeout: activity timed out"
    assert world.kinds("i").count("ActivityScheduled") == 4  # at 0, 100, 300, 700 ms


def test_retry_without_attempts_panics(world):
    run(world, lambda ctx, input: (yield ctx.schedule_activity_with_retry("echo", 1, {"max_attempts": 0})))
    assert world.rows["i"].output == "orchestration panicked: max_attempts must be at least 1"


# ── system calls, invalid steps ──────────────────────────────────────────────────────────────────────────────


def test_system_calls_are_answered_in_their_turn_and_stay_the_same(world):
    def main(ctx, input):
        first = yield ctx.new_guid()
        at = yield ctx.utc_now()
        yield ctx.schedule_timer(100)
        second = yield ctx.new_guid()
        return [first, at, second]

    run(world, main)
    assert result(world) == ["00000000-0000-4000-8000-000000000001", 1000, "00000000-0000-4000-8000-000000000002"]
    assert world.turns == 2
    assert world.kinds("i")[1:5] == ["ActivityScheduled", "ActivityCompleted"] * 2
    assert world.events("i")[1]["name"] == "__duroxide_syscall:new_guid"


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (None, "invalid type: null, expected internally tagged enum ScheduledTask"),
        (5, "invalid type: integer `5`, expected internally tagged enum ScheduledTask"),
        (True, "invalid type: boolean `true`, expected internally tagged enum ScheduledTask"),
        (1.5, "invalid type: floating point `1.5`, expected internally tagged enum ScheduledTask"),
        (2**70, "invalid type: floating point `1.1805916207174113e+21`, expected internally tagged enum ScheduledTask"),
        ('a"b\n', 'invalid type: string "a\\"b\\n", expected internally tagged enum ScheduledTask'),
        ([], "missing field `type`"),
        ([{}], "invalid type: map, expected variant identifier"),
        ({}, "missing field `type`"),
        ({"type": "activity"}, "missing field `name`"),
        ({"type": "activity", "name": "a"}, "missing field `input`"),
        ({"type": "activity", "name": 5, "input": "1"}, "invalid type: integer `5`, expected a string"),
        ({"type": "activity", "name": "a", "input": {}}, "invalid type: map, expected a string"),
        ({"type": "activity", "name": "a", "input": "1", "tag": 5}, "invalid type: integer `5`, expected a string"),
        ({"type": "activityWithSession", "name": "a", "input": "1"}, "missing field `sessionId`"),
        ({"type": "timer", "delayMs": -1}, "invalid value: integer `-1`, expected u64"),
        ({"type": "timer", "delayMs": 1.5}, "invalid type: floating point `1.5`, expected u64"),
        ({"type": "timer", "delayMs": True}, "invalid type: boolean `true`, expected u64"),
        ({"type": "join", "tasks": "x"}, 'invalid type: string "x", expected a sequence'),
        ({"type": "join", "tasks": [5]}, "invalid type: integer `5`, expected internally tagged enum ScheduledTask"),
        ({"type": "select", "tasks": [[{}]]}, "invalid type: map, expected variant identifier"),
        ({"type": "dequeueEvent"}, "missing field `queueName`"),
        ({"type": "activityWithRetry", "name": "a", "input": "1", "retry": {}}, "missing field `maxAttempts`"),
        (
            {"type": "activityWithRetry", "name": "a", "input": "1", "retry": {"maxAttempts": 2**40}},
            "invalid value: integer `1099511627776`, expected u32",
        ),
        (
            {"type": "activityWithRetry", "name": "a", "input": "1", "retry": {"maxAttempts": 1, "backoff": 5}},
            "invalid type: integer `5`, expected a string",
        ),
    ],
)
def test_a_yield_that_is_no_task_fails_the_instance_with_what_was_found(world, step, text):
    def main(ctx, input):
        try:
            yield step
        except Exception:
            return "not catchable"

    run(world, main)
    assert world.rows["i"].output == f"Invalid generator step result: {text}"


def test_an_unknown_task_type_is_named_with_the_known_ones(world):
    run(world, lambda ctx, input: (yield {"type": "bogus"}))
    text = world.rows["i"].output
    assert text.startswith("Invalid generator step result: unknown variant `bogus`, expected one of `activity`, ")
    assert text.endswith("`join`, `select`")


@pytest.mark.parametrize("step", [{1, 2}, object(), {"type": "join", "tasks": (i for i in ())}])
def test_a_yield_that_json_cannot_hold_fails_with_the_traceback(world, step):
    def main(ctx, input):
        yield step

    run(world, main)
    assert world.rows["i"].output.startswith("Traceback") and "is not JSON serializable" in world.rows["i"].output


# ── outcomes ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_cancel_wins_over_a_code_that_finishes_in_the_same_turn(world):
    run(world, lambda ctx, input: "done", None, cancel_item("i", "because"))
    assert (world.rows["i"].status, world.rows["i"].output) == ("Failed", "canceled: because")


def test_the_first_cancel_reason_wins_and_later_ones_change_nothing(world):
    def main(ctx, input):
        yield ctx.wait_for_event("never")

    run(world, main)
    world.send(cancel_item("i", "one"), cancel_item("i", "two"))
    world.run()
    assert world.rows["i"].output == "canceled: one"
    assert world.kinds("i")[-3:] == ["OrchestrationCancelRequested", "ExternalSubscribedCancelled", "OrchestrationFailed"]
    before = world.kinds("i")
    world.send(cancel_item("i", "three"), external_item("i", "never", "1"), start_item("i", "main", "1"))
    world.run()
    assert world.kinds("i") == before


def test_in_flight_activities_are_cancelled_after_the_terminal_event(world):
    world.execute = lambda work: None

    def main(ctx, input):
        yield ctx.race(ctx.all([ctx.schedule_activity("a", 1), ctx.schedule_activity("b", 1)]), ctx.wait_for_event("stop"))

    run(world, main)
    world.send(cancel_item("i", ""))
    world.run()
    tail = world.events("i")[-3:]
    assert [e["type"] for e in tail] == ["OrchestrationFailed", "ActivityCancelRequested", "ActivityCancelRequested"]
    assert [e.get("reason") for e in tail[1:]] == ["orchestration_terminal_failed"] * 2
    assert world.deleted_work == [("i", 1, 2), ("i", 1, 3)]
    assert world.rows["i"].output == "canceled: "


def test_every_event_kind_can_be_written(world):
    """One world that makes all 26 kinds."""
    world.orchestration(lambda ctx, input: "child", "child")
    world.orchestration(lambda ctx, input: fail("c"), "bad_child")
    world.orchestration(lambda ctx, input: (yield ctx.wait_for_event("never")), "waiting")

    def main(ctx, stage):
        if stage == 0:
            ctx.set_custom_status("s")
            ctx.set_kv_value("k", "v")
            ctx.clear_kv_value("k")
            ctx.clear_all_kv_values()
            yield ctx.start_orchestration("child", "detached", 1)
            yield ctx.all([ctx.schedule_activity("fail", "x"), ctx.schedule_sub_orchestration("bad_child", 1)])
            yield ctx.all([ctx.schedule_activity("echo", 1), ctx.schedule_sub_orchestration("child", 1)])
            yield ctx.race(
                ctx.schedule_timer(1), ctx.schedule_sub_orchestration("waiting"), ctx.wait_for_event("e"), ctx.dequeue_event("q")
            )
            yield ctx.all([ctx.wait_for_event("go"), ctx.dequeue_event("jobs")])
            yield ctx.race(ctx.schedule_timer(1), ctx.schedule_activity("hang", 1))
            yield ctx.continue_as_new(1)
        yield ctx.wait_for_event("never")

    def execute(work, ordinary=world.execute):
        return None if work.name == "hang" else ordinary(work)

    world.execute = execute
    run(world, main, 0)
    world.send(external_item("i", "go", "1"), queue_item("i", "jobs", "2"))
    world.run()
    world.send(cancel_item("i", "enough"))
    world.run()
    seen = {kind for row in world.rows.values() for history in row.histories.values() for _, kind, _ in history}
    assert seen == set(KINDS)


def test_child_errors_carry_structure(world):
    world.orchestration(lambda ctx, input: fail("inner"), "bad")

    def waiting(ctx, input):
        yield ctx.wait_for_event("never")

    world.orchestration(waiting)
    seen = []

    def main(ctx, input):
        for task in (ctx.schedule_sub_orchestration_with_id("bad", "b1"), ctx.schedule_sub_orchestration_with_id("waiting", "w1")):
            try:
                yield task
            except SubOrchestrationError as error:
                seen.append((type(error), error.orchestration, error.instance_id, str(error).splitlines()[-1]))

    run(world, main)
    world.send(cancel_item("w1", "stop it"))
    world.run()
    assert seen[-2:] == [
        (SubOrchestrationError, "bad", "b1", "ValueError: inner"), (Cancelled, "waiting", "w1", "canceled: stop it"),
    ]  # fmt: skip
