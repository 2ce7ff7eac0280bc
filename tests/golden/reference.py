"""Runs programs on the reference and writes recordings; started by record.py, in the reference's own python.

usage: python -I reference.py <directory for the recordings> <scratch directory> [program ...]
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import sqlite3
import sys
import traceback
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

import duroxide  # noqa: E402
from golden import programs, store  # noqa: E402
from golden.world import World  # noqa: E402

REPOSITORY = f"{HERE.parent.parent}/"
PACKAGES = f"{Path(duroxide.__file__).resolve().parent.parent}/"
LIBRARY = f"{Path(json.__file__).resolve().parent.parent}/"


def clean(value: Any) -> Any:
    """Texts without the places where this machine keeps its files."""
    if isinstance(value, str):
        return value.replace(REPOSITORY, "").replace(PACKAGES, "").replace(LIBRARY, "")
    if isinstance(value, list):
        return [clean(v) for v in value]
    if isinstance(value, dict):
        return {k: clean(v) for k, v in value.items()}
    return value


def record(name: str, scratch: Path) -> dict[str, Any]:
    directory = scratch / name
    directory.mkdir()
    world = World(duroxide, duroxide.SqliteProvider.open(str(directory / "run.db")))
    programs.run(name, world)
    del world
    # A copy: the reference may still be closing its pool, and two SQLites on one file spoil each other's locks.
    copy = Path(shutil.copytree(directory, scratch / f"{name}.copy"))
    db = sqlite3.connect(copy / "run.db")
    found = clean(store.instances(db.execute))
    db.close()
    return {"program": name, "reference": importlib.metadata.version("duroxide"), "instances": found}


def attempt(name: str, scratch: Path, target: Path) -> int:
    try:
        recording = record(name, scratch)
    except Exception:
        traceback.print_exc()
        return 1
    store.write(recording, target)
    counts = {i: sum(map(len, r["executions"].values())) for i, r in recording["instances"].items()}
    print(f"recorded {name} {counts}", flush=True)
    return 0


def main(target: str, scratch: str, *names: str) -> None:
    failed = []
    for name in names or programs.PROGRAMS:
        # A process each: the reference keeps one table of orchestrations per process, by name, and forgets none.
        child = os.fork()
        if child == 0:
            os._exit(attempt(name, Path(scratch), Path(target)))
        if os.waitpid(child, 0)[1]:
            failed.append(name)
    if failed:
        sys.exit(f"not recorded: {', '.join(failed)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
