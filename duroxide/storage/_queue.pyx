# cython: language_level=3
"""Group commit: all writes of this process to one store go through one writer, in groups, and wake whom they concern.

Owns who leads a group, who rides along, appetites that stand while their loops sleep, and the watches of clients. Refuses to
know what a request means. Needs the GIL: between two calls into Python nothing here can be interrupted, so there is no mutex.
"""

import os
import threading
from _thread import allocate_lock, get_ident
from time import monotonic, sleep, time_ns
from weakref import WeakValueDictionary, ref

from duroxide.storage.base import OK, AnswerLost, Request, StoreError, Taken

cdef enum:
    MAX_REQUESTS = 256
    MAX_TURNS = 512

cdef enum:
    QUEUED  # in `waiting`
    RIDING  # in the group that is being written
    LEADING  # woken to lead the next group
    SETTLED  # answered
    PARKED  # a standing appetite: no request of its own, rides with the next group
    WOKEN  # sent home without an answer

cdef double LINGER_S = 1.0  # the watching thread ends after this time without anybody to wake
cdef double FIRST_POLL_S = 0.001
cdef double CALM_S = 0.1  # without any commit, ours or others': then the store may say by itself when there is one
cdef double REST_S = 0.2  # where it says nothing after all, this is how late we are
cdef unsigned long main_thread = 0
cdef long forks = 0  # how many lie between the first process and this one


def _begin():
    global main_thread, _finding
    main_thread = threading.main_thread().ident
    _finding = allocate_lock()  # another thread may have held it when this process was forked


def _forked():
    global forks
    forks += 1
    _begin()


_begin()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _now():
    return time_ns() // 1_000_000


cdef class Waiter:
    """One caller that sleeps until a group has answered its request."""

    cdef object request, lock, taken, error
    cdef Owner owner  # of a standing appetite, else None
    cdef int state
    cdef bint main
    cdef bint late  # it wants an answer even if nothing was claimed: do not park it again
    cdef long long until  # parked: when its timer will wake it (ms); 0: none

    def __cinit__(self, request):
        self.request = request
        self.lock = allocate_lock()
        self.lock.acquire()
        self.main = get_ident() == main_thread

    cdef int wake(self, int state) except -1:
        self.state = state
        self.lock.release()
        return 0

    cdef object answer(self):
        if self.error is not None:
            raise self.error
        return self.taken


cdef class Owner:
    """What is known of one owner's appetite: its sleeping loops, and whether there may be something for it."""

    cdef object arrived  # is told what was claimed, or None
    cdef list parked  # the last is woken first: its caches are warm
    cdef bint poked, turns_left, work_left
    cdef long long seen, next_visible

    def __cinit__(self):
        self.parked = []
        self.seen = self.next_visible = -1

    cdef bint wants(self, appetite, long long generation, long long now) except -1:
        """Whether an exchange may find something that the last one did not. Who is told so goes and looks."""
        if 0 <= self.next_visible <= now:
            self.next_visible = -1  # one loop is enough for a timer
            return True
        if self.seen != generation:
            return True
        return (self.turns_left and appetite.turns > 0) or (self.work_left and appetite.work > 0)

    cdef int served(self, appetite, taken, long long generation) except -1:
        if generation < self.seen:
            return 0  # an older group, settled late: it says nothing new
        self.seen = generation
        self.turns_left = len(taken.turns) >= appetite.turns
        self.work_left = len(taken.work) >= appetite.work
        self.next_visible = -1 if taken.next_visible_at is None else taken.next_visible_at
        return 0


cdef class Watch:
    """Wakes a client when a turn of its instance was committed here, or anything elsewhere; a context manager."""

    cdef Queue queue
    cdef str instance
    cdef object lock
    cdef bint signalled

    def __cinit__(self, Queue queue, str instance):
        self.queue = queue
        self.instance = instance
        self.lock = allocate_lock()
        self.lock.acquire()

    def __enter__(self):
        self.queue.watches.setdefault(self.instance, []).append(self)
        return self

    def __exit__(self, *exc):
        watches = self.queue.watches.get(self.instance, [])
        if self in watches:
            watches.remove(self)
        if not watches:
            self.queue.watches.pop(self.instance, None)

    cdef int signal(self) except -1:
        if not self.signalled:
            self.signalled = True
            self.lock.release()
        return 0

    def wait(self, double timeout_s):
        self.queue.watch_store()
        if not self.lock.acquire(True, max(timeout_s, 0.0)):
            return False
        self.signalled = False
        return True


