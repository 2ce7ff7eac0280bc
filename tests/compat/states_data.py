"""KV values, custom status, versions, system calls and odd payloads in flight."""

from __future__ import annotations

from typing import Any

from .state import State, Steps, state
from .states_trees import _says


class Waiting(State):
    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "ExternalSubscribed", round + 1)

    def release(self, i: str, round: int) -> None:
        self.w.emit(i, "go", round)


@state
class kv(Waiting):
    """KV values set, changed, cleared and read back in the same execution."""

    def flow(self, ctx: Any, round: int) -> Steps:
        ctx.set_kv_value("n", str(int(ctx.get_kv_value("n") or "0") + 1))
        ctx.set_kv_value(f"k{round}", "grüß ✓")
        ctx.set_kv_value("gone", "x")
        event = yield ctx.wait_for_event("go")
        ctx.clear_kv_value("gone")
        if round == 1:
            ctx.clear_all_kv_values()
            ctx.set_kv_value("n", "10")
        ctx.set_kv_value("n", str(int(ctx.get_kv_value("n")) + 1))
        return [event, sorted(ctx.get_kv_all_values().items()), ctx.get_kv_length()]


@state
class kv_of_another(Waiting):
    """Between two looks at the value of another instance."""

    def register(self) -> None:
        super().register()

        def keeper(ctx: Any, value: str) -> Steps:
            ctx.set_kv_value("kept", value)
            return (yield ctx.schedule_activity("echo", value))

        self.w.flows(keeper)

    def flow(self, ctx: Any, round: int) -> Steps:
        yield ctx.schedule_sub_orchestration_with_id("keeper", f"keeper {round}", f"value {round}")
        first = yield ctx.get_kv_value_from_instance(f"keeper {round}", "kept")
        event = yield ctx.wait_for_event("go")
        return [first, event, (yield ctx.get_kv_value_from_instance(f"keeper {round}", "none"))]


@state
class status(Waiting):
    """A custom status that was set, and one that was taken back."""

    def flow(self, ctx: Any, round: int) -> Steps:
        ctx.set_custom_status(f"first {round}")
        worked = yield ctx.schedule_activity("echo", round)
        if round % 2:
            ctx.reset_custom_status()
        else:
            ctx.set_custom_status(f"second {round}")
        seen = ctx.get_custom_status()
        event = yield ctx.wait_for_event("go")
        ctx.set_custom_status("third")
        return [worked, seen, event, ctx.get_custom_status()]


class Versioned(State):
    repeats = False
    version: str | None = None

    def register(self) -> None:
        for version in ("1.0.0", "1.1.0", *(f"2.{n}.0" for n in range(self.w.number))):
            self.w.versioned(self.name, version, _says(version))

    def start(self, i: str, first: int, end: int) -> None:
        self.w.start(i, self.name, first, self.version)

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "ExternalSubscribed")

    def release(self, i: str, round: int) -> None:
        self.w.emit(i, "go", round)


@state
class version_named(Versioned):
    """An instance that was started with an old version."""

    version = "1.0.0"


@state
class version_latest(Versioned):
    """An instance of what was the latest version; there are newer ones now."""


@state
class system_calls(Waiting):
    """A GUID and a time that history holds: a replay that gave others would not match the stored KV values."""

    def flow(self, ctx: Any, round: int) -> Steps:
        guid = yield ctx.new_guid()
        now = yield ctx.utc_now()
        ctx.set_kv_value("moment", f"{now}")
        yield ctx.schedule_activity("echo", [len(guid), now > 1_600_000_000_000])
        event = yield ctx.wait_for_event("go")
        return [len(guid), now > 1_600_000_000_000, ctx.get_kv_value("moment") == f"{now}", event]


@state
class odd_texts(Waiting):
    """Ids, names and payloads of all sorts."""

    alone = "odd 'text' \"✓\" ; -- %41 {0}\\"

    def flow(self, ctx: Any, round: int) -> Steps:
        worked = yield ctx.schedule_activity("echo", {"long": "ab\u20ac" * 500, "ctl": "\u0001\t\r\n\u2028", "n": [1e300, -0.0, 2**53]})
        event = yield ctx.wait_for_event("gö ✓ 'x'")
        return [worked, event]

    def release(self, i: str, round: int) -> None:
        self.w.emit(i, "gö ✓ 'x'", [["\U0001f600", None], {"": ""}])


@state
class typed(State):
    """Typed calls: a text is passed as it is."""

    order = False

    def flow(self, ctx: Any, round: int) -> Steps:
        worked = yield ctx.schedule_activity_typed("echo", '{"raw": [1, 2]}')
        event = yield ctx.wait_for_event_typed("go")
        message = yield ctx.dequeue_event_typed("q")
        return [worked, event, message, (yield ctx.all_typed([ctx.schedule_activity("echo", 1), ctx.schedule_timer(1)]))]

    def arrive(self, i: str, round: int) -> None:
        self.w.seen(i, "ExternalSubscribed", round + 1)
        self.w.emit(i, "go", {"typed": True})
        self.w.seen(i, "QueueSubscribed", round + 1)

    def release(self, i: str, round: int) -> None:
        self.w.enqueue(i, "q", "m")


@state
class thirty_steps(Waiting):
    """A longer history."""

    def flow(self, ctx: Any, round: int) -> Steps:
        total = 0
        for n in range(30):
            total = yield ctx.schedule_activity("add", [total, n])
        return [total, (yield ctx.wait_for_event("go"))]
