"""The codec against json.dumps/json.loads, and the cache of live executions."""

import json
import threading

import pytest
from hypothesis import given, strategies as st

from duroxide import events
from duroxide.engine._codec import dumps, loads, read
from duroxide.engine.cache import Cache


class Text(str):
    pass


class Number(int):
    def __str__(self):
        return "not me"


atoms = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(codec=None)), st.integers(10**20, 10**40),
    st.text().map(Text), st.integers().map(Number),
)  # fmt: skip
values = st.recursive(
    atoms, lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text() | st.integers() | st.none(), inner), max_leaves=20
)


@given(values)
def test_dumps_is_json_dumps(value):
    assert dumps(value) == json.dumps(value)


@given(values)
def test_loads_is_json_loads(value):
    text = json.dumps(value)
    assert repr(loads(text)) == repr(json.loads(text))
    assert repr(loads(f" {text}\n")) == repr(json.loads(text))


@given(st.text())
def test_loads_refuses_what_json_refuses_and_read_gives_the_text(text):
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError):
            loads(text)
        assert read(text) == text
    else:
        assert repr(loads(text)) == repr(expected)


def test_values_that_json_cannot_hold_raise_as_json_does():
    for bad in (object(), {1, 2}, {(1,): 2}, b"x"):
        with pytest.raises(TypeError) as ours:
            dumps(bad)
        with pytest.raises(TypeError) as theirs:
            json.dumps(bad)
        assert str(ours.value) == str(theirs.value)
    loop: list = []
    loop.append(loop)
    with pytest.raises(ValueError, match="Circular"):
        dumps(loop)


class Fake:
    def __init__(self, instance, size):
        self.instance, self.size, self.closed = instance, size, 0

    def close(self):
        self.closed += 1


def keep(cache, execution):
    cache.expect(execution.instance)
    cache.put(execution)


def test_the_cache_is_bounded_by_count_and_bytes_and_closes_the_oldest():
    cache = Cache(max_count=3, max_bytes=1_000)
    held = [Fake(str(n), 10) for n in range(5)]
    for execution in held:
        keep(cache, execution)
    assert [e.closed for e in held] == [1, 1, 0, 0, 0] and len(cache) == 3
    keep(cache, Fake("big", 985))
    assert [e.closed for e in held[2:]] == [1, 1, 0] and cache.take("4") is held[4]
    assert cache.take("4") is None
    keep(cache, Fake("huge", 5_000))
    assert len(cache) == 0


def test_a_newer_execution_of_an_instance_replaces_the_older():
    cache = Cache()
    old, new = Fake("i", 1), Fake("i", 1)
    keep(cache, old)
    keep(cache, old)
    assert old.closed == 0
    keep(cache, new)
    assert old.closed == 1 and cache.take("i") is new


def test_what_was_asked_for_while_it_was_away_is_closed_not_kept():
    """Its lease was given back, and taken up elsewhere, before it came: that instance may have ended."""
    cache, late, again = Cache(), Fake("i", 1), Fake("i", 1)
    cache.expect("i")
    assert cache.take("i") is None
    cache.put(late)
    assert (late.closed, len(cache)) == (1, 0)
    cache.expect("i")
    cache.forget("i")
    cache.put(again)
    assert (again.closed, len(cache)) == (1, 0)


def test_threads_share_the_cache_without_losing_or_doubling():
    cache, taken, lock = Cache(max_count=100_000), [], threading.Lock()

    def work(start):
        for n in range(start, start + 500):
            keep(cache, Fake(str(n % 200), 1))
            got = cache.take(str((n * 7) % 200))
            if got is not None:
                with lock:
                    taken.append(got)

    threads = [threading.Thread(target=work, args=(n * 1_000,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(set(map(id, taken))) == len(taken) and not any(e.closed for e in taken)
    cache.clear()
    assert len(cache) == 0


@pytest.mark.parametrize(
    "item",
    [
        events.start_item("i", "main", '{"a": 1}', "1.0.0"),
        events.child_start_item("i", "main", "1", None, ("p", 7, 2)),
        events.continue_item("i", "main", "1", None, ("p", 7, 2), [("q", "1")], "status"),
        events.external_item("i", "go", '"\u00fc"'),
        events.queue_item("i", "q", "1"),
        events.cancel_item("i", "why"),
        events.activity_completed_item("i", 1, 2, "3"),
        events.activity_failed_item("i", 1, 2, events.application_failure("no")),
        events.timer_item("i", 1, 2, 3),
        events.child_completed_item(("p", 7, 2), "1"),
        events.child_failed_item(("p", 7, 2), events.cancelled_failure("why")),
        events.execute_item("i", 1, 2, "echo", "3", "s", "t"),
        events.execute_item("i", 1, 2, "echo", "3", None, None),
    ],
)
def test_an_item_that_jsonb_has_reordered_is_shown_as_it_was_written(item):
    def reordered(value):
        if isinstance(value, dict):
            return {key: reordered(value[key]) for key in sorted(value, key=lambda key: (len(key), key))}
        return value

    assert events.canonical(json.dumps(reordered(json.loads(item)), ensure_ascii=False)) == item == events.canonical(item)


@pytest.mark.parametrize("text", ["", "no JSON", "[1]", "{}", '{"Kind":5}', '{"a":{},"b":{}}', "[" * 100_000])
def test_a_text_that_is_no_item_stays_as_it_is(text):
    assert events.canonical(text) == text
