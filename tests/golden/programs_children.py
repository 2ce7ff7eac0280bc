"""Programs about sub-orchestrations, detached starts and versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .programs import Driver
    from .world import World


def child_results(w: World) -> Driver:
    """Ids made by the engine, explicit ids, outputs."""

    def kid(ctx: Any, input: Any) -> Any:
        yield ctx.schedule_timer(1)
        return [ctx.instance_id, input]

    def flow(ctx: Any, input: Any) -> Any:
        a = yield ctx.schedule_sub_orchestration("kid", {"n": 1})
        b = yield ctx.schedule_sub_orchestration_with_id("kid", "named-kid", 2)
        c = yield ctx.schedule_sub_orchestration("kid")
        d = yield ctx.schedule_sub_orchestration_with_id_typed("kid", "named-kid-2", "4")
        return [a, b, c, d]

    w.flows(flow, kid)
    return lambda: w.run("flow")


def child_failure(w: World) -> Driver:
    """The child's text is the parent's exception, caught once and then not."""

    def bad(ctx: Any, input: Any) -> Any:
        yield ctx.schedule_activity("boom", input)

    def flow(ctx: Any, input: Any) -> Any:
        try:
            yield ctx.schedule_sub_orchestration("bad", 1)
        except Exception as e:
            text = str(e)
            yield ctx.schedule_activity("echo", "Activity 'boom' call failed: ValueError: boom 1" in text)
        yield ctx.schedule_sub_orchestration("bad", 2)

    w.flows(flow, bad)
    return lambda: w.run("flow")


def child_tree(w: World) -> Driver:
    """Three levels, two children at once in the middle."""

    def leaf(ctx: Any, input: Any) -> Any:
        return (yield ctx.schedule_activity("echo", input))

    def middle(ctx: Any, n: int) -> Any:
        a = yield ctx.schedule_sub_orchestration("leaf", n)
        b = yield ctx.schedule_sub_orchestration("leaf", n + 1)
        return [a, b]

    def flow(ctx: Any, input: Any) -> Any:
        a = yield ctx.schedule_sub_orchestration("middle", 1)
        b = yield ctx.schedule_sub_orchestration("middle", 10)
        return [a, b]

    w.flows(flow, middle, leaf)
    return lambda: w.run("flow")


def child_plain_function(w: World) -> Driver:
    """A child that is no generator ends in its first turn."""

    def kid(ctx: Any, input: Any) -> Any:
        return input + 1

    def flow(ctx: Any, input: Any) -> Any:
        n = 0
        for _ in range(3):
            n = yield ctx.schedule_sub_orchestration("kid", n)
        return n

    w.flows(flow, kid)
    return lambda: w.run("flow")


def child_collisions(w: World) -> Driver:
    """Ids that are taken, by a running and by a finished instance, and the parent's own."""

    def other(ctx: Any, input: Any) -> Any:
        return (yield ctx.wait_for_event("end"))

    def flow(ctx: Any, input: Any) -> Any:
        out = []
        for taken in ("busy", "done", ctx.instance_id, "sub::mine"):
            try:
                out.append((yield ctx.schedule_sub_orchestration_with_id("other", taken, 1)))
            except Exception as e:
                out.append(str(e))
        return out

    def drive() -> None:
        for instance in ("busy", "done"):
            w.start(instance, "other")
            w.seen(instance, "ExternalSubscribed")
        w.emit("done", "end", 1)
        w.wait("done")
        w.run("flow")
        w.emit("busy", "end", 2)
        w.wait("busy")

    w.flows(flow, other)
    return drive


def child_versions(w: World) -> Driver:
    """The latest version unless one is named; the version is in the child's history only."""

    def kid_1(ctx: Any, input: Any) -> Any:
        return ["1.0.0", ctx.orchestration_version, input]

    def kid_2(ctx: Any, input: Any) -> Any:
        return ["2.1.0", ctx.orchestration_version, input]

    def flow(ctx: Any, input: Any) -> Any:
        a = yield ctx.schedule_sub_orchestration("kid", "a")
        b = yield ctx.schedule_sub_orchestration_versioned("kid", "1.0.0", "b")
        c = yield ctx.schedule_sub_orchestration_versioned("kid", None, "c")
        d = yield ctx.schedule_sub_orchestration_versioned_with_id("kid", "1.0.0", "kid-d", "d")
        return [a, b, c, d]

    w.versioned("kid", "1.0.0", kid_1)
    w.versioned("kid", "2.1.0", kid_2)
    w.flows(flow)
    return lambda: w.run("flow")


