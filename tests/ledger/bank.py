"""Transfers as sagas, a till that takes slips, statements of many steps: what the crowd works on, and the ledger that its activities write.

A line of the ledger is on the disk before its activity ends. Owns the lines' shape; refuses to know processes and what must hold.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from typing import Any

Line = dict[str, Any]


class Ledger:
    """An append-only file that several processes write; a line is whole, and synced before `write` returns."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def write(self, kind: str, **said: Any) -> None:
        """`at`: seconds of the clock that all processes of a machine share."""
        os.write(self.file, (json.dumps({"kind": kind, "at": time.monotonic(), **said}) + "\n").encode())
        os.fsync(self.file)

    def lines(self) -> list[Line]:
        with open(self.path, encoding="utf-8") as file:
            return [json.loads(line) for line in file]


def transfer(ctx: Any, given: list[Any]) -> Any:
    """A debit, then a credit in a child; if that fails, a refund."""
    source, target, amount, fails = given
    key = yield ctx.new_guid()
    debit = yield ctx.schedule_activity("move", [key, "debit", source, -amount])
    try:
        other = yield ctx.schedule_sub_orchestration("credit", [key, target, amount, fails])
        end = "moved"
    except Exception:
        other = yield ctx.schedule_activity("move", [key, "refund", source, amount])
        end = "refunded"
    ctx.set_kv_value("end", end)
    return [end, key, debit, other]


def credit(ctx: Any, given: list[Any]) -> Any:
    key, target, amount, fails = given
    yield ctx.schedule_timer(10)
    if fails:
        yield ctx.schedule_activity("refuse", key)
    return (yield ctx.schedule_activity("move", [key, "credit", target, amount]))


def till(ctx: Any, given: list[Any]) -> Any:
    """Takes `left` slips, two an execution."""
    left, seen = given
    for _ in range(min(left, 2)):
        slip = yield ctx.dequeue_event("slips")
        yield ctx.schedule_activity("move", [slip, "slip", "till", 1])
        seen, left = [*seen, slip], left - 1
    if left:
        yield ctx.continue_as_new([left, seen])
    return seen


def statement(ctx: Any, steps: int) -> Any:
    """Longer than a lease."""
    key = yield ctx.new_guid()
    for step in range(steps):
        yield ctx.schedule_activity("move", [key, f"line {step}", "nobody", 0])
    yield ctx.schedule_activity("slow", key)
    return key


ORCHESTRATIONS = (transfer, credit, till, statement)


class Activities:
    """Those of one worker, by a name that no other worker has."""

    def __init__(self, ledger: Ledger, worker: str, slow_s: float) -> None:
        self.ledger, self.worker, self.slow_s = ledger, worker, slow_s
        self.numbers, self.lock = itertools.count(), threading.Lock()

    def register(self, runtime: Any) -> None:
        for name in ("move", "refuse", "slow"):
            runtime.register_activity(name, getattr(self, name))
        for orchestration in ORCHESTRATIONS:
            runtime.register_orchestration(orchestration.__name__, orchestration)

    def ran(self, ctx: Any, key: str, step: str, account: str = "", amount: int = 0) -> str:
        with self.lock:
            call = f"{self.worker}:{next(self.numbers)}"
        self.ledger.write("ran", worker=self.worker, instance=ctx.instance_id, key=key, step=step, account=account, amount=amount, call=call)
        return call

    def move(self, ctx: Any, given: list[Any]) -> str:
        return self.ran(ctx, *given)

    def refuse(self, ctx: Any, key: str) -> None:
        self.ran(ctx, key, "refuse")
        raise ValueError("no such account")

    def slow(self, ctx: Any, key: str) -> str:
        call = self.ran(ctx, key, "slow")
        time.sleep(self.slow_s)
        return call
