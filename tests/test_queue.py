"""The queue between this process's threads and one store: groups, sleeping appetites, watches, interrupts."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from duroxide.storage import _queue
from duroxide.storage._queue import Queue
from duroxide.storage.base import AnswerLost, Appetite, ClaimedTurn, Done, Request, StoreError, Taken, TurnDone
from duroxide.storage.memory import MemoryStore

PATIENCE_S = 20.0


class Store:
    """Counts groups, can be held inside an exchange, fails on request; behind it the memory model."""

    name = "fake"

    def __init__(self) -> None:
        self.real = MemoryStore()
        self.groups: list[int] = []
        self.threads: list[threading.Thread] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.fail: Callable[[list[Request]], BaseException | None] = lambda requests: None
        self.seen = 0

    def exchange(self, requests: list[Request]) -> list[Taken]:
        self.groups.append(len(requests))
        self.threads.append(threading.current_thread())
        self.entered.release()
        assert self.gate.wait(PATIENCE_S)
        error = self.fail(requests)
        if error is not None:
            raise error
        return self.real.exchange(requests)

    def version(self) -> int:
        return self.seen


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def queue(store: Store) -> Queue:
    return Queue.of(store)


def start(instance: str) -> Done:
    done = Done()
    done.messages = [(instance, f'{{"StartOrchestration":{{"instance":"{instance}"}}}}', 0)]
    return done


def now() -> int:
    return 1_000


def send(queue: Queue, instance: str) -> Taken:
    return queue.submit(Request(now(), start(instance)))


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, found


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


# ── groups ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_who_comes_meanwhile_rides_in_one_group(store: Store, queue: Queue) -> None:
    store.gate.clear()
    first, _ = in_thread(lambda: send(queue, "a"))
    assert store.entered.acquire(timeout=PATIENCE_S)
    others = [in_thread(lambda n=n: send(queue, f"b{n}"))[0] for n in range(8)]  # type: ignore[misc]
    time.sleep(0.05)  # let them reach the queue; if they come later there are more groups, and the test fails
    store.gate.set()
    for thread in (first, *others):
        thread.join(PATIENCE_S)
    assert store.groups == [1, 8]


def test_a_group_is_one_moment(store: Store, queue: Queue) -> None:
    """Whoever waited longest would else not see what the next in the group sends."""
    store.gate.clear()
    first, _ = in_thread(lambda: send(queue, "a"))
    assert store.entered.acquire(timeout=PATIENCE_S)
    early, found = in_thread(lambda: queue.submit(Request(900, None, Appetite("o", turns=9))))
    time.sleep(0.05)
    late, _ = in_thread(lambda: queue.submit(Request(2_000, start("b"))))
    time.sleep(0.05)
    store.gate.set()
    for thread in (first, early, late):
        thread.join(PATIENCE_S)
    assert store.groups == [1, 2] and [claim.instance for claim in found[0].turns] == ["a", "b"]


def test_each_caller_gets_its_own_answer(store: Store, queue: Queue) -> None:
    def claim(n: int) -> list[str]:
        send(queue, f"i{n}")
        return [t.instance for t in queue.submit(Request(now(), None, Appetite(f"o{n}", turns=1))).turns]

    threads = [in_thread(lambda n=n: claim(n)) for n in range(20)]  # type: ignore[misc]
    for thread, _ in threads:
        thread.join(PATIENCE_S)
    assert sorted(sum((found[0] for _, found in threads), [])) == sorted(f"i{n}" for n in range(20))


def test_an_error_of_one_request_reaches_its_caller_only(store: Store, queue: Queue) -> None:
    def fail(requests: list[Request]) -> StoreError | None:
        return StoreError("spoilt") if any(r.done and r.done.messages[0][0] == "bad" for r in requests) else None

    store.fail = fail
    store.gate.clear()
    first, _ = in_thread(lambda: send(queue, "a"))
    store.entered.acquire(timeout=PATIENCE_S)
    good, good_found = in_thread(lambda: send(queue, "good"))
    bad, bad_found = in_thread(lambda: send(queue, "bad"))
    time.sleep(0.05)
    store.gate.set()
    for thread in (first, good, bad):
        thread.join(PATIENCE_S)
    assert isinstance(good_found[0], Taken) and str(bad_found[0]) == "spoilt"
    written = store.real.exchange([Request(now(), None, Appetite("o", turns=9))])[0].turns
    assert sorted(t.instance for t in written) == ["a", "good"]


def test_an_error_that_may_pass_reaches_the_whole_group_and_nothing_is_written(store: Store, queue: Queue) -> None:
    store.fail = lambda requests: StoreError("busy", retryable=True)
    with pytest.raises(StoreError, match="busy"):
        send(queue, "a")
    assert store.groups == [1]
    store.fail = lambda requests: None
    send(queue, "b")
    assert [t.instance for t in store.real.exchange([Request(now(), None, Appetite("o", turns=9))])[0].turns] == ["b"]


@pytest.mark.parametrize("answers", [[], [None], None, [Taken(), Taken()], 5])
def test_a_store_that_answers_nonsense_is_an_error_and_is_not_asked_again(store: Store, queue: Queue, answers: Any) -> None:
    asked: list[int] = []
    store.real.exchange = lambda requests: asked.append(len(requests)) or answers  # type: ignore[method-assign,func-returns-value]
    store.gate.clear()
    first, _ = in_thread(lambda: send(queue, "a"))
    store.entered.acquire(timeout=PATIENCE_S)
    others = [in_thread(lambda n=n: send(queue, f"b{n}")) for n in range(3)]  # type: ignore[misc]
    time.sleep(0.05)
    store.gate.set()
    first.join(PATIENCE_S)
    for thread, found in others:
        thread.join(PATIENCE_S)
        assert isinstance(found[0], StoreError) and "3 requests were answered with" in str(found[0])
    assert asked == [1, 3], "it may have written: nobody writes again"


# ── sleeping appetites ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_group_whose_answer_is_lost_is_not_handed_in_again(store: Store, queue: Queue) -> None:
    """It was written: asking for each by itself would deliver twice."""
    exchange = store.exchange

    def losing(requests: list[Request]) -> list[Taken]:
        exchange(requests)
        raise AnswerLost("exchange: written, but the answer is lost")

    store.exchange = losing  # type: ignore[method-assign]
    store.gate.clear()
    first, _ = in_thread(lambda: send(queue, "a"))
    assert store.entered.acquire(timeout=PATIENCE_S)
    lost: list[AnswerLost] = []

    def sending(n: int) -> None:
        try:
            send(queue, f"b{n}")
        except AnswerLost as error:
            lost.append(error)

    others = [in_thread(lambda n=n: sending(n))[0] for n in range(3)]  # type: ignore[misc]
    time.sleep(0.05)
    store.gate.set()
    for thread in (first, *others):
        thread.join(PATIENCE_S)
    assert store.groups == [1, 3] and len(lost) == 3


def test_a_take_without_patience_returns_at_once(store: Store, queue: Queue) -> None:
    assert queue.take(Appetite("o", turns=1), 0, None, now) is None
    assert store.groups == [1], "it looked once"


def test_a_take_waits_as_long_as_it_was_told(store: Store, queue: Queue) -> None:
    began = time.monotonic()
    assert queue.take(Appetite("o", turns=1), 0.05, None, now) is None
    assert 0.05 <= time.monotonic() - began < PATIENCE_S


def taker(queue: Queue, owner: str = "o") -> tuple[threading.Thread, list[Any]]:
    """As a loop does: takes again and again, until there is something or `wake` was called thrice."""

    def run() -> Taken | None:
        for _ in range(3):
            found = queue.take(Appetite(owner, turns=1), PATIENCE_S, None, now)
            if found is not None:
                return found
        return None

    return in_thread(run)


def sleeper(queue: Queue, owner: str = "o", **appetite: Any) -> tuple[threading.Thread, list[Any]]:
    appetite = appetite or {"turns": 1}
    return in_thread(lambda: queue.take(Appetite(owner, **appetite), PATIENCE_S, None, now))


def test_a_sleeping_appetite_rides_with_the_write_that_feeds_it(store: Store, queue: Queue) -> None:
    thread, found = sleeper(queue)
    until(lambda: len(store.groups) == 1)
    time.sleep(0.02)
    writer, _ = in_thread(lambda: send(queue, "a"))
    for each in (thread, writer):
        each.join(PATIENCE_S)
    assert [t.instance for t in found[0].turns] == ["a"] and store.groups == [1, 2]


def test_of_two_sleepers_of_one_owner_one_wakes_for_one_instance(store: Store, queue: Queue) -> None:
    threads = [taker(queue), taker(queue)]
    until(lambda: len(store.groups) >= 1)
    time.sleep(0.05)
    send(queue, "a")
    until(lambda: any(found for _, found in threads))
    time.sleep(0.02)
    assert sum(len(found) for _, found in threads) == 1
    while any(thread.is_alive() for thread, _ in threads):
        queue.wake()
        time.sleep(0.002)


def test_more_than_one_can_take_wakes_the_next(store: Store, queue: Queue) -> None:
    threads = [taker(queue), taker(queue)]
    until(lambda: len(store.groups) >= 1)
    time.sleep(0.05)
    done = start("a")
    done.messages += start("b").messages
    queue.submit(Request(now(), done))
    for thread, _ in threads:
        thread.join(PATIENCE_S)
    assert sorted(found[0].turns[0].instance for _, found in threads) == ["a", "b"]


def test_a_poke_makes_the_next_take_return(store: Store, queue: Queue) -> None:
    queue.wake("o")
    assert queue.take(Appetite("o", turns=1), PATIENCE_S, None, now) is None
    thread, found = sleeper(queue)
    time.sleep(0.02)
    queue.wake("o")
    thread.join(PATIENCE_S)
    assert found == [None]


def test_a_poke_concerns_its_owner_only(store: Store, queue: Queue) -> None:
    thread, found = sleeper(queue, "other")
    time.sleep(0.02)
    queue.wake("o")
    time.sleep(0.02)
    assert not found
    queue.wake()
    thread.join(PATIENCE_S)


def test_a_timer_wakes_a_sleeper_when_it_is_due(store: Store, queue: Queue) -> None:
    clock = [1_000]
    done = start("a")
    done.messages = [(*done.messages[0][:2], 1_030)]
    queue.submit(Request(1_000, done))

    def ticking() -> int:
        clock[0] += 10
        return clock[0]

    taken = queue.take(Appetite("o", turns=1), PATIENCE_S, None, ticking)
    assert taken is not None and [t.instance for t in taken.turns] == ["a"]


def test_a_change_elsewhere_wakes_sleepers_and_watches(store: Store, queue: Queue) -> None:
    queue.poll_ms = 5
    thread, found = taker(queue)
    with queue.watch("x") as watch:
        time.sleep(0.03)
        store.real.exchange([Request(now(), start("a"))])  # past the queue, as another process does
        store.seen += 1
        assert watch.wait(PATIENCE_S)
    thread.join(PATIENCE_S)
    assert [t.instance for t in found[0].turns] == ["a"]


def test_no_wake_up_is_lost(store: Store, queue: Queue) -> None:
    """Loops sleep without a limit that matters; writers come at any moment. One lost wake-up hangs the test."""
    total, taken, lock = 600, [], threading.Lock()

    def loop() -> None:
        while len(taken) < total:
            found = queue.take(Appetite("o", turns=2), PATIENCE_S, None, now)
            if found is not None:
                with lock:
                    taken.extend(t.instance for t in found.turns)
        queue.wake("o")

    def writer(n: int) -> None:
        for k in range(total // 3):
            send(queue, f"i{n}-{k}")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [in_thread(loop)[0] for _ in range(2)] + [in_thread(lambda n=n: writer(n))[0] for n in range(3)]  # type: ignore[misc]
        began = time.monotonic()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert len(taken) == len(set(taken)) == total
        assert time.monotonic() - began < PATIENCE_S / 2, "somebody slept over a message"
    finally:
        sys.setswitchinterval(interval)


def test_what_is_claimed_is_told_before_the_next_group_is_written(store: Store, queue: Queue) -> None:
    """Whoever takes part in both groups may wake in any order; what was claimed first is known first."""
    told: list[list[str]] = []
    during: list[int] = []
    queue.tell("o", lambda turns: told.append([turn.instance for turn in turns]))
    store.fail = lambda requests: during.append(len(told))  # type: ignore[func-returns-value]
    for instance in ("a", "b"):
        send(queue, instance)
        queue.submit(Request(now(), None, Appetite("o", turns=1)))
    assert told == [["a"], ["b"]] and during == [0, 0, 1, 1]
    queue.forget("o")
    send(queue, "c")
    queue.submit(Request(now(), None, Appetite("o", turns=1)))
    assert len(told) == 2


def test_an_answer_counts_only_for_what_its_group_had_seen(store: Store, queue: Queue) -> None:
    """A message lands while a loop's empty look is being answered: the loop must look again, not sleep."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for n in range(150):
            thread, found = taker(queue, f"o{n}")
            send(queue, f"i{n}")
            thread.join(PATIENCE_S)
            assert found and found[0] is not None, f"round {n}: the loop slept over a message"
            queue.forget(f"o{n}")
    finally:
        sys.setswitchinterval(interval)


