"""A store that fails, user code that is broken, signals to nobody: what is concerned fails or waits, everything else goes on."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runtime_rig import PATIENCE_S, Rig, until

from duroxide.errors import ProviderError
from duroxide.runtime.loop import Loop
from duroxide.storage.base import Loaded, Request, StoreError, Taken
from duroxide.storage.memory import MemoryStore


class Failing(MemoryStore):
    """Fails one of `every` verbs, by lot: a fixed n-th could meet the same one of three for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.every = self.failed = 0
        self.lots = random.Random(5)
        self.retryable = True
        self.defective = False  # what it raises is no StoreError

    def _due(self) -> bool:
        due = self.every > 0 and self.lots.randrange(self.every) == 0
        self.failed += due
        return due

    def exchange(self, requests: list[Request]) -> list[Taken]:  # type: ignore[override]
        if self._due():
            if self.defective:
                raise KeyError("planted")
            raise StoreError("planted", operation="exchange", retryable=self.retryable)
        return super().exchange(requests)

    def load(self, instance: str, execution_id: int | None = None, after: int = 0) -> Loaded | None:
        if self._due():
            raise StoreError("planted", operation="load", retryable=self.retryable)
        return super().load(instance, execution_id, after)


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig(Failing())
    yield made
    made.native.every = 0
    made.close()


def flow(ctx: Any, n: int) -> Any:
    found = yield ctx.all_typed([ctx.schedule_activity("echo", k) for k in range(4)])
    yield ctx.schedule_timer(1)
    child = yield ctx.schedule_sub_orchestration("leaf", n)
    return [sum(found), child]


def leaf(ctx: Any, n: int) -> Any:
    return (yield ctx.schedule_activity("echo", n))


@pytest.mark.parametrize("kind", ["may pass", "is final", "is a defect"])
@pytest.mark.parametrize("every", [2, 3, 7])
def test_a_store_that_fails_now_and_then_loses_nothing(rig: Rig, every: int, kind: str) -> None:
    rig.native.every, rig.native.retryable, rig.native.defective = every, kind == "may pass", kind == "is a defect"
    rig.runtime(flow, leaf)
    state, started = rig.native._state, 0

    def start_more() -> None:
        nonlocal started
        with contextlib.suppress(StoreError, KeyError):
            rig.client.start_orchestration(f"i{started}", "flow", started)
            started += 1
        rig.clock.skip(0.02)  # ten times as fast: leases last for half a second

    def completed(instance: str) -> bool:
        found = state.instances.get(instance)
        return found is not None and found.executions[1].status == "Completed"

    until(lambda: started >= 20 and rig.native.failed >= 10, start_more)
    until(lambda: all(completed(f"i{n}") for n in range(started)), lambda: rig.clock.skip(0.02))
    rig.native.every = 0
    for n in range(started):
        assert rig.wait(f"i{n}").output == [6, n]
        assert rig.kinds(f"i{n}").count("ActivityCompleted") == 4


