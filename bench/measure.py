"""The measuring: one process a measurement, the sides in turns, so that whatever else the machine does hits all of them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from bench.plan import DBOS, NORMAL, OURS, REFERENCE, SIDES, Case
from bench.record import Record

HERE = Path(__file__).resolve().parent


class Machine:
    """Where things run: the Python of each side, and the server's URL."""

    def __init__(self, pythons: dict[str, str], url: str | None, directory: Path | None) -> None:
        self.pythons, self.url, self.directory = pythons, url, directory

    def run(self, command: list[str], place: str | None, options: list[str], timeout_s: int) -> tuple[dict[str, object] | None, str]:
        """(figures, "") of one process, or (None, why there are none). `place` None: a new directory."""
        with tempfile.TemporaryDirectory(prefix="bench-", dir=self.directory, ignore_cleanup_errors=True) as directory:
            whole = [*command, place or directory, *options]
            process = subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=directory)
            try:
                out, err = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                return None, f"did not end in {timeout_s} s"
            except BaseException:
                process.kill()
                raise
        try:
            return json.loads(out.strip().splitlines()[-1]), ""
        except (ValueError, IndexError):
            return None, (err.strip().splitlines() or [f"ended with {process.returncode}"])[-1][:200]

    def measure(self, case: Case, side: str, size: int) -> tuple[dict[str, object] | None, str]:
        place = self.url if case.table == "postgres" else None
        if place and side == REFERENCE:
            place = place.replace(":@/", "@localhost/")  # it wants a host, also beside a socket's directory
        script = "run_dbos.py" if side == DBOS else "run.py"
        options = [json.dumps({"synchronous": "normal"})] if side == NORMAL else []
        command = [self.pythons[side], str(HERE / "workloads" / script), case.workload, str(size)]
        return self.run(command, place, options, case.timeout_s)

    def ceiling(self, name: str) -> tuple[dict[str, object] | None, str]:
        command = [self.pythons[OURS], str(HERE / "ceiling.py")]
        return self.run(command, self.url if name == "pg_ceiling" else None, ["normal" if name.endswith("normal") else "full"], 120)


def chosen(cases: Iterable[Case], sides: Iterable[str], url: str | None) -> list[tuple[Case, list[str]]]:
    """The cases that can be measured, with their sides."""
    wanted = set(sides)
    found = [(case, [side for side in SIDES if side in case.sizes and side in wanted]) for case in cases]
    return [(case, those) for case, those in found if those and (case.table != "postgres" or url)]


def measure(record: Record, machine: Machine, cases: list[tuple[Case, list[str]]], rounds: int, quick: bool) -> None:
    """All of them, each measurement kept at once; what the record has already is not done again."""
    kinds = {"pg_ceiling" if case.table == "postgres" else "ceiling" for case, _ in cases if case.table != "footprint"}
    if any(NORMAL in sides for _, sides in cases):
        kinds.add("ceiling normal")
    for name in sorted(kinds):
        for n in range(1 if quick else min(rounds, 2)):
            if not record.has(name, "machine", n):
                _keep(record, name, "machine", n, 0, machine.ceiling(name))
    for case, sides in cases:
        for n in range(rounds):
            for side in sides:
                if n < case.rounds.get(side, rounds) and not record.has(case.name, side, n):
                    size = case.size(side, quick)
                    _keep(record, case.name, side, n, size, machine.measure(case, side, size))


def _keep(record: Record, case: str, side: str, n: int, size: int, found: tuple[dict[str, object] | None, str]) -> None:
    figures, error = found
    record.add(case, side, n, size, figures, error)
    shown = error or {k: round(v, 3) if isinstance(v, float) else v for k, v in (figures or {}).items() if not isinstance(v, list)}
    print(f"{case} of {size}, {side}, round {n + 1}: {shown}", file=sys.stderr)