# ── watches ──────────────────────────────────────────────────────────────────────────────────────────────────────


def commit(queue: Queue, claim: ClaimedTurn, status: str | None = "Completed", keep: bool = False) -> None:
    done = Done()
    turn = TurnDone(claim.lease, claim.instance, 1)
    turn.name, turn.status, turn.keep = "o", status, keep
    turn.consumed = [m[0] for m in claim.messages]
    done.turns = [turn]
    queue.submit(Request(now(), done))


def test_a_watch_is_signalled_by_its_instance_only(store: Store, queue: Queue) -> None:
    for instance in ("a", "b"):
        send(queue, instance)
    claims = {t.instance: t for t in queue.submit(Request(now(), None, Appetite("o", turns=9))).turns}
    with queue.watch("a") as watch:
        commit(queue, claims["b"])
        commit(queue, claims["a"], status=None, keep=True)
        assert not watch.wait(0.01), "a step in the middle is nothing that anybody waits for"
        commit(queue, claims["a"])
        assert watch.wait(PATIENCE_S) and not watch.wait(0)
    commit_after = queue.watch("a")
    assert not commit_after.wait(0)


# ── threads and signals ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_main_thread_leads_nobody_while_a_loop_sleeps(store: Store, queue: Queue) -> None:
    thread, _ = sleeper(queue)
    until(lambda: len(store.groups) == 1)
    time.sleep(0.02)
    send(queue, "a")
    thread.join(PATIENCE_S)
    assert threading.main_thread() not in store.threads


