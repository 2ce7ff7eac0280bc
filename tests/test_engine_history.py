"""History matching: every mismatch text, what is tolerated, duplicates, and that live and replayed executions agree on any program."""

import json

import pytest
from engine_harness import World
from hypothesis import given, settings, strategies as st

from duroxide.engine._history import debug
from duroxide.events import (
    activity_completed_item,
    activity_failed_item,
    application_failure,
    external_item,
    queue_item,
    start_item,
)


def held_world():
    world = World(live=False)
    world.execute = lambda work: None
    world.activities["echo"] = lambda x: x
    return world


def changed(before, after, *items):
    """What the instance says when its code was `before` for the first turn and `after` from then on."""
    world = held_world()
    world.orchestration(gen(), "s")
    world.orchestration(before, "main")
    world.send(start_item("i", "main", "1"))
    world.run()
    world.orchestration(after, "main")
    world.send(*(items or (external_item("i", "poke", "0"),)))
    world.run()
    return world


def gen(*steps):
    """An orchestration that yields what each step makes of ctx, then waits."""

    def main(ctx, input):
        for step in steps:
            desc = step(ctx)
            if desc is not None:
                yield desc
        yield ctx.wait_for_event("end")

    return main


def activity(name="A", input=1, **kw):
    return lambda ctx: ctx.schedule_activity(name, input, **kw)


CALL = 'CallActivity { scheduling_event_id: 0, name: "B", input: "1", session_id: None, tag: None }'
EVENT = 'ActivityScheduled { name: "A", input: "1", session_id: None, tag: None }'


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (activity(), activity("B"), f"schedule mismatch: action={CALL} vs event={EVENT}"),
        (
            activity(), activity(input=2),
            f'schedule mismatch: action={CALL.replace(chr(34) + "B", chr(34) + "A").replace(chr(34) + "1", chr(34) + "2")} vs event={EVENT}',
        ),
        (
            activity(session_id="s"), activity(session_id='t"'),
            'schedule mismatch: action=CallActivity { scheduling_event_id: 0, name: "A", input: "1", session_id: Some("t\\""), tag: None }'
            ' vs event=ActivityScheduled { name: "A", input: "1", session_id: Some("s"), tag: None }',
        ),
        (
            activity(), lambda ctx: ctx.wait_for_event("x"),
            f'schedule mismatch: action=WaitExternal {{ scheduling_event_id: 0, name: "x" }} vs event={EVENT}',
        ),
        (
            activity(), lambda ctx: ctx.dequeue_event("x"),
            f'schedule mismatch: action=DequeueEvent {{ scheduling_event_id: 0, name: "x" }} vs event={EVENT}',
        ),
        (
            activity(), lambda ctx: ctx.schedule_sub_orchestration("sub", 1),
            'schedule mismatch: action=StartSubOrchestration { scheduling_event_id: 0, name: "sub", version: None, '
            f'instance: "sub::pending_1", input: "1" }} vs event={EVENT}',
        ),
        (
            activity(), lambda ctx: ctx.start_orchestration_versioned("sub", "1.0.0", "d", 1),
            'schedule mismatch: action=StartOrchestrationDetached { scheduling_event_id: 0, name: "sub", version: Some("1.0.0"), '
            f'instance: "d", input: "1" }} vs event={EVENT}',
        ),
        (
            activity(), lambda ctx: ctx.continue_as_new(1),
            f'schedule mismatch: action=ContinueAsNew {{ input: "1", version: None }} vs event={EVENT}',
        ),
        (
            activity(), lambda ctx: ctx.set_custom_status("x"),
            f'schedule mismatch: action=UpdateCustomStatus {{ status: Some("x") }} vs event={EVENT}',
        ),
        (
            activity(), lambda ctx: ctx.clear_all_kv_values(), f"schedule mismatch: action=ClearKeyValues vs event={EVENT}",
        ),
        (
            lambda ctx: ctx.set_custom_status("x"), activity("B"),
            f'custom status mismatch: action={CALL} vs event=CustomStatusUpdated {{ status: Some("x") }}',
        ),
        (
            lambda ctx: ctx.clear_kv_value("k"), activity("B"),
            f'kv clear mismatch: action={CALL} vs event=KeyValueCleared {{ key: "k" }}',
        ),
        (
            lambda ctx: ctx.clear_all_kv_values(), activity("B"),
            f"kv clear_all mismatch: action={CALL} vs event=KeyValuesCleared",
        ),
        (
            lambda ctx: ctx.set_kv_value("k", 1), lambda ctx: ctx.set_kv_value("k", 2),
            'kv set mismatch: action=SetKeyValue { key: "k", value: "2", last_updated_at_ms: 1000 } '
            'vs event=KeyValueSet { key: "k", value: "1", last_updated_at_ms: 1000 }',
        ),
        (
            lambda ctx: ctx.wait_for_event("x"), activity("B"),
            f'schedule mismatch: action={CALL} vs event=ExternalSubscribed {{ name: "x" }}',
        ),
        (
            lambda ctx: ctx.schedule_timer(100_000), activity("B"),
            f"schedule mismatch: action={CALL} vs event=TimerCreated {{ fire_at_ms: 101000 }}",
        ),
    ],
)  # fmt: skip
def test_a_changed_command_is_named_with_what_history_holds(before, after, text):
    world = changed(gen(before), gen(after))
    assert world.rows["i"].output == f"nondeterministic: {text}"
    assert world.kinds("i")[-1] in ("OrchestrationFailed", "ActivityCancelRequested")


