"""A forked child and what it inherits: SQLite's connections stay with the parent, whoever uses them in the child is told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

PROGRAM = """
import os, sys, warnings
import duroxide
warnings.simplefilter("ignore")
path, implementation = sys.argv[1:]
from duroxide.storage.sqlite import open_sqlite

def flow(ctx, value):
    return (yield ctx.schedule_activity("echo", value))

def start(provider):
    runtime = duroxide.Runtime(provider)
    runtime.register_activity("echo", lambda ctx, value: value)
    runtime.register_orchestration("flow", flow)
    runtime.start()
    return runtime

def run(client, instance):
    client.start_orchestration(instance, "flow", instance)
    assert client.wait_for_orchestration(instance, 20_000).output == instance

def in_child(work):
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return child

def join(child):
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

"""

REFUSED = """
provider = duroxide.SqliteProvider(open_sqlite(path, implementation=implementation))
client = duroxide.Client(provider)
runtime = start(provider)
run(client, "before")

def everything_is_refused():
    for call in (
        lambda: client.start_orchestration("x", "flow"), lambda: client.get_status("before"), client.list_all_instances,
        lambda: client.wait_for_orchestration("never", 20_000), lambda: client.delete_instance("before", True),
        lambda: duroxide.Client(provider).raise_event("before", "e"), lambda: duroxide.Runtime(provider).start(),
        lambda: path == ":memory:" and client.get_status("x") or open_sqlite(path),
    ):
        try:
            call()
        except RuntimeError as error:
            assert "before this process was forked" in str(error), error
        else:
            raise AssertionError("it was not refused")
    runtime.shutdown(0)
    provider.close()

join(in_child(everything_is_refused))
run(client, "after")
runtime.shutdown()
provider.close()
"""

OPENED_BY_EACH = """
def work(name):
    mine = duroxide.SqliteProvider(open_sqlite(path, implementation=implementation))
    working = start(mine)
    for n in range(20):
        run(duroxide.Client(mine), f"{name}-{n}")
    working.shutdown()
    mine.close()

open_sqlite(path).close()
children = [in_child(lambda name=name: work(name)) for name in ("a", "b")]
work("parent")
for child in children:
    join(child)
after = open_sqlite(path, implementation=implementation)
assert len(after.instances("Completed")) == 60
assert list(after._cold.execute("PRAGMA integrity_check")) == [("ok",)]
after.close()
"""


def finishes(program: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM + program, *arguments], timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("implementation", ["c", "python"])
def test_what_was_opened_before_a_fork_is_refused_in_the_child_and_serves_the_parent(tmp_path: Path, implementation: str) -> None:
    finishes(REFUSED, str(tmp_path / "x.db"), implementation)


def test_a_store_in_memory_stays_with_the_parent_too() -> None:
    finishes(REFUSED, ":memory:", "c")


@pytest.mark.parametrize("implementation", ["c", "python"])
def test_children_that_open_the_file_themselves_share_it(tmp_path: Path, implementation: str) -> None:
    finishes(OPENED_BY_EACH, str(tmp_path / "x.db"), implementation)
