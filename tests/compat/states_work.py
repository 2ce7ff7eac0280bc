"""Activities, retries and sessions in flight."""

from __future__ import annotations

from typing import Any

from .state import FAR_MS, HOUR_MS, State, Steps, state


@state
class activity_pending(State):
    """An activity that nobody took: its tag is served in the next leg."""

    def flow(self, ctx: Any, round: int) -> Steps:
        return (yield ctx.schedule_activity("echo", {"b": round, "a": None}).with_tag(f"leg{round + 1}"))

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "ActivityScheduled", round + 1)


@state
class activity_leased(State):
    """An activity that was running when the process died."""

    def flow(self, ctx: Any, round: int) -> Steps:
        return (yield ctx.schedule_activity("hold", {"round": round, "value": [round]}))

    def arrive(self, i: str, round: int) -> None:
        self.w.got_stuck("hold", i)


@state
class activity_fan(State):
    """Of five activities one runs, one is pending, two ended and one failed."""

    order = False

    def flow(self, ctx: Any, round: int) -> Steps:
        return (
            yield ctx.all(
                [
                    ctx.schedule_activity("hold", {"round": round, "value": "held"}),
                    ctx.schedule_activity("echo", "tagged").with_tag(f"leg{round + 1}"),
                    ctx.schedule_activity("echo", "plain"),
                    ctx.schedule_activity("boom", "failed"),
                    ctx.schedule_activity("add", [round, 2]),
                ]
            )
        )

    def arrive(self, i: str, round: int) -> None:
        self.w.got_stuck("hold", i)
        self.w.seen(i, "ActivityCompleted", 4 * round + 2)
        self.w.seen(i, "ActivityFailed", round + 1)


@state
class activity_unregistered(State):
    """An activity that was fetched, found no function and waits out its back-off."""

    def register(self) -> None:
        super().register()
        for n in range(self.w.number):
            self.w.activity(_named(f"known_after_{n}", lambda ctx, input: input))

    def flow(self, ctx: Any, round: int) -> Steps:
        return (yield ctx.schedule_activity(f"known_after_{round}", round))

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "ActivityScheduled", round + 1)


def _named(name: str, function: Any) -> Any:
    function.__name__ = name
    return function


@state
class activity_fetched_often(State):
    """An activity that may be fetched once more before it is poison."""

    def flow(self, ctx: Any, round: int) -> Steps:
        return (yield ctx.schedule_activity("echo", round).with_tag(f"leg{round + 1}"))

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "ActivityScheduled", round + 1)

    def doctored(self, i: str, round: int) -> list[str]:
        return [f"UPDATE worker_queue SET attempt_count = 9 WHERE instance_id = '{i}'"]


@state
class activity_poison(activity_fetched_often):
    """An activity that was fetched too often already."""

    repeats = False

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "ActivityScheduled")

    def doctored(self, i: str, round: int) -> list[str]:
        return [f"UPDATE worker_queue SET attempt_count = 10 WHERE instance_id = '{i}'"]


@state
class turn_poison(State):
    """A message that was fetched too often already."""

    repeats = False

    def flow(self, ctx: Any, round: int) -> Steps:
        return (yield ctx.wait_for_event("go"))

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "ExternalSubscribed")

    def unfetched(self, i: str, round: int) -> None:
        self.w.emit(i, "go", 1)

    def doctored(self, i: str, round: int) -> list[str]:
        return [f"UPDATE orchestrator_queue SET attempt_count = 10 WHERE instance_id = '{i}'"]


@state
class turn_fetched_often(turn_poison):
    """A message that may be fetched once more before it is poison."""

    def doctored(self, i: str, round: int) -> list[str]:
        return [f"UPDATE orchestrator_queue SET attempt_count = 9 WHERE instance_id = '{i}'"]


@state
class turn_stuck(State):
    """A turn that was running, with an activity's result in its inbox."""

    def flow(self, ctx: Any, round: int) -> Steps:
        first = yield ctx.schedule_activity("echo", round)
        gate = yield ctx.wait_for_event("gate")
        self.w.turn_stuck(self.name, round)
        return [first, gate, (yield ctx.schedule_activity("echo", "after"))]

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "ExternalSubscribed", round + 1)

    def strike(self, i: str, round: int) -> None:
        self.w.emit(i, "gate", round)
        self.w.got_stuck("turn", self.name, round)


@state
class first_turn_stuck(State):
    """A first turn that was running: the start was fetched, nothing is in history."""

    repeats = False

    def flow(self, ctx: Any, round: int) -> Steps:
        self.w.turn_stuck(self.name, round)
        return (yield ctx.schedule_activity("echo", round))

    def start(self, i: str, first: int, end: int) -> None:
        pass

    def strike(self, i: str, round: int) -> None:
        self.w.start(i, self.name, [round, round + 1])
        self.w.got_stuck("turn", self.name, round)


# ── retries ──


@state
class retry_between_attempts(State):
    """A retry in the pause after a failed attempt."""

    free = True  # a slow machine makes another attempt before the kill

    def flow(self, ctx: Any, round: int) -> Steps:
        yield ctx.wait_for_event("gate")
        return (
            yield ctx.schedule_activity_with_retry(
                "fail_here", {"round": round, "value": round}, {"max_attempts": 20, "backoff": "fixed"}
            )
        )

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "ExternalSubscribed", round + 1)

    def strike(self, i: str, round: int) -> None:
        self.w.emit(i, "gate")
        self.w.seen(i, "TimerCreated", round + 1)


@state
class retry_second_attempt(State):
    """A retry whose second attempt was running."""

    def flow(self, ctx: Any, round: int) -> Steps:
        return (
            yield ctx.schedule_activity_with_retry(
                "fail_then_hold", {"round": round, "value": round}, {"max_attempts": 3, "backoff": "linear"}
            )
        )

    def arrive(self, i: str, round: int) -> None:
        self.w.got_stuck("hold", i)


