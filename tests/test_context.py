"""Contexts: the descriptors that orchestrations yield, the immediate calls, and what an activity can ask."""

from __future__ import annotations

import json

import pytest

from duroxide import driver
from duroxide.context import ActivityContext, OrchestrationContext, ScheduledTask, of_token
from duroxide.registry import Registry
from duroxide.tasks import TypedTask

INFO = {"instanceId": "i", "executionId": 2, "orchestrationName": "n", "orchestrationVersion": "1.0.0"}
ACTIVITY = {**INFO, "activityName": "a", "workerId": "work-0-x"}
RETRY = {"maxAttempts": 3, "timeoutMs": None, "totalTimeoutMs": None, "backoff": None}


@pytest.fixture
def ctx():
    return OrchestrationContext(INFO)


class FakeExecution:
    """Records the immediate calls."""

    instance, execution_id, name, version = "i", 1, "o", "2.0.0"

    def __init__(self):
        self.calls, self.kv, self.status, self.is_replaying = [], {"b": "2", "a": "1"}, None, False

    def set_custom_status(self, text):
        self.status = text

    def get_custom_status(self):
        return self.status

    def kv_set(self, key, value):
        self.kv[key] = value

    def kv_get(self, key):
        return self.kv.get(key)

    def kv_clear(self, key):
        self.calls.append(("clear", key))

    def kv_clear_all(self):
        self.calls.append("clear_all")

    def kv_items(self):
        return self.kv

    def kv_prune(self, cutoff_ms):
        self.calls.append(("prune", cutoff_ms))
        return 1


