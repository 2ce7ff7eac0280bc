"""SIGKILL at every commit point of a scenario that uses every feature, then again during the recovery: nothing is lost or done twice.

The default run takes every point of a first death on the store in C, and a fixed share of the rest; `-m soak` takes all.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults.trial import Trial, Wrong, Zygote

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")

MOST_POINTS = 1_000  # far more than a run has: the loops end when a worker gets to its end alive
Make = Callable[..., Trial]


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    made = Zygote()
    yield made
    said = made.close()
    assert "locked" not in said and "Traceback" not in said, said


@pytest.fixture
def careless() -> Iterator[Zygote]:
    """For workers with bugs: what they say does not count."""
    made = Zygote()
    yield made
    made.close()


@pytest.fixture
def trial(zygote: Zygote, tmp_path: Path) -> Make:
    numbers = itertools.count()

    def make(implementation: str = "c", bug: str | None = None, parent: Zygote = zygote) -> Trial:
        return Trial(parent, tmp_path / f"{next(numbers)}", implementation, bug)

    return make


def loop(make: Callable[[], Trial], first: int, step: int) -> int:
    """Kill at `first`, `first + step`, ... until a run has no such point; how many points died."""
    for n, point in enumerate(range(first, MOST_POINTS, step)):
        try:
            if make().run([point]) == 0:
                return n
        except Wrong as wrong:
            raise Wrong(f"killed at point {point}: {wrong}") from wrong
    raise AssertionError(f"after {MOST_POINTS} points there are still more")


def test_the_scenario_without_a_kill(trial: Make) -> None:
    assert trial("c").run([]) == 0 and trial("python").run([]) == 0


@pytest.mark.parametrize(("implementation", "first", "step"), [("c", 1, 1), ("python", 2, 3)])
def test_a_kill_at_a_commit_point_loses_nothing(trial: Make, implementation: str, first: int, step: int) -> None:
    assert loop(lambda: trial(implementation), first, step) * step > 20


def test_kills_during_the_recovery_lose_nothing(trial: Make) -> None:
    for first in range(2, 50, 9):
        for second in range(1, 40, 9):
            trial().run([first, second])
    trial("python").run([11, 4, 3, 2, 1])


@pytest.mark.soak
@pytest.mark.parametrize("implementation", ["c", "python"])
def test_a_kill_at_every_point_of_the_recovery_loses_nothing(trial: Make, implementation: str) -> None:
    for first in range(1, MOST_POINTS):
        for second in range(1, MOST_POINTS):
            deaths = trial(implementation).run([first, second])
            if deaths == 0:
                return
            if deaths == 1:
                break


@pytest.mark.parametrize("bug", ["messages_later", "results_later", "messages_twice"])
def test_a_planted_bug_is_caught(trial: Make, careless: Zygote, bug: str) -> None:
    with pytest.raises(Wrong):
        for point in range(1, MOST_POINTS):
            trial("c", bug, careless).run([point])
