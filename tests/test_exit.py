"""The interpreter ends while threads are in C, in activities and in waits: it ends at once, as asked, without a word, and nothing told is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from memory.exits import WAYS, flow

import duroxide
from duroxide.storage.sqlite import open_sqlite

SCRIPT = Path(__file__).parent / "memory" / "exits.py"
CODES = {"sys.exit": 3, "an exception": 1, "os._exit": 4}


def leaves(directory: Path, implementation: str, how: str, after_ms: int) -> list[str]:
    """The instances whose start it was told of."""
    command = [sys.executable, str(SCRIPT), str(directory / "x.db"), implementation, how, str(after_ms)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == CODES.get(how, 0), done.stderr[-3_000:]
    said = [line for line in done.stderr.splitlines() if line and not line.startswith((" ", "Traceback", "RuntimeError: on purpose"))]
    assert not said, done.stderr[-3_000:]
    return [line for line in done.stdout.split("\n")[:-1] if line]


def check(directory: Path, implementation: str, told: list[str]) -> None:
    """All of it is there, and ends right when somebody goes on."""
    native = open_sqlite(str(directory / "x.db"), implementation=implementation)
    assert native._cold.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    provider = duroxide.SqliteProvider(native)
    client, runtime = duroxide.Client(provider), duroxide.Runtime(provider)
    runtime.register_activity("work", lambda ctx, value: value)
    runtime.register_orchestration("flow", flow)
    runtime.start()
    for instance in told:
        result: Any = client.wait_for_orchestration(instance, 60_000)
        n = int(instance[1:])
        assert result.output == 4 * n + 6 or (result.status == "Failed" and "SystemExit: 9" in str(result.error)), result
    runtime.shutdown()
    native.close()


@pytest.mark.parametrize("how", WAYS)
def test_a_program_that_leaves_while_a_runtime_works_loses_nothing(tmp_path: Path, how: str) -> None:
    told = leaves(tmp_path, "python" if how == "sys.exit" else "c", how, 200)
    assert told
    check(tmp_path, "c", told)


@pytest.mark.soak
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("implementation", ["c", "python"])
def test_a_program_may_leave_at_any_moment(tmp_path: Path, implementation: str, how: str) -> None:
    told = [instance for after_ms in range(0, 200, 10) for instance in leaves(tmp_path, implementation, how, after_ms)]
    check(tmp_path, implementation, told)
