"""A ledger outside, synced line by line, against what the store says: under kills, stops and locks nothing is lost, done twice or changed.

`python -m tests.ledger --minutes 10 --processes 16` is the long run; here a few seconds of it, and bugs that it has to see.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
from faults.checks import Wrong
from ledger.account import Watch, check_money
from ledger.crowd import Crowd, Plan
from ledger.reruns import EVERYONE, check_reruns

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


def small(**changed: Any) -> Plan:
    plan: dict[str, Any] = {
        "processes": 3, "seconds": 2, "clients": 3, "pause_s": 0.05, "lease_s": 1, "kill_s": 0.5, "stop_s": 0.7, "lock_s": 1.0, "locked_for_s": 0.5,
    }  # fmt: skip
    return Plan(**{**plan, **changed})


def run(directory: Path, plan: Plan, seed: int = 1) -> dict[str, Any]:
    crowd = Crowd(directory, plan, seed)
    found = crowd.run()
    said = crowd.heard()
    for word in ("locked", "busy", "Traceback"):
        assert word not in said, said[-3_000:]
    return found


def test_a_crowd_loses_nothing(tmp_path: Path) -> None:
    found = run(tmp_path, small())
    assert found["killed"] and found["stopped"] and found["locked"] and found["calls"] > found["stories"] > 5, found


@pytest.mark.soak
@pytest.mark.parametrize(("implementation", "seconds"), [("c", 20), ("python", 20), ("c", 600)])
def test_sixteen_processes_lose_nothing(tmp_path: Path, implementation: str, seconds: int) -> None:
    plan = small(processes=16, seconds=seconds, clients=8, lease_s=3, kill_s=1, stop_s=4, lock_s=10, locked_for_s=3, implementation=implementation)
    found = run(tmp_path, plan)
    print(found)
    assert found["start p99 s"] < 10 and found["story p99 s"] < 60  # a lock, and a stop until the leases end


# ── bugs to be caught ──

CALM = {"kill_s": 0, "stop_s": 0, "lock_s": 0, "processes": 1, "seconds": 1.0, "patience_s": 2.0}
STATEMENTS = {**CALM, "processes": 2, "seconds": 12.0, "patience_s": 60.0, "stories": ("statement",)}


@pytest.mark.parametrize(
    ("bug", "stories", "said"),
    [("skipped_commit", ("till",), "story"), ("dropped_message", ("transfer",), "story"), ("delivered_twice", ("till",), "slip")],
)
def test_a_planted_bug_is_caught(tmp_path: Path, bug: str, stories: tuple[str, ...], said: str) -> None:
    with pytest.raises(Wrong, match=said):
        run(tmp_path, small(**CALM, stories=stories, bug=bug))


@pytest.mark.soak
@pytest.mark.parametrize(("bug", "chaos"), [("not_renewed", {"steps": 2, "seconds": 3.0}), ("lost_lease_ignored", {"steps": 150, "stop_s": 0.7})])
def test_a_lease_that_means_nothing_is_caught(tmp_path: Path, bug: str, chaos: dict[str, Any]) -> None:
    """It needs two workers with one instance, so time: rules for what they do are below, and the simulation plants the same."""
    with pytest.raises(Wrong, match="no reason|poison"):
        run(tmp_path, small(**{**STATEMENTS, **chaos}, bug=bug))


def ran(at: float, worker: str, step: str = "debit", amount: int = -5) -> dict[str, Any]:
    return {"kind": "ran", "at": at, "worker": worker, "instance": "i", "key": "k", "step": step,
            "account": "x", "amount": amount, "call": f"{worker}:{at}"}  # fmt: skip


def killed(worker: str, at: float) -> dict[str, Any]:
    return {"kind": "killing", "worker": worker, "at": at}


def stood(worker: str, since: float, until: float) -> dict[str, Any]:
    return {"kind": "gap", "worker": worker, "since": since, "at": until}


TWICE = [ran(1.0, "a"), ran(3.0, "b")]


@pytest.mark.parametrize(
    "reason", [killed("a", 2.0), stood("a", 0.5, 2.0), stood("a", 1.5, 4.0), stood("b", 0.5, 2.9), stood(EVERYONE, 1.5, 2.5)]
)
def test_a_call_may_come_again_if_its_lease_may_have_ended(reason: dict[str, Any]) -> None:
    assert check_reruns([*TWICE, reason], 1.0) == 1


@pytest.mark.parametrize("no_reason", [killed("a", 4.0), killed("b", 2.0), stood("a", 3.1, 4.0), stood("b", 0.0, 1.5), stood("b", 3.5, 3.9)])
def test_a_call_that_comes_again_needs_a_reason(no_reason: dict[str, Any]) -> None:
    with pytest.raises(Wrong, match="no reason"):
        check_reruns([*TWICE, no_reason], 1.0)


def test_a_call_whose_result_is_stored_never_comes_again() -> None:
    """A later step was asked for: what was before it is stored, whoever is killed afterwards."""
    with pytest.raises(Wrong, match="no reason"):
        check_reruns([ran(1.0, "a"), ran(1.1, "a", "credit"), killed("a", 2.0), ran(3.0, "b")], 1.0)


def test_a_zombie_does_what_it_has_in_its_hands_and_no_more() -> None:
    others = [ran(1.0, "a", "one"), ran(1.1, "a", "two"), ran(1.2, "a", "three"), stood("z", 0.5, 2.9)]
    assert check_reruns([*others, ran(3.0, "z", "one")], 1.0) == 1
    with pytest.raises(Wrong, match="'two'.* for no reason"):
        check_reruns([*others, ran(3.0, "z", "one"), ran(3.1, "z", "two")], 1.0)
    with pytest.raises(Wrong, match="'one'.* for no reason"):
        check_reruns([*others, ran(4.0, "z", "one")], 1.0)


def test_money_that_moves_for_nobody_is_seen() -> None:
    with pytest.raises(Wrong, match="for nobody"):
        check_money([ran(1.0, "a")], [], None)
    with pytest.raises(Wrong, match="then"):
        check_money([ran(1.0, "a"), ran(2.0, "a", amount=-6)], [], None)


def test_a_history_that_changes_is_seen() -> None:
    class Store:
        text, status = "one", "Running"

        def executions(self, instance: str) -> list[int]:
            return [1]

        def load(self, instance: str, execution: int | None) -> Any:
            return type("Row", (), {"events": [(1, self.text)], "status": self.status, "output": self.text})

    store = Store()
    watch = Watch(store, random.Random(1))
    watch.look("i")
    store.text = "other"
    with pytest.raises(Wrong, match="changed"):
        watch.look("i")
