"""This package and the reference on the same workloads, in turns, on this machine: medians, ranges, ratios.

usage: python bench/compare.py [--rounds N] [--quick] [--reference PYTHON | --env DIR] [--postgres URL] [--json FILE] [--write] [WORKLOAD ...]

Ours is the `duroxide` that this Python imports, with default options but 2/2 threads and a poll of 10 ms (synchronous=FULL); the
reference (PyPI's duroxide 0.2.2, synchronous=NORMAL, its only setting) is installed into an environment of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
REFERENCE = "duroxide==0.2.2"
TABLE = "<!-- table -->", "<!-- end of table -->"
POSTGRES_TABLE = "<!-- postgres table -->", "<!-- end of postgres table -->"
TIMEOUT_S = 300

Figures = dict[str, float]  # of one run; empty if it did not end in time
Sides = dict[str, list[Figures]]  # "ours" and "reference", one entry a round


@dataclass(frozen=True)
class Workload:
    """`size`: ours and the reference's, for the {} in `text`; `quick`: both in a short run. `more_is_better`: rates, not times."""

    name: str
    figure: str
    text: str
    unit: str
    size: tuple[int, int]
    quick: tuple[int, int]
    more_is_better: bool = False


WORKLOADS = (
    Workload("drain", "drain", "drain: {} queued instances of one activity", "instances/s", (5000, 1000), (1000, 200), True),
    Workload("latency", "latency_p50", "latency: start to result of one activity, p50 of {}", "ms", (300, 100), (100, 20)),
    Workload("steps", "step", "chain: {} activities in sequence, per step", "ms", (1000, 1000), (300, 100)),
    Workload("width", "all", "`all()` over {} activities", "ms", (2000, 2000), (300, 300)),
    Workload("messages", "message", "queue message to the status that answers it, p50 of {}", "ms", (300, 100), (100, 30)),
    Workload("batches", "batches", "{} queue messages in batches of 50", "messages/s", (1000, 1000), (200, 200), True),
    Workload("idle", "idle", "a runtime with nothing to do for {} tenths of a second, CPU", "ms/s", (30, 30), (10, 10)),
)

POSTGRES_WORKLOADS = (
    Workload("drain", "drain", "drain: {} queued instances of one activity", "instances/s", (2000, 400), (300, 60), True),
    Workload("latency", "latency_p50", "latency: start to result of one activity, p50 of {}", "ms", (200, 60), (30, 10)),
    Workload("steps", "step", "chain: {} activities in sequence, per step", "ms", (500, 500), (100, 100)),
    Workload("width", "all", "`all()` over {} activities", "ms", (1000, 1000), (100, 100)),
)


