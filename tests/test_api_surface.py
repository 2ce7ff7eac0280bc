"""Our public surface against the reference's: nothing missing, nothing different, and what is more is listed here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import duroxide
from duroxide import _duroxide

HERE = Path(__file__).parent
RECORDED = HERE / "data" / "api_surface_0.2.2.json"

# Native classes that are aliases of the public ones here: their own members are not promised (docs/differences.md).
ALIASES = ("PyClient", "PyRuntime", "PySqliteProvider", "PyPostgresProvider", "PyPostgresEntraOptions")

MORE_NAMES = {
    "duroxide.ActivityError", "duroxide.ActivityTimeout", "duroxide.Cancelled", "duroxide.DuroxideError",
    "duroxide.NondeterminismError", "duroxide.NotFound", "duroxide.OperationTimeout", "duroxide.OptionError",
    "duroxide.OrchestrationFailed", "duroxide.PoisonError", "duroxide.ProviderError", "duroxide.SubOrchestrationError", "duroxide.TypedTask",
}  # fmt: skip
MORE_MEMBERS = {
    "Client": {"start_orchestrations"},
    "RuntimeOptions": {"check", "effective"},
    "PyRuntimeOptions": {"check", "effective"},
    "ScheduledTask": {"result"},
    "SqliteProvider": {"close"},
    "PostgresProvider": {"close"},
}
# (class, member or "call") -> parameters that ours has after the reference's.
MORE_PARAMETERS = {
    ("ActivityContext", "call"): ["cancelled", "client"],
    ("SqliteProvider", "open"): ["synchronous"],
    ("PostgresProvider", "connect"): ["max_connections", "acquire_timeout_ms"],
    ("PostgresProvider", "connect_with_schema"): ["max_connections", "acquire_timeout_ms"],
    ("PostgresEntraOptions", "call"): ["credential"],
    ("Runtime", "call"): ["clock"],
}
# class -> attributes that ours has on the class (as properties), the reference only on its instances.
ON_THE_CLASS = {
    "OrchestrationContext": {"execution_id", "instance_id", "orchestration_name", "orchestration_version"},
}


def extracted(python: str) -> dict[str, object]:
    run = subprocess.run([python, str(HERE / "api_surface.py")], check=True, capture_output=True, text=True, cwd=HERE)
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def ours():
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, str(HERE / "api_surface.py")],
        check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def theirs():
    return json.loads(RECORDED.read_text())


def test_all_is_the_references(ours, theirs):
    assert ours["__all__"] == theirs["__all__"] and len(duroxide.__all__) == 44


def test_no_name_is_missing_and_every_other_one_is_listed(ours, theirs):
    assert sorted(set(theirs) - set(ours)) == []
    assert set(ours) - set(theirs) == MORE_NAMES


def test_signatures_defaults_and_attributes_are_the_same(ours, theirs):
    differing = {}
    for name, wanted in theirs.items():
        short = name.rpartition(".")[2]
        if name == "__all__" or short in ALIASES:
            continue
        found = ours[name]
        if "members" in wanted:
            found = without_additions(short, found)
            if wanted["call"] is None:
                found["call"] = None
        if found != wanted:
            differing[name] = (found, wanted)
    assert differing == {}


def without_additions(short, found):
    """The description of one of our classes without the members and parameters that are listed above as more."""
    more = MORE_MEMBERS.get(short, set())
    assert more <= set(found["members"]), f"{short} is listed with members that it does not have"
    members = {name: call for name, call in found["members"].items() if name not in more}
    for (owner, member), names in MORE_PARAMETERS.items():
        if owner == short:
            call = found["call"] if member == "call" else members[member]
            assert [parameter[0] for parameter in call[-len(names) :]] == names
            assert all(parameter[2] != "-" for parameter in call[-len(names) :]), "what is more has to be optional"
            del call[-len(names) :]
    attributes = [name for name in found["attributes"] if name not in ON_THE_CLASS.get(short, ())]
    return {**found, "members": members, "attributes": attributes}


def test_aliases_are_the_same_objects():
    for name in duroxide.__all__:
        if name.startswith("Py"):
            assert getattr(duroxide, name) is getattr(duroxide, name[2:])
    for name in ALIASES:
        assert getattr(duroxide, name) is getattr(duroxide, name[2:]) is getattr(_duroxide, name)


def test_the_version_is_that_of_the_distribution():
    text = (HERE.parent / "pyproject.toml").read_text()
    assert f'version = "{duroxide.__version__}"' in text.splitlines()


def test_what_is_passed_to_postgres_is_checked_first():
    with pytest.raises(TypeError, match="argument 'database_url': 'int' object cannot be converted to 'PyString'"):
        duroxide.PostgresProvider.connect(5)
    with pytest.raises(TypeError, match="positional argument"):
        duroxide.PostgresEntraOptions("a")
    with pytest.raises(OverflowError, match="can't convert negative int to unsigned"):
        duroxide.PostgresEntraOptions(max_connections=-1)
    with pytest.raises(TypeError, match="argument 'schema'"):
        duroxide.PostgresProvider.connect_with_schema("postgres://x", None)
    with pytest.raises(OverflowError, match="out of range"):
        duroxide.PostgresProvider.connect_with_entra("h", 1 << 16, "d", "u")
    with pytest.raises(TypeError, match="cannot be converted to 'PyPostgresEntraOptions'"):
        duroxide.PostgresProvider.connect_with_schema_and_entra("h", 1, "d", "u", "s", {})


def test_token_functions_do_nothing_for_unknown_tokens():
    for name in _duroxide.__all__:
        if name.startswith("orchestration_get_kv_all"):
            assert not getattr(_duroxide, name)("t")
    assert _duroxide.orchestration_get_kv_length("t") == _duroxide.orchestration_prune_kv_values("t", 5) == 0
    assert _duroxide.orchestration_get_kv_value("t", "k") is _duroxide.orchestration_get_custom_status("t") is None
    assert _duroxide.activity_is_cancelled("t") is False
    assert _duroxide.activity_tag("t") is _duroxide.activity_get_client("t") is None
    assert _duroxide.orchestration_set_custom_status("t", "x") is _duroxide.orchestration_set_kv_value("t", "k", "v") is None
    with pytest.raises(TypeError, match="argument 'message': 'int' object cannot be converted to 'PyString'"):
        _duroxide.orchestration_trace_log("t", "info", 5)


def test_token_functions_reach_the_context_that_gave_the_token():
    activity = duroxide.ActivityContext(
        {
            "instanceId": "i", "executionId": 1, "orchestrationName": "o", "orchestrationVersion": "1.0.0", "activityName": "a",
            "workerId": "w", "tag": "gpu",
        },
        cancelled=lambda: True,
        client=lambda: "client",
    )  # fmt: skip
    token = activity._trace_token
    assert (_duroxide.activity_tag(token), _duroxide.activity_is_cancelled(token)) == ("gpu", True)
    assert _duroxide.activity_get_client(token) == "client"
    assert _duroxide.orchestration_get_custom_status(token) is None


@pytest.mark.oracle
def test_the_recorded_surface_is_that_of_the_reference(theirs, tmp_path):
    assert extracted(os.environ["DUROXIDE_ORACLE"]) == theirs
