"""Owners of leases: each is alive as long as its process holds its file beside the database locked, and not a moment longer."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from duroxide.storage import liveness
from duroxide.storage.base import Appetite, Done, Request
from duroxide.storage.liveness import Owners
from duroxide.storage.sqlite import open_sqlite

PATIENCE_S = 30.0
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture
def owners(tmp_path: Path) -> Owners:
    return Owners(str(tmp_path / "x.db"))


def names(owners: Owners) -> list[str]:
    return sorted(os.listdir(owners.directory)) if os.path.isdir(owners.directory) else []


def dead(owners: Owners) -> list[str]:
    with owners.dead() as found:
        return sorted(found)


SAY_AND_WAIT = "\nprint('ready', flush=True)\nsys.stdin.readline()\n"


@pytest.fixture
def process() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts Python on a piece of code and returns when it has got to its end; there it waits for a line, or its death."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "ignore", "-c", "import os, sys, time\n" + code + SAY_AND_WAIT, *arguments]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=PATIENCE_S)


def end(process: subprocess.Popen[str], how: str) -> None:
    """The process ends: killed, by itself, or with the interpreter's orderly shutdown."""
    if how == "kill":
        process.kill()
    process.communicate("end\n", timeout=PATIENCE_S)


ANNOUNCE = "from duroxide.storage.liveness import Owners\nwithdraw = Owners(sys.argv[1]).announce(sys.argv[2])\n"


# ── one process ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_owner_has_a_file_until_it_withdraws(owners: Owners) -> None:
    withdraw, other = owners.announce("a"), owners.announce("b")
    assert names(owners) == ["a", "b"] and dead(owners) == []
    withdraw()
    withdraw()
    assert names(owners) == ["b"]
    other()
    assert not os.path.exists(owners.directory), "the last one puts out the light"


def test_looking_does_not_unlock_what_this_process_holds(
    owners: Owners, tmp_path: Path, process: Callable[..., subprocess.Popen[str]]
) -> None:
    """POSIX drops all of a process's locks on a file with the first of its descriptors that closes."""
    withdraw = owners.announce("a")
    assert dead(owners) == []
    code = "from duroxide.storage.liveness import Owners\nwith Owners(sys.argv[1]).dead() as found: print(found, file=sys.stderr)"
    other = subprocess.run([sys.executable, "-c", "import sys\n" + code, str(tmp_path / "x.db")], capture_output=True, text=True)
    assert other.stderr == "[]\n"
    withdraw()


def test_a_name_that_is_taken_is_an_error_and_leaves_its_holder(owners: Owners) -> None:
    withdraw = owners.announce("a")
    with pytest.raises(FileExistsError):
        owners.announce("a")
    assert names(owners) == ["a"] and dead(owners) == []
    withdraw()


def test_two_paths_of_one_file_have_the_same_owners(owners: Owners, tmp_path: Path) -> None:
    (tmp_path / "x.db").touch()
    (tmp_path / "link.db").symlink_to(tmp_path / "x.db")
    assert Owners(str(tmp_path / "link.db")).directory == Owners(f"{tmp_path}/y/../x.db").directory == owners.directory


def test_nobody_is_dead_where_nobody_was(owners: Owners) -> None:
    assert dead(owners) == [] and not os.path.exists(owners.directory)


def test_coming_and_going_while_others_look_harms_nobody(owners: Owners) -> None:
    """Threads announce and withdraw while others look for the dead: none of them is ever found dead."""
    found: list[str] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            found.extend(dead(owners))

    def live(n: int) -> None:
        for k in range(150):
            owners.announce(f"{n}-{k}")()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        watchers = [threading.Thread(target=look) for _ in range(2)]
        lives = [threading.Thread(target=live, args=(n,)) for n in range(3)]
        for thread in watchers + lives:
            thread.start()
        for thread in lives:
            thread.join(PATIENCE_S)
    finally:
        sys.setswitchinterval(interval)
        over.set()
    for thread in watchers:
        thread.join(PATIENCE_S)
    assert found == [] and names(owners) == []


