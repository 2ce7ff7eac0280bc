"""The soak runs: every story ends as it must under kills and restarts. How flat a long run is, `bench/soak.py --minutes 60` says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"
sys.path.insert(0, str(BENCH))
import soak_verdict  # noqa: E402

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="samples come from /proc")


def run(directory: Path, minutes: float, sample_s: float) -> None:
    command = [sys.executable, str(BENCH / "soak.py"), "--minutes", str(minutes), "--sample", str(sample_s), "--csv", str(directory / "x.csv")]
    done = subprocess.run([*command, "--svg", str(directory / "x.svg")], capture_output=True, text=True, timeout=minutes * 60 + 300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "<polyline" in (directory / "x.svg").read_text(encoding="utf-8")


def test_a_short_soak_has_no_wrong_ending(tmp_path: Path) -> None:
    run(tmp_path, 0.15, 1)


@pytest.mark.soak
def test_an_hour_is_flat(tmp_path: Path) -> None:
    run(tmp_path, 60, 15)


def samples(**grows: float) -> list[dict[str, float]]:
    flat = dict.fromkeys(("rss_mb", "threads", "files", "objects"), 100.0) | {"wal_mb": 20.0, "wrong": 0.0}
    return [{name: value + grows.get(name, 0) * n for name, value in flat.items()} for n in range(80)]


@pytest.mark.parametrize("grows", [{"rss_mb": 1.0}, {"threads": 0.1}, {"files": 0.2}, {"objects": 1_000.0}, {"wal_mb": 1.0}, {"wrong": 1.0}])
def test_what_grows_is_seen(grows: dict[str, float]) -> None:
    assert soak_verdict.judge(samples()) == []
    assert soak_verdict.judge(samples(**grows))