TASKS = [
    (lambda c: c.schedule_activity("a"), {"type": "activity", "name": "a", "input": "null"}),
    (lambda c: c.schedule_activity("a", {"x": "é"}), {"type": "activity", "name": "a", "input": '{"x": "\\u00e9"}'}),
    (lambda c: c.schedule_activity("a", 1, "s"), {"type": "activityWithSession", "name": "a", "input": "1", "sessionId": "s"}),
    (lambda c: c.schedule_activity("a", 1, ""), {"type": "activityWithSession", "name": "a", "input": "1", "sessionId": ""}),
    (
        lambda c: c.schedule_activity_on_session("a", 1, None),
        {"type": "activityWithSession", "name": "a", "input": "1", "sessionId": None},
    ),
    (lambda c: c.schedule_activity_typed("a", "raw", int), {"type": "activity", "name": "a", "input": "raw", "_typed": True}),
    (lambda c: c.schedule_activity_typed("a"), {"type": "activity", "name": "a", "input": "null", "_typed": True}),
    (
        lambda c: c.schedule_activity_on_session_typed("a", "q"),
        {"type": "activityWithSession", "name": "a", "input": "q", "sessionId": None, "_typed": True},
    ),
    (
        lambda c: c.schedule_activity_with_retry("a", 1, {}),
        {"type": "activityWithRetry", "name": "a", "input": "1", "retry": RETRY},
    ),
    (
        lambda c: c.schedule_activity_with_retry(
            "a", 1, {"max_attempts": 0, "maxAttempts": 5, "timeout_ms": 1, "timeoutMs": 2, "totalTimeoutMs": 3, "backoff": "x"}
        ),
        {
            "type": "activityWithRetry", "name": "a", "input": "1",
            "retry": {"maxAttempts": 0, "timeoutMs": 1, "totalTimeoutMs": 3, "backoff": "x"},
        },
    ),
    (
        lambda c: c.schedule_activity_with_retry(
            "a", 1, {"overall_timeout_ms": 9, "backoff": {"type": "fixed", "initial_ms": 5}}
        ),
        {
            "type": "activityWithRetry", "name": "a", "input": "1",
            "retry": {**RETRY, "backoff": {"type": "fixed", "initial_ms": 5}, "overallTimeoutMs": 9},
        },
    ),
    (
        lambda c: c.schedule_activity_with_retry_typed("a", "x"),
        {"type": "activityWithRetry", "name": "a", "input": "x", "retry": RETRY, "_typed": True},
    ),
    (
        lambda c: c.schedule_activity_with_retry_on_session("a", 1, {}, "s"),
        {"type": "activityWithRetryOnSession", "name": "a", "input": "1", "retry": RETRY, "sessionId": "s"},
    ),
    (
        lambda c: c.schedule_activity_with_retry_on_session_typed("a", "x"),
        {"type": "activityWithRetryOnSession", "name": "a", "input": "x", "retry": RETRY, "sessionId": None, "_typed": True},
    ),
    (lambda c: c.schedule_timer(5), {"type": "timer", "delayMs": 5}),
    (lambda c: c.wait_for_event("e"), {"type": "waitEvent", "name": "e"}),
    (lambda c: c.wait_for_event_typed("e"), {"type": "waitEvent", "name": "e", "_typed": True}),
    (lambda c: c.dequeue_event("q"), {"type": "dequeueEvent", "queueName": "q"}),
    (lambda c: c.dequeue_event_typed("q"), {"type": "dequeueEvent", "queueName": "q", "_typed": True}),
    (lambda c: c.schedule_sub_orchestration("s"), {"type": "subOrchestration", "name": "s", "input": "null"}),
    (
        lambda c: c.schedule_sub_orchestration_typed("s", "x"),
        {"type": "subOrchestration", "name": "s", "input": "x", "_typed": True},
    ),
    (
        lambda c: c.schedule_sub_orchestration_with_id("s", "id", 1),
        {"type": "subOrchestrationWithId", "name": "s", "instanceId": "id", "input": "1"},
    ),
    (
        lambda c: c.schedule_sub_orchestration_with_id_typed("s", "id", "x"),
        {"type": "subOrchestrationWithId", "name": "s", "instanceId": "id", "input": "x", "_typed": True},
    ),
    (
        lambda c: c.schedule_sub_orchestration_versioned("s"),
        {"type": "subOrchestrationVersioned", "name": "s", "version": None, "input": "null"},
    ),
    (
        lambda c: c.schedule_sub_orchestration_versioned_with_id("s", "1.0.0", "id", 3),
        {"type": "subOrchestrationVersionedWithId", "name": "s", "version": "1.0.0", "instanceId": "id", "input": "3"},
    ),
    (lambda c: c.start_orchestration("s", "id", 1), {"type": "orchestration", "name": "s", "instanceId": "id", "input": "1"}),
    (
        lambda c: c.start_orchestration_typed("s", "id", "x"),
        {"type": "orchestration", "name": "s", "instanceId": "id", "input": "x"},
    ),
    (
        lambda c: c.start_orchestration_versioned("s", "1.0.0", "id", 1),
        {"type": "orchestrationVersioned", "name": "s", "version": "1.0.0", "instanceId": "id", "input": "1"},
    ),
    (
        lambda c: c.start_orchestration_versioned_typed("s", "v", "id", "x"),
        {"type": "orchestrationVersioned", "name": "s", "version": "v", "instanceId": "id", "input": "x"},
    ),
    (lambda c: c.continue_as_new(), {"type": "continueAsNew", "input": "null"}),
    (lambda c: c.continue_as_new("x"), {"type": "continueAsNew", "input": '"x"'}),
    (lambda c: c.continue_as_new_typed("x"), {"type": "continueAsNew", "input": "x"}),
    (lambda c: c.continue_as_new_versioned(1), {"type": "continueAsNewVersioned", "input": "1", "version": None}),
    (lambda c: c.new_guid(), {"type": "newGuid"}),
    (lambda c: c.utc_now(), {"type": "utcNow"}),
    (
        lambda c: c.get_kv_value_from_instance("i", "k"),
        {"type": "activity", "name": "__duroxide_syscall:get_kv_value", "input": '{"instance_id": "i", "key": "k"}'},
    ),
    (lambda c: c.all([1, 2]), {"type": "join", "tasks": [1, 2]}),
    (lambda c: c.all_typed((1,)), {"type": "join", "tasks": (1,), "_typed_all": True}),
    (lambda c: c.race(1, 2, 3), {"type": "select", "tasks": [1, 2, 3]}),
    (lambda c: c.race(), {"type": "select", "tasks": []}),
    (lambda c: c.race_typed(1, 2), {"type": "select", "tasks": [1, 2], "_typed_race": True}),
]  # fmt: skip


