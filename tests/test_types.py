"""The package is strictly typed, and so can be a program that uses it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "tests" / "data" / "typed_program.py"


def mypy(*arguments: str, cache: Path) -> tuple[int, str]:
    pytest.importorskip("mypy", reason="mypy comes with the extra `test`")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(cache), *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cold at the first run of a module, so that no stale cache hides anything."""
    return tmp_path_factory.mktemp("mypy")


def test_the_package_and_a_program_are_strictly_typed(cache: Path) -> None:
    code, said = mypy("-p", "duroxide", cache=cache)
    assert code == 0, said
    code, said = mypy(str(PROGRAM), cache=cache)
    assert code == 0, said


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('client.raise_event("order-7", "approved")', 'client.raise_event(7, "approved")'),
        ("timeout_ms=1_000", 'timeout_ms="1000"'),
        ('synchronous="full"', "synchronous=2"),
        ("error: str | None = result.error", "error: str = result.error"),
        ('return f"paid {order[\'id\']}"', 'return ctx.schedule_activity("x")'),
        ("worker_concurrency=2", "worker_concurency=2"),
        ("event.kind ==", "event.king =="),
    ],
)
def test_a_wrong_program_is_told_so(right: str, wrong: str, tmp_path: Path, cache: Path) -> None:
    source = PROGRAM.read_text(encoding="utf-8")
    assert source.count(right) == 1
    path = tmp_path / "program.py"
    path.write_text(source.replace(right, wrong), encoding="utf-8")
    code, said = mypy(str(path), cache=cache)
    assert code == 1 and "program.py" in said, said


def test_the_typed_program_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "'output': {'payment': 'paid 7', 'packed': ['LAMP'], 'approved': True}, 'key': 'nobody', 'starts': 2" in done.stdout, done.stderr
