"""Traces: loggers and their fields, replay, the two line shapes, init_tracing and its refusals."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys

import pytest

from duroxide import tracing
from duroxide.context import ActivityContext, OrchestrationContext
from duroxide.options import RuntimeOptions

IDS = {"instanceId": "i", "executionId": 1, "orchestrationName": "o", "orchestrationVersion": "1.0.0"}
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
ORCHESTRATION_FIELDS = "instance_id=i execution_id=1 orchestration_name=o orchestration_version=1.0.0"


class FakeExecution:
    instance, execution_id, name, version, is_replaying = "i", 1, "o", "1.0.0", False


@pytest.fixture
def traces(tmp_path, monkeypatch):
    """init_tracing for one test; undone afterwards."""
    monkeypatch.setattr(tracing, "_installed", None)
    monkeypatch.delenv("RUST_LOG", raising=False)
    levels = {logger: logger.level for logger in (tracing.ROOT, tracing.ORCHESTRATION, tracing.ACTIVITY)}
    yield tmp_path / "traces.log"
    if tracing._installed is not None:
        tracing.ROOT.removeHandler(tracing._installed)
        if tracing._installed.stream is not sys.stdout:
            tracing._installed.stream.close()
    for logger, level in levels.items():
        logger.setLevel(level)


def orchestration():
    return OrchestrationContext(FakeExecution())


def activity():
    info = {**IDS, "activityName": "a", "activityId": 2, "workerId": "work-0-x"}
    return ActivityContext(info, cancelled=lambda: False)


def test_records_carry_the_ids_and_name_the_users_line(caplog):
    caplog.set_level(logging.DEBUG, "duroxide")
    orchestration().trace_info({"a": 1})
    activity().trace_debug("100 % done")
    first, second = caplog.records
    assert (first.name, first.levelno, first.getMessage(), first.instance_id, first.execution_id) == (
        "duroxide.orchestration", logging.INFO, "{'a': 1}", "i", 1,
    )  # fmt: skip
    assert (second.name, second.getMessage(), second.activity_name, second.activity_id, second.worker_id) == (
        "duroxide.activity", "100 % done", "a", 2, "work-0-x",
    )  # fmt: skip
    assert os.path.basename(first.pathname) == os.path.basename(second.pathname) == "test_tracing.py"


def test_nothing_is_traced_on_replay_nor_after_the_activity(caplog):
    caplog.set_level(logging.DEBUG, "duroxide")
    execution = FakeExecution()
    ctx = OrchestrationContext(execution)
    execution.is_replaying = True
    ctx.trace_error("again")
    ended = activity()
    ended._end()
    ended.trace_error("late")
    assert caplog.records == []


@pytest.mark.parametrize(("level", "number"), [("info", 20), ("warn", 30), ("error", 40), ("debug", 10)])
def test_levels(caplog, level, number):
    caplog.set_level(logging.DEBUG, "duroxide")
    getattr(orchestration(), f"trace_{level}")("x")
    getattr(activity(), f"trace_{level}")("x")
    assert [record.levelno for record in caplog.records] == [number, number]


def test_compact_lines(traces):
    tracing.init_tracing(str(traces))
    orchestration().trace_info("orch-info")
    activity().trace_warn("two\nlines \x1b[1m")
    orchestration().trace_debug("not shown")
    first, rest = traces.read_text().split("\n", 1)
    assert re.fullmatch(f"{TIME}  INFO duroxide::orchestration: orch-info {ORCHESTRATION_FIELDS}", first)
    assert re.fullmatch(
        rf"{TIME}  WARN duroxide::activity: two\nlines \\x1b\[1m {ORCHESTRATION_FIELDS} "
        "activity_name=a activity_id=2 worker_id=work-0-x\n",
        rest,
    )


def test_json_lines(traces):
    tracing.init_tracing(str(traces), "debug", "json")
    orchestration().trace_debug("ü \ud800")
    activity().trace_error('"x"')
    first, second = map(json.loads, traces.read_text().splitlines())
    assert re.fullmatch(TIME, first["timestamp"]) and first["level"] == "DEBUG"
    assert first["target"] == "duroxide::orchestration" and first["fields"]["message"].startswith("ü ")
    assert second["level"] == "ERROR" and second["target"] == "duroxide::activity"
    assert second["fields"] == {
        "message": '"x"', "instance_id": "i", "execution_id": "1", "orchestration_name": "o", "orchestration_version": "1.0.0",
        "activity_name": "a", "activity_id": "2", "worker_id": "work-0-x",
    }  # fmt: skip


def test_an_exception_is_written_after_the_message(traces):
    tracing.init_tracing(str(traces))
    try:
        raise ValueError("boom")
    except ValueError:
        tracing.ROOT.exception("failed")
    text = traces.read_text()
    assert "ERROR duroxide: failed\nTraceback" in text and "ValueError: boom" in text


def test_the_file_is_appended_to_and_the_second_call_is_refused(traces, tmp_path):
    traces.write_text("before\n")
    tracing.init_tracing(str(traces), log_level="error")
    orchestration().trace_error("after")
    assert traces.read_text().startswith("before\n") and "after" in traces.read_text()
    with pytest.raises(RuntimeError, match="^Failed to init tracing: a global default trace dispatcher has already been set$"):
        tracing.init_tracing(str(tmp_path / "other.log"))


def test_refusals(traces):
    path = "/nonexistent/x.log"
    expected = rf"^Failed to open log file '{path}': No such file or directory \(os error 2\)$"
    with pytest.raises(RuntimeError, match=expected):
        tracing.init_tracing(path)
    with pytest.raises(TypeError, match="argument 'log_file': 'int' object cannot be converted to 'PyString'"):
        tracing.init_tracing(5)
    with pytest.raises(TypeError, match="argument 'log_level': 'int' object cannot be converted to 'PyString'"):
        tracing.init_tracing(str(traces), 5)
    assert tracing._installed is None and not traces.exists()


@pytest.mark.parametrize(
    ("level", "rust_log", "shown"),
    [
        ("info", None, ["info", "warn", "runtime-warn"]),
        ("OFF", None, ["runtime-warn"]),
        ("nonsense", None, ["log level", "warn", "runtime-warn"]),
        ("info", "debug", ["debug", "info", "warn", "runtime-info", "runtime-warn"]),
        ("debug", "duroxide::orchestration=warn,error", ["warn"]),
        ("info", "no such level", ["info", "warn", "runtime-warn"]),
    ],
)
def test_which_lines_are_written(traces, monkeypatch, level, rust_log, shown):
    if rust_log is not None:
        monkeypatch.setenv("RUST_LOG", rust_log)
    tracing.init_tracing(str(traces), level)
    ctx, runtime = orchestration(), logging.getLogger("duroxide.runtime")
    ctx.trace_debug("debug")
    ctx.trace_info("info")
    ctx.trace_warn("warn")
    runtime.info("runtime-info")
    runtime.warning("runtime-warn")
    lines = traces.read_text().splitlines()
    assert len(lines) == len(shown)
    for line, text in zip(lines, shown, strict=True):
        assert f": {text}" in line


def test_a_runtime_writes_to_stdout_only_if_its_options_say_how(traces, capsys):
    tracing.start_runtime(RuntimeOptions())
    orchestration().trace_info("silent")
    assert capsys.readouterr().out == ""
    tracing.start_runtime(RuntimeOptions(log_format="json"))
    orchestration().trace_info("shown")
    tracing.start_runtime(RuntimeOptions(log_level="debug"))
    orchestration().trace_debug("the first setting stays")
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["fields"]["message"] == "shown"


@pytest.mark.oracle
def test_lines_have_the_references_shape(traces, tmp_path):
    """The reference writes the same lines but for time, colours and the lines of its own internals."""
    script = """
