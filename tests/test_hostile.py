"""Hostile input: whatever stands in a message, an event, an id or a payload, only the instance that is concerned fails, and says why.

What a file may be (somebody else's, truncated, a directory, read-only) is in `test_sqlite_open`, `test_adoption` and `test_inspect`.
"""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_harness import World

from duroxide.engine._replay import needs_load, run_turn
from duroxide.engine._turn import Turn, WorkResult
from duroxide.events import cancel_item, external_item, queue_item, start_item
from duroxide.storage.base import ClaimedTurn, Loaded

# ── the engine alone ─────────────────────────────────────────────────────────────────────────────────────────

ODD: list[Any] = [
    None, True, 0, -1, 1, 2, 2**31, 2**63, 10**40, 1.5, float("nan"), "", "text", "\0", "\ud800", "'; DROP TABLE history; --", "../../etc/passwd", "sub::x",
    [], [1], [["a", "b"]], [["a"]], {}, {"Application": {}}, {"Application": {"kind": "ActivityFailed"}}, {"Poison": {}}, {"x": {}}, "[" * 200,
]  # fmt: skip


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def flow(ctx: Any, value: Any) -> Any:
    ctx.set_custom_status("here")
    ctx.set_kv_value("k", "v")
    first = yield ctx.schedule_activity("echo", 1)
    yield ctx.schedule_timer(5)
    child = yield ctx.schedule_sub_orchestration("leaf", first)
    won = yield ctx.race(ctx.wait_for_event("go"), ctx.dequeue_event("queue"), ctx.schedule_timer(1_000_000))
    if won["index"] == 1:
        yield ctx.continue_as_new(child)
    return won


def leaf(ctx: Any, value: Any) -> Any:
    return value
    yield


class Engine(World):
    """Keeps every turn's inbox and the stored events, to be spoiled afterwards."""

    def __init__(self) -> None:
        super().__init__(live=False)
        self.orchestration(flow)
        self.orchestration(leaf)
        self.activity(lambda value: value)
        self.activities["echo"] = lambda value: value
        self.inboxes: list[tuple[ClaimedTurn, Loaded | None]] = []

    def turn(self, instance: str, results: Any = ()) -> None:
        row = self.rows.get(instance)
        loaded = self.load(instance) if row is not None else None
        messages = [(i, text, 1) for to, i, text in self.queue if to == instance]
        self.inboxes.append((
            ClaimedTurn(
                instance, "lease", messages, 1, row.execution_id if row else 0, len(loaded.events) if loaded else 0,
                row.name if row else None, row.version if row else None, row.status if row else None,
            ), copy.deepcopy(loaded)))  # fmt: skip
        super().turn(instance, results)


@pytest.fixture(scope="module")
def inboxes() -> list[tuple[ClaimedTurn, Loaded | None]]:
    """What the engine is given in lives that use every kind of message."""
    engine = Engine()
    for name, signal in (("a", external_item("a", "go", "1")), ("b", queue_item("b", "queue", "2")), ("c", cancel_item("c", "enough"))):
        engine.send(start_item(name, "flow", '"x"'))
        for _ in range(40):
            if engine.queue:
                engine.turn(engine.queue[0][0])
            elif engine.work:
                engine.execute(engine.work.popleft())
            elif (due := min(engine.timers, default=(1_000_000,)))[0] < 1_000_000:
                engine.timers.remove(due)
                engine.queue.append((due[2], due[1], due[3]))
        engine.send(signal, queue_item(name, "queue", "3"))
        for _ in range(10):
            if engine.queue:
                engine.turn(engine.queue[0][0])
    kinds = {next(iter(json.loads(text))) for claim, _ in engine.inboxes for _, text, _ in claim.messages}
    assert kinds >= {"StartOrchestration", "ContinueAsNew", "ActivityCompleted", "TimerFired", "SubOrchCompleted", "ExternalRaised", "QueueMessage", "CancelInstance"}
    return engine.inboxes


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a decoded JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        yield from places(below, (*path, key))


