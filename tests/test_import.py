"""What `import duroxide` brings into a process, seen in fresh interpreters."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
# Each takes milliseconds to import and is needed by few programs: whoever needs it imports it then.
LATER = (
    "asyncio", "concurrent.futures", "dataclasses", "datetime", "http", "inspect", "logging", "platform", "psycopg", "random",
    "socket", "ssl", "string", "subprocess", "textwrap", "tokenize", "traceback", "urllib.parse", "uuid",
)  # fmt: skip


def loaded_by(code: str) -> set[str]:
    """Modules that are there after `code`, in an interpreter that has run nothing before it: no site, no editable finder."""
    import apsw

    places = [str(HERE), str(Path(apsw.__file__).parent.parent)]
    code = f"import sys; sys.path[:0] = {places!r}; {code}; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-S", "-c", code], check=True, capture_output=True, text=True)
    return set(told.stdout.split())


def test_import_leaves_what_few_programs_need_for_later() -> None:
    assert loaded_by("import duroxide") & set(LATER) == set()


def test_a_program_that_runs_an_instance_imports_no_logging() -> None:
    code = "; ".join((
        "import duroxide as d", "p = d.SqliteProvider.in_memory()", "r = d.Runtime(p)", "r.register_orchestration('o', lambda c, i: i)",
        "r.start()", "c = d.Client(p)", "c.start_orchestration('i', 'o', 1)", "assert c.wait_for_orchestration('i').output == 1",
        "r.shutdown(100)",
    ))  # fmt: skip
    assert "logging" not in loaded_by(code)
