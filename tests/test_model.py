"""The memory model, the store in C and the store in Python answer alike, whatever is done to them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import example_store
import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st
from lives import Life
from parties import Party

from duroxide.storage.memory import MemoryStore
from duroxide.storage.sqlite import open_sqlite


def lives(parties: Callable[[], list[Party]], examples: int, steps: int, cold: bool = True, **options: Any) -> None:
    """Lets that many random lives pass. One that shows a difference is told step by step, not shortened: that takes minutes."""
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    options |= {"deadline": None, "database": None, "suppress_health_check": checks, "phases": [Phase.generate]}

    @settings(max_examples=examples, **options)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        with contextlib.ExitStack() as opened:
            stores = parties()
            for party in stores:
                opened.callback(party.close)
            Life(stores, data.draw, cold).live(steps)

    run()


def in_memory() -> list[Party]:
    return [Party(MemoryStore()), *(Party(open_sqlite(":memory:", implementation=kind)) for kind in ("c", "python"))]


def by_a_third_party() -> list[Party]:
    return [Party(MemoryStore()), Party(example_store.open_store())]


def on_files(directory: Path) -> list[Party]:
    """Two providers of each file that take turns, and one file that the store in C and the one in Python share."""
    number = len(list(directory.iterdir()))
    parties = [Party(MemoryStore())]
    for kinds in (("c", "c"), ("c", "python")):
        path = directory / f"{number}-{'-'.join(kinds)}.db"
        parties.append(Party(*(open_sqlite(str(path), synchronous="normal", implementation=kind) for kind in kinds)))
    return parties


def test_stores_answer_alike_whatever_is_done() -> None:
    lives(in_memory, 40, 40, derandomize=True)


def test_providers_that_share_a_file_answer_as_one_store(tmp_path: Path) -> None:
    lives(lambda: on_files(tmp_path), 12, 40, derandomize=True)


def test_the_example_store_answers_as_the_model_does() -> None:
    lives(by_a_third_party, 30, 40, cold=False, derandomize=True)


@pytest.mark.soak
def test_stores_answer_alike_for_a_long_time(tmp_path: Path) -> None:
    lives(in_memory, 2_000, 100)
    lives(by_a_third_party, 2_000, 100, cold=False)
    lives(lambda: on_files(tmp_path), 300, 100)
