"""Simulated worlds: several processes, a fault at every turn of the way, one seed each. See `simulation/`.

A seed that fails is repeated by `python -m tests.simulation SEED --trace`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from simulation.bugs import BUGS
from simulation.run import expected, run_seed
from simulation.witness import Wrong

ROOT = Path(__file__).resolve().parent.parent
SEEDS = 2_000
SHARE = 100  # seeds a test, so that a failure is found soon
ON_OTHERS = {"sqlite-c": 200, "sqlite-python": 60, "file-c": 30, "file-python": 15}


@pytest.mark.parametrize("first", range(0, SEEDS, SHARE))
def test_nothing_is_lost_whatever_goes_wrong(first: int) -> None:
    for seed in range(first, first + SHARE):
        run_seed(seed)


@pytest.mark.parametrize("kind", ON_OTHERS)
def test_nothing_is_lost_on_any_store(kind: str) -> None:
    for seed in range(ON_OTHERS[kind]):
        run_seed(seed, kind)


def test_without_faults_every_program_comes_to_its_end() -> None:
    """The measure of all others; it is not empty, and no instance waits or was poisoned."""
    found = expected()
    assert len(found) == 23
    assert {name: each["output"] for name, each in found.items() if each["status"] == "Failed"}.keys() == {
        "cancelled", "cancelled/waiting", "failing", "parent::sub::6",
    }  # fmt: skip
    assert found["queue"]["output"] == found["drain"]["output"] == "[0, 1, 2, 3, 4]" and len(found["queue"]["kinds"]) == 5


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught(bug: str) -> None:
    for seed in range(200):
        try:
            run_seed(seed, bug=bug)
        except Wrong as wrong:
            assert f"again: python -m tests.simulation {seed} --store memory --bug {bug} --trace" in str(wrong)
            return
    pytest.fail(f"{bug} was not noticed")


def test_a_seed_is_the_same_world_in_every_process() -> None:
    """To the last exchange, whatever the hashes of strings are."""
    told = []
    for hashes in ("1", "2"):
        command = [sys.executable, "-m", "tests.simulation", "0", "--count", "20", "--trace"]
        ran = subprocess.run(
            command, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": hashes}, capture_output=True, text=True, check=True
        )
        told.append([line for line in ran.stdout.splitlines() if "seeds on" not in line])
    assert len(told[0]) > 400 and told[0] == told[1]


@pytest.mark.soak
def test_nothing_is_lost_in_a_hundred_thousand_worlds() -> None:
    for seed in range(SEEDS, SEEDS + 100_000):
        run_seed(seed)
