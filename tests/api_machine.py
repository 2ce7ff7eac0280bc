"""One program on several stores at once: whatever a user calls, in whatever order, every store answers as the model does.

Owns the worlds (a store, a client, a runtime that is stepped by hand), what a user may call, and what is compared. The first world is
the model. The doctor looks at every store after every call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from doctored import healthy
from faults.stepped import SteppedClock
from faults.stepped import Stepped as Runtime
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import duroxide
from duroxide.registry import Registry

IDS = ("a", "b", "it's; --", "d/../\N{SNOWMAN}")
MOST_STEPS = 400
Opened = Callable[[], Any]  # opens the store, or opens it again


def chain(ctx: Any, n: int) -> Any:
    guid = yield ctx.new_guid()
    ctx.set_kv_value("guid", guid)
    for k in range(n):
        ctx.set_custom_status(f"{k} of {n}")
        yield ctx.schedule_activity("echo", [k, guid])
    found = yield ctx.all_typed([ctx.schedule_activity("echo", k) for k in range(n)])
    ctx.set_kv_value("sum", str(sum(found)))
    return found


def till(ctx: Any, n: int) -> Any:
    """Two messages an execution; a message "end" ends it."""
    for _ in range(2):
        slip = yield ctx.dequeue_event("slips")
        ctx.set_kv_value("last", repr(slip))
        if slip == "end":
            return n
    yield ctx.continue_as_new(n + 1)


def waits(ctx: Any, n: int) -> Any:
    winner, _ = yield ctx.race(ctx.wait_for_event("go"), ctx.schedule_timer(1_000 + n))
    kept = yield ctx.wait_for_event("go")
    return [winner, kept]


def family(ctx: Any, n: int) -> Any:
    ctx.start_orchestration("chain", f"{ctx.instance_id}-detached", n)
    try:
        first = yield ctx.schedule_sub_orchestration("till", n)
    except Exception as error:
        first = str(error)
    second = yield ctx.schedule_sub_orchestration_with_id("chain", f"{ctx.instance_id}-child", n)
    return [first, second]


def fails(ctx: Any, n: int) -> Any:
    try:
        yield ctx.schedule_activity_with_retry("refuse", n, {"max_attempts": n, "backoff": "fixed", "base_delay_ms": 100})
    except Exception:
        if n > 1:
            raise
    ctx.clear_all_kv_values()
    return (yield ctx.utc_now())


PROGRAMS = (chain, till, waits, family, fails)


def refuse(ctx: Any, n: int) -> None:
    raise ValueError(f"no {n}")


class World:
    def __init__(self, opened: Opened, lasting: bool, schema: tuple[str, str] | None = None, depths: bool = True) -> None:
        """`lasting`: the store is on a disk, and a restart opens it again. `schema`: URL and name of one on PostgreSQL. `depths`:
        whether those of queues are compared; PostgreSQL counts what is due by the real clock."""
        self.opened, self.lasting, self.schema, self.depths, self.life = opened, lasting, schema, depths, 0
        self.native = opened()
        self.begin()

    def begin(self) -> None:
        provider, registry = duroxide.SqliteProvider(self.native), Registry()
        for program in PROGRAMS:
            registry.add_orchestration(program.__name__, None, program)
        registry.add_activity("echo", lambda ctx, value: value)
        registry.add_activity("refuse", refuse)
        self.client = duroxide.Client(provider)
        self.clock = SteppedClock(self.life)
        self.runtime = Runtime(provider, registry, self.clock)

    def restart(self) -> None:
        self.runtime.end()
        if self.lasting:
            self.native.close()
            self.native = self.opened()
        self.life += 1
        self.begin()

    def steps(self, most: int) -> bool:
        """Whether it has come to rest: three steps in which nothing happened, since what one wakes the next may take."""
        idle = 0
        for _ in range(most):
            idle = 0 if self.runtime.step() else idle + 1
            if idle == 3:
                return True
        return False

    def close(self) -> None:
        self.runtime.end()
        self.native.close()

    # ── what is compared ──

    def answer(self, call: Callable[[Any], Any]) -> Any:
        try:
            return shown(call(self.client))
        except Exception as error:
            public = next(kind for kind in type(error).__mro__ if not kind.__name__.startswith("_"))
            return public.__name__, str(error)

    def facts(self) -> Any:
        """All that a user can see, but for times of the real clock."""
        found: dict[str, Any] = {"statuses": {s: sorted(self.client.list_instances_by_status(s)) for s in ("Running", "Completed", "Failed", "ContinuedAsNew")}}
        for id in sorted(self.client.list_all_instances()):
            info = self.client.get_instance_info(id)
            found[id] = [
                shown(self.client.get_status(id)), info.orchestration_name, info.orchestration_version, info.current_execution_id, info.parent_instance_id,
                self.client.get_instance_tree(id).all_ids, [self.client.get_kv_value(id, key) for key in ("guid", "sum", "last")],
                {number: self.native.load(id, number).events for number in self.client.list_executions(id)},
            ]  # fmt: skip
        depths = shown(self.client.get_queue_depths()) if self.depths else None
        return found, depths, shown(self.client.get_system_metrics())


def shown(value: Any) -> Any:
    return dict(vars(value)) if hasattr(value, "__dict__") else value


def machine(worlds: Callable[[], list[World]]) -> type[RuleBasedStateMachine]:
    """`worlds` makes new ones, the model first."""
    ids, numbers = st.sampled_from(IDS), st.integers(0, 3)

    class ApiMachine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.worlds = worlds()

        def teardown(self) -> None:
            for world in self.worlds:
                world.close()

        def call(self, call: Callable[[Any], Any]) -> None:
            self.alike([world.answer(call) for world in self.worlds])

        def alike(self, answers: list[Any]) -> None:
            for world, answer in zip(self.worlds[1:], answers[1:]):
                assert answer == answers[0], f"{world.native.name}: {answer}, the model: {answers[0]}"

        # ── what a user may do ──

        @rule(id=ids, program=st.sampled_from([program.__name__ for program in PROGRAMS]), n=numbers)
        def start(self, id: str, program: str, n: int) -> None:
            self.call(lambda client: client.start_orchestration(id, program, n))

        @rule(n=numbers)
        def start_all(self, n: int) -> None:
            self.call(lambda client: client.start_orchestrations([(id, program.__name__, n) for id, program in zip(IDS, PROGRAMS)]))

        @rule(id=ids, data=st.sampled_from([1, "\x00", "end"]))
        def enqueue(self, id: str, data: Any) -> None:
            self.call(lambda client: client.enqueue_event(id, "slips", data))

        @rule(id=ids, n=numbers)
        def keep_a_till_busy(self, id: str, n: int) -> None:
            self.start(id, "till", n)
            for slip in range(4):
                self.enqueue(id, slip)
            self.settle()

        @rule(id=ids, name=st.sampled_from(["go", "other"]))
        def raise_event(self, id: str, name: str) -> None:
            self.call(lambda client: client.raise_event(id, name, {"said": name}))

        @rule(id=ids, reason=st.sampled_from([None, "enough"]))
        def cancel(self, id: str, reason: str | None) -> None:
            self.call(lambda client: client.cancel_instance(id, reason))

        @rule(id=ids)
        def wait(self, id: str) -> None:
            self.call(lambda client: client.wait_for_orchestration(id, 0))
            self.call(lambda client: client.wait_for_orchestration_typed(id, 0))
            self.call(lambda client: client.wait_for_kv_value(id, "sum", 0))
            self.call(lambda client: client.wait_for_status_change(id, 1, timeout_ms=0))

        @rule(id=ids, force=st.booleans())
        def delete(self, id: str, force: bool) -> None:
            self.call(lambda client: client.delete_instance(id, force))

        @rule(some=st.lists(ids, unique=True))
        def delete_bulk(self, some: list[str]) -> None:
            self.call(lambda client: client.delete_instance_bulk(duroxide.InstanceFilter(instance_ids=some)))

        @rule(id=ids, keep=st.sampled_from([None, 1, 2]))
        def prune(self, id: str, keep: int | None) -> None:
            self.call(lambda client: client.prune_executions(id, duroxide.PruneOptions(keep_last=keep)))

        # ── what time does ──

        @rule(n=st.integers(1, 5))
        def some_steps(self, n: int) -> None:
            for world in self.worlds:
                world.steps(n)

        @rule()
        def settle(self) -> None:
            rested = [world.steps(MOST_STEPS) for world in self.worlds]
            assert all(rested), f"it never comes to rest: {rested}"

        @rule(seconds=st.sampled_from([0.2, 2.0]))
        def let_time_pass(self, seconds: float) -> None:
            for world in self.worlds:
                world.clock.skipped += seconds
            self.settle()

        @rule()
        def restart(self) -> None:
            for world in self.worlds:
                world.restart()

        @invariant()
        def all_stores_show_the_same_and_are_healthy(self) -> None:
            self.alike([world.facts() for world in self.worlds])
            for world in self.worlds:
                healthy(*(world.schema or (world.native,)), now=world.clock.now())

    return ApiMachine
