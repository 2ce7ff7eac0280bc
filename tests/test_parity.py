"""Every program run here, against what the reference made of it: statuses, outputs, errors, KV and the histories event by event.

Where this package differs on purpose, ALLOWED says what is expected instead, and why.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from golden import compare, programs, store
from golden.world import World

import duroxide
from duroxide.storage.memory import MemoryStore
from duroxide.storage.postgres import open_postgres
from postgres_server import Server

Run = dict[str, Any]
Change = Callable[[Run], None]


# ── what is allowed to differ ──


def failed(run: Run, instance: str, *dropped: str, events: int = 1) -> None:
    """The instance fails as recorded, without the events of the kinds `dropped` that the reference stored before."""
    row = run[instance]
    kept = [e for e in row["executions"][events] if e["type"] not in dropped]
    row["executions"][events] = renumber(kept)


def renumber(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ids = {e["id"]: n for n, e in enumerate(events, 1)}
    return [{**e, "id": ids[e["id"]], **({"source": ids[e["source"]]} if "source" in e else {})} for e in events]


def output(instance: str, text: str) -> Change:
    """That instance gives another output; its history differs from there on."""

    def change(run: Run) -> None:
        run[instance]["output"] = text
        run[instance]["status"] = "Completed"
        run[instance]["executions"] = ANY

    return change


def any_order(*instances: str) -> Change:
    """What arrives first hangs on how long things take; test_golden replays the recorded order."""

    def change(run: Run) -> None:
        for instance in instances:
            run[instance]["executions"] = ANY

    return change


class _Any:
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


ANY: Any = _Any()
TIMES = "what arrives first hangs on how long things take"
NOT_STORED = "a value over its limit fails the orchestration and is not stored (D13)"


def without_big_key(run: Run) -> None:
    for instance in ("j", "k"):
        failed(run, instance, "KeyValueSet", "OrchestrationCompleted")
        run[instance]["kv"] = {}


def without_last_key(run: Run) -> None:
    failed(run, "j", "OrchestrationCompleted")
    del run["j"]["kv"]["k150"]


def without_later_key(run: Run) -> None:
    """The wait of the failing turn ends like every other wait; the reference forgets those that the limit's turn made."""
    failed(run, "j", "KeyValueSet")
    events = run["j"]["executions"][1]
    ended = {"id": 6, "type": "ExternalSubscribedCancelled", "reason": "orchestration_terminal", "source": 5}
    run["j"]["executions"][1] = [*events[:5], ended, *({**e, "id": e["id"] + 1} for e in events[5:])]
    run["j"]["kv"] = {}


def without_big_status(run: Run) -> None:
    failed(run, "j", "OrchestrationCompleted")
    run["j"]["executions"][1][1]["status"] = None
    run["j"].update(custom_status=None, custom_status_version=0)


def without_long_tag(run: Run) -> None:
    failed(run, "j", "ActivityScheduled", "ActivityCancelRequested", "OrchestrationCompleted")


def without_empty_carry(run: Run) -> None:
    del run["i"]["executions"][2][0]["carry_forward_events"]


def cancels_before_continuing(run: Run) -> None:
    events = run["i"]["executions"][1]
    lost = {"id": 0, "type": "ExternalSubscribedPersistentCancelled", "reason": "dropped_future", "source": 3}
    run["i"]["executions"][1] = [*events[:-1], {**lost, "id": len(events)}, {**events[-1], "id": len(events) + 1}]


def starts_the_detached(run: Run) -> None:
    started = {"type": "OrchestrationStarted", "name": "other", "version": "1.0.0", "input": "1", "parent_instance": None, "parent_id": None}
    run["lost"] = {
        "name": "other", "version": "1.0.0", "parent": None, "status": "Completed", "output": '["other", 1]', "custom_status": None,
        "custom_status_version": 0, "kv": {},
        "executions": {1: [{"id": 1, **started}, {"id": 2, "type": "OrchestrationCompleted", "output": '["other", 1]'}]},
    }  # fmt: skip