def test_a_value_that_the_store_cannot_read_now_is_read_later(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of the store is no failure of the orchestration's."""

    def keeper(ctx: Any, _: Any) -> Any:
        ctx.set_kv_value("k", "v")
        yield ctx.schedule_timer(1)

    def reader(ctx: Any, _: Any) -> Any:
        return (yield ctx.get_kv_value_from_instance("keeper", "k"))

    read, failures = rig.native.kv_value, [ProviderError("planted"), StoreError("planted")]

    def failing(instance: str, key: str) -> str | None:
        if failures:
            raise failures.pop()
        return read(instance, key)

    rig.runtime(keeper, reader)
    rig.run("keeper", "keeper")
    monkeypatch.setattr(rig.native, "kv_value", failing)
    rig.client.start_orchestration("reader", "reader")
    until(lambda: not failures, lambda: rig.clock.skip(0.02))
    assert rig.wait("reader").output == "v"


@pytest.mark.parametrize("step", ["_outbox", "_exchange", "_settle", "_committed"])
def test_an_unexpected_error_in_a_turn_thread_keeps_no_instance(rig: Rig, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Before the commit or after it: the instances at hand are given back, and come again."""
    real, failures = getattr(Loop, step), [1, 4, 5, 9]
    calls = 0

    def failing(self: Loop, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls in failures:
            raise MemoryError("planted")
        return real(self, *arguments)

    monkeypatch.setattr(Loop, step, failing)
    runtime = rig.runtime(flow, leaf)
    for n in range(6):
        rig.client.start_orchestration(f"i{n}", "flow", n)
    state = rig.native._state

    def completed(instance: str) -> bool:
        return instance in state.instances and state.instances[instance].executions[1].status == "Completed"

    until(lambda: all(completed(f"i{n}") for n in range(6)), lambda: rig.clock.skip(0.02))
    assert calls >= 4 and runtime._engine._reserved == 0
    for n in range(6):
        assert rig.wait(f"i{n}").output == [6, n]


def test_signals_to_nobody_stop_nobody(rig: Rig) -> None:
    rig.runtime(flow, leaf)
    for n in range(20):
        rig.client.raise_event(f"typo{n}", "go")
        rig.client.enqueue_event(f"typo{n}", "q", 1)
        rig.client.cancel_instance(f"typo{n}")
    assert rig.run("i", "flow", 1).output == [6, 1]
    assert [name.split("::")[0] for name in rig.client.list_all_instances()] == ["i", "i"]


NONSENSE = [None, 5, "text", [], {}, {"type": "nonsense"}, {"type": "activity"}, {"type": 5}, object(), {"type": "timer", "delayMs": -1},
            {"type": "join", "tasks": 5}, {"type": "select", "tasks": []}, {"type": "activity", "name": object(), "input": "1"}]  # fmt: skip


@pytest.mark.parametrize("number", range(len(NONSENSE)))
def test_a_generator_that_yields_nonsense_fails_alone(rig: Rig, number: int) -> None:
    def nonsense(ctx: Any, _: Any) -> Any:
        yield NONSENSE[number]

    rig.runtime(nonsense, flow, leaf)
    failed = rig.run("bad", "nonsense")
    assert failed.status == "Failed" and failed.error
    assert rig.run("good", "flow", 1).status == "Completed"


def test_a_message_that_is_none_is_dropped_and_said(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    def parked(ctx: Any, _: Any) -> Any:
        return (yield ctx.wait_for_event("go"))

    rig.runtime(parked, flow, leaf)
    rig.client.start_orchestration("i", "parked")
    until(lambda: "ExternalSubscribed" in rig.kinds("i"))
    with rig.native._lock:
        rig.native._send("i", '{"Nonsense": 5}', rig.clock.now())
    rig.clock.skip(0)
    rig.client.raise_event("i", "go", 1)
    assert rig.wait("i").output == 1
    assert any("no work item" in record.getMessage() for record in caplog.records)


INTERRUPTED = """
    import duroxide, threading, os, signal, sys
    provider = duroxide.SqliteProvider.open(sys.argv[1])
    runtime = duroxide.Runtime(provider)
    def parked(ctx, _):
        return (yield ctx.wait_for_event("go"))
    runtime.register_orchestration("parked", parked)
    runtime.start()
    client = duroxide.Client(provider)
    client.start_orchestration("i", "parked")
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    try:
        client.wait_for_orchestration("i", -1)
        sys.exit(1)
    except KeyboardInterrupt:
        pass
    client.raise_event("i", "go", "after")
    assert client.wait_for_orchestration("i", 10_000).output == "after"
    runtime.shutdown()
"""


@pytest.mark.skipif(os.name == "nt", reason="needs a signal to a process")
def test_ctrl_c_ends_a_wait_and_the_program_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(INTERRUPTED), str(tmp_path / "i.db")]
    assert subprocess.run(command, timeout=PATIENCE_S * 2).returncode == 0


LONE = "a\ud800b"


def child_of(ctx: Any, text: str) -> Any:
    yield ctx.schedule_sub_orchestration_with_id("leaf", text, 1)


def detaching(ctx: Any, text: str) -> Any:
    yield ctx.start_orchestration("leaf", text, 1)


def waiting(ctx: Any, text: str) -> Any:
    yield ctx.race(ctx.wait_for_event(text), ctx.schedule_timer(1))


def tagged(ctx: Any, text: str) -> Any:
    yield ctx.race(ctx.schedule_activity("echo", 1).with_tag(text), ctx.schedule_timer(1))


@pytest.mark.parametrize("program", [child_of, detaching, waiting, tagged], ids=lambda function: function.__name__)
def test_text_that_no_store_can_hold_fails_its_instance_alone(rig: Rig, program: Any) -> None:
    rig.runtime(program, flow, leaf)
    failed = rig.run("bad", program.__name__, LONE)
    assert failed.status == "Failed" and "text with a lone surrogate cannot be stored" in failed.error
    assert rig.run("good", "flow", 1).status == "Completed"


def test_a_nul_is_text_where_the_store_holds_it(rig: Rig) -> None:
    def keeper(ctx: Any, text: str) -> Any:
        ctx.set_kv_value(text, text)
        ctx.set_custom_status(text)
        yield ctx.schedule_timer(1)
        return (yield ctx.schedule_sub_orchestration_with_id("leaf", text, text))

    rig.runtime(keeper, leaf)
    result = rig.run("i", "keeper", "a\0b")
    assert (result.output, result.custom_status, rig.client.get_kv_value("i", "a\0b")) == ("a\0b", "a\0b", "a\0b")
