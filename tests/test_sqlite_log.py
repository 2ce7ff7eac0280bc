"""Room for the write-ahead log: it is made beside everybody who writes, in this process or another, and changes nothing that is stored."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path

import apsw
import pytest
from faults.outage import checkpointing_often

import duroxide
from duroxide.storage import sqlite, sqlite_log
from duroxide.storage.sqlite import SqliteNative, open_sqlite


def size(path: Path) -> int:
    return os.path.getsize(f"{path}-wal")


def started(native: SqliteNative, count: int, name: str = "i") -> None:
    for n in range(count):
        duroxide.Client(native).start_orchestration(f"{name}{n}", "o")  # type: ignore[arg-type]


def test_the_log_grows_to_its_room_and_no_further(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    native, other = open_sqlite(str(path)), open_sqlite(str(path))
    while native.reserve_log():
        pass
    assert size(path) == sqlite_log.ROOM
    assert not native.reserve_log() and not other.reserve_log()
    started(native, 30)
    assert size(path) == sqlite_log.ROOM
    assert other.queue_depths(1 << 60)["orchestrator_queue"] == 30
    native.close()
    other.close()
    assert not os.path.exists(f"{path}-wal"), "the last one takes it away"


def test_who_does_not_sync_needs_no_room(tmp_path: Path) -> None:
    native = open_sqlite(str(tmp_path / "x.db"), synchronous="normal")
    assert not native.reserve_log() and not open_sqlite(":memory:").reserve_log()
    assert size(tmp_path / "x.db") < sqlite_log.PIECE


def test_what_a_crash_leaves_of_it_is_an_empty_end(tmp_path: Path) -> None:
    """Frames, and room behind them; room, and no frame yet."""
    native = open_sqlite(str(tmp_path / "x.db"))
    started(native, 5)
    assert native.reserve_log()
    for file in ("x.db", "x.db-wal"):
        shutil.copy(tmp_path / file, tmp_path / f"frames-{file}")
    native._cold.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert size(tmp_path / "x.db") == 0
    native._reserves = True
    assert native.reserve_log()
    for file in ("x.db", "x.db-wal"):
        shutil.copy(tmp_path / file, tmp_path / f"none-{file}")
    assert not any((tmp_path / "none-x.db-wal").read_bytes())
    for which in ("frames", "none"):
        found = open_sqlite(str(tmp_path / f"{which}-x.db"))
        assert found._cold.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        started(found, 5, "later")
        assert found.queue_depths(1 << 60)["orchestrator_queue"] == 10
        found.close()
    native.close()


@pytest.mark.parametrize("implementation", ["c", "python"])
def test_others_write_while_room_is_made(tmp_path: Path, implementation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In small pieces, all the time, by another connection; and the log begins again meanwhile."""
    monkeypatch.setattr(sqlite_log, "PIECE", 5_000)
    monkeypatch.setattr(sqlite_log, "ROOM", 1 << 40)
    path = tmp_path / "x.db"
    monkeypatch.setattr(sqlite, "_connect", checkpointing_often(50))
    writer, maker = open_sqlite(str(path), implementation=implementation), open_sqlite(str(path))
    ended, pieces = threading.Event(), [0]

    def make() -> None:
        while not ended.is_set():
            pieces[0] += maker.reserve_log()
            time.sleep(0)

    thread = threading.Thread(target=make)
    thread.start()
    try:
        started(writer, 60)
    finally:
        ended.set()
        thread.join()
    assert pieces[0] > 5
    assert writer._cold.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    shutil.copy(path, tmp_path / "y.db")
    shutil.copy(f"{path}-wal", tmp_path / "y.db-wal")
    for native in (writer, maker, open_sqlite(str(tmp_path / "y.db"))):
        assert native.queue_depths(1 << 60)["orchestrator_queue"] == 60
        native.close()


def test_a_disk_without_room_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    native = open_sqlite(str(tmp_path / "x.db"))
    asked = []

    def full(path: str, vfs: str | None) -> bool:
        asked.append(path)
        raise apsw.FullError("database or disk is full")

    monkeypatch.setattr(sqlite_log, "extend", full)
    assert not native.reserve_log() and not native.reserve_log()
    assert len(asked) == 1, "it is not tried again"
    started(native, 1)
    native.close()
    assert not native.reserve_log()
