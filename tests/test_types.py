"""The package is strictly typed, and so can be a program that uses it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "tests" / "data" / "typed_program.py"
CALLS = ROOT / "tests" / "data" / "typed_calls.py"
COMPLETE = 98.0  # percent of the symbols of all modules whose type every checker infers alike


def mypy(*arguments: str, cache: Path) -> tuple[int, str]:
    pytest.importorskip("mypy", reason="mypy comes with the extra `test`")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(cache), *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def pyright(*arguments: str) -> tuple[int, str]:
    """Skips where it cannot be had: its first run fetches a part of it."""
    pytest.importorskip("pyright", reason="pyright comes with the extra `test`")
    # It asks the `python` of PATH where packages are; an editable install is one that it does not find.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "pyright", *command]
        return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)

    if run("--version").returncode:
        pytest.skip("pyright cannot run here")
    done = run("--pythonpath", sys.executable, *arguments)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cold at the first run of a module, so that no stale cache hides anything."""
    return tmp_path_factory.mktemp("mypy")


def test_the_package_and_a_program_are_strictly_typed(cache: Path) -> None:
    code, said = mypy("-p", "duroxide", cache=cache)
    assert code == 0, said
    code, said = mypy(str(PROGRAM), str(CALLS), cache=cache)
    assert code == 0, said


WRONG = [
    (PROGRAM, 'client.raise_event("order-7", "approved")', 'client.raise_event(7, "approved")'),
    (PROGRAM, "timeout_ms=1_000", 'timeout_ms="1000"'),
    (PROGRAM, 'synchronous="full"', "synchronous=2"),
    (PROGRAM, "error: str | None = result.error", "error: str = result.error"),
    (PROGRAM, 'return f"paid {order[\'id\']}"', 'return ctx.schedule_activity("x")'),
    (PROGRAM, "worker_concurrency=2", "worker_concurency=2"),
    (PROGRAM, "event.kind ==", "event.king =="),
    (CALLS, "ctx.schedule_activity_typed(charge, order)", "ctx.schedule_activity_typed(charge, 7)"),
    (CALLS, "ctx.schedule_activity_typed(rate)", "ctx.schedule_activity_typed(count)"),
    (CALLS, "assert_type(again, int)", "assert_type(again, str)"),
    (CALLS, "_typed(child, 3)", '_typed(child, "3")'),
    (CALLS, '"detached-1", 1)', '"detached-1", "1")'),
    (CALLS, "'\"by name\"', int)", "'\"by name\"', str)"),
    (CALLS, "return charge(ctx, Order(id=1, items=[]))", "return charge(ctx)"),
    (CALLS, "def direct(ctx: ActivityContext) -> str", "def direct(ctx: ActivityContext) -> int"),
]


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A program with one mistake, for each that is listed; all are checked in one run, which costs what one would."""
    place, paths = tmp_path_factory.mktemp("wrong"), []
    for number, (program, right, mistake) in enumerate(WRONG):
        source = program.read_text(encoding="utf-8")
        assert source.count(right) == 1, right
        paths.append(place / f"wrong_{number}.py")
        paths[-1].write_text(source.replace(right, mistake), encoding="utf-8")
    return paths


def accused(said: str) -> set[int]:
    return {int(number) for number in re.findall(r"wrong_(\d+)\.py:\d+(?::\d+)?(?: -|:) error", said)}


def test_a_wrong_program_is_told_so(wrong: list[Path], cache: Path) -> None:
    code, said = mypy(*map(str, wrong), cache=cache)
    assert code == 1 and accused(said) == {*range(len(WRONG))}, said


def test_pyright_says_the_same(wrong: list[Path]) -> None:
    code, said = pyright(str(PROGRAM), str(CALLS), *map(str, wrong))
    assert code == 1 and accused(said) == {*range(len(WRONG))}, said
    assert "typed_program.py:" not in said and "typed_calls.py:" not in said, said


@pytest.mark.soak
def test_pyright_is_content_with_what_users_hold() -> None:
    """And with everything else but SQL made of templates, which psycopg's stubs want as literals, and three places inside the runtime and a store."""
    _, said = pyright("duroxide", "--outputjson")
    found = json.loads(said)["generalDiagnostics"]
    wrong = [(Path(one["file"]).relative_to(ROOT / "duroxide"), one) for one in found]
    inner = {Path("runtime/leases.py"), Path("storage/sqlite_claims.py"), Path("storage/sqlite_store.py")}
    assert not [one for path, one in wrong if path not in inner and not path.name.startswith("postgres_") and path != Path("storage/postgres.py")]
    assert not [one for path, one in wrong if path not in inner and "execute" not in one["message"]]


@pytest.mark.soak
def test_the_types_of_what_users_hold_are_complete() -> None:
    """`pyright --verifytypes`: nothing is left to a checker's inference, as far as it is ours."""
    _, said = pyright("--verifytypes", "duroxide", "--ignoreexternal", "--outputjson")
    found = json.loads(said)
    assert found["typeCompleteness"]["completenessScore"] * 100 >= COMPLETE, found["summary"]
    unclear = [symbol["name"] for symbol in found["typeCompleteness"]["symbols"] if symbol["isExported"] and not symbol["isTypeKnown"]]
    faces = ("duroxide.client.", "duroxide.context.", "duroxide.errors.", "duroxide.options.", "duroxide.results.", "duroxide.tasks.", "duroxide.typed.")
    assert not [name for name in unclear if name.startswith(faces) or name.count(".") == 1], unclear


def test_calls_by_function_run(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(CALLS)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    got = ["paid 7", 7, 1.5, True, 2, 3, [3, 3, 3], [2, 2], "alone", [4, 5], 7, 1.5]
    assert done.stdout == f"Completed {{'all': {got}, 'error': 'TypeError'}} None\nCompleted [1] alone\n", done.stdout + done.stderr


def test_the_typed_program_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "'output': {'payment': 'paid 7', 'packed': ['LAMP'], 'approved': True}, 'key': 'nobody', 'starts': 2" in done.stdout, done.stderr
