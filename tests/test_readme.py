"""The code in the documents runs as it stands there, and prints what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import duroxide

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def run(code: str, directory: Path) -> str:
    """What a program prints; it must end well and say nothing on stderr."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=directory, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_the_quick_start_prints_what_readme_says_also_the_second_time(tmp_path: Path) -> None:
    (program,), (printed,) = blocks(ROOT / "README.md", "python"), blocks(ROOT / "README.md", "text")
    assert run(program, tmp_path) == printed
    assert run(program.replace('return f"Hello', 'return 1 / 0, f"Hello'), tmp_path) == printed, "nobody is greeted again"


def test_the_quick_start_goes_on_after_a_kill(tmp_path: Path) -> None:
    (program,), (printed,) = blocks(ROOT / "README.md", "python"), blocks(ROOT / "README.md", "text")
    dying = program.replace("print(", "import os, time\nwhile not client.list_all_instances(): time.sleep(0.001)\nos.kill(os.getpid(), 9)\nprint(")
    killed = subprocess.run([sys.executable, "-c", dying], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert killed.returncode == -9
    assert run(program, tmp_path) == printed


def test_the_two_functions_of_the_journey_run() -> None:
    (code,) = blocks(ROOT / "docs" / "journey.md", "python")
    names: dict[str, Any] = {}
    exec(compile(code, "journey.md", "exec"), names)
    provider = duroxide.SqliteProvider.in_memory()
    runtime = duroxide.Runtime(provider)
    runtime.register_activity("greet", names["greet"])
    runtime.register_orchestration("hello", names["hello"])
    runtime.start()
    client = duroxide.Client(provider)
    client.start_orchestration("hello-1", "hello", "Ada")
    result = client.wait_for_orchestration("hello-1")
    kinds = [event.kind for event in client.read_execution_history("hello-1", 1)]
    runtime.shutdown()
    assert result.output == "Hello, Ada!"
    assert kinds == ["OrchestrationStarted", "ActivityScheduled", "ActivityCompleted", "OrchestrationCompleted"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_in_documents_is_python(path: Path) -> None:
    for code in blocks(path, "python"):
        compile(code, path.name, "exec")
