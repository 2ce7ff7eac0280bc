"""The benchmarks run: every workload, small, on this package; and what they write is what was measured."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench import plan, plots, table
from bench.record import Record

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "bench"
SIZES = {
    "drain": 20, "drain_ten": 5, "chain": 20, "all_of": 20, "batches": 60, "chat": 3, "starts_1": 10, "starts_8": 16, "starts_32": 32,
    "starts_bulk": 50, "instance": 5, "child": 5, "event": 5, "message": 60, "payload_1k": 2, "payload_100k": 2, "payload_5m": 1,
    "replay": 20, "idle": 1, "parked": 20, "sleeping": 20, "importing": 1, "packaged": 1,
}  # fmt: skip
LONG = {"mixed": 4, "timers": 2, "processes": 20, "crew": 5, "recovery": 20, "admin": 200}


def run(workload: str, size: int, directory: Path) -> dict[str, float]:
    command = [sys.executable, str(BENCH / "workloads" / "run.py"), workload, str(size), str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("workload", SIZES)
def test_workload_runs(workload: str, tmp_path: Path) -> None:
    assert run(workload, SIZES[workload], tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("workload", LONG)
def test_long_workload_runs(workload: str, tmp_path: Path) -> None:
    assert run(workload, LONG[workload], tmp_path)


def test_every_case_names_a_workload_and_figures_that_it_gives(tmp_path: Path) -> None:
    known = {**SIZES, **LONG}
    assert {case.workload for case in plan.cases(True)} == set(known)
    for workload in ("drain", "instance", "chain", "all_of"):
        found = run(workload, SIZES[workload], tmp_path)
        for case in plan.cases(True):
            if case.workload == workload:
                assert {figure.key for figure in case.figures} <= set(found)


def test_the_command_says_what_it_takes() -> None:
    done = subprocess.run([sys.executable, "-m", "bench", "nonsense"], capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)
    assert done.returncode == 2 and "unknown case 'nonsense', expected one of drain, drain_ten" in done.stderr


# ── what is written ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def record(tmp_path: Path) -> Record:
    made = Record(tmp_path / "r.jsonl", resume=False)
    made.describe({"machine": "a machine."})
    for n, (ours, theirs) in enumerate([(1000.0, 10.0), (2000.0, 10.0), (3000.0, 20.0)]):
        made.add("drain", "ours", n, 500, {"drain": ours})
        made.add("drain", "reference", n, 50, {"drain": theirs})
    made.add("drain", "dbos", 0, 50, None, "did not end in 120 s")
    made.add("instance", "ours", 0, 300, {"p50": 2.0, "p99": 4.0})
    made.add("instance", "reference", 0, 300, {"p50": 40.0, "p99": 50.0})
    made.add("ceiling", "machine", 0, 0, {"step@1": 1000.0, "step@48": 8000.0})
    return made


def test_a_row_has_median_range_ratio_and_share_of_the_ceiling(record: Record) -> None:
    (line,) = [line for line in table.report(record, plan.cases(True)).splitlines() if line.startswith("| drain: queued instances of 1 ")]
    assert "2,000 instances/s [1,000 to 3,000]" in line and "10 instances/s [10 to 20] (n = 50)" in line
    assert "**150x [100 to 200]**" in line
    assert "| 50 % |" in line, "2,000 of the 4,000 instances/s that 8,000 steps/s allow"
    assert "did not end in 120 s" in line and "yes / no / yes" in line


def test_a_time_is_compared_the_other_way_round(record: Record) -> None:
    (line,) = [line for line in table.report(record, plan.cases(True)).splitlines() if line.startswith("| latency of an instance of 1 step, p50")]
    assert "**20x**" in line and "| 150 % |" in line, "three commits of 1 ms are 150 % of 2 ms"


def test_a_record_is_taken_up_again_and_lacks_only_what_was_not_measured(record: Record) -> None:
    again = Record(record.path, resume=True)
    assert again.found == record.found and again.about == record.about
    assert again.has("drain", "ours", 2) and not again.has("drain", "ours", 3) and not again.has("chain_10", "ours", 0)
    assert Record(record.path, resume=False).found == {}


def test_plots_are_drawings_of_what_was_given() -> None:
    svg = plots.bars("rates & more", [("drain", {"ours": 1000.0, "reference": 10.0})], "per second")
    widths = [float(w) for w in re.findall(r"width='([\d.]+)' height='10' fill='#(?:1f6feb|d29922)'", svg)]
    assert len([w for w in widths if w > 10]) == 1 and "rates &amp; more" in svg
    assert plots.lines("chain", {"ours": [(0, 1.0), (100, 1.0)], "reference": [(0, 20.0), (100, 80.0)]}, "steps", "ms").count("<polyline") == 2


EXCERPTS = [(ROOT / "README.md", "<!-- bench -->", "<!-- end of bench -->"), (BENCH / "README.md", "<!-- table -->", "<!-- end of table -->")]


@pytest.mark.parametrize("page,begin,end", EXCERPTS, ids=["README", "bench"])
def test_figures_in_a_page_are_those_of_the_results(page: Path, begin: str, end: str) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count(begin) == 1 and text.count(end) <= 1
    rows = [line for line in text.partition(begin)[2].partition(end)[0].splitlines() if line.startswith("| ") and "| workload" not in line]
    if not rows:
        pytest.skip("no figures yet")
    results = [line for line in (BENCH / "results.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    for row in rows:  # several tables have a row of that name
        there = [line for line in results if line.split(" | ")[0] == row.split(" | ")[0]]
        assert any(all(cell in line for cell in row.strip("| ").split(" | ")) for line in there), row


def test_figures_in_the_page_on_performance_are_those_of_the_results() -> None:
    """Whatever it says in bold is a cell of results.md."""
    if not (ROOT / "docs" / "performance.md").exists():
        pytest.skip("not written yet")
    results = (BENCH / "results.md").read_text(encoding="utf-8")
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert [figure for figure in re.findall(r"\*\*(\d[^*]*)\*\*", text) if figure not in results] == []
