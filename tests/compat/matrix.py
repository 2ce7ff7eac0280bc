"""Runs legs one after another, each by another version, and compares the end with that of a run nobody took over.

Owns processes, their kills, the hour that passes between two legs, and what is looked at in between: history is only appended to, what
it holds is not run again. Opens a store only while no process has it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
from golden import compare, store

from . import states_data, states_trees, states_waits, states_work  # noqa: F401
from .state import HOUR_MS, STATES, Leg, State

LEG = Path(__file__).with_name("leg.py")
OURS = "ours"
PATIENCE_S = 120

Found = dict[str, Any]  # instance -> what the store holds of it, see golden.store


def python(rider: str) -> str:
    """The python that has this version; the two of the reference come from the environment."""
    if rider == OURS:
        return sys.executable
    return os.environ["DUROXIDE_ORACLE" if rider == "0.2.2" else f"DUROXIDE_ORACLE_{rider.replace('.', '_')}"]


# ── the store between two legs ──


@dataclasses.dataclass
class File:
    """A SQLite file; see `Schema` in postgres.py for the other kind."""

    path: Path

    @property
    def where(self) -> str:
        return str(self.path)

    def rows(self, sql: str) -> list[Any]:
        with closing(apsw.Connection(str(self.path))) as connection:
            return list(connection.execute(sql).fetchall())

    def change(self, statements: Iterable[str]) -> None:
        with closing(apsw.Connection(str(self.path))) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    def hour_passes(self) -> None:
        """Everything that waits for a time, or is leased until one, is an hour nearer to it."""
        moved = {
            "orchestrator_queue": ("visible_at",), "worker_queue": ("visible_at", "locked_until"),
            "instance_locks": ("locked_until", "locked_at"), "sessions": ("locked_until", "last_activity_at"),
        }  # fmt: skip
        self.change(
            f"UPDATE {table} SET {', '.join(f'{c} = {c} - {HOUR_MS}' for c in columns)}" for table, columns in moved.items()
        )


# ── riding ──


@dataclasses.dataclass
class Journey:
    """`riders`: who rides each leg, e.g. ["0.2.2", "ours"]. `touched`: False leaves the store alone between legs and really waits.
    `environment`: more of it, for the legs."""

    store: Any
    riders: Sequence[str]
    states: Sequence[str]
    scratch: Path
    touched: bool = True
    hour_ms: int = HOUR_MS
    environment: dict[str, str] = dataclasses.field(default_factory=dict)

    def run(self, first: int = 0, end: int | None = None) -> Found:
        """Ride the legs from `first` up to `end`; what the store holds then."""
        for leg in range(first, len(self.riders) if end is None else end):
            self.ride(leg)
        return store.instances(self.store.rows)

    def ride(self, leg: int) -> None:
        held = histories(self.store) if self.touched else {}
        last = leg == len(self.riders) - 1
        self._process(leg)
        if not last:
            self._process(leg, "--unfetched")
        if self.touched:
            now = histories(self.store)
            appended_only(held, now)
            not_again(held, now, self._log(leg))
            self.between(leg)
        elif not last:
            time.sleep(self.hour_ms / 1000)

    def between(self, leg: int) -> None:
        if leg == len(self.riders) - 1:
            return
        none = Leg(None, None, leg, self._log(leg))
        made = [STATES[name](none) for name in self.states]
        self.store.change(sql for state in made for sql in state.doctored(state.id(leg), leg))
        self.store.hour_passes()

    def _log(self, leg: int) -> Path:
        return self.scratch / f"{leg}.{self.riders[leg]}.log"

    def _process(self, leg: int, *more: str) -> None:
        environment = {
            **os.environ, **self.environment, "COMPAT_LOG": str(self._log(leg)), "COMPAT_STATES": " ".join(self.states),
            "COMPAT_HOUR_MS": str(self.hour_ms), "TOKIO_WORKER_THREADS": "8",
            "COMPAT_NODE": "" if self.touched else "node",  # a session's lease lasts 30 s: the next leg is the same node
        }  # fmt: skip
        self._log(leg).touch()
        output = self._log(leg).with_suffix(".out")
        command = [python(self.riders[leg]), "-I", str(LEG), self.store.where, str(leg), str(len(self.riders)), *more]
        with output.open("ab") as out, subprocess.Popen(command, stdout=out, stderr=out, env=environment, cwd=self.scratch) as process:
            try:
                said = "" if more else self._said(process, output)
                if more:
                    process.wait(PATIENCE_S)
            finally:
                process.kill()  # SIGKILL
        if said.startswith("FAILED") or not (said or more):
            raise AssertionError(f"leg {leg} of {self.riders}: {said or output.read_text(errors='replace')[-2000:]}")

    def _said(self, process: subprocess.Popen[bytes], output: Path) -> str:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            ended = process.poll() is not None
            for line in output.read_text(errors="replace").splitlines():
                if line.startswith(("READY", "DONE", "FAILED")):
                    return line
            if ended:
                return ""
            time.sleep(0.02)
        return "FAILED: not in time"


# ── what must hold after every leg ──

Events = dict[tuple[str, int, int], str]


def histories(where: Any) -> Events:
    try:
        return {(i, n, e): text for i, n, e, text in where.rows("SELECT instance_id, execution_id, event_id, event_data FROM history")}
    except apsw.SQLError:
        return {}  # not made yet


def appended_only(before: Events, after: Events) -> None:
    changed = [key for key, text in before.items() if after.get(key) != text]
    assert not changed, f"history was rewritten: {changed[:5]}"


def not_again(before: Events, after: Events, log: Path) -> None:
    """What ran in a leg had been asked for, and its end was not in history when the leg began."""
    open_calls = Counter(_call(i, n, json.loads(text)) for (i, n, _), text in after.items() if '"ActivityScheduled"' in text)
    for (i, n, _), text in before.items():
        event = json.loads(text)
        if event["type"] in ("ActivityCompleted", "ActivityFailed"):
            open_calls[_call(i, n, json.loads(before[i, n, event["source_event_id"]]))] -= 1
    for line in log.read_text(encoding="utf-8").splitlines():
        instance, execution, name, input = json.loads(line)
        call = (instance, execution, name, json.dumps(input))
        assert open_calls[call] > 0, f"ran although its result is in history: {line}"


def _call(instance: str, execution: int, scheduled: dict[str, Any]) -> tuple[Any, ...]:
    try:
        input = json.dumps(json.loads(scheduled["input"]))
    except ValueError:  # a system call without input
        input = ""
    return instance, execution, scheduled["name"], input


# ── comparing ──


def comparable(found: Found) -> dict[str, Found]:
    """State -> its instances, without what may differ between any two runs."""
    by_state: dict[str, Found] = {name: {} for name in STATES}
    for instance, row in found.items():
        cls = STATES[state_of(instance, found)]
        by_state[cls.__name__][instance] = _row(cls, row)
    return json.loads(json.dumps(by_state))  # type: ignore[no-any-return]


def state_of(instance: str, found: Found) -> str:
    while found[instance]["parent"]:
        instance = found[instance]["parent"]
    for name, cls in STATES.items():
        if instance in (name, cls.alone) or instance.rpartition(".")[0] == name or instance.startswith(cls.beside):
            return name
    raise LookupError(f"{instance!r} belongs to no state")


def _row(cls: type[State], row: dict[str, Any]) -> dict[str, Any]:
    clean = compare.instance(row)
    clean = {k: v if k in ("executions", "output") else compare.deep_text(v) for k, v in clean.items()}
    executions = clean.pop("executions")
    if cls.free:
        return clean
    for number, events in executions.items():
        events = [compare.deep_text(event) for event in events]
        for event in events:
            if event["type"] == "OrchestrationStarted" and not event.get("carry_forward_events"):
                event.pop("carry_forward_events", None)  # the reference writes an empty one at times
            if event.get("parent_execution_id") == 1:
                event.pop("parent_execution_id")  # that is what an older one means which leaves it out
        if not cls.order:
            events = sorted(json.dumps({k: v for k, v in e.items() if k not in ("id", "source")}, sort_keys=True) for e in events)
        executions[number] = events
    return {**clean, "executions": executions}


def states_for(riders: Sequence[str]) -> list[str]:
    """The states that all of these can get into and out of."""
    return [
        name for name, cls in STATES.items() if not set(cls.not_in) & set(riders) and not (len(riders) > 2 and riders[0] in cls.not_through)
    ]


def locked_out(found: Found) -> bool:
    """Whether the reference failed an instance because its own threads locked each other out (D11): no verdict, run it again."""
    return any("Database locked" in (row["output"] or "") for row in found.values())


def differing(wanted: dict[str, Found], found: Found) -> dict[str, list[str]]:
    """State -> the lines that say where it ended otherwise than wanted (something comparable)."""
    right = comparable(found)
    lines = {name: compare.differences(wanted[name], right[name]) for name in STATES}
    return {name: some for name, some in lines.items() if some}
