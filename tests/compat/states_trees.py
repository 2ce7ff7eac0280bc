"""Children, detached starts, continue-as-new chains, and what was sent to instances from outside."""

from __future__ import annotations

from typing import Any

from .state import State, Steps, state


class WithKid(State):
    """For states with a child `kid`, which works and then waits for "go"."""

    def register(self) -> None:
        super().register()

        def kid(ctx: Any, input: Any) -> Steps:
            worked = yield ctx.schedule_activity("echo", ["kid", input])
            event = yield ctx.wait_for_event("go")
            if event == "fail":
                raise ValueError(f"kid {input} was told to")
            return [worked, event]

        def early_kid(ctx: Any, input: Any) -> Steps:
            yield ctx.schedule_timer(1)
            if input == "fail":
                raise KeyError("early")
            return input

        self.w.flows(kid, early_kid)

    def kid(self, i: str, round: int) -> str:
        return self.w.child(i, round + 1)

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "SubOrchestrationScheduled", round + 1)
        self.w.seen(self.kid(i, round), "ExternalSubscribed")

    def release(self, i: str, round: int) -> None:
        self.w.emit(self.kid(i, round), "go", round)


@state
class child(WithKid):
    """A child under an automatic id, waiting."""

    def flow(self, ctx: Any, round: int) -> Steps:
        return (yield ctx.schedule_sub_orchestration("kid", round))


@state
class child_explicit(WithKid):
    """A child under an id of the code's choice, waiting."""

    def flow(self, ctx: Any, round: int) -> Steps:
        return (yield ctx.schedule_sub_orchestration_with_id("kid", f"explicit kid {round}", round))


@state
class child_nested(WithKid):
    """A grandchild that waits, and two that wait for it."""

    def register(self) -> None:
        super().register()

        def middle(ctx: Any, input: Any) -> Steps:
            return ["middle", (yield ctx.schedule_sub_orchestration("kid", input))]

        self.w.flows(middle)

    def flow(self, ctx: Any, round: int) -> Steps:
        return (yield ctx.schedule_sub_orchestration("middle", round))

    def kid(self, i: str, round: int) -> str:
        middle = self.w.child(i, round + 1)
        self.w.seen(middle, "SubOrchestrationScheduled")
        return self.w.child(middle)


@state
class children_all(WithKid):
    """Of three children one ended, one failed and one waits."""

    order = False

    def flow(self, ctx: Any, round: int) -> Steps:
        found = yield ctx.all(
            [
                ctx.schedule_sub_orchestration("kid", round),
                ctx.schedule_sub_orchestration("early_kid", "ok"),
                ctx.schedule_sub_orchestration("early_kid", "fail"),
            ]
        )
        found[2] = found[2]["err"].strip().splitlines()[-1]
        return found

    def kid(self, i: str, round: int) -> str:
        return self.w.child(i, 3 * round + 1)

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "SubOrchestrationCompleted", 2 * round + 1)
        self.w.seen(i, "SubOrchestrationFailed", round + 1)
        self.w.seen(self.kid(i, round), "ExternalSubscribed")


@state
class child_lost(WithKid):
    """A child that lost its race and was cancelled, its end stored for nobody."""

    def flow(self, ctx: Any, round: int) -> Steps:
        won = yield ctx.race(ctx.schedule_sub_orchestration("kid", "loser"), ctx.dequeue_event("q"))
        return [won, (yield ctx.wait_for_event("go"))]

    def arrive(self, i: str, round: int) -> None:
        super().arrive(i, round)
        self.w.enqueue(i, "q", round)
        self.w.seen(i, "SubOrchestrationFailed", round + 1)
        self.w.seen(i, "ExternalSubscribed", round + 1)

    def release(self, i: str, round: int) -> None:
        self.w.emit(i, "go", round)


@state
class child_fails_next(WithKid):
    """A child that will fail."""

    def flow(self, ctx: Any, round: int) -> Steps:
        try:
            yield ctx.schedule_sub_orchestration("kid", round)
        except Exception as error:
            return str(error).strip().splitlines()[-1]

    def release(self, i: str, round: int) -> None:
        self.w.emit(self.kid(i, round), "go", "fail")


@state
class child_versioned(WithKid):
    """A child that was started with a version, by its id."""

    def register(self) -> None:
        super().register()
        for version in ("1.0.0", "1.5.0"):
            self.w.versioned("versioned_kid", version, _says(version))

    def flow(self, ctx: Any, round: int) -> Steps:
        version = ("1.0.0", None)[round % 2]
        return (
            yield ctx.schedule_sub_orchestration_versioned_with_id("versioned_kid", version, f"versioned kid {round}", round)
        )


