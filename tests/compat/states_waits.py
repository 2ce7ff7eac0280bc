"""Timers, positional events and queues in flight."""

from __future__ import annotations

from typing import Any

from .state import FAR_MS, HOUR_MS, State, Steps, state


@state
class timer(State):
    """A timer that is due before the next leg."""

    def flow(self, ctx: Any, round: int) -> Steps:
        return (yield ctx.schedule_timer(HOUR_MS))

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "TimerCreated", round + 1)


@state
class timer_far(State):
    """A race of a timer that stays far off and an event."""

    def flow(self, ctx: Any, round: int) -> Steps:
        return (yield ctx.race(ctx.schedule_timer(FAR_MS), ctx.wait_for_event("go")))

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "ExternalSubscribed", round + 1)

    def release(self, i: str, round: int) -> None:
        self.w.emit(i, "go", round)


@state
class timers_all(State):
    """One timer of three fired, two due together before the next leg."""

    def flow(self, ctx: Any, round: int) -> Steps:
        return (yield ctx.all([ctx.schedule_timer(1), ctx.schedule_timer(HOUR_MS), ctx.schedule_timer(HOUR_MS)]))

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "TimerFired", 3 * round + 1)


@state
class timer_between_steps(State):
    """A timer with a finished activity before it and another to come."""

    def flow(self, ctx: Any, round: int) -> Steps:
        first = yield ctx.schedule_activity("echo", round)
        yield ctx.schedule_timer(HOUR_MS)
        return [first, (yield ctx.schedule_activity("add", [first, 1]))]

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "TimerCreated", round + 1)


# ── positional events ──


@state
class wait(State):
    """A wait for an event."""

    def flow(self, ctx: Any, round: int) -> Steps:
        return (yield ctx.wait_for_event("go"))

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "ExternalSubscribed", round + 1)

    def release(self, i: str, round: int) -> None:
        self.w.emit(i, "go", {"round": round, "text": "grüß ✓ \"quoted\"\n"})


@state
class wait_second(State):
    """The second of two waits of one name, the first one served."""

    def flow(self, ctx: Any, round: int) -> Steps:
        first = yield ctx.wait_for_event("go")
        return [first, (yield ctx.wait_for_event("go"))]

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "ExternalSubscribed", 2 * round + 1)
        self.w.emit(i, "go", "first")
        self.w.seen(i, "ExternalSubscribed", 2 * round + 2)

    def release(self, i: str, round: int) -> None:
        self.w.emit(i, "go", "second")


@state
class waits_all(State):
    """Three waits at once, two of them of one name, one served."""

    def flow(self, ctx: Any, round: int) -> Steps:
        return (yield ctx.all([ctx.wait_for_event("a"), ctx.wait_for_event("b"), ctx.wait_for_event("a")]))

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "ExternalSubscribed", 3 * round + 3)
        self.w.emit(i, "a", [round, 1])
        self.w.seen(i, "ExternalEvent", 3 * round + 1)

    def release(self, i: str, round: int) -> None:
        self.w.emit(i, "b", None)
        self.w.emit(i, "a", [round, 2])


@state
class wait_after_early_event(State):
    """A wait whose first event came too early and is lost."""

    def flow(self, ctx: Any, round: int) -> Steps:
        yield ctx.dequeue_event("gate")
        return (yield ctx.wait_for_event("go"))

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "QueueSubscribed", round + 1)
        self.w.emit(i, "go", "early")
        self.w.seen(i, "ExternalEvent", 2 * round + 1)
        self.w.enqueue(i, "gate")
        self.w.seen(i, "ExternalSubscribed", round + 1)

    def release(self, i: str, round: int) -> None:
        self.w.emit(i, "go", "in time")


@state
class event_unfetched(wait):
    """An event that nobody fetched yet, for a wait that is there."""

    def unfetched(self, i: str, round: int) -> None:
        self.w.emit(i, "go", round)

    def release(self, i: str, round: int) -> None:
        pass