def test_who_asked_before_the_message_of_a_spoilt_group_was_in_asks_again(store: Store, queue: Queue) -> None:
    """The group is handed in one by one, the leader first: the loop that leads for the main thread."""
    store.fail = lambda requests: StoreError("spoilt") if len(requests) > 1 else None
    thread, found = sleeper(queue)
    until(lambda: len(store.groups) == 1)
    time.sleep(0.02)
    send(queue, "a")
    thread.join(PATIENCE_S)
    assert [t.instance for t in found[0].turns] == ["a"]


@pytest.mark.skipif(os.name == "nt", reason="needs a signal to this process")
def test_an_interrupt_while_waiting_leaves_the_queue_working(store: Store, queue: Queue) -> None:
    store.gate.clear()
    other, _ = in_thread(lambda: send(queue, "a"))
    store.entered.acquire(timeout=PATIENCE_S)
    threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        send(queue, "b")
    store.gate.set()
    other.join(PATIENCE_S)
    send(queue, "c")
    found = store.real.exchange([Request(now(), None, Appetite("o", turns=9))])[0].turns
    assert [t.instance for t in found] == ["a", "c"], "what was not handed in is not written"


def test_an_interrupt_inside_the_store_frees_the_queue(store: Store, queue: Queue) -> None:
    store.fail = lambda requests: KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        send(queue, "a")
    store.fail = lambda requests: None
    send(queue, "b")


