"""Stores that are compared: what each was handed and what it answered, told in words that all share.

Owns the common names of tokens and the picture of everything that can be asked. Knows nothing of what is done to them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from duroxide.storage.base import Appetite, Request, Taken

INSTANCES, KEYS = ("i", "j", "k"), ("x", "y")
STATUSES = ("Running", "Completed", "Failed", "ContinuedAsNew")
CLOCKS = ("created_at", "updated_at", "started_at")  # SQLite fills them by its own clock

Build = Callable[["Party"], Request]


class Party:
    """One of the stores compared. Its tokens are told by the names `t0`, `t1`, ... in the order in which they were seen."""

    def __init__(self, *stores: Any) -> None:
        self.stores = stores
        self.names: dict[str, str] = {}
        self.tokens: dict[str, str] = {}

    def name(self, token: str) -> str:
        if token not in self.names:
            self.names[token] = f"t{len(self.names)}"
            self.tokens[self.names[token]] = token
        return self.names[token]

    def token(self, name: str) -> str:
        return self.tokens.get(name, name)

    def exchange(self, via: int, builds: Sequence[Build], in_order: bool) -> list[Taken]:
        requests = [build(self) for build in builds]
        answers = self.store(via).exchange(requests)
        for request, taken in zip(requests, answers):
            if request.appetite is not None and _filled(request.appetite, taken):
                taken.next_visible_at = None  # nobody sleeps on it
            if not in_order:
                taken.turns.sort(key=lambda claim: claim.instance)
                taken.work.sort(key=lambda row: row.row_id)
            for claim in taken.turns:
                claim.lease = self.name(claim.lease)
            for row in taken.work:
                row.token = self.name(row.token)
        return answers  # type: ignore[no-any-return]

    def store(self, via: int = 0) -> Any:
        """One of the ways to the same rows: several providers of one file take turns."""
        return self.stores[via % len(self.stores)]

    def close(self) -> None:
        for store in self.stores:
            store.close()

    # ── all that can be asked ──

    def stored(self) -> Any:
        """Without the cold calls."""
        return [self.store(1).load(instance, None, after) for instance in INSTANCES for after in (0, 1)]

    def picture(self) -> dict[str, Any]:
        store = self.store()
        return {
            "instances": store.instances(),
            "by status": {status: store.instances(status) for status in STATUSES},
            "stored": self.stored(),
            "metrics": store.system_metrics(),
            "each": {instance: self.portrait(instance) for instance in INSTANCES},
        }

    def portrait(self, instance: str) -> Any:
        store = self.store(1)
        executions = list(store.executions(instance))
        info = [store.instance_info(instance), *(store.execution_info(instance, n) for n in executions)]
        told = [{key: value for key, value in each.items() if key not in CLOCKS} for each in info if each]
        loaded = [store.load(instance, n) for n in executions]
        lists = store.children(instance), store.tree(instance), store.stats(instance)
        values = store.kv_values(instance), [store.kv_value(instance, key) for key in KEYS]
        return executions, told, loaded, lists, values


def _filled(appetite: Appetite, taken: Taken) -> bool:
    return bool(0 < appetite.turns == len(taken.turns) or 0 < appetite.work == len(taken.work))