@state
class events_unfetched(State):
    """Two events in one unfetched batch for two waits in a row: the second is lost."""

    def flow(self, ctx: Any, round: int) -> Steps:
        first = yield ctx.wait_for_event("go")
        return [first, (yield ctx.wait_for_event("go"))]

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "ExternalSubscribed", 2 * round + 1)

    def unfetched(self, i: str, round: int) -> None:
        self.w.emit(i, "go", 1)
        self.w.emit(i, "go", 2)

    def release(self, i: str, round: int) -> None:
        self.w.seen(i, "ExternalSubscribed", 2 * round + 2)
        self.w.emit(i, "go", 3)


@state
class wait_lost(State):
    """A wait after one of the same name that lost a race."""

    def flow(self, ctx: Any, round: int) -> Steps:
        won = yield ctx.race(ctx.wait_for_event("go"), ctx.schedule_timer(1))
        return [won, (yield ctx.wait_for_event("go"))]

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "ExternalSubscribed", 2 * round + 2)

    def release(self, i: str, round: int) -> None:
        self.w.emit(i, "go", round)


@state
class wait_lost_with_arrival(State):
    """A wait lost its race, then its event came; later the code waits for that name again."""

    def flow(self, ctx: Any, round: int) -> Steps:
        won = yield ctx.race(ctx.wait_for_event("x"), ctx.dequeue_event("y"))
        gate = yield ctx.wait_for_event("gate")
        return [won, gate, (yield ctx.wait_for_event("x"))]

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "QueueSubscribed", round + 1)
        self.w.enqueue(i, "y", round)
        self.w.seen(i, "ExternalSubscribed", 3 * round + 2)
        self.w.emit(i, "x", "for nobody")
        self.w.seen(i, "ExternalEvent", 3 * round + 1)

    def release(self, i: str, round: int) -> None:
        self.w.emit(i, "gate", 1)
        self.w.seen(i, "ExternalSubscribed", 3 * round + 3)
        self.w.emit(i, "x", "in time")


@state
class race_of_events_unfetched(State):
    """Both events of a race in one unfetched batch, then a wait for the loser's name: the two policies may differ."""

    def flow(self, ctx: Any, round: int) -> Steps:
        won = yield ctx.race(ctx.wait_for_event("a"), ctx.wait_for_event("b"))
        again = yield ctx.race(ctx.wait_for_event("b"), ctx.dequeue_event(f"out {round}"))
        return [won, again]

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "ExternalSubscribed", 3 * round + 2)

    def unfetched(self, i: str, round: int) -> None:
        self.w.emit(i, "a", 1)
        self.w.emit(i, "b", 1)

    def release(self, i: str, round: int) -> None:
        self.w.seen(i, "ExternalSubscribed", 3 * round + 3)
        self.w.emit(i, "b", 2)
        self.w.seen(i, "ExternalEvent", 3 * round + 3)
        self.w.enqueue(i, f"out {round}", 1)


# ── queues ──


@state
class queue(State):
    """A dequeue on an empty queue."""

    def flow(self, ctx: Any, round: int) -> Steps:
        return (yield ctx.dequeue_event("q"))

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "QueueSubscribed", round + 1)

    def release(self, i: str, round: int) -> None:
        self.w.enqueue(i, "q", {"round": round})


@state
class queue_buffered(State):
    """Three messages that arrived and nobody asked for."""

    def flow(self, ctx: Any, round: int) -> Steps:
        yield ctx.wait_for_event("gate")
        found = []
        for _ in range(3):
            found.append((yield ctx.dequeue_event("q")))
        return found

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "ExternalSubscribed", round + 1)
        for n in range(3):
            self.w.enqueue(i, "q", [round, n])
        self.w.seen(i, "QueueEventDelivered", 3 * round + 3)

    def release(self, i: str, round: int) -> None:
        self.w.emit(i, "gate")


