"""`python -m duroxide inspect`: what it says of a store, and that it leaves no trace."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest
from compat import record

import duroxide
from duroxide import inspection
from duroxide.__main__ import main
from duroxide.runtime import clock
from duroxide.storage.sqlite import open_sqlite


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if path.is_file()}


def ask(path: Path, *statements: str) -> None:
    connection = apsw.Connection(str(path))
    for statement in statements:
        connection.execute(statement)
    connection.close()


def report(path: Path) -> dict[str, Any]:
    return inspection.report(str(path), None, clock.now())


def killed_copy(tmp_path: Path, *suffixes: str) -> Path:
    """A file whose last commits are in its log only, as a kill leaves it; with the files of these suffixes."""
    with duroxide_open(tmp_path / "live.db") as provider:
        duroxide.Client(provider).start_orchestration("i", "flow", 1)
        (tmp_path / "left").mkdir()
        for suffix in ("", *suffixes):
            shutil.copy(f"{tmp_path / 'live.db'}{suffix}", tmp_path / "left" / f"left.db{suffix}")
    return tmp_path / "left" / "left.db"


class duroxide_open:
    def __init__(self, path: Path) -> None:
        self.provider = duroxide.SqliteProvider(open_sqlite(str(path)))

    def __enter__(self) -> Any:
        return self.provider

    def __exit__(self, *error: object) -> None:
        self.provider.close()


def test_it_says_what_the_reference_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = record.unpack("0.1.24", tmp_path)
    before = contents(tmp_path)
    assert main(["inspect", str(path)]) == 0
    said = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines() if line.startswith(("usable", "instances", "sessions")))
    assert said["instances"] == "Completed: 3, Failed: 3, Running: 81" and said["sessions"] == "3, 0 live"
    assert main(["inspect", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["made_by"], found["opened_by_this_package"]) == ("the reference", False)
    assert found["usable_here"] and found["usable_by_reference"] and found["schema"] == 20240112000000
    assert found["running_pinned_to"] == {"0.1.28": 81} and found["left_alone_here"] == 0
    assert found["messages"]["CancelInstance"]["count"] == 5 and found["messages"]["TimerFired"]["later"] == 3
    assert found["activities"] == {"free": {"count": 10, "attempts": 10}, "lease ended": {"count": 8, "attempts": 1}}
    assert found["leases"]["oldest"]["held_by"] == "the reference" and found["leases"]["live"] == 0
    assert found["unknown_events"] == found["unknown_messages"] == {}
    assert contents(tmp_path) == before


@pytest.mark.parametrize("suffixes", [("-wal",), ("-wal", "-shm"), ()])
def test_a_file_that_a_kill_left_stays_as_it_is(suffixes: tuple[str, ...], tmp_path: Path) -> None:
    path = killed_copy(tmp_path, *suffixes)
    before = contents(path.parent)
    if suffixes:
        assert report(path)["messages"]["StartOrchestration"]["count"] == 1
    else:  # all there is stood in the log
        with pytest.raises(duroxide.ProviderError, match="no tables of duroxide"):
            report(path)
    after = contents(path.parent)
    assert after.keys() == before.keys()
    assert {name: after[name] for name in after if not name.endswith("-shm")} == {n: before[n] for n in before if not n.endswith("-shm")}


def test_a_file_in_use_is_read_beside_its_users(tmp_path: Path) -> None:
    with duroxide_open(tmp_path / "live.db") as provider:
        client = duroxide.Client(provider)
        client.start_orchestration("i", "flow", 1)
        done = subprocess.run(
            [sys.executable, "-m", "duroxide", "inspect", "--json", str(tmp_path / "live.db")], capture_output=True, text=True, cwd=tmp_path
        )
        found = json.loads(done.stdout)
        assert found["made_by"] == "this package" and found["messages"]["StartOrchestration"]["count"] == 1
        client.start_orchestration("j", "flow", 1)
        assert report(tmp_path / "live.db")["messages"]["StartOrchestration"]["count"] == 2


def test_a_live_lease_is_named_with_its_holder(tmp_path: Path) -> None:
    path = record.unpack("0.2.2", tmp_path)
    until = clock.now() + 60_000
    ask(path, f"INSERT INTO instance_locks VALUES ('wait', 'lock_me:7', {until}, 1)")
    found = report(path)
    assert found["leases"]["live"] == 1
    ask(path, "DELETE FROM worker_queue", "DELETE FROM instance_locks WHERE instance_id <> 'wait'")
    oldest = report(path)["leases"]["oldest"]
    assert (oldest["instance"], oldest["held_by"]) == ("wait", "me") and 50_000 < oldest["ends_in_ms"] <= 60_000


def test_what_is_newer_or_unknown_is_said(tmp_path: Path) -> None:
    path = record.unpack("0.2.2", tmp_path)
    ask(
        path,
        "INSERT INTO _sqlx_migrations VALUES (20991231000000, 'later', '2099-12-31', 1, x'00', 5)",
        "UPDATE executions SET duroxide_version_minor = 9 WHERE instance_id = 'wait'",
        "INSERT INTO history VALUES ('wait', 1, 99, 'Surprise', '{}', '')",
        "INSERT INTO orchestrator_queue (instance_id, work_item, visible_at) VALUES ('wait', '{\"News\":{}}', 1)",
    )
    found = report(path)
    assert not found["usable_here"] and "20991231000000" in found["usable_here_why"] and not found["usable_by_reference"]
    assert found["left_alone_here"] == 1 and found["unknown_events"] == {"Surprise": 1} and found["unknown_messages"] == {"News": 1}
    assert [line for line in inspection.text(found).splitlines() if line.startswith("warning")]


def test_what_is_no_store_is_an_error_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.db").write_text("no database " * 100)
    ask(tmp_path / "other.db", "CREATE TABLE mine (a)")
    before = contents(tmp_path)
    cases = {"none.db": "is not there", "text.db": "not a database", "other.db": "no tables of duroxide", ".": "is no file"}
    for name, reason in cases.items():
        assert main(["inspect", str(tmp_path / name)]) == 1
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("python -m duroxide inspect: ") and reason in line
    assert main(["inspect", str(tmp_path / "other.db"), "--schema", "x"]) == 1 and "--schema" in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_a_schema_of_ours_says_that_the_reference_cannot_use_it(postgres: Any, schema: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", postgres.url, "--schema", schema]) == 1 and "no tables of duroxide" in capsys.readouterr().err
    provider = duroxide.PostgresProvider.connect_with_schema(postgres.url, schema)
    duroxide.Client(provider).start_orchestration("i", "flow", 1)
    assert main(["inspect", postgres.url, "--schema", schema, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["made_by"], found["usable_here"], found["usable_by_reference"]) == ("this package", True, False)
    assert found["messages"]["StartOrchestration"]["count"] == 1 and found["executions"] == {}
    provider.close()
    assert os.environ.get("DATABASE_URL") or main(["inspect", "postgres://127.0.0.1:1/nothing"]) == 1
