"""Programs about positional events, queues and cancellation from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .programs import Driver
    from .world import World


def event_values(w: World) -> Driver:
    """Payloads as they were sent, in the order of the waits."""

    def flow(ctx: Any, input: Any) -> Any:
        out = []
        for n in range(4):
            out.append((yield ctx.wait_for_event("go")))
        return out

    def drive() -> None:
        w.start("i", "flow")
        for n, data in enumerate(({"b": 1, "a": [2]}, None, "text", 7)):
            w.seen("i", "ExternalSubscribed", n + 1)
            w.emit("i", "go", data)
        w.wait("i")

    w.flows(flow)
    return drive


def event_early(w: World) -> Driver:
    """An event that nobody waits for yet is recorded and lost."""

    def flow(ctx: Any, input: Any) -> Any:
        yield ctx.dequeue_event("gate")
        return (yield ctx.wait_for_event("go"))

    def drive() -> None:
        w.start("i", "flow")
        w.seen("i", "QueueSubscribed")
        w.emit("i", "go", "early")
        w.seen("i", "ExternalEvent")
        w.enqueue("i", "gate")
        w.seen("i", "ExternalSubscribed")
        w.emit("i", "go", "in time")
        w.wait("i")

    w.flows(flow)
    return drive


def event_two_in_one_batch(w: World) -> Driver:
    """Two in one batch for two waits in a row: the second is lost, as its wait was not there yet."""

    def flow(ctx: Any, input: Any) -> Any:
        a = yield ctx.wait_for_event("go")
        b = yield ctx.wait_for_event("go")
        return [a, b]

    def drive() -> None:
        w.start("i", "flow")
        w.seen("i", "ExternalSubscribed")
        w.pause()
        w.emit("i", "go", 1)
        w.emit("i", "go", 2)
        w.resume()
        w.seen("i", "ExternalSubscribed", 2)
        w.emit("i", "go", 3)
        w.wait("i")

    w.flows(flow)
    return drive


def event_two_waits(w: World) -> Driver:
    """Two waits of one name are served in the order of their subscription."""

    def flow(ctx: Any, input: Any) -> Any:
        return (yield ctx.all([ctx.wait_for_event("go"), ctx.wait_for_event("other"), ctx.wait_for_event("go")]))

    def drive() -> None:
        w.start("i", "flow")
        w.seen("i", "ExternalSubscribed", 3)
        w.pause()
        w.emit("i", "other", "o")
        for n in range(3):
            w.emit("i", "go", n)
        w.resume()
        w.wait("i")

    w.flows(flow)
    return drive


def event_with_the_start(w: World) -> Driver:
    """An event in the batch of the start comes before any wait; a queue message is kept."""

    def flow(ctx: Any, input: Any) -> Any:
        a = yield ctx.race(ctx.wait_for_event("go"), ctx.schedule_timer(30))
        b = yield ctx.dequeue_event("q")
        c = yield ctx.dequeue_event("q")
        return [a, b, c]

    def drive() -> None:
        w.pause()
        w.enqueue("i", "q", "before the start")
        w.start("i", "flow")
        w.emit("i", "go", "lost")
        w.enqueue("i", "q", "after the start")
        w.resume()
        w.wait("i")

    w.flows(flow)
    return drive


def event_after_the_end(w: World) -> Driver:
    """What is sent to a finished instance changes nothing."""

    def flow(ctx: Any, input: Any) -> Any:
        yield ctx.schedule_timer(0)
        return input

    def marker(ctx: Any, input: Any) -> Any:
        yield ctx.schedule_timer(0)

    def drive() -> None:
        w.run("flow", 1)
        w.emit("i", "go", 1)
        w.enqueue("i", "q", 1)
        w.cancel("i", "too late")
        w.start("i", "flow", 2)
        w.run("marker", instance="m")

    w.flows(flow, marker)
    return drive


def event_names(w: World) -> Driver:
    """Events and queues have names of their own, any text."""

    def flow(ctx: Any, input: Any) -> Any:
        return (yield ctx.all([ctx.wait_for_event("x"), ctx.dequeue_event("x"), ctx.wait_for_event(""), ctx.dequeue_event('sp ce "q" ✓')]))

    def drive() -> None:
        w.start("i", "flow")
        w.seen("i", "QueueSubscribed", 2)
        w.pause()
        w.enqueue("i", 'sp ce "q" ✓', 4)
        w.emit("i", "X", "wrong case")
        w.emit("i", "", 3)
        w.enqueue("i", "x", 2)
        w.emit("i", "x", 1)
        w.resume()
        w.wait("i")

    w.flows(flow)
    return drive


def event_mixed_with_steps(w: World) -> Driver:
    """Events between activities and timers."""

    def flow(ctx: Any, input: Any) -> Any:
        a = yield ctx.schedule_activity("echo", 1)
        b = yield ctx.wait_for_event("go")
        yield ctx.schedule_timer(1)
        c = yield ctx.all([ctx.wait_for_event("go"), ctx.schedule_activity("echo", 2)])
        return [a, b, c]

    def drive() -> None:
        w.start("i", "flow")
        w.seen("i", "ExternalSubscribed")
        w.emit("i", "go", "b")
        w.seen("i", "ActivityCompleted", 2)
        w.emit("i", "go", "c")
        w.wait("i")

    w.flows(flow)
    return drive


# ── queues ──


def queue_buffered(w: World) -> Driver:
    """Messages wait for their dequeue, in order, several of them taken in one turn."""

    def flow(ctx: Any, input: Any) -> Any:
        gate = yield ctx.wait_for_event("gate")
        out = [gate]
        for _ in range(5):
            out.append((yield ctx.dequeue_event("q")))
        return out

    def drive() -> None:
        w.start("i", "flow")
        w.seen("i", "ExternalSubscribed")
        for n in range(5):
            w.enqueue("i", "q", {"n": n})
        w.seen("i", "QueueEventDelivered", 5)
        w.emit("i", "gate", "open")
        w.wait("i")

    w.flows(flow)
    return drive


def queue_several(w: World) -> Driver:
    """Two queues, read in another order than they were filled."""

    def flow(ctx: Any, input: Any) -> Any:
        out = []
        for name in ("b", "a", "a", "b", "a"):
            out.append((yield ctx.dequeue_event(name)))
        return out

    def drive() -> None:
        w.start("i", "flow")
        w.seen("i", "QueueSubscribed")
        w.pause()
        for n, name in enumerate("aabab"):
            w.enqueue("i", name, f"{name}{n}")
        w.resume()
        w.wait("i")

    w.flows(flow)
    return drive


def queue_cancelled_dequeues(w: World) -> Driver:
    """Dequeues that lose a race, before and after messages came."""

    def flow(ctx: Any, input: Any) -> Any:
        out = []
        for _ in range(3):
            out.append((yield ctx.race(ctx.dequeue_event("q"), ctx.schedule_timer(1))))
        yield ctx.wait_for_event("gate")
        for _ in range(3):
            out.append((yield ctx.race(ctx.schedule_activity("echo", 1).with_tag("nobody"), ctx.dequeue_event("q"))))
        return out

    def drive() -> None:
        w.start("i", "flow")
        w.seen("i", "ExternalSubscribed")
        w.pause()
        for n in range(3):
            w.enqueue("i", "q", n)
        w.emit("i", "gate")
        w.resume()
        w.wait("i")

    w.flows(flow)
    return drive


def queue_unread(w: World) -> Driver:
    """What nobody reads stays in the history."""

    def flow(ctx: Any, input: Any) -> Any:
        a = yield ctx.dequeue_event("q")
        yield ctx.wait_for_event("end")
        return a

    def drive() -> None:
        w.start("i", "flow")
        w.seen("i", "QueueSubscribed")
        for n in range(3):
            w.enqueue("i", "q", n)
        w.seen("i", "QueueEventDelivered", 3)
        w.emit("i", "end")
        w.wait("i")

    w.flows(flow)
    return drive


def queue_fifty_in_one_turn(w: World) -> Driver:
    """Fifty messages of one batch drained in one turn."""

    def flow(ctx: Any, n: int) -> Any:
        total = 0
        for _ in range(n):
            total += yield ctx.dequeue_event("q")
        return total

    def drive() -> None:
        w.start("i", "flow", 50)
        w.seen("i", "QueueSubscribed")
        w.pause()
        for n in range(50):
            w.enqueue("i", "q", n)
        w.resume()
        w.wait("i")

    w.flows(flow)
    return drive


def queue_too_many_in_one_turn(w: World) -> Driver:
    """The reference gives up after a hundred messages in one turn."""

    def flow(ctx: Any, n: int) -> Any:
        for _ in range(n):
            yield ctx.dequeue_event("q")
        return n

    def drive() -> None:
        w.start("i", "flow", 120)
        w.seen("i", "QueueSubscribed")
        w.pause()
        for n in range(120):
            w.enqueue("i", "q", n)
        w.resume()
        w.wait("i")

    w.flows(flow)
    return drive


# ── cancellation ──


def _waits(ctx: Any, input: Any) -> Any:
    try:
        yield ctx.wait_for_event("never")
    except Exception as e:
        return f"caught {e}"


def cancel_waiting(w: World) -> Driver:
    """A cancelled instance fails with the reason; the code cannot catch it; the second reason is ignored."""

    def flow(ctx: Any, input: Any) -> Any:
        return (yield from _waits(ctx, input))

    def drive() -> None:
        for instance, reason in (("i", "because"), ("no-reason", None), ("odd", 'q"uote ✓\n')):
            w.start(instance, "flow")
            w.seen(instance, "ExternalSubscribed")
            w.cancel(instance, reason)
            w.wait(instance)
        w.cancel("i", "again")
        w.run("flow2", instance="marker")

    def flow2(ctx: Any, input: Any) -> Any:
        yield ctx.schedule_timer(1)

    w.flows(flow, flow2)
    return drive


def cancel_with_open_work(w: World) -> Driver:
    """Activities in flight, timers, waits and dequeues at the moment of the cancel."""

    def flow(ctx: Any, input: Any) -> Any:
        yield ctx.all(
            [
                ctx.schedule_activity("echo", 1).with_tag("nobody"),
                ctx.schedule_timer(3_600_000),
                ctx.wait_for_event("e"),
                ctx.dequeue_event("q"),
                ctx.schedule_activity("echo", 2).with_tag("nobody"),
                ctx.schedule_activity("echo", 3),
            ]
        )

    def drive() -> None:
        w.start("i", "flow")
        w.seen("i", "ActivityCompleted")
        w.cancel("i", "enough")
        w.wait("i")

    w.flows(flow)
    return drive


def cancel_before_the_start(w: World) -> Driver:
    """A cancel that comes first is kept for the instance."""

    def flow(ctx: Any, input: Any) -> Any:
        return (yield from _waits(ctx, input))

    def drive() -> None:
        w.pause()
        w.cancel("i", "early")
        w.cancel("i", "second")
        w.start("i", "flow")
        w.resume()
        w.wait("i")

    w.flows(flow)
    return drive


def cancel_and_completion_in_one_batch(w: World) -> Driver:
    """The code finishes in the turn that brings the cancel: cancelled all the same, in either order."""

    def flow(ctx: Any, input: Any) -> Any:
        return (yield ctx.wait_for_event("go"))

    def drive() -> None:
        for instance in ("i", "j"):
            w.start(instance, "flow")
            w.seen(instance, "ExternalSubscribed")
        w.pause()
        w.emit("i", "go", 1)
        w.cancel("i", "after the event")
        w.cancel("i", "twice")
        w.cancel("j", "before the event")
        w.emit("j", "go", 1)
        w.resume()
        w.wait("i", "j")

    w.flows(flow)
    return drive


def cancel_running_activity(w: World) -> Driver:
    """The activity is at work when its instance is cancelled; its result is dropped."""
    w.options["worker_lock_timeout_ms"] = 2000

    def flow(ctx: Any, input: Any) -> Any:
        yield ctx.all([ctx.schedule_activity("poll_cancelled"), ctx.wait_for_event("e")])

    def drive() -> None:
        w.start("i", "flow")
        w.seen("i", "ActivityScheduled")
        w.cancel("i", "stop it")
        w.wait("i")

    w.flows(flow)
    return drive