def test_a_look_between_making_and_locking_the_file_does_not_take_it(owners: Owners, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = liveness._lock
    looks: list[list[str]] = []

    def slow(descriptor: int) -> None:
        looks.append(dead(owners))
        lock(descriptor)

    monkeypatch.setattr(liveness, "_lock", slow)
    withdraw = owners.announce("a")
    assert looks == [[]] and names(owners) == ["a"]
    withdraw()


def test_where_nothing_can_be_locked_it_is_said_and_nobody_is_taken_for_dead(
    owners: Owners, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    os.makedirs(owners.directory)
    Path(owners.directory, "somebody").touch()
    monkeypatch.setattr(liveness, "_lock", refuse)
    with pytest.raises(OSError, match="No locks available"):
        owners.announce("a")
    assert names(owners) == ["somebody"] and dead(owners) == []


# ── other processes ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["kill", "end"])
def test_the_owner_of_a_process_lives_and_dies_with_it(
    owners: Owners, tmp_path: Path, process: Callable[..., subprocess.Popen[str]], how: str
) -> None:
    other = process(ANNOUNCE, str(tmp_path / "x.db"), "theirs")
    assert dead(owners) == [] and names(owners) == ["theirs"]
    end(other, how)
    assert dead(owners) == ["theirs"]
    assert names(owners) == [] and dead(owners) == [], "it is forgotten"


def test_a_dead_owner_is_for_one_finder_only_and_stays_if_that_fails(
    owners: Owners, tmp_path: Path, process: Callable[..., subprocess.Popen[str]]
) -> None:
    end(process(ANNOUNCE, str(tmp_path / "x.db"), "theirs"), "kill")
    take = "from duroxide.storage.liveness import Owners\nd = Owners(sys.argv[1]).dead()\nassert d.__enter__() == ['theirs']"
    finder = process(take, str(tmp_path / "x.db"))
    assert dead(owners) == [], "somebody else is at it"
    end(finder, "kill")
    with pytest.raises(RuntimeError, match="database"), owners.dead() as found:
        assert found == ["theirs"]
        raise RuntimeError("the database did not take it")
    assert dead(owners) == ["theirs"]


FORK = """
child = os.fork()
if child == 0:
    os.close(1)
    time.sleep(60)
    os._exit(0)
print(child, file=sys.stderr)
"""


@needs_fork
def test_a_forked_child_does_not_keep_its_parent_alive(
    owners: Owners, tmp_path: Path, process: Callable[..., subprocess.Popen[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    parent = process(ANNOUNCE + FORK, str(tmp_path / "x.db"), "theirs")
    child = int(capfd.readouterr().err)
    try:
        assert dead(owners) == []
        end(parent, "kill")
        os.kill(child, 0)
        assert dead(owners) == ["theirs"], "its child has the descriptor still open"
    finally:
        os.kill(child, signal.SIGKILL)


IN_CHILD = """
def in_child(work):
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

owners = Owners(sys.argv[1])
def look():
    with owners.dead() as found:
        assert found == [], found
in_child(withdraw)
in_child(look)
in_child(lambda: owners.announce("child"))
"""


@needs_fork
def test_a_forked_child_cannot_end_its_parent(
    owners: Owners, tmp_path: Path, process: Callable[..., subprocess.Popen[str]]
) -> None:
    """It withdraws what it inherited, looks for the dead, announces an owner of its own: the parent's stays."""
    process(ANNOUNCE + IN_CHILD, str(tmp_path / "x.db"), "theirs")
    assert names(owners) == ["child", "theirs"]
    assert dead(owners) == ["child"]


@needs_fork
def test_a_fork_while_another_thread_announces_leaves_the_child_able_to(
    tmp_path: Path, process: Callable[..., subprocess.Popen[str]]
) -> None:
    code = (
        "import threading\nfrom duroxide.storage import liveness\nowners = liveness.Owners(sys.argv[1])\n"
        "held, go = threading.Event(), threading.Event()\n"
        "def hold():\n    with liveness._guard:\n        held.set()\n        go.wait()\n"
        "thread = threading.Thread(target=hold)\nthread.start()\nheld.wait()\nchild = os.fork()\n"
        "if child == 0:\n    owners.announce('a')()\n    os._exit(7)\n"
        "go.set()\nthread.join()\nassert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7\n"
    )
    end(process(code, str(tmp_path / "x.db")), "end")


# ── what a provider makes of it ──────────────────────────────────────────────────────────────────────────────────

CLAIM = """
from duroxide.storage.base import Appetite, Done, Request
from duroxide.storage.sqlite import open_sqlite
native = open_sqlite(sys.argv[1])
withdraw = native.announce("theirs")
assert len(native.exchange([Request(1_000, None, Appetite("theirs", turns=1, lease_ms=10**9))])[0].turns) == 1
"""


@pytest.mark.parametrize("implementation", ["c", "python"])
def test_leases_of_a_killed_process_are_freed_at_once_and_those_of_a_live_one_never(
    tmp_path: Path, process: Callable[..., subprocess.Popen[str]], implementation: str
) -> None:
    native = open_sqlite(str(tmp_path / "x.db"), implementation=implementation)
    done = Done()
    done.messages = [("i", '{"StartOrchestration":{"instance":"i"}}', 0)]
    native.exchange([Request(1_000, done)])
    other = process(CLAIM, str(tmp_path / "x.db"))

    def claim() -> Any:
        return native.exchange([Request(1_000, None, Appetite("mine", turns=1))])[0].turns

    assert native.reclaim(1_000) == 0 and claim() == []
    end(other, "kill")
    assert native.reclaim(1_000) > 0 and [turn.instance for turn in claim()] == ["i"]
    assert native.reclaim(1_000) == 0
    native.close()


def test_the_leases_of_an_owner_with_a_longer_name_stay(tmp_path: Path) -> None:
    native = open_sqlite(str(tmp_path / "x.db"))
    done = Done()
    done.messages = [(name, '{"StartOrchestration":{}}', 0) for name in ("i", "j")]
    native.exchange([Request(1, done)])
    for owner in ("a", "ab"):
        assert len(native.exchange([Request(1, None, Appetite(owner, turns=1))])[0].turns) == 1
    withdraw = native.announce("ab")
    Path(f"{tmp_path}/x.db-owners/a").touch()  # left by a process that is gone
    native.reclaim(1)
    assert [token.split(":")[0] for (token,) in native._cold.execute("SELECT lock_token FROM instance_locks")] == ["lock_ab"]
    withdraw()
    native.close()


def test_a_directory_that_cannot_be_made_is_said_and_hinders_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    native = open_sqlite(str(tmp_path / "x.db"))
    (tmp_path / "x.db-owners").write_text("in the way")
    with caplog.at_level(logging.WARNING, "duroxide"):
        withdraw = native.announce("a")
    assert "x.db-owners: leases of this process end only by time after a crash" in caplog.text
    withdraw()
    assert native.reclaim(1) == 0
    native.close()
