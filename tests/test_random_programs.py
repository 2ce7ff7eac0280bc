"""Random programs: the same outcome on every store, with live generators and with a replay in every turn, and on the reference.

`-m oracle` with DUROXIDE_ORACLE=the reference's python compares 400 of them; `-m soak` runs some thousands here.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from randomized import programs, runner

import duroxide
from duroxide.engine._replay import needs_load, run_turn
from duroxide.engine._turn import Turn
from duroxide.runtime import loop
from duroxide.storage.base import ClaimedTurn
from duroxide.storage.memory import MemoryStore
from duroxide.storage.postgres import open_postgres
from duroxide.storage.sqlite import open_sqlite
from postgres_server import Server

RUNNER = Path(runner.__file__)
STORES: dict[str, Callable[[Path], Any]] = {
    "memory": lambda directory: MemoryStore(),
    "sqlite-c": lambda directory: open_sqlite(str(directory / "c.db"), synchronous="normal", implementation="c"),
    "sqlite-python": lambda directory: open_sqlite(str(directory / "p.db"), synchronous="normal", implementation="python"),
}


def made(first: int, count: int) -> dict[str, Any]:
    return {f"p{seed}": programs.make(random.Random(seed)) for seed in range(first, first + count)}


def replaying(turn: Any, loaded: Any, env: Any, now: int) -> Any:
    """`run_turn` without a live execution, ever: every turn is replayed from what is stored."""
    if turn.execution is not None:
        turn.execution.close()
        row = env.provider.load(turn.instance)
        claim = ClaimedTurn(
            turn.instance, turn.lease, [], turn.attempt, row.execution_id, row.events[-1][0], row.name, row.version, row.status
        )
        fresh = Turn(claim, turn.instance, turn.lease)
        fresh.messages.extend(turn.messages)
        fresh.results.extend(turn.results)
        turn, loaded = fresh, row if needs_load(fresh) else None
    return run_turn(turn, loaded, env, now)


def run(store: str, directory: Path, some: dict[str, Any]) -> dict[str, Any]:
    native = STORES[store](directory)
    try:
        return runner.run(duroxide, duroxide.SqliteProvider(native), some)
    finally:
        native.close()


def check_alike(some: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = run("memory", tmp_path, some)
    for store in ("sqlite-c", "sqlite-python"):
        assert run(store, tmp_path, some) == wanted, store
    monkeypatch.setattr(loop, "run_turn", replaying)
    (tmp_path / "replayed").mkdir()
    for store in STORES:
        assert run(store, tmp_path / "replayed", some) == wanted, f"{store}, replayed"


def test_programs_end_alike_on_every_store_live_and_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_alike(made(0, 150), tmp_path, monkeypatch)


def check_on_postgres(some: dict[str, Any], tmp_path: Path, server: Server, schema: str) -> None:
    native = open_postgres(server.url, schema)
    try:
        assert runner.run(duroxide, duroxide.PostgresProvider(native), some) == run("memory", tmp_path, some)
    finally:
        native.close()


@pytest.mark.parametrize("live", [True, False], ids=["live", "replayed"])
def test_programs_end_alike_on_postgres(
    live: bool, tmp_path: Path, postgres: Server, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not live:
        monkeypatch.setattr(loop, "run_turn", replaying)
    check_on_postgres(made(0, 60), tmp_path, postgres, schema)


@pytest.mark.soak
@pytest.mark.parametrize("first", range(1_000, 3_000, 500))
def test_more_programs_end_alike_on_postgres(first: int, tmp_path: Path, postgres: Server, schema: str) -> None:
    check_on_postgres(made(first, 500), tmp_path, postgres, schema)


@pytest.mark.soak
@pytest.mark.parametrize("first", range(1_000, 11_000, 1_000))
def test_more_programs_end_alike(first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_alike(made(first, 1_000), tmp_path, monkeypatch)


def test_programs_use_everything() -> None:
    kinds = {step[0] for program in made(0, 150).values() for steps in program["executions"] for step in steps}
    wanted = "echo fail retry timer event queue child guid now set get clear status all race detach typed"
    assert kinds == set(wanted.split())
    assert {program["end"] for program in made(0, 150).values()} == {"return", "raise", "cancel"}


def test_an_outcome_that_differs_is_seen(tmp_path: Path) -> None:
    some = made(0, 10)
    wanted = run("memory", tmp_path, some)
    spoilt = json.loads(json.dumps(some))
    spoilt["p3"]["executions"][0].append(["echo", "more", 999])
    assert run("memory", tmp_path, spoilt) != wanted


@pytest.mark.oracle
@pytest.mark.parametrize("first", range(0, 400, 100))
def test_programs_end_as_on_the_reference(first: int, tmp_path: Path) -> None:
    some = made(first, 100)
    done = subprocess.run(
        [os.environ["DUROXIDE_ORACLE"], str(RUNNER), str(tmp_path / "theirs.db")],
        input=json.dumps(some), capture_output=True, text=True, timeout=300, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(done.stdout.splitlines()[-1])
    ours = json.loads(json.dumps(run("sqlite-c", tmp_path, some)))
    assert {name for name in some if ours[name] != theirs[name]} == set()
