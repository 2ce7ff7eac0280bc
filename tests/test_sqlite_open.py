"""Opening a SQLite file: what a path means, what is adopted, what is refused before a byte is written, and what is really set."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import apsw
import pytest

import duroxide
from duroxide.errors import ProviderError
from duroxide.storage import _sqlite, sqlite, sqlite_schema
from duroxide.storage.base import Done, Renewal, Request, StoreError
from duroxide.storage.sqlite import open_memory, open_sqlite

REFERENCE = Path(__file__).resolve().parent / "data" / "sqlite_inflight_0.2.2.db"
PATIENCE_S = 60.0


@pytest.fixture
def adopted(tmp_path: Path) -> Path:
    return Path(shutil.copy(REFERENCE, tmp_path / "adopted.db"))


def ask(path: Path, sql: str) -> list[Any]:
    connection = apsw.Connection(str(path))
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def everything(path: Path) -> dict[str, list[Any]]:
    return {table: ask(path, f"SELECT * FROM {table} ORDER BY 1, 2, 3") for table in (*sqlite_schema.TABLES, "_sqlx_migrations")}


def contents(directory: Path) -> dict[str, bytes | None]:
    """Every file below with its bytes; without the shared memory beside a log, which SQLite makes anew for every look."""
    found = [path for path in sorted(directory.rglob("*")) if not path.name.endswith("-shm")]
    return {str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None for path in found}


def refused(path: Path | str, reason: str, directory: Path) -> None:
    """It is refused with the path and the reason, and the directory is byte for byte what it was."""
    before = contents(directory)
    with pytest.raises(ProviderError) as raised:
        open_sqlite(str(path))
    assert reason in str(raised.value) and f"'{path}'" in str(raised.value)
    assert contents(directory) == before


# ── adoption ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_of_the_reference_keeps_every_row_and_gets_our_indexes(adopted: Path) -> None:
    before = everything(adopted)
    assert len(before["history"]) > 10 and before["orchestrator_queue"]
    for _ in range(2):
        open_sqlite(str(adopted)).close()
        assert everything(adopted) == before
    names = {name for (name,) in ask(adopted, "SELECT name FROM sqlite_master WHERE type = 'index'")}
    assert {"dx_orch_ready", "dx_work_ready", "idx_orch_visible"} <= names


def test_a_fresh_file_has_the_tables_of_the_reference(tmp_path: Path, adopted: Path) -> None:
    open_sqlite(str(tmp_path / "fresh.db")).close()
    for table in (*sqlite_schema.TABLES, "_sqlx_migrations"):
        columns = f"SELECT name, type, \"notnull\", pk FROM pragma_table_info('{table}') ORDER BY name"
        assert ask(tmp_path / "fresh.db", columns) == ask(adopted, columns), table
    ledger = "SELECT version, description, success, checksum FROM _sqlx_migrations"
    assert ask(tmp_path / "fresh.db", ledger) == ask(adopted, ledger)


def test_an_older_file_is_completed(adopted: Path) -> None:
    ask(adopted, "DROP TABLE kv_delta")
    ask(adopted, "DROP INDEX idx_worker_queue_tag")
    ask(adopted, "ALTER TABLE worker_queue DROP COLUMN tag")
    ask(adopted, "DELETE FROM _sqlx_migrations WHERE version > 20240108000000")
    history = ask(adopted, "SELECT * FROM history")
    open_sqlite(str(adopted)).close()
    assert ask(adopted, "SELECT COUNT(*) FROM _sqlx_migrations") == [(len(sqlite_schema.LEDGER),)]
    assert ask(adopted, "SELECT tag FROM worker_queue LIMIT 0") == ask(adopted, "SELECT * FROM kv_delta") == []
    assert ask(adopted, "SELECT * FROM history") == history


def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    open_sqlite(str(tmp_path / "empty.db")).close()
    assert ask(tmp_path / "empty.db", "SELECT COUNT(*) FROM instances") == [(0,)]


def test_tables_of_somebody_else_stay(tmp_path: Path) -> None:
    ask(tmp_path / "shared.db", "CREATE TABLE mine (a)")
    ask(tmp_path / "shared.db", "INSERT INTO mine VALUES (1)")
    open_sqlite(str(tmp_path / "shared.db")).close()
    assert ask(tmp_path / "shared.db", "SELECT a FROM mine") == [(1,)]


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_newer_schema_is_refused(adopted: Path, journal: str) -> None:
    ask(adopted, f"PRAGMA journal_mode = {journal}")
    ask(adopted, "INSERT INTO _sqlx_migrations VALUES (20991231000000, 'later', '2099-12-31', 1, x'00', 0)")
    refused(adopted, "schema version 20991231000000, this duroxide knows versions up to 20240112000000", adopted.parent)


def test_a_newer_schema_that_is_only_in_the_log_is_refused(adopted: Path) -> None:
    """Whoever wrote it was killed: the main file still looks like ours, and the log has to stay as it is."""
    writer = apsw.Connection(str(adopted))
    writer.execute("PRAGMA journal_mode = wal")
    writer.execute("INSERT INTO _sqlx_migrations VALUES (20991231000000, 'later', '2099-12-31', 1, x'00', 0)")
    left = adopted.parent / "left"
    left.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(f"{adopted}{suffix}", left)
    writer.close()
    assert (left / "adopted.db-wal").stat().st_size
    refused(left / "adopted.db", "schema version 20991231000000", left)


def test_a_column_that_must_not_be_left_empty_is_refused(adopted: Path) -> None:
    ask(adopted, "DROP TABLE sessions")
    columns = "session_id TEXT PRIMARY KEY, worker_id TEXT, locked_until, last_activity_at, z TEXT NOT NULL"
    ask(adopted, f"CREATE TABLE sessions ({columns})")
    refused(adopted, "column sessions.z that this duroxide does not know", adopted.parent)


def test_a_column_that_may_be_left_empty_is_no_hindrance(adopted: Path) -> None:
    ask(adopted, "ALTER TABLE sessions ADD COLUMN zone TEXT NOT NULL DEFAULT 'x'")
    ask(adopted, "ALTER TABLE history ADD COLUMN note TEXT")
    open_sqlite(str(adopted)).close()


@pytest.mark.parametrize("found", [b"x", b"id,name\n1,a\n", b"\0" * 5000, b"SQLite format 2\0" * 300, os.urandom(9000)])
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, found: bytes) -> None:
    (tmp_path / "notes.txt").write_bytes(found)
    refused(tmp_path / "notes.txt", "is not a database", tmp_path)


@pytest.mark.parametrize("size", [16, 100, 4096, 4097])
def test_a_truncated_file_is_refused(adopted: Path, size: int) -> None:
    os.truncate(adopted, size)
    refused(adopted, "nothing was changed", adopted.parent)


def test_a_file_with_garbage_behind_its_head_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(sqlite.HEADER + os.urandom(8176))
    refused(tmp_path / "x.db", "nothing was changed", tmp_path)


def test_a_directory_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "Is a directory", tmp_path)
    refused(f"{tmp_path}/new/", "Is a directory", tmp_path)


def test_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file" / "x.db", "Not a directory", tmp_path)
    refused(tmp_path / "file" / "deeper" / "x.db", "Not a directory", tmp_path)


@pytest.mark.parametrize(("name", "reason"), [("x" * 300, "File name too long"), ("", "No such file"), ("a\0b", "No such file")])
def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str) -> None:
    monkeypatch.chdir(tmp_path)
    refused(name, reason, tmp_path)


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match=r"surrogates not allowed: '.*\\udc80.db'"):
        open_sqlite(f"{tmp_path}/\udc80.db")
    assert contents(tmp_path) == {}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a file that is no regular one")
def test_a_pipe_and_a_device_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "Not a regular file", tmp_path)
    refused(os.devnull, "Not a regular file", tmp_path)


@pytest.mark.parametrize("path", ["file:x.db", "file:///tmp/x.db?mode=ro", "sqlite:file:x.db"])
def test_a_sqlite_uri_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    refused(path, "give a path", tmp_path)


UNPRIVILEGED = """
import os, sys
import apsw, duroxide
from duroxide.storage import _capsule, _sqlite, sqlite_store, sqlite
if os.geteuid() == 0:  # root may write everywhere: be nobody
    os.setegid(65534); os.seteuid(65534)
