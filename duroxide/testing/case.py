"""The list of conformance cases: what every store has to do, one function a case, by the number in the contract's checklist.

Owns the registration. Refuses to know what the cases check; those stand in the modules of this package, by area.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from duroxide.testing.world import World

AREAS = (
    "commits", "leases", "queues", "sessions", "routing", "cancelling", "status", "values", "administration", "removal",
)  # fmt: skip
COUNT = 213  # numbers of the checklist

Function = TypeVar("Function", bound=Callable[[World], None])


@dataclass(frozen=True)
class Case:
    """`numbers`: of the checklist (0: beyond it). `needs`: "admin" for the cold calls, "liveness" for sweep and reclaim."""

    name: str
    numbers: tuple[int, ...]
    needs: str | None
    run: Callable[[World], None]


_cases: dict[str, Case] = {}


def case(*numbers: int, needs: str | None = None) -> Callable[[Function], Function]:
    """Registers a function as a case; its name says the property."""

    def register(function: Function) -> Function:
        assert function.__name__ not in _cases, f"two cases are named {function.__name__}"
        _cases[function.__name__] = Case(function.__name__, numbers or (0,), needs, function)
        return function

    return register


def admin(*numbers: int) -> Callable[[Function], Function]:
    """A case of the cold calls."""
    return case(*numbers, needs="admin")


def cases(*, admin: bool = True, liveness: bool = True) -> list[Case]:
    """All cases that a store with, or without, the cold calls and the liveness calls has to pass."""
    if not __debug__:
        raise RuntimeError("the cases are made of assert statements: run them without python -O")
    for area in AREAS:
        importlib.import_module(f"duroxide.testing.{area}")
    lacking = {name for name, there in (("admin", admin), ("liveness", liveness)) if not there}
    return [case for case in _cases.values() if case.needs not in lacking]


_DECODES = "a store decodes no events: the engine does"
# Numbers whose property is not a store's here: what has it instead, and the test that shows it.
_ELSEWHERE = {
    59: ("a store never waits: the queue does", "test_queue.py::test_a_take_without_patience_returns_at_once"),
    60: ("a store never waits: the queue does", "test_queue.py::test_a_take_waits_as_long_as_it_was_told"),
    61: ("a store never waits: the queue does", "test_conformance.py::test_a_take_that_is_woken_for_nothing_keeps_its_end"),
    112: ("filters are the runtime's", "test_runtime_routing.py::test_runtimes_with_tag_filters_share_the_work_by_tag"),
    145: (_DECODES, "test_conformance.py::test_each_look_at_unreadable_history_is_an_attempt"),
    146: (_DECODES, "test_engine_history.py::test_unreadable_history_waits_then_poisons_with_an_id_of_its_own"),
}


def elsewhere() -> dict[int, tuple[str, str]]:
    """Number -> (why a store has no such case, the test of ours that covers it)."""
    return dict(_ELSEWHERE)
