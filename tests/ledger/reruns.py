"""When an activity may run again: only while its result may not have been stored.

Owns that window. The stories of `bank.py` ask for one step of an instance after the other, so a step that follows says that those before are stored.
"""

from __future__ import annotations

from collections import defaultdict

from faults.checks import Wrong
from ledger.bank import Line

FOREVER = float("inf")
EVERYONE = "everyone"


def check_reruns(lines: list[Line], lease_s: float) -> int:
    """How many calls came again. Wrong if one had no reason:

    * its first runner was killed, or stood still, before its result is known to be stored;
    * or the second one stood still with the call in its hands, and began it soon after: once for each time that it stood still."""
    window = Window(lines, lease_s)
    newest: dict[str, tuple[str, str]] = {}  # of an instance: the step that nobody had run before
    last: dict[tuple[str, tuple[str, str]], Line] = {}
    own: dict[tuple[str, str], float] = {}  # when a worker last ran something of an instance
    again = 0
    for line in (line for line in lines if line["kind"] == "ran"):
        instance, step = line["instance"], (line["key"], line["step"])
        before = last.get((instance, step))
        if before is None:
            newest[instance] = step
        else:
            again += 1
            stored = newest[instance] != step
            excused = window.zombie(line, own.get((line["worker"], instance), 0.0)) or (not stored and window.unstored(before, line["at"]))
            if not excused:
                raise Wrong(f"{(instance, *step)} ran again for no reason ({stored=}): {before}, then {line}")
        last[instance, step] = line
        own[line["worker"], instance] = line["at"]
    return again


class Window:
    """Who was killed when, and who stood still from when to when; EVERYONE if nobody could write."""

    def __init__(self, lines: list[Line], lease_s: float) -> None:
        self.lease_s = lease_s
        self.killed = {line["worker"]: line["at"] for line in lines if line["kind"] == "killing"}
        self.gaps: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for line in lines:
            if line["kind"] == "gap":
                self.gaps[line["worker"]].append((line["since"], line["at"]))
            elif line["kind"] == "stopping" and line["worker"] in self.killed:
                self.gaps[line["worker"]].append((line["at"], FOREVER))  # it may not have lived to say so

    def of(self, worker: str) -> list[tuple[float, float]]:
        return self.gaps[worker] + self.gaps[EVERYONE]

    def unstored(self, before: Line, again_at: float) -> bool:
        """Whether the first runner may have had no lease when it was done."""
        if self.killed.get(before["worker"], FOREVER) <= again_at:
            return True
        return any(since <= again_at and until + self.lease_s >= before["at"] for since, until in self.of(before["worker"]))

    def zombie(self, line: Line, own_last: float) -> bool:
        """Whether this is what its worker had in its hands when it stood still. The next turn of that instance is refused to it."""
        return any(since <= line["at"] <= until + self.lease_s and own_last <= until for since, until in self.of(line["worker"]))
