"""SIGKILL at every commit point of a scenario that uses every feature, then again during the recovery, and a third time: nothing is
lost or done twice, and the histories are those of a run without a death.

Workers take their steps in one thread, so that points are the same in every run; and, in a smaller share, as threads. The default
run takes a fixed share of the points; `-m soak` takes all, and all pairs.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults.bugs import BUGS
from faults import scenario
from faults.checks import Wrong
from faults.trial import Sender, Trial, Zygote

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")

MOST_POINTS = 1_000  # far more than a run has: the loops end when a worker gets to its end alive
STORES = ["c", "python"]
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


@pytest.fixture(scope="module")
def unkilled(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Trial:
    trial = Trial(zygote, tmp_path_factory.mktemp("unkilled") / "0", "c")
    assert trial.run([]) == 0
    return trial


@pytest.fixture
def trial(zygote: Zygote, tmp_path: Path) -> Make:
    numbers = itertools.count()

    def make(implementation: str = "c", mode: str = "steps", bug: str | None = None, parent: Zygote = zygote) -> Trial:
        return Trial(parent, tmp_path / f"{next(numbers)}", implementation, mode, bug)

    return make


def to_the_end(trial: Trial, kills: list[int], unkilled: Trial) -> int:
    """How many of the kills were reached."""
    try:
        deaths = trial.run(kills)
        trial.check_story(unkilled)
        return deaths
    except Wrong as wrong:
        raise Wrong(f"{trial.implementation}, {trial.mode}, killed at {kills}: {wrong}") from wrong


def singles(make: Callable[[], Trial], unkilled: Trial, first: int, step: int) -> int:
    """Kill at `first`, `first + step`, ... until a run has no such point; how many points died."""
    for n, point in enumerate(range(first, MOST_POINTS, step)):
        if to_the_end(make(), [point], unkilled) == 0:
            return n
    raise AssertionError(f"after {MOST_POINTS} points there are still more")


def pairs(make: Callable[[], Trial], unkilled: Trial, step: int, directory: Path, third: int = 0) -> int:
    """Die at each `step`-th point, and from the file that this leaves at each `step`-th again (and at `third` once more): how many died twice."""
    numbers, deaths = itertools.count(), 0
    for first in range(1, MOST_POINTS, step):
        dead = make()
        if dead.life(first):
            return deaths
        for second in range(1 + first % step, MOST_POINTS, step):
            kills = [second, third] if third else [second]
            if to_the_end(dead.copy(directory / f"copy{next(numbers)}"), kills, unkilled) == 1:
                break
            deaths += 1
    raise AssertionError(f"after {MOST_POINTS} points there are still more")


@pytest.mark.parametrize("mode", ["steps", "singly", "expiry", "threads"])
@pytest.mark.parametrize("implementation", STORES)
def test_the_scenario_without_a_kill(trial: Make, unkilled: Trial, implementation: str, mode: str) -> None:
    assert to_the_end(trial(implementation, mode), [], unkilled) == 0


@pytest.mark.parametrize(
    ("implementation", "mode", "first", "step"),
    [("c", "steps", 1, 3), ("python", "steps", 2, 9), ("c", "singly", 3, 17), ("c", "expiry", 4, 13), ("c", "threads", 5, 6)],
)
def test_a_kill_at_a_commit_point_loses_nothing(
    trial: Make, unkilled: Trial, implementation: str, mode: str, first: int, step: int
) -> None:
    assert singles(lambda: trial(implementation, mode), unkilled, first, step) * step > 30


def test_kills_during_the_recovery_lose_nothing(trial: Make, unkilled: Trial, tmp_path: Path) -> None:
    assert pairs(lambda: trial("c", "steps"), unkilled, 16, tmp_path) > 15
    assert to_the_end(trial("python", "threads"), [11, 4, 3, 2, 1], unkilled) >= 4


@pytest.mark.soak
@pytest.mark.parametrize("mode", ["steps", "singly", "expiry", "threads"])
@pytest.mark.parametrize("implementation", STORES)
def test_a_kill_at_every_commit_point_loses_nothing(trial: Make, unkilled: Trial, implementation: str, mode: str) -> None:
    print(implementation, mode, singles(lambda: trial(implementation, mode), unkilled, 1, 1), "points")


@pytest.mark.soak
@pytest.mark.parametrize(("step", "third"), [(1, 0), (5, 3), (5, 8)])
@pytest.mark.parametrize("implementation", STORES)
def test_kills_at_every_point_of_the_recovery_lose_nothing(
    trial: Make, unkilled: Trial, tmp_path: Path, implementation: str, step: int, third: int
) -> None:
    print(implementation, pairs(lambda: trial(implementation), unkilled, step, tmp_path, third), "pairs", third)


def test_what_one_receiver_gets_is_sent_in_order_whatever_becomes_due_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It becomes due between two looks of one pass: a later message was sent, and an earlier one after it."""
    for looks in range(1, 9):
        left, sent = itertools.count(-looks), list[int]()

        def due(native: object, left: Iterator[int] = left) -> bool:
            return next(left) >= 0

        acts = [scenario.Act(f"put {n}", due, lambda client, n=n, sent=sent: sent.append(n), "queue") for n in range(4)]
        monkeypatch.setattr(scenario, "ACTS", acts)
        monkeypatch.setattr("duroxide.Client", lambda native: native)
        Sender(None, tmp_path / "journal").run()
        assert sent == [0, 1, 2, 3], looks


@pytest.mark.parametrize("bug", sorted(BUGS.keys() - {"lost_lease_ignored"}))  # that one shows where two live at once
def test_a_planted_bug_is_caught(trial: Make, unkilled: Trial, careless: Zygote, bug: str) -> None:
    with pytest.raises(Wrong):
        to_the_end(trial("c", "steps", bug, careless), [], unkilled)
        for point in range(1, MOST_POINTS, 2):
            if to_the_end(trial("c", "steps", bug, careless), [point], unkilled) == 0:
                break
