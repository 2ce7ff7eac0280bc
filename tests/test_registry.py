"""Registration: who wins, which versions, which order, what is refused."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref

import pytest

from duroxide import registry
from duroxide.errors import OptionError
from duroxide.registry import Registry, version_key


def first(ctx, input):
    return 1


def second(ctx, input):
    return 2


def test_the_first_function_of_an_activity_name_stays():
    table = Registry()
    table.add_activity("a", first)
    table.add_activity("a", second)
    assert table.activity("a") is first
    assert table.activity("b") is None


def test_the_last_function_of_an_orchestration_version_counts():
    table = Registry()
    table.add_orchestration("o", None, first)
    table.add_orchestration("o", "1.0.0", second)
    table.check()
    assert table.resolve("o", None) == ("1.0.0", second)


def test_no_version_means_the_latest_and_a_version_means_that_one():
    table = Registry()
    for number, fn in (("1.0.0", first), ("1.9.0", second), ("1.10.0-beta.1", first), ("1.10.0", second)):
        table.add_orchestration("o", number, fn)
    table.check()
    assert table.resolve("o", None) == ("1.10.0", second)
    assert table.resolve("o", "1.0.0") == ("1.0.0", first)
    assert table.resolve("o", "2.0.0") is None
    assert table.resolve("o", "1.0") is None
    assert table.resolve("p", None) is None


@pytest.mark.parametrize(
    "versions",
    [
        ["1.0.0", "1.0.0"], ["1.0.0", "2.0.0", "1.0.0"], ["2.0.0", None], [None, "1.0.0", "1.1.0"], ["0.9.0", None],
        ["1.0.0", "1.0.0+b"],
    ],
)  # fmt: skip
def test_orders_that_the_reference_allows(versions):
    table = Registry()
    for version in versions:
        table.add_orchestration("o", version, first)
    table.check()


@pytest.mark.parametrize("versions", [["2.0.0", "1.0.0"], ["1.0.0-beta.10", "1.0.0-beta.2"], ["1.0.0", "1.0.0-rc.1"]])
def test_versions_out_of_order_are_refused_when_the_runtime_starts(versions):
    table = Registry()
    for version in versions:
        table.add_orchestration("o", version, first)
    expected = f"^non-monotonic orchestration version for o: {versions[1]} is not later than existing latest {versions[0]}$"
    with pytest.raises(OptionError, match=expected):
        table.check()


def test_after_start_a_version_out_of_order_is_refused_at_the_call_and_a_later_one_counts_at_once():
    table = Registry()
    table.add_orchestration("o", "1.0.0", first)
    table.check()
    table.add_orchestration("o", "1.1.0", second)
    assert table.resolve("o", None) == ("1.1.0", second)
    with pytest.raises(OptionError, match="0.5.0 is not later than existing latest 1.1.0"):
        table.add_orchestration("o", "0.5.0", first)
    assert table.resolve("o", "0.5.0") is None


@pytest.mark.parametrize(
    "version",
    [
        "", "v1", "1", "1.0", "1.2.3.4", "01.0.0", "1.0.0-", "1.0.0-01", "1.0.0-a..b", "1.0.0+", "1.2.3 ", "1.0.0\n", "١.0.0",
        "1.-1.0",
    ],
)  # fmt: skip
def test_a_text_that_is_no_semantic_version_is_refused_at_the_call(version):
    with pytest.raises(OptionError, match="Version should be valid semver: ") as raised:
        Registry().add_orchestration("o", version, first)
    assert isinstance(raised.value, ValueError)


def test_versions_are_ordered_as_semver_says():
    ordered = [
        "0.0.0", "0.9.9", "1.0.0-1", "1.0.0-2", "1.0.0-10", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta",
        "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.0+a", "1.0.1", "1.2.0", "1.10.0", "10.0.0",
    ]  # fmt: skip
    for older, newer in itertools.combinations(ordered, 2):
        assert version_key(older) < version_key(newer), (older, newer)


def test_names_and_functions_of_the_wrong_kind_are_refused_at_the_call():
    table = Registry()
    with pytest.raises(TypeError, match="argument 'name': 'int' object cannot be converted to 'PyString'"):
        table.add_activity(5, first)
    with pytest.raises(TypeError, match="argument 'version': 'int' object cannot be converted to 'PyString'"):
        table.add_orchestration("o", 5, first)
    with pytest.raises(TypeError, match="fn of activity 'a' must be callable, not 'int'"):
        table.add_activity("a", 5)
    with pytest.raises(OptionError, match="activity name '__duroxide_syscall:x' is reserved"):
        table.add_activity("__duroxide_syscall:x", first)
    with pytest.raises(UnicodeEncodeError):
        table.add_activity("\ud800", first)


def test_tables_of_two_runtimes_are_apart():
    one, other = Registry(), Registry()
    one.add_orchestration("same", None, first)
    other.add_orchestration("same", None, second)
    assert one.resolve("same", None) == ("1.0.0", first)
    assert other.resolve("same", None) == ("1.0.0", second)
    assert registry.functions["same"] is second


def test_readers_see_a_whole_state_while_versions_are_added():
    table = Registry()
    table.add_orchestration("o", "1.0.0", first)
    seen, stop = set(), threading.Event()

    def read():
        while not stop.is_set():
            seen.add(table.resolve("o", None) is not None)

    reader = threading.Thread(target=read)
    reader.start()
    for minor in range(1, 500):
        table.add_orchestration("o", f"1.{minor}.0", second)
    stop.set()
    reader.join()
    assert seen == {True}


# ── calls by function ──


class Desk:
    def open(self, ctx, input):
        return 1


def test_a_function_has_the_one_name_under_which_it_is_registered():
    def charge(ctx, input): ...

    table, other, desk = Registry(), Registry(), Desk()
    table.add_activity("charge-a-card", charge)
    other.add_activity("charge-a-card", charge)
    table.add_orchestration("both", "1.0.0", charge)
    table.add_orchestration("both", "1.1.0", charge)
    table.add_activity("open", desk.open)
    assert registry.name_of("activity", charge) == "charge-a-card"
    assert registry.name_of("orchestration", charge) == "both"
    assert registry.name_of("activity", desk.open) == "open"


def test_a_function_without_a_name_or_with_several_is_refused():
    def charge(ctx, input): ...

    table = Registry()
    with pytest.raises(TypeError, match="charge is no activity .* not registered in this process: pass its name"):
        registry.name_of("activity", charge)
    table.add_activity("a", first)
    table.add_activity("a", charge)  # the first stays
    with pytest.raises(TypeError, match="not registered"):
        registry.name_of("activity", charge)
    table.add_activity("b", charge)
    table.add_activity("c", charge)
    with pytest.raises(TypeError, match="registered as b and c: pass the name that is meant"):
        registry.name_of("activity", charge)
    with pytest.raises(TypeError, match="not registered"):
        registry.name_of("orchestration", charge)


def test_a_callable_that_cannot_be_remembered_is_called_by_name():
    class Unhashable:
        __hash__ = None

        def __call__(self, ctx, input): ...

    table = Registry()
    table.add_activity("x", Unhashable())
    with pytest.raises(TypeError, match="not registered"):
        registry.name_of("activity", Unhashable())


def test_a_function_that_is_gone_is_not_kept_by_its_name():
    def charge(ctx, input): ...

    gone = weakref.ref(charge)
    Registry().add_activity("charge", charge)
    del charge
    gc.collect()
    assert gone() is None