@state
class queue_unfetched(State):
    """Messages that nobody fetched yet, one more than the code takes."""

    def flow(self, ctx: Any, round: int) -> Steps:
        first = yield ctx.dequeue_event("q")
        return [first, (yield ctx.dequeue_event("q"))]

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "QueueSubscribed", 2 * round + 1)

    def unfetched(self, i: str, round: int) -> None:
        self.w.enqueue(i, "q", [round, 1])
        self.w.enqueue(i, "q", [round, 2])
        self.w.enqueue(i, "other", [round, 3])


@state
class queue_names_all(State):
    """Two queues awaited together, one message there."""

    def flow(self, ctx: Any, round: int) -> Steps:
        return (yield ctx.all([ctx.dequeue_event("a"), ctx.dequeue_event("b")]))

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "QueueSubscribed", 2 * round + 2)
        self.w.enqueue(i, "a", round)
        self.w.seen(i, "QueueEventDelivered", 2 * round + 1)

    def release(self, i: str, round: int) -> None:
        self.w.enqueue(i, "b", round)


@state
class queue_lost(State):
    """A dequeue after one of the same queue that lost a race."""

    def flow(self, ctx: Any, round: int) -> Steps:
        won = yield ctx.race(ctx.dequeue_event("q"), ctx.schedule_timer(1))
        return [won, (yield ctx.dequeue_event("q"))]

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "QueueSubscribed", 2 * round + 2)

    def release(self, i: str, round: int) -> None:
        self.w.enqueue(i, "q", round)


@state
class queue_lost_buffered(State):
    """A dequeue lost its race, then messages came and wait."""

    def flow(self, ctx: Any, round: int) -> Steps:
        won = yield ctx.race(ctx.dequeue_event("q"), ctx.schedule_timer(1))
        yield ctx.wait_for_event("gate")
        first = yield ctx.dequeue_event("q")
        return [won, first, (yield ctx.dequeue_event("q"))]

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "ExternalSubscribed", round + 1)
        self.w.enqueue(i, "q", [round, 1])
        self.w.enqueue(i, "q", [round, 2])
        self.w.seen(i, "QueueEventDelivered", 2 * round + 2)

    def release(self, i: str, round: int) -> None:
        self.w.emit(i, "gate")


@state
class queue_race_unfetched(State):
    """A race of two queues with both messages in one unfetched batch; the loser's is for later."""

    not_through = ("0.1.24",)  # it answers the loser in the turn that decides, and asks for a later turn when it replays that

    def flow(self, ctx: Any, round: int) -> Steps:
        won = yield ctx.race(ctx.dequeue_event("a"), ctx.dequeue_event("b"))
        return [won, (yield ctx.dequeue_event("ba"[won["index"]]))]

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "QueueSubscribed", 3 * round + 2)

    def unfetched(self, i: str, round: int) -> None:
        self.w.enqueue(i, "b", [round, "b"])
        self.w.enqueue(i, "a", [round, "a"])


@state
class queue_forty(State):
    """Forty messages waiting in history."""

    def flow(self, ctx: Any, round: int) -> Steps:
        yield ctx.wait_for_event("gate")
        found = []
        for _ in range(40):
            found.append((yield ctx.dequeue_event("q")))
        return found

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "ExternalSubscribed", round + 1)
        for n in range(40):
            self.w.enqueue(i, "q", n)
        self.w.seen(i, "QueueEventDelivered", 40 * round + 40)

    def release(self, i: str, round: int) -> None:
        self.w.emit(i, "gate")


@state
class queue_before_start(State):
    """Messages and a start in one unfetched batch, messages first."""

    repeats = False

    def flow(self, ctx: Any, round: int) -> Steps:
        first = yield ctx.dequeue_event("q")
        return [first, (yield ctx.dequeue_event("q"))]

    def start(self, i: str, first: int, end: int) -> None:
        pass

    def unfetched(self, i: str, round: int) -> None:
        self.w.enqueue(i, "q", "before")
        self.w.start(i, self.name, [round, round + 1])
        self.w.enqueue(i, "q", "after")