def _says(version: str) -> Any:
    def flow(ctx: Any, input: Any) -> Steps:
        return [version, input, (yield ctx.wait_for_event("go"))]

    return flow


@state
class child_continued(WithKid):
    """A child in its second execution."""

    not_in = ("0.1.24",)  # loses the link to the parent, which waits for ever

    def register(self) -> None:
        super().register()

        def generations(ctx: Any, n: int) -> Steps:
            if n == 0:
                yield ctx.continue_as_new(1)
            return ["second", (yield ctx.wait_for_event("go"))]

        self.w.flows(generations)

    def flow(self, ctx: Any, round: int) -> Steps:
        return (yield ctx.schedule_sub_orchestration("generations", 0))

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "SubOrchestrationScheduled", round + 1)
        self.w.seen(self.kid(i, round), "ExternalSubscribed", execution=2)


@state
class child_unregistered(WithKid):
    """A child's start that was fetched, found no function and waits out its back-off."""

    def register(self) -> None:
        super().register()
        for n in range(self.w.number):
            self.w.versioned(f"kid_known_after_{n}", "1.0.0", _twice)

    def flow(self, ctx: Any, round: int) -> Steps:
        return (yield ctx.schedule_sub_orchestration(f"kid_known_after_{round}", round))

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "SubOrchestrationScheduled", round + 1)

    def release(self, i: str, round: int) -> None:
        pass


def _twice(ctx: Any, input: Any) -> Steps:
    return [input, (yield ctx.schedule_activity("echo", input))]


@state
class child_refused(WithKid):
    """A wait after a child that was refused: its id was taken."""

    repeats = False
    beside = ("taken",)
    not_in = ("0.1.24",)  # tells the parent nothing, which waits for ever

    def flow(self, ctx: Any, round: int) -> Steps:
        try:
            yield ctx.schedule_sub_orchestration_with_id("kid", f"taken {round}", round)
        except Exception as error:
            return [str(error), (yield ctx.wait_for_event("go"))]

    def start(self, i: str, first: int, end: int) -> None:
        self.w.start(f"taken {first}", "kid", "taken")
        self.w.seen(f"taken {first}", "ExternalSubscribed")
        super().start(i, first, end)

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "ExternalSubscribed")

    def release(self, i: str, round: int) -> None:
        self.w.emit(i, "go", round)
        self.w.emit(f"taken {round}", "go", round)


@state
class detached(WithKid):
    """An instance that was started and left alone, waiting as its starter does."""

    beside = ("detached 0", "detached 1", "detached 2", "detached 3")

    def flow(self, ctx: Any, round: int) -> Steps:
        yield ctx.start_orchestration("kid", f"detached {round}", round)
        return (yield ctx.wait_for_event("go"))

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(f"detached {round}", "ExternalSubscribed")
        self.w.seen(i, "ExternalSubscribed", round + 1)

    def release(self, i: str, round: int) -> None:
        self.w.emit(i, "go", round)
        self.w.emit(f"detached {round}", "go", round)


@state
class detached_unregistered(WithKid):
    """A detached start with a version that nobody has yet."""

    beside = ("detached later",)

    def register(self) -> None:
        super().register()
        for n in range(self.w.number):
            self.w.versioned("detached_later", f"1.{n}.0", _twice)

    def flow(self, ctx: Any, round: int) -> Steps:
        yield ctx.start_orchestration_versioned("detached_later", f"1.{round}.0", f"detached later {round}", round)
        return (yield ctx.wait_for_event("go"))

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "ExternalSubscribed", round + 1)

    def release(self, i: str, round: int) -> None:
        self.w.emit(i, "go", round)


# ── continue as new ──


class Chain(State):
    """For states whose rounds are executions: `one` is what an execution does before it continues as new or returns."""

    def register(self) -> None:
        self.w.versioned(self.name, "1.0.0", self.main)

    def main(self, ctx: Any, span: list[int]) -> Steps:
        found = yield from self.flow(ctx, span[0])
        if span[0] + 1 < span[1]:
            yield ctx.continue_as_new([span[0] + 1, span[1]])
        return found

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "ExternalSubscribed", execution=round + 1)

    def release(self, i: str, round: int) -> None:
        self.w.emit(i, "go", round)


@state
class chain(Chain):
    """A chain with a status and KV values that its executions hand down."""

    def flow(self, ctx: Any, round: int) -> Steps:
        inherited = sorted(ctx.get_kv_all_values().items())
        ctx.set_custom_status(f"round {round}")
        ctx.set_kv_value("round", str(round))
        ctx.set_kv_value(f"only {round}", "x")
        if round % 2:
            ctx.clear_kv_value(f"only {round - 1}")
        event = yield ctx.wait_for_event("go")
        return [inherited, event, sorted(ctx.get_kv_all_values().items())]


