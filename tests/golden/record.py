"""`python -m tests.golden.record`: runs every program on the reference and keeps what it stored in histories/*.json.

The reference runs in a process of its own: the python of DUROXIDE_ORACLE, or of an environment that is made for it with
`pip install duroxide==0.2.2`. Only that process reads the SQLite files, and only after the reference has closed them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from . import store

REFERENCE = "duroxide==0.2.2"


def oracle(directory: Path) -> str:
    """The python that has the reference."""
    python = os.environ.get("DUROXIDE_ORACLE")
    if python:
        return python
    venv.create(directory, with_pip=True)
    python = str(directory / ("Scripts" if os.name == "nt" else "bin") / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", REFERENCE], check=True)
    return python


def main(names: list[str]) -> None:
    worker = Path(__file__).with_name("reference.py")
    with tempfile.TemporaryDirectory() as scratch:
        # -I: the checkout must not be importable there, its `duroxide` would hide the reference.
        command = [oracle(Path(scratch) / "venv"), "-I", str(worker), str(store.DIRECTORY), scratch, *names]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