def spoiled(text: str, lots: random.Random) -> str:
    """The text with one thing wrong: a value of another kind, a field gone or renamed, cut short, nested too deep, or no JSON at all."""
    how = lots.randrange(12)
    if how == 0:
        return text[: lots.randrange(len(text) + 1)]
    if how == 1:
        return lots.choice(["", "{", "null", "5", '"x"', "[]", "{}", nested(100_000), '{"a":' * 5_000, "\ud800", "\0", '{"StartOrchestration":5}'])
    try:
        value = json.loads(text)
        *above, last = lots.choice([place for place in places(value) if place])
    except (ValueError, IndexError, RecursionError):  # spoiled already
        return text
    holder = value
    for key in above:
        holder = holder[key]
    if how == 2 and isinstance(holder, dict):
        del holder[last]
    elif how == 3 and isinstance(holder, dict):
        holder[lots.choice(["", "type", "instance", "\0"])] = holder.pop(last)
    elif how == 4:
        return json.dumps(value).replace('"x"', nested(3_000))
    else:
        holder[last] = lots.choice(ODD)
    return json.dumps(value)


def check_turn(world: World, claim: ClaimedTurn, loaded: Loaded | None, results: list[WorkResult]) -> None:
    """A turn never raises; it is given back or it commits, and then ids are dense and everything that it stores can be stored."""
    turn = Turn(claim, claim.instance, "lease", None)
    turn.results.extend(results)
    ran = run_turn(turn, loaded if needs_load(turn) else None, world, 5_000)
    assert (ran.done is None) != (ran.back is None)
    if ran.execution is not None:
        ran.execution.close()
    if ran.done is None:
        return
    stored = claim.last_event_id if ran.done.name is None else 0
    assert [id for id, _, _ in ran.done.events] == list(range(stored + 1, stored + 1 + len(ran.done.events)))
    for _, kind, text in ran.done.events:
        assert json.loads(text)["type"] == kind
    texts = [text for _, _, text in ran.done.events] + [part for message in ran.done.messages for part in message[:2]]
    texts += [ran.done.output or "", ran.done.name or "", ran.done.version or "", ran.done.parent or ""]
    for text in texts:
        text.encode()


def fuzz(inboxes: list[tuple[ClaimedTurn, Loaded | None]], seeds: range) -> None:
    world = Engine()
    for seed in seeds:
        lots = random.Random(seed)
        claim, loaded = copy.deepcopy(lots.choice(inboxes))
        world.max_attempts = lots.choice((0, 10))
        for _ in range(lots.choice((1, 1, 2))):
            if loaded is not None and loaded.events and lots.random() < 0.5:
                at = lots.randrange(len(loaded.events))
                loaded.events[at] = (loaded.events[at][0], spoiled(loaded.events[at][1], lots))
                if lots.random() < 0.1:
                    del loaded.events[lots.randrange(len(loaded.events))]
                    claim.last_event_id = loaded.events[-1][0] if loaded.events else 0
            elif claim.messages:
                at = lots.randrange(len(claim.messages))
                row, text, attempt = claim.messages[at]
                claim.messages[at] = (row, spoiled(text, lots), attempt)
        results = []
        if lots.random() < 0.2:
            results = [WorkResult(claim.instance, lots.choice((0, 1, 2)), lots.choice((-1, 1, 4, 2**40)), lots.random() < 0.5, lots.choice(['"r"', "{}", "5", "", nested(100_000)]), 1, "t")]
        try:
            check_turn(world, claim, loaded, results)
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {error!r}\n{claim}\n{loaded}\n{results}"[:6_000]) from error


def test_no_message_and_no_event_can_break_a_turn(inboxes: Any) -> None:
    fuzz(inboxes, range(3_000))


@pytest.mark.soak
def test_no_message_and_no_event_can_break_a_turn_for_long(inboxes: Any) -> None:
    fuzz(inboxes, range(10_000, 300_000))


# ── what the reference is known to do wrong ──────────────────────────────────────────────────────────────────


def test_every_known_defect_of_the_reference_is_a_row_with_a_test_that_exists() -> None:
    """D1 to D23, in docs/differences.md."""
    tests = Path(__file__).parent
    rows = [row for row in (tests.parent / "docs" / "differences.md").read_text().splitlines() if row.startswith("| ")]
    for number in range(1, 24):
        [*named] = [row.split("|")[-2] for row in rows if re.search(rf"\(D{number}\)", row)]
        assert named, f"D{number} has no row"
        for file, function in re.findall(r"(test_\w+\.py)::(test_\w+)", " ".join(named)):
            assert re.search(rf"^ *def {function}\(", (tests / file).read_text(), re.MULTILINE), f"D{number}: {file} has no {function}"
        assert re.search(r"test_\w+\.py(::test_|\[)", " ".join(named)), f"D{number} names no test"