@pytest.mark.parametrize(("build", "expected"), TASKS, ids=[f"{n}-{e['type']}" for n, (_, e) in enumerate(TASKS)])
def test_descriptors_are_those_of_the_reference(ctx, build, expected):
    task = build(ctx)
    assert task == expected
    assert isinstance(task, ScheduledTask) == expected["type"].startswith("activity")
    if not isinstance(task, ScheduledTask):
        assert type(task) in (dict, TypedTask) and not hasattr(task, "with_tag")


def test_a_tag_changes_the_descriptor_in_place(ctx):
    task = ctx.schedule_activity("a")
    assert task.with_tag("gpu") is task
    assert task["tag"] == "gpu"
    assert task.with_tag(None)["tag"] is None


@pytest.mark.parametrize("value", [None, True, 1.5, float("nan"), "ü\ud800", {"b": 1, "a": [None]}, (1, 2), 10**40])
def test_inputs_are_encoded_as_json_dumps_does(ctx, value):
    assert ctx.schedule_activity("a", value)["input"] == json.dumps(value)


def test_what_json_cannot_hold_is_refused_at_the_call(ctx):
    with pytest.raises(TypeError, match="Object of type object is not JSON serializable"):
        ctx.schedule_activity("a", object())
    with pytest.raises(AttributeError, match="'NoneType' object has no attribute 'get'"):
        ctx.schedule_activity_with_retry("a", 1, None)


def test_a_context_made_by_hand_has_ids_and_silent_immediate_calls(ctx):
    assert (ctx.instance_id, ctx.execution_id, ctx.orchestration_name, ctx.orchestration_version) == ("i", 2, "n", "1.0.0")
    for call in (
        lambda: ctx.set_custom_status("x"), ctx.reset_custom_status, ctx.get_custom_status, lambda: ctx.set_kv_value("k", "v"),
        lambda: ctx.get_kv_value("k"), lambda: ctx.clear_kv_value("k"), ctx.clear_all_kv_values, lambda: ctx.trace_info("x"),
    ):  # fmt: skip
        assert call() is None
    assert (ctx.get_kv_all_keys(), ctx.get_kv_all_values(), ctx.get_kv_length()) == ([], {}, 0)
    assert ctx.prune_kv_values_updated_before(5) == 0
    with pytest.raises(KeyError, match="instanceId"):
        OrchestrationContext({})
    with pytest.raises(TypeError, match="'int' object is not subscriptable"):
        OrchestrationContext(5)


def test_immediate_calls_reach_the_execution_as_text():
    execution = FakeExecution()
    ctx = OrchestrationContext(execution)
    assert (ctx.instance_id, ctx.execution_id, ctx.orchestration_name, ctx.orchestration_version) == ("i", 1, "o", "2.0.0")
    ctx.set_custom_status({"a": 1})
    assert ctx.get_custom_status() == "{'a': 1}"
    ctx.set_custom_status(None)
    assert ctx.get_custom_status() == "None"
    ctx.reset_custom_status()
    assert ctx.get_custom_status() is None
    ctx.set_kv_value(1, 2.5)
    assert ctx.get_kv_value(1) == ctx.get_kv_value("1") == "2.5"
    assert ctx.get_kv_all_keys() == ["1", "a", "b"] and ctx.get_kv_length() == 3
    ctx.get_kv_all_values().clear()
    assert ctx.get_kv_all_values() == {"1": "2.5", "a": "1", "b": "2"}
    assert list(ctx.get_kv_all_values()) == ["1", "a", "b"], "in an order that no store and no replay changes"
    ctx.clear_kv_value(1)
    ctx.clear_all_kv_values()
    assert ctx.prune_kv_values_updated_before(True) == 1
    assert execution.calls == [("clear", "1"), "clear_all", ("prune", 1)]