def child_continues_as_new(w: World) -> Driver:
    """The parent gets what the child's last execution returns."""

    def kid(ctx: Any, n: int) -> Any:
        yield ctx.schedule_timer(1)
        if n:
            yield ctx.continue_as_new(n - 1)
        return [ctx.execution_id, n]

    def flow(ctx: Any, input: Any) -> Any:
        a = yield ctx.schedule_sub_orchestration("kid", 2)
        b = yield ctx.schedule_activity("echo", "after")
        return [a, b]

    w.flows(flow, kid)
    return lambda: w.run("flow")


def child_of_a_later_execution(w: World) -> Driver:
    """Children of the second execution have its number in their ids."""

    def kid(ctx: Any, input: Any) -> Any:
        return ctx.instance_id

    def flow(ctx: Any, seen: list[str]) -> Any:
        seen.append((yield ctx.schedule_sub_orchestration("kid")))
        if len(seen) < 3:
            yield ctx.continue_as_new(seen)
        return seen

    w.flows(flow, kid)
    return lambda: w.run("flow", [])


def child_unknown(w: World) -> Driver:
    """A child that nobody registered is poison; it fails the parent past its `except`."""
    w.options["max_attempts"] = 1

    def flow(ctx: Any, input: Any) -> Any:
        try:
            yield ctx.schedule_sub_orchestration("nobody_has_this", 1)
        except Exception as e:
            return f"caught {e}"

    w.flows(flow)
    return lambda: w.run("flow")


def child_nondeterminism(w: World) -> Driver:
    """A child that fails by nondeterminism takes the parent with it."""

    def kid(ctx: Any, input: Any) -> Any:
        yield ctx.wait_for_event("a")
        yield ctx.schedule_timer(1)

    def changed(ctx: Any, input: Any) -> Any:
        yield ctx.dequeue_event("a")

    def flow(ctx: Any, input: Any) -> Any:
        try:
            yield ctx.schedule_sub_orchestration_with_id("kid", "kid-1")
        except Exception as e:
            return f"caught {e}"

    def drive() -> None:
        w.start("i", "flow")
        w.seen("kid-1", "ExternalSubscribed")
        w.pause()
        changed.__name__ = "kid"
        w.flows(changed)
        w.emit("kid-1", "a", 1)
        w.resume()
        w.wait("kid-1", "i")

    w.flows(flow, kid)
    return drive


def children_of_a_cancelled_parent(w: World) -> Driver:
    """The cancel goes down the tree, children first scheduled first."""

    def leaf(ctx: Any, input: Any) -> Any:
        yield ctx.wait_for_event("never")

    def middle(ctx: Any, input: Any) -> Any:
        yield ctx.schedule_sub_orchestration("leaf", input)

    def flow(ctx: Any, input: Any) -> Any:
        yield ctx.all([ctx.schedule_sub_orchestration("middle", 1), ctx.schedule_sub_orchestration_with_id("leaf", "leaf-2", 2)])

    def drive() -> None:
        w.start("i", "flow")
        w.seen("i::sub::2::sub::2", "ExternalSubscribed")
        w.seen("leaf-2", "ExternalSubscribed")
        w.cancel("i", "all of you")
        w.wait("i", "i::sub::2", "i::sub::2::sub::2", "leaf-2")

    w.flows(flow, middle, leaf)
    return drive


def child_cancelled_from_outside(w: World) -> Driver:
    """A child that a client cancels is an error for the parent, and one that it can catch."""

    def kid(ctx: Any, input: Any) -> Any:
        yield ctx.wait_for_event("never")

    def flow(ctx: Any, input: Any) -> Any:
        try:
            yield ctx.schedule_sub_orchestration("kid")
        except Exception as e:
            return str(e)

    def drive() -> None:
        w.start("i", "flow")
        w.seen("i::sub::2", "ExternalSubscribed")
        w.cancel("i::sub::2", "only you")
        w.wait("i")

    w.flows(flow, kid)
    return drive


# ── detached starts ──