def test_a_command_that_is_gone_is_named():
    world = changed(gen(activity(), activity()), lambda ctx, input: (yield ctx.all([])) or (yield ctx.race(ctx.all([]), ctx.all([]))))
    assert world.rows["i"].status == "Completed"  # it ended early: a warning, as below
    world = held_world()
    world.orchestration(gen(lambda ctx: ctx.all([activity()(ctx), activity()(ctx)])), "main")
    world.send(start_item("i", "main", "1"))
    world.run()
    world.orchestration(gen(activity()), "main")
    world.send(external_item("i", "x", "1"))
    world.run()
    assert world.rows["i"].output == "nondeterministic: history schedule but no emitted action"


def test_an_early_end_is_a_warning_that_names_the_event():
    world = changed(gen(activity(), activity("B")), lambda ctx, input: "early")
    assert world.rows["i"].status == "Completed"
    assert any("event 2" in w and "main" in w for w in world.warnings)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (lambda ctx: ctx.schedule_timer(100_000), lambda ctx: ctx.schedule_timer(5)),
        (lambda ctx: ctx.set_custom_status("a"), lambda ctx: ctx.set_custom_status("b")),
        (lambda ctx: ctx.schedule_sub_orchestration("s", 1), lambda ctx: ctx.schedule_sub_orchestration_with_id("s", "x", 1)),
        (lambda ctx: ctx.start_orchestration("s", "d", 1), lambda ctx: ctx.start_orchestration_versioned("s", "1.0.0", "d", 1)),
        (
            lambda ctx: [ctx.clear_kv_value("a"), ctx.clear_kv_value("b")] and None,
            lambda ctx: [ctx.clear_kv_value("b"), ctx.clear_kv_value("a")] and None,
        ),
    ],
)
def test_what_replay_does_not_compare_may_change(before, after):
    world = changed(gen(before), gen(after))
    assert world.rows["i"].status == "Running", world.rows["i"].output


def test_new_commands_after_history_are_no_mismatch():
    world = changed(gen(activity()), gen(lambda ctx: ctx.race(activity()(ctx), activity("B")(ctx))))
    assert world.rows["i"].status == "Running"


