"""The C boundary: sizes and places that are promised, what a capsule must be, text, errors, memory, and that the C compiles clean."""

from __future__ import annotations

import ctypes
import gc
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest
from bare_store import NOW, Bare, born, connect, handed, item, start, turn, work

from duroxide.storage import _sqlite
from duroxide.storage._capsule import CapsuleStore
from duroxide.storage.base import OK, AnswerLost, Appetite, Renewal, Request, StoreError, Taken, TurnBack, WorkBack, WorkDone
from duroxide.storage.sqlite_sql import HOT

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"
CC = (sysconfig.get_config_var("CC") or "cc").split()[0]
needs_cc = pytest.mark.skipif(shutil.which(CC) is None, reason="no C compiler")


def compile_c(tmp_path: Path, source: str, *flags: str) -> str:
    """Compiles and runs a program; returns what it printed."""
    code, program = tmp_path / "program.c", tmp_path / "program"
    code.write_text(source)
    built = subprocess.run([CC, "-std=c11", f"-I{CSRC}", *flags, str(code), "-o", str(program)], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout


# ── what is promised ─────────────────────────────────────────────────────────────────────────────────────────

SIZES = {
    "dx_str": 16, "dx_error": 512, "dx_work_out": 136, "dx_work_key": 24, "dx_activity_key": 32, "dx_event": 40, "dx_message": 40,
    "dx_kv_change": 48, "dx_turn_done": 280, "dx_turn_back": 48, "dx_work_done": 56, "dx_work_back": 40, "dx_done": 80,
    "dx_appetite": 144, "dx_request": 24, "dx_claimed_message": 32, "dx_claimed_turn": 120, "dx_claimed_work": 128, "dx_ids": 16,
    "dx_taken": 80, "dx_exchanged": 24, "dx_kv": 40, "dx_loaded": 176, "dx_lease_key": 32, "dx_renewal": 88, "dx_renewed": 48,
    "dx_store_v1": 56,
}  # fmt: skip


@needs_cc
@pytest.mark.skipif(sys.maxsize < 2**32, reason="sizes are those of 64-bit machines")
def test_the_structs_of_version_1_keep_their_size(tmp_path: Path) -> None:
    prints = "".join(f'printf("{name} %zu\\n", sizeof({name}));' for name in SIZES)
    out = compile_c(tmp_path, f'#include <stdio.h>\n#include "duroxide_store.h"\nint main(void) {{ {prints} return 0; }}')
    assert {name: int(size) for name, size in map(str.split, out.splitlines())} == SIZES
    header = (CSRC / "duroxide_store.h").read_text()
    assert set(re.findall(r"\} (dx_\w+);", header)) == set(SIZES)


@needs_cc
def test_every_sqlite_routine_stands_where_sqlites_own_header_has_it(tmp_path: Path) -> None:
    probe = subprocess.run([CC, "-E", "-"], input="#include <sqlite3ext.h>", capture_output=True, text=True)
    if probe.returncode != 0:
        pytest.skip("no sqlite3ext.h on this machine")
    routines = re.findall(r"X\((\d+), .*?, (\w+), \(.*\)\)", (CSRC / "sqlite_abi.h").read_text())
    assert len(routines) > 20
    checks = "".join(
        f'_Static_assert(offsetof(sqlite3_api_routines, {name}) == {place} * sizeof(void *), "{name}");\n' for place, name in routines
    )
    compile_c(tmp_path, f"#include <stddef.h>\n#include <sqlite3ext.h>\n{checks}int main(void) {{ return 0; }}")


def test_c_and_python_know_the_same_statements() -> None:
    listed = (CSRC / "sqlite_store.h").read_text().split("#define DX_STATEMENTS")[1].split("#define X")[0]
    assert set(re.findall(r"\b[WR]\((\w+)\)", listed)) == set(HOT)


@needs_cc
@pytest.mark.parametrize("flags", [("-O2", "-DNDEBUG"), ("-O0", "-g3", "-UNDEBUG")], ids=["release", "debug"])
@pytest.mark.parametrize("source", sorted(p.name for p in CSRC.glob("sqlite_*.c")))
def test_the_c_files_compile_without_a_warning(tmp_path: Path, source: str, flags: tuple[str, ...]) -> None:
    strict = ["-std=c11", "-Wall", "-Wextra", "-Werror", *flags]
    command = [CC, *strict, f"-I{CSRC}", "-c", str(CSRC / source), "-o", str(tmp_path / "x.o")]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_the_public_header_is_c_plus_plus_too(tmp_path: Path) -> None:
    code = tmp_path / "x.cc"
    code.write_text('#include "duroxide_store.h"\nint main() { dx_store_v1 s{}; return int(s.abi); }')
    command = ["c++", "-Wall", "-Wextra", "-Werror", f"-I{CSRC}", "-fsyntax-only", str(code)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr


def test_no_file_of_the_store_needs_python() -> None:
    for path in CSRC.iterdir():
        assert "Python.h>" not in path.read_text(), path.name


# ── capsules ─────────────────────────────────────────────────────────────────────────────────────────────────


class Table(ctypes.Structure):
    _fields_ = [("abi", ctypes.c_uint32), ("size", ctypes.c_uint32)] + [
        (name, ctypes.c_void_p) for name in ("self", "exchange", "load", "renew", "release", "close")
    ]


NAME = b"duroxide.store_v1"
EXCHANGE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)


class Str(ctypes.Structure):
    _fields_ = [("p", ctypes.c_char_p), ("n", ctypes.c_int64)]


LOAD = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, Str, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p
)  # fmt: skip
CLOSE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