def test_immediate_calls_refuse_what_cannot_be_stored():
    execution = FakeExecution()
    ctx = OrchestrationContext(execution)
    for call in (
        lambda: ctx.set_kv_value("\ud800", "a"), lambda: ctx.set_kv_value("a", "\ud800"), lambda: ctx.set_custom_status("\ud800"),
        lambda: ctx.get_kv_value("\ud800"),
    ):  # fmt: skip
        with pytest.raises(UnicodeEncodeError, match="surrogates not allowed"):
            call()
    with pytest.raises(OverflowError, match="can't convert negative int to unsigned"):
        ctx.prune_kv_values_updated_before(-1)
    with pytest.raises(OverflowError, match="int too big to convert"):
        ctx.prune_kv_values_updated_before(2**64)
    with pytest.raises(TypeError, match="argument 'cutoff_ms': 'float' object cannot be interpreted as an integer"):
        ctx.prune_kv_values_updated_before(1.5)
    assert execution.kv == {"b": "2", "a": "1"} and execution.calls == [] and execution.status is None


def test_an_activity_knows_who_asked_and_whether_the_answer_is_wanted():
    wanted = [True]
    client = object()
    ctx = ActivityContext(
        {**ACTIVITY, "sessionId": "s", "tag": "gpu"}, cancelled=lambda: not wanted[0], client=lambda: client
    )
    assert (ctx.instance_id, ctx.execution_id, ctx.orchestration_name, ctx.orchestration_version) == ("i", 2, "n", "1.0.0")
    assert (ctx.activity_name, ctx.worker_id, ctx.session_id, ctx.tag()) == ("a", "work-0-x", "s", "gpu")
    assert not ctx.is_cancelled() and ctx.get_client() is client
    wanted[0] = False
    assert ctx.is_cancelled()
    ctx._end()
    assert not ctx.is_cancelled()
    with pytest.raises(RuntimeError, match="^Activity context not found$"):
        ctx.get_client()


def test_an_activity_without_session_and_tag():
    ctx = ActivityContext(ACTIVITY)
    assert (ctx.session_id, ctx.tag(), ctx.is_cancelled()) == (None, None, False)
    with pytest.raises(KeyError, match="activityName"):
        ActivityContext(INFO)


def test_a_token_finds_its_context_as_long_as_it_lives(ctx):
    token = ctx._ctx_token
    assert token.startswith("orch-") and token == ctx._ctx_token
    assert of_token(token) is ctx
    activity = ActivityContext(ACTIVITY)
    assert activity._trace_token.startswith("act-") and of_token(activity._trace_token) is activity
    gone = activity._trace_token
    del activity
    assert of_token(gone) is None


