"""Stored events as they are read: the scanner and `json` agree on every text, and a replay cannot tell which of them read it."""

import json

import pytest
from engine_harness import World
from hypothesis import given, settings, strategies as st

from duroxide import events
from duroxide.engine._events import CorruptHistory, described
from duroxide.engine._replay import needs_load, run_turn
from duroxide.engine._turn import Turn
from duroxide.storage.base import ClaimedTurn, Loaded

HEAD = ("event_id", "source_event_id", "instance_id", "execution_id", "timestamp_ms", "duroxide_version", "type")
# The fields of each kind in their order: t text, n text or null, i integer, o may be missing.
FIELDS = {
    "ActivityScheduled": {"name": "t", "input": "t", "session_id": "o", "tag": "o"}, "ActivityCompleted": {"result": "t"},
    "TimerCreated": {"fire_at_ms": "i"}, "TimerFired": {"fire_at_ms": "i"}, "ExternalSubscribed": {"name": "t"},
    "ExternalEvent": {"name": "t", "data": "t"}, "ExternalSubscribedPersistent": {"name": "t"},
    "ExternalEventPersistent": {"name": "t", "data": "t"}, "SubOrchestrationScheduled": {"name": "t", "instance": "t", "input": "t"},
    "SubOrchestrationCompleted": {"result": "t"}, "OrchestrationChained": {"name": "t", "instance": "t", "input": "t"},
    "OrchestrationCancelRequested": {"reason": "t"}, "CustomStatusUpdated": {"status": "n"}, "ActivityCancelRequested": {"reason": "t"},
    "ExternalSubscribedCancelled": {"reason": "t"}, "ExternalSubscribedPersistentCancelled": {"reason": "t"},
    "SubOrchestrationCancelRequested": {"reason": "t"}, "KeyValueSet": {"key": "t", "value": "t", "last_updated_at_ms": "i"},
    "KeyValueCleared": {"key": "t"}, "KeyValuesCleared": {},
}  # fmt: skip
LINKED = ("ActivityCompleted", "TimerFired", "SubOrchestrationCompleted")
NAMES, WHERES = ("name", "key"), ("instance", "session_id")
PAYLOADS = ("input", "result", "data", "value", "status", "reason")

texts = st.one_of(
    st.text(max_size=12), st.text('"\\/\b\f\n\r\ta', max_size=40), st.text('"\\\n\0\x1fé€😀a', max_size=12),
    st.text(st.characters(codec=None) | st.sampled_from("\ud800\udc00"), max_size=4),
)  # fmt: skip
integers = st.integers(0, 10**18 - 1) | st.integers(0, 20)


@st.composite
def fields_of(draw, kind=None):
    kind = draw(st.sampled_from(sorted(FIELDS))) if kind is None else kind
    event = {
        "event_id": draw(integers), "source_event_id": draw(st.none() | integers), "instance_id": draw(texts),
        "execution_id": draw(integers), "timestamp_ms": draw(integers), "duroxide_version": draw(texts), "type": kind,
    }  # fmt: skip
    if kind in LINKED or "Cancelled" in kind or kind in ("ActivityCancelRequested", "SubOrchestrationCancelRequested"):
        event["source_event_id"] = draw(integers)
    for name, type in FIELDS[kind].items():
        if type == "i":
            event[name] = draw(integers)
        elif type != "o" or draw(st.booleans()):
            event[name] = draw(st.none() | texts) if type == "n" else draw(texts)
    return event


def expected(event):
    """An event that was scanned, as `described` shows it."""

    def first(names):
        return next((event[n] for n in names if n in event), None)

    number = event.get("fire_at_ms", event.get("last_updated_at_ms", 0))
    texts = [first(NAMES), first(PAYLOADS), first(WHERES), event.get("tag")]
    return (event["type"], event["event_id"], event["source_event_id"], number, *texts)


def read(text):
    try:
        return described([(7, text)])[0]
    except CorruptHistory as error:
        return error


def check(text, must_be_scanned=False):
    """The scanner says what json says, or leaves the text to it."""
    found = read(text)
    try:
        event = json.loads(text)
        kind = event["type"]
        known = kind in events.KINDS and isinstance(kind, str)
    except (ValueError, KeyError, TypeError) as error:
        assert isinstance(found, CorruptHistory)
        assert str(found) == f"event 7: {type(error).__name__}: {error}"
        return
    if not known:
        assert isinstance(found, CorruptHistory)
    elif isinstance(found, tuple):
        assert tuple(event)[:7] == HEAD
        assert list(event)[7:] == [f for f in FIELDS[kind] if f in event]
        assert found == expected(event)
    else:
        assert found == event
        assert not must_be_scanned


def encodable(text):
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@given(fields_of())
def test_what_we_write_is_scanned_and_means_the_same(event):
    text = events.compact(event)
    check(text, must_be_scanned=encodable(text))


@given(fields_of(), st.booleans(), st.sampled_from([(",", ":"), (", ", ": "), (" ,", " :\n")]), st.permutations(range(12)))
def test_any_other_writer_is_read_too(event, ascii, separators, order):
    check(json.dumps(event, ensure_ascii=ascii, separators=separators))
    keys = list(event)
    shuffled = {keys[n]: event[keys[n]] for n in order if n < len(keys)}
    check(json.dumps(shuffled, ensure_ascii=ascii, separators=separators))


strange = st.sampled_from([None, True, -1, 1.5, 10**30, "", [], {}, {"a": 1}, float("nan")])


@given(fields_of(), st.data())
def test_a_field_of_another_kind_is_left_to_json(event, data):
    event[data.draw(st.sampled_from(sorted(event)))] = data.draw(strange)
    event.update(data.draw(st.dictionaries(st.sampled_from(["name", "tag", "new"]), strange, max_size=1)))
    check(events.compact(event))