KEPT: list[Table] = []  # a capsule only points


def capsule(table: Table, name: bytes = NAME) -> object:
    KEPT.append(table)
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return new(ctypes.addressof(table), name, None)


def table(**fields: object) -> Table:
    made = Table(abi=1, size=ctypes.sizeof(Table), exchange=1, load=1, renew=1, release=1, close=1)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def test_what_is_no_such_capsule_is_refused() -> None:
    for thing in (None, 7, capsule(table(), b"duroxide.store_v2")):
        with pytest.raises(ValueError, match=r"expected a capsule named 'duroxide.store_v1'"):
            CapsuleStore(thing)


@pytest.mark.parametrize("fields", [{"abi": 2}, {"abi": 0}, {"size": 48}, {"size": 64}, {"load": None}, {"release": None}])
def test_a_store_of_another_abi_is_refused_before_it_is_called(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="store ABI"):
        CapsuleStore(capsule(table(**fields)))


class Slow:
    """A third party's store whose exchange waits until told, and which counts what is closed."""

    def __init__(self) -> None:
        self.entered, self.go, self.closed = threading.Event(), threading.Event(), 0
        self.exchange, self.load, self.close = EXCHANGE(self._exchange), LOAD(lambda *_: -1), CLOSE(self._close)
        self.table = table(
            exchange=self._address(self.exchange), load=self._address(self.load), close=self._address(self.close)
        )  # fmt: skip
        self.store = CapsuleStore(capsule(self.table))

    @staticmethod
    def _address(function: object) -> int:
        return ctypes.cast(function, ctypes.c_void_p).value or 0  # type: ignore[arg-type]

    def _exchange(self, *_: object) -> int:
        self.entered.set()
        assert self.closed == 0
        self.go.wait(10)
        return -1

    def _close(self, _: object) -> None:
        self.closed += 1