class TestDriver:
    """The helpers that step a generator by hand."""

    def create(self, name, input="null", version="1.0.0"):
        info = {**INFO, "orchestrationName": name, "orchestrationVersion": version}
        return json.loads(driver.create_generator(json.dumps({"ctxInfo": info, "input": input})))

    def step(self, number, result, is_error=False):
        return json.loads(driver.next_step(json.dumps({"generatorId": number, "isError": is_error, "result": result})))

    @pytest.fixture(autouse=True)
    def functions(self, monkeypatch):
        def steps(ctx, input):
            got = yield ctx.all_typed([ctx.schedule_timer(1)])
            try:
                yield ctx.schedule_activity("x", got)
            except Exception as error:
                raw = yield ctx.schedule_activity("y", [type(error).__name__, str(error)])
                return [input, raw]

        def plain(ctx, input):
            return [input, ctx.orchestration_version]

        table = {"steps": steps, "plain@2.0.0": plain, "bad": lambda ctx, input: object()}
        monkeypatch.setattr(driver, "functions", table)

    def test_a_generator_is_stepped_to_its_end(self):
        made = self.create("steps", '"in"')
        assert made["status"] == "yielded" and made["task"]["type"] == "join"
        number = made["generatorId"]
        task = self.step(number, '[{"ok":null},{"err":"q"}]')["task"]
        assert task == {"type": "activity", "name": "x", "input": '[null, {"err": "q"}]'}
        assert self.step(number, "boom", is_error=True)["task"]["input"] == '["Exception", "boom"]'
        assert self.step(number, "not json") == {"status": "completed", "output": '["in", "not json"]'}
        assert self.step(number, "1") == {"status": "error", "message": f"Generator {number} not found"}
        assert driver._generators == {} and driver._last_tasks == {}

    def test_plain_functions_versions_and_unknown_names(self):
        assert self.create("plain", "", "2.0.0") == {"status": "completed", "output": '[null, "2.0.0"]'}
        unknown = {"status": "error", "message": "Orchestration 'plain' not registered on Python side"}
        assert self.create("plain", "", "1.0.0") == unknown

    def test_errors_are_reported_as_tracebacks(self):
        assert "Object of type object is not JSON serializable" in self.create("bad")["message"]
        assert "KeyError: 'ctxInfo'" in json.loads(driver.create_generator("{}"))["message"]
        assert "JSONDecodeError" in json.loads(driver.create_generator("x"))["message"]
        assert "KeyError: 'generatorId'" in json.loads(driver.next_step("{}"))["message"]

    def test_disposing_closes_the_generator(self):
        number = self.create("steps")["generatorId"]
        generator = driver._generators[number]
        assert driver.dispose_generator(str(number)) == "ok"
        assert generator.gi_frame is None
        assert driver.dispose_generator("9999") == "ok"
        with pytest.raises(ValueError, match="invalid literal for int"):
            driver.dispose_generator("x")


def test_a_call_by_function_is_a_call_by_its_name_with_a_value():
    """What `ScheduledTask` and `TypedTask` know of types is not in the descriptor."""

    def charge(ctx, order): ...

    Registry().add_activity("charge-a-card", charge)
    Registry().add_orchestration("child", None, charge)
    c = OrchestrationContext(INFO)
    assert c.schedule_activity_typed(charge, "123") == {"type": "activity", "name": "charge-a-card", "input": '"123"', "_typed": True}
    assert c.schedule_activity_typed(charge)["input"] == "null"
    assert c.schedule_activity_on_session_typed(charge, 1, "s")["name"] == "charge-a-card"
    assert c.schedule_activity_with_retry_typed(charge, 1)["name"] == "charge-a-card"
    assert c.schedule_activity_with_retry_on_session_typed(charge, 1, None, "s")["sessionId"] == "s"
    for task in (
        c.schedule_sub_orchestration_typed(charge, "1"), c.schedule_sub_orchestration_with_id_typed(charge, "i", "1"),
        c.start_orchestration_typed(charge, "i", "1"), c.start_orchestration_versioned_typed(charge, "1.0.0", "i", "1"),
    ):  # fmt: skip
        assert task["name"] == "child" and task["input"] == '"1"'
    assert not hasattr(c.schedule_sub_orchestration_typed("child"), "with_tag")
    with pytest.raises(TypeError, match="not registered in this process"):
        c.schedule_activity_typed(lambda ctx, order: None, 1)


def test_result_yields_the_descriptor_and_returns_what_it_is_sent():
    task = OrchestrationContext(INFO).schedule_activity("a", 1)
    steps = task.result()
    assert next(steps) is task
    with pytest.raises(StopIteration) as ended:
        steps.send("paid")
    assert ended.value.value == "paid"
