"""What this runtime holds: leased instances with their inboxes, and held activities; and the thread that keeps the leases alive.

Owns the states of a lease (idle, ready, running) and who is told when one is lost. Refuses to know how turns run and what SQL says.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from duroxide.engine._turn import WorkResult
from duroxide.events import Work, activity_completed_item, activity_failed_item
from duroxide.logs import Log
from duroxide.storage.base import ClaimedTurn, ClaimedWork, Renewal, StoreError, TurnBack, WorkBack, WorkDone

if TYPE_CHECKING:
    from duroxide.engine._execution import Execution
    from duroxide.runtime.runtime import Engine

log: Log = Log("duroxide.runtime")

IDLE, READY, RUNNING = range(3)
RENEWALS = ("renew_leases", "renew_work", "renew_sessions")
RESERVE_S, PIECE_S = 0.1, 0.005  # before the first piece of `reserve_log`, and between two
SOON_S = 0.25  # after a renewal that the store could not do


class Lease:
    """One leased instance. `in_flight` counts the held activities whose results come straight into `results`; `consumed` are
    those that the running turn has taken: until it is committed nobody else has them; `reserved`: how many activities it will hold."""

    __slots__ = ("claim", "consumed", "execution", "in_flight", "instance", "messages", "reserved", "results", "state", "token")

    def __init__(self, instance: str, token: str, claim: ClaimedTurn | None, execution: Execution | None) -> None:
        self.instance: str = instance
        self.token: str = token
        self.claim: ClaimedTurn | None = claim
        self.execution: Execution | None = execution
        self.messages: list[tuple[int, str, int]] = []
        self.results: list[WorkResult] = []
        self.consumed: list[WorkResult] = []
        self.in_flight: int = 0
        self.reserved: int = 0
        self.state: int = IDLE


class Job:
    """One held activity: a worker row under our token, waiting for a worker thread or running on one."""

    __slots__ = (
        "activity_id", "attempt", "cancelled", "execution_id", "input", "instance", "item", "lease", "name", "of", "of_version",
        "queued_at", "row_id", "session_id", "tag", "token",
    )  # fmt: skip

    instance: str
    execution_id: int
    activity_id: int
    name: str
    input: str

    def __init__(self, row_id: int, token: str, attempt: int, item: str, of: str, of_version: str) -> None:
        self.row_id: int = row_id
        self.token: str = token
        self.attempt: int = attempt
        self.item: str = item
        self.of: str = of  # orchestration
        self.of_version: str = of_version
        self.session_id: str | None = None
        self.tag: str | None = None
        self.lease: Lease | None = None
        self.cancelled: bool = False
        self.queued_at: float = 0.0

    @classmethod
    def claimed(cls, work: ClaimedWork) -> Job:
        """From a claimed row; ValueError if its item is none."""
        job = cls(work.row_id, work.token, work.attempt, work.item, work.name or "", work.version or "")
        parsed = Work(work.item)
        job.instance, job.execution_id, job.activity_id = parsed.instance, parsed.execution_id, parsed.activity_id
        job.name, job.input, job.session_id, job.tag = parsed.name, parsed.input, parsed.session_id, parsed.tag
        return job


class Holdings:
    """All leases and jobs of one runtime, under one lock. `poke` wakes one idle loop (given by the runtime)."""

    def __init__(self) -> None:
        self.lock: threading.Lock = threading.Lock()
        self.leases: dict[str, Lease] = {}
        self.ready: deque[Lease] = deque()
        self.jobs: dict[tuple[str, int, int], Job] = {}  # by (instance, execution, activity): queued or running
        self.results: list[WorkDone] = []
        self.backs: list[WorkBack] = []
        self.releases: list[Lease] = []
        self.refused: list[TurnBack] = []
        self._arrived: dict[str, list[ClaimedTurn]] = {}
        self.poke: Callable[[], None] = lambda: None

    # ── leases ───────────────────────────────────────────────────────────────────────────────────────────────

    def arrived(self, claims: list[ClaimedTurn]) -> None:
        """What an exchange claimed for us. Told in the order of the exchanges, which need not be that in which loops wake."""
        with self.lock:
            for claim in claims:
                self._arrived.setdefault(claim.instance, []).append(claim)

    def claimed(self, instance: str, live: Callable[[str], Execution | None]) -> None:
        """Takes up every claim that arrived for an instance: a new lease with its `live` execution, or more messages for one that
        we hold. Another loop may have brought the earlier messages and may not have come here yet: they go first."""
        ended: list[Execution] = []
        with self.lock:
            for claim in self._arrived.pop(instance, ()):
                lease = self.leases.get(instance)
                if lease is not None and lease.token == claim.lease:
                    lease.messages.extend(claim.messages)
                else:
                    if lease is not None and (execution := self._drop(lease)) is not None:  # it had ended without our noticing
                        ended.append(execution)
                    lease = self.leases[instance] = Lease(instance, claim.lease, claim, live(instance))
                self._settle(lease)
        for execution in ended:
            execution.close()

    def next_ready(self, limit: int) -> list[Lease]:
        """Up to `limit` leases to run, marked as running."""
        taken: list[Lease] = []
        with self.lock:
            while self.ready and len(taken) < limit:
                lease = self.ready.popleft()
                if self.leases.get(lease.instance) is lease:
                    lease.state = RUNNING
                    taken.append(lease)
        return taken

    def _settle(self, lease: Lease) -> None:
        """Under the lock: what an idle lease is to do next."""
        if lease.state == IDLE:
            if lease.claim is not None or lease.messages or lease.results:
                lease.state = READY
                self.ready.append(lease)
            elif not lease.in_flight:
                del self.leases[lease.instance]
                self.releases.append(lease)

    def ran(self, lease: Lease, kept: bool) -> bool:
        """The lease's turn was committed. False if it is no longer ours: its execution may be cached."""
        with self.lock:
            if self.leases.get(lease.instance) is not lease:
                return False
            lease.state = IDLE
            if kept:
                self._settle(lease)
                return True
            del self.leases[lease.instance]  # messages that came meanwhile are still in the store, free to be claimed
            self._disown(lease)
            return False

    def lost(self, lease: Lease) -> None:
        """Somebody else has it, or its state is not what the store has: forget it. Running code goes on and is not committed."""
        with self.lock:
            # One that was released meanwhile is not ours to touch: its execution may be cached by now.
            execution = self._drop(lease) if self.leases.get(lease.instance) is lease else None
            self._disown(lease)
        if execution is not None:
            execution.close()

    def _drop(self, lease: Lease) -> Execution | None:
        """Under the lock: no longer held. Returns the execution that nobody uses now, to be closed."""
        del self.leases[lease.instance]
        self._disown(lease)
        if lease.state == RUNNING:
            return None
        execution, lease.execution = lease.execution, None
        return execution

    def _disown(self, lease: Lease) -> None:
        """Under the lock: results that came for it go to the store."""
        self.results += [self.orphan(result) for result in lease.consumed + lease.results]
        lease.results, lease.consumed = [], []

    @staticmethod
    def orphan(result: WorkResult) -> WorkDone:
        make = activity_completed_item if result.ok else activity_failed_item
        item = make(result.instance, result.execution_id, result.activity_id, result.payload)
        return WorkDone(result.row_id, result.token, result.instance, item)

    # ── jobs ─────────────────────────────────────────────────────────────────────────────────────────────────

    def hold(self, jobs: list[Job]) -> list[Job]:
        """New jobs; those of an instance that is leased here keep its lease. Returns those to be run: one that is here already, but
        whose lease had ended, goes on under the new one."""
        new = []
        with self.lock:
            for job in jobs:
                key = (job.instance, job.execution_id, job.activity_id)
                here = self.jobs.get(key)
                if here is not None and here.row_id == job.row_id and not here.cancelled:
                    here.token, here.attempt = job.token, job.attempt
                    continue
                if here is not None:
                    here.cancelled = True
                self.jobs[key] = job
                new.append(job)
                if job.lease is None:
                    job.lease = self.leases.get(job.instance)
                    if job.lease is not None:
                        job.lease.in_flight += 1
        return new

    def finished(self, job: Job, ok: bool, payload: str) -> None:
        """A job's result: into its instance's inbox if that is leased here, else to the store."""
        with self.lock:
            self._forget(job)
            lease = self.leases.get(job.instance)
            if not job.cancelled:
                result = WorkResult(job.instance, job.execution_id, job.activity_id, ok, payload, job.row_id, job.token)
                if lease is not None:
                    lease.results.append(result)
                else:
                    self.results.append(self.orphan(result))
            if lease is not None:
                self._settle(lease)
        self.poke()

    def give_back(self, jobs: list[Job], delay_ms: int = 0, refund: bool = True) -> None:
        """Not run, not now: others may take them."""
        with self.lock:
            for job in jobs:
                self._forget(job)
                if not job.cancelled:
                    self.backs.append(WorkBack(job.row_id, job.token, delay_ms, refund))
                lease = self.leases.get(job.instance)
                if lease is not None:
                    self._settle(lease)
        self.poke()

    def _forget(self, job: Job) -> None:
        key = (job.instance, job.execution_id, job.activity_id)
        if self.jobs.get(key) is job:
            del self.jobs[key]
        if job.lease is not None:
            job.lease.in_flight -= 1
            job.lease = None

    def cancel(self, keys: list[tuple[str, int, int]]) -> None:
        """The rows of these activities are gone: tell those that run here, forget what came of them."""
        if not self.leases and not self.jobs:
            return
        with self.lock:
            for key in keys:
                job = self.jobs.get(key)
                if job is not None:
                    job.cancelled = True
            gone = set(keys)
            for instance in {key[0] for key in keys}:
                lease = self.leases.get(instance)
                if lease is not None and lease.results:
                    lease.results = [r for r in lease.results if (r.instance, r.execution_id, r.activity_id) not in gone]

    def owed(self) -> tuple[list[WorkDone], list[WorkBack], list[TurnBack], list[Lease]]:
        """What the next exchange must hand in beside turns."""
        if not (self.results or self.backs or self.releases or self.refused):
            return [], [], [], []
        with self.lock:
            results, self.results = self.results, []
            backs, self.backs = self.backs, []
            releases, self.releases = self.releases, []
            refused, self.refused = self.refused, []
        return results, backs, refused + [TurnBack(lease.token, lease.instance, 0, True) for lease in releases], releases


