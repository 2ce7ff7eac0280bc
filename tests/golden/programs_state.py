"""Programs about what an instance keeps: continue-as-new and its carry, KV, custom status, and their limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .programs import Driver
    from .world import World


def continue_as_new(w: World) -> Driver:
    """Three executions, each with a history of its own."""

    def flow(ctx: Any, n: int) -> Any:
        got = yield ctx.schedule_activity("echo", n)
        if n < 2:
            return (yield ctx.continue_as_new(n + 1))
        return [got, ctx.execution_id]

    w.flows(flow)
    return lambda: w.run("flow", 0)


def continue_as_new_at_once(w: World) -> Driver:
    """Without any other step."""

    def flow(ctx: Any, n: int) -> Any:
        if n:
            yield ctx.continue_as_new(n - 1)
        return ctx.execution_id

    w.flows(flow)
    return lambda: w.run("flow", 4)


def continue_as_new_not_yielded(w: World) -> Driver:
    """A continue-as-new that is returned, not yielded, is an ordinary output; one that is dropped does nothing."""

    def flow(ctx: Any, n: int) -> Any:
        ctx.continue_as_new("dropped")
        yield ctx.schedule_timer(1)
        return ctx.continue_as_new(n + 1)

    w.flows(flow)
    return lambda: w.run("flow", 1)


def continue_as_new_carries_queue(w: World) -> Driver:
    """Unread messages go on to the next execution, in order; events do not."""

    def flow(ctx: Any, state: dict[str, Any]) -> Any:
        state["got"].append((yield ctx.dequeue_event("q")))
        if len(state["got"]) < 4:
            yield ctx.continue_as_new(state)
        other = yield ctx.dequeue_event("other")
        return [state, other]

    def drive() -> None:
        w.start("i", "flow", {"got": []})
        w.seen("i", "QueueSubscribed")
        w.pause()
        w.enqueue("i", "other", "kept")
        for n in range(4):
            w.enqueue("i", "q", n)
        w.emit("i", "go", "lost")
        w.resume()
        w.wait("i")

    w.flows(flow)
    return drive


def continue_as_new_after_lost_dequeue(w: World) -> Driver:
    """A message that a cancelled dequeue did not take is carried."""

    def flow(ctx: Any, first: bool) -> Any:
        if first:
            a = yield ctx.race(ctx.wait_for_event("go"), ctx.dequeue_event("q"))
            yield ctx.continue_as_new(False)
        return [(yield ctx.dequeue_event("q")), (yield ctx.dequeue_event("q"))]

    def drive() -> None:
        w.start("i", "flow", True)
        w.seen("i", "QueueSubscribed")
        w.pause()
        w.emit("i", "go", 1)
        w.enqueue("i", "q", "m1")
        w.enqueue("i", "q", "m2")
        w.resume()
        w.wait("i")

    w.flows(flow)
    return drive


def continue_as_new_carry_limit(w: World) -> Driver:
    """At most a hundred unread messages cross; the newest are dropped."""

    def flow(ctx: Any, first: bool) -> Any:
        if first:
            yield ctx.wait_for_event("go")
            yield ctx.continue_as_new(False)
        last = None
        for n in range(99):
            last = yield ctx.dequeue_event("q")
            if n == 50:
                yield ctx.schedule_timer(1)
        yield ctx.schedule_timer(1)
        final = yield ctx.dequeue_event("q")
        more = yield ctx.race(ctx.dequeue_event("q"), ctx.schedule_timer(20))
        return [last, final, more]

    def drive() -> None:
        w.start("i", "flow", True)
        w.seen("i", "ExternalSubscribed")
        w.pause()
        for n in range(104):
            w.enqueue("i", "q", n)
        w.emit("i", "go")
        w.resume()
        w.wait("i")

    w.flows(flow)
    return drive


def continue_as_new_versions(w: World) -> Driver:
    """Without a version the next execution takes the latest; with one, that."""

    def one(ctx: Any, path: list[str]) -> Any:
        path.append(ctx.orchestration_version)
        yield ctx.schedule_timer(1)
        if len(path) == 1:
            yield ctx.continue_as_new_versioned(path, "1.0.0")
        yield ctx.continue_as_new(path)

    def two(ctx: Any, path: list[str]) -> Any:
        path.append(ctx.orchestration_version)
        yield ctx.schedule_timer(1)
        if len(path) == 3:
            yield ctx.continue_as_new_versioned(path, None)
        return path

    def drive() -> None:
        w.start("i", "flow", [], "1.0.0")
        w.wait("i")

    w.versioned("flow", "1.0.0", one)
    w.versioned("flow", "2.0.0", two)
    return drive


def continue_as_new_keeps_state(w: World) -> Driver:
    """Custom status, its version and KV go on; a status that the new execution sets is its own."""

    def flow(ctx: Any, n: int) -> Any:
        found = [ctx.get_custom_status(), sorted(ctx.get_kv_all_values().items())]
        ctx.set_kv_value(f"k{n}", n)
        if n == 1:
            ctx.clear_kv_value("k0")
        if n < 3:
            if n != 1:
                ctx.set_custom_status(f"s{n}")
            yield ctx.schedule_activity("echo", found)
            yield ctx.continue_as_new(n + 1)
        return found

    w.flows(flow)
    return lambda: w.run("flow", 0)


def continue_as_new_late_completion(w: World) -> Driver:
    """A timer of the first execution fires in the second: it is ignored."""

    def flow(ctx: Any, n: int) -> Any:
        if n == 0:
            yield ctx.race(ctx.schedule_timer(200), ctx.schedule_activity("echo", 1))
            yield ctx.continue_as_new(1)
        yield ctx.schedule_timer(400)
        return (yield ctx.schedule_activity("echo", "after"))

    w.flows(flow)
    return lambda: w.run("flow", 0)


def continue_as_new_cancelled(w: World) -> Driver:
    """A cancel reaches the current execution."""

    def flow(ctx: Any, n: int) -> Any:
        if n == 0:
            yield ctx.continue_as_new(1)
        yield ctx.wait_for_event("never")

    def drive() -> None:
        w.start("i", "flow", 0)
        w.seen("i", "ExternalSubscribed", 1, execution=2)
        w.cancel("i", "second time")
        w.wait("i")

    w.flows(flow)
    return drive


# ── KV ──


def kv_basics(w: World) -> Driver:
    """Set, overwrite, clear, clear all; the code sees its own writes at once."""

    def flow(ctx: Any, input: Any) -> Any:
        out: list[Any] = [ctx.get_kv_value("a"), ctx.get_kv_length()]
        ctx.set_kv_value("b", 2)
        ctx.set_kv_value("a", {"x": 1})
        ctx.set_kv_value("b", "two")
        out += [ctx.get_kv_all_keys(), ctx.get_kv_value("b")]
        yield ctx.schedule_activity("echo", 1)
        ctx.clear_kv_value("b")
        ctx.clear_kv_value("never set")
        out += [ctx.get_kv_all_values(), ctx.get_kv_length()]
        yield ctx.schedule_timer(1)
        ctx.clear_all_kv_values()
        ctx.set_kv_value("c", "")
        ctx.set_kv_value("grüß ✓", '"\\')
        out += [ctx.get_kv_all_keys(), ctx.get_kv_value("a"), ctx.get_kv_value("c")]
        return out

    w.flows(flow)
    return lambda: w.run("flow")


def kv_across_executions(w: World) -> Driver:
    """What earlier executions wrote is there, until it is overwritten or cleared."""

    def flow(ctx: Any, n: int) -> Any:
        before = ctx.get_kv_all_keys()
        if n == 0:
            for k in "abc":
                ctx.set_kv_value(k, k * 3)
        if n == 1:
            ctx.clear_kv_value("a")
            ctx.set_kv_value("b", "new")
        if n == 2:
            ctx.clear_all_kv_values()
            ctx.set_kv_value("d", "only")
        yield ctx.schedule_activity("echo", before)
        if n < 3:
            yield ctx.continue_as_new(n + 1)
        return before

    w.flows(flow)
    return lambda: w.run("flow", 0)


def kv_counter(w: World) -> Driver:
    """Read, add, write: safe under replay."""

    def flow(ctx: Any, input: Any) -> Any:
        for _ in range(5):
            ctx.set_kv_value("n", int(ctx.get_kv_value("n") or 0) + 1)
            yield ctx.schedule_activity("echo", ctx.get_kv_value("n"))
        return ctx.get_kv_value("n")

    w.flows(flow)
    return lambda: w.run("flow")


def kv_prune(w: World) -> Driver:
    """Everything older than the cutoff goes, a clear per key in the order of the keys; nothing if it is long ago."""

    def flow(ctx: Any, first: bool) -> Any:
        if first:
            for key in "cab":
                ctx.set_kv_value(key, key)
            kept = ctx.prune_kv_values_updated_before(0)
            yield ctx.schedule_timer(1)
            yield ctx.continue_as_new(False)
        kept = ctx.prune_kv_values_updated_before(0)
        gone = ctx.prune_kv_values_updated_before(1 << 60)
        again = ctx.prune_kv_values_updated_before(1 << 60)
        return [kept, gone, again, ctx.get_kv_all_keys()]

    w.flows(flow)
    return lambda: w.run("flow", True)


def kv_of_a_failed_run(w: World) -> Driver:
    """What was written stays when the orchestration fails or is cancelled."""

    def flow(ctx: Any, input: Any) -> Any:
        ctx.set_kv_value("k", "v")
        yield ctx.schedule_timer(1)
        ctx.set_kv_value("l", "w")
        if input == "fail":
            raise ValueError("planned")
        yield ctx.wait_for_event("never")

    def drive() -> None:
        w.run("flow", "fail")
        w.start("j", "flow", "wait")
        w.seen("j", "ExternalSubscribed")
        w.cancel("j", "stop")
        w.wait("j")

    w.flows(flow)
    return drive


def kv_too_many_keys(w: World) -> Driver:
    """150 keys are allowed, one more fails the orchestration."""

    def flow(ctx: Any, n: int) -> Any:
        for k in range(n):
            ctx.set_kv_value(f"k{k}", "")
        return n

    def drive() -> None:
        w.run("flow", 150)
        w.run("flow", 151, "j")

    w.flows(flow)
    return drive


def kv_value_too_large(w: World) -> Driver:
    """65,536 bytes are allowed, counted in UTF-8."""

    def flow(ctx: Any, n: int) -> Any:
        ctx.set_kv_value("big", "x" * n)
        return n

    def wide(ctx: Any, n: int) -> Any:
        ctx.set_kv_value("big", "ü" * n)
        return n

    def drive() -> None:
        w.run("flow", 65536)
        w.run("flow", 65537, "j")
        w.run("wide", 32769, "k")

    w.flows(flow, wide)
    return drive


# ── custom status ──


def custom_status(w: World) -> Driver:
    """Set, reset, read back; any object through `str`; one version a turn that wrote."""

    def flow(ctx: Any, input: Any) -> Any:
        out = [ctx.get_custom_status()]
        ctx.set_custom_status("one")
        ctx.set_custom_status({"two": 2})
        out.append(ctx.get_custom_status())
        yield ctx.schedule_activity("echo", 1)
        out.append(ctx.get_custom_status())
        yield ctx.schedule_activity("echo", 2)
        ctx.reset_custom_status()
        out.append(ctx.get_custom_status())
        yield ctx.schedule_activity("echo", 3)
        ctx.set_custom_status(None)
        yield ctx.schedule_activity("echo", 4)
        return out

    w.flows(flow)
    return lambda: w.run("flow")


def custom_status_at_the_end(w: World) -> Driver:
    """A status of the last turn is published with it, of a failing one too; a reset stays."""

    def flow(ctx: Any, input: Any) -> Any:
        ctx.set_custom_status("working")
        yield ctx.schedule_timer(1)
        if input == "reset":
            ctx.reset_custom_status()
        else:
            ctx.set_custom_status(f"last {input}")
        if input == "fail":
            raise ValueError("planned")

    def drive() -> None:
        w.run("flow", "done")
        w.run("flow", "fail", "j")
        w.run("flow", "reset", "k")

    w.flows(flow)
    return drive


def custom_status_too_large(w: World) -> Driver:
    """262,144 bytes are allowed; only the last of a turn counts."""

    def flow(ctx: Any, n: int) -> Any:
        ctx.set_custom_status("x" * n)
        return n

    def corrected(ctx: Any, n: int) -> Any:
        ctx.set_custom_status("x" * n)
        ctx.set_custom_status("small")
        return (yield ctx.schedule_activity("echo", n))

    def drive() -> None:
        w.run("flow", 262144)
        w.run("flow", 262145, "j")
        w.run("corrected", 262145, "k")

    w.flows(flow, corrected)
    return drive


def tag_too_long(w: World) -> Driver:
    """A tag has at most 256 bytes."""
    w.options["worker_tag_filter"] = w.sdk.TagFilter.ANY

    def flow(ctx: Any, n: int) -> Any:
        return (yield ctx.schedule_activity("echo", n).with_tag("t" * n))

    def drive() -> None:
        w.run("flow", 256)
        w.run("flow", 257, "j")

    w.flows(flow)
    return drive


def large_values(w: World) -> Driver:
    """Input, result, event, message and output of 20,000 characters."""

    def flow(ctx: Any, text: str) -> Any:
        a = yield ctx.schedule_activity("echo", text)
        b = yield ctx.wait_for_event("e")
        c = yield ctx.dequeue_event("q")
        return a + b + c

    def drive() -> None:
        w.start("i", "flow", "a" * 20_000)
        w.seen("i", "ExternalSubscribed")
        w.emit("i", "e", "b" * 20_000)
        w.seen("i", "QueueSubscribed")
        w.enqueue("i", "q", "c" * 20_000)
        w.wait("i")

    w.flows(flow)
    return drive
