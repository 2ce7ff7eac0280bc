"""Programs about `all` and `race`: every kind of member, winners, losers and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .programs import Driver
    from .world import World

LONG = 3_600_000


def all_of_activities(w: World) -> Driver:
    """Results in the order of the list, errors in their place."""

    def flow(ctx: Any, input: Any) -> Any:
        return (yield ctx.all([ctx.schedule_activity("boom" if n % 3 == 1 else "echo", n) for n in range(10)]))

    w.flows(flow)
    return lambda: w.run("flow")


def all_empty(w: World) -> Driver:
    """Nothing to wait for: an empty list at once, a tuple as well as a list."""

    def flow(ctx: Any, input: Any) -> Any:
        return [(yield ctx.all([])), (yield ctx.all(())), (yield ctx.all_typed([]))]

    w.flows(flow)
    return lambda: w.run("flow")


def all_of_every_kind(w: World) -> Driver:
    """Activity, failing activity, timer, event, queue, child and retry in one `all`."""

    def kid(ctx: Any, input: Any) -> Any:
        e = yield ctx.wait_for_event("kid")
        return ["kid", input, e]

    def flow(ctx: Any, input: Any) -> Any:
        return (
            yield ctx.all(
                [
                    ctx.schedule_activity("echo", {"b": 1}),
                    ctx.schedule_activity("boom", 2),
                    ctx.schedule_timer(150),
                    ctx.wait_for_event("go"),
                    ctx.dequeue_event("q"),
                    ctx.schedule_sub_orchestration("kid", 3),
                    ctx.schedule_sub_orchestration_with_id("kid", "kid-2", 4),
                ]
            )
        )

    def drive() -> None:
        w.start("i", "flow")
        w.seen("i", "ActivityFailed")
        w.seen("i", "TimerFired")
        w.emit("i", "go", "went")
        w.seen("i", "ExternalEvent")
        w.enqueue("i", "q", "queued")
        w.seen("i", "QueueEventDelivered")
        for kid, done in (("i::sub::7", 1), ("kid-2", 2)):
            w.seen(kid, "ExternalSubscribed")
            w.emit(kid, "kid", kid)
            w.seen("i", "SubOrchestrationCompleted", done)
        w.wait("i")

    w.flows(flow, kid)
    return drive


def all_with_retries(w: World) -> Driver:
    """Retries inside `all` go on by themselves; one is exhausted."""

    def flow(ctx: Any, input: Any) -> Any:
        policy = {"max_attempts": 2, "backoff": "linear"}
        return (
            yield ctx.all(
                [
                    ctx.schedule_activity_with_retry("flaky", {"key": "a", "fail": 1}, policy),
                    ctx.schedule_timer(400),
                    ctx.schedule_activity_with_retry("boom", "b", {"max_attempts": 1}),
                ]
            )
        )

    w.flows(flow)
    return lambda: w.run("flow")


def all_with_failing_child(w: World) -> Driver:
    """A child's error is its text in the list."""

    def bad(ctx: Any, input: Any) -> Any:
        yield ctx.schedule_timer(1)
        raise ValueError("bad child")

    def flow(ctx: Any, input: Any) -> Any:
        out = yield ctx.all([ctx.schedule_sub_orchestration("bad"), ctx.schedule_timer(200)])
        return ["ValueError: bad child" in out[0]["err"], sorted(out[0]), out[1]]

    w.flows(flow, bad)
    return lambda: w.run("flow")


def all_typed(w: World) -> Driver:
    """The typed form gives plain values, errors stay dicts."""

    def flow(ctx: Any, input: Any) -> Any:
        return (yield ctx.all_typed([ctx.schedule_activity("echo", 1), ctx.schedule_activity("boom", 2), ctx.schedule_timer(150)]))

    w.flows(flow)
    return lambda: w.run("flow")


def all_unsupported_members(w: World) -> Driver:
    """System calls, detached starts and continue-as-new are no members of `all`."""

    def flow(ctx: Any, input: Any) -> Any:
        return (
            yield ctx.all(
                [ctx.new_guid(), ctx.utc_now(), ctx.start_orchestration("flow", "z"), ctx.continue_as_new(1), ctx.schedule_activity("echo", 1)]
            )
        )

    w.flows(flow)
    return lambda: w.run("flow")


def all_wide(w: World) -> Driver:
    """Forty members."""

    def flow(ctx: Any, n: int) -> Any:
        out = yield ctx.all([ctx.schedule_activity("echo", i) for i in range(n)])
        return sum(o["ok"] for o in out)

    w.flows(flow)
    return lambda: w.run("flow", 40)


def all_changes_values(w: World) -> Driver:
    """The reference re-encodes what passes through `all`: sorted keys, lossy numbers."""

    def flow(ctx: Any, input: Any) -> Any:
        out = yield ctx.all([ctx.schedule_activity("echo", {"b": 1, "a": 2}), ctx.schedule_activity("echo", 2**70)])
        return [list(out[0]["ok"]), type(out[1]["ok"]).__name__]

    w.flows(flow)
    return lambda: w.run("flow")