def detached(w: World) -> Driver:
    """Starts that nobody waits for; one of an id that exists does nothing."""

    def other(ctx: Any, input: Any) -> Any:
        yield ctx.schedule_timer(1)
        return ["other", input]

    def flow(ctx: Any, input: Any) -> Any:
        a = yield ctx.start_orchestration("other", "d-1", {"n": 1})
        b = yield ctx.start_orchestration("other", "d-1", "again")
        c = yield ctx.start_orchestration_typed("other", "d-2", "5")
        yield ctx.schedule_timer(1)
        return [a, b, c]

    def drive() -> None:
        w.run("flow")
        w.wait("d-1", "d-2")

    w.flows(flow, other)
    return drive


def detached_in_the_last_turn(w: World) -> Driver:
    """A detached start takes effect although the starter ends in the same turn, by failing too."""

    def other(ctx: Any, input: Any) -> Any:
        return input

    def flow(ctx: Any, fails: bool) -> Any:
        yield ctx.start_orchestration("other", "after-failure" if fails else "after-success", 1)
        if fails:
            raise ValueError("planned")
        return "done"

    def drive() -> None:
        w.run("flow", False)
        w.run("flow", True, "j")
        w.wait("after-success", "after-failure")

    w.flows(flow, other)
    return drive


def detached_versions(w: World) -> Driver:
    """Detached starts of a named version and of the latest."""

    def other_1(ctx: Any, input: Any) -> Any:
        return ["one", ctx.orchestration_version]

    def other_2(ctx: Any, input: Any) -> Any:
        return ["two", ctx.orchestration_version]

    def flow(ctx: Any, input: Any) -> Any:
        yield ctx.start_orchestration_versioned("other", "1.0.0", "d-1", 1)
        yield ctx.start_orchestration("other", "d-2", 2)

    def drive() -> None:
        w.run("flow")
        w.wait("d-1", "d-2")

    w.versioned("other", "1.0.0", other_1)
    w.versioned("other", "1.1.0", other_2)
    w.flows(flow)
    return drive


def detached_reserved_id(w: World) -> Driver:
    """A detached id with the reserved marker is a panic."""

    def flow(ctx: Any, id: str) -> Any:
        try:
            yield ctx.start_orchestration("flow", id, "x")
        except Exception as e:
            return f"caught {e}"

    def drive() -> None:
        w.run("flow", "sub::x")
        w.run("flow", "a::sub::2", "j")

    w.flows(flow)
    return drive


def detached_then_continue_as_new(w: World) -> Driver:
    """The reference records the start in a turn that continues as new, and loses it."""

    def other(ctx: Any, input: Any) -> Any:
        return ["other", input]

    def flow(ctx: Any, n: int) -> Any:
        if n:
            yield ctx.start_orchestration("other", "lost", n)
            yield ctx.continue_as_new(n - 1)
        yield ctx.schedule_timer(20)
        return "end"

    w.flows(flow, other)
    return lambda: w.run("flow", 1)


# ── versions ──


def versions(w: World) -> Driver:
    """A start takes the latest version, or the one it names; unknown ones are poison."""
    w.options["max_attempts"] = 1

    def one(ctx: Any, input: Any) -> Any:
        yield ctx.schedule_timer(1)
        return ["one", ctx.orchestration_version]

    def two(ctx: Any, input: Any) -> Any:
        yield ctx.schedule_timer(1)
        return ["two", ctx.orchestration_version]

    def drive() -> None:
        w.run("flow", instance="latest")
        w.start("pinned", "flow", None, "1.0.0")
        w.start("exact", "flow", None, "1.10.0")
        w.wait("pinned", "exact")
        w.start("missing", "flow", None, "9.9.9")
        w.wait("missing")

    w.versioned("flow", "1.0.0", one)
    w.versioned("flow", "1.9.0", one)
    w.versioned("flow", "1.10.0", two)
    return drive


def duplicate_starts(w: World) -> Driver:
    """A second start of an id is ignored: while it waits to run, while it runs and when it is over."""

    def flow(ctx: Any, input: Any) -> Any:
        e = yield ctx.wait_for_event("go")
        return ["flow", input, e]

    def other(ctx: Any, input: Any) -> Any:
        return ["other", input]

    def drive() -> None:
        w.pause()
        w.start("i", "flow", 1)
        w.start("i", "other", 2)
        w.resume()
        w.seen("i", "ExternalSubscribed")
        w.start("i", "other", 3)
        w.pause()
        w.start("i", "other", 4)
        w.emit("i", "go", "e")
        w.resume()
        w.wait("i")
        w.start("i", "other", 5)
        w.run("other", 6, "marker")

    w.flows(flow, other)
    return drive
