"""Several runtimes on one store: work by tag, sessions by owner, and everything exactly once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from runtime_rig import Rig, until

import duroxide


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


def tagged(ctx: Any, tag: str | None) -> Any:
    return (yield ctx.schedule_activity("who").with_tag(tag))


def test_runtimes_with_tag_filters_share_the_work_by_tag(rig: Rig) -> None:
    filters = {
        "plain": duroxide.TagFilter.DEFAULT_ONLY, "gpu": duroxide.TagFilter.tags(["gpu"]), "eu": duroxide.TagFilter.tags(["eu"]),
        "nothing": duroxide.TagFilter.NONE,
    }  # fmt: skip
    for name, worker_filter in filters.items():
        rig.runtime(tagged, activities={"who": lambda ctx, _, name=name: name}, worker_tag_filter=worker_filter)
    for n in range(10):
        for tag, who in ((None, "plain"), ("gpu", "gpu"), ("eu", "eu")):
            assert rig.run(f"{tag}{n}", "tagged", tag).output == who


def test_overlapping_filters_leave_nothing_undone(rig: Rig) -> None:
    rig.runtime(tagged, activities={"who": lambda ctx, _: 1}, worker_tag_filter=duroxide.TagFilter.tags(["a", "b"]))
    rig.runtime(tagged, activities={"who": lambda ctx, _: 1}, worker_tag_filter=duroxide.TagFilter.default_and(["b"]))
    assert [rig.run(f"{tag}", "tagged", tag).output for tag in (None, "a", "b")] == [1, 1, 1]


def test_work_that_nobody_takes_waits_and_hinders_nobody(rig: Rig) -> None:
    rig.runtime(tagged, activities={"who": lambda ctx, _: 1})
    for n in range(50):
        rig.client.start_orchestration(f"waiting{n}", "tagged", "nobody")
    assert rig.run("i", "tagged", None).output == 1
    assert rig.client.get_status("waiting0").status in ("Running", "NotFound")
    rig.runtime(tagged, activities={"who": lambda ctx, _: 2}, worker_tag_filter=duroxide.TagFilter.ANY)
    assert {rig.wait(f"waiting{n}").output for n in range(50)} == {2}


def test_several_runtimes_run_everything_once(rig: Rig) -> None:
    ran: Counter[str] = Counter()
    lock = threading.Lock()

    def note(ctx: Any, value: str) -> str:
        with lock:
            ran[f"{ctx.instance_id}/{value}"] += 1
        return value

    def flow(ctx: Any, _: Any) -> Any:
        first = yield ctx.all_typed([ctx.schedule_activity("note", f"f{n}") for n in range(3)])
        child = yield ctx.schedule_sub_orchestration("leaf", 1)
        return [*first, child]

    def leaf(ctx: Any, _: Any) -> Any:
        return (yield ctx.schedule_activity("note", "leaf"))

    for _ in range(3):
        rig.runtime(flow, leaf, activities={"note": note})
    rig.client.start_orchestrations([(f"i{n}", "flow") for n in range(100)])
    assert {tuple(rig.wait(f"i{n}").output) for n in range(100)} == {("f0", "f1", "f2", "leaf")}
    assert set(ran.values()) == {1} and len(ran) == 400


def test_a_session_stays_with_one_runtime(rig: Rig) -> None:
    def flow(ctx: Any, session: str) -> Any:
        found = []
        for _ in range(5):
            found.append((yield ctx.schedule_activity_on_session("who", None, session)))
        return found

    for name in ("a", "b"):
        rig.runtime(flow, activities={"who": lambda ctx, _, name=name: (name, ctx.session_id)})
    for n in range(6):
        found = rig.run(f"i{n}", "flow", f"s{n}").output
        assert len({tuple(each) for each in found}) == 1 and found[0][1] == f"s{n}"


def test_a_session_stays_though_nothing_runs_on_it_for_longer_than_its_lease(rig: Rig) -> None:
    def flow(ctx: Any, session: str) -> Any:
        found = []
        for n in range(3):
            found.append((yield ctx.schedule_activity_on_session("who", None, session)))
            yield ctx.wait_for_event(f"go{n}")
        return found

    for name in ("a", "b"):
        rig.runtime(flow, activities={"who": lambda ctx, _, name=name: name}, session_lock_timeout_ms=3_000)
    rig.client.start_orchestration("i", "flow", "s")
    for n in range(3):
        until(lambda n=n: rig.kinds("i").count("ExternalSubscribed") == n + 1)  # type: ignore[misc]
        for _ in range(10):  # ten seconds
            until(lambda: rig.native._state.sessions["s"][1] > rig.clock.now() + 1_100)
            rig.clock.skip(1)
        rig.client.raise_event("i", f"go{n}")
    assert len(set(rig.wait("i").output)) == 1


def test_a_runtime_holds_no_more_sessions_than_it_may(rig: Rig) -> None:
    gate, running, most, lock = threading.Event(), [0], [0], threading.Lock()

    def hold(ctx: Any, _: Any) -> Any:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        gate.wait(20)
        with lock:
            running[0] -= 1
        return 1

    def flow(ctx: Any, n: int) -> Any:
        return (yield ctx.schedule_activity_on_session("hold", None, f"s{n}"))

    rig.runtime(flow, activities={"hold": hold}, worker_concurrency=4, max_sessions_per_runtime=2)
    for n in range(6):
        rig.client.start_orchestration(f"i{n}", "flow", n)
    until(lambda: running[0] == 2)
    assert rig.client.get_queue_depths().worker_queue >= 1
    gate.set()
    until(lambda: all(rig.client.get_status(f"i{n}").status == "Completed" for n in range(6)), lambda: rig.clock.skip(1))
    assert most[0] == 2
