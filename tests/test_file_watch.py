"""Whoever waits for a file is woken by whoever writes to it, and a queue that is left alone asks nobody anything."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import duroxide
from duroxide.storage._queue import Queue
from duroxide.storage.base import Appetite
from duroxide.storage.file_watch import FileWatch
from duroxide.storage.memory import MemoryStore
from duroxide.storage.sqlite import open_sqlite

PATIENCE_S = 20.0
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="inotify is Linux's")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@linux
def test_a_write_wakes_who_waits_and_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"a")
    watch = FileWatch(str(tmp_path / "x"))
    assert not watch.wait(PATIENCE_S), "it is set, and nothing was written since"
    assert not watch.wait(0)
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(watch.wait(PATIENCE_S)))
    thread.start()
    with open(tmp_path / "x", "r+b") as file:
        file.write(b"b")
    thread.join()
    assert found == [True]
    with open(tmp_path / "x", "r+b") as file:
        file.write(b"c")
    assert not watch.wait(PATIENCE_S) and not watch.wait(0), "not watched, so nobody was told"


@linux
def test_a_file_that_is_not_there_cannot_be_watched(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileWatch(str(tmp_path / "x")).wait(0)


@linux
def test_a_sleeper_is_woken_by_another_store_however_seldom_it_would_ask(tmp_path: Path) -> None:
    ours, theirs = open_sqlite(str(tmp_path / "x.db")), open_sqlite(str(tmp_path / "x.db"))
    rested: list[Any] = []
    rest = ours.rest
    ours.rest = lambda seconds: rested.append(rest(PATIENCE_S)) or rested[-1]  # type: ignore[method-assign,func-returns-value]
    queue = Queue.of(ours)
    queue.poll_ms = 60_000
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(queue.take(Appetite("o", turns=1), PATIENCE_S)))
    thread.start()
    until(lambda: rested == [False])  # the watch is set
    duroxide.Client(theirs).start_orchestration("i", "o")  # type: ignore[arg-type]
    thread.join()
    assert rested[:2] == [False, True]
    assert found[0] is None or [turn.instance for turn in found[0].turns] == ["i"]
    assert queue.generation == 1
    ours.close()
    theirs.close()
    assert ours.rest(0) is None


class Quiet(MemoryStore):
    """Counts how often it is asked; `answer` is what its `rest` says, after the time that it was to sleep."""

    def __init__(self, answer: bool | None) -> None:
        super().__init__()
        self.asked = self.rests = 0
        self.answer, self.going = answer, threading.Event()

    def version(self) -> int:
        self.asked += 1
        return 0

    def rest(self, seconds: float) -> bool | None:
        self.rests += 1
        if self.answer is not None:
            self.going.wait(PATIENCE_S)
        return self.answer


@pytest.mark.parametrize("answer", [False, None])
def test_a_calm_queue_rests_where_it_can(answer: bool | None) -> None:
    store = Quiet(answer)
    queue = Queue.of(store)
    queue.poll_ms = 10
    with queue.watch("i") as watch:
        thread = threading.Thread(target=lambda: watch.wait(PATIENCE_S))
        thread.start()
        until(lambda: store.rests == 1)
        asked = store.asked
        if answer is None:
            until(lambda: store.asked > asked + 3)
            assert store.rests == 1, "it asks as before, and does not try again"
        else:
            assert store.asked == asked
        queue.touch()
        thread.join()
    store.going.set()


def test_where_the_system_does_not_tell_the_store_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: str) -> FileWatch:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(duroxide.storage.sqlite, "FileWatch", refused)
    native = open_sqlite(str(tmp_path / "x.db"))
    assert native.rest(PATIENCE_S) is None
    native.close()
