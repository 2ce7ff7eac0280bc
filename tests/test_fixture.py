"""A SQLite file that the reference (0.2.2) left in mid-flight, taken over by this package.

`data/inflight_orchestrations.py` has the code that the file's instances run and what a client sends to finish them;
`data/sqlite_resume_expected.txt` is what the reference printed when it resumed a copy itself.
"""

from __future__ import annotations

import importlib.util
import shutil
import time
from pathlib import Path
from typing import Any

import apsw
import pytest

import duroxide
from duroxide.storage.sqlite import open_sqlite

DATA = Path(__file__).resolve().parent / "data"
LEFT_AT_MS = 1_795_336_343_037  # when the reference was killed
# The reference's own mistake: get_custom_status() after a continue-as-new gives the status that was carried, not the new one (D8).
STALE_STATUS = ("[2, 'last', 'gen1', '2',", "[2, 'last', 'gen2', '2',")


def code() -> Any:
    spec = importlib.util.spec_from_file_location("inflight_orchestrations", DATA / "inflight_orchestrations.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def expected() -> dict[str, str]:
    lines = (DATA / "sqlite_resume_expected.txt").read_text().replace(*STALE_STATUS).splitlines()
    return {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in lines}


def printed(result: Any) -> str:
    """A result as the expectation's lines have it; an error by the end of its traceback."""
    error = (result.error or "").replace("\n", " ")
    if "Traceback" in error:
        error = " " + error[error.rindex("f_fail") :]
    return f"{result.status} {result.output} {error} {result.custom_status} {result.custom_status_version}"


def set_the_clock_back(path: str) -> None:
    """Timers that were an hour off when the file was made are an hour off again."""
    connection = apsw.Connection(path)
    connection.execute(
        "UPDATE orchestrator_queue SET visible_at = ? WHERE visible_at > ?", (int(time.time() * 1000) + 3_600_000, LEFT_AT_MS)
    )
    connection.close()


@pytest.fixture(params=["c", "python"])
def provider(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    path = shutil.copy(DATA / "sqlite_inflight_0.2.2.db", tmp_path / "inflight.db")
    set_the_clock_back(str(path))
    opened = duroxide.SqliteProvider(open_sqlite(str(path), implementation=request.param))
    yield opened
    opened.close()


def send_what_finishes(client: Any, finish: list[tuple[str, ...]]) -> None:
    for verb, instance, name, data in finish:
        (client.raise_event if verb == "raise" else client.enqueue_event)(instance, name, data)
    client.cancel_instance("i_timer_long", "fixture cancel")


def test_resuming_gives_what_the_reference_printed(provider: Any) -> None:
    module = code()
    runtime = duroxide.Runtime(provider, duroxide.RuntimeOptions(dispatcher_poll_interval_ms=5))
    module.register(runtime)
    client = duroxide.Client(provider)
    runtime.start()
    try:
        send_what_finishes(client, module.FINISH)
        found = {i: printed(client.wait_for_orchestration(i, 20_000)) for i in expected()}
    finally:
        runtime.shutdown(2000)
    assert found == expected()
    assert client.get_status("i_pending_act").status == "Running"


def test_recorded_results_are_not_asked_for_again(provider: Any) -> None:
    """Only activities without a stored result run: what history holds is never run a second time."""
    module = code()
    runtime = duroxide.Runtime(provider)
    ran: list[tuple[str, str, Any]] = []

    class Recorded:
        def register_activity(self, name: str, function: Any) -> None:
            def traced(ctx: Any, input: Any) -> Any:
                ran.append((ctx.instance_id, name, input))
                return function(ctx, input)

            runtime.register_activity(name, traced)

        def __getattr__(self, name: str) -> Any:
            return getattr(runtime, name)

    module.register(Recorded())
    client = duroxide.Client(provider)
    stored = {i: results(client, i) for i in client.list_all_instances()}
    runtime.start()
    try:
        send_what_finishes(client, module.FINISH)
        for instance in expected():
            client.wait_for_orchestration(instance, 20_000)
    finally:
        runtime.shutdown(2000)
    for instance, before in stored.items():
        assert results(client, instance)[: len(before)] == before, instance
    assert [r for r in ran if r[0] in ("i_parent::sub::2", "i_sys", "i_queue")] == []
    assert [r for r in ran if r[0] == "i_session"] == [("i_session", "echo", 2)]
    assert ("i_locked_act", "hang", 7) in ran


def results(client: Any, instance: str) -> list[tuple[int, str, Any]]:
    return [
        (e.source_event_id, e.kind, e.data)
        for e in client.read_execution_history(instance, 1)
        if e.kind in ("ActivityCompleted", "ActivityFailed", "TimerFired")
    ]
