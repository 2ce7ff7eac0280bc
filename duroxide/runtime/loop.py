"""The loop: exchange -> load -> run -> exchange. Each turn thread of a runtime is one `Loop`.

Owns what happens between two exchanges and what a commit's answer means for leases, jobs and live executions.
Refuses to know SQL, backends and what the user's code does.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from duroxide.engine._replay import Ran, needs_load, run_turn
from duroxide.engine._turn import Turn
from duroxide.events import VERSIONS, work_poison
from duroxide.logs import Log
from duroxide.runtime.leases import RUNNING, Job, Lease
from duroxide.storage.base import LOST, OK, Appetite, ClaimedWork, Done, StoreError, Taken, TurnBack, TurnDone, WorkBack, WorkDone

if TYPE_CHECKING:
    from duroxide.runtime.runtime import Engine

log: Log = Log("duroxide.runtime")

TURNS = 48  # of one exchange: larger groups cost latency and gain nothing (bench_exchange)
IDLE_S = 5.0  # an idle loop looks by itself at the latest then
UNREADABLE_MS = 1_000  # before a work item that cannot be read comes again
REFUSED_MS = 100  # before an instance comes again whose turn the store refused
RETRIES_S = (0.01, 0.02, 0.04, 0.08, 0.16)  # of a commit that the store could not do


class Loop(threading.Thread):
    """One turn thread."""

    def __init__(self, engine: Engine, slot: int) -> None:
        super().__init__(name=f"duroxide-loop-{slot}", daemon=True)
        self.engine = engine
        self._failures = 0

    def run(self) -> None:
        engine = self.engine
        while not engine.stopping.is_set():
            try:
                self.step()
                self._failures = 0
            except StoreError as error:
                engine.count("provider_errors")
                delay = min(0.1 * 2**self._failures, 3.0)
                self._failures += 1
                log.warning("the store fails, next try in %.1f s: %s", delay, error)
                engine.clock.wait(engine.stopping, delay)
            except Exception:
                log.exception("turn thread: unexpected error; it goes on")
                engine.clock.wait(engine.stopping, 0.1)
        if engine.stopped.is_set():  # it was too slow for the shutdown: what it still holds goes back now
            engine.leave()

    def step(self) -> None:
        """Run what is ready, hand it in, take more; sleeps in the queue when there is nothing."""
        running = self.engine.holdings.next_ready(TURNS)
        try:
            self._step(running)
        except BaseException:  # no memory, say, or a defect of ours
            for lease in running:
                self._abandon(lease)
            raise

    def _step(self, running: list[Lease]) -> None:
        engine, holdings = self.engine, self.engine.holdings
        ran: list[tuple[Lease, Ran]] = []
        for lease in running:
            self._turn(lease, ran)
        done, releases = self._outbox(ran)
        if done is None and not holdings.ready:
            taken = engine.queue.take(self.appetite(TURNS), IDLE_S, None, engine.clock.now)
        else:  # no more than can run next: results that wait behind others are lost with the process
            taken = self._exchange(self.appetite(TURNS - len(holdings.ready)), done, ran)
        if done is not None and taken is not None:
            self._settle(taken, ran)
            for lease in releases:
                if lease.execution is not None:
                    engine.cache.put(lease.execution)
        if taken is not None:
            self._take(taken)

    def _abandon(self, lease: Lease) -> None:
        """Nobody knows how far its turn came: it is given back, and the store says what became of it."""
        holdings = self.engine.holdings
        self._unreserve(lease)
        if lease.state == RUNNING and holdings.leases.get(lease.instance) is lease:
            holdings.lost(lease)
            with holdings.lock:
                holdings.releases.append(Lease(lease.instance, lease.token, None, None))

    def _unreserve(self, lease: Lease) -> None:
        """What its turn was to hold is held now, or never will be."""
        reserved, lease.reserved = lease.reserved, 0
        if reserved:
            self.engine.reserve(-reserved)

    # ── before the exchange ──────────────────────────────────────────────────────────────────────────────────

    def _turn(self, lease: Lease, ran: list[tuple[Lease, Ran]]) -> None:
        engine = self.engine
        with engine.holdings.lock:
            claim, lease.claim = lease.claim, None
            messages, lease.messages = lease.messages, []
            lease.consumed, lease.results = lease.results, []
        turn = Turn(claim, lease.instance, lease.token, lease.execution)
        turn.messages.extend(messages)
        turn.results.extend(lease.consumed)
        for _, _, attempt in messages:
            turn.attempt = max(turn.attempt, attempt)
        lease.execution = None
        try:
            loaded = engine.provider.load(lease.instance) if needs_load(turn) else None
            outcome = run_turn(turn, loaded, engine, engine.clock.now())
        except BaseException as error:  # the store or a defect of ours: the instance comes again
            log.exception("turn of '%s'", lease.instance)
            outcome = Ran(None, TurnBack(lease.token, lease.instance, 1_000, isinstance(error, StoreError)), "back")
        for text in outcome.warnings:
            log.warning("%s", text)
        ran.append((lease, outcome))

    def _outbox(self, ran: list[tuple[Lease, Ran]]) -> tuple[Done | None, list[Lease]]:
        done = Done()
        done.work, done.work_backs, done.turn_backs, releases = self.engine.holdings.owed()
        for lease, outcome in ran:
            if outcome.done is not None:
                self._hold(lease, outcome.done)
                done.turns.append(outcome.done)
                if outcome.execution is not None and not outcome.done.keep:
                    self.engine.cache.expect(lease.instance)
            elif outcome.back is not None:
                done.turn_backs.append(outcome.back)
        for lease in releases:
            if lease.execution is not None:
                self.engine.cache.expect(lease.instance)
        if done.turns or done.work or done.work_backs or done.turn_backs:
            return done, releases
        return None, releases

    def _hold(self, lease: Lease, turn: TurnDone) -> None:
        """Which new activities stay here, and whether the lease does."""
        engine = self.engine
        if turn.work and turn.status is None and engine.holds_untagged:
            room = engine.room()
            for work in turn.work:
                if room <= 0:
                    break
                if work.session_id is None and work.tag is None:
                    work.lease = engine.token()
                    lease.in_flight += 1
                    room -= 1
                    lease.reserved += 1
                    engine.reserve(1)
        turn.keep = turn.status is None and (lease.in_flight > 0 or bool(lease.messages or lease.results))

    def appetite(self, turns: int) -> Appetite:
        """For at most that many turns, and as many activities as there is room for; who is stopping wants nothing."""
        engine = self.engine
        mode, tags = engine.tag_filter
        sessions = engine.sessions()
        turns = turns if engine.turn_threads and not engine.stopping.is_set() else 0
        work = 0 if engine.stopping.is_set() else engine.room()
        return Appetite(
            engine.owner, max(0, turns), max(0, work), engine.lease_ms, engine.work_lease_ms, mode, tags, engine.session_owner,
            engine.session_lock_ms, max(0, engine.max_sessions - len(sessions)), sessions, VERSIONS,
        )  # fmt: skip

    def _exchange(self, appetite: Appetite, done: Done | None, ran: list[tuple[Lease, Ran]]) -> Taken | None:
        """One exchange, again after errors that may pass; when it cannot be done, what was run is forgotten and comes again."""
        engine = self.engine
        for delay in (*RETRIES_S, None):
            try:
                return engine.queue.take(appetite, 0, done, engine.clock.now)
            except StoreError as error:
                if delay is None or not error.retryable:
                    self._forget(done, ran)
                    raise
                engine.count("provider_errors")
                engine.clock.wait(engine.stopping, delay)
            except BaseException:  # a defect of the store: what was run must not stay ours for ever
                self._forget(done, ran)
                raise
        raise AssertionError("unreachable")

    def _forget(self, done: Done | None, ran: list[tuple[Lease, Ran]]) -> None:
        holdings = self.engine.holdings
        backs = [] if done is None else done.turn_backs + [TurnBack(t.lease, t.instance, 0, True) for t in done.turns]
        for lease, outcome in ran:
            self._unreserve(lease)
            if outcome.execution is not None:
                outcome.execution.close()
                self.engine.cache.forget(lease.instance)
            holdings.lost(lease)
        with holdings.lock:
            if done is not None:
                holdings.results += done.work
                holdings.backs += done.work_backs
            holdings.releases += [Lease(back.instance, back.lease, None, None) for back in backs]

    # ── after the exchange ───────────────────────────────────────────────────────────────────────────────────

    def _settle(self, taken: Taken, ran: list[tuple[Lease, Ran]]) -> None:
        """What the commit codes mean for leases, jobs and live executions."""
        jobs: list[Job] = []
        index = 0
        try:
            for lease, outcome in ran:
                turn = outcome.done
                if turn is None:
                    self.engine.holdings.ran(lease, False)
                    continue
                code, held = taken.turn_codes[index], taken.held[index]
                index += 1
                self._unreserve(lease)
                if code == OK:
                    self._committed(lease, outcome, turn, held, jobs)
                else:
                    self._refused(lease, outcome, turn, code)
        finally:  # what is held is renewed until it has run
            if jobs:
                self.engine.workers.add(jobs)

    def _committed(self, lease: Lease, outcome: Ran, turn: TurnDone, held: list[int], jobs: list[Job]) -> None:
        engine, holdings = self.engine, self.engine.holdings
        lease.consumed = []
        engine.count_turn(outcome)
        if turn.messages and (asked := sum(kind == "SubOrchestrationScheduled" for _, kind, _ in turn.events)):
            engine.count("suborchestration_calls", asked)
        if turn.cancelled:
            holdings.cancel(turn.cancelled)
        rows = iter(held)
        execution = outcome.execution
        new: list[Job] = []
        for work in turn.work:
            if work.lease is not None:
                job = Job(next(rows), work.lease, 1, work.item, execution.name if execution else "", execution.version if execution else "")
                job.instance, job.execution_id, job.activity_id = work.instance, work.execution_id, work.activity_id
                job.name, job.input, job.lease = work.name, work.input, lease
                new.append(job)
        if new:
            jobs += new
            holdings.hold(new)
        lease.execution = execution
        if not holdings.ran(lease, turn.keep) and execution is not None:
            lease.execution = None
            engine.cache.put(execution)

    def _refused(self, lease: Lease, outcome: Ran, turn: TurnDone, code: int) -> None:
        """Nothing of the turn was written: what is stored is not what we thought."""
        holdings = self.engine.holdings
        if code == LOST:
            log.info("the lease on '%s' ended before its turn was committed: nothing was written", lease.instance)
        else:
            log.error("the store refused a turn of '%s' (events %s): it runs again", lease.instance, [e[0] for e in turn.events])
        if outcome.execution is not None:
            outcome.execution.close()
            self.engine.cache.forget(lease.instance)
        holdings.lost(lease)
        with holdings.lock:
            if code == LOST:  # it may be ours all the same: only a result that it had was not
                holdings.releases.append(Lease(lease.instance, lease.token, None, None))
            else:  # the attempt counts: what is refused each time is poison in the end
                holdings.refused.append(TurnBack(lease.token, lease.instance, REFUSED_MS, False))

    def _take(self, taken: Taken) -> None:
        """New turns and new work."""
        engine = self.engine
        for claim in taken.turns:
            engine.holdings.claimed(claim.instance, engine.cache.take)
        engine.count("orch_dispatcher_items_fetched", len(taken.turns))
        if taken.work:
            engine.count("worker_dispatcher_items_fetched", len(taken.work))
            engine.workers.add(self._jobs(taken.work))
        if len(engine.holdings.ready) > 1:
            engine.poke()

    def _jobs(self, claimed: list[ClaimedWork]) -> list[Job]:
        holdings = self.engine.holdings
        jobs = []
        for work in claimed:
            try:
                jobs.append(Job.claimed(work))
            except ValueError as error:
                self._unreadable(work, str(error))
        return holdings.hold(jobs)

    def _unreadable(self, work: ClaimedWork, error: str) -> None:
        """Not an activity. Somebody newer may be able to read it; after `max_attempts` it is poison."""
        holdings, most = self.engine.holdings, self.engine.max_attempts
        if work.attempt <= most:
            log.error("worker row %d of '%s' holds no activity (attempt %d): %.200s: given back", work.row_id, work.instance, work.attempt, error)
            with holdings.lock:
                holdings.backs.append(WorkBack(work.row_id, work.token, UNREADABLE_MS))
            return
        self.engine.count("activity_poison")
        told = work_poison(work.row_id, work.instance, work.item, error, work.attempt, most)
        log.error("worker row %d holds no activity, removed: %.200s: %.1000r", work.row_id, error, work.item)
        instance, message = told or ("", None)
        with holdings.lock:
            holdings.results.append(WorkDone(work.row_id, work.token, instance, message))