def all_nested(w: World) -> Driver:
    """The reference refuses `all` and `race` inside one another."""

    def flow(ctx: Any, input: Any) -> Any:
        out = []
        inner = ctx.all([ctx.schedule_activity("echo", 1), ctx.schedule_activity("echo", 2)])
        for outer in (ctx.all([inner, ctx.schedule_activity("echo", 3)]), ctx.race(inner, ctx.schedule_timer(LONG))):
            try:
                out.append((yield outer))
            except Exception as e:
                out.append(str(e))
        return out

    w.flows(flow)
    return lambda: w.run("flow")


# ── races ──


def race_activity_wins(w: World) -> Driver:
    """The activity wins; the timer is left alone."""

    def flow(ctx: Any, input: Any) -> Any:
        won = yield ctx.race(ctx.schedule_activity("echo", {"v": 1}), ctx.schedule_timer(LONG))
        return [won, (yield ctx.schedule_activity("echo", "after"))]

    w.flows(flow)
    return lambda: w.run("flow")


def race_timer_wins(w: World) -> Driver:
    """The activity loses before anyone took it: its row goes, the history says so."""

    def flow(ctx: Any, input: Any) -> Any:
        won = yield ctx.race(ctx.schedule_activity("echo", 1).with_tag("nobody"), ctx.schedule_timer(1))
        return [won, (yield ctx.schedule_timer(1))]

    w.flows(flow)
    return lambda: w.run("flow")


def race_running_loser(w: World) -> Driver:
    """The loser is running: it is told, and its result is dropped."""
    w.options["worker_lock_timeout_ms"] = 2000

    def flow(ctx: Any, input: Any) -> Any:
        won = yield ctx.race(ctx.wait_for_event("go"), ctx.schedule_activity("poll_cancelled"))
        return [won, (yield ctx.schedule_activity("echo", "after"))]

    def drive() -> None:
        w.start("i", "flow")
        w.seen("i", "ExternalSubscribed")
        w.emit("i", "go", 1)
        w.wait("i")

    w.flows(flow)
    return drive


def race_loser_completes_later(w: World) -> Driver:
    """A completion that arrives for a loser is stored and delivered to nobody."""

    def flow(ctx: Any, input: Any) -> Any:
        won = yield ctx.race(ctx.schedule_timer(5), ctx.wait_for_event("go"))
        late = yield ctx.race(ctx.schedule_timer(300), ctx.wait_for_event("stop"))
        end = yield ctx.wait_for_event("end")
        return [won, late, end]

    def drive() -> None:
        w.start("i", "flow")
        w.seen("i", "TimerCreated", 2)
        w.emit("i", "stop", "s")
        w.seen("i", "TimerFired", 2)
        w.emit("i", "end", "e")
        w.wait("i")

    w.flows(flow)
    return drive


def race_event_and_queue(w: World) -> Driver:
    """Either of them may win; the cancelled dequeue leaves the message for the next one."""

    def flow(ctx: Any, input: Any) -> Any:
        a = yield ctx.race(ctx.wait_for_event("e"), ctx.dequeue_event("q"))
        b = yield ctx.race(ctx.wait_for_event("e"), ctx.dequeue_event("q"))
        c = yield ctx.dequeue_event("q")
        return [a, b, c]

    def drive() -> None:
        w.start("i", "flow")
        w.seen("i", "QueueSubscribed")
        w.emit("i", "e", "event")
        w.seen("i", "QueueSubscribed", 2)
        w.enqueue("i", "q", "m1")
        w.seen("i", "QueueSubscribed", 3)
        w.enqueue("i", "q", "m2")
        w.wait("i")

    w.flows(flow)
    return drive


def race_children(w: World) -> Driver:
    """The child that loses is cancelled."""

    def fast(ctx: Any, input: Any) -> Any:
        yield ctx.schedule_timer(1)
        return "fast"

    def slow(ctx: Any, input: Any) -> Any:
        yield ctx.wait_for_event("never")

    def flow(ctx: Any, input: Any) -> Any:
        a = yield ctx.race(ctx.schedule_sub_orchestration("slow"), ctx.schedule_sub_orchestration("fast"))
        b = yield ctx.race(ctx.schedule_sub_orchestration_with_id("slow", "named"), ctx.wait_for_event("go"))
        return [a, b]

    def drive() -> None:
        w.start("i", "flow")
        w.seen("named", "ExternalSubscribed")
        w.emit("i", "go", 1)
        w.wait("i", "named", "i::sub::2")

    w.flows(flow, fast, slow)
    return drive


def race_failing_winner(w: World) -> Driver:
    """The first to end wins, also by failing."""

    def flow(ctx: Any, input: Any) -> Any:
        try:
            return (yield ctx.race(ctx.schedule_activity("boom", 1), ctx.schedule_timer(LONG)))
        except Exception as e:
            return str(e)

    w.flows(flow)
    return lambda: w.run("flow")


