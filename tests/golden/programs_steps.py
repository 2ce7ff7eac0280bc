"""Programs about single steps: activities, their errors, retries, timers, system calls, tags, sessions and typed input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .programs import Driver
    from .world import World


def activity_result(w: World) -> Driver:
    """The yield gives what the activity returned, through JSON."""

    def flow(ctx: Any, input: Any) -> Any:
        out = []
        for value in (input, None, True, 1.5, "text", "grüß ✓ \u0001", [], {"z": 1, "a": [None]}, (1, 2), 2**70):
            out.append((yield ctx.schedule_activity("echo", value)))
        return out

    w.flows(flow)
    return lambda: w.run("flow", {"b": 1, "a": 2})


def activity_default_input(w: World) -> Driver:
    """No input is None on both sides."""

    def flow(ctx: Any, input: Any) -> Any:
        got = yield ctx.schedule_activity("echo")
        return [input, got]

    w.flows(flow)
    return lambda: w.run("flow")


def activity_chain(w: World) -> Driver:
    """Twenty steps, each fed by the one before."""

    def flow(ctx: Any, n: int) -> Any:
        for _ in range(20):
            n = yield ctx.schedule_activity("add", [n, 1])
        return n

    w.flows(flow)
    return lambda: w.run("flow", 5)


def activity_failure_uncaught(w: World) -> Driver:
    """An activity's error that nobody catches fails the orchestration with a traceback."""

    def flow(ctx: Any, input: Any) -> Any:
        yield ctx.schedule_activity("echo", 1)
        yield ctx.schedule_activity("boom", input)

    w.flows(flow)
    return lambda: w.run("flow", "x")


def activity_failure_caught(w: World) -> Driver:
    """A caught error is an `Exception` with the text as its only argument."""

    def flow(ctx: Any, input: Any) -> Any:
        try:
            yield ctx.schedule_activity("boom", input)
        except Exception as e:
            again = yield ctx.schedule_activity("echo", "after")
            return [str(e), list(e.args), again]

    w.flows(flow)
    return lambda: w.run("flow", {"k": 1})


def activity_error_texts(w: World) -> Driver:
    """How each kind of Python exception reads for the orchestration."""

    def flow(ctx: Any, input: Any) -> Any:
        texts = []
        for kind in ("key", "empty", "nested", "bad_str", "exit", "interrupt", "unicode", "lines", "os"):
            try:
                yield ctx.schedule_activity("raise_kind", kind)
            except Exception as e:
                texts.append(str(e))
        return texts

    w.flows(flow)
    return lambda: w.run("flow")


def activity_unserialisable(w: World) -> Driver:
    """A result that JSON cannot hold fails the activity."""

    def flow(ctx: Any, input: Any) -> Any:
        try:
            yield ctx.schedule_activity("unserialisable")
        except Exception as e:
            return str(e)

    w.flows(flow)
    return lambda: w.run("flow")


def activity_unknown(w: World) -> Driver:
    """An activity that nobody registered is poison in the end; the orchestration cannot catch it."""
    w.options["max_attempts"] = 1

    def flow(ctx: Any, input: Any) -> Any:
        try:
            yield ctx.schedule_activity("nobody_has_this", 1)
        except Exception as e:
            return f"caught {e}"

    w.flows(flow)
    return lambda: w.run("flow")


def activity_same_descriptor_twice(w: World) -> Driver:
    """A descriptor is a value: yielding it again schedules again."""

    def flow(ctx: Any, input: Any) -> Any:
        task = ctx.schedule_activity("flaky", {"key": "same", "fail": 0})
        first = yield task
        second = yield task
        never = ctx.schedule_activity("boom", "not yielded")
        return [first, second, never["type"]]

    w.flows(flow)
    return lambda: w.run("flow")


def hand_written_descriptors(w: World) -> Driver:
    """Plain dicts with extra keys may be yielded."""

    def flow(ctx: Any, input: Any) -> Any:
        a = yield {"type": "activity", "name": "echo", "input": "[1,  2]", "extra": 1}
        b = yield {"type": "timer", "delayMs": 1, "note": None}
        return [a, b]

    w.flows(flow)
    return lambda: w.run("flow")


def typed_inputs(w: World) -> Driver:
    """The typed variants pass a text through as it is."""

    def child(ctx: Any, input: Any) -> Any:
        return [type(input).__name__, input]

    def flow(ctx: Any, input: Any) -> Any:
        out = []
        for text in ("123", '{"a":2}', "raw string", ""):
            out.append((yield ctx.schedule_activity_typed("echo", text)))
            out.append((yield ctx.schedule_sub_orchestration_typed("child", text)))
        out.append((yield ctx.schedule_activity_typed("echo", {"not": "text"})))
        return out

    w.flows(flow, child)
    return lambda: w.run("flow")