def _hears(queue):
    """For a store that outlives the queue (`queue` is a weak reference)."""

    def heard(ready, instances):
        it = queue()
        if it is not None:
            (<Queue> it).heard(ready, instances)

    return heard


_queues = WeakValueDictionary()


cdef class Queue:
    cdef object __weakref__
    cdef readonly object store
    cdef public double poll_ms
    cdef readonly long long generation  # moves with every commit that is known of, here or elsewhere
    cdef readonly long long groups, requests  # how many were written, for tests and benches
    cdef bint leading, watching
    cdef long long news  # how often others had committed
    cdef long born  # in which generation of forks: its threads, and whoever leads, stay with the parent
    cdef list waiting
    cdef dict owners, watches
    cdef object version

    @staticmethod
    def of(store):
        """The one queue of this store in this process; it lives as long as somebody uses it."""
        with _finding:  # two queues on one store would not hear each other
            queue = _queues.get(id(store))
            if queue is None:
                queue = _queues[id(store)] = Queue(store)
            return queue

    def __cinit__(self, store):
        self.store = store
        self.born = forks
        self.poll_ms = 25.0
        self.waiting = []
        self.owners = {}
        self.watches = {}
        self.version = store.version()

    # ── callers ──────────────────────────────────────────────────────────────────────────────────────────────

    def submit(self, request):
        """The answer to one request, once the group it went with is durable. Raises what the store raised for it."""
        cdef Waiter me = Waiter(request)
        self.enter(me)
        return me.answer()

    def take(self, appetite, double timeout_s, done=None, now=_now):
        """Hand in `done`, if any, and what can be claimed; without `done` sleep until there may be something.

        None if nothing was found: after `timeout_s`, or early (somebody called `wake`, the store changed): then call again.
        `now` gives the time in ms.
        """
        cdef Owner owner = self.owner(appetite.owner)
        if done is not None:
            return self.submit(Request(now(), done, appetite))
        cdef Waiter me = Waiter(Request(0, None, appetite))
        cdef double deadline = monotonic() + timeout_s
        while not owner.poked:
            if owner.wants(appetite, self.generation, now()):
                taken = self.submit(Request(now(), None, appetite))
                if taken.turns or taken.work:
                    return taken
            remaining = deadline - monotonic()
            if remaining <= 0:
                owner.seen = -1  # a safety net: the next take looks for itself
                return None
            if self.park(me, owner, remaining, now):
                return me.answer()
        owner.poked = False
        return None

    def wake(self, owner=None):
        """Make one sleeping `take` of this owner return, or its next one not sleep. None: every `take` of everybody."""
        cdef Owner each
        if owner is not None:
            self.poke(self.owner(owner))
            return
        for each in list(self.owners.values()):
            each.poked = True
            while each.parked:
                (<Waiter> each.parked.pop()).wake(WOKEN)

    def tell(self, owner, arrived):
        """From here on `arrived(turns)` is called with all that is claimed for this owner, in the order of the exchanges: while a
        group is being answered the next one is written, and who takes part in both may wake in any order."""
        self.owner(owner).arrived = arrived

    def forget(self, owner):
        """This owner takes no more."""
        self.owners.pop(owner, None)

    def watch(self, instance):
        return Watch(self, instance)

    def touch(self):
        """Something was written past this queue: whoever sleeps looks again."""
        self.changed()

    def look(self):
        """Ask the store whether somebody else has committed, and wake everybody if so."""
        version = self.store.version()
        if version == self.version:
            return False
        self.version = version
        self.news += 1
        self.changed()
        return True

    cdef int check_process(self) except -1:
        if self.born != forks:
            raise StoreError("this store was opened before this process was forked: open it in the child instead", operation="exchange")
        return 0

    # ── groups ───────────────────────────────────────────────────────────────────────────────────────────────

    cdef int enter(self, Waiter me) except -1:
        """Have `me` answered: as leader if the writer is idle, else with the next group.

        A signal can strike the main thread in the middle of an exchange, so it leads nobody but itself; and if a loop sleeps
        that must be woken for what is handed in anyway, that one leads.
        """
        cdef Waiter other
        self.check_process()
        if self.leading:
            self.waiting.append(me)
        else:
            self.leading = True
            other = self.unpark() if me.main else None
            if other is None:
                return self.lead(me)
            self.waiting.append(me)
            other.wake(LEADING)
        try:
            me.lock.acquire()
        except BaseException:
            self.leave(me)
            raise
        if me.state == LEADING:
            self.lead(me)
        return 0

    cdef int leave(self, Waiter me) except -1:
        """It was interrupted while it slept. What is being written is written; nobody else may notice."""
        if me.state == QUEUED:
            self.waiting.remove(me)
        elif me.state == PARKED:
            me.owner.parked.remove(me)
        elif me.state == LEADING:
            self.pass_on()
        return 0

    cdef int lead(self, Waiter me) except -1:
        cdef list group = self.gather(me)
        cdef long long saw = self.generation  # what this group has seen; the next one may be gathered before we are settled
        try:
            answers = self.exchange(group)
            self.hand_out(group, answers)  # before anybody leads the next group
        except BaseException:  # this thread is to end; it leads others only where no signal strikes
            error = StoreError("exchange: interrupted, nobody knows how far it came", operation="exchange", retryable=True)
            self.finish(me, group, [error] * len(group), saw)
            raise
        self.finish(me, group, answers, saw)
        return 0

    cdef int hand_out(self, list group, list answers) except -1:
        cdef Owner owner
        for waiter, answer in zip(group, answers):
            if (<Waiter> waiter).request.appetite is not None and isinstance(answer, Taken) and answer.turns:
                owner = self.owner((<Waiter> waiter).request.appetite.owner)
                if owner.arrived is not None:
                    owner.arrived(answer.turns)
        return 0

    cdef int finish(self, Waiter me, list group, list answers, long long saw) except -1:
        self.pass_on()
        for waiter, answer in zip(group, answers):
            self.settle(<Waiter> waiter, answer, waiter is me, saw)
        if me.main:  # it takes nobody along: a loop that fell asleep since it came has not seen its group
            self.call_sleepers(saw)
        return 0

    cdef int call_sleepers(self, long long saw) except -1:
        cdef Owner owner
        for owner in self.owners.values():
            if owner.parked and owner.seen < saw:
                (<Waiter> owner.parked.pop()).wake(WOKEN)
        return 0

    cdef list gather(self, Waiter me):
        """Who goes with this group: everybody that waits, up to a bound, and one standing appetite of each owner."""
        cdef list group = [me]
        cdef Waiter waiter
        cdef Owner owner
        cdef int turns = 0, n = 0
        me.state = RIDING
        if not me.main:
            for waiter in self.waiting:
                if waiter.request.done is not None:
                    turns += len(waiter.request.done.turns)
                if n and (n >= MAX_REQUESTS or turns > MAX_TURNS):
                    break
                waiter.state = RIDING
                group.append(waiter)
                n += 1
            del self.waiting[:n]
        hungry = set()
        writes = False
        now = me.request.now
        for waiter in group:
            now = max(now, waiter.request.now)
            writes = writes or waiter.request.done is not None
            if waiter.request.appetite is not None:
                hungry.add(waiter.request.appetite.owner)
        if writes:
            self.generation += 1
            for name, owner in self.owners.items():
                if owner.parked and not me.main and name not in hungry:
                    waiter = owner.parked.pop()
                    waiter.state = RIDING
                    group.append(waiter)
        for waiter in group:  # one moment for all: nobody acts on what the next in the group cannot see yet
            waiter.request.now = now
        self.groups += 1
        self.requests += len(group)
        return group

    cdef list exchange(self, list group):
        """One answer for each: Taken, or the exception that is for it alone."""
        requests = [(<Waiter> waiter).request for waiter in group]
        try:
            return self.checked(self.store.exchange(requests), len(group))
        except Exception as error:
            if len(group) == 1 or getattr(error, "retryable", False) or isinstance(error, AnswerLost):
                return [error] * len(group)
        answers = []
        for request in requests:  # one of them spoilt the group: only its caller shall know
            try:
                answers += self.checked(self.store.exchange([request]), 1)
            except Exception as error:
                answers.append(error)
        self.generation += 1  # who asked for turns before another's message was in has not seen it
        return answers

    cdef list checked(self, answers, Py_ssize_t count):
        """The store's answers, or an error for each: it may have written, so nobody may ask it again by himself."""
        cdef Py_ssize_t fit = 0
        if isinstance(answers, list):
            for answer in answers:
                fit += isinstance(answer, Taken)
            if fit == len(answers) == count:
                return answers
        found = [type(answer).__name__ for answer in answers] if isinstance(answers, list) else type(answers).__name__
        error = StoreError(f"exchange: {count} requests were answered with {found}, not a list of as many Taken", operation="exchange")
        return [error] * count

    cdef int pass_on(self) except -1:
        """The writer is free: the next in line leads, if it can be a thread that signals do not reach."""
        cdef Waiter waiter, leader = None
        for waiter in self.waiting:
            if not waiter.main:
                leader = waiter
                break
        if leader is not None:
            self.waiting.remove(leader)
        elif self.waiting:
            leader = self.unpark()
            if leader is None:
                leader = self.waiting.pop(0)
        if leader is None:
            self.leading = False
        else:
            leader.wake(LEADING)
        return 0

    cdef int settle(self, Waiter waiter, answer, bint leads, long long saw) except -1:
        cdef Owner owner
        failed = isinstance(answer, BaseException)
        appetite = waiter.request.appetite
        if failed:
            waiter.error = answer
            if appetite is not None:
                self.owner(appetite.owner).seen = -1
        else:
            waiter.taken = answer
            if self.watches and waiter.request.done is not None:
                self.announce(waiter.request.done.turns, answer.turn_codes)
            if appetite is not None:
                owner = self.owner(appetite.owner)
                owner.served(appetite, answer, saw)
                if owner.parked:
                    self.rouse(owner, owner.turns_left and appetite.turns > 0)
        if leads:
            waiter.state = SETTLED
        elif waiter.owner is None or waiter.late or not (failed or not (answer.turns or answer.work)):
            waiter.wake(SETTLED)
        else:  # it rode along for nothing: it sleeps on, unless there is something that this group has not seen
            waiter.taken = waiter.error = None
            if failed or waiter.owner.poked or waiter.owner.wants(appetite, self.generation, 0):
                waiter.wake(WOKEN)
            else:
                waiter.state = PARKED
                waiter.owner.parked.append(waiter)
                self.rouse(waiter.owner, False)
        return 0

    cdef int announce(self, turns, codes) except -1:
        for turn, code in zip(turns, codes):
            # What clients wait for: the end, a status, a value. A step in between would only make them look.
            if code == OK and (turn.status is not None or turn.custom_status is not None or turn.kv):
                for watch in self.watches.get(turn.instance, ()):
                    (<Watch> watch).signal()
        return 0

    # ── sleeping appetites ───────────────────────────────────────────────────────────────────────────────────

    cdef Owner owner(self, str name):
        owner = self.owners.get(name)
        return self.owners.setdefault(name, Owner()) if owner is None else owner

    cdef bint park(self, Waiter me, Owner owner, double remaining, now) except -1:
        """Sleep until somebody calls, a group brought something, or a timer is due. Whether `me` has an answer to give."""
        me.owner, me.late, me.taken, me.error = owner, False, None, None
        me.until = 0
        if owner.next_visible >= 0:
            me.until = owner.next_visible
            remaining = min(remaining, max(owner.next_visible - <long long> now(), 1) / 1000)
        self.watch_store()
        if owner.poked or owner.wants(me.request.appetite, self.generation, 0):  # since we looked
            return False
        me.state = PARKED
        owner.parked.append(me)
        try:
            if not me.lock.acquire(True, remaining):
                if me.state == PARKED:
                    owner.parked.remove(me)
                    return False
                me.late = True
                me.lock.acquire()
        except BaseException:
            self.leave(me)
            raise
        if me.state == LEADING:
            me.request.now = now()
            self.lead(me)
        if me.state == WOKEN:
            me.taken = None
            return True
        return me.error is not None or bool(me.taken.turns or me.taken.work)

    cdef Waiter unpark(self):
        cdef Owner owner
        for owner in self.owners.values():
            if owner.parked:
                return owner.parked.pop()
        return None

    cdef int poke(self, Owner owner) except -1:
        if owner.parked:
            (<Waiter> owner.parked.pop()).wake(WOKEN)
        else:
            owner.poked = True
        return 0

    cdef int rouse(self, Owner owner, bint more) except -1:
        """Wake a sleeping loop if there is `more` than one could take, or if a timer is due before it would wake."""
        cdef Waiter last = owner.parked[len(owner.parked) - 1]
        if more or (owner.next_visible >= 0 and (last.until == 0 or owner.next_visible < last.until)):
            owner.parked.pop()
            last.wake(WOKEN)
        return 0

    # ── other processes ──────────────────────────────────────────────────────────────────────────────────────

    cdef int changed(self) except -1:
        cdef Owner owner
        self.generation += 1
        for owner in self.owners.values():
            if owner.parked:
                (<Waiter> owner.parked.pop()).wake(WOKEN)
        for watches in self.watches.values():
            for watch in watches:
                (<Watch> watch).signal()
        return 0

    cdef int watch_store(self) except -1:
        """See to it that somebody notices what others commit: the store, if it can tell by itself, else a thread that asks it."""
        self.check_process()
        if not self.watching:
            self.watching = True
            try:
                subscribe = getattr(self.store, "subscribe", None)
                if subscribe is None or not subscribe(_hears(ref(self))):
                    threading.Thread(target=self._poll, name="duroxide-watch", daemon=True).start()
                else:
                    self.changed()  # what others committed between our last look and now was told to nobody
            except BaseException:
                self.watching = False  # no thread to be had: the next sleeper tries again
                raise
        return 0

    def heard(self, bint ready, instances):
        """The store says that others have committed: perhaps something to claim (`ready`), and turns of `instances` (None: of any)."""
        cdef Owner owner
        if instances is None:
            self.changed()
            return
        if ready:
            self.generation += 1
            for owner in self.owners.values():
                if owner.parked:
                    (<Waiter> owner.parked.pop()).wake(WOKEN)
        for instance in instances:
            for watch in self.watches.get(instance, ()):
                (<Watch> watch).signal()

    cdef bint sleepers(self) except -1:
        cdef Owner owner
        for owner in self.owners.values():
            if owner.parked:
                return True
        return bool(self.watches)

    def _poll(self):
        """Look at the store's version while somebody sleeps: often after a change, less and less often without one."""
        cdef double delay = FIRST_POLL_S, quiet = 0.0, alone = 0.0
        cdef double calm = 0.0, began
        cdef long long news = self.news, groups = self.groups
        rest = getattr(self.store, "rest", None)
        while True:
            began, stirred = monotonic(), False
            if calm < CALM_S or rest is None:
                sleep(delay)
            else:
                stirred = rest(REST_S)
                if stirred is None:
                    rest = None
            delay = monotonic() - began
            quiet += delay
            calm += delay
            if groups != self.groups:
                groups, calm = self.groups, 0.0
            elif stirred:  # somebody writes: what he writes may be committed a moment later
                quiet = calm = 0.0
            alone = 0.0 if self.sleepers() else alone + delay
            if alone >= LINGER_S:
                self.watching = False
                return
            try:
                if alone == 0.0:
                    self.look()
                if self.news != news:
                    news, quiet, calm = self.news, 0.0, 0.0
            except Exception:
                quiet, calm = 1.0, 0.0  # closed or failing: those who write will hear of it
            # At most a sixteenth of the silence so far: a wait of 100 ms is late by 6 ms at worst.
            delay = min(FIRST_POLL_S + quiet / 16, max(self.poll_ms / 1000, FIRST_POLL_S))
