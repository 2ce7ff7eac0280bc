"""The conformance suite on every implementation: memory, SQLite in C, SQLite in Python, the example store in C."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("duroxide.testing")

from duroxide import testing  # noqa: E402
from duroxide.storage.memory import MemoryStore  # noqa: E402
from duroxide.storage.sqlite import open_memory, open_sqlite  # noqa: E402
from duroxide.testing.case import COUNT  # noqa: E402

TESTS = Path(__file__).resolve().parent
STORES = {
    "memory": lambda directory: MemoryStore(),
    "sqlite-c": lambda directory: open_sqlite(str(directory / "c.db"), synchronous="normal", implementation="c"),
    "sqlite-python": lambda directory: open_sqlite(str(directory / "p.db"), synchronous="normal", implementation="python"),
    "sqlite-in-memory": lambda directory: open_memory(),
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    opened = STORES[request.param](tmp_path)
    yield opened
    opened.close()


@pytest.mark.parametrize("case", testing.cases(), ids=lambda case: case.name)
def test_store(case: testing.Case, store: Any) -> None:
    case.run(testing.World(store))


def test_every_number_of_the_checklist_has_its_case_or_its_place() -> None:
    numbers = [number for case in testing.cases() for number in case.numbers if number]
    assert len(numbers) == len(set(numbers)), "a number has two cases"
    assert sorted([*numbers, *testing.elsewhere()]) == list(range(1, COUNT + 1))


def test_cases_that_lie_elsewhere_are_there() -> None:
    for number, (why, where) in testing.elsewhere().items():
        file, test = where.split("::")
        assert why and re.search(rf"def {test}\b", (TESTS / file).read_text()), f"{number}: {where}"
