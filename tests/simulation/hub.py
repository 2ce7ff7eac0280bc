"""Green threads with simulated time: locks, events and threads that the runtime's code takes for the real ones.

Owns who runs next (drawn from a seed, so a run can be repeated) and what time it is. `green` puts these in the place of `threading`
and `time` in the modules that it names. Knows nothing of stores and turns.
"""

from __future__ import annotations

import _thread
import contextlib
import heapq
import random
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from greenlet import GreenletExit, greenlet

import duroxide.client
from duroxide.runtime import leases, loop, runtime, workers
from duroxide.runtime.clock import Clock
from duroxide.storage import _queue

EPOCH_S = 1_700_000_000
STEP_S = 0.000_02  # what each step of a thread costs


class Dead(GreenletExit):
    """Raised in every thread of a killed process, wherever it is, and again if it goes on all the same."""


class Machine:
    """What is killed, stopped and resumed as one: a process, with a clock of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = self.stopped = False
        self.ahead_s = 0.0  # of its clock
        self.tasks: list[Task] = []
        self.held_back: list[Task] = []  # ready to run, were it not stopped


class Task:
    """One green thread. `woken`: why its last block ended (False: by time)."""

    def __init__(self, hub: Hub, machine: Machine, function: Callable[[], Any], name: str, main: bool) -> None:
        self.machine, self.function, self.name, self.main = machine, function, name, main
        self.ident = 1 + next(hub.numbers)
        self.block = 0
        self.woken = False
        self.over = False
        self.green = greenlet(self._run, hub.green)
        self.error: BaseException | None = None

    def _run(self) -> None:
        try:
            self.function()
        except Dead:
            pass
        except BaseException as error:
            self.error = error
        self.over = True


class Hub:
    """`preempt`: how likely a thread loses its turn at a point where it could (a lock, a look at the clock)."""

    def __init__(self, seed: str, preempt: float = 0.1) -> None:
        self.lots = random.Random(seed)
        self.preempt = preempt
        self.time_s = 0.0
        self.numbers = iter(range(1 << 60))
        self.ready: list[Task] = []
        self.timers: list[tuple[float, int, Any, int]] = []
        self.running: Task | None = None
        self.green: Any = None
        self.machines: list[Machine] = []
        self.errors: list[tuple[Task, BaseException]] = []
        self.steps = 0

    # ── what threads call ────────────────────────────────────────────────────────────────────────────────────

    def task(self) -> Task:
        """Whoever calls; a thread of a killed process gets no further."""
        task = self.running
        assert task is not None, "called from outside the simulation"
        if task.machine.dead:
            raise Dead
        return task

    def maybe_yield(self) -> None:
        if self.running is not None and self.lots.random() < self.preempt:
            task = self.task()
            self.ready.append(task)
            self._switch(task)

    def block(self, seconds: float | None) -> bool:
        """Sleep until `wake` (True) or until the time is over (False)."""
        task = self.task()
        task.block = next(self.numbers)
        if seconds is not None:
            self.at(self.time_s + max(seconds, 0.0), task, task.block)
        self._switch(task)
        return task.woken

    def sleep(self, seconds: float) -> None:
        self.block(seconds)

    def wake(self, task: Task, woken: bool = True) -> None:
        task.block = 0
        task.woken = woken
        (task.machine.held_back if task.machine.stopped else self.ready).append(task)

    def spawn(self, machine: Machine, function: Callable[[], Any], name: str, main: bool = False) -> Task:
        if machine not in self.machines:
            self.machines.append(machine)
        task = Task(self, machine, function, name, main)
        machine.tasks.append(task)
        self.wake(task)
        return task

    def at(self, time_s: float, what: Any, block: int = 0) -> None:
        """Wake a task, or call a function (outside all threads), at that time."""
        heapq.heappush(self.timers, (time_s, next(self.numbers), what, block))

    def _switch(self, task: Task) -> None:
        self.green.switch()
        if task.machine.dead:
            raise Dead

    # ── processes ────────────────────────────────────────────────────────────────────────────────────────────

    def kill(self, machine: Machine) -> None:
        """From outside all threads: none of its threads does anything any more, not even in `finally`."""
        machine.dead = True
        for task in list(machine.tasks):
            if not task.over and task.green:
                self._enter(task, lambda task=task: task.green.throw(Dead))  # type: ignore[misc]
            task.over = True
        machine.tasks.clear()
        machine.held_back.clear()

    def stop(self, machine: Machine) -> None:
        machine.stopped = True

    def resume(self, machine: Machine) -> None:
        machine.stopped = False
        self.ready += machine.held_back
        machine.held_back = []

    # ── the scheduler ────────────────────────────────────────────────────────────────────────────────────────

    def run(self, until: Callable[[], bool], limit_s: float) -> bool:
        """Whether `until` came true before that time. Called once in the life of a hub, or again to go on."""
        self.green = greenlet.getcurrent()
        while not until():
            if self.time_s > limit_s or not self.step():
                return until()
        return True

    def step(self) -> bool:
        """One thread runs until it blocks; False if there is nobody left to run, ever."""
        while self.timers and (not self.ready or self.timers[0][0] <= self.time_s):
            time_s, _, what, block = heapq.heappop(self.timers)
            if isinstance(what, Task):
                if what.block == block and not what.over:
                    self.time_s = max(self.time_s, time_s)
                    self.wake(what, False)
            else:
                self.time_s = max(self.time_s, time_s)
                what()
                return True
        if not self.ready:
            return False
        at = int(self.lots.random() * len(self.ready))
        self.ready[at], self.ready[-1] = self.ready[-1], self.ready[at]
        task = self.ready.pop()
        if task.over:
            return True
        if task.machine.stopped:
            task.machine.held_back.append(task)
            return True
        self.time_s += STEP_S
        self.steps += 1
        self._enter(task, task.green.switch)
        return True

    def _enter(self, task: Task, switch: Callable[[], Any]) -> None:
        self.running = task
        switch()
        self.running = None
        if task.error is not None and not task.machine.dead:
            self.errors.append((task, task.error))
        if task.over and task in task.machine.tasks:
            task.machine.tasks.remove(task)

    def close(self) -> None:
        for machine in self.machines:
            self.kill(machine)
        self.timers.clear()


class Lock:
    """As `_thread.allocate_lock()`. Who waits gets it in no order."""

    hub: Hub

    def __init__(self) -> None:
        self._held = False
        self._waiters: list[Task] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        hub = self.hub
        hub.maybe_yield()
        if not self._held:
            self._held = True
            return True
        if not blocking:
            return False
        task = hub.task()
        self._waiters.append(task)
        if hub.block(None if timeout < 0 else timeout):
            return True
        if task in self._waiters:
            self._waiters.remove(task)
        return False

    def release(self) -> None:
        if not self._held:
            raise RuntimeError("release unlocked lock")
        while self._waiters:
            task = self._waiters.pop(int(self.hub.lots.random() * len(self._waiters)))
            if not task.over and task.block:  # whose time is just over has not got it
                self.hub.wake(task)  # stays held: it is theirs now
                return
        self._held = False

    def locked(self) -> bool:
        return self._held

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *exc: object) -> None:
        self.release()


class Event:
    hub: Hub

    def __init__(self) -> None:
        self._set = False
        self._waiters: list[Task] = []

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        waiters, self._waiters = self._waiters, []
        for task in waiters:
            if not task.over and task.block:
                self.hub.wake(task)

    def wait(self, timeout: float | None = None) -> bool:
        if not self._set:
            task = self.hub.task()
            self._waiters.append(task)
            if not self.hub.block(timeout) and task in self._waiters:
                self._waiters.remove(task)
        return self._set


class Thread:
    """Runs in the process that makes it."""

    hub: Hub

    def __init__(self, target: Callable[..., Any], args: tuple[Any, ...] = (), name: str = "", daemon: bool = True) -> None:
        self.target, self.args, self.name = target, args, name

    def run(self) -> None:
        self.target(*self.args)

    def start(self) -> None:
        start(self)

    def join(self, timeout: float | None = None) -> None:
        join(self, timeout)


def start(thread: Any) -> None:
    hub = Thread.hub
    thread.green = hub.spawn(hub.task().machine, thread.run, thread.name)


def join(thread: Any, timeout: float | None = None) -> None:
    hub = Thread.hub
    end = hub.time_s + (1e9 if timeout is None else timeout)
    while not thread.green.over and hub.time_s < end:
        hub.sleep(min(0.01, end - hub.time_s))


class GreenClock(Clock):
    """The clock of a machine: the hub's time, and how far it is ahead of it."""

    def __init__(self, hub: Hub, machine: Machine) -> None:
        self.hub, self.machine = hub, machine

    def now(self) -> int:
        self.hub.maybe_yield()
        return self.read()

    def read(self) -> int:
        return int((EPOCH_S + self.hub.time_s + self.machine.ahead_s) * 1000)

    def monotonic(self) -> float:
        return self.hub.time_s

    def wait(self, event: Any, seconds: float) -> bool:
        return bool(event.wait(seconds))

    def token(self) -> str:
        return f"{self.hub.lots.getrandbits(64):016x}"

    def guid(self) -> str:
        bits = f"{self.hub.lots.getrandbits(128):032x}"
        return "-".join((bits[:8], bits[8:12], bits[12:16], bits[16:20], bits[20:]))


