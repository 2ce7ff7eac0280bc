"""This package and the reference on the same workloads, in turns, on this machine: medians, ranges, ratios.

usage: python bench/compare.py [--rounds N] [--quick] [--reference PYTHON | --env DIRECTORY] [--json FILE] [--write] [WORKLOAD ...]

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
TIMEOUT_S = 300


@dataclass(frozen=True)
class Workload:
    """`size`: ours and the reference's; `quick`: both in a short run. `more_is_better`: rates, else times."""

    name: str
    figure: str
    text: str
    unit: str
    size: tuple[int, int]
    quick: tuple[int, int]
    more_is_better: bool = False


WORKLOADS = (
    Workload("drain", "drain", "drain: queued instances of one activity", "instances/s", (5000, 1000), (1000, 200), True),
    Workload("latency", "latency_p50", "latency: start to result of one activity, p50", "ms", (300, 100), (100, 20)),
    Workload("steps", "step", "chain: 1,000 activities in sequence, per step", "ms", (1000, 1000), (300, 100)),
    Workload("width", "all", "`all()` over 2,000 activities", "ms", (2000, 2000), (300, 300)),
    Workload("messages", "message", "queue message to the status that answers it, p50", "ms", (300, 100), (100, 30)),
)


def installed(directory: Path) -> str:
    """The reference's Python in `directory`, made on first use."""
    python = directory / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not python.exists():
        print(f"installing {REFERENCE} into {directory}", file=sys.stderr)
        venv.create(directory, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", REFERENCE], check=True)
    return str(python)


def run(python: str, workload: Workload, size: int) -> dict[str, float] | None:
    """The figures of one process; None if it took longer than the limit."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        command = [python, str(HERE / "workloads.py"), workload.name, str(size), directory]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=directory)
        except subprocess.TimeoutExpired:
            return None
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(workload: Workload, python: str, rounds: int, quick: bool) -> dict[str, list[dict[str, float] | None]]:
    """Both sides in turns, so that whatever else the machine does hits both."""
    ours_size, theirs_size = workload.quick if quick else workload.size
    found: dict[str, list[dict[str, float] | None]] = {"ours": [], "reference": []}
    for n in range(rounds):
        found["ours"].append(run(sys.executable, workload, ours_size))
        found["reference"].append(run(python, workload, theirs_size))
        print(f"{workload.name} {n + 1}/{rounds}: {found['ours'][-1]} | {found['reference'][-1]}", file=sys.stderr)
    return found


def shown(values: list[float]) -> str:
    def figure(value: float) -> str:
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

    return f"{figure(statistics.median(values))} ({figure(min(values))} to {figure(max(values))})"


def row(workload: Workload, found: dict[str, list[dict[str, float] | None]]) -> str:
    ours = [figures[workload.figure] for figures in found["ours"] if figures]
    theirs = [figures[workload.figure] for figures in found["reference"] if figures]
    head = f"| {workload.text} | {shown(ours)} {workload.unit} |"
    if not theirs:
        return f"{head} did not end in {TIMEOUT_S} s | – |"
    pairs = [(o, t) for o, t in zip(ours, theirs)]
    ratios = [o / t if workload.more_is_better else t / o for o, t in pairs]
    low, high = min(ratios), max(ratios)
    return f"{head} {shown(theirs)} {workload.unit} | **{statistics.median(ratios):.0f}x** ({low:.0f} to {high:.0f}) |"


def flatness(found: dict[str, list[dict[str, float] | None]]) -> list[str]:
    """Whether the last hundred steps of the chain cost what the first hundred do."""
    lines = []
    for side in ("ours", "reference"):
        ratios = [f["step_last"] / f["step_first"] for f in found[side] if f]
        if ratios:
            lines.append(f"Chain, last 100 steps against the first 100, {side}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}).")
    return lines


def machine() -> str:
    import apsw

    import duroxide

    processor = platform.processor() or platform.machine()
    return (
        f"{os.cpu_count()} cores ({processor}, {platform.system()}), Python {platform.python_version()}, SQLite {apsw.sqlite_lib_version()}; "
        f"ours {duroxide.__version__} with synchronous=FULL, {REFERENCE} with synchronous=NORMAL."
    )


def report(results: dict[str, dict[str, list[dict[str, float] | None]]], rounds: int) -> str:
    lines = [f"Median (range) of {rounds} runs of each side in turns. {machine()}", ""]
    lines += ["| workload | ours | reference | ratio |", "|---|---|---|---|"]
    lines += [row(workload, results[workload.name]) for workload in WORKLOADS if workload.name in results]
    if "steps" in results:
        lines += ["", *flatness(results["steps"])]
    return "\n".join(lines)


def write(text: str) -> None:
    """The table into bench/README.md, between its markers."""
    page = HERE / "README.md"
    head, rest = page.read_text(encoding="utf-8").split(TABLE[0])
    page.write_text(f"{head}{TABLE[0]}\n{text}\n{TABLE[1]}{rest.split(TABLE[1])[1]}", encoding="utf-8")


def arguments() -> argparse.Namespace:
    names = [workload.name for workload in WORKLOADS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"any of {', '.join(names)} (default: all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it works, not how fast it is")
    parser.add_argument("--reference", metavar="PYTHON", help="a Python that has the reference installed")
    parser.add_argument("--env", type=Path, default=HERE / ".reference", help="where the reference is installed (default: bench/.reference)")
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
    chosen = [workload for workload in WORKLOADS if not given.workloads or workload.name in given.workloads]
    results = {workload.name: measure(workload, python, given.rounds, given.quick) for workload in chosen}
    text = report(results, given.rounds)
    print(text)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1))
    if given.write:
        write(text)


if __name__ == "__main__":
    main()