def race_with_retry(w: World) -> Driver:
    """A retry as a member: it wins after its second attempt; another one loses between its attempts."""

    def flow(ctx: Any, input: Any) -> Any:
        policy = {"max_attempts": 9, "backoff": "fixed"}
        quick = {"max_attempts": 3, "backoff": "linear"}
        a = yield ctx.race(ctx.schedule_activity_with_retry("flaky", {"key": "w", "fail": 1}, quick), ctx.schedule_timer(LONG))
        b = yield ctx.race(ctx.schedule_activity_with_retry("boom", "l", policy), ctx.wait_for_event("go"))
        return [a, b]

    def drive() -> None:
        w.start("i", "flow")
        w.seen("i", "ActivityFailed", 2)
        w.emit("i", "go")
        w.wait("i")

    w.flows(flow)
    return drive


def race_refused(w: World) -> Driver:
    """What cannot be a member of a race, and none or one member."""

    def flow(ctx: Any, input: Any) -> Any:
        out = []
        for task in (
            ctx.race(ctx.new_guid(), ctx.schedule_timer(LONG)),
            ctx.race(ctx.schedule_timer(LONG), ctx.continue_as_new(1)),
            ctx.race(ctx.start_orchestration("flow", "z"), ctx.utc_now()),
        ):
            try:
                out.append((yield task))
            except Exception as e:
                out.append(str(e))
        return out

    w.flows(flow)
    return lambda: w.run("flow")


def race_of_other_sizes(w: World) -> Driver:
    """The reference wants exactly two members."""

    def flow(ctx: Any, input: Any) -> Any:
        out = []
        for tasks in ([ctx.schedule_activity("echo", 1)], [ctx.schedule_timer(LONG), ctx.schedule_timer(LONG), ctx.schedule_activity("echo", 3)]):
            try:
                out.append((yield ctx.race(*tasks)))
            except Exception as e:
                out.append(str(e))
        return out

    w.flows(flow)
    return lambda: w.run("flow")


def race_both_in_one_batch(w: World) -> Driver:
    """Two messages in one batch: the earlier one decides, whatever the order of the members."""

    def flow(ctx: Any, input: Any) -> Any:
        a = yield ctx.race(ctx.wait_for_event("first"), ctx.wait_for_event("second"))
        b = yield ctx.race_typed(ctx.dequeue_event("q1"), ctx.dequeue_event("q2"))
        return [a, b]

    def drive() -> None:
        w.start("i", "flow")
        w.seen("i", "ExternalSubscribed", 2)
        w.pause()
        w.emit("i", "second", 2)
        w.emit("i", "first", 1)
        w.enqueue("i", "q2", "two")
        w.enqueue("i", "q1", "one")
        w.resume()
        w.wait("i")

    w.flows(flow)
    return drive


def race_of_one_queue(w: World) -> Driver:
    """Two dequeues of one queue race; the loser's claim goes back to the queue."""

    def flow(ctx: Any, input: Any) -> Any:
        out = []
        for _ in range(2):
            out.append((yield ctx.race(ctx.dequeue_event("q"), ctx.dequeue_event("q"))))
        out.append((yield ctx.dequeue_event("q")))
        return out

    def drive() -> None:
        w.start("i", "flow")
        w.seen("i", "QueueSubscribed", 2)
        w.pause()
        for n in range(3):
            w.enqueue("i", "q", n)
        w.resume()
        w.wait("i")

    w.flows(flow)
    return drive


def race_drops_an_assigned_event(w: World) -> Driver:
    """The loser had its event already: dropping the wait discards it."""

    def flow(ctx: Any, input: Any) -> Any:
        a = yield ctx.race(ctx.wait_for_event("a"), ctx.wait_for_event("b"))
        b = yield ctx.race(ctx.wait_for_event("b"), ctx.schedule_timer(50))
        return [a, b]

    def drive() -> None:
        w.start("i", "flow")
        w.seen("i", "ExternalSubscribed", 2)
        w.pause()
        w.emit("i", "a", "A")
        w.emit("i", "b", "B")
        w.resume()
        w.wait("i")

    w.flows(flow)
    return drive


def race_lost_then_again(w: World) -> Driver:
    """A wait that was lost does not swallow the next event, a lost dequeue not the next message."""

    def flow(ctx: Any, input: Any) -> Any:
        a = yield ctx.race(ctx.wait_for_event("same"), ctx.schedule_timer(1))
        b = yield ctx.race(ctx.dequeue_event("same"), ctx.schedule_timer(1))
        c = yield ctx.wait_for_event("same")
        d = yield ctx.dequeue_event("same")
        return [a, b, c, d]

    def drive() -> None:
        w.start("i", "flow")
        w.seen("i", "ExternalSubscribed", 2)
        w.emit("i", "same", "event")
        w.seen("i", "QueueSubscribed", 2)
        w.enqueue("i", "same", "message")
        w.wait("i")

    w.flows(flow)
    return drive