def installed(directory: Path) -> str:
    """The reference's Python in `directory`, made on first use."""
    python = directory / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not python.exists():
        print(f"installing {REFERENCE} into {directory}", file=sys.stderr)
        venv.create(directory, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", REFERENCE], check=True)
    return str(python)


def run(python: str, workload: Workload, size: int, url: str | None) -> Figures:
    """The figures of one process; none if it took longer than the limit, or failed as the reference does when its file is locked."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as directory:
        command = [python, str(HERE / "workloads.py"), workload.name, str(size), url or directory]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=directory)
        except subprocess.TimeoutExpired:
            return {}
    if done.returncode:
        print(f"{' '.join(command)} failed: {done.stderr[-2000:]}", file=sys.stderr)
        if python == sys.executable:
            sys.exit("ours failed")
        return {}
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(workload: Workload, python: str, rounds: int, quick: bool, url: str | None) -> Sides:
    """Both sides in turns, so that whatever else the machine does hits both."""
    ours_size, theirs_size = workload.quick if quick else workload.size
    found: Sides = {"ours": [], "reference": []}
    for n in range(rounds):
        found["ours"].append(run(sys.executable, workload, ours_size, url))
        found["reference"].append(run(python, workload, theirs_size, url))
        print(f"{workload.name} {n + 1}/{rounds}: {found['ours'][-1]} | {found['reference'][-1]}", file=sys.stderr)
    return found


def figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def shown(values: list[float], unit: str = "") -> str:
    return f"{figure(statistics.median(values))}{unit} [{figure(min(values))} to {figure(max(values))}]"


def sized(workload: Workload, quick: bool) -> str:
    ours, theirs = workload.quick if quick else workload.size
    return workload.text.format(f"{ours:,}" if ours == theirs else f"{ours:,} (reference: {theirs:,})")


def row(workload: Workload, found: Sides, quick: bool) -> str:
    """One line of the table. Rounds in which a side did not end are counted, and no ratio is made up for them."""
    name = workload.figure
    cells = [sized(workload, quick)]
    for side in ("ours", "reference"):
        values = [figures[name] for figures in found[side] if figures]
        late = len(found[side]) - len(values)
        cell = shown(values, f" {workload.unit}") if values else ""
        if late:
            cell += f" {late} of {len(found[side])} rounds failed or did not end in {TIMEOUT_S} s"
        cells.append(cell.strip())
    pairs = [(ours[name], theirs[name]) for ours, theirs in zip(found["ours"], found["reference"]) if ours and theirs]
    ratios = [ours / theirs if workload.more_is_better else theirs / ours for ours, theirs in pairs]
    cells.append(f"**{shown(ratios, 'x')}**" if ratios else "–")
    return f"| {' | '.join(cells)} |"


def flatness(found: Sides) -> list[str]:
    """Whether the last hundred steps of the chain cost what the first hundred do."""
    lines = []
    for side in ("ours", "reference"):
        runs = [figures for figures in found[side] if figures]
        if runs:
            first, last = (shown([f[name] for f in runs], " ms") for name in ("step_first", "step_last"))
            lines.append(
                f"Chain, {side}: a step of the first 100 took {first}, of the last 100 {last}: "
                f"{shown([f['step_last'] / f['step_first'] for f in runs], ' times')}.\n"
            )
    return lines


def machine(url: str | None) -> str:
    import apsw

    import duroxide

    processor = platform.processor() or platform.machine()
    if url:
        return f"{os.cpu_count()} cores, Python {platform.python_version()}; both on one PostgreSQL server of this machine, with its defaults."
    return (
        f"{os.cpu_count()} cores ({processor}, {platform.system()}), Python {platform.python_version()}, "
        f"SQLite {apsw.sqlite_lib_version()}; ours {duroxide.__version__} with synchronous=FULL, {REFERENCE} with NORMAL."
    )


def report(chosen: list[Workload], results: dict[str, Sides], rounds: int, quick: bool, url: str | None) -> str:
    lines = [f"Median [range] of {rounds} rounds, a run of each side in turns; a ratio is of the two of a round. {machine(url)}", ""]
    lines += ["| workload | ours | reference | ratio |", "|---|---|---|---|"]
    lines += [row(workload, results[workload.name], quick) for workload in chosen]
    if "steps" in results:
        lines += ["", *flatness(results["steps"])]
    return "\n".join(lines).rstrip()


def write(text: str, table: tuple[str, str]) -> None:
    """The table into bench/README.md, between its markers."""
    page = HERE / "README.md"
    head, rest = page.read_text(encoding="utf-8").split(table[0])
    page.write_text(f"{head}{table[0]}\n{text}\n{table[1]}{rest.split(table[1])[1]}", encoding="utf-8")


def arguments() -> argparse.Namespace:
    names = [workload.name for workload in WORKLOADS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"any of {', '.join(names)} (default: all)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it works, not how fast it is")
    parser.add_argument("--reference", metavar="PYTHON", help="a Python that has the reference installed")
    parser.add_argument("--env", type=Path, default=HERE / ".reference", metavar="DIR", help="where it is installed")
    parser.add_argument("--postgres", metavar="URL", help="compare on that PostgreSQL database, each run in a schema of its own")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every figure of every run")
    parser.add_argument("--write", action="store_true", help="put the table into bench/README.md")
    given = parser.parse_args()
    unknown = set(given.workloads) - set(names)
    if unknown:
        parser.error(f"unknown workload {min(unknown)!r}, expected one of {', '.join(names)}")
    return given


def main() -> None:
    given = arguments()
    python = given.reference or installed(given.env)
    known = POSTGRES_WORKLOADS if given.postgres else WORKLOADS
    chosen = [workload for workload in known if not given.workloads or workload.name in given.workloads]
    results = {workload.name: measure(workload, python, given.rounds, given.quick, given.postgres) for workload in chosen}
    text = report(chosen, results, given.rounds, given.quick, given.postgres)
    print(text)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1))
    if given.write:
        write(text, POSTGRES_TABLE if given.postgres else TABLE)


if __name__ == "__main__":
    main()