@settings(max_examples=200)
@given(fields_of(), st.data())
def test_a_damaged_text_is_read_as_json_reads_it(event, data):
    text = events.compact(event)
    at = data.draw(st.integers(0, len(text)))
    length = data.draw(st.integers(0, 6))
    patch = data.draw(st.text('{}[]",:\\u0019\x1f\x20eE.-+ \t\ndn' + "\ud800é", max_size=4))
    check(text[:at])
    check(text[:at] + patch + text[at + length :])


@given(fields_of(), fields_of())
def test_what_one_event_has_in_common_with_the_next_is_not_taken_from_it(one, other):
    other = {**other, "instance_id": one["instance_id"], "timestamp_ms": one["timestamp_ms"]}
    both = described([(1, events.compact(one)), (2, events.compact(other))])
    assert both == [*described([(1, events.compact(one))]), *described([(2, events.compact(other))])]


@pytest.mark.parametrize("number", ["0", "00", "01", "-0", "1.0", "1e3", "999999999999999999", "1000000000000000000", "١"])
def test_numbers_are_those_of_json(number):
    check(f'{{"event_id":{number},"source_event_id":null,"instance_id":"i","execution_id":1,"timestamp_ms":1,"duroxide_version":"0","type":"KeyValuesCleared"}}')


def test_a_type_that_is_no_text_is_corrupt():
    assert isinstance(read('{"type":[]}'), CorruptHistory)
    assert isinstance(read('{"type":7}'), CorruptHistory)


# ── a whole replay ──

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts.filter(encodable), lambda v: st.lists(v) | st.dictionaries(st.text(), v), max_leaves=5
)
names = st.sampled_from(["echo", "fail", 'q"\\', "é"])
steps = st.lists(
    st.tuples(st.sampled_from(["activity", "timer", "queue", "event", "child", "race", "all", "kv", "status", "guid"]), names, values), max_size=5
)


def step(ctx, what, name, value):
    """The descriptor of one step of a plan; None for what acts at once."""
    return {
        "activity": lambda: ctx.schedule_activity(name, value), "timer": lambda: ctx.schedule_timer(5),
        "queue": lambda: ctx.dequeue_event(name), "event": lambda: ctx.wait_for_event(name), "guid": lambda: ctx.new_guid(),
        "child": lambda: ctx.schedule_sub_orchestration("child", value),
        "race": lambda: ctx.race(ctx.schedule_activity(name, value), ctx.schedule_timer(9)),
        "all": lambda: ctx.all([ctx.schedule_activity(name, value), ctx.dequeue_event(name)]),
        "kv": lambda: ctx.set_kv_value(name, value), "status": lambda: ctx.set_custom_status(json.dumps(value)),
    }[what]()  # fmt: skip


def program(plan):
    """An orchestration that does `plan` and keeps what it gets, errors by their text."""

    def flow(ctx, _):
        got = []
        for what, name, value in plan:
            task = step(ctx, what, name, value)
            try:
                got.append((yield task) if task is not None else None)
            except Exception as error:
                got.append(str(error))
        return got

    return flow


def history_of(plan):
    """The events of a run of `plan`, all but those of its last turn, and the message which that turn was for."""
    world = World(live=True)
    world.orchestration(program(plan), "flow")
    world.orchestration(lambda ctx, value: value, "child")
    for name in ("echo", 'q"\\', "é"):
        world.activities[name] = lambda value: value
    world.activities["fail"] = lambda value: 1 // 0
    world.send(events.start_item("i", "flow", "null"))
    for _, name, value in plan:
        world.send(events.queue_item("i", name, json.dumps(value)), events.external_item("i", name, json.dumps(value)))
    world.run()
    row = world.rows["i"]
    return [(id, text) for id, _, text in row.histories[1]], world


def outcome(plan, stored, world):
    """What a cold turn over `stored` comes to."""
    turn = Turn(ClaimedTurn("i", "lease", [], 1, 1, stored[-1][0], "flow", "1.0.0", "Running"), "i", "lease")
    assert needs_load(turn)
    world.guids = 0
    loaded = Loaded("i", 1, "flow", "1.0.0", "Running", None, None, None, 0, stored, {}, {})
    ran = run_turn(turn, loaded, world, 1_000_000)
    if ran.execution is not None:
        ran.execution.close()
    return ran.outcome, ran.error, ran.warnings, ran.done and [getattr(ran.done, name) for name in ran.done.__slots__], ran.back


@settings(max_examples=60, deadline=None)
@given(steps, st.data())
def test_a_replay_is_the_same_whoever_read_its_events(plan, data):
    """Also where code and history no longer agree, and where an event says what it must not: same texts, same warnings."""
    stored, world = history_of(plan)
    stored = stored[: data.draw(st.integers(1, len(stored)))]
    if data.draw(st.booleans()) and len(stored) > 1:
        at = data.draw(st.integers(1, len(stored) - 1))
        event = json.loads(stored[at][1])
        key = data.draw(st.sampled_from([k for k in event if k not in HEAD] + ["event_id", "source_event_id", "type"]))
        event[key] = {"event_id": 99, "source_event_id": 2, "type": "TimerCreated", "fire_at_ms": 1, "details": {"Application": {"kind": "x", "message": "m"}}}.get(key, "changed")
        stored[at] = stored[at][0], events.compact(event)
    spaced = [(id, json.dumps(json.loads(text))) for id, text in stored]
    assert all(isinstance(e, dict) for e in described(spaced))
    assert outcome(plan, stored, world) == outcome(plan, spaced, world)
