"""SIGKILL at every commit point on PostgreSQL: the scenario of `test_kill`, the same checks, the same histories as without a death."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.bugs import BUGS
from faults.checks import Wrong
from faults.trial import Zygote
from faults_postgres.kills import Ground, PostgresTrial

from postgres_server import Server
from test_kill import MOST_POINTS, pairs, singles, to_the_end

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    made = Zygote("postgres")
    yield made
    said = made.close()
    assert "Traceback" not in said, said


@pytest.fixture
def careless() -> Iterator[Zygote]:
    """For workers with bugs: what they say does not count."""
    made = Zygote("postgres")
    yield made
    made.close()


@pytest.fixture(scope="module")
def ground(postgres: Server) -> Iterator[Ground]:
    with postgres.schema() as name:
        made = Ground(postgres, name)
        yield made
        made.close()


@pytest.fixture(scope="module")
def unkilled(zygote: Zygote, ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> PostgresTrial:
    trial = PostgresTrial(ground, zygote, tmp_path_factory.mktemp("unkilled") / "0")
    assert trial.run([]) == 0
    return trial


@pytest.fixture
def trial(zygote: Zygote, ground: Ground, tmp_path: Path) -> Any:
    numbers = itertools.count()

    def make(mode: str = "steps", bug: str | None = None, parent: Zygote = zygote, hasty: bool = False) -> PostgresTrial:
        return PostgresTrial(ground, parent, tmp_path / f"{next(numbers)}", mode, bug, hasty)

    return make


@pytest.mark.parametrize("mode", ["steps", "expiry", "threads"])
def test_the_scenario_without_a_kill(trial: Any, unkilled: PostgresTrial, mode: str) -> None:
    assert to_the_end(trial(mode), [], unkilled) == 0


@pytest.mark.parametrize(
    ("mode", "first", "step", "hasty"), [("steps", 3, 25, False), ("steps", 8, 40, True), ("threads", 6, 20, True)]
)
def test_a_kill_at_a_commit_point_loses_nothing(trial: Any, unkilled: PostgresTrial, mode: str, first: int, step: int, hasty: bool) -> None:
    assert singles(lambda: trial(mode, hasty=hasty), unkilled, first, step) > 0


def test_kills_during_the_recovery_lose_nothing(trial: Any, unkilled: PostgresTrial) -> None:
    assert to_the_end(trial("steps"), [20, 9, 4, 1], unkilled) == 4
    assert to_the_end(trial("threads", hasty=True), [11, 4, 3, 2, 1], unkilled) >= 4


@pytest.mark.soak
@pytest.mark.parametrize("hasty", [False, True])
@pytest.mark.parametrize("mode", ["steps", "singly", "expiry", "threads"])
def test_a_kill_at_every_commit_point_loses_nothing(trial: Any, unkilled: PostgresTrial, mode: str, hasty: bool) -> None:
    print(mode, hasty, singles(lambda: trial(mode, hasty=hasty), unkilled, 1, 1), "points")


@pytest.mark.soak
@pytest.mark.parametrize(("step", "third"), [(4, 0), (12, 5)])
def test_kills_at_points_of_the_recovery_lose_nothing(trial: Any, unkilled: PostgresTrial, tmp_path: Path, step: int, third: int) -> None:
    print(pairs(lambda: trial("steps"), unkilled, step, tmp_path, third), "pairs", third)


def caught(trial: Any, unkilled: PostgresTrial, careless: Zygote, bug: str) -> None:
    with pytest.raises(Wrong):
        to_the_end(trial("steps", bug, careless), [], unkilled)
        for point in range(1, MOST_POINTS, 3):
            if to_the_end(trial("steps", bug, careless), [point], unkilled) == 0:
                break


@pytest.mark.parametrize("bug", ["delivered_twice", "messages_later"])
def test_a_planted_bug_is_caught(trial: Any, unkilled: PostgresTrial, careless: Zygote, bug: str) -> None:
    caught(trial, unkilled, careless, bug)


@pytest.mark.soak
@pytest.mark.parametrize("bug", sorted(BUGS.keys() - {"lost_lease_ignored"}))  # that one shows where two live at once
def test_every_planted_bug_is_caught(trial: Any, unkilled: PostgresTrial, careless: Zygote, bug: str) -> None:
    caught(trial, unkilled, careless, bug)
