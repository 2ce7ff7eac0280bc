"""This package, the reference and DBOS on the same workloads, in turns, beside the machine's own ceiling.

usage: python -m bench [--write] [--full] [--resume] [--quick] [--rounds N] [--sides ours,reference,dbos] [--python SIDE=PYTHON] [CASE ...]

Environments are made on first use below bench/.environments (the reference, DBOS, a PostgreSQL server; DATABASE_URL names another server).
Each measurement is a process of its own on a new database and is kept in bench/.record at once: `--resume` goes on where a run ended.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from bench import environments
from bench.measure import Machine, chosen, measure
from bench.plan import OURS, SIDES, cases
from bench.publish import ROOT, write
from bench.record import Record
from bench.table import report

HERE = Path(__file__).resolve().parent
RECORD = HERE / ".record" / "measurements.jsonl"


def arguments() -> argparse.Namespace:
    names = [case.name for case in cases(True)]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"any of {', '.join(names)} (default: all but the long ones)")
    parser.add_argument("--write", action="store_true", help="write bench/results.md, its plots and the excerpts in the READMEs")
    parser.add_argument("--full", action="store_true", help="also 100,000 parked instances, 1,000,000 timers, cold calls on 1,000,000 instances (some minutes more)")
    parser.add_argument("--resume", action="store_true", help="measure only what the record lacks")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: shows that it works, not how fast it is")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--sides", default="ours,reference,dbos", help="which sides (ours includes synchronous=normal)")
    parser.add_argument("--python", action="append", default=[], metavar="SIDE=PYTHON", help="a Python that has that side installed (also: server)")
    parser.add_argument("--record", type=Path, default=RECORD, metavar="FILE", help="where measurements are kept")
    parser.add_argument("--directory", type=Path, metavar="DIR", help="where databases are made (default: the system's temporary directory)")
    given = parser.parse_args()
    unknown = set(given.cases) - set(names)
    if unknown:
        parser.error(f"unknown case {min(unknown)!r}, expected one of {', '.join(names)}")
    return given


def about(python: str, url: str | None, rounds: int) -> dict[str, object]:
    code = "import apsw, duroxide; print(duroxide.__version__, apsw.sqlite_lib_version())"
    version, sqlite = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, cwd=HERE / "workloads").stdout.split()
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    versions = environments.PACKAGES
    return {
        "machine": f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores ({platform.machine()}, {platform.system()}), Python {platform.python_version()}, "
        f"ours {version}{f' at {commit}' if commit else ''}, {rounds} rounds.",
        "sqlite": f"Ours: SQLite {sqlite}, default options but 2 turn threads, 2 workers and a poll of 10 ms, synchronous=FULL. Reference: "
        f"{versions['reference'][0]}, the same options, synchronous=NORMAL (its only setting). DBOS: {versions['dbos'][0]}, its SQLite defaults, "
        "polls of 10 ms, as many workflows at once as it likes.",
        "postgres": "All on one server of this machine with its defaults (fsync on), each measurement in a schema of its own.",
        "url": url is not None,
    }


def main() -> None:
    given = arguments()
    asked = [case for case in cases(given.full or bool(given.cases)) if not given.cases or case.name in given.cases]
    sides = {side for side in SIDES if side.split(",")[0] in given.sides.split(",")}
    there = dict(entry.split("=", 1) for entry in given.python)
    pythons = environments.pythons(there, sides | {OURS})
    rounds = 1 if given.quick else given.rounds
    record = Record(given.record, given.resume)
    began = time.monotonic()
    needs_server = any(case.table == "postgres" for case in asked)
    with environments.server(there, pythons[OURS]) if needs_server else environments.no_server() as url:
        if not record.about or not given.resume:
            record.describe(about(pythons[OURS], url, rounds))
        machine = Machine(pythons, url, given.directory)
        measure(record, machine, chosen(asked, sides, url), rounds, given.quick)
    everything = cases(True)
    print(report(record, everything))
    print(f"{(time.monotonic() - began) / 60:.1f} minutes", file=sys.stderr)
    if given.write:
        for path in write(record, everything):
            print(f"wrote {path.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