@state
class retry_with_time_left(State):
    """A retry whose attempt was running and has time left."""

    def flow(self, ctx: Any, round: int) -> Steps:
        return (
            yield ctx.schedule_activity_with_retry(
                "hold", {"round": round, "value": round}, {"max_attempts": 2, "timeout_ms": FAR_MS}
            )
        )

    def arrive(self, i: str, round: int) -> None:
        self.w.got_stuck("hold", i)


@state
class retry_out_of_time(State):
    """A retry whose attempt is pending and out of time before the next leg."""

    def flow(self, ctx: Any, round: int) -> Steps:
        task = ctx.schedule_activity_with_retry("echo", round, {"max_attempts": 3, "timeout_ms": HOUR_MS})
        try:
            return (yield task.with_tag("nobody"))
        except Exception as error:
            return str(error)

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "TimerCreated", round + 1)


@state
class retry_exhausted_next(State):
    """A retry in its last attempt, which will fail."""

    def flow(self, ctx: Any, round: int) -> Steps:
        task = ctx.schedule_activity_with_retry("boom", round, {"max_attempts": 1})
        try:
            return (yield task.with_tag(f"leg{round + 1}"))
        except Exception as error:
            return str(error)

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "ActivityScheduled", round + 1)


@state
class retry_in_all(State):
    """Inside `all`: a retry whose second attempt was running, beside a wait."""

    def flow(self, ctx: Any, round: int) -> Steps:
        retry = {"max_attempts": 3, "backoff": "linear"}
        return (
            yield ctx.all(
                [
                    ctx.schedule_activity_with_retry("fail_then_hold", {"round": round, "value": "tried"}, retry),
                    ctx.wait_for_event("go"),
                ]
            )
        )

    def arrive(self, i: str, round: int) -> None:
        self.w.got_stuck("hold", i)
        self.w.seen(i, "ExternalSubscribed", round + 1)
        self.w.emit(i, "go", round)
        self.w.seen(i, "ExternalEvent", round + 1)


@state
class retry_in_race(State):
    """Inside `race`: a retry with a limit whose attempt is pending, against a wait that wins."""

    def flow(self, ctx: Any, round: int) -> Steps:
        task = ctx.schedule_activity_with_retry("echo", round, {"max_attempts": 3, "timeout_ms": FAR_MS})
        return (yield ctx.race(task.with_tag("nobody"), ctx.wait_for_event("go")))

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "TimerCreated", round + 1)

    def release(self, i: str, round: int) -> None:
        self.w.emit(i, "go", round)


# ── races ──


@state
class race_with_activity(State):
    """A race of a pending activity, an event of which decides it."""

    def flow(self, ctx: Any, round: int) -> Steps:
        return (yield ctx.race(ctx.schedule_activity("echo", round).with_tag("nobody"), ctx.wait_for_event("go")))

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "ExternalSubscribed", round + 1)

    def release(self, i: str, round: int) -> None:
        self.w.emit(i, "go", round)


@state
class race_lost_activity(State):
    """An activity that lost its race before anybody took it; its row is gone."""

    def flow(self, ctx: Any, round: int) -> Steps:
        won = yield ctx.race(ctx.schedule_activity("echo", "loser").with_tag(f"leg{round + 1}"), ctx.schedule_timer(1))
        return [won, (yield ctx.wait_for_event("go"))]

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "ExternalSubscribed", round + 1)

    def release(self, i: str, round: int) -> None:
        self.w.emit(i, "go", round)


@state
class race_lost_running(State):
    """An activity that was running when it lost its race and when the process died."""

    def flow(self, ctx: Any, round: int) -> Steps:
        won = yield ctx.race(ctx.schedule_activity("hold", {"round": round, "value": "loser"}), ctx.dequeue_event("q"))
        return [won, (yield ctx.wait_for_event("go"))]

    def arrive(self, i: str, round: int) -> None:
        self.w.got_stuck("hold", i)
        self.w.enqueue(i, "q", round)
        self.w.seen(i, "ExternalSubscribed", round + 1)

    def release(self, i: str, round: int) -> None:
        self.w.emit(i, "go", round)


# ── sessions ──


@state
class session_between(State):
    """A session between two of its activities."""

    def flow(self, ctx: Any, round: int) -> Steps:
        first = yield ctx.schedule_activity_on_session("echo", round, f"between {round}")
        event = yield ctx.wait_for_event("go")
        return [first, event, (yield ctx.schedule_activity("echo", "again", session_id=f"between {round}"))]

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "ExternalSubscribed", round + 1)

    def release(self, i: str, round: int) -> None:
        self.w.emit(i, "go", round)


@state
class session_leased(State):
    """A session's activity that was running, and one of the same session that is pending."""

    order = False

    def flow(self, ctx: Any, round: int) -> Steps:
        return (
            yield ctx.all(
                [
                    ctx.schedule_activity_on_session("hold", {"round": round, "value": 1}, "leased"),
                    ctx.schedule_activity_on_session("echo", 2, "leased").with_tag(f"leg{round + 1}"),
                ]
            )
        )

    def arrive(self, i: str, round: int) -> None:
        self.w.got_stuck("hold", i)


@state
class session_retry(State):
    """A retry on a session, in its second attempt."""

    def flow(self, ctx: Any, round: int) -> Steps:
        retry = {"max_attempts": 3, "backoff": "linear"}
        return (
            yield ctx.schedule_activity_with_retry_on_session(
                "fail_then_hold", {"round": round, "value": round}, retry, "retried"
            )
        )

    def arrive(self, i: str, round: int) -> None:
        self.w.got_stuck("hold", i)