# ── retries ──


def retry_default_exhausted(w: World) -> Driver:
    """Three attempts, 100 and 200 ms apart, then the last error."""

    def flow(ctx: Any, input: Any) -> Any:
        try:
            yield ctx.schedule_activity_with_retry("flaky", {"key": "d", "fail": 9}, {})
        except Exception as e:
            return str(e)

    w.flows(flow)
    return lambda: w.run("flow")


def retry_second_attempt(w: World) -> Driver:
    """Linear backoff; the second attempt succeeds."""

    def flow(ctx: Any, input: Any) -> Any:
        return (yield ctx.schedule_activity_with_retry("flaky", {"key": "s", "fail": 1}, {"max_attempts": 4, "backoff": "linear"}))

    w.flows(flow)
    return lambda: w.run("flow")


def retry_fixed(w: World) -> Driver:
    """Fixed backoff waits one second."""

    def flow(ctx: Any, input: Any) -> Any:
        return (yield ctx.schedule_activity_with_retry("flaky", {"key": "f", "fail": 1}, {"maxAttempts": 2, "backoff": "fixed"}))

    w.flows(flow)
    return lambda: w.run("flow")


def retry_exponential_and_linear(w: World) -> Driver:
    """The named backoffs, four attempts each."""

    def flow(ctx: Any, input: Any) -> Any:
        out = []
        for backoff in ("exponential", "linear", "none"):
            policy = {"max_attempts": 3, "backoff": backoff}
            out.append((yield ctx.schedule_activity_with_retry("flaky", {"key": backoff, "fail": 2}, policy)))
        return out

    w.flows(flow)
    return lambda: w.run("flow")


def retry_once(w: World) -> Driver:
    """One attempt is no retry: no timer, the error as it is."""

    def flow(ctx: Any, input: Any) -> Any:
        yield ctx.schedule_activity_with_retry("boom", 1, {"max_attempts": 1})

    w.flows(flow)
    return lambda: w.run("flow")


def retry_timeout(w: World) -> Driver:
    """A timeout ends the whole retry at once; the attempt is cancelled."""

    def flow(ctx: Any, input: Any) -> Any:
        texts = []
        for option in ("timeout_ms", "total_timeout_ms"):
            try:
                yield ctx.schedule_activity_with_retry("echo", 1, {"max_attempts": 5, option: 20}).with_tag("nobody")
            except Exception as e:
                texts.append(str(e))
        return texts

    w.flows(flow)
    return lambda: w.run("flow")


def retry_in_time(w: World) -> Driver:
    """An attempt that beats its timeout; the timer stays behind."""

    def flow(ctx: Any, input: Any) -> Any:
        return (yield ctx.schedule_activity_with_retry("echo", "quick", {"timeout_ms": 60_000}))

    w.flows(flow)
    return lambda: w.run("flow")


def retry_fails_then_times_out(w: World) -> Driver:
    """With a timeout, a failed attempt still leads to the next one."""

    def flow(ctx: Any, input: Any) -> Any:
        policy = {"max_attempts": 3, "timeout_ms": 60_000, "backoff": "linear"}
        return (yield ctx.schedule_activity_with_retry("flaky", {"key": "t", "fail": 1}, policy))

    w.flows(flow)
    return lambda: w.run("flow")


def retry_no_attempts(w: World) -> Driver:
    """max_attempts 0 is a panic, not an error that the code could catch."""

    def flow(ctx: Any, input: Any) -> Any:
        try:
            yield ctx.schedule_activity_with_retry("echo", 1, {"max_attempts": 0})
        except Exception as e:
            return f"caught {e}"

    w.flows(flow)
    return lambda: w.run("flow")


def retry_on_session(w: World) -> Driver:
    """A retry keeps its session and its tag for every attempt."""

    def flow(ctx: Any, input: Any) -> Any:
        policy = {"max_attempts": 2, "backoff": "linear"}
        a = yield ctx.schedule_activity_with_retry_on_session("flaky", {"key": "on", "fail": 1}, policy, "sess")
        b = yield ctx.schedule_activity_with_retry("flaky", {"key": "tag", "fail": 1}, policy).with_tag("x")
        return [a, b]

    w.flows(flow)
    w.options["worker_tag_filter"] = w.sdk.TagFilter.default_and(["x"])
    return lambda: w.run("flow")


