"""`Runtime`: registers code, starts and stops the threads that run it.

Owns one start and one stop, the options' effective values, and the counters. Refuses to know how a turn runs and what a store is.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar, overload

from duroxide import tracing
from duroxide.context import OrchestrationContext
from duroxide.engine._execution import Execution
from duroxide.engine._replay import Ran
from duroxide.engine.cache import Cache
from duroxide.logs import Log
from duroxide.options import RuntimeOptions, parse_tag_filter
from duroxide.registry import Registry
from duroxide.results import MetricsSnapshot
from duroxide.runtime.clock import Clock
from duroxide.runtime.leases import Holdings, Keeper
from duroxide.runtime.loop import RETRIES_S, Loop
from duroxide.runtime.workers import Workers
from duroxide.storage._queue import Queue
from duroxide.storage.base import Done, Provider, Request, StoreError, TurnBack, WorkBack

log: Log = Log("duroxide.runtime")

Function = TypeVar("Function", bound=Callable[..., Any])

COUNTERS = tuple(MetricsSnapshot.__annotations__)


class Engine:
    """One running runtime: what its threads share. It is also the environment of `run_turn`."""

    def __init__(self, wrapper: Any, registry: Registry, options: RuntimeOptions, clock: Clock) -> None:
        value = options.effective
        self.wrapper = wrapper
        self.provider: Provider = wrapper._native
        self.holds_nul: bool = getattr(self.provider, "holds_nul", True)
        self.registry = registry
        self.clock = clock
        self.queue: Queue = Queue.of(self.provider)
        self.queue.poll_ms = max(1, value("dispatcher_poll_interval_ms"))
        self.owner: str = f"{os.getpid():x}-{clock.token()}"
        self.node: str = value("worker_node_id") or self.owner[-4:]
        self.session_owner: str = value("worker_node_id") or self.owner
        self.max_attempts: int = value("max_attempts")
        self.lease_ms: int = value("orchestrator_lock_timeout_ms")
        self.work_lease_ms: int = value("worker_lock_timeout_ms")
        self.session_lock_ms: int = value("session_lock_timeout_ms")
        self.session_idle_ms: int = value("session_idle_timeout_ms")
        self.max_sessions: int = value("max_sessions_per_runtime")
        self.tag_filter: tuple[str, tuple[str, ...]] = parse_tag_filter(value("worker_tag_filter"))
        self.holds_untagged: bool = self.tag_filter[0] in ("default_only", "default_and", "any")
        self.cache: Cache = Cache()
        self.holdings: Holdings = Holdings()
        self._process = os.getpid()
        self.holdings.poke = self.poke
        self.queue.tell(self.owner, self.holdings.arrived)
        self.workers: Workers = Workers(self, max(0, value("worker_concurrency")))
        self.turn_threads: int = max(0, value("orchestration_concurrency"))
        # Who runs no turns still needs a loop, to claim activities.
        self.loops: list[Loop] = [Loop(self, slot) for slot in range(self.turn_threads or min(1, self.workers.concurrency))]
        self.keeper: Keeper = Keeper(self)
        self.stopping: threading.Event = threading.Event()  # take nothing new
        self.stopped: threading.Event = threading.Event()  # it is over
        self._withdraw: Callable[[], None] = lambda: None
        self._tokens = itertools.count(1)
        self._reserved = 0
        self.counters: dict[str, int] = dict.fromkeys(COUNTERS, 0)
        self._counting = threading.Lock()

    # ── what a turn asks ─────────────────────────────────────────────────────────────────────────────────────

    def resolve(self, name: str, version: str | None) -> tuple[str, Callable[..., Any]] | None:
        return self.registry.resolve(name, version)

    def context(self, execution: Execution) -> OrchestrationContext:
        return OrchestrationContext(execution)

    def parent_execution(self, instance: str) -> int:
        loaded = self.provider.load(instance, None, 1 << 62)
        return 1 if loaded is None else loaded.execution_id

    def guid(self) -> str:
        return self.clock.guid()

    # ── what loops and workers share ─────────────────────────────────────────────────────────────────────────

    def token(self) -> str:
        """A token for an activity held here: it names its owner, as the store's own do."""
        return f"lock_{self.owner}:h{next(self._tokens)}"

    def room(self) -> int:
        """How many more activities may be held."""
        return self.workers.room() - self._reserved

    def reserve(self, count: int) -> None:
        """Activities that turns not yet committed hold."""
        with self._counting:
            self._reserved += count

    def sessions(self) -> tuple[str, ...]:
        """Sessions with an activity in flight here."""
        with self.holdings.lock:
            return tuple({job.session_id for job in self.holdings.jobs.values() if job.session_id is not None})

    def poke(self) -> None:
        """There is something for a loop: wake one that sleeps, or keep the next from sleeping."""
        self.queue.wake(self.owner)

    def interval(self, what: str) -> float:
        """Seconds between two renewals, reclaims, sweeps."""
        if what == "renew_leases":
            return self.lease_ms / 3_000
        if what == "renew_work":
            return min(self.work_lease_ms / 3_000, 25.0)
        if what == "renew_sessions":
            return max(0.05, min(self.session_lock_ms / 3_000, 25.0))
        return 0.3 if what == "reclaim" else 300.0

    # ── counters ─────────────────────────────────────────────────────────────────────────────────────────────

    def count(self, name: str, by: int = 1) -> None:
        with self._counting:
            self.counters[name] += by

    def count_turn(self, ran: Ran) -> None:
        if ran.started:
            self.count("orch_starts")
        if ran.outcome == "completed":
            self.count("orch_completions")
        elif ran.outcome == "continued_as_new":
            self.count("orch_continue_as_new")
        elif ran.outcome in ("failed", "cancelled"):
            self.count("orch_failures")
            self.count("orch_poison" if ran.category == "poison" else f"orch_{ran.category}_errors")

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        self._withdraw = self.provider.announce(self.owner)
        self.workers.start()
        self.keeper.start()
        for loop in self.loops:
            loop.start()

    def stop(self, timeout_s: float) -> None:
        """Take nothing new, let activities finish until the time is over, commit what they gave, give the rest back."""
        deadline = self.clock.monotonic() + timeout_s
        self.stopping.set()
        for _ in self.loops:
            self.poke()
        waiting = self.workers.stop()
        self.holdings.give_back(waiting)
        while self.workers.running and self.clock.monotonic() < deadline:
            self.clock.wait(self.stopped, 0.002)
        for loop in self.loops:
            self.poke()
            loop.join(max(0.05, min(1.0, deadline - self.clock.monotonic())))
        self.stopped.set()
        self.workers.stop()
        self.leave()
        self.queue.forget(self.owner)
        self._withdraw()
        self.cache.clear()

    def leave(self) -> None:
        """The last exchange: results in, everything else free."""
        done = Done()
        holdings = self.holdings
        with holdings.lock:
            leases, jobs = list(holdings.leases.values()), list(holdings.jobs.values())
            holdings.leases.clear()
            holdings.jobs.clear()
            for lease in leases:
                holdings.results += [holdings.orphan(result) for result in lease.consumed + lease.results]
        done.work, done.work_backs, done.turn_backs, releases = holdings.owed()
        done.work_backs += [WorkBack(job.row_id, job.token, 0, True) for job in jobs if not job.cancelled]
        done.turn_backs += [TurnBack(lease.token, lease.instance, 0, True) for lease in leases]
        # In a forked child they are its parent's.
        if os.getpid() == self._process and (done.work or done.work_backs or done.turn_backs):
            self._hand_in(done)
        for lease in leases + releases:
            if lease.execution is not None:
                lease.execution.close()

    def _hand_in(self, done: Done) -> None:
        """Again after errors that may pass: nobody will do it later."""
        for delay in (*RETRIES_S, None):
            try:
                self.queue.submit(Request(self.clock.now(), done))
                return
            except StoreError as error:
                if delay is None or not error.retryable:
                    log.warning("shutting down: leases could not be given back, they end by themselves: %s", error)
                    return
                self.clock.wait(threading.Event(), delay)


