"""Histories that the reference recorded, replayed by this engine: cut at every turn and in the middle of turns."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from golden import compare, programs, replay, store
from golden.world import World

from duroxide import events, options

# Programs whose code changes while they run: their histories do not belong to one set of functions. test_parity runs them.
CHANGED = {"changed_code", "changed_race", "changed_after_a_detached_start", "child_nondeterminism"}

# (program, instance, execution): the engine's turn differs from the reference's here, on purpose.
OTHERWISE = {
    ("all_changes_values", "i"): "values pass through all and race unchanged",
    ("all_nested", "i"): "all and race nest",
    ("race_of_other_sizes", "i"): "a race has any number of members",
    ("queue_too_many_in_one_turn", "i"): "no limit of messages drained in a turn (D5)",
    ("continue_as_new_after_lost_dequeue", "i"): "losers dropped in the turn that continues as new are recorded (D4)",
    ("custom_status_too_large", "j"): "a value over its limit is not stored (D13)",
    ("failure_with_open_work", "j"): "a value over its limit is not stored (D13)",
    ("kv_too_many_keys", "j"): "a value over its limit is not stored (D13)",
    ("kv_value_too_large", "j"): "a value over its limit is not stored (D13)",
    ("kv_value_too_large", "k"): "a value over its limit is not stored (D13)",
    ("tag_too_long", "j"): "a value over its limit is not stored (D13)",
}


TERMINAL = {"OrchestrationCompleted", "OrchestrationFailed", "OrchestrationContinuedAsNew"}


class _Sdk:
    TagFilter = options.TagFilter


def executions(program: str) -> Iterator[replay.Execution]:
    world = World(_Sdk, None)
    programs.PROGRAMS[program](world)
    functions = world.orchestrations
    for instance, row in store.read(program)["instances"].items():
        for number, stored in row["executions"].items():
            if (program, instance) in OTHERWISE or any("Poison" in e.get("details", ()) for e in stored):
                continue  # poison is about fetches, not about what the code does
            if (stored[0]["name"], stored[0]["version"]) in functions:
                yield replay.Execution(instance, row, number, functions)


REPLAYED = [name for name in store.names() if name not in CHANGED]


def check(execution: replay.Execution, ran: Any, first: int, end: int) -> None:
    where = f"{execution.instance}#{execution.number} events {first + 1} to {end}"
    assert ran.done is not None, f"{where}: no turn ({ran.outcome}, {ran.error})"
    wrong = compare.differences(execution.expected(first, end), execution.found(ran, first), where)
    assert not wrong, "\n".join(wrong[:9])


@pytest.mark.parametrize("program", REPLAYED)
@pytest.mark.parametrize("write", [events.compact, json.dumps], ids=["scanned", "read by json"])
def test_each_turn_from_stored_history_is_the_recorded_one(program: str, write: Callable[[Any], str]) -> None:
    for execution in executions(program):
        execution.write = write
        for first, end in execution.turns():
            ran = execution.run(first, end)
            check(execution, ran, first, end)
            check_outbox(execution, ran, first, end)


@pytest.mark.parametrize("program", REPLAYED)
def test_turns_of_a_live_generator_are_the_recorded_ones(program: str) -> None:
    for execution in executions(program):
        live = None
        for first, end in execution.turns():
            ran = execution.run(first, end, live)
            check(execution, ran, first, end)
            live = ran.execution


@pytest.mark.parametrize("program", REPLAYED)
def test_history_that_ends_within_a_turn_is_completed(program: str) -> None:
    """A cut among the commands of a turn that goes on: the next turn adds what is missing, as recorded."""
    for execution in executions(program):
        stale = events.activity_completed_item(execution.instance, 999, 1, "0")
        for first, end in execution.turns():
            kinds = [e["type"] for e in execution.events[first:end]]
            commands = [n for n, kind in enumerate(kinds, first) if n and kind not in replay.ARRIVALS]
            # A turn in which the code ends or is cancelled does not look at what history has beyond: it is never half there.
            for cut in () if TERMINAL.intersection(kinds) else commands[1:]:
                ran = execution.run(cut, end, extra=(stale,))
                check(execution, ran, cut, end)


def check_outbox(execution: replay.Execution, ran: Any, first: int, end: int) -> None:
    """The turn's work and messages are those that its events speak of."""
    turn = execution.events[first:end]
    kinds = [e["type"] for e in turn]
    if ran.outcome != "continue":
        assert ran.done.status == execution_status(kinds)
        return
    dropped = {e["source_event_id"] for e in turn if e["type"] == "ActivityCancelRequested"}
    resolved = {e["source_event_id"] for e in turn if e["type"] == "ActivityCompleted"}
    asked = {e["event_id"] for e in turn if e["type"] == "ActivityScheduled"} - dropped - resolved
    assert {w.activity_id for w in ran.done.work} - {c[2] for c in ran.done.cancelled} == asked
    sent = [text for _, text, _ in ran.done.messages]
    for kind, item in (("TimerCreated", '{"TimerFired"'), ("SubOrchestrationCancelRequested", '{"CancelInstance"')):
        assert sum(text.startswith(item) for text in sent) == kinds.count(kind), (kind, sent)
    starts = kinds.count("SubOrchestrationScheduled") + kinds.count("OrchestrationChained")
    assert sum(text.startswith('{"StartOrchestration"') for text in sent) == starts


def execution_status(kinds: list[str]) -> str:
    if "OrchestrationCompleted" in kinds:
        return "Completed"
    return "ContinuedAsNew" if "OrchestrationContinuedAsNew" in kinds else "Failed"


def test_recordings_hold_every_event_kind_and_every_program() -> None:
    kinds = {e["type"] for n in store.names() for r in store.read(n)["instances"].values() for x in r["executions"].values() for e in x}
    assert kinds == set(events.KINDS)
    assert set(store.names()) == set(programs.PROGRAMS)
    assert sum(f.stat().st_size for f in store.DIRECTORY.glob("*.json")) < 1_500_000


def test_a_wrong_replay_is_seen() -> None:
    """The comparison finds a lost event, another payload and another order."""
    execution = next(executions("activity_chain"))
    for spoil in (lambda e: e.pop(), lambda e: e[0].update(result="9"), lambda e: e.reverse()):
        ran = execution.run(2, 4)
        found = execution.found(ran, 2)
        spoil(found)
        assert compare.differences(execution.expected(2, 4), found)
