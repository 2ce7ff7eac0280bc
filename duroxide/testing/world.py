"""`World`: one store under test, a clock that the case sets, and short forms of the records.

Owns nothing that a store could not be given by a runtime. Refuses to know any store: it has the verbs and nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from duroxide.storage.base import (
    Appetite,
    ClaimedTurn,
    ClaimedWork,
    Done,
    Loaded,
    Renewal,
    Renewed,
    Request,
    Taken,
    TurnDone,
    WorkOut,
)

START = 1_800_000_000_000
LEASE_MS = 5_000
WORK_LEASE_MS = 30_000


def item(kind: str, instance: str) -> str:
    """A work item as far as stores look into it: its kind and its instance."""
    return f'{{"{kind}":{{"instance":"{instance}"}}}}'


def work(instance: str, activity_id: int = 2, **fields: Any) -> WorkOut:
    text = f'{{"ActivityExecute":{{"instance":"{instance}","id":{activity_id}}}}}'
    return WorkOut(instance, fields.pop("execution_id", 1), activity_id, "act", "null", text, **fields)


class World:
    """`now` is in Unix ms and moves by `later`."""

    def __init__(self, store: Any) -> None:
        self.store: Any = store
        self.now: int = START

    def later(self, ms: int) -> None:
        self.now += ms

    # ── verbs ──

    def exchange(self, appetite: Appetite | None = None, **handed: Iterable[Any]) -> Taken:
        """One exchange; `handed` are the lists of `Done` by name."""
        done = Done() if handed else None
        for name, rows in handed.items():
            setattr(done, name, list(rows))
        [taken] = self.store.exchange([Request(self.now, done, appetite)])
        return taken  # type: ignore[no-any-return]

    def load(self, instance: str, execution_id: int | None = None) -> Loaded:
        loaded = self.store.load(instance, execution_id)
        assert loaded is not None, f"{instance} is not stored"
        return loaded  # type: ignore[no-any-return]

    def renew(self, leases: Sequence[tuple[str, str]] = (), work: Sequence[tuple[int, str]] = (), **fields: Any) -> Renewed:
        """Renews by the usual times; `fields` are those of `Renewal`."""
        fields = {"lease_ms": LEASE_MS, "work_lease_ms": WORK_LEASE_MS, **fields}
        return self.store.renew(Renewal(self.now, leases=leases, work=work, **fields))  # type: ignore[no-any-return]

    # ── messages and claims ──

    def send(self, instance: str, kind: str = "QueueMessage", at: int = 0) -> None:
        self.exchange(messages=[(instance, item(kind, instance), at)])

    def start(self, *instances: str) -> None:
        self.exchange(messages=[(instance, item("StartOrchestration", instance), 0) for instance in instances])

    def claim(self, owner: str = "a", turns: int = 100, **appetite: Any) -> list[ClaimedTurn]:
        return self.exchange(Appetite(owner, turns=turns, lease_ms=appetite.pop("lease_ms", LEASE_MS), **appetite)).turns

    def claim_one(self, owner: str = "a", **appetite: Any) -> ClaimedTurn:
        [claimed] = self.claim(owner, **appetite)
        return claimed

    def take(self, owner: str = "a", work: int = 100, **appetite: Any) -> list[ClaimedWork]:
        return self.exchange(
            Appetite(owner, work=work, work_lease_ms=appetite.pop("work_lease_ms", WORK_LEASE_MS), **appetite)
        ).work

    def take_one(self, owner: str = "a", **appetite: Any) -> ClaimedWork:
        [taken] = self.take(owner, **appetite)
        return taken

    # ── turns ──

    def turn(self, claim: ClaimedTurn, events: int = 1, **fields: Any) -> TurnDone:
        """A turn that consumes what was claimed and appends `events` events; the first turn of an execution if it is one."""
        first = claim.name is None or claim.status == "ContinuedAsNew"
        done = TurnDone(claim.lease, claim.instance, claim.execution_id + first)
        if first:
            done.name, done.version, done.pinned = "flow", "1.0.0", (0, 1, 32)
        last = 0 if first else claim.last_event_id
        done.consumed = [row_id for row_id, _, _ in claim.messages]
        done.events = [(id, "Some", f'{{"event_id":{id},"type":"Some"}}') for id in range(last + 1, last + 1 + events)]
        for name, value in fields.items():
            setattr(done, name, value)
        return done

    def commit(self, *turns: TurnDone) -> list[int]:
        return self.exchange(turns=turns).turn_codes

    def born(self, *instances: str, **fields: Any) -> None:
        """Start instances and commit their first turns; `fields` are those of `TurnDone`."""
        self.start(*instances)
        claims = {claim.instance: claim for claim in self.claim("midwife")}
        assert self.commit(*(self.turn(claims[instance], **fields) for instance in instances)) == [0] * len(instances)

    def next_turn(self, instance: str, **fields: Any) -> None:
        """Send something and commit the turn that it makes."""
        self.send(instance)
        [claim] = [claim for claim in self.claim("midwife") if claim.instance == instance]
        assert self.commit(self.turn(claim, **fields)) == [0]

    # ── what is stored ──

    def events(self, instance: str, execution_id: int | None = None) -> list[int]:
        return [id for id, _ in self.load(instance, execution_id).events]

    def values(self, instance: str) -> dict[str, str]:
        """The merged view of an instance's values."""
        loaded = self.load(instance)
        merged = {key: value for key, (value, _) in loaded.kv.items() if key not in loaded.kv_delta}
        return merged | {key: value for key, (value, _) in loaded.kv_delta.items() if value is not None}

    def known(self, instance: str) -> bool:
        return self.store.load(instance) is not None

    # ── threads ──

    def at_once(self, works: Sequence[Callable[[], Any]]) -> list[Any]:
        """Run all in threads that begin together; their results in order."""
        gate, results = threading.Barrier(len(works)), [None] * len(works)

        def run(n: int) -> None:
            gate.wait()
            results[n] = works[n]()

        threads = [threading.Thread(target=run, args=(n,)) for n in range(len(works))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results
