"""The benchmarks run: every workload, small, on this package. How fast they are is bench/compare.py's to say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"
SIZES = {"drain": 20, "latency": 10, "steps": 20, "width": 20, "messages": 60, "batches": 120, "idle": 2}


@pytest.mark.parametrize("workload", SIZES)
def test_workload_runs(workload: str, tmp_path: Path) -> None:
    command = [sys.executable, str(BENCH / "workloads.py"), workload, str(SIZES[workload]), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert all(figure > 0 for figure in json.loads(done.stdout.splitlines()[-1]).values())


def test_comparison_says_what_it_takes() -> None:
    done = subprocess.run([sys.executable, str(BENCH / "compare.py"), "nonsense"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "unknown workload 'nonsense', expected one of drain, latency, steps, width, messages, batches, idle" in done.stderr