class Runtime:
    """Runs orchestrations and activities of one store in this process; several runtimes may share a store.

    `provider`: `SqliteProvider`, or an object with a store as `_native` (`duroxide.storage.base.Provider`). `options`:
    `RuntimeOptions`, or None for its defaults. `clock`: what it takes the time from (`duroxide.runtime.clock.Clock`), for tests.
    A runtime starts once; after `shutdown` make a new one. Leaving the program without `shutdown` loses nothing: it is as a kill.
    """

    def __init__(self, provider: Any, options: RuntimeOptions | None = None, *, clock: Clock | None = None) -> None:
        if options is not None and not isinstance(options, RuntimeOptions):
            raise TypeError(f"argument 'options': '{type(options).__name__}' object cannot be converted to 'RuntimeOptions'")
        provider._native  # noqa: B018 - what is no provider says so here
        self._provider = provider
        self._options = options or RuntimeOptions()
        self._registry = Registry()
        self._clock = clock or Clock()
        self._engine: Engine | None = None
        self._used = False
        self._lock = threading.Lock()

    # ── code ─────────────────────────────────────────────────────────────────────────────────────────────────

    @overload
    def register_activity(self, name: str, fn: Function) -> Function: ...
    @overload
    def register_activity(self, name: str, fn: None = None) -> Callable[[Function], Function]: ...
    def register_activity(self, name: str, fn: Any = None) -> Any:
        """Make `fn(ctx, input)` known as an activity; without `fn` a decorator. Returns the function as it is.

        The first function of a name stays. OptionError for a name that begins with `__duroxide_syscall:`, TypeError for what
        cannot be called. Works before and after `start`.
        """

        def register(function: Function) -> Function:
            self._registry.add_activity(name, function)
            return function

        return register if fn is None else register(fn)

    register_activity_typed = register_activity

    @overload
    def register_orchestration(self, name: str, fn: Function) -> Function: ...
    @overload
    def register_orchestration(self, name: str, fn: None = None) -> Callable[[Function], Function]: ...
    def register_orchestration(self, name: str, fn: Any = None) -> Any:
        """Make `fn(ctx, input)` known as version 1.0.0 of an orchestration; without `fn` a decorator. Returns the function as it is.

        `fn` is a generator function, or a plain function whose result is the output. The last function of a version counts.
        """

        def register(function: Function) -> Function:
            self._registry.add_orchestration(name, None, function)
            return function

        return register if fn is None else register(fn)

    register_orchestration_typed = register_orchestration

    @overload
    def register_orchestration_versioned(self, name: str, version: str, fn: Function) -> Function: ...
    @overload
    def register_orchestration_versioned(self, name: str, version: str, fn: None = None) -> Callable[[Function], Function]: ...
    def register_orchestration_versioned(self, name: str, version: str, fn: Any = None) -> Any:
        """Make `fn(ctx, input)` known as a version of an orchestration; without `fn` a decorator.

        OptionError for a text that is no semantic version. Versions of one name have to come in increasing order: said by
        `start`, and at the call once it has started.
        """

        def register(function: Function) -> Function:
            self._registry.add_orchestration(name, version, function)
            return function

        return register if fn is None else register(fn)

    register_orchestration_versioned_typed = register_orchestration_versioned

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Start the threads and return. RuntimeError on a second start; OptionError for options or versions that cannot work."""
        with self._lock:
            if self._used:
                raise RuntimeError("Generator driver not set. Call set_generator_driver() before start().")
            self._used = True
            self._options.check()
            self._registry.check()
            tracing.start_runtime(self._options)
            engine = Engine(self._provider, self._registry, self._options, self._clock)
            engine.start()
            self._engine = engine

    def shutdown(self, timeout_ms: int | None = None) -> None:
        """Stop taking work, give running activities `timeout_ms` (default 1000) to finish, commit their results, give back the rest.
        Returns in that time even if an activity blocks (its late result is discarded, and it runs again). A negative time waits
        for all of them. Idempotent."""
        with self._lock:
            engine, self._engine = self._engine, None
        if engine is not None:
            timeout = 1_000 if timeout_ms is None else timeout_ms
            engine.stop(1e9 if timeout < 0 else timeout / 1_000)

    def metrics_snapshot(self) -> MetricsSnapshot | None:
        """Counters since `start`, each thing counted once; None while the runtime does not run."""
        engine = self._engine
        return None if engine is None else MetricsSnapshot._make(**engine.counters)