def test_a_dropped_future_that_is_no_longer_dropped_is_a_mismatch():
    def before(ctx, input):
        yield ctx.race(ctx.schedule_timer(0), ctx.schedule_activity("A", 1))
        yield ctx.wait_for_event("end")

    def after(ctx, input):
        yield ctx.all([ctx.schedule_timer(0), ctx.schedule_activity("A", 1)])
        yield ctx.wait_for_event("end")

    world = held_world()
    world.orchestration(before, "main")
    world.send(start_item("i", "main", "1"))
    world.run()
    world.orchestration(after, "main")
    world.send(external_item("i", "x", "1"))
    world.run()
    assert world.rows["i"].output.startswith("nondeterministic: ")


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (activity_completed_item("i", 1, 99, "1"), "no matching schedule for completion id=99"),
        (activity_completed_item("i", 1, 3, "1"), "completion kind mismatch for id=3, expected 'timer', got 'activity'"),
        ('{"TimerFired":{"instance":"i","execution_id":1,"id":2,"fire_at_ms":5}}',
         "completion kind mismatch for id=2, expected 'activity', got 'timer'"),
        ('{"TimerFired":{"instance":"i","execution_id":1,"id":77,"fire_at_ms":5}}', "no matching schedule for timer id=77"),
        ('{"SubOrchCompleted":{"parent_instance":"i","parent_execution_id":1,"parent_id":88,"result":"1"}}',
         "no matching schedule for sub-orchestration id=88"),
    ],
)  # fmt: skip
def test_a_completion_that_fits_no_schedule_fails_the_turn(item, text):
    main = gen(lambda ctx: ctx.all([activity()(ctx), ctx.schedule_timer(100_000)]))
    world = changed(main, main, item)
    assert world.rows["i"].output == f"nondeterministic: {text}"


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("second", ["Completed", "Failed"])
def test_a_repeated_completion_is_dropped_whatever_it_says(live, second):
    """A result that is delivered again, or a failure after a result, changes nothing."""
    world = World(live=live)
    world.execute = lambda work: None
    world.orchestration(gen(activity()), "main")
    world.send(start_item("i", "main", "1"))
    world.run()
    again = activity_completed_item("i", 1, 2, "2")
    if second == "Failed":
        again = activity_failed_item("i", 1, 2, application_failure("late"))
    world.send(activity_completed_item("i", 1, 2, "1"), again)
    world.run()
    world.send(again, activity_completed_item("i", 7, 2, "1"))
    world.run()
    assert world.rows["i"].status == "Running"
    assert world.kinds("i").count("ActivityCompleted") == 1 and "ActivityFailed" not in world.kinds("i")


def test_uncatchable_details_fail_the_instance_with_the_same_details():
    def main(ctx, input):
        try:
            yield ctx.schedule_activity("A", 1)
        except BaseException:
            return "caught"

    details = '{"Infrastructure":{"operation":"o","message":"m","retryable":false}}'
    world = held_world()
    world.orchestration(main)
    world.send(start_item("i", "main", "1"))
    world.run()
    world.send(activity_failed_item("i", 1, 2, details))
    world.run()
    assert world.rows["i"].output == "infrastructure:o: m"
    assert world.events("i")[-1]["details"] == json.loads(details)


def test_strings_are_quoted_as_the_texts_quote_them():
    assert debug('a"b\\c\n\t\r\0é\u200b') == '"a\\"b\\\\c\\n\\t\\r\\0é\\u{200b}"'


def test_unreadable_history_waits_then_poisons_with_an_id_of_its_own():
    world = held_world()
    world.max_attempts = 3
    world.orchestration(gen(activity()), "main")
    world.send(start_item("i", "main", "1"))
    world.run()
    world.rows["i"].histories[1][1] = (2, "FutureEvent", '{"event_id":2,"type":"FutureEvent"}')
    world.send(external_item("i", "x", "1"))
    world.run()
    assert world.outcomes[-4:] == ["back"] * 3 + ["failed"]
    assert world.rows["i"].output.startswith("poison: orchestration i history deserialization failed after 4 attempts (max 3): ")
    assert world.events("i")[-1]["event_id"] == 3


# ── any program ──────────────────────────────────────────────────────────────────────────────────────────────

