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
from ledger.account import Watch, check_money, check_reruns
from ledger.crowd import Crowd, Plan

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


def small(**changed: Any) -> Plan:
    plan: dict[str, Any] = {
        "processes": 3, "seconds": 3, "clients": 3, "pause_s": 0.05, "lease_s": 1, "kill_s": 0.5, "stop_s": 0.7, "lock_s": 1.0, "locked_for_s": 0.5,
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

CALM = {"kill_s": 0, "stop_s": 0, "lock_s": 0, "processes": 2, "patience_s": 3.0}


@pytest.mark.parametrize(
    ("bug", "chaos"),
    [
        ("skipped_commit", CALM),
        ("dropped_message", CALM),
        ("delivered_twice", CALM),
        ("not_renewed", {**CALM, "seconds": 6}),
        ("lost_lease_ignored", {**CALM, "stop_s": 1.5, "seconds": 10, "steps": 200, "patience_s": 20.0}),
    ],
)
def test_a_planted_bug_is_caught(tmp_path: Path, bug: str, chaos: dict[str, Any]) -> None:
    with pytest.raises(Wrong):
        run(tmp_path, small(**chaos, bug=bug))


def ran(at: float, worker: str, step: str = "debit", amount: int = -5) -> dict[str, Any]:
    return {"kind": "ran", "at": at, "worker": worker, "instance": "i", "key": "k", "step": step, "amount": amount, "call": f"{worker}:{at}"}


def test_a_call_that_comes_again_needs_a_reason() -> None:
    both = [ran(1.0, "a"), ran(3.0, "b")]
    with pytest.raises(Wrong, match="no reason"):
        check_reruns(both, 1.0)
    with pytest.raises(Wrong, match="no reason"):
        check_reruns([*both, {"kind": "killing", "worker": "a", "at": 4.0}], 1.0)
    with pytest.raises(Wrong, match="no reason"):
        check_reruns([{"kind": "gap", "worker": "b", "since": 3.5, "at": 3.9}, *both], 1.0)
    assert check_reruns([{"kind": "killing", "worker": "a", "at": 2.0}, *both], 1.0) == 1
    assert check_reruns([*both, {"kind": "gap", "worker": "a", "since": 1.5, "at": 4.0}], 1.0) == 1


def test_money_that_moves_for_nobody_is_seen() -> None:
    with pytest.raises(Wrong, match="for nobody"):
        check_money([ran(1.0, "a")], [], None)


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