try:
    sqlite.open_sqlite(sys.argv[1])
except duroxide.storage.sqlite.ProviderError as error:
    print(error)
"""


def refusal_for_nobody(path: Path) -> str:
    command = [sys.executable, "-c", UNPRIVILEGED, str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True, cwd="/").stdout


@pytest.fixture
def open_to_all(tmp_path: Path) -> Path:
    """A directory that another user may look into: pytest keeps its own private."""
    for parent in (tmp_path.parent, tmp_path.parent.parent):
        if parent.owner() == tmp_path.owner():
            parent.chmod(parent.stat().st_mode | 0o011)
    return tmp_path


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX permissions")
@pytest.mark.parametrize("journal", ["wal", "delete"])
@pytest.mark.parametrize("read_only", ["file", "directory", "missing file"])
def test_what_may_not_be_written_is_refused(open_to_all: Path, journal: str, read_only: str) -> None:
    place = open_to_all / "place"
    place.mkdir()
    path = place / "x.db"
    if read_only != "missing file":
        shutil.copy(REFERENCE, path)
        ask(path, f"PRAGMA journal_mode = {journal}")
        path.chmod(0o444 if read_only == "file" else 0o666)
    place.chmod(0o777 if read_only == "file" else 0o555)
    before = contents(place)
    text = refusal_for_nobody(path)
    assert f"'{path}'" in text
    assert any(reason in text for reason in ("Permission denied", "read-only", "unable to open database file", "readonly")), text
    assert contents(place) == before


@pytest.mark.parametrize(("options", "reason"), [
    ({"synchronous": "off"}, "synchronous is 'off', expected 'full' .* or 'normal'"),
    ({"synchronous": "FULL"}, "synchronous is 'FULL'"),
    ({"synchronous": None}, "synchronous is None"),
    ({"implementation": "rust"}, "implementation is 'rust'"),
])  # fmt: skip
def test_a_wrong_option_is_refused_before_anything_is_made(tmp_path: Path, options: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        open_sqlite(f"{tmp_path}/x.db", **options)
    with pytest.raises(TypeError, match="argument 'path': 'PosixPath' object" if os.name != "nt" else "argument 'path'"):
        open_sqlite(tmp_path / "x.db")  # type: ignore[arg-type]
    assert contents(tmp_path) == {}


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("path", "file"), [
    ("a b.db", "a b.db"), ("ünï—✓.db", "ünï—✓.db"), ("100%41.db", "100%41.db"), ("a#b.db", "a#b.db"),
    ("'; drop--.db", "'; drop--.db"),
    ("-x", "-x"), ("deep/er/x.db", "deep/er/x.db"), ("sqlite:y.db", "y.db"), ("sqlite:y.db?mode=rwc", "y.db"), ("~", "~"),
    ("y.db?mode=rwc", "y.db"),  # the reference opens that file too
])  # fmt: skip
def test_a_path_means_that_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, file: str) -> None:
    monkeypatch.chdir(tmp_path)
    open_sqlite(path).close()
    assert [name for name, found in contents(tmp_path).items() if found is not None] == [file]


def test_urls_with_slashes_are_absolute(tmp_path: Path) -> None:
    for n, prefix in enumerate(("", "sqlite:", "sqlite://", "sqlite:///")):
        open_sqlite(f"{prefix}{tmp_path}/{n}.db").close()
    assert sorted(contents(tmp_path)) == ["0.db", "1.db", "2.db", "3.db"]


@pytest.mark.parametrize("path", [":memory:", "sqlite::memory:", "sqlite::memory:?cache=shared"])
def test_memory_is_private_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    one, other = open_sqlite(path), open_memory()
    done = Done()
    done.messages = [("i", '{"StartOrchestration":{}}', 0)]
    one.exchange([Request(1, done)])
    assert (one.queue_depths(1)["orchestrator_queue"], other.queue_depths(1)["orchestrator_queue"]) == (1, 0)
    one.close()
    other.close()
    assert contents(tmp_path) == {}


# ── what is set ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[apsw.Connection]:
    """All that the provider opens for its work."""
    opened: list[apsw.Connection] = []
    connect = sqlite._connect

    def noting(*arguments: Any) -> apsw.Connection:
        opened.append(connect(*arguments))
        return opened[-1]

    monkeypatch.setattr(sqlite, "_connect", noting)
    return opened


@pytest.mark.parametrize("implementation", ["c", "python"])
@pytest.mark.parametrize(("synchronous", "level"), [("full", 2), ("normal", 1)])
def test_every_connection_has_its_pragmas(
    tmp_path: Path, connections: list[apsw.Connection], implementation: str, synchronous: str, level: int
) -> None:
    native = open_sqlite(f"{tmp_path}/x.db", synchronous=synchronous, implementation=implementation)
    wanted = {"journal_mode": "wal", "synchronous": level, "foreign_keys": 1}
    assert len(connections) == 3
    for connection in connections:
        assert {name: connection.pragma(name) for name in wanted} == wanted
    native.close()


def test_full_is_the_default_everywhere(tmp_path: Path, connections: list[apsw.Connection]) -> None:
    provider = duroxide.SqliteProvider.open(f"{tmp_path}/x.db")
    assert [connection.pragma("synchronous") for connection in connections] == [2, 2, 2]
    provider.close()


# ── twice, and at once ───────────────────────────────────────────────────────────────────────────────────────────


def test_one_process_may_open_a_file_twice(tmp_path: Path) -> None:
    first, second = open_sqlite(f"{tmp_path}/x.db"), open_sqlite(f"{tmp_path}/../{tmp_path.name}/x.db")
    seen = second.version()
    duroxide.Client(first).start_orchestration("i", "o")
    assert second.queue_depths(0)["orchestrator_queue"] == 1 and second.version() != seen
    first.close()
    duroxide.Client(second).start_orchestration("j", "o")
    assert second.queue_depths(0)["orchestrator_queue"] == 2
    second.close()


@pytest.mark.parametrize("implementation", ["c", "python"])
def test_own_commits_are_no_change(tmp_path: Path, implementation: str) -> None:
    """Else every group of our own would make all that sleep here look for what others did."""
    ours, theirs = open_sqlite(f"{tmp_path}/x.db", implementation=implementation), open_sqlite(f"{tmp_path}/x.db")
    seen = ours.version()
    duroxide.Client(ours).start_orchestration("i", "o")
    ours.renew(Renewal(1, [("i", "lock_a:1")], 1_000, [], 0, None, 0, 0))
    assert ours.version() == seen
    duroxide.Client(theirs).start_orchestration("j", "o")
    assert ours.version() != seen
    ours.close()
    theirs.close()
    with pytest.raises(duroxide.ProviderError, match="is closed"):
        ours.version()


@pytest.mark.parametrize("implementation", ["c", "python"])
def test_a_verb_waits_for_others_while_somebody_asks_for_the_version(tmp_path: Path, implementation: str) -> None:
    """A read that is open on its connection would make it fail at once: SQLite does not wait then."""
    ours, theirs = open_sqlite(f"{tmp_path}/x.db", implementation=implementation), open_sqlite(f"{tmp_path}/x.db")
    ended, asked, failed = threading.Event(), [0], []

    def ask() -> None:
        while not ended.is_set():
            ours.version()
            asked[0] += 1

    def write() -> None:
        client = duroxide.Client(ours)
        try:
            for n in range(150):
                client.start_orchestration(f"i{n}", "o")
        except Exception as error:
            failed.append(error)
        ended.set()

    threads = [threading.Thread(target=work) for work in (ask, write)]
    for thread in threads:
        thread.start()
    while not ended.is_set():
        with theirs.writing():
            pass
    for thread in threads:
        thread.join()
    assert not failed and asked[0] > 10
    ours.close()
    theirs.close()


def test_threads_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    barrier, opened = threading.Barrier(6), []

    def run() -> None:
        barrier.wait(PATIENCE_S)
        opened.append(open_sqlite(f"{tmp_path}/x.db"))

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(opened) == 6
    for native in opened:
        native.close()


OPENER = """
import sys
from duroxide.storage.base import Done, Request
from duroxide.storage.sqlite import open_sqlite
print("ready", flush=True)
sys.stdin.readline()
native = open_sqlite(sys.argv[1])
done = Done()
done.messages = [(sys.argv[2], '{"StartOrchestration":{}}', 0)]
native.exchange([Request(1, done)])
native.close()
"""


def test_eight_processes_may_open_a_new_file_at_the_same_moment(tmp_path: Path) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    path = tmp_path / "new" / "x.db"
    command = [sys.executable, "-c", OPENER, str(path)]
    processes = [subprocess.Popen([*command, f"i{n}"], **pipes) for n in range(8)]  # type: ignore[call-overload]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, errors) == (0, "")
    assert ask(path, "SELECT COUNT(DISTINCT instance_id) FROM orchestrator_queue") == [(8,)]


# ── implementations ──────────────────────────────────────────────────────────────────────────────────────────────


def refuse(*connections: Any) -> None:
    raise StoreError("no extension loading here", operation="open")


def without_the_c_store(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    if how == "refused":
        monkeypatch.setattr(_sqlite, "open_store", refuse)
    else:
        monkeypatch.setitem(sys.modules, "duroxide.storage._sqlite", None)


@pytest.mark.parametrize("how", ["refused", "not built"])
@pytest.mark.parametrize("memory", [False, True])
def test_without_the_c_store_the_one_in_python_serves_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str, memory: bool
) -> None:
    without_the_c_store(monkeypatch, how)
    with caplog.at_level(logging.WARNING, "duroxide"):
        provider = duroxide.SqliteProvider.in_memory() if memory else duroxide.SqliteProvider.open(f"{tmp_path}/x.db")
    assert provider.name == "sqlite (Python)"
    [record] = caplog.records
    assert record.name == "duroxide.storage" and "the slower one in Python does" in record.getMessage()
    client = duroxide.Client(provider)
    client.start_orchestration("i", "o")
    assert client.get_queue_depths().orchestrator_queue == 1
    provider.close()


def test_who_asks_for_the_c_store_gets_it_or_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    native = open_sqlite(f"{tmp_path}/x.db", implementation="c")
    assert native.name == "sqlite (C)"
    native.close()
    without_the_c_store(monkeypatch, "refused")
    with pytest.raises(ProviderError, match="the store in C does not run here: no extension loading here"):
        open_sqlite(f"{tmp_path}/x.db", implementation="c")


# ── closing ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("implementation", ["c", "python"])
def test_close_releases_the_files_and_ends_the_provider(tmp_path: Path, implementation: str) -> None:
    native = open_sqlite(f"{tmp_path}/x.db", implementation=implementation)
    native.close()
    native.close()
    assert list(contents(tmp_path)) == ["x.db"], "no log is left: the last connection wrote it back"
    for call in (lambda: native.exchange([Request(1)]), lambda: native.load("i"), native.version, native.instances):
        with pytest.raises(RuntimeError, match="closed"):
            call()
    with pytest.raises(RuntimeError, match="closed"):
        duroxide.Runtime(duroxide.SqliteProvider(native)).start()
    (tmp_path / "x.db").unlink()
    open_sqlite(f"{tmp_path}/x.db").close()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts the descriptors of this process")
@pytest.mark.parametrize("implementation", ["c", "python"])
def test_opening_and_refusing_leaves_no_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, implementation: str) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    (tmp_path / "bad").write_bytes(sqlite.HEADER + b"x" * 5000)
    open_sqlite(f"{tmp_path}/x.db", implementation=implementation).close()
    before = descriptors()
    for _ in range(5):
        open_sqlite(f"{tmp_path}/x.db", implementation=implementation).close()
        with pytest.raises(ProviderError):
            open_sqlite(f"{tmp_path}/bad")
    monkeypatch.setattr(sqlite_schema, "install", refuse)
    with pytest.raises(StoreError):
        open_sqlite(f"{tmp_path}/x.db")
    assert descriptors() == before