leaf = st.sampled_from(["echo", "fail", "timer0", "timer", "event", "queue", "child", "badchild", "retry"])
tree = st.recursive(leaf, lambda inner: st.tuples(st.sampled_from(["all", "race"]), st.lists(inner, min_size=1, max_size=4)), max_leaves=8)
step = st.one_of(tree, st.sampled_from(["status", "kv", "kvclear", "guid", "now", "detached"]))
signal = st.sampled_from([external_item("i", "e", "1"), queue_item("i", "q", '"m"'), external_item("i", "other", "0")])
program = st.tuples(st.lists(step, min_size=1, max_size=6), st.lists(st.lists(signal, max_size=3), max_size=6), st.booleans())


def task(ctx, shape):
    if isinstance(shape, tuple):
        members = [task(ctx, s) for s in shape[1]]
        return ctx.all(members) if shape[0] == "all" else ctx.race(*members)
    return {
        "echo": lambda: ctx.schedule_activity("echo", 1), "fail": lambda: ctx.schedule_activity("fail", 1),
        "timer0": lambda: ctx.schedule_timer(0), "timer": lambda: ctx.schedule_timer(50), "event": lambda: ctx.wait_for_event("e"),
        "queue": lambda: ctx.dequeue_event("q"), "child": lambda: ctx.schedule_sub_orchestration("child", 1),
        "badchild": lambda: ctx.schedule_sub_orchestration("badchild", 1), "guid": ctx.new_guid, "now": ctx.utc_now,
        "retry": lambda: ctx.schedule_activity_with_retry("fail", 1, {"max_attempts": 2, "timeout_ms": 40}),
        "detached": lambda: ctx.start_orchestration("child", "detached", 1),
    }[shape]()  # fmt: skip


def interpret(shapes, again):
    def main(ctx, round):
        results = []
        for shape in shapes:
            if shape in ("status", "kv", "kvclear"):
                {"status": lambda: ctx.set_custom_status(len(results)), "kv": lambda: ctx.set_kv_value("k", results),
                 "kvclear": lambda: ctx.clear_kv_value("k")}[shape]()  # fmt: skip
                continue
            try:
                results.append((yield task(ctx, shape)))
            except Exception as error:
                results.append(str(error))
        if again and round < 2:
            yield ctx.continue_as_new(round + 1)
        return results

    return main


def play(shapes, signals, again, live):
    world = World(live=live)

    def fail(x):
        raise ValueError("no")

    world.activities.update(echo=lambda x: x, fail=fail)
    world.orchestration(lambda ctx, input: "c", "child")
    world.orchestration(lambda ctx, input: fail(1), "badchild")
    world.orchestration(interpret(shapes, again), "main")
    world.send(start_item("i", "main", "0"))
    for batch in signals:
        world.run()
        world.send(*batch)
    world.run()
    return world


@settings(max_examples=150, deadline=None)
@given(program)
def test_live_and_replayed_executions_write_the_same_history(given_program):
    shapes, signals, again = given_program
    live, replayed = (play(shapes, signals, again, live) for live in (True, False))
    assert live.rows.keys() == replayed.rows.keys()
    for instance, row in live.rows.items():
        assert row.histories == replayed.rows[instance].histories
        assert (row.status, row.output) == (replayed.rows[instance].status, replayed.rows[instance].output)
    assert live.values("i") == replayed.values("i")
    assert not live.warnings and not replayed.warnings


@settings(max_examples=60, deadline=None)
@given(program, st.randoms(use_true_random=False))
def test_losing_the_live_execution_at_any_turn_changes_nothing(given_program, random):
    shapes, signals, again = given_program
    plain = play(shapes, signals, again, True)
    original = World.turn

    def forgetful(self, instance, results=()):
        if random.random() < 0.5:
            lost = self.executions.pop(instance, None)
            if lost is not None:
                lost.close()
        original(self, instance, results)

    World.turn = forgetful
    try:
        lossy = play(shapes, signals, again, True)
    finally:
        World.turn = original
    assert {k: r.histories for k, r in plain.rows.items()} == {k: r.histories for k, r in lossy.rows.items()}
