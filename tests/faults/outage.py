"""A recorded life of the scenario, and what must hold on the disk that a cut leaves: an earlier state, whole, and not too early.

Owns `record`, which notes the state after each commit, and `Outage`, which checks and recovers one cut.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import apsw
from faults import stepped
from faults.checks import Wrong, check_history, check_outcomes, histories, results
from faults.points import VERBS
from faults.power import Disk, RecordingVFS, Tape, lay_out

import duroxide
from duroxide.storage import sqlite

TABLES = ("instances", "executions", "history", "orchestrator_queue", "worker_queue", "instance_locks", "sessions", "kv_store", "kv_delta")
SELECTS = [f"SELECT * FROM {table} ORDER BY {'rowid' if table.endswith('queue') else '1, 2'}, 3" for table in TABLES]
_names = itertools.count()


def state(connection: apsw.Connection) -> str:
    """All that is stored, as a hash."""
    told = hashlib.sha256()
    for select in SELECTS:
        for row in connection.execute(select):
            told.update(repr(row).encode())
    return told.hexdigest()


class Recording:
    """The tape of a life in `directory`, and the states that it went through."""

    def __init__(self, directory: Path, implementation: str, synchronous: str, lazy: bool = False) -> None:
        self.directory, self.implementation, self.synchronous = directory, implementation, synchronous
        self.tape, self.states = Tape(), [""]
        self.vfs = RecordingVFS(f"recording{next(_names)}", self.tape, lazy)
        self.journal, self.ledger = directory / "ledger.acts", directory / "ledger"
        self.told = [0, 0]  # bytes of the journal and the ledger that are on the tape already
        directory.mkdir()
        self.journal.touch()
        self.ledger.touch()

    def run(self) -> None:
        """Two processes' worth of it: the first one closes the file in good order half way."""
        for life, steps in enumerate((25, stepped.MOST_STEPS)):
            native = self.open()
            if life == 0:
                self.tape.fact("made")
            played = stepped.Life(native, str(self.ledger), life)
            for _ in range(steps):
                going = played.step()
                self.tell()
                if not going:
                    break
            played.runtime.end()
            native.close()
        if going:
            raise Wrong("the scenario does not end")

    def open(self) -> Any:
        native = sqlite.open_sqlite(
            str(self.directory / "x.db"), synchronous=self.synchronous, implementation=self.implementation, _vfs=self.vfs.name
        )
        for verb in VERBS:
            setattr(native, verb, self.committed(native, getattr(native, verb)))
        return native

    def committed(self, native: Any, verb: Any) -> Any:
        def called(*arguments: Any) -> Any:
            self.tell()  # what it is about to do; what was told before is on the grounds of earlier commits
            begun = len(self.tape.ops)
            answer = verb(*arguments)
            if len(self.tape.ops) > begun:
                self.states.append(state(native._cold))
                self.tape.fact(("commit", len(self.states) - 1))
            return answer

        return called

    def tell(self) -> None:
        """What clients and activities have said since: it was told on the grounds of what is stored now."""
        for n, file in enumerate((self.journal, self.ledger)):
            lines = file.read_bytes()[self.told[n] :]
            self.told[n] += len(lines)
            for line in lines.decode().splitlines():
                self.tape.fact((file.name, line))


def checkpointing_often(pages: int) -> Any:
    """A `_connect` after which the log is copied into the file every few commits."""
    connect = sqlite._connect

    def connected(*arguments: Any) -> apsw.Connection:
        connection = connect(*arguments)
        connection.execute(f"PRAGMA wal_autocheckpoint = {pages}").fetchall()
        return connection

    return connected