def test_one_store_has_one_queue_while_somebody_uses_it() -> None:
    store = Store()
    first = Queue.of(store)
    assert Queue.of(store) is first and Queue.of(Store()) is not first


def test_threads_that_come_at_once_find_the_same_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two queues on one store would not wake each other's waits."""

    class Slow(dict[int, Any]):
        def __missing__(self, key: int) -> Any:
            time.sleep(0.005)  # others run between a look and what is made of it
            raise KeyError(key)

    monkeypatch.setattr(_queue._queues, "data", Slow())
    store = Store()
    threads = [in_thread(lambda: Queue.of(store)) for _ in range(4)]
    for thread, _ in threads:
        thread.join(PATIENCE_S)
    assert len({id(found[0]) for _, found in threads}) == 1


def test_a_queue_goes_with_its_last_user() -> None:
    store = Store()
    queue = weakref.ref(Queue.of(store))
    gc.collect()
    assert queue() is None


FORKED = """
import os, sys, threading
from duroxide.client import Client
from duroxide.storage._queue import Queue
from duroxide.storage.memory import MemoryStore
from duroxide.storage.base import AnswerLost, Appetite, Done, Request, StoreError
inherited = Client(MemoryStore())
inherited.start_orchestration("i", "o")
def child():
    queue = Queue.of(MemoryStore())
    done = Done(); done.messages = [("a", '{"StartOrchestration":{"instance":"a"}}', 0)]
    queue.submit(Request(1, done))
    assert [t.instance for t in queue.submit(Request(1, None, Appetite("o", turns=1))).turns] == ["a"]
    for call in (lambda: inherited.start_orchestration("j", "o"), lambda: inherited.wait_for_orchestration("i", 5_000)):
        try:
            call()
        except StoreError as error:
            assert "before this process was forked" in str(error)
        else:
            os._exit(1)
    os._exit(0)
pid = None
def fork():
    global pid
    pid = os.fork()
    if pid == 0:
        child()
thread = threading.Thread(target=fork); thread.start(); thread.join()
inherited.start_orchestration("k", "o")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_knows_its_main_thread_and_leaves_the_queues_of_its_parent_alone() -> None:
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], timeout=PATIENCE_S * 3).returncode == 0


def test_no_thread_to_be_had_is_an_error_of_this_wait_and_not_the_end_of_all(
    store: Store, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch, queue.watch("x") as watch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            watch.wait(0)
    queue.poll_ms = 1
    with queue.watch("x") as watch:
        store.seen += 1
        assert watch.wait(PATIENCE_S), "the next one looks at the store"


def test_what_others_committed_before_one_listened_is_looked_for(store: Store, queue: Queue) -> None:
    """Between a client's first look and the moment from which its store hears of others, one of them may have ended what it waits for."""
    store.subscribe = lambda heard: True  # type: ignore[attr-defined]
    with queue.watch("i") as watch:
        assert watch.wait(0.0), "it waited for news that had come already"
        assert not watch.wait(0.0)
