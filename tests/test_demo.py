"""`python -m duroxide`: the demo as a person starts it, and what it says when it cannot."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "duroxide"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_order_survives_two_kills_and_leaves_only_its_file(tmp_path: Path) -> None:
    for _ in range(2):  # the second order goes into the same file
        done = run("demo", "--db", "orders.db", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count("killed (SIGKILL)") == 2 and "'charge 7' 3 times" in done.stdout
        assert "\033" not in done.stdout and "\r" not in done.stdout, "no terminal, no control characters"
        assert done.stdout.splitlines()[-1].endswith("'parcel': 'parcel of 3'}")
    assert [path.name for path in tmp_path.iterdir()] == ["orders.db"]


@pytest.mark.parametrize(
    ("path", "reason"), [("", "No such file"), (".", "Is a directory"), ("text", "is not a database"), ("text/x.db", "Not a directory")]
)
def test_a_wrong_path_is_one_line_that_names_it(tmp_path: Path, path: str, reason: str) -> None:
    (tmp_path / "text").write_text("a text of more than sixteen bytes")
    done = run("demo", "--db", path, cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and reason in done.stderr and f"'{path}'" in done.stderr


def test_help_and_version(tmp_path: Path) -> None:
    assert run(cwd=tmp_path).returncode == 2 and "demo" in run("--help", cwd=tmp_path).stdout
    assert run("--version", cwd=tmp_path).stdout.startswith("duroxide ")
    assert run("nonsense", cwd=tmp_path).returncode == 2


@pytest.mark.skipif(os.name == "nt", reason="a Ctrl-C cannot be sent to one process there")
def test_an_interrupt_ends_it_and_its_worker(tmp_path: Path) -> None:
    demo = subprocess.Popen(
        [*COMMAND, "demo", "--db", "orders.db"], cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.endswith("charging\n"):
            demo.send_signal(signal.SIGINT)
    _, said = demo.communicate(timeout=60)  # ends only when the worker has closed its copy of these pipes
    assert demo.returncode == 130 and said.split() == ["interrupted"]
    assert [path.name for path in tmp_path.iterdir()] == ["orders.db"]