class Outage:
    """Plays a recording up to a cut, lays out a disk, opens it. `strict`: nothing acknowledged may be missing (FULL)."""

    def __init__(self, recording: Recording, directory: Path, strict: bool) -> None:
        self.recording, self.directory, self.strict = recording, directory, strict
        self.disk, self.at = Disk(), 0
        self.heard: list[tuple[str, str]] = []
        self.commits, self.made = 0, False
        self.recovered: Counter[tuple[str, int]] = Counter()
        self.found: Counter[int] = Counter()  # how many commits were missing -> how often

    def play(self, cut: int) -> None:
        for op in self.recording.tape.ops[self.at : cut]:
            if op.kind != "fact":
                self.disk.play(op)
            elif op.value == "made":
                self.made = True
            elif op.value[0] == "commit":
                self.commits = op.value[1]
            else:
                self.heard.append(op.value)
        self.at = cut

    def check(self, lots: random.Random, how: str, sector: int, thorough: bool) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        lay_out(self.disk.cut(lots, how, sector), self.directory, lots)
        if not (self.directory / "x.db").exists():
            if self.made and self.strict:
                raise Wrong("the file is gone")
            return
        try:
            native = sqlite.open_sqlite(str(self.directory / "x.db"), synchronous="normal", implementation=self.recording.implementation)
        except duroxide.ProviderError as error:
            raise Wrong(f"it does not open: {error}") from error
        try:
            number = self.check_state(native)
            if self.strict and (thorough or not self.recovered[self.recording.states[number], len(self.heard)]):
                self.recovered[self.recording.states[number], len(self.heard)] += 1
                self.recover(native)
        finally:
            native.close()

    def check_state(self, native: Any) -> int:
        """Which of the recorded states it is."""
        said = native._cold.execute("PRAGMA integrity_check").fetchall()
        if said != [("ok",)]:
            raise Wrong(f"integrity check: {said}")
        found, states = state(native._cold), self.recording.states
        if found == EMPTY:
            if self.strict and self.commits:
                raise Wrong(f"nothing is there after {self.commits} acknowledged commits")
            self.found[self.commits] += 1
            return 0
        # The newest state that looks like this; the one after the acknowledged ones may be there already.
        number = max((n for n in range(min(self.commits + 2, len(states))) if states[n] == found), default=None)
        if number is None:
            raise Wrong("this is no state that there ever was")
        if self.strict and number < self.commits:
            raise Wrong(f"{self.commits - number} of {self.commits} acknowledged commits are lost")
        self.found[max(0, self.commits - number)] += 1
        return number

    def recover(self, native: Any) -> None:
        """What the outside world knows it knows still; from here the scenario gets to its end, and what ran and counted stays."""
        (self.directory / "ledger").write_text("".join(line + "\n" for file, line in self.heard if file == "ledger"))
        (self.directory / "ledger.acts").write_text("".join(line + "\n" for file, line in self.heard if file != "ledger"))
        before = histories(native)
        known = Counter(line for file, line in self.heard if file == "ledger")
        self.check_seen(before, known)
        stepped.Life(native, str(self.directory / "ledger"), 2).run()
        after = histories(native)
        for key, events in before.items():
            if after.get(key, [])[: len(events)] != events and key[0] not in ("doomed", "pruned"):
                raise Wrong(f"history of {key} changed: {events}, {after.get(key)}")
        for call, _ in (Counter((self.directory / "ledger").read_text().splitlines()) - known).items():
            instance, execution, name, value = json.loads(call)
            if name != "flaky" and known[call] and results(before.get((instance, execution), []), name, value):
                raise Wrong(f"{call} has a stored result and ran again")
        for (instance, execution), events in after.items():
            check_history(instance, execution, events)
        check_outcomes(duroxide.Client(native))

    def check_seen(self, found: Any, known: Counter[str]) -> None:
        """What an activity was given, guids and times among it, is what history says that it was given."""
        for call in known:
            instance, execution, name, value = json.loads(call)
            if (instance, execution) in (("doomed", 1), ("pruned", 1), ("pruned", 2)):
                continue  # perhaps deleted
            asked = [json.loads(text) for _, text in found.get((instance, execution), [])]
            if not any(e["type"] == "ActivityScheduled" and e["name"] == name and json.loads(e["input"]) == value for e in asked):
                raise Wrong(f"an activity has seen {call}, history has not")


EMPTY = hashlib.sha256().hexdigest()
