"""Options, filters and value classes: construction, reading, refusals and their wording."""

from __future__ import annotations

import copy
import pickle

import pytest

from duroxide.errors import OptionError
from duroxide.options import (
    MAX_KV_KEYS,
    MAX_KV_VALUE_BYTES,
    MAX_TAG_NAME_BYTES,
    MAX_WORKER_TAGS,
    UNLIMITED,
    InstanceFilter,
    PruneOptions,
    RuntimeOptions,
    TagFilter,
    is_tag_filter,
    parse_tag_filter,
)
from duroxide.results import (
    Event,
    ExecutionInfo,
    InstanceTree,
    OrchestrationResult,
    OrchestrationStatus,
    SystemStats,
    decoded,
    of_status,
    parse_result,
)

DEFAULTS = {
    "orchestration_concurrency": 2,
    "worker_concurrency": 2,
    "dispatcher_poll_interval_ms": 100,
    "worker_lock_timeout_ms": 30000,
    "log_format": "compact",
    "log_level": "info",
    "service_name": None,
    "service_version": None,
    "max_sessions_per_runtime": 10,
    "session_idle_timeout_ms": 300000,
    "worker_node_id": None,
    "worker_tag_filter": "default_only",
    "orchestrator_lock_timeout_ms": 5000,
    "orchestrator_lock_renewal_buffer_ms": 2000,
    "max_attempts": 10,
    "worker_lock_renewal_buffer_ms": 5000,
    "session_lock_timeout_ms": 30000,
    "session_lock_renewal_buffer_ms": 5000,
}


def test_options_left_out_read_as_none_and_have_the_references_defaults():
    options = RuntimeOptions()
    assert {name: getattr(options, name) for name in DEFAULTS} == dict.fromkeys(DEFAULTS)
    assert {name: options.effective(name) for name in DEFAULTS} == DEFAULTS
    options.check()


def test_options_by_position_are_in_the_references_order():
    values = [3, 4, 5, 6, "json", "debug", "s", "1", 7, 8, "n", "any", 9, 10, 11, 12, 13, 14]
    options = RuntimeOptions(*values)
    assert [getattr(options, name) for name in DEFAULTS] == values
    assert [options.effective(name) for name in DEFAULTS] == values
    assert repr(RuntimeOptions(3, log_level="off")) == "RuntimeOptions(orchestration_concurrency=3, log_level='off')"


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({"max_attempts": "a"}, TypeError, "argument 'max_attempts': 'str' object cannot be interpreted as an integer"),
        ({"orchestration_concurrency": 1.0}, TypeError, "'float' object cannot be interpreted as an integer"),
        ({"orchestration_concurrency": 2**31}, OverflowError, "out of range integral type conversion attempted"),
        ({"dispatcher_poll_interval_ms": 2**63}, OverflowError, "Python int too large to convert to C long"),
        ({"log_format": 5}, TypeError, "argument 'log_format': 'int' object cannot be converted to 'PyString'"),
        ({"worker_node_id": "\ud800"}, UnicodeEncodeError, "surrogates not allowed"),
        ({"foo": 1}, TypeError, "got an unexpected keyword argument 'foo'"),
    ],
)
def test_options_of_the_wrong_kind_are_refused_at_the_call(kwargs, error, text):
    with pytest.raises(error, match=text):
        RuntimeOptions(**kwargs)


def test_a_bool_and_an_index_count_as_integers():
    class Seven:
        def __index__(self):
            return 7

    assert RuntimeOptions(True).orchestration_concurrency == 1
    assert RuntimeOptions(Seven()).orchestration_concurrency == 7


def test_options_cannot_be_written():
    options = RuntimeOptions(log_level="info")
    with pytest.raises(AttributeError, match="attribute 'log_level' of 'duroxide.RuntimeOptions' objects is not writable"):
        options.log_level = "debug"
    with pytest.raises(AttributeError, match="object has no attribute 'zz'"):
        options.zz = 1
    with pytest.raises(AttributeError):
        del options.log_level
    assert options.log_level == "info"


