"""The programs in docs/examples do what their pages say, as a person would start them; each also after a kill where it says so."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import duroxide

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "docs" / "examples"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
PATIENCE_S = 60.0


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # FastAPI looks annotations up by the module's name
    spec.loader.exec_module(module)
    return module


def command(*arguments: object, cwd: Path, file: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / file), *map(str, arguments)], cwd=cwd, env=ENVIRONMENT, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (code, ""), err
    return out


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# ── FastAPI ──


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    pytest.importorskip("fastapi", reason="fastapi comes with the extra `test`")
    pytest.importorskip("httpx", reason="httpx comes with the extra `test`")
    from fastapi.testclient import TestClient

    monkeypatch.setenv("ORDERS_DB", str(tmp_path / "orders.db"))
    yield lambda: TestClient(load("fastapi_orders").app)


def follow(http: Any, number: int, step: str | None = None) -> dict[str, Any]:
    """Long polling, as a page does it, until the order has come to a step or has ended."""
    seen, deadline = 0, time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        found: dict[str, Any] = http.get(f"/orders/{number}", params={"seen": seen, "wait_ms": 5_000}).json()
        if found["status"] != "Running" or (step is not None and found["step"] == step):
            return found
        seen = found["seen"]
    raise AssertionError(found)


def test_fastapi_starts_watches_and_answers(web: Any) -> None:
    with web() as http:
        assert http.get("/orders/1").status_code == 404
        assert http.put("/orders/1", json={"items": ["lamp"], "amount": 30}).status_code == 202
        done = follow(http, 1)
        assert (done["status"], done["result"]["accepted"]) == ("Completed", True)
        assert done["result"]["receipt"] == "30 charged under the key order-1"
        assert http.put("/orders/1", json={"items": ["another"], "amount": 1}).status_code == 202
        assert follow(http, 1)["result"]["reserved"] == ["lamp for order-1"], "the same number is the same order"


def test_fastapi_goes_on_after_a_restart(web: Any) -> None:
    with web() as http:
        http.put("/orders/2", json={"items": ["desk", "chair"], "amount": 900})
        assert follow(http, 2, "waiting for approval")["step"] == "waiting for approval"
    with web() as http:
        assert http.post("/orders/2/approval", params={"yes": True}).status_code == 202
        assert follow(http, 2)["result"]["accepted"] is True


# ── Django ──


def test_django_commands_start_and_work(tmp_path: Path) -> None:
    pytest.importorskip("django", reason="django comes with the extra `test`")
    environment = {**ENVIRONMENT, "WORKFLOWS_DB": str(tmp_path / "workflows.db")}

    def manage(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(EXAMPLES / "django_shop" / "manage.py"), *arguments], cwd=tmp_path, env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    assert ended(manage("order", "7", "--items", "lamp", "desk")) == "started order-7\n"
    nobody = manage("order", "7", "--items", "lamp", "desk", "--wait", "10")
    assert "does a `manage.py work` run?" in nobody.communicate(timeout=PATIENCE_S)[1] and nobody.returncode == 1
    worker = manage("work")
    try:
        assert ended(manage("order", "7", "--items", "x", "--wait", "60000")) == "lamp reserved, desk reserved\n"
        worker.terminate()
        assert ended(worker) == "working\nstopped\n"
    finally:
        worker.kill()


# ── the command line ──


@pytest.mark.skipif(os.name == "nt", reason="kills by signal")
def test_a_killed_pipeline_goes_on_where_it_was(tmp_path: Path) -> None:
    pytest.importorskip("rich", reason="rich comes with the extra `test`")
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    pictures.mkdir()
    for n in range(12):
        (pictures / f"{n:02}.png").write_text(f"picture {n}")
    first = command("pictures", "out", "--pause-s", 0.1, cwd=tmp_path, file="thumbnails.py")
    until(lambda: len(list(out.glob("*.sha256"))) >= 5)  # one of the second four: then the results of the first are on record
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=PATIENCE_S)
    made = {path: path.stat().st_mtime_ns for path in sorted(out.glob("*.sha256"))[:4]}
    said = ended(command("pictures", "out", "--pause-s", 0.1, cwd=tmp_path, file="thumbnails.py"))
    assert "going on where it was" in said and "12 files, 0 failed" in said and "12/12" in said
    assert len(list(out.glob("*.sha256"))) == 12
    assert {path: path.stat().st_mtime_ns for path in made} == made, "what was on record is not done again"
    assert "12 files" in ended(command("pictures", "out", "--pause-s", 0.1, cwd=tmp_path, file="thumbnails.py")), "done is done"


def test_an_expense_is_asked_for_approved_and_shown(tmp_path: Path) -> None:
    def say(*arguments: object) -> str:
        return ended(command("--day-ms", 86_400_000, *arguments, cwd=tmp_path, file="expense_approval.py"))

    assert say("submit", "taxi-7", "ada", 40) == "" and say("waiting") == "nothing waits\n"
    worker = command("work", cwd=tmp_path, file="expense_approval.py")
    try:
        assert worker.stdout is not None and worker.stdout.readline() == "mail to ada [taxi-7]: approve 40 EUR?\n"
        until(lambda: say("waiting") == "taxi-7: 40 EUR, waits for ada since day 0\n")
        say("decide", "taxi-7", "yes")
        until(lambda: say("show", "taxi-7") == "Completed {'approved': True, 'by': 'ada'}\n")
    finally:
        worker.send_signal(signal.SIGINT)
        worker.communicate(timeout=PATIENCE_S)
    assert worker.returncode == 0


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[duroxide.SqliteProvider]:
    made = duroxide.SqliteProvider.open(str(tmp_path / "example.db"))
    yield made
    made.close()


def test_an_expense_goes_to_the_deputy_and_is_given_up(provider: duroxide.SqliteProvider, capsys: pytest.CaptureFixture[str]) -> None:
    module = load("expense_approval")
    runtime = duroxide.Runtime(provider)
    runtime.register_activity("mail", module.mail)
    runtime.register_orchestration("expense", module.expense)
    runtime.start()
    client = duroxide.Client(provider)
    client.start_orchestration("dinner", "expense", {"boss": "ada", "amount": 90, "day_ms": 5})
    assert client.wait_for_orchestration_typed("dinner") == {"approved": False, "by": "nobody in five days"}
    runtime.shutdown()
    asked = [line.split()[2] for line in capsys.readouterr().out.splitlines()]
    assert asked == ["ada", "ada", "ada", "grace", "grace"]


# ── the agent ──


def test_the_agent_looks_up_asks_a_person_and_goes_on_after_a_restart(provider: duroxide.SqliteProvider) -> None:
    module = load("support_agent")

    def runtime() -> duroxide.Runtime:
        made = duroxide.Runtime(provider)
        module.register(made, module.ScriptedModel())
        made.start()
        return made

    running = runtime()
    talk = module.Conversation(duroxide.Client(provider), "c-1")
    assert talk.say("hello")["answer"] == "Which order is it about?"
    assert talk.say("where is order 7?")["answer"] == "Order 7 was shipped on Monday."
    assert talk.say("and 700?")["answer"] == "I could not do that: there is no order 700."
    assert talk.say("please refund 7") == {"state": "approve?", "call": "refund", "with": {"order": 7}}
    running.shutdown()
    running = runtime()  # the question stands in the file; another process may have asked it
    assert talk.decide("no")["answer"] == "I am sorry, that was not approved."
    talk.say("please refund 7")
    assert talk.decide("yes")["answer"].startswith("Order 7 is refunded (key ")
    assert talk.end()["messages"] > 10
    running.shutdown()


# ── ETL ──


def test_etl_sums_up_and_says_which_shop_failed(tmp_path: Path) -> None:
    shops = tmp_path / "shops"
    shops.mkdir()
    for n in range(9):
        (shops / f"shop{n}.csv").write_text(f"item,count,price\nlamp,{n},10.0\ndesk,1,100.5\n")
    (shops / "broken.csv").write_text("item,count,price\nlamp,three,10.0\n")
    said = ended(command("shops", "--width", 3, cwd=tmp_path, file="etl_sales.py"), code=1)
    assert said.splitlines()[0] == "10 shops into shops/totals.json"
    assert "failed: ValueError: broken.csv, line 2" in said
    assert json.loads((shops / "totals.json").read_text()) == {"desk": 904.5, "lamp": 360.0}
    (shops / "totals.json").unlink()
    ended(command("shops", "--width", 3, cwd=tmp_path, file="etl_sales.py"), code=1)
    assert not (shops / "totals.json").exists(), "the run of today has been: its result is told, nothing is done again"


# ── as code to copy ──


def test_every_example_is_shown_and_says_how_to_start_it() -> None:
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    for path in [*EXAMPLES.glob("*.py"), EXAMPLES / "django_shop" / "manage.py"]:
        name = path.relative_to(ROOT / "docs").as_posix()
        assert f"({name})" in page, f"{name} is not linked from examples.md"
        assert f"{path.name} " in path.read_text(encoding="utf-8").split('"""')[1] or path.stem == "fastapi_orders"


def test_examples_are_strictly_typed(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy comes with the extra `test`")
    for name in ("fastapi", "rich"):
        pytest.importorskip(name, reason=f"{name} comes with the extra `test`")
    files = sorted(str(path) for path in EXAMPLES.glob("*.py"))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--cache-dir", str(tmp_path), *files],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