def in_thread(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def test_close_waits_for_the_verbs_that_run_and_comes_once() -> None:
    slow = Slow()
    errors: list[StoreError] = []

    def exchange() -> None:
        with pytest.raises(StoreError) as caught:
            slow.store.exchange([])
        errors.append(caught.value)

    running = in_thread(exchange)
    assert slow.entered.wait(10)
    closing = in_thread(slow.store.close)
    said = ""
    while "closed" not in said:  # until close() has shut the door
        with pytest.raises(StoreError) as caught:
            slow.store.load("i")
        said = str(caught.value)
    assert slow.closed == 0
    slow.go.set()
    running.join(10), closing.join(10)
    slow.store.close()
    assert (slow.closed, len(errors)) == (1, 1)


# ── the SQLite store behind it ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Bare]:
    store = Bare(tmp_path / "s.db")
    yield store
    store.close()


def test_a_closed_store_says_so_and_closing_again_is_fine(bare: Bare) -> None:
    bare.store.close()
    bare.store.close()
    for verb in (lambda: bare.store.exchange([]), lambda: bare.store.load("i"), lambda: bare.store.renew(Renewal(NOW))):
        with pytest.raises(StoreError, match="the store is closed") as caught:
            verb()
        assert not caught.value.retryable
    for connection in (bare.writer, bare.reader):
        with pytest.raises(apsw.ConnectionClosedError):
            assert connection is not None and connection.execute("SELECT 1")


def test_two_wrappers_of_one_capsule_close_it_cleanly(bare: Bare) -> None:
    second = CapsuleStore(bare.capsule)
    bare.store.close()
    for verb in (lambda: second.exchange([]), lambda: second.load("i"), lambda: second.renew(Renewal(NOW))):
        with pytest.raises(StoreError, match="failed: the store is closed"):
            verb()
    second.close()


def test_a_dropped_store_gives_up_its_file(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    bare = Bare(path)
    bare.look.close()
    del bare
    gc.collect()
    assert not path.with_name("s.db-wal").exists()  # the last connection is gone: SQLite has cleaned up


def test_every_row_survives_the_way_there_and_back(bare: Bare) -> None:
    text = 'NUL \0, quote \' " and \N{SNOWMAN} \U0001f600'
    bare.do(handed(messages=[(text, item("StartOrchestration"), 0)]))
    [t] = bare.do(appetite=Appetite(text, turns=1)).turns
    assert (t.instance, t.lease.startswith(f"lock_{text}:")) == (text, True)
    done = turn(t.lease, text, name=text, version=text, custom_status=(text,), output=text, status="Completed", keep=True)
    done.events, done.kv, done.consumed = [(1, text, text), (2, "", "")], [(0, text, text, 3), (0, "", "", 4)], [t.messages[0][0]]
    assert bare.do(handed(turns=[done])).turn_codes == [OK]
    loaded = bare.store.load(text)
    assert loaded is not None
    assert (loaded.name, loaded.version, loaded.custom_status, loaded.output) == (text,) * 4
    assert (loaded.events, loaded.kv) == ([(1, text), (2, "")], {text: (text, 3), "": ("", 4)})


def test_a_lone_surrogate_is_refused_before_anything_is_written(bare: Bare) -> None:
    lease = born(bare, "i")["i"]
    bad = "abc\ud800"
    before = bare.sql("SELECT COUNT(*) FROM history") + bare.sql("SELECT COUNT(*) FROM orchestrator_queue")
    good = Request(NOW, handed(turns=[turn(lease, "i", (2,))], messages=[(*start("j"), 0)]))
    for done in (
        handed(messages=[("i", bad, 0)]), handed(turns=[turn(lease, bad)]), handed(turns=[turn(lease, "i", output=bad)]),
        handed(turn_backs=[TurnBack(bad, "i")]), handed(work=[WorkDone(1, bad, "i", None)]), handed(work_backs=[WorkBack(1, bad)]),
    ):  # fmt: skip
        with pytest.raises(StoreError, match=r"lone surrogate U\+D800 at 3") as caught:
            bare.store.exchange([good, Request(NOW, done)])
        assert not caught.value.retryable
    with pytest.raises(StoreError, match="lone surrogate"):
        bare.store.load(bad)
    with pytest.raises(StoreError, match="lone surrogate"):
        bare.store.renew(Renewal(NOW, leases=[("i", bad)]))
    assert bare.sql("SELECT COUNT(*) FROM history") + bare.sql("SELECT COUNT(*) FROM orchestrator_queue") == before


@pytest.mark.parametrize("now", ["soon", 2**63, None])
def test_what_is_no_64_bit_time_is_refused(bare: Bare, now: object) -> None:
    with pytest.raises((TypeError, OverflowError)):
        bare.store.exchange([Request(now)])  # type: ignore[arg-type]
    assert bare.do() == Taken()


def test_an_error_names_the_operation_the_reason_and_the_code(bare: Bare) -> None:
    bare.sql("DROP TABLE orchestrator_queue")
    with pytest.raises(StoreError, match=r"^exchange failed: no such table: .*orchestrator_queue \(SQLite code 1\)$") as caught:
        bare.do(handed(messages=[(*start("i"), 0)]), now=NOW)
    assert (caught.value.operation, caught.value.retryable) == ("exchange", False)


def test_a_python_error_raised_in_a_hook_comes_out_of_the_verb_which_was_done(bare: Bare) -> None:
    def hook(*_: object) -> None:
        raise ZeroDivisionError("in a hook")

    bare.writer.set_update_hook(hook)
    with pytest.raises(AnswerLost, match="written.* ZeroDivisionError in a hook") as caught:
        bare.send(start("i"))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    bare.writer.set_update_hook(None)
    bare.send(start("j"))
    assert bare.sql("SELECT instance_id FROM orchestrator_queue ORDER BY id") == [("i",), ("j",)]


def everything(bare: Bare) -> list[object]:
    tables = ("instances", "executions", "history", "orchestrator_queue", "worker_queue", "instance_locks", "kv_delta", "sessions")
    return [bare.sql(f"SELECT * FROM {name}") for name in tables]


def test_an_exchange_that_fails_anywhere_changes_nothing_and_can_be_tried_again(bare: Bare) -> None:
    lease = born(bare, "i", work=[work(2, session_id="s"), work(3)])["i"]
    bare.send(start("j"), ("ghost", item("CancelInstance")), ("i", item("QueueMessage")))
    done = turn(lease, "i", (2, 3), work=[work(4)], messages=[(*start("k"), 0)], kv=[(0, "a", "1", 1)], custom_status=("x",))
    request = Request(NOW, handed(turns=[done]), Appetite("me", turns=9, work=9, session_owner="me", session_room=1))
    before, failures, ticks = everything(bare), 0, 0

    def interrupt() -> bool:
        nonlocal ticks
        ticks += 1
        return ticks == failures

    while True:  # at the first operation, the second, ... until it runs through
        failures, ticks = failures + 1, 0
        bare.writer.set_progress_handler(interrupt, 7)
        try:
            [taken] = bare.store.exchange([request])
            break
        except StoreError as error:
            assert error.retryable and "interrupted" in str(error)
        finally:
            bare.writer.set_progress_handler(None)
        assert everything(bare) == before
    assert failures > 100
    assert (taken.turn_codes, {t.instance for t in taken.turns}, len(taken.work)) == ([OK], {"i", "j", "k"}, 3)


def test_a_writer_elsewhere_is_waited_for_and_never_shown(bare: Bare) -> None:
    bare.sql("BEGIN IMMEDIATE")
    waiting = in_thread(lambda: bare.send(start("i")))
    assert bare.store.load("nobody") is None  # reading waits for nobody
    assert bare.store.renew(Renewal(NOW, leases=[("i", "t")])).lost_leases == [0]
    assert waiting.is_alive()
    bare.sql("COMMIT")
    waiting.join(10)
    assert bare.sql("SELECT instance_id FROM orchestrator_queue") == [("i",)]


def test_opening_on_tables_that_are_not_there_names_the_statement() -> None:
    connection = connect(":memory:")
    with pytest.raises(StoreError, match=r"prepare lease_get failed: no such table: instance_locks"):
        _sqlite.open_store(connection)
    assert connection.execute("SELECT 1").fetchall() == [(1,)]


@pytest.mark.parametrize("version", [3_045_003, 4_000_000, 3_046_000], ids=["too old", "too new", "a second copy"])
def test_another_sqlite_is_not_let_in(bare: Bare, version: int) -> None:
    version_number = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: version)
    routines = (ctypes.c_void_p * 300)(*[1] * 300)
    routines[67] = ctypes.cast(version_number, ctypes.c_void_p).value  # type: ignore[arg-type]
    assert ctypes.CDLL(_sqlite.__file__).sqlite3_duroxide_init(None, None, routines) == 1
    bare.send(start("i"))  # and APSW's is still in its place


LEAK = """
import resource, sys
sys.path.insert(0, {tests!r})
from bare_store import NOW, Bare, born, handed, turn, start
from duroxide.storage.base import Appetite, StoreError
bare = Bare(None)
lease = born(bare, "i")["i"]
def round(n):
    for _ in range(n):
        bare.do(handed(messages=[("i", "x" * 20_000, 0)]), Appetite("me", turns=1, work=1))
        bare.do(handed(turns=[turn(lease, "i", (1,), keep=True)]))     # refused
        bare.store.load("i")
        bare.sql("DELETE FROM orchestrator_queue")
        try: bare.send(("i", "\\ud800"))
        except StoreError: pass
        other = Bare(None); other.close()
round(100)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
round(400)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
def test_verbs_and_stores_give_their_memory_back() -> None:
    code = LEAK.format(tests=str(Path(__file__).parent))
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert out.returncode == 0, out.stderr
    assert int(out.stdout) < 4000  # 400 rounds of one lost 20 KB text alone would be 8,000