@pytest.mark.parametrize("name", ["max_attempts", "max_sessions_per_runtime", "session_idle_timeout_ms"])
def test_a_negative_limit_means_no_limit(name):
    options = RuntimeOptions(**{name: -1})
    options.check()
    assert options.effective(name) == UNLIMITED


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"orchestration_concurrency": -1}, "orchestration_concurrency must be at least 0, got -1"),
        ({"worker_concurrency": -5}, "worker_concurrency must be at least 0, got -5"),
        ({"dispatcher_poll_interval_ms": -1}, "dispatcher_poll_interval_ms must be at least 0"),
        ({"worker_lock_timeout_ms": 0}, "worker_lock_timeout_ms must be at least 1"),
        ({"orchestrator_lock_timeout_ms": 0}, "orchestrator_lock_timeout_ms must be at least 1"),
        ({"worker_tag_filter": TagFilter.tags("abcdef")}, "Worker can subscribe to at most 5 tags, got 6"),
        (
            {"session_idle_timeout_ms": 1000},
            r"session_idle_timeout \(1s\) must be greater than worker lock renewal interval \(25s\)\. Sessions would unpin",
        ),
        ({"session_idle_timeout_ms": 1000, "worker_lock_timeout_ms": 2000}, r"worker lock renewal interval \(1s\)"),
    ],
)
def test_check_refuses_what_cannot_work_as_a_value_error(kwargs, text):
    options = RuntimeOptions(**kwargs)
    with pytest.raises(OptionError, match=text) as raised:
        options.check()
    assert isinstance(raised.value, ValueError)


@pytest.mark.parametrize("kwargs", [{"orchestration_concurrency": 0}, {"max_attempts": 0}, {"session_idle_timeout_ms": 25001}])
def test_check_allows_what_the_reference_allows(kwargs):
    RuntimeOptions(**kwargs).check()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("default_only", ("default_only", ())),
        ("any", ("any", ())),
        ("none", ("none", ())),
        (TagFilter.tags(["gpu", "cpu"]), ("tags", ("gpu", "cpu"))),
        (TagFilter.default_and(["a"]), ("default_and", ("a",))),
        ('{"tags":["a","a","b"]}', ("tags", ("a", "b"))),
        ('{"tags":[5,"a"]}', ("tags", ("a",))),
        ('{"default_and":["a"],"tags":["b"]}', ("tags", ("b",))),
        ('{"tags":null,"default_and":["a"]}', ("default_and", ("a",))),
        ('{"tags":[""]}', ("tags", ("",))),
    ],
)
def test_tag_filters(text, expected):
    assert parse_tag_filter(text) == expected
    assert is_tag_filter(text)


@pytest.mark.parametrize("text", ["gpu", "", "ANY", " any", '"any"', '["a"]', "null", '{"tags":"a"}', '{"any":1}', "[" * 100_000])
def test_a_text_that_is_no_tag_filter_means_untagged_work_only(text):
    assert parse_tag_filter(text) == ("default_only", ())
    assert not is_tag_filter(text)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{"tags":["a","b","c","d","e","f"]}', "Worker can subscribe to at most 5 tags, got 6"),
        ('{"tags":[]}', r"TagFilter::tags\(\) requires at least one tag; use TagFilter::None for no activities"),
        ('{"tags":[5]}', r"TagFilter::tags\(\) requires at least one tag"),
        ('{"default_and":[]}', r"TagFilter::default_and\(\) requires at least one tag; use TagFilter::DefaultOnly for untagged"),
    ],
)
def test_tag_filters_with_no_tag_or_too_many_are_refused(text, error):
    with pytest.raises(OptionError, match=error):
        parse_tag_filter(text)


def test_tag_filter_texts_and_limits():
    assert (TagFilter.DEFAULT_ONLY, TagFilter.ANY, TagFilter.NONE) == ("default_only", "any", "none")
    assert TagFilter.tags(["gpu", "cpu"]) == '{"tags": ["gpu", "cpu"]}'
    assert TagFilter.tags("ab") == '{"tags": ["a", "b"]}'
    assert TagFilter.default_and(("a",)) == '{"default_and": ["a"]}'
    assert (MAX_WORKER_TAGS, MAX_TAG_NAME_BYTES, MAX_KV_KEYS, MAX_KV_VALUE_BYTES) == (5, 256, 150, 65536)


