"""The C store on bare tables, for tests of the store itself: no provider, no liveness, no adoption of files.

Owns a short form of the tables and makers of records; knows nothing of engines and clocks.
"""

from __future__ import annotations

from pathlib import Path

import apsw

from duroxide.storage import _sqlite
from duroxide.storage._capsule import CapsuleStore
from duroxide.storage.base import Appetite, Done, Request, Taken, TurnDone, WorkOut
from duroxide.storage.sqlite_sql import INDEXES

TABLES = (
    "CREATE TABLE instances (instance_id TEXT PRIMARY KEY, orchestration_name TEXT NOT NULL, orchestration_version TEXT NOT NULL,"
    " current_execution_id INTEGER NOT NULL DEFAULT 1, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,"
    " updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, parent_instance_id TEXT REFERENCES instances(instance_id),"
    " custom_status TEXT, custom_status_version INTEGER NOT NULL DEFAULT 0)",
    "CREATE TABLE executions (instance_id TEXT NOT NULL, execution_id INTEGER NOT NULL, status TEXT NOT NULL DEFAULT 'Running',"
    " output TEXT, started_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, completed_at TIMESTAMP, duroxide_version_major INTEGER,"
    " duroxide_version_minor INTEGER, duroxide_version_patch INTEGER, PRIMARY KEY (instance_id, execution_id))",
    "CREATE TABLE history (instance_id TEXT NOT NULL, execution_id INTEGER NOT NULL, event_id INTEGER NOT NULL,"
    " event_type TEXT NOT NULL, event_data TEXT NOT NULL, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,"
    " PRIMARY KEY (instance_id, execution_id, event_id))",
    "CREATE TABLE orchestrator_queue (id INTEGER PRIMARY KEY AUTOINCREMENT, instance_id TEXT NOT NULL, work_item TEXT NOT NULL,"
    " visible_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, lock_token TEXT, locked_until TIMESTAMP,"
    " created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, attempt_count INTEGER NOT NULL DEFAULT 0 CHECK (attempt_count >= 0))",
    "CREATE TABLE worker_queue (id INTEGER PRIMARY KEY AUTOINCREMENT, work_item TEXT NOT NULL, lock_token TEXT,"
    " locked_until TIMESTAMP, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,"
    " attempt_count INTEGER NOT NULL DEFAULT 0 CHECK (attempt_count >= 0), visible_at INTEGER NOT NULL DEFAULT 0,"
    " instance_id TEXT, execution_id INTEGER, activity_id INTEGER, session_id TEXT, tag TEXT)",
    "CREATE TABLE instance_locks (instance_id TEXT PRIMARY KEY, lock_token TEXT NOT NULL, locked_until INTEGER NOT NULL,"
    " locked_at INTEGER NOT NULL)",
    "CREATE TABLE sessions (session_id TEXT PRIMARY KEY, worker_id TEXT NOT NULL, locked_until INTEGER NOT NULL,"
    " last_activity_at INTEGER NOT NULL)",
    "CREATE TABLE kv_store (instance_id TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,"
    " last_updated_at_ms INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (instance_id, key))",
    "CREATE TABLE kv_delta (instance_id TEXT NOT NULL, key TEXT NOT NULL, value TEXT, last_updated_at_ms INTEGER NOT NULL,"
    " PRIMARY KEY (instance_id, key))",
    "CREATE INDEX idx_orch_visible ON orchestrator_queue(visible_at, lock_token)",
    "CREATE INDEX idx_orch_instance ON orchestrator_queue(instance_id)",
    "CREATE INDEX idx_orch_lock ON orchestrator_queue(lock_token)",
    "CREATE INDEX idx_worker_available ON worker_queue(lock_token, id)",
    "CREATE INDEX idx_worker_activity ON worker_queue(instance_id, execution_id, activity_id)",
)
NOW = 1_700_000_000_000


def connect(path: str) -> apsw.Connection:
    c = apsw.Connection(path)
    for pragma in ("journal_mode=wal", "synchronous=off", "foreign_keys=on"):
        c.execute(f"PRAGMA {pragma}").fetchall()
    return c


class Bare:
    """A store, a third connection to look at its tables (`sql`), and its two connections."""

    def __init__(self, path: Path | None) -> None:
        self.path = str(path) if path else ":memory:"
        self.writer = connect(self.path)
        for statement in TABLES + INDEXES:
            self.writer.execute(statement)
        self.reader = connect(self.path) if path else None
        self.look = connect(self.path) if path else self.writer
        self.capsule = _sqlite.open_store(self.writer, self.reader)
        self.store = CapsuleStore(self.capsule)

    def sql(self, statement: str, *parameters: object) -> list[tuple[object, ...]]:
        return [tuple(row) for row in self.look.execute(statement, parameters)]

    def do(self, done: Done | None = None, appetite: Appetite | None = None, now: int = NOW) -> Taken:
        return self.store.exchange([Request(now, done, appetite)])[0]

    def send(self, *messages: tuple[str, str], at: int = 0, now: int = NOW) -> None:
        self.do(handed(messages=[(instance, item, at) for instance, item in messages]), now=now)

    def close(self) -> None:
        self.store.close()
        if self.path != ":memory:":
            self.look.close()


def handed(**lists: object) -> Done:
    done = Done()
    for name, rows in lists.items():
        setattr(done, name, list(rows))  # type: ignore[call-overload]
    return done


def item(kind: str, instance: str = "i") -> str:
    return f'{{"{kind}":{{"instance":"{instance}"}}}}'


def start(instance: str) -> tuple[str, str]:
    return instance, item("StartOrchestration", instance)


def turn(lease: str, instance: str, events: tuple[int, ...] = (), **fields: object) -> TurnDone:
    done = TurnDone(lease, instance, 1)
    done.events = [(n, "X", f'{{"event_id":{n}}}') for n in events]
    for name, value in fields.items():
        setattr(done, name, value)
    return done


def work(activity: int, instance: str = "i", **fields: object) -> WorkOut:
    return WorkOut(instance, 1, activity, "act", "null", item("ActivityExecute", instance), **fields)  # type: ignore[arg-type]


def born(bare: Bare, *instances: str, owner: str = "me", keep: bool = True, **fields: object) -> dict[str, str]:
    """Starts the instances and commits their first turns; returns the kept leases."""
    bare.send(*map(start, instances))
    taken = bare.do(appetite=Appetite(owner, turns=len(instances)))
    turns = [
        turn(t.lease, t.instance, (1,), consumed=[m[0] for m in t.messages], name="flow", version="1.0.0", pinned=(0, 1, 32),
             keep=keep, **fields)
        for t in taken.turns
    ]  # fmt: skip
    assert bare.do(handed(turns=turns)).turn_codes == [0] * len(instances)
    return {t.instance: t.lease for t in turns}
