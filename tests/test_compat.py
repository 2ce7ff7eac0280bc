"""Files that the reference left in mid-flight are finished here as it would have finished them, and the other way round.

The default run takes the files in compat/fixtures. `-m oracle` runs the reference itself, in environments of its own, and hands files
over in both directions: DUROXIDE_ORACLE and DUROXIDE_ORACLE_0_1_24 are pythons that have duroxide 0.2.2 and 0.1.24.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import pytest
from compat import matrix, record
from compat.matrix import OURS, File, Journey
from compat.state import STATES, State
from golden import store


def test_there_are_states_of_every_kind() -> None:
    assert len(STATES) >= 80
    assert all(cls.__doc__ for cls in STATES.values())


# ── files that are in the repository ──


def rest_of(name: str, tmp_path: Path, implementation: str) -> Journey:
    riders = [*record.FIXTURES[name][0], OURS]
    states = matrix.states_for(riders[:-1])
    return Journey(File(record.unpack(name, tmp_path)), riders, states, tmp_path, environment={"COMPAT_IMPLEMENTATION": implementation})


@pytest.mark.parametrize("implementation", ["c", "python"])
@pytest.mark.parametrize("name", record.FIXTURES)
def test_a_file_that_was_left_is_finished_as_the_reference_finished_it(name: str, implementation: str, tmp_path: Path) -> None:
    journey = rest_of(name, tmp_path, implementation)
    found = journey.run(first=len(journey.riders) - 1)
    assert matrix.differing(record.expected(name), found) == {}


def test_what_is_lost_from_a_file_is_seen(tmp_path: Path) -> None:
    journey = rest_of("0.2.2", tmp_path, "c")
    journey.store.change(
        [
            "DELETE FROM orchestrator_queue WHERE id = (SELECT id FROM orchestrator_queue WHERE instance_id = 'queue_unfetched' LIMIT 1)",
            "UPDATE kv_delta SET value = '7' WHERE instance_id = 'kv' AND key = 'k0'",
            "UPDATE worker_queue SET attempt_count = 0",
        ]
    )
    journey.environment["COMPAT_PATIENCE_S"] = "1.5"
    with pytest.raises(AssertionError, match=r"still running: .*queue_unfetched"):
        journey.run(first=1)
    lost = matrix.differing(record.expected("0.2.2"), store.instances(journey.store.rows))
    assert set(lost) == {"activity_poison", "kv", "queue_unfetched"}


# ── the reference itself ──

HANDOVERS: list[tuple[list[str], list[str]]] = [
    (["0.1.24", OURS], ["0.1.24", "0.2.2"]),
    (["0.2.2", OURS], ["0.2.2", "0.2.2"]),
    ([OURS, "0.2.2"], ["0.2.2", "0.2.2"]),
    (["0.2.2", OURS, "0.2.2", OURS, "0.2.2"], ["0.2.2"] * 5),
    ([OURS, "0.2.2", OURS, "0.2.2", OURS], ["0.2.2"] * 5),
    (["0.1.24", OURS, "0.2.2", OURS, "0.2.2"], ["0.1.24", *["0.2.2"] * 4]),
]


@functools.cache
def alone(riders: tuple[str, ...], states: tuple[str, ...], scratch: Path) -> dict[str, matrix.Found]:
    return matrix.comparable(record.undisturbed(list(riders), list(states), scratch))


def undisturbed(riders: list[str], states: list[str], factory: pytest.TempPathFactory) -> dict[str, matrix.Found]:
    return alone(tuple(riders), tuple(states), factory.getbasetemp())


def handed_over(riders: list[str], states: list[str], tmp_path: Path, **how: Any) -> matrix.Found:
    """A journey; again if the reference failed by its own locks (see `locked_out`)."""
    for attempt in range(5):
        directory = tmp_path / str(attempt)
        directory.mkdir()
        found = Journey(File(directory / "handed.db"), riders, states, directory, **how).run()
        if not matrix.locked_out(found):
            return found
    raise AssertionError("the reference fails every time with a locked database")


def check(wanted: dict[str, matrix.Found], found: matrix.Found, riders: list[str], states: list[str]) -> None:
    wrong = matrix.differing(wanted, found)
    print(f"{' -> '.join(riders)}: {len(states) - len(wrong)} of {len(states)} states right, {len(found)} instances")
    assert wrong == {}


def needs(riders: list[str]) -> None:
    if "0.1.24" in riders and "DUROXIDE_ORACLE_0_1_24" not in os.environ:
        pytest.skip("needs duroxide 0.1.24 in an environment of its own (DUROXIDE_ORACLE_0_1_24=path of its python)")


@pytest.mark.oracle
@pytest.mark.parametrize(("riders", "instead"), HANDOVERS, ids=lambda riders: "-".join(riders))
def test_every_state_ends_as_if_nobody_had_taken_over(
    riders: list[str], instead: list[str], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    needs(riders)
    states = matrix.states_for(riders)
    check(undisturbed(instead, states, tmp_path_factory), handed_over(riders, states, tmp_path), riders, states)


@pytest.mark.oracle
@pytest.mark.parametrize(("riders", "instead"), HANDOVERS[:3], ids=lambda riders: "-".join(riders))
def test_a_file_that_nobody_touched_between_two_legs_is_taken_over_in_real_time(
    riders: list[str], instead: list[str], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With the log as the kill left it, leases that still run, and timers of eight seconds."""
    needs(riders)
    states = [name for name in matrix.states_for(riders) if STATES[name].doctored is State.doctored]
    found = handed_over(riders, states, tmp_path, touched=False, hour_ms=8_000)
    wanted = undisturbed(instead, matrix.states_for(riders), tmp_path_factory)
    check({name: wanted[name] if name in states else {} for name in wanted}, found, riders, states)