@pytest.mark.parametrize(
    ("args", "error", "text"),
    [
        (("a",), TypeError, "argument 'instance_ids': Can't extract `str` to `Vec`"),
        (([1],), TypeError, "argument 'instance_ids': 'int' object cannot be converted to 'PyString'"),
        (({"a"},), TypeError, "argument 'instance_ids': 'set' object cannot be converted to 'Sequence'"),
        ((None, "x"), TypeError, "argument 'completed_before': 'str' object cannot be interpreted as an integer"),
        ((None, None, 1.5), TypeError, "argument 'limit': 'float' object cannot be interpreted as an integer"),
    ],
)
def test_instance_filters_of_the_wrong_kind_are_refused(args, error, text):
    with pytest.raises(error, match=text):
        InstanceFilter(*args)


def test_filters_and_prune_options_read_back():
    chosen = InstanceFilter(("a", "b"), 5, limit=-1)
    assert (chosen.instance_ids, chosen.completed_before, chosen.limit) == (["a", "b"], 5, -1)
    assert (InstanceFilter().instance_ids, PruneOptions().keep_last) == (None, None)
    options = PruneOptions(True, completed_before=7)
    assert (options.keep_last, options.completed_before) == (1, 7)
    with pytest.raises(TypeError, match="argument 'keep_last': 'str' object cannot be interpreted as an integer"):
        PruneOptions("a")


def test_value_classes_have_no_constructor_for_users_and_no_writable_attribute():
    with pytest.raises(TypeError, match="^No constructor defined for Event$"):
        Event(1, "x")
    event = Event._make(event_id=1, kind="TimerFired", source_event_id=None, timestamp_ms=5, data=None)
    with pytest.raises(AttributeError, match="attribute 'kind' of 'duroxide.Event' objects is not writable"):
        event.kind = "x"
    assert repr(event) == "Event(event_id=1, kind='TimerFired', source_event_id=None, timestamp_ms=5, data=None)"
    assert copy.copy(event).kind == pickle.loads(pickle.dumps(event)).kind == "TimerFired"
    assert event != copy.copy(event) and hash(event) != hash(copy.copy(event))
    assert InstanceTree._make(root_id="a", all_ids=["a"], size=1).all_ids == ["a"]
    assert SystemStats.__module__ == "duroxide.results"


def test_writable_value_classes_take_only_values_of_their_kind():
    status = OrchestrationStatus._make(
        status="Running", output=None, error=None, custom_status=None, custom_status_version=0
    )
    status.status, status.output, status.custom_status_version = "Completed", "[1]", 3
    assert (status.status, status.output, status.custom_status_version) == ("Completed", "[1]", 3)
    status.output = None
    for name, value, error in (
        ("status", None, TypeError), ("output", 5, TypeError), ("custom_status_version", -1, OverflowError),
        ("custom_status_version", None, TypeError), ("zz", 1, AttributeError),
    ):  # fmt: skip
        with pytest.raises(error):
            setattr(status, name, value)
    with pytest.raises(AttributeError, match="can't delete attribute"):
        del status.status
    info = ExecutionInfo._make(execution_id=1, status="Running", output="", started_at=1, completed_at=5, event_count=2)
    info.completed_at = None
    assert info.completed_at is None
    with pytest.raises(TypeError):
        info.event_count = None


def test_a_raw_status_becomes_a_result_with_decoded_output():
    raw = OrchestrationStatus._make(
        status="Completed", output='{"a": [1]}', error=None, custom_status="s", custom_status_version=2
    )
    assert vars(of_status(raw)) == {
        "status": "Completed", "output": {"a": [1]}, "error": None, "custom_status": "s", "custom_status_version": 2,
    }  # fmt: skip
    result = OrchestrationResult("Failed", error="x")
    result.status = "other"
    assert (result.status, result.output, result.error, result.custom_status_version) == ("other", None, "x", 0)
    assert "error='x'" in repr(result)


def test_outputs_that_are_not_json_come_back_as_they_are():
    assert decoded("not json") == "not json"
    assert decoded("") == ""
    assert decoded("null") is None and decoded(None) is None
    deep = "[" * 200_000
    assert decoded(deep) is deep


def test_parse_result():
    assert parse_result([{"ok": 1}, {"err": 2}, 3, {"ok": None, "z": 2}]) == [1, {"err": 2}, 3, None]
    assert parse_result({"ok": None}) is None
    assert parse_result({"x": 1}) == {"x": 1}
    assert parse_result(5) == 5 and parse_result(({"ok": 1},)) == ({"ok": 1},)
    with pytest.raises(Exception, match="^boom$"):
        parse_result({"err": "boom"})
