"""A program is JSON: steps that an interpreter yields, one after the other. `make` draws one; `interpret` is the orchestration.

Results never hang on who is faster: a race has one member that can win, and what an `all` collects comes in its own order.
"""

from __future__ import annotations

import random
from typing import Any

Step = list[Any]
NEVER_MS = 3_600_000


def make(lots: random.Random) -> dict[str, Any]:
    """One program: the steps of one or two executions, and how it ends."""
    names = iter(range(1_000))
    executions = [[step(lots, names, 0) for _ in range(lots.randint(1, 5))] for _ in range(lots.choice((1, 1, 1, 2)))]
    return {"executions": executions, "end": lots.choice(("return", "return", "return", "raise", "cancel"))}


def step(lots: random.Random, names: Any, depth: int) -> Step:
    simple = ("echo", "fail", "retry", "timer", "event", "queue", "child", "guid", "now")
    if depth == 0:
        kind = lots.choice((*simple, "set", "set", "get", "clear", "status", "all", "all", "race", "detach", "typed"))
    else:
        kind = lots.choice([s for s in simple if s not in ("guid", "now")])
    if kind in ("all", "race"):
        count = lots.randint(1, 6) if kind == "all" else 1
        return [kind, [step(lots, names, 1) for _ in range(count)]]
    if kind == "child":
        inner = [step(lots, names, 2) for _ in range(lots.randint(1, 2))] if depth < 2 else [["echo", 1]]
        return ["child", lots.random() < 0.3, next(names), inner, lots.choice(("return", "return", "raise"))]
    if kind in ("set", "get", "clear"):
        return [kind, f"k{lots.randint(0, 2)}", lots.choice(VALUES)]
    if kind == "retry":
        return ["retry", next(names), lots.randint(0, 3), lots.randint(1, 3)]
    return [kind, lots.choice(VALUES), next(names)]


VALUES = (None, 0, -7, 1.5, True, "", "text", "é✓", [1, [2]], {"b": 1, "a": [None]}, "12", "null")


def signals(program: dict[str, Any], instance: str) -> list[tuple[str, str, str, Any]]:
    """What the driver sends, in order: (verb, instance, name, value). Events are sent when somebody waits for them."""
    found: list[tuple[str, str, str, Any]] = []

    def walk(steps: list[Step], path: str) -> None:
        for each in steps:
            if each[0] in ("event", "queue"):
                found.append((each[0], path, f"{each[0][0]}{each[2]}", each[1]))
            elif each[0] in ("all", "race"):
                walk(each[1], path)
            elif each[0] == "child":
                walk(each[3], f"{path}/{each[2]}")

    for steps in program["executions"]:
        walk(steps, instance)
    return found


def task(ctx: Any, each: Step, path: str) -> Any:
    """The descriptor of a step that can be a member of `all` or `race`."""
    kind = each[0]
    if kind == "echo":
        return ctx.schedule_activity("echo", each[1])
    if kind == "fail":
        return ctx.schedule_activity("fail", each[1])
    if kind == "retry":
        policy = {"max_attempts": each[3], "backoff": "linear"}
        return ctx.schedule_activity_with_retry("flaky", [f"{path}:{each[1]}", each[2]], policy)
    if kind == "timer":
        return ctx.schedule_timer(1)
    if kind == "event":
        return ctx.wait_for_event(f"e{each[2]}")
    if kind == "queue":
        return ctx.dequeue_event(f"q{each[2]}")
    request = {"steps": each[3], "end": each[4], "path": f"{path}/{each[2]}"}
    if each[1]:
        return ctx.schedule_sub_orchestration_with_id("child", f"{path}/{each[2]}", request)
    return ctx.schedule_sub_orchestration("child", request)


def run_steps(ctx: Any, steps: list[Step], path: str) -> Any:
    results: list[Any] = []
    for each in steps:
        kind = each[0]
        try:
            if kind == "all":
                results.append((yield ctx.all([task(ctx, member, path) for member in each[1]])))
            elif kind == "race":
                results.append((yield ctx.race(task(ctx, each[1][0], path), ctx.schedule_timer(NEVER_MS))))
            elif kind == "typed":
                results.append((yield ctx.all_typed([ctx.schedule_activity("echo", each[1])])))
            elif kind == "guid":
                guid = yield ctx.new_guid()
                results.append((yield ctx.schedule_activity("echo", guid)) == guid)
            elif kind == "now":
                now = yield ctx.utc_now()
                results.append((yield ctx.schedule_activity("echo", now)) == now)
            elif kind == "detach":
                yield ctx.start_orchestration("child", f"{path}-d{each[2]}", {"steps": [["echo", each[1]]], "end": "return", "path": path})
            elif kind == "set":
                ctx.set_kv_value(each[1], repr(each[2]))
            elif kind == "get":
                results.append(ctx.get_kv_value(each[1]))
            elif kind == "clear":
                ctx.clear_kv_value(each[1])
            elif kind == "status":
                ctx.set_custom_status(repr(each[1]))
            else:
                results.append((yield task(ctx, each, path)))
        except Exception as error:
            results.append("caught " + str(error).strip().splitlines()[-1])  # without the frames of whoever runs it
    return results


def program(ctx: Any, request: dict[str, Any]) -> Any:
    number = request["execution"]
    results = yield from run_steps(ctx, request["executions"][number], ctx.instance_id)
    results = request["results"] + [results]
    if number + 1 < len(request["executions"]):
        yield ctx.continue_as_new({**request, "execution": number + 1, "results": results})
    if request["end"] == "raise":
        raise ValueError("the end")
    if request["end"] == "cancel":
        yield ctx.wait_for_event("never")
    return results


def child(ctx: Any, request: dict[str, Any]) -> Any:
    results = yield from run_steps(ctx, request["steps"], request["path"])
    if request["end"] == "raise":
        raise ValueError("the child's end")
    return results
