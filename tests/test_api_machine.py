"""Users' calls in any order, on every store at once, against the memory model; the doctor looks after every step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from api_machine import World, machine
from faults.bugs import BUGS
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from duroxide.storage.memory import MemoryStore
from duroxide.storage.sqlite import open_sqlite


def live(worlds: Callable[[], list[World]], examples: int, steps: int, **options: Any) -> None:
    """What differs is told call by call, not shortened: that takes minutes."""
    options |= {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck), "phases": [Phase.generate]}
    run_state_machine_as_test(machine(worlds), settings=settings(max_examples=examples, stateful_step_count=steps, **options))


def on_files(directory: Path, bug: str | None = None) -> Callable[[], list[World]]:
    def worlds() -> list[World]:
        made = [World(MemoryStore, False)]
        number = len(list(directory.iterdir()))
        for implementation in ("c", "python"):
            made.append(World(opener(str(directory / f"{number}-{implementation}.db"), implementation, bug), True))
        return made

    return worlds


def opener(path: str, implementation: Any, bug: str | None) -> Callable[[], Any]:
    def opened() -> Any:
        native = open_sqlite(path, synchronous="normal", implementation=implementation)
        if bug is not None:
            native.exchange = BUGS[bug](native.exchange)  # type: ignore[method-assign]
        return native

    return opened


def test_whatever_users_call_every_store_answers_as_the_model_does(tmp_path: Path) -> None:
    live(on_files(tmp_path), 12, 30, derandomize=True)


@pytest.mark.soak
def test_users_call_for_a_long_time(tmp_path: Path) -> None:
    live(on_files(tmp_path), 1_000, 60)


SOAK = pytest.mark.soak


@pytest.mark.parametrize("bug", ["skipped_commit", pytest.param("dropped_message", marks=SOAK), pytest.param("delivered_twice", marks=SOAK)])
def test_a_planted_bug_is_caught(tmp_path: Path, bug: str) -> None:
    with pytest.raises(AssertionError, match="the model|damage"):
        live(on_files(tmp_path, bug), 50, 30, derandomize=True)
