"""Programs that put features together: joins in races in retries, chains of executions, trees, signals and values across them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .programs import Driver
    from .world import World

LINEAR = {"max_attempts": 3, "backoff": "linear"}


# ── joins ──


def mixed_all_of_retries(w: World) -> Driver:
    """Retries side by side: one at once, one on the third try, one never."""

    def flow(ctx: Any, input: Any) -> Any:
        return (
            yield ctx.all(
                [
                    ctx.schedule_activity_with_retry("flaky", {"key": "a", "fail": 0}, LINEAR),
                    ctx.wait_for_event("go"),
                    ctx.schedule_activity_with_retry("boom", "x", {"max_attempts": 1}),
                ]
            )
        )

    def drive() -> None:
        w.start("i", "flow")
        w.seen("i", "ActivityFailed")
        w.seen("i", "ActivityCompleted")
        w.emit("i", "go", "late")
        w.wait("i")

    w.flows(flow)
    return drive


def mixed_race_of_retry(w: World) -> Driver:
    """A retry that gets there on its second try beats an hour."""

    def flow(ctx: Any, input: Any) -> Any:
        won = yield ctx.race(
            ctx.schedule_activity_with_retry("flaky", {"key": "r", "fail": 1}, LINEAR), ctx.schedule_timer(3_600_000)
        )
        return won["index"], won["value"]

    w.flows(flow)
    return lambda: w.run("flow")


def mixed_race_of_failing_retry(w: World) -> Driver:
    """A retry that gives up wins its race with its error."""

    def flow(ctx: Any, input: Any) -> Any:
        try:
            yield ctx.race(
                ctx.schedule_activity_with_retry("boom", "r", {"max_attempts": 2, "backoff": "linear"}), ctx.wait_for_event("never")
            )
        except Exception as error:
            return f"caught {error}"

    w.flows(flow)
    return lambda: w.run("flow")


def mixed_races_in_sequence(w: World) -> Driver:
    """Ten races on one event name, each lost by a wait: the eleventh wait gets the event."""

    def flow(ctx: Any, input: Any) -> Any:
        lost = 0
        for n in range(10):
            won = yield ctx.race(ctx.wait_for_event("go"), ctx.schedule_activity("echo", n))
            lost += won["index"]
        return [lost, (yield ctx.wait_for_event("go"))]

    def drive() -> None:
        w.start("i", "flow")
        w.seen("i", "ExternalSubscribed", 11)
        w.emit("i", "go", "at last")
        w.wait("i")

    w.flows(flow)
    return drive


def mixed_wide_fan_then_chain(w: World) -> Driver:
    """Sixty at once, then a chain over their sum."""

    def flow(ctx: Any, width: int) -> Any:
        found = yield ctx.all_typed([ctx.schedule_activity("echo", n) for n in range(width)])
        total = 0
        for value in found[:5]:
            total = yield ctx.schedule_activity("add", [total, value])
        return [len(found), sum(found), total]

    w.flows(flow)
    return lambda: w.run("flow", 60)


def mixed_all_of_children_and_detached(w: World) -> Driver:
    """Three children at once, one that fails, and a detached start before them."""

    def kid(ctx: Any, n: int) -> Any:
        if n == 2:
            raise ValueError("two")
        return (yield ctx.schedule_activity("echo", n))

    def flow(ctx: Any, input: Any) -> Any:
        yield ctx.start_orchestration("kid", "apart", 9)
        return (yield ctx.all([ctx.schedule_sub_orchestration_with_id("kid", f"kid-{n}", n) for n in (1, 2, 3)]))

    def drive() -> None:
        w.run("flow")
        w.wait("apart")

    w.flows(flow, kid)
    return drive


# ── executions ──


def mixed_chain_of_executions(w: World) -> Driver:
    """Five executions; each takes one message, changes a value and the status."""

    def flow(ctx: Any, seen: list[Any]) -> Any:
        message = yield ctx.dequeue_event("inbox")
        ctx.set_kv_value("last", str(message))
        ctx.set_kv_value(f"k{len(seen)}", "x")
        ctx.set_custom_status(f"{len(seen) + 1} seen")
        yield ctx.schedule_activity("echo", message)
        if len(seen) < 4:
            yield ctx.continue_as_new([*seen, message])
        return [*seen, message, sorted(ctx.get_kv_all_keys())]

    def drive() -> None:
        w.start("i", "flow", [])
        for n in range(5):
            for execution in range(1, n + 2):
                w.seen("i", "OrchestrationStarted", 1, execution)
            w.seen("i", "QueueSubscribed", 1, n + 1)
            w.enqueue("i", "inbox", n)
        w.wait("i")

    w.flows(flow)
    return drive


def mixed_race_of_queue_over_executions(w: World) -> Driver:
    """A queue wait that wins its race against an hour in two executions."""

    def flow(ctx: Any, seen: list[Any]) -> Any:
        won = yield ctx.race(ctx.dequeue_event("inbox"), ctx.schedule_timer(3_600_000))
        if not seen:
            yield ctx.continue_as_new([won["value"]])
        return [*seen, won["value"]]

    def drive() -> None:
        w.start("i", "flow", [])
        w.seen("i", "QueueSubscribed")
        w.enqueue("i", "inbox", "first")
        w.seen("i", "QueueSubscribed", 1, 2)
        w.enqueue("i", "inbox", "second")
        w.wait("i")

    w.flows(flow)
    return drive


def mixed_child_that_continues_in_a_fan(w: World) -> Driver:
    """Children of three executions each, awaited together."""

    def kid(ctx: Any, state: list[int]) -> Any:
        value = yield ctx.schedule_activity("add", state)
        if len(state) < 4:
            yield ctx.continue_as_new([*state, value])
        return [*state, value]

    def flow(ctx: Any, input: Any) -> Any:
        return (yield ctx.all_typed([ctx.schedule_sub_orchestration_with_id("kid", f"kid-{n}", [n, 1]) for n in range(3)]))

    w.flows(flow, kid)
    return lambda: w.run("flow")


def mixed_versions_over_executions(w: World) -> Driver:
    """An old version continues as itself, then as the latest."""

    def old(ctx: Any, path: list[str]) -> Any:
        here = [*path, ctx.orchestration_version]
        if len(here) == 1:
            yield ctx.continue_as_new_versioned(here, "1.0.0")
        yield ctx.continue_as_new(here)

    def new(ctx: Any, path: list[str]) -> Any:
        yield ctx.schedule_timer(1)
        return [*path, ctx.orchestration_version]

    w.versioned("flow", "1.0.0", old)
    w.versioned("flow", "2.1.0", new)

    def drive() -> None:
        w.start("i", "flow", [], "1.0.0")
        w.wait("i")

    return drive


def mixed_failure_in_the_third_execution(w: World) -> Driver:
    """What earlier executions stored stays when a later one fails."""

    def flow(ctx: Any, n: int) -> Any:
        ctx.set_kv_value(f"k{n}", str(n))
        if n == 2:
            yield ctx.schedule_activity("boom", n)
        yield ctx.continue_as_new(n + 1)

    w.flows(flow)
    return lambda: w.run("flow", 0)


# ── trees ──


def mixed_cancel_of_a_tree(w: World) -> Driver:
    """A cancelled root cancels its child and that one its own."""

    def leaf(ctx: Any, input: Any) -> Any:
        yield ctx.wait_for_event("never")

    def middle(ctx: Any, input: Any) -> Any:
        return (yield ctx.schedule_sub_orchestration_with_id("leaf", "the-leaf", 1))

    def flow(ctx: Any, input: Any) -> Any:
        return (yield ctx.schedule_sub_orchestration_with_id("middle", "the-middle", 1))

    def drive() -> None:
        w.start("i", "flow")
        w.seen("the-leaf", "ExternalSubscribed")
        w.cancel("i", "all of it")
        w.wait("i", "the-middle", "the-leaf")

    w.flows(flow, middle, leaf)
    return drive


def mixed_cancel_of_a_child_is_caught(w: World) -> Driver:
    """A child cancelled from outside raises in its parent, which goes on."""

    def kid(ctx: Any, input: Any) -> Any:
        yield ctx.wait_for_event("never")

    def flow(ctx: Any, input: Any) -> Any:
        try:
            yield ctx.schedule_sub_orchestration_with_id("kid", "the-kid", 1)
        except Exception as error:
            return (yield ctx.schedule_activity("echo", f"caught {error}"))

    def drive() -> None:
        w.start("i", "flow")
        w.seen("the-kid", "ExternalSubscribed")
        w.cancel("the-kid", "not this one")
        w.wait("i")

    w.flows(flow, kid)
    return drive


def mixed_child_id_used_again(w: World) -> Driver:
    """An explicit id whose child has ended cannot be used again."""

    def kid(ctx: Any, n: int) -> Any:
        yield ctx.schedule_timer(1)
        return n

    def flow(ctx: Any, input: Any) -> Any:
        first = yield ctx.schedule_sub_orchestration_with_id("kid", "same", 1)
        try:
            yield ctx.schedule_sub_orchestration_with_id("kid", "same", 2)
        except Exception as error:
            return [first, str(error)]

    w.flows(flow, kid)
    return lambda: w.run("flow")


def mixed_parent_waits_for_a_signalled_child(w: World) -> Driver:
    """An event reaches a child by its id, while its parent waits for it."""

    def kid(ctx: Any, input: Any) -> Any:
        event = yield ctx.wait_for_event("go")
        message = yield ctx.dequeue_event("inbox")
        return [event, message]

    def flow(ctx: Any, input: Any) -> Any:
        return (yield ctx.schedule_sub_orchestration("kid", 1))

    def drive() -> None:
        w.start("i", "flow")
        w.seen("i::sub::2", "ExternalSubscribed")
        w.emit("i::sub::2", "go", {"to": "the child"})
        w.seen("i::sub::2", "QueueSubscribed")
        w.enqueue("i::sub::2", "inbox", None)
        w.wait("i")

    w.flows(flow, kid)
    return drive


def mixed_children_of_versions(w: World) -> Driver:
    """One name, two versions, as children of one parent."""

    def old(ctx: Any, n: int) -> Any:
        yield ctx.schedule_timer(1)
        return ["old", n]

    def new(ctx: Any, n: int) -> Any:
        return (yield ctx.schedule_activity("echo", ["new", n]))

    def flow(ctx: Any, input: Any) -> Any:
        a = yield ctx.schedule_sub_orchestration_versioned("kid", "1.0.0", 1)
        b = yield ctx.schedule_sub_orchestration_versioned_with_id("kid", "2.0.0", "second", 2)
        c = yield ctx.schedule_sub_orchestration("kid", 3)
        return [a, b, c]

    w.versioned("kid", "1.0.0", old)
    w.versioned("kid", "2.0.0", new)
    w.flows(flow)
    return lambda: w.run("flow")


# ── values and texts ──


def mixed_values_between_instances(w: World) -> Driver:
    """One instance reads what another has stored, before and after it is there."""

    def other(ctx: Any, input: Any) -> Any:
        ctx.set_kv_value("shared", "é✓")
        yield ctx.wait_for_event("end")

    def flow(ctx: Any, input: Any) -> Any:
        none = yield ctx.get_kv_value_from_instance("nobody", "shared")
        there = yield ctx.get_kv_value_from_instance("other", "shared")
        missing = yield ctx.get_kv_value_from_instance("other", "nothing")
        return [none, there, missing]

    def drive() -> None:
        w.start("other", "other")
        w.seen("other", "ExternalSubscribed")
        w.run("flow")
        w.emit("other", "end")
        w.wait("other")

    w.flows(flow, other)
    return drive


def mixed_values_cleared_and_set_again(w: World) -> Driver:
    """Set, clear, clear all and set in one turn and over two."""

    def flow(ctx: Any, input: Any) -> Any:
        for key in ("a", "b", "c"):
            ctx.set_kv_value(key, key)
        ctx.clear_kv_value("a")
        yield ctx.schedule_timer(1)
        ctx.clear_all_kv_values()
        ctx.set_kv_value("d", "d")
        ctx.set_kv_value("b", "again")
        yield ctx.schedule_activity("echo", sorted(ctx.get_kv_all_keys()))
        ctx.clear_kv_value("d")
        return ctx.get_kv_all_values()

    w.flows(flow)
    return lambda: w.run("flow")


def mixed_names_of_all_kinds(w: World) -> Driver:
    """Spaces, quotes, other alphabets and SQL in ids and names are names."""
    odd = "a b'c\"d;--%_/\\✓é"

    def flow(ctx: Any, input: Any) -> Any:
        event = yield ctx.wait_for_event(odd)
        message = yield ctx.dequeue_event(odd)
        ctx.set_kv_value(odd, odd)
        ctx.set_custom_status(odd)
        child = yield ctx.schedule_sub_orchestration_with_id("kid", f"kid {odd}", odd)
        return [event, message, child]

    def kid(ctx: Any, text: str) -> Any:
        return (yield ctx.schedule_activity("echo", text))

    def drive() -> None:
        w.start(odd, "flow", odd)
        w.seen(odd, "ExternalSubscribed")
        w.emit(odd, odd, odd)
        w.seen(odd, "QueueSubscribed")
        w.enqueue(odd, odd, odd)
        w.wait(odd)

    w.flows(flow, kid)
    return drive


def mixed_long_names(w: World) -> Driver:
    """An id of 500 characters and an event name of 1,000."""

    def flow(ctx: Any, input: Any) -> Any:
        return (yield ctx.wait_for_event("e" * 1_000))

    def drive() -> None:
        w.start("i" * 500, "flow")
        w.seen("i" * 500, "ExternalSubscribed")
        w.emit("i" * 500, "e" * 1_000, 1)
        w.wait("i" * 500)

    w.flows(flow)
    return drive


def mixed_results_of_all_types(w: World) -> Driver:
    """What JSON holds comes through a direct yield as it went."""

    def flow(ctx: Any, input: Any) -> Any:
        found = []
        for value in (None, True, 0, -1, 2**53 + 1, 1e300, 0.1, "", "null", "12", "\u2028", [], {}, {"b": [1, {"a": None}]}, [[[]]]):
            back = yield ctx.schedule_activity("echo", value)
            found.append(back == value and type(back) is type(value))
        return found

    w.flows(flow)
    return lambda: w.run("flow")


def mixed_output_of_all_types(w: World) -> Driver:
    """Outputs of instances: nothing, numbers, texts that look like JSON."""

    def flow(ctx: Any, which: int) -> Any:
        yield ctx.schedule_timer(0)
        return [None, 0, "", "null", "[1]", {"k": [1.5]}, 10**20][which]

    def drive() -> None:
        for n in range(7):
            w.run("flow", n, f"i{n}")

    w.flows(flow)
    return drive


# ── code ──


def mixed_helpers_with_yield_from(w: World) -> Driver:
    """Steps in functions of their own, called with `yield from`, and a helper that catches."""

    def double(ctx: Any, n: int) -> Any:
        return (yield ctx.schedule_activity("add", [n, n]))

    def careful(ctx: Any, n: int) -> Any:
        try:
            yield ctx.schedule_activity("boom", n)
        except Exception:
            return (yield from double(ctx, n))

    def flow(ctx: Any, n: int) -> Any:
        a = yield from double(ctx, n)
        b = yield from careful(ctx, a)
        return [a, b]

    w.flows(flow)
    return lambda: w.run("flow", 5)


def mixed_finally_that_yields(w: World) -> Driver:
    """A `finally` that does a step, after a failure and after a return."""

    def flow(ctx: Any, fails: bool) -> Any:
        try:
            if fails:
                yield ctx.schedule_activity("boom", 1)
            return "ended"
        finally:
            yield ctx.schedule_activity("echo", "cleaned")

    def drive() -> None:
        w.run("flow", False)
        w.run("flow", True, "j")

    w.flows(flow)
    return drive


def mixed_exception_from_another(w: World) -> Driver:
    """`raise ... from`: the cause is in the text."""

    def flow(ctx: Any, input: Any) -> Any:
        try:
            yield ctx.schedule_activity("echo", 1)
            raise KeyError("inner")
        except KeyError as inner:
            raise RuntimeError("outer") from inner

    w.flows(flow)
    return lambda: w.run("flow")


def mixed_loop_until_an_activity_says_so(w: World) -> Driver:
    """Polling: an activity and a timer until the answer is there."""

    def flow(ctx: Any, input: Any) -> Any:
        tries = 0
        while True:
            tries += 1
            try:
                found = yield ctx.schedule_activity("flaky", {"key": "poll", "fail": 3})
                return [tries, found]
            except Exception:
                yield ctx.schedule_timer(1)

    w.flows(flow)
    return lambda: w.run("flow")


def mixed_saga(w: World) -> Driver:
    """Steps, a failure, compensations in reverse order."""

    def flow(ctx: Any, input: Any) -> Any:
        undo: list[str] = []
        try:
            for name in ("hotel", "flight"):
                yield ctx.schedule_activity("echo", f"book {name}")
                undo.append(name)
            yield ctx.schedule_activity("boom", "car")
        except Exception as error:
            for name in reversed(undo):
                yield ctx.schedule_activity("echo", f"cancel {name}")
            return ["undone", str(error)]

    w.flows(flow)
    return lambda: w.run("flow")


def mixed_approval(w: World) -> Driver:
    """A person's answer in a race with a limit, and the next one asked after a refusal."""

    def flow(ctx: Any, people: list[str]) -> Any:
        for person in people:
            ctx.set_custom_status(f"waiting for {person}")
            won = yield ctx.race(ctx.wait_for_event(f"answer of {person}"), ctx.schedule_timer(3_600_000))
            if won["index"] == 0 and won["value"] == "yes":
                return person
        return None

    def drive() -> None:
        w.start("i", "flow", ["Ada", "Grace"])
        w.seen("i", "ExternalSubscribed")
        w.emit("i", "answer of Ada", "no")
        w.seen("i", "ExternalSubscribed", 2)
        w.emit("i", "answer of Grace", "yes")
        w.wait("i")

    w.flows(flow)
    return drive


def mixed_system_calls_and_steps(w: World) -> Driver:
    """Times and GUIDs among other steps, passed on to activities."""

    def flow(ctx: Any, input: Any) -> Any:
        first = yield ctx.utc_now()
        guid = yield ctx.new_guid()
        echoed = yield ctx.schedule_activity("echo", 1)
        other = yield ctx.new_guid()
        later = yield ctx.utc_now()
        return [guid != other, type(later) is type(first) is int, len(guid), echoed]

    w.flows(flow)
    return lambda: w.run("flow")
