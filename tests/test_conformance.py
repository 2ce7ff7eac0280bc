"""The conformance suite on every store: memory, SQLite in C and in Python, two providers of one file, and the example store in C.

A store that has the hot verbs alone runs all cases but those of the cold calls and of liveness.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.register_assert_rewrite("duroxide.testing")

from duroxide import testing  # noqa: E402
from duroxide.storage.memory import MemoryStore  # noqa: E402
from duroxide.storage.sqlite import SqliteNative, open_memory, open_sqlite  # noqa: E402
from duroxide.testing.case import COUNT  # noqa: E402

TESTS = Path(__file__).resolve().parent


class Kind(NamedTuple):
    open: Callable[[Path], Any]
    cold: bool = True  # has the cold calls and liveness


class Verbs:
    """What somebody who writes a store begins with."""

    def __init__(self, store: Any) -> None:
        self.exchange, self.load, self.renew, self.close = store.exchange, store.load, store.renew, store.close


class InTurns:
    """Two providers of one file as one store: each call goes through the other one."""

    def __init__(self, *providers: Any) -> None:
        self._providers, self._calls = providers, itertools.count()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._providers[next(self._calls) % len(self._providers)], name)

    def close(self) -> None:
        for provider in self._providers:
            provider.close()


def sqlite(directory: Path, kind: str) -> SqliteNative:
    return open_sqlite(str(directory / "store.db"), synchronous="normal", implementation=kind)


def example(_: Path) -> Any:
    import example_store

    from duroxide.storage._capsule import CapsuleStore

    return CapsuleStore(example_store.module().open_store())


STORES = {
    "memory": Kind(lambda directory: MemoryStore()),
    "sqlite-c": Kind(lambda directory: sqlite(directory, "c")),
    "sqlite-python": Kind(lambda directory: sqlite(directory, "python")),
    "sqlite-in-memory": Kind(lambda directory: open_memory()),
    "sqlite-c-and-python": Kind(lambda directory: InTurns(sqlite(directory, "c"), sqlite(directory, "python"))),
    "verbs-alone": Kind(lambda directory: Verbs(MemoryStore()), cold=False),
}
if (TESTS / "example_store" / "__init__.py").exists():
    STORES["example-c"] = Kind(example, cold=False)

RUNS = [
    pytest.param(kind, case, id=f"{name}-{case.name}")
    for name, kind in STORES.items()
    for case in testing.cases(admin=kind.cold, liveness=kind.cold)
]


@pytest.fixture
def world(kind: Kind, tmp_path: Path) -> Iterator[testing.World]:
    store = kind.open(tmp_path)
    yield testing.World(store)
    store.close()


@pytest.mark.parametrize(("kind", "case"), RUNS)
def test_store(case: testing.Case, world: testing.World) -> None:
    case.run(world)


# ── the list of cases ────────────────────────────────────────────────────────────────────────────────────────────


def test_every_number_of_the_checklist_has_its_case_or_its_place() -> None:
    numbers = [number for case in testing.cases() for number in case.numbers if number]
    assert len(numbers) == len(set(numbers)), "a number has two cases"
    assert sorted([*numbers, *testing.elsewhere()]) == list(range(1, COUNT + 1))


def test_a_case_has_one_number_unless_the_list_says_the_same_twice() -> None:
    assert [case.numbers for case in testing.cases() if len(case.numbers) > 1] == [(142, 143)]


def test_cases_that_lie_elsewhere_are_there() -> None:
    for what, (why, where) in {**testing.elsewhere(), **testing.newer()}.items():
        file, test = where.split("::")
        source = TESTS / file if file.startswith("test_") else Path(testing.__file__).parent / file
        assert why and re.search(rf"def {test}\b", source.read_text()), f"{what}: {where}"


def test_a_store_without_cold_calls_is_spared_nothing_else() -> None:
    spared = {case.name for case in testing.cases()} - {case.name for case in testing.cases(admin=False, liveness=False)}
    assert spared == {case.name for case in testing.cases() if case.needs}
    assert spared >= {"bulk_deletion_filters_by_id_and_time", "ended_empty_sessions_are_swept"}