@state
class chain_carries(Chain):
    """A chain with queue messages that an execution did not read: the next one gets them first."""

    def flow(self, ctx: Any, round: int) -> Steps:
        found = []
        for _ in range(5 if round else 2):
            found.append((yield ctx.dequeue_event("q")))
        found.append((yield ctx.wait_for_event("go")))
        return found

    def main(self, ctx: Any, span: list[int]) -> Steps:
        ctx.set_kv_value(f"found {span[0]}", str((yield from self.flow(ctx, span[0]))))
        if span[0] + 1 < span[1]:
            yield ctx.continue_as_new([span[0] + 1, span[1]])

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "OrchestrationStarted", execution=round + 1)
        for n in range(5):
            if n == 2:
                self.w.seen(i, "ExternalSubscribed", 1, round + 1)
            self.w.enqueue(i, "q", [round, n])
            self.w.seen(i, "QueueEventDelivered", (3 if round else 0) + n + 1, round + 1)


@state
class chain_lost_dequeue(Chain):
    """A chain that continues with a message in the queue of a dequeue that lost its race."""

    def flow(self, ctx: Any, round: int) -> Steps:
        carried = (yield ctx.dequeue_event("q")) if round else None
        won = yield ctx.race(ctx.dequeue_event("q"), ctx.schedule_timer(1))
        return [carried, won, (yield ctx.wait_for_event("go"))]

    def main(self, ctx: Any, span: list[int]) -> Steps:
        ctx.set_kv_value(f"found {span[0]}", str((yield from self.flow(ctx, span[0]))))
        if span[0] + 1 < span[1]:
            yield ctx.continue_as_new([span[0] + 1, span[1]])

    def arrive(self, i: str, round: int) -> None:
        super().arrive(i, round)
        self.w.enqueue(i, "q", round)
        self.w.seen(i, "QueueEventDelivered", 2 if round else 1, round + 1)


@state
class chain_stuck(Chain):
    """The first turn of a successor that was running: its start was fetched, nothing is in history."""

    def flow(self, ctx: Any, round: int) -> Steps:
        self.w.turn_stuck(self.name, round)
        return (yield ctx.wait_for_event("go"))

    def start(self, i: str, first: int, end: int) -> None:
        pass

    def arrive(self, i: str, round: int) -> None:
        pass

    def strike(self, i: str, round: int) -> None:
        if round:
            self.w.seen(i, "ExternalSubscribed", execution=round)
            self.w.emit(i, "go", round)
        else:
            self.w.start(i, self.name, [0, 99])
        self.w.got_stuck("turn", self.name, round)

    def release(self, i: str, round: int) -> None:
        self.w.seen(i, "ExternalSubscribed", execution=round + 1)

    def main(self, ctx: Any, span: list[int]) -> Steps:
        found = yield from self.flow(ctx, span[0])
        if found == "end":
            return found
        yield ctx.continue_as_new([span[0] + 1, span[1]])

    def end(self, i: str) -> None:
        self.w.emit(i, "go", "end")


@state
class chain_upgraded(Chain):
    """A chain that continues under a version that nobody has yet."""

    def register(self) -> None:
        for n in range(self.w.number):
            self.w.versioned(self.name, f"1.{n}.0", self.main)

    def start(self, i: str, first: int, end: int) -> None:
        self.w.start(i, self.name, [first, end], "1.0.0")

    def main(self, ctx: Any, span: list[int]) -> Steps:
        found = yield ctx.schedule_activity("echo", span)
        if span[0] + 1 < span[1]:
            yield ctx.continue_as_new_versioned([span[0] + 1, span[1]], f"1.{span[0] + 1}.0")
        return found

    def arrive(self, i: str, round: int) -> None:
        if round:
            self.w.seen(i, "OrchestrationContinuedAsNew", execution=round)

    def release(self, i: str, round: int) -> None:
        pass


@state
class chain_latest(Chain):
    """A chain whose next execution takes the latest version, a newer one than this one's."""

    def register(self) -> None:
        for n in range(self.w.number + 1):
            self.w.versioned(self.name, f"1.{n}.0", self.labelled(n))

    def labelled(self, n: int) -> Any:
        def flow(ctx: Any, span: list[int]) -> Steps:
            found = [n, (yield ctx.wait_for_event("go"))]
            ctx.set_custom_status(str(found))
            if span[0] + 1 < span[1]:
                yield ctx.continue_as_new([span[0] + 1, span[1]])
            return found

        return flow


