"""Activities: the threads that run them, how many are held for them, and what a call's result looks like.

Owns the job queue and its bound (`room`), which follows how long activities take. Refuses to know turns and SQL.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from duroxide.client import Client
from duroxide.context import ActivityContext
from duroxide.engine._codec import clean, dumps, read
from duroxide.errors import ProviderError
from duroxide.events import SYSCALL, activity_poison, application_failure, quote
from duroxide.logs import Log
from duroxide.runtime.leases import Job
from duroxide.storage.base import StoreError

if TYPE_CHECKING:
    from duroxide.runtime.runtime import Engine

log: Log = Log("duroxide.runtime")

MOST_HELD = 256
AHEAD_S = 0.03  # hold as much as the workers can do in this time
LATE_S = 0.06  # what waited so long goes back, for others
STORE_BACK_MS = 500  # a call of the runtime's own that the store failed is tried again then


class Workers:
    """`concurrency` threads over one queue of jobs."""

    def __init__(self, engine: Engine, concurrency: int) -> None:
        self.engine = engine
        self.concurrency = concurrency
        self.queue: deque[Job] = deque()
        self.running: dict[int, Job] = {}  # slot -> job
        self._idle: list[threading.Lock] = []
        self.session_used: float = float("-inf")  # when work of a session was last seen here
        self._seconds = 0.0  # what an activity takes: moving average
        self.threads: list[threading.Thread] = [
            threading.Thread(target=self._run, args=(n,), name=f"duroxide-worker-{n}", daemon=True) for n in range(concurrency)
        ]

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def room(self) -> int:
        """How many more jobs may be held now."""
        if not self.concurrency:
            return 0
        most = MOST_HELD if self._seconds <= 0 else int(AHEAD_S * self.concurrency / self._seconds)
        return max(self.concurrency, min(most, MOST_HELD)) - len(self.queue) - len(self.running)

    def add(self, jobs: list[Job]) -> None:
        """Queue jobs (already in the holdings) and wake as many idle workers."""
        now = self.engine.clock.monotonic()
        waking: list[threading.Lock] = []
        with self.engine.holdings.lock:
            for job in jobs:
                job.queued_at = now
                if job.session_id is not None:
                    self.session_used = now
                self.queue.append(job)
                if self._idle:
                    waking.append(self._idle.pop())
        for lock in waking:
            lock.release()

    def give_back_late(self, now: float) -> None:
        """Jobs that wait behind slow ones go back to the store; as many stay as there are threads."""
        with self.engine.holdings.lock:
            if not self.queue or now - self.queue[0].queued_at < LATE_S or len(self.running) < self.concurrency:
                return
            late = list(self.queue)
            self.queue.clear()
        log.debug("%d activities wait behind slow ones: given back", len(late))
        self._seconds = max(self._seconds, LATE_S)
        self.engine.holdings.give_back(late)

    # ── one worker ───────────────────────────────────────────────────────────────────────────────────────────

    def _run(self, slot: int) -> None:
        lock, engine = threading.Lock(), self.engine
        lock.acquire()
        worker_id = f"work-{slot}-{engine.node}"
        while not engine.stopped.is_set():
            with engine.holdings.lock:
                job = self.queue.popleft() if self.queue else None
                if job is None:
                    self._idle.append(lock)
                else:
                    self.running[slot] = job
            if job is None:
                lock.acquire()
                continue
            try:
                self._do(job, worker_id)
            except BaseException:
                log.exception("worker %s, activity '%s' of '%s'", worker_id, job.name, job.instance)
            finally:
                self.running.pop(slot, None)

    def stop(self) -> list[Job]:
        """Wake everybody to see that it is over; returns the jobs that nobody began."""
        with self.engine.holdings.lock:
            left, idle = list(self.queue), self._idle
            self.queue.clear()
            self._idle = []
        for lock in idle:
            lock.release()
        return left

    def _do(self, job: Job, worker_id: str) -> None:
        engine = self.engine
        if job.cancelled:
            engine.holdings.finished(job, False, "")
            return
        if job.attempt > engine.max_attempts:
            engine.count("activity_poison")
            details = activity_poison(
                job.instance, job.execution_id, job.name, job.activity_id, job.attempt, engine.max_attempts, job.item
            )
            engine.holdings.finished(job, False, details)
            return
        function = self._function(job)
        if function is None:
            log.warning("activity '%s' of '%s' is not registered here: given back (attempt %d)", job.name, job.instance, job.attempt)
            engine.holdings.give_back([job], min(1_000 << min(job.attempt - 1, 6), 60_000), refund=False)
            return
        started = engine.clock.monotonic()
        try:
            ok, payload = self._call(job, function, worker_id)
        except (StoreError, ProviderError) as error:
            engine.count("provider_errors")
            log.warning("the store fails '%s' of '%s', next try in %d ms: %s", job.name, job.instance, STORE_BACK_MS, error)
            engine.holdings.give_back([job], STORE_BACK_MS)
            return
        self._seconds += ((engine.clock.monotonic() - started) - self._seconds) / 16
        if job.cancelled:
            engine.count("activity_infra_errors")
        else:
            engine.count("activity_success" if ok else "activity_app_errors")
        engine.holdings.finished(job, ok, payload)

    def _call(self, job: Job, function: Callable[..., Any], worker_id: str) -> tuple[bool, str]:
        """(True, result as JSON text) or (False, details as JSON text). What the store raises in a call that the runtime itself
        answers passes through: it is no fault of the user's code."""
        engine = self.engine
        context = ActivityContext(
            {
                "instanceId": job.instance, "executionId": job.execution_id, "orchestrationName": job.of,
                "orchestrationVersion": job.of_version, "activityName": job.name, "workerId": worker_id,
                "activityId": job.activity_id, "sessionId": job.session_id, "tag": job.tag,
            },  # fmt: skip
            cancelled=lambda: job.cancelled,
            client=lambda: Client(engine.wrapper),
        )
        try:
            result = function(context, read(job.input))
            return True, result if job.name.startswith(SYSCALL) else dumps(result)
        except BaseException as error:
            if job.name.startswith(SYSCALL) and isinstance(error, (StoreError, ProviderError)):
                raise
            text = f"Activity '{job.name}' call failed: {type(error).__qualname__}: {_text_of(error)}"
            return False, application_failure(clean(text))
        finally:
            context._end()

    def _function(self, job: Job) -> Callable[..., Any] | None:
        if job.name.startswith(SYSCALL):
            return self._system_call(job.name[len(SYSCALL) :])
        return self.engine.registry.activity(job.name)

    def _system_call(self, name: str) -> Callable[..., Any] | None:
        """Calls that the runtime answers, in the text that is stored; a guid and the time only for rows that another runtime wrote."""
        if name == "get_kv_value":
            return lambda context, asked: _quoted(self.engine.provider.kv_value(asked["instance_id"], asked["key"]))
        if name == "utc_now_ms":
            return lambda context, asked: str(self.engine.clock.now())
        if name == "new_guid":
            return lambda context, asked: self.engine.clock.guid()
        return None


def _quoted(value: str | None) -> str:
    return "null" if value is None else quote(value)


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "<exception str() failed>"
