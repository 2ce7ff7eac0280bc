"""Programs about what goes wrong in an orchestration: exceptions, yields of nonsense, outputs that are no JSON, changed code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .programs import Driver
    from .world import World


def plain_functions(w: World) -> Driver:
    """An orchestration need not be a generator."""

    def value(ctx: Any, input: Any) -> Any:
        return {"got": input}

    def nothing(ctx: Any, input: Any) -> Any:
        return None

    def fails(ctx: Any, input: Any) -> Any:
        raise KeyError(input)

    def unserialisable(ctx: Any, input: Any) -> Any:
        return {"x": object()}

    class Callable_:
        __name__ = "callable_"

        def __call__(self, ctx: Any, input: Any) -> Any:
            return "called"

    def iterates(ctx: Any, input: Any) -> Any:
        return iter([1])

    def drive() -> None:
        for name in ("value", "nothing", "fails", "unserialisable", "callable_", "iterates"):
            w.run(name, "in", name)

    w.flows(value, nothing, fails, unserialisable, Callable_(), iterates)
    return drive


def generator_errors(w: World) -> Driver:
    """Exceptions at the first step, at a later one, chained, with notes; the text is the whole traceback."""

    def first(ctx: Any, input: Any) -> Any:
        raise ValueError("at once")
        yield

    def later(ctx: Any, input: Any) -> Any:
        yield ctx.schedule_timer(1)
        raise LookupError("later: grüß ✓")

    def chained(ctx: Any, input: Any) -> Any:
        yield ctx.schedule_timer(1)
        try:
            {}["missing"]
        except KeyError as e:
            raise RuntimeError("chained") from e

    def context(ctx: Any, input: Any) -> Any:
        try:
            yield ctx.schedule_activity("boom", 1)
        except Exception:
            raise TypeError("while handling")

    def deep(ctx: Any, input: Any) -> Any:
        def inner() -> Any:
            yield ctx.schedule_timer(1)
            raise ValueError("in a nested generator")

        return (yield from inner())

    def empty_text(ctx: Any, input: Any) -> Any:
        yield ctx.schedule_timer(1)
        raise ValueError

    def drive() -> None:
        for name in ("first", "later", "chained", "context", "deep", "empty_text"):
            w.run(name, None, name)

    w.flows(first, later, chained, context, deep, empty_text)
    return drive


def generator_exits(w: World) -> Driver:
    """SystemExit and KeyboardInterrupt do not get out of the orchestration."""

    def first(ctx: Any, input: Any) -> Any:
        raise SystemExit(4)
        yield

    def later(ctx: Any, input: Any) -> Any:
        yield ctx.schedule_timer(1)
        raise SystemExit(5)

    def interrupt(ctx: Any, input: Any) -> Any:
        yield ctx.schedule_timer(1)
        raise KeyboardInterrupt

    def drive() -> None:
        for name in ("first", "later", "interrupt"):
            w.run(name, None, name)

    w.flows(first, later, interrupt)
    return drive


def generator_catches_and_finally(w: World) -> Driver:
    """try, except and finally around yields; the error of a step can be handled by further steps."""

    def flow(ctx: Any, input: Any) -> Any:
        done = []
        for kind in ("boom", "echo"):
            try:
                done.append((yield ctx.schedule_activity(kind, 1)))
            except Exception:
                done.append((yield ctx.schedule_activity("echo", "compensate")))
            else:
                done.append("else")
        return done

    w.flows(flow)
    return lambda: w.run("flow")


def unserialisable_output(w: World) -> Driver:
    """An output or an input that JSON cannot hold fails the orchestration with a traceback."""

    def output(ctx: Any, input: Any) -> Any:
        yield ctx.schedule_timer(1)
        return {1, 2}

    def step_input(ctx: Any, input: Any) -> Any:
        yield ctx.schedule_activity("echo", object())

    def caught(ctx: Any, input: Any) -> Any:
        try:
            yield ctx.schedule_activity("echo", {1})
        except TypeError as e:
            return str(e)

    def nan(ctx: Any, input: Any) -> Any:
        yield ctx.schedule_timer(1)
        return [float("inf"), {3: None}]

    def drive() -> None:
        for name in ("output", "step_input", "caught", "nan"):
            w.run(name, None, name)

    w.flows(output, step_input, caught, nan)
    return drive


NONSENSE: dict[str, Any] = {
    "none": None,
    "int": 5,
    "bool": True,
    "float": 1.5,
    "text": "hello",
    "empty_list": [],
    "list": [{"type": "timer", "delayMs": 1}],
    "empty_dict": {},
    "unknown_type": {"type": "bogus"},
    "activity_without_name": {"type": "activity", "input": "1"},
    "activity_without_input": {"type": "activity", "name": "echo"},
    "activity_name_is_int": {"type": "activity", "name": 5, "input": "1"},
    "activity_tag_is_int": {"type": "activity", "name": "echo", "input": "1", "tag": 5},
    "session_is_none": {"type": "activityWithSession", "name": "echo", "input": "1", "sessionId": None},
    "session_missing": {"type": "activityWithSession", "name": "echo", "input": "1"},
    "timer_negative": {"type": "timer", "delayMs": -1},
    "timer_float": {"type": "timer", "delayMs": 1.5},
    "timer_bool": {"type": "timer", "delayMs": True},
    "timer_text": {"type": "timer", "delayMs": "5"},
    "timer_missing": {"type": "timer"},
    "wait_without_name": {"type": "waitEvent"},
    "dequeue_without_name": {"type": "dequeueEvent"},
    "child_without_input": {"type": "subOrchestration", "name": "flow"},
    "child_without_id": {"type": "subOrchestrationWithId", "name": "flow", "input": "1"},
    "start_without_id": {"type": "orchestration", "name": "flow", "input": "1"},
    "again_without_input": {"type": "continueAsNew"},
    "retry_missing": {"type": "activityWithRetry", "name": "echo", "input": "1"},
    "retry_empty": {"type": "activityWithRetry", "name": "echo", "input": "1", "retry": {}},
    "retry_text": {"type": "activityWithRetry", "name": "echo", "input": "1", "retry": {"maxAttempts": "x"}},
    "retry_negative": {"type": "activityWithRetry", "name": "echo", "input": "1", "retry": {"maxAttempts": -1}},
    "join_without_tasks": {"type": "join"},
    "join_of_text": {"type": "join", "tasks": "x"},
    "join_of_int": {"type": "join", "tasks": [5]},
    "object": object(),
    "object_inside": {"type": "activity", "name": object(), "input": "1"},
}


def nonsense(w: World) -> Driver:
    """Every kind of thing that is no task; none of it can be caught."""

    def flow(ctx: Any, case: str) -> Any:
        try:
            yield NONSENSE[case]
        except Exception as e:
            return f"caught {e}"

    def second(ctx: Any, case: str) -> Any:
        yield ctx.schedule_timer(1)
        yield NONSENSE[case]

    def drive() -> None:
        for case in NONSENSE:
            w.start(case, "flow", case)
        w.start("second", "second", "none")
        w.wait(*NONSENSE, "second")

    w.flows(flow, second)
    return drive


def orchestration_unknown(w: World) -> Driver:
    """An orchestration that nobody registered is poison in the end."""
    w.options["max_attempts"] = 1
    return lambda: w.run("nobody_has_this", {"a": 1})


def poison_with_messages(w: World) -> Driver:
    """Messages that wait with the start are named in the poison."""
    w.options["max_attempts"] = 1

    def drive() -> None:
        w.pause()
        w.start("i", "nobody_has_this", 1)
        w.enqueue("i", "q", "m")
        w.resume()
        w.wait("i")

    return drive


def unregistered_on_the_way(w: World) -> Driver:
    """Continue-as-new to a version that nobody has."""
    w.options["max_attempts"] = 1

    def flow(ctx: Any, input: Any) -> Any:
        yield ctx.continue_as_new_versioned(2, "7.7.7")

    w.flows(flow)
    return lambda: w.run("flow", 1)


# ── code that changed under a running instance: (what it did, what it does now) ──


def _gate(ctx: Any) -> Any:
    return ctx.wait_for_event("go")


CHANGES: dict[str, tuple[Any, Any]] = {
    "activity_name": (
        lambda c: c.all([c.schedule_activity("echo", 1).with_tag("nobody"), _gate(c)]),
        lambda c: c.all([c.schedule_activity("boom", 1).with_tag("nobody"), _gate(c)]),
    ),
    "activity_input": (
        lambda c: c.all([c.schedule_activity("echo", {"a": 1}).with_tag("nobody"), _gate(c)]),
        lambda c: c.all([c.schedule_activity("echo", {"a": 'q"\n✓'}).with_tag("nobody"), _gate(c)]),
    ),
    "activity_tag": (
        lambda c: c.all([c.schedule_activity("echo", 1).with_tag("nobody"), _gate(c)]),
        lambda c: c.all([c.schedule_activity("echo", 1).with_tag("nobody else"), _gate(c)]),
    ),
    "activity_session": (
        lambda c: c.all([c.schedule_activity("echo", 1, session_id="s").with_tag("nobody"), _gate(c)]),
        lambda c: c.all([c.schedule_activity("echo", 1, session_id="t").with_tag("nobody"), _gate(c)]),
    ),
    "activity_to_timer": (
        lambda c: c.all([c.schedule_activity("echo", 1).with_tag("nobody"), _gate(c)]),
        lambda c: c.all([c.schedule_timer(5), _gate(c)]),
    ),
    "timer_to_event": (lambda c: c.all([c.schedule_timer(3_600_000), _gate(c)]), lambda c: c.all([c.wait_for_event("x"), _gate(c)])),
    "timer_length": (lambda c: c.race(c.schedule_timer(3_600_000), _gate(c)), lambda c: c.race(c.schedule_timer(7_200_000), _gate(c))),
    "event_name": (lambda c: c.all([c.wait_for_event("x"), _gate(c)]), lambda c: c.all([c.wait_for_event("y"), _gate(c)])),
    "event_to_queue": (lambda c: c.all([c.wait_for_event("x"), _gate(c)]), lambda c: c.all([c.dequeue_event("x"), _gate(c)])),
    "queue_name": (lambda c: c.all([c.dequeue_event("x"), _gate(c)]), lambda c: c.all([c.dequeue_event("y"), _gate(c)])),
    "child_name": (
        lambda c: c.all([c.schedule_sub_orchestration("idle", 1), _gate(c)]),
        lambda c: c.all([c.schedule_sub_orchestration("idle_2", 1), _gate(c)]),
    ),
    "child_input": (
        lambda c: c.all([c.schedule_sub_orchestration_with_id("idle", "child-input", 1), _gate(c)]),
        lambda c: c.all([c.schedule_sub_orchestration_with_id("idle", "child-input", 2), _gate(c)]),
    ),
    "child_id": (
        lambda c: c.race(c.schedule_sub_orchestration_with_id("idle", "child-id", 1), _gate(c)),
        lambda c: c.race(c.schedule_sub_orchestration("idle", 1), _gate(c)),
    ),
    "fewer_steps": (lambda c: c.all([_gate(c), c.wait_for_event("x")]), lambda c: c.all([_gate(c)])),
    "other_order": (
        lambda c: c.all([_gate(c), c.schedule_activity("echo", 1).with_tag("nobody")]),
        lambda c: c.all([c.schedule_activity("echo", 1).with_tag("nobody"), _gate(c)]),
    ),
}
STATE_CHANGES: dict[str, tuple[Any, Any]] = {
    "status_value": (lambda c: c.set_custom_status("x"), lambda c: c.set_custom_status("y")),
    "status_gone": (lambda c: c.set_custom_status("x"), lambda c: None),
    "status_to_kv": (lambda c: c.set_custom_status("x"), lambda c: c.set_kv_value("k", 1)),
    "kv_value": (lambda c: c.set_kv_value("k", "1"), lambda c: c.set_kv_value("k", "2")),
    "kv_key": (lambda c: c.set_kv_value("k", "1"), lambda c: c.set_kv_value("l", "1")),
    "kv_gone": (lambda c: c.set_kv_value("k", "1"), lambda c: None),
    "kv_clear_key": (lambda c: c.clear_kv_value("k"), lambda c: c.clear_kv_value("l")),
    "kv_clear_to_all": (lambda c: c.clear_kv_value("k"), lambda c: c.clear_all_kv_values()),
    "kv_all_to_set": (lambda c: c.clear_all_kv_values(), lambda c: c.set_kv_value("k", "1")),
}


def changed_code(w: World) -> Driver:
    """A step that history knows and the code no longer asks for, or the other way round; some changes are allowed."""

    def idle(ctx: Any, input: Any) -> Any:
        yield ctx.wait_for_event("never")

    def make(version: int) -> Any:
        def flow(ctx: Any, case: str) -> Any:
            if case in STATE_CHANGES:
                STATE_CHANGES[case][version](ctx)
                return (yield ctx.wait_for_event("go"))
            yield CHANGES[case][version](ctx)
            return "not reached by what waits for more than one"

        return flow

    def drive() -> None:
        for case in (*CHANGES, *STATE_CHANGES):
            w.start(case, "flow", case)
            w.seen(case, "ExternalSubscribed")
        w.seen("child-input", "ExternalSubscribed")
        w.seen("child-id", "ExternalSubscribed")
        w.pause()
        w.flows(make(1))
        for case in (*CHANGES, *STATE_CHANGES):
            w.emit(case, "go", "went")
        w.resume()
        w.wait(*CHANGES, *STATE_CHANGES, "child-id")  # its parent ends first

    w.flows(make(0), idle)
    return drive


def changed_after_a_detached_start(w: World) -> Driver:
    """Detached starts and continue-as-new against other commands."""

    def idle(ctx: Any, input: Any) -> Any:
        return input

    def make(version: int) -> Any:
        def flow(ctx: Any, case: str) -> Any:
            if case == "again":
                if version:
                    yield ctx.continue_as_new("again")
                return (yield ctx.wait_for_event("go"))
            if case != "chained_gone" or not version:
                yield ctx.start_orchestration("idle", f"{case}-2" if version else case + "-1", 1)
            return (yield ctx.wait_for_event("go"))

        return flow

    def drive() -> None:
        cases = ("chained_id", "chained_gone", "again")
        for case in cases:
            w.start(case, "flow", case)
            w.seen(case, "ExternalSubscribed")
        w.pause()
        w.flows(make(1))
        for case in cases:
            w.emit(case, "go", "went")
        w.resume()
        w.wait(*cases)

    w.flows(make(0), idle)
    return drive


def changed_race(w: World) -> Driver:
    """A race whose loser history has cancelled, and code that no longer drops it, for each kind of loser."""
    losers = {
        "activity": lambda c: c.schedule_activity("echo", 1).with_tag("nobody"),
        "child": lambda c: c.schedule_sub_orchestration("idle", 1),
        "event": lambda c: c.wait_for_event("x"),
        "queue": lambda c: c.dequeue_event("x"),
    }

    def idle(ctx: Any, input: Any) -> Any:
        yield ctx.wait_for_event("never")

    def make(version: int) -> Any:
        def flow(ctx: Any, case: str) -> Any:
            tasks = (ctx.wait_for_event("go"), losers[case](ctx))
            yield ctx.all(list(tasks)) if version else ctx.race(*tasks)
            return (yield ctx.wait_for_event("end"))

        return flow

    def drive() -> None:
        for case in losers:
            w.start(case, "flow", case)
            w.seen(case, "ExternalSubscribed")
        for case in losers:
            w.emit(case, "go", 1)
            w.seen(case, "ExternalSubscribed", 3 if case == "event" else 2)
        w.wait("child::sub::3")
        w.pause()
        w.flows(make(1))
        for case in losers:
            w.emit(case, "end", "went")
        w.resume()
        w.wait(*losers)

    w.flows(make(0), idle)
    return drive


def failure_with_open_work(w: World) -> Driver:
    """Work that was scheduled in the turn that fails is cancelled, not run."""

    def flow(ctx: Any, input: Any) -> Any:
        yield ctx.all(
            [
                ctx.schedule_activity("echo", 1).with_tag("nobody"),
                ctx.schedule_timer(3_600_000),
                ctx.schedule_activity_with_retry("echo", 2, {"max_attempts": 0}),
            ]
        )

    def later(ctx: Any, input: Any) -> Any:
        yield ctx.schedule_timer(1)
        ctx.set_kv_value("big", "x" * 70_000)
        yield ctx.all([ctx.schedule_activity("echo", 1), ctx.wait_for_event("e")])

    def drive() -> None:
        w.run("flow")
        w.run("later", None, "j")

    w.flows(flow, later)
    return drive