# ── from outside ──


class Once(State):
    repeats = False

    def flow(self, ctx: Any, round: int) -> Steps:
        worked = yield ctx.schedule_activity("echo", round)
        return [worked, (yield ctx.wait_for_event("go"))]

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "ExternalSubscribed")


@state
class cancel_unfetched(Once):
    """A cancellation that nobody fetched yet."""

    def unfetched(self, i: str, round: int) -> None:
        self.w.cancel(i, "not wanted: \"any more\"")


@state
class cancel_with_activity(State):
    """An unfetched cancellation for an instance whose activity was running."""

    repeats = False

    def flow(self, ctx: Any, round: int) -> Steps:
        return (yield ctx.schedule_activity("hold", {"round": round, "value": 1}).with_tag(f"leg{round}"))

    def arrive(self, i: str, round: int) -> None:
        self.w.got_stuck("hold", i)

    def unfetched(self, i: str, round: int) -> None:
        self.w.cancel(i)


@state
class cancel_tree(WithKid):
    """An unfetched cancellation for a parent whose child waits."""

    repeats = False

    def flow(self, ctx: Any, round: int) -> Steps:
        return (yield ctx.schedule_sub_orchestration("kid", round))

    def kid(self, i: str, round: int) -> str:
        return self.w.child(i)

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "SubOrchestrationScheduled")
        self.w.seen(self.kid(i, round), "ExternalSubscribed")

    def unfetched(self, i: str, round: int) -> None:
        self.w.cancel(i, "tree")

    def release(self, i: str, round: int) -> None:
        pass


class Unstarted(Once):
    def start(self, i: str, first: int, end: int) -> None:
        pass

    def arrive(self, i: str, round: int) -> None:
        pass

    def unfetched(self, i: str, round: int) -> None:
        self.w.start(i, self.name, [round, round + 1])


@state
class start_unfetched(Unstarted):
    """A start that nobody fetched yet."""

    def release(self, i: str, round: int) -> None:
        self.w.seen(i, "ExternalSubscribed")
        self.w.emit(i, "go", round)


@state
class start_and_cancel_unfetched(Unstarted):
    """A start and a cancellation in one unfetched batch."""

    def unfetched(self, i: str, round: int) -> None:
        super().unfetched(i, round)
        self.w.cancel(i, "at once")


@state
class cancel_parked(Unstarted):
    """A cancellation that waits for an instance to be started."""

    def unfetched(self, i: str, round: int) -> None:
        self.w.cancel(i, "in advance")

    def before(self, i: str, round: int) -> None:
        super().unfetched(i, round)


@state
class start_again_unfetched(Once):
    """A second start of an instance that runs, with another input."""

    def unfetched(self, i: str, round: int) -> None:
        self.w.start(i, self.name, [100, 103])

    def release(self, i: str, round: int) -> None:
        self.w.emit(i, "go", round)


@state
class start_unregistered(Unstarted):
    """A start that was fetched, found no function and waits out its back-off."""

    def register(self) -> None:
        for n in range(self.w.number):
            self.w.versioned(f"known_to_legs_after_{n}", "1.0.0", _twice)

    def start(self, i: str, first: int, end: int) -> None:
        self.w.start(i, f"known_to_legs_after_{first}", first)

    def unfetched(self, i: str, round: int) -> None:
        pass


@state
class ended(Once):
    """An instance that ended, with an event and a message for it that nobody fetched."""

    def arrive(self, i: str, round: int) -> None:
        super().arrive(i, round)
        self.w.emit(i, "go", round)
        self.w.wait(i)

    def unfetched(self, i: str, round: int) -> None:
        self.w.emit(i, "go", "late")
        self.w.enqueue(i, "q", "late")


@state
class failed(Once):
    """An instance that failed."""

    def flow(self, ctx: Any, round: int) -> Steps:
        yield ctx.schedule_activity("boom", round)

    def arrive(self, i: str, round: int) -> None:
        self.w.wait(i)


@state
class fails_next(Once):
    """An instance that will fail."""

    def flow(self, ctx: Any, round: int) -> Steps:
        event = yield ctx.wait_for_event("go")
        raise ValueError(f"planned {event}")

    def release(self, i: str, round: int) -> None:
        self.w.emit(i, "go", round)


@state
class code_changed(Once):
    """An instance whose code asks for something else than what is in its history."""

    def flow(self, ctx: Any, round: int) -> Steps:
        yield ctx.schedule_activity("echo", "old" if self.w.number == round else "new")
        return (yield ctx.wait_for_event("go"))

    def release(self, i: str, round: int) -> None:
        self.w.emit(i, "go", round)