# ── timers and system calls ──


def timers(w: World) -> Driver:
    """Timers, of no length too, give None."""

    def flow(ctx: Any, input: Any) -> Any:
        out = []
        for ms in (0, 1, 20):
            out.append((yield ctx.schedule_timer(ms)))
        return out

    w.flows(flow)
    return lambda: w.run("flow")


def system_calls(w: World) -> Driver:
    """A GUID is 36 characters, the time an int in ms; both are recorded."""

    def flow(ctx: Any, input: Any) -> Any:
        guid = yield ctx.new_guid()
        other = yield ctx.new_guid()
        now = yield ctx.utc_now()
        return [len(guid), guid.count("-"), guid != other, type(now).__name__, now > 1_600_000_000_000]

    w.flows(flow)
    return lambda: w.run("flow")


def kv_of_another_instance(w: World) -> Driver:
    """The text stored by another instance, or None."""

    def writer(ctx: Any, input: Any) -> Any:
        ctx.set_kv_value("k", '{"a": 1}')
        yield ctx.wait_for_event("end")

    def flow(ctx: Any, input: Any) -> Any:
        found = yield ctx.get_kv_value_from_instance("writer-1", "k")
        missing = yield ctx.get_kv_value_from_instance("writer-1", "other")
        unknown = yield ctx.get_kv_value_from_instance("no such instance", "k")
        return [found, missing, unknown]

    def drive() -> None:
        w.start("writer-1", "writer")
        w.seen("writer-1", "ExternalSubscribed")
        w.run("flow")
        w.emit("writer-1", "end")
        w.wait("writer-1")

    w.flows(flow, writer)
    return drive


# ── tags, sessions ──


def tags(w: World) -> Driver:
    """A tag selects the worker; the activity can read it; a tag of None is no tag."""
    w.options["worker_tag_filter"] = w.sdk.TagFilter.default_and(["gpu"])

    def which(ctx: Any, input: Any) -> Any:
        return ctx.tag()

    def flow(ctx: Any, input: Any) -> Any:
        a = yield ctx.schedule_activity("which", 1).with_tag("gpu")
        b = yield ctx.schedule_activity("which", 2).with_tag(None)
        c = yield ctx.schedule_activity("which", 3)
        return [a, b, c]

    w.activity(which)
    w.flows(flow)
    return lambda: w.run("flow")


def sessions(w: World) -> Driver:
    """Activities of a session know it; an empty id is one too."""

    def where(ctx: Any, input: Any) -> Any:
        return ctx.session_id

    def flow(ctx: Any, input: Any) -> Any:
        a = yield ctx.schedule_activity("where", 1, session_id="s-1")
        b = yield ctx.schedule_activity_on_session("where", 2, "s-1")
        c = yield ctx.schedule_activity_on_session_typed("where", "raw", "s-2")
        d = yield ctx.schedule_activity_on_session("where", 4, "")
        e = yield ctx.schedule_activity("where", 5)
        return [a, b, c, d, e]

    w.activity(where)
    w.flows(flow)
    return lambda: w.run("flow")


def activity_context(w: World) -> Driver:
    """What an activity can ask about itself."""

    def about(ctx: Any, input: Any) -> Any:
        return [ctx.instance_id, ctx.execution_id, ctx.orchestration_name, ctx.orchestration_version, ctx.activity_name, ctx.is_cancelled()]

    def flow(ctx: Any, input: Any) -> Any:
        mine = [ctx.instance_id, ctx.execution_id, ctx.orchestration_name, ctx.orchestration_version]
        return [mine, (yield ctx.schedule_activity("about"))]

    w.activity(about)
    w.versioned("flow", "1.2.3", flow)
    return lambda: w.run("flow")


def activity_uses_client(w: World) -> Driver:
    """An activity starts another orchestration and waits for it."""
    w.options["orchestration_concurrency"] = 2

    def other(ctx: Any, input: Any) -> Any:
        yield ctx.schedule_timer(1)
        return input * 2

    def starts(ctx: Any, input: Any) -> Any:
        client = ctx.get_client()
        client.start_orchestration("other-1", "other", input)
        return client.wait_for_orchestration("other-1", 20_000).output

    def flow(ctx: Any, input: Any) -> Any:
        return (yield ctx.schedule_activity("starts", input))

    w.activity(starts)
    w.flows(flow, other)
    return lambda: w.run("flow", 21)
