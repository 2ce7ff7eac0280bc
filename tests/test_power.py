"""The power goes at any point of a recorded life: what is on the disk is a state that there was, and with FULL none that is too old.

Between two syncs the disk may have any part of what was written, in any order, in sectors of 512 bytes or 4 KiB; new files and deleted
ones may be there or not. The default run takes a fixed sample of cuts; `-m soak` takes more than ten thousand.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults.checks import Wrong
from faults.outage import Outage, Recording, checkpointing_often
from faults.power import HOW, SECTORS

from duroxide.storage import sqlite, sqlite_log

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the scenario reads its ledger through /proc")

Record = Callable[..., Recording]


def with_room(lots: random.Random) -> Any:
    """An `open_sqlite` that makes room for the log, and again between some of the verbs, a bit at a time."""
    open_sqlite = sqlite.open_sqlite

    def opened(path: str, **options: Any) -> Any:
        native = open_sqlite(path, **options)
        exchange = native.exchange

        def exchanging(requests: Any) -> Any:
            if lots.random() < 0.5:
                native.reserve_log()
            return exchange(requests)

        native.reserve_log()
        native.exchange = exchanging
        return native

    return opened


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    def make(
        implementation: str = "c", synchronous: str = "full", lazy: bool = False, pages: int = 40, room: int = 0
    ) -> Recording:
        with monkeypatch.context() as patch:
            if room:  # in small pieces, so that frames, and a log that begins again, meet its end anywhere
                patch.setattr(sqlite_log, "PIECE", 9_000)
                patch.setattr(sqlite_log, "ROOM", room)
                patch.setattr(sqlite, "open_sqlite", with_room(random.Random(room)))
            patch.setattr(sqlite, "_connect", checkpointing_often(pages))
            recording = Recording(tmp_path / "recorded", implementation, synchronous, lazy)
            recording.run()
        return recording

    return make


def outages(recording: Recording, directory: Path, strict: bool, cuts: int, thorough: int = 10**9) -> tuple[int, Counter[int]]:
    """Cut at `cuts` places spread over the tape, every way in turn; how many were cut, how many commits were missing how often."""
    outage, length = Outage(recording, directory, strict), len(recording.tape.ops)
    for n in range(cuts):
        at = (n * length) // cuts + 1
        lots, how, sector = random.Random(n), HOW[n % len(HOW)], SECTORS[n // len(HOW) % 2]
        outage.play(at)
        try:
            outage.check(lots, how, sector, thorough=n % thorough == 0)
        except Wrong as wrong:
            raise Wrong(f"cut {n} of {cuts} (after step {at} of {length}, {how}, sectors of {sector}): {wrong}") from wrong
    return cuts, outage.found


@pytest.mark.parametrize("implementation", ["c", "python"])
def test_what_was_acknowledged_survives_a_power_cut(record: Record, tmp_path: Path, implementation: str) -> None:
    recording = record(implementation)
    syncs = Counter(op.file for op in recording.tape.ops if op.kind == "sync")
    assert syncs["x.db-wal"] > 30 and syncs["x.db"] > 5, syncs  # commits, and checkpoints between them
    assert len(recording.states) > 40
    _, missing = outages(recording, tmp_path / "cut", True, 300 if implementation == "c" else 80)
    assert set(missing) <= {0}


@pytest.mark.parametrize("implementation", ["c", "python"])
def test_what_was_acknowledged_survives_a_power_cut_while_room_is_made(record: Record, tmp_path: Path, implementation: str) -> None:
    recording = record(implementation, room=400_000, pages=60)
    zeros = [op for op in recording.tape.ops if op.kind == "write" and op.file == "x.db-wal" and not any(op.value)]
    assert len(zeros) > 10, "the room of two openings of the file"
    _, missing = outages(recording, tmp_path / "cut", True, 70 if implementation == "c" else 30)
    assert set(missing) <= {0}


def test_a_power_cut_while_the_file_is_made_leaves_one_that_opens(record: Record, tmp_path: Path) -> None:
    """Its first page may be torn: the journal undoes that."""
    recording = record()
    made = next(n for n, op in enumerate(recording.tape.ops) if op.value == "made")
    outage = Outage(recording, tmp_path / "cut", True)
    for cut in range(1, made + 1):
        outage.play(cut)
        for seed in range(3):
            outage.check(random.Random(seed), "torn", 512, thorough=False)


def test_without_full_only_the_tail_is_missing(record: Record, tmp_path: Path) -> None:
    _, missing = outages(record(synchronous="normal", pages=400), tmp_path / "cut", False, 200)
    assert max(missing) > 5  # it is: the test can tell


@pytest.mark.soak
@pytest.mark.parametrize(("implementation", "pages"), [("c", 40), ("c", 4_000), ("python", 12)])
def test_ten_thousand_power_cuts(record: Record, tmp_path: Path, implementation: str, pages: int) -> None:
    recording = record(implementation, pages=pages)
    print(implementation, pages, *outages(recording, tmp_path / "cut", True, 6_000, 20), len(recording.tape.ops), "steps")


@pytest.mark.soak
def test_thousands_of_power_cuts_without_full(record: Record, tmp_path: Path) -> None:
    print(*outages(record(synchronous="normal", pages=150), tmp_path / "cut", False, 4_000))


def test_the_directories_that_are_made_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite syncs the directory of the file, and knows nothing of those above it."""
    synced = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(os.readlink(f"/proc/self/fd/{descriptor}")), sync(descriptor)))
    monkeypatch.chdir(tmp_path)
    sqlite.open_sqlite("a/b/c/x.db").close()
    assert synced == [str(tmp_path), f"{tmp_path}/a", f"{tmp_path}/a/b"]
    sqlite.open_sqlite(f"{tmp_path}/a/b/c/x.db").close()
    assert len(synced) == 3


# ── bugs to be caught ──


def test_a_sync_that_does_nothing_is_caught(record: Record, tmp_path: Path) -> None:
    with pytest.raises(Wrong, match="lost|gone|nothing is there|malformed"):
        outages(record(lazy=True), tmp_path / "cut", True, 60)


def test_a_weaker_setting_is_caught(record: Record, tmp_path: Path) -> None:
    with pytest.raises(Wrong, match="lost|gone|nothing is there"):
        outages(record(synchronous="normal"), tmp_path / "cut", True, 100)
