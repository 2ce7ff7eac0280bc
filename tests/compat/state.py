"""What an in-flight state is: code that gets stuck in it, and the client calls that lead into it and out of it.

Owns `State`, its table and the leg's own `World`. Written against what every version of `duroxide` has, so that each can leave a
state and each can find it. Refuses to know which versions hand over to which.

A *leg* is the life of one process on a store, from its start to its SIGKILL. Leg n leads every state into its round n, and the next
leg, whoever that is, leads it out again. What waits for an hour waits until the legs are moved apart by one.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from golden.world import World

HOUR_MS = int(os.environ.get("COMPAT_HOUR_MS", "3600000"))  # passes between two legs
FAR_MS = 40 * 365 * 24 * 3_600_000  # never passes
Steps = Generator[Any, Any, Any]


class Leg(World):
    """The world of one leg. `number`: which; `log`: the activities that ran in it, a line each."""

    def __init__(self, sdk: Any, provider: Any, number: int, log: Path) -> None:
        super().__init__(sdk, provider)
        self.number = number
        self.log = log
        self.entered: dict[tuple[Any, ...], threading.Event] = {}
        self._lock = threading.Lock()
        self._never = threading.Event()
        for function in (self.hold, self.fail_here, self.fail_then_hold):
            self.activity(function)
        for name, function in list(self._activities.items()):
            self._activities[name] = self._logged(name, function)

    def _logged(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def logged(ctx: Any, input: Any) -> Any:
            with self._lock, self.log.open("a", encoding="utf-8") as f:
                f.write(json.dumps([ctx.instance_id, ctx.execution_id, name, input]) + "\n")
            return function(ctx, input)

        return logged

    # ── getting stuck ──

    def mark(self, *key: Any) -> threading.Event:
        with self._lock:
            return self.entered.setdefault(key, threading.Event())

    def stuck(self, *key: Any) -> None:
        """Says that it got here, and stays until the process is killed."""
        self.mark(*key).set()
        self._never.wait()

    def got_stuck(self, *key: Any) -> None:
        """Until code of this process is stuck there."""
        if not self.mark(*key).wait(30):
            raise TimeoutError(f"nobody got stuck at {key}")

    def turn_stuck(self, ctx_name: str, round: int) -> None:
        """For orchestrations: the turn of the leg that leads into `round` never ends."""
        if self.number == round:
            self.stuck("turn", ctx_name, round)

    # ── activities: `input["round"]` names the leg that must not see them end ──

    def hold(self, ctx: Any, input: dict[str, Any]) -> Any:
        """Runs until the kill in the leg of its round, returns its value in any other."""
        if self.number == input["round"]:
            self.stuck("hold", ctx.instance_id)
        return input["value"]

    def fail_here(self, ctx: Any, input: dict[str, Any]) -> Any:
        if self.number == input["round"]:
            raise ValueError(f"not in leg {self.number}")
        return input["value"]

    def fail_then_hold(self, ctx: Any, input: dict[str, Any]) -> Any:
        """In the leg of its round the first attempt fails and the second does not end."""
        if self.number == input["round"]:
            failed = self.mark("failed", ctx.instance_id, input["round"])
            if failed.is_set():
                self.stuck("hold", ctx.instance_id)
            failed.set()
            raise ValueError("the first attempt")
        return input["value"]

    # ── asking ──

    def child(self, parent: str, kth: int = 1) -> str:
        """The id of the kth child that `parent` asked for in its first execution."""
        for event in self.client.read_execution_history(parent, 1):
            if event.kind == "SubOrchestrationScheduled":
                kth -= 1
                if not kth:
                    data = event.data if isinstance(event.data, dict) else json.loads(event.data)
                    id: str = data["instance"]
                    return f"{parent}::{id}" if id.startswith("sub::") else id
        raise LookupError(f"{parent} asked for fewer children")


class State:
    """One state. The class's name is that of its orchestration; its first docstring line says what is in flight.

    `repeats`: one instance gets into the state in every leg, again and again; else every leg has an instance of its own.
    `alone`: the id of the instance, where it is not the state's name; `beside`: how ids of instances begin that belong to it too.
    `not_in`: versions that cannot get into the state, or never out; `not_through`: whose histories the reference cannot replay once
    they went through it. Why is said where it is set.
    `order`: False where the order of events hangs on the machine's speed; `free`: where their number does.
    """

    repeats = True
    alone = ""
    beside: tuple[str, ...] = ()
    not_in: tuple[str, ...] = ()
    not_through: tuple[str, ...] = ()
    order = True
    free = False

    def __init__(self, leg: Leg) -> None:
        self.w = leg

    @property
    def name(self) -> str:
        return type(self).__name__

    def id(self, round: int) -> str:
        return (self.alone or self.name) if self.repeats else f"{self.name}.{round}"

    # ── code ──

    def register(self) -> None:
        """Default: an orchestration that goes through `flow` for each round that its input [first, end] names."""

        def main(ctx: Any, span: list[int]) -> Steps:
            found = []
            for round in range(*span):
                found.append((yield from self.flow(ctx, round)))
            return found

        main.__name__ = self.name
        self.w.flows(main)

    def flow(self, ctx: Any, round: int) -> Steps:
        """One round, in every state that does not `register` code of its own."""
        raise NotImplementedError
        yield

    # ── what the client does, in this order; `i` is the instance ──

    def start(self, i: str, first: int, end: int) -> None:
        self.w.start(i, self.name, [first, end])

    def arrive(self, i: str, round: int) -> None:
        """Until the instance is in the state, or as near as `strike` needs it."""

    def strike(self, i: str, round: int) -> None:
        """The last step before the kill."""

    def unfetched(self, i: str, round: int) -> None:
        """After the kill, without a runtime: what is sent stays unfetched."""

    def before(self, i: str, round: int) -> None:
        """In the next leg, before its runtime starts."""

    def release(self, i: str, round: int) -> None:
        """In the next leg: what leads out of the state."""

    def end(self, i: str) -> None:
        """In the last leg, after `release`: what makes an instance end that would go on."""

    def doctored(self, i: str, round: int) -> list[str]:
        """Statements that put the store into a state that takes minutes to reach; run between two legs."""
        return []


STATES: dict[str, type[State]] = {}


def state(cls: type[State]) -> type[State]:
    assert cls.__doc__, cls.__name__
    STATES[cls.__name__] = cls
    return cls
