"""Nothing is kept that was given back: every client call, verb, orchestration and cycle of a runtime, in a process of its own, counted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "memory" / "operations.py"
pytestmark = pytest.mark.skipif(not hasattr(sys, "getallocatedblocks"), reason="needs CPython's counters")


def kept(directory: Path, group: str, count: int, implementation: str = "c") -> list[str]:
    """The operations that keep something."""
    command = [sys.executable, str(SCRIPT), group, str(count), str(directory / "x.db"), implementation]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1_200)
    assert done.returncode == 0, done.stderr[-3_000:]
    *found, last = done.stdout.splitlines()
    assert last.startswith("done ")
    return found


@pytest.mark.parametrize(("group", "count"), [("calls", 10), ("verbs", 60), ("flows", 6), ("cycles", 4)])
def test_nothing_is_kept(tmp_path: Path, group: str, count: int) -> None:
    assert kept(tmp_path, group, count) == []


@pytest.mark.soak
@pytest.mark.parametrize(("group", "count"), [("calls", 2_000), ("verbs", 5_000), ("flows", 500), ("cycles", 100)])
@pytest.mark.parametrize("implementation", ["c", "python"])
def test_nothing_is_kept_in_the_long_run(tmp_path: Path, implementation: str, group: str, count: int) -> None:
    assert kept(tmp_path, group, count, implementation) == []


def test_leaks_are_seen(tmp_path: Path) -> None:
    found = kept(tmp_path, "planted", 60)
    assert [line.split(":")[0] for line in found] == ["a reference too many", "a list that grows", "memory that nobody frees"]