@contextlib.contextmanager
def green(hub: Hub) -> Iterator[None]:
    """For this time the runtime, the queue and the client run on green threads of `hub`."""
    lock, event, thread = (type(base.__name__, (base,), {"hub": hub}) for base in (Lock, Event, Thread))
    Thread.hub = hub
    main = threading.main_thread().ident

    def get_ident() -> int | None:
        return main if hub.running is not None and hub.running.main else hub.task().ident

    def now() -> int:
        return GreenClock(hub, hub.task().machine).now()

    here = _thread.get_ident()

    def only_here(function: Callable[..., Any], own: Callable[..., Any]) -> Callable[..., Any]:
        """For this thread of the operating system; others, of runtimes outside the simulation, keep what they have."""
        return lambda *arguments: (function if _thread.get_ident() == here else own)(*arguments)

    names = SimpleNamespace(Lock=lock, Event=event, Thread=thread)
    time = SimpleNamespace(monotonic=lambda: hub.time_s)
    patches: list[tuple[Any, str, Any]] = [(module, "threading", names) for module in (leases, loop, workers, runtime, _queue)]
    patches += [(_queue, "allocate_lock", lock), (_queue, "get_ident", only_here(get_ident, _queue.get_ident))]
    patches += [
        (_queue, "sleep", only_here(hub.sleep, _queue.sleep)),
        (_queue, "monotonic", only_here(time.monotonic, _queue.monotonic)),
        (duroxide.client, "time", time),
        (duroxide.client, "clock", SimpleNamespace(now=now)),
    ]
    patches += [
        (each, name, function) for each in (loop.Loop, leases.Keeper) for name, function in (("start", start), ("join", join))
    ]
    with replaced(patches):
        yield


@contextlib.contextmanager
def replaced(names: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """(module or class, name, value) each, for this time; what was only inherited is inherited again."""
    before = [(owner, name, owner.__dict__.get(name)) for owner, name, _ in names]
    for owner, name, value in names:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            delattr(owner, name) if value is None else setattr(owner, name, value)
