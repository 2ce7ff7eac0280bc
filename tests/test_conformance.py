"""The conformance suite on every store: memory, SQLite in C and in Python, two providers of one file, PostgreSQL, and the example in C.

A store that has the hot verbs alone runs all cases but those of the cold calls and of liveness.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.register_assert_rewrite("duroxide.testing")

import engine_harness  # noqa: E402
import example_store  # noqa: E402

from duroxide import testing  # noqa: E402
from duroxide.events import external_item, start_item  # noqa: E402
from duroxide.storage._queue import Queue  # noqa: E402
from duroxide.storage.base import Appetite, Done, Request  # noqa: E402
from duroxide.storage.memory import MemoryStore  # noqa: E402
from duroxide.storage import postgres_schema_sql  # noqa: E402
from duroxide.storage.postgres import PostgresNative, open_postgres  # noqa: E402
from duroxide.storage.sqlite import SqliteNative, open_memory, open_sqlite  # noqa: E402
from duroxide.testing.case import COUNT  # noqa: E402
from duroxide.testing.world import item  # noqa: E402
from postgres_server import Server  # noqa: E402

TESTS = Path(__file__).resolve().parent


class Kind(NamedTuple):
    open: Callable[[Any], Any]  # of a directory, or of a server
    cold: bool = True  # has the cold calls and liveness
    server: bool = False  # needs a PostgreSQL server


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


_SCHEMA = f"dx_conformance_{os.getpid()}"
_providers: dict[tuple[str, int], PostgresNative] = {}


def postgres_store(server: Server, number: int = 0) -> PostgresNative:
    """One for all cases, which each find it empty: a schema takes longer to make than a case to run."""
    if (server.url, number) not in _providers:
        _providers[server.url, number] = open_postgres(server.url, _SCHEMA)
    return _providers[server.url, number]


def emptied(server: Server, store: PostgresNative) -> Any:
    tables = ", ".join(f"{_SCHEMA}.{table}" for table in postgres_schema_sql.TABLES)
    server.execute(f"TRUNCATE {tables}")
    return StaysOpen(store)


class StaysOpen:
    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module", autouse=True)
def schema_is_dropped() -> Iterator[None]:
    yield
    for (url, _), provider in _providers.items():
        provider.close()
        Server(url).execute(f"DROP SCHEMA IF EXISTS {_SCHEMA} CASCADE")
    _providers.clear()


STORES: dict[str, Kind] = {
    "memory": Kind(lambda directory: MemoryStore()),
    "sqlite-c": Kind(lambda directory: sqlite(directory, "c")),
    "sqlite-python": Kind(lambda directory: sqlite(directory, "python")),
    "sqlite-in-memory": Kind(lambda directory: open_memory()),
    "sqlite-c-and-python": Kind(lambda directory: InTurns(sqlite(directory, "c"), sqlite(directory, "python"))),
    "verbs-alone": Kind(lambda directory: Verbs(MemoryStore()), cold=False),
    "example-c": Kind(lambda directory: example_store.open_store(), cold=False),
    "postgres": Kind(lambda server: emptied(server, postgres_store(server)), server=True),
    "postgres-twice": Kind(lambda server: InTurns(emptied(server, postgres_store(server)), StaysOpen(postgres_store(server, 1))), server=True),
}

RUNS = [
    pytest.param(kind, case, id=f"{name}-{case.name}")
    for name, kind in STORES.items()
    for case in testing.cases(admin=kind.cold, liveness=kind.cold)
]


@pytest.fixture
def world(kind: Kind, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[testing.World]:
    store = kind.open(request.getfixturevalue("postgres") if kind.server else tmp_path)
    yield testing.World(store)
    store.close()


@pytest.mark.parametrize(("kind", "case"), RUNS)
def test_store(case: testing.Case, world: testing.World) -> None:
    case.run(world)


# What was found after the list was numbered: property -> (where it belongs, the case of this package or the test that shows it).
STORE = "what is stored is the store's"
ENGINE = "starts and what successors carry are the engine's"
NEWER = {
    "giving back with a delay leaves later rows alone": (STORE, "leases.py::giving_back_with_a_delay_hides_only_what_was_claimed"),
    "stored events are kept whole, foreign stamps too": (STORE, "queues.py::stored_event_texts_are_kept_to_the_byte"),
    "a duplicate start changes nothing": (
        ENGINE, "test_succession.py::test_a_duplicate_start_changes_neither_code_nor_version_nor_input",
    ),
    "a duplicate start does not replace a successor's": (
        ENGINE, "test_succession.py::test_a_duplicate_start_does_not_replace_that_of_the_successor",
    ),
    "a parent that collides with a successor is told": (
        ENGINE, "test_succession.py::test_a_parent_that_wants_the_id_of_a_successor_is_told",
    ),
    "inputs wait for a hidden successor, what is carried comes first": (
        ENGINE, "test_succession.py::test_inputs_wait_for_a_successor_that_a_delay_hides_and_come_after_what_it_carries",
    ),
    "inputs between two executions reach the next once": (
        ENGINE, "test_succession.py::test_what_comes_between_two_executions_reaches_the_next_once",
    ),
    "so does a cancellation": (ENGINE, "test_succession.py::test_a_cancellation_between_two_executions_reaches_the_next"),
    "exactly what was not read is carried, wherever it stood": (
        ENGINE, "test_succession.py::test_the_successor_carries_what_was_not_read_wherever_it_stood",
    ),
    "what the loser of a race could have had is carried": (
        ENGINE, "test_succession.py::test_the_successor_carries_what_the_loser_of_a_race_could_have_had",
    ),
    "races of queues replay as they ran": (
        ENGINE, "test_succession.py::test_races_of_queues_replay_as_they_ran_under_the_stamp_of_the_reference",
    ),
}  # fmt: skip


# ── the list of cases ────────────────────────────────────────────────────────────────────────────────────────────


def test_every_number_of_the_checklist_has_its_case_or_its_place() -> None:
    numbers = [number for case in testing.cases() for number in case.numbers if number]
    assert len(numbers) == len(set(numbers)), "a number has two cases"
    assert sorted([*numbers, *testing.elsewhere()]) == list(range(1, COUNT + 1))


def test_a_case_has_one_number_unless_the_list_says_the_same_twice() -> None:
    assert [case.numbers for case in testing.cases() if len(case.numbers) > 1] == [(142, 143)]


def test_cases_that_lie_elsewhere_are_there() -> None:
    for what, (why, where) in {**testing.elsewhere(), **NEWER}.items():
        file, test = where.split("::")
        source = TESTS / file if file.startswith("test_") else Path(testing.__file__).parent / file
        assert why and re.search(rf"def {test}\b", source.read_text()), f"{what}: {where}"


def test_a_store_without_cold_calls_is_spared_nothing_else() -> None:
    spared = {case.name for case in testing.cases()} - {case.name for case in testing.cases(admin=False, liveness=False)}
    assert spared == {case.name for case in testing.cases() if case.needs}
    assert spared >= {"bulk_deletion_filters_by_id_and_time", "ended_empty_sessions_are_swept"}


def test_cases_refuse_to_pass_without_their_asserts() -> None:
    run = subprocess.run([sys.executable, "-O", "-c", "import duroxide.testing as t; t.cases()"], capture_output=True, text=True)
    assert run.returncode == 1 and "without python -O" in run.stderr


# ── what has no test elsewhere and is not a store's ──────────────────────────────────────────────────────────────


def test_a_take_that_is_woken_for_nothing_keeps_its_end() -> None:
    """Whatever others write meanwhile, and however far the next message lies."""
    queue, now = Queue.of(MemoryStore()), 1_000
    handed = Done()
    handed.messages = [("i", item("StartOrchestration", "i"), 0), ("j", item("StartOrchestration", "j"), now + 3_600_000)]
    queue.submit(Request(now, handed, Appetite("other", turns=1)))
    taken: list[Any] = []
    taker = threading.Thread(target=lambda: taken.append(queue.take(Appetite("o", turns=1), 0.05, None, lambda: now)))
    taker.start()
    while taker.is_alive():
        handed = Done()
        handed.messages = [("i", item("QueueMessage", "i"), 0)]
        queue.submit(Request(now, handed))
    assert taken == [None]


def test_each_look_at_unreadable_history_is_an_attempt() -> None:
    world = engine_harness.World(live=False)
    world.orchestration(lambda ctx, input: (yield ctx.wait_for_event("never")), "main")
    world.send(start_item("i", "main", "1"))
    world.run()
    world.rows["i"].histories[1][0] = (1, "OrchestrationStarted", "{broken")
    world.send(external_item("i", "x", "1"))
    for attempts in (1, 2, 3):
        world.turn("i")
        assert (world.outcomes[-1], world.attempts["i"]) == ("back", attempts)