class Keeper(threading.Thread):
    """Renews leases, notices lost ones, frees those of dead owners, ends sessions. One thread a runtime."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(name="duroxide-keeper", daemon=True)
        self.engine = engine
        self._seen: int | None = None
        self._due = dict.fromkeys(("renew_leases", "renew_work", "renew_sessions", "reclaim", "sweep"), 0.0)
        self._due["sweep"] = engine.clock.monotonic() + 300

    def run(self) -> None:
        engine = self.engine
        try:
            self.reserve()
        except Exception:
            log.exception("preparing the store")
        while not engine.clock.wait(engine.stopped, self.pause()):
            try:
                self.tick()
            except StoreError as error:
                engine.count("provider_errors")
                log.warning("keeping leases: %s", error)
            except Exception:
                log.exception("keeping leases")

    def reserve(self) -> None:
        """Whoever lives for longer than a moment has the store prepare itself, in pieces between which others may write."""
        engine, pause = self.engine, RESERVE_S
        reserve: Callable[[], bool] = getattr(engine.provider, "reserve_log", bool)
        while not engine.clock.wait(engine.stopped, pause) and reserve():
            pause = PIECE_S

    def pause(self) -> float:
        holdings = self.engine.holdings
        return 0.025 if holdings.jobs or holdings.leases else 0.2

    def tick(self) -> None:
        """One look at everything that is due."""
        now = self.engine.clock.monotonic()
        self.engine.workers.give_back_late(now)
        due = {what for what in RENEWALS if self._every(what, now)}
        if not self._sessions_used(now):
            due.discard("renew_sessions")
        if due or (self.engine.holdings.jobs and self._changed()):
            try:
                self.renew("renew_leases" in due, "renew_work" in due, "renew_sessions" in due)
            except StoreError:
                self._due.update(dict.fromkeys(due, now + SOON_S))  # a third of a lease is too long to wait for the next try
                raise
        if self._every("reclaim", now) and self.engine.provider.reclaim(self.engine.clock.now()):
            self.engine.queue.touch()
        if self._every("sweep", now):
            self.engine.provider.sweep_sessions(self.engine.clock.now())

    def _every(self, what: str, now: float) -> bool:
        if now < self._due[what]:
            return False
        self._due[what] = now + self.engine.interval(what)
        return True

    def _changed(self) -> bool:
        """Whether anybody committed since the last look, here or elsewhere: it may have cancelled what runs here."""
        self.engine.queue.look()
        seen, self._seen = self._seen, self.engine.queue.generation
        return seen != self._seen

    def _sessions_used(self, now: float) -> bool:
        """Whether this runtime has had work of a session within the idle time: until then its sessions stay here."""
        workers = self.engine.workers
        if any(job.session_id is not None for job in list(self.engine.holdings.jobs.values())):
            workers.session_used = now
        return now - workers.session_used < self.engine.session_idle_ms / 1_000

    def renew(self, leases: bool, work: bool, sessions: bool) -> None:
        """Extend what is due (the rest is only checked) and forget what is lost."""
        engine, holdings = self.engine, self.engine.holdings
        with holdings.lock:
            held = list(holdings.leases.values())
            jobs = [(job, job.token) for job in holdings.jobs.values()]
        if not (held or jobs or sessions):
            return
        renewed = engine.provider.renew(
            Renewal(
                engine.clock.now(),
                [(lease.instance, lease.token) for lease in held],
                engine.lease_ms if leases else 0,
                [(job.row_id, token) for job, token in jobs],
                engine.work_lease_ms if work else 0,
                engine.session_owner if sessions else None,
                engine.session_lock_ms,
                engine.session_idle_ms,
            )
        )
        for job, token in (jobs[index] for index in renewed.lost_work):
            if job.token == token:
                job.cancelled = True
        for index in renewed.lost_leases:
            if held[index].state != RUNNING:  # a running one finds out when it commits
                holdings.lost(held[index])