ALLOWED: dict[str, tuple[str, Change]] = {
    "all_changes_values": ("values pass through all and race unchanged", output("i", '[["b", "a"], "int"]')),
    "all_nested": (
        "all and race nest",
        output("i", '[[{"ok": [{"ok": 1}, {"ok": 2}]}, {"ok": 3}], {"index": 0, "value": [{"ok": 1}, {"ok": 2}]}]'),
    ),
    "race_of_other_sizes": (
        "a race has any number of members",
        output("i", '[{"index": 0, "value": 1}, {"index": 2, "value": 3}]'),
    ),
    "queue_too_many_in_one_turn": ("no limit of messages drained in a turn (D5)", output("i", "120")),
    "continue_as_new_after_lost_dequeue": ("losers dropped in the turn that continues as new are cancelled (D4)", cancels_before_continuing),
    "detached_then_continue_as_new": ("a detached start of a turn that continues as new takes effect (D3)", starts_the_detached),
    "kv_value_too_large": (NOT_STORED, without_big_key),
    "kv_too_many_keys": (NOT_STORED, without_last_key),
    "custom_status_too_large": (NOT_STORED, without_big_status),
    "tag_too_long": (NOT_STORED, without_long_tag),
    "failure_with_open_work": (NOT_STORED, without_later_key),
    "continue_as_new_carry_limit": (
        "all unread messages cross, not a hundred", output("i", '[98, 99, {"index": 0, "value": 100}]')
    ),
    "unregistered_on_the_way": ("an empty carry is left out, as in every other first event", without_empty_carry),
    "all_of_every_kind": (TIMES, any_order("i")),
    "all_with_retries": (TIMES, any_order("i")),
    "queue_unread": (TIMES, any_order("i")),
}


def expected(program: str) -> Run:
    run = compare.recording(store.read(program))
    if program in ALLOWED:
        ALLOWED[program][1](run)
    return run


# ── the run here ──


def snapshot(native: Any) -> dict[str, Any]:
    """What the store has, in the shape of a recording."""
    found: dict[str, Any] = {}
    for instance in sorted(native.instances()):
        row = native.load(instance)
        executions = {n: stored(native.load(instance, n)) for n in native.executions(instance)}
        found[instance] = {
            "name": row.name, "version": row.version or "", "parent": row.parent, "status": row.status, "output": row.output,
            "custom_status": row.custom_status, "custom_status_version": row.custom_status_version,
            "kv": native.kv_values(instance), "executions": executions,
        }  # fmt: skip
    return found


def stored(loaded: Any) -> list[dict[str, Any]]:
    return [json.loads(text) for _, text in loaded.events]


def run_here(program: str, provider: Any) -> dict[str, Any]:
    world = World(duroxide, provider)
    programs.run(program, world)
    return {"program": program, "instances": snapshot(provider._native)}


def check(program: str, provider: Any) -> None:
    found = compare.recording(run_here(program, provider))
    wrong = compare.differences(expected(program), found)
    assert not wrong, "\n".join(wrong[:20])


@pytest.mark.parametrize("program", store.names())
def test_run_on_a_file_gives_what_the_reference_gave(program: str, tmp_path: Path) -> None:
    check(program, duroxide.SqliteProvider.open(str(tmp_path / "run.db"), synchronous="normal"))


@pytest.mark.parametrize("program", store.names())
def test_run_in_memory_gives_what_the_reference_gave(program: str) -> None:
    check(program, duroxide.SqliteProvider(MemoryStore()))


def check_on_postgres(program: str, server: Server, schema: str) -> None:
    native = open_postgres(server.url, schema)
    try:
        check(program, duroxide.PostgresProvider(native))
    finally:
        native.close()


@pytest.mark.parametrize("program", store.names()[::4])
def test_run_on_postgres_gives_what_the_reference_gave(program: str, postgres: Server, schema: str) -> None:
    check_on_postgres(program, postgres, schema)


@pytest.mark.soak
@pytest.mark.parametrize("program", [name for n, name in enumerate(store.names()) if n % 4])
def test_the_rest_on_postgres_gives_what_the_reference_gave(program: str, postgres: Server, schema: str) -> None:
    check_on_postgres(program, postgres, schema)


def test_a_difference_is_seen() -> None:
    """One lost event, one other payload, one other status, one more instance: each is reported."""
    good = compare.recording(store.read("child_results"))
    for spoil in (
        lambda run: run["i"]["executions"][1].pop(),
        lambda run: run["i"]["executions"][1][2].update(result="0"),
        lambda run: run["named-kid"].update(status="Failed"),
        lambda run: run.update(extra=run["i"]),
        lambda run: run["i"]["kv"].update(k="v"),
    ):
        bad = copy.deepcopy(good)
        spoil(bad)
        assert compare.differences(good, bad)
    assert not compare.differences(good, copy.deepcopy(good))


def test_every_allowed_difference_is_one() -> None:
    """An entry that no longer changes anything has to go."""
    for program in ALLOWED:
        assert compare.differences(compare.recording(store.read(program)), expected(program)) or ALLOWED[program][0] == TIMES, program
