"""`python tests/compat/record.py`: makes the files in fixtures/ afresh, by running the reference and killing it.

Owns which files there are. Needs DUROXIDE_ORACLE and DUROXIDE_ORACLE_0_1_24: a python that has duroxide 0.2.2, one that has 0.1.24
(on PyPI as a wheel for CPython 3.12). Beside each NAME.db.gz stands NAME.json.gz: how the reference ended what is in it.
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from compat import matrix

DIRECTORY = Path(__file__).with_name("fixtures")
# name -> (who left the file, who rode in their place for the run that nobody took over)
FIXTURES: dict[str, tuple[list[str], list[str]]] = {
    "0.1.24": (["0.1.24"], ["0.1.24", "0.2.2"]),
    "0.2.2": (["0.2.2"], ["0.2.2", "0.2.2"]),
    "there-and-back": (["0.2.2", matrix.OURS, "0.2.2"], ["0.2.2"] * 4),
    "ours": ([matrix.OURS], ["0.2.2", "0.2.2"]),
}


def pack(data: bytes, path: Path) -> None:
    path.write_bytes(gzip.compress(data, mtime=0))


def unpack(name: str, directory: Path) -> Path:
    """The file as it was left."""
    path = directory / f"{name}.db"
    path.write_bytes(gzip.decompress((DIRECTORY / f"{name}.db.gz").read_bytes()))
    return path


def expected(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(gzip.decompress((DIRECTORY / f"{name}.json.gz").read_bytes()))
    return found


def record(name: str, scratch: Path) -> None:
    left_by, instead = FIXTURES[name]
    states = matrix.states_for(left_by)
    (scratch / name).mkdir()
    left = matrix.File(scratch / name / "left.db")
    matrix.Journey(left, [*left_by, matrix.OURS], states, scratch / name).run(end=len(left_by))
    found = undisturbed(instead, states, scratch / name)
    pack(left.path.read_bytes(), DIRECTORY / f"{name}.db.gz")
    pack(json.dumps(matrix.comparable(found), ensure_ascii=False).encode(), DIRECTORY / f"{name}.json.gz")
    print(f"{name}: {len(states)} states, {len(found)} instances")


def undisturbed(riders: list[str], states: list[str], scratch: Path) -> matrix.Found:
    """A run of the reference alone."""
    for attempt in range(5):
        directory = scratch / f"alone-{'-'.join(riders)}-{attempt}"
        directory.mkdir()
        found = matrix.Journey(matrix.File(directory / "alone.db"), riders, states, directory).run()
        if not matrix.locked_out(found):
            return found
    raise AssertionError("the reference fails every time with a locked database")


def main(names: list[str]) -> None:
    DIRECTORY.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name in names or FIXTURES:
            record(name, Path(scratch))


if __name__ == "__main__":
    main(sys.argv[1:])
