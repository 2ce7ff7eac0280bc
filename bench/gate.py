"""The gate against regressions: instructions of five fixed pieces of work, counted by callgrind, against those kept in gate.json.

usage: python bench/gate.py [--record]

Time lies on a shared machine, instruction counts do not: two runs differ by less than 1 %. They are a Python's and a compiler's own, so
gate.json has them by version and machine; `--record` writes those of this one. What is not compared: waiting, fsync, cache misses.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
KEPT = HERE / "gate.json"
TOLERANCE = 0.06  # of a count; a change of 1 % is not noise, but other libraries' patch releases move that much
MARK = "getppid"  # callgrind writes its counts down whenever this function of the C library is called


def kind() -> str:
    return f"{platform.python_implementation().lower()}-{'.'.join(platform.python_version_tuple()[:2])}-{platform.machine().lower()}"


# ── the five ─────────────────────────────────────────────────────────────────────────────────────────────────


def turns() -> Callable[[], Any]:
    """200 turns of a live execution: a result in, the next activity out."""
    from parts import Live

    live = Live()
    return lambda: [live.step() for _ in range(200)]


def replay() -> Callable[[], Any]:
    """A cold turn over 1,000 events."""
    from parts import Cold

    cold = Cold(500)
    return lambda: cold.replay()


def world() -> Any:
    from duroxide.storage.sqlite import open_sqlite
    from duroxide.testing import World

    return World(open_sqlite(str(Path(tempfile.mkdtemp(prefix="bench-gate-", dir=os.environ["BENCH_GATE"])) / "gate.db"), implementation="c"))


def exchange() -> Callable[[], Any]:
    """48 finished turns in one transaction: each consumes a message, appends two events and an activity."""
    from duroxide.testing.world import work

    here, at = world(), iter(range(1_000_000))

    def prepared() -> Any:
        names = [f"i{next(at)}" for _ in range(48)]
        here.start(*names)
        return [here.turn(claim, events=2, work=[work(claim.instance)], status="Completed") for claim in here.claim("gate", turns=48)]

    sets = iter([prepared() for _ in range(4)])
    return lambda: here.commit(*next(sets))


def claim() -> Callable[[], Any]:
    """48 instances claimed from a queue of 500."""
    here = world()
    here.start(*(f"i{n}" for n in range(500)))
    return lambda: here.claim("gate", turns=48)


def load() -> Callable[[], Any]:
    """A history of 1,000 events."""
    here = world()
    here.born("i", events=1_000)
    return lambda: here.store.load("i")


WORK = (turns, replay, exchange, claim, load)


def run() -> None:
    """Under callgrind: each piece twice to warm it up, then between two marks."""
    ready = []
    for make in WORK:
        once = make()
        once(), once()
        ready.append(once)
    for once in ready:
        os.getppid()
        once()
    os.getppid()
    os._exit(0)  # no destructors: they are nobody's


# ── counting ─────────────────────────────────────────────────────────────────────────────────────────────────


def counted() -> dict[str, int]:
    """Instructions of each piece, in a process of its own under callgrind. RuntimeError says what went wrong."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise RuntimeError("valgrind is not installed")
    with tempfile.TemporaryDirectory(prefix="bench-gate-") as directory:
        command = [
            valgrind, "--tool=callgrind", f"--callgrind-out-file={directory}/counts", f"--dump-before={MARK}", "--combine-dumps=no",
            sys.executable, str(HERE / "gate.py"), "--run",
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONHASHSEED": "0", "BENCH_GATE": directory, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment, check=False)
        totals = [_total(path) for path in sorted(Path(directory).glob("counts.*"), key=lambda p: int(p.suffix[1:]))]
        if done.returncode or len(totals) < len(WORK) + 1:
            raise RuntimeError(f"callgrind ended with {done.returncode} and {len(totals)} counts: {done.stderr[-2000:]}")
    return {make.__name__: total for make, total in zip(WORK, totals[1 : len(WORK) + 1])}


def _total(path: Path) -> int:
    found = re.search(r"^(?:summary|totals): (\d+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"{path}: no summary")
    return int(found[1])


def kept() -> dict[str, int] | None:
    """The counts that this Python and machine had when they were recorded."""
    found: dict[str, int] | None = json.loads(KEPT.read_text()).get(kind()) if KEPT.exists() else None
    return found


def worse(before: dict[str, int], now: dict[str, int]) -> list[str]:
    """What costs more than it did, with the tolerance."""
    return [
        f"{name}: {now[name]:,} instructions, {before[name]:,} were recorded ({now[name] / before[name] - 1:+.1%})"
        for name in before
        if now[name] > before[name] * (1 + TOLERANCE)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="these counts are the ones to compare with from now on")
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        run()
    before, now = kept(), counted()
    for name, count in now.items():
        print(f"{name:10} {count:14,}" + (f"  {count / before[name] - 1:+.1%}" if before and name in before else ""))
    if given.record:
        everything = json.loads(KEPT.read_text()) if KEPT.exists() else {}
        KEPT.write_text(json.dumps({**everything, kind(): now}, indent=1, sort_keys=True) + "\n")
    elif before and (found := worse(before, now)):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
