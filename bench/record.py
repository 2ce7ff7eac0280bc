"""The record of a run: one line of JSON for each measurement, kept as it goes, so that an interrupted run can go on.

Owns the file and what is asked of it: which measurements are there, the figures of a side, medians and ratios.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from bench.plan import Case, Figure


class Record:
    """Measurements by (case, side, round). A measurement without figures says why: `error`."""

    def __init__(self, path: Path, resume: bool) -> None:
        self.path = path
        self.about: dict[str, Any] = {}
        self.found: dict[tuple[str, str, int], dict[str, Any]] = {}
        if resume and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._take(json.loads(line))
        else:
            path.unlink(missing_ok=True)

    def _take(self, entry: dict[str, Any]) -> None:
        if "about" in entry:
            self.about = entry["about"]
        else:
            self.found[entry["case"], entry["side"], entry["round"]] = entry

    def _append(self, entry: dict[str, Any]) -> None:
        self._take(entry)
        self.path.parent.mkdir(exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def describe(self, about: dict[str, Any]) -> None:
        self._append({"about": about})

    def has(self, case: str, side: str, round: int) -> bool:
        return (case, side, round) in self.found

    def add(self, case: str, side: str, round: int, size: int, figures: dict[str, Any] | None, error: str = "") -> None:
        self._append({"case": case, "side": side, "round": round, "size": size, "figures": figures, "error": error})

    # ── what was found ───────────────────────────────────────────────────────────────────────────────────────

    def entries(self, case: str, side: str) -> list[dict[str, Any]]:
        return [entry for (c, s, _), entry in sorted(self.found.items(), key=lambda item: item[0][2]) if c == case and s == side]

    def values(self, case: str, side: str, key: str) -> list[float]:
        return [float(e["figures"][key]) for e in self.entries(case, side) if e["figures"] is not None and key in e["figures"]]

    def size(self, case: str, side: str) -> int | None:
        entries = self.entries(case, side)
        return entries[0]["size"] if entries else None

    def errors(self, case: str, side: str) -> list[str]:
        return [entry["error"] for entry in self.entries(case, side) if entry["error"]]

    def ceilings(self, name: str) -> dict[str, float]:
        """The median of each ceiling, of "ceiling" (FULL), "ceiling normal" or "pg_ceiling"."""
        runs = [entry["figures"] for entry in self.entries(name, "machine") if entry["figures"]]
        return {key: statistics.median(run[key] for run in runs) for key in runs[0]} if runs else {}

    def ratios(self, case: Case, figure: Figure, side: str, other: str) -> list[float]:
        """How many times better `side` is, round by round; a side with fewer rounds is compared again."""
        ours, theirs = self.values(case.name, side, figure.key), self.values(case.name, other, figure.key)
        if not ours or not theirs:
            return []
        pairs = [(value, theirs[n % len(theirs)]) for n, value in enumerate(ours)]
        return [a / b if figure.more else b / a for a, b in pairs if a and b]