import sys, duroxide as d
d.init_tracing(sys.argv[1], "info", sys.argv[2])
p = d.SqliteProvider.in_memory()
r, c = d.Runtime(p, d.RuntimeOptions(dispatcher_poll_interval_ms=5)), d.Client(p)
def o(ctx, input):
    ctx.trace_info("orch-info")
    yield ctx.schedule_activity("a")
r.register_orchestration("o", o)
r.register_activity("a", lambda ctx, input: ctx.trace_warn("act"))
r.start(); c.start_orchestration("i", "o"); c.wait_for_orchestration("i"); r.shutdown()
"""
    ours = {}
    tracing.init_tracing(str(traces), "info", "json")
    orchestration().trace_info("orch-info")
    activity().trace_warn("act")
    for line in map(json.loads, traces.read_text().splitlines()):
        ours[line["target"]] = line
    path = tmp_path / "reference.log"
    subprocess.run([os.environ["DUROXIDE_ORACLE"], "-c", script, str(path), "json"], check=True, timeout=60, cwd=tmp_path)
    theirs = {line["target"]: line for line in map(json.loads, path.read_text().splitlines())}
    for target in ("duroxide::orchestration", "duroxide::activity"):
        ids = {line["fields"].pop("worker_id", None) is None for line in (theirs[target], ours[target])}
        assert len(ids) == 1 and theirs[target]["fields"] == ours[target]["fields"]
        assert set(theirs[target]) == set(ours[target]) and theirs[target]["level"] == ours[target]["level"]
