"""What is measured, on which sides, how large, and what each figure is called. Owns no measuring and no text of tables.

Sizes are chosen so that a whole run takes about twenty minutes on two cores; the slow sides get less of the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

Ceilings = dict[str, float]  # operations per second of ceiling.py, by name


@dataclass(frozen=True)
class Figure:
    """One number of a workload. `more`: more is better. `ceiling`: the best value that the machine's own ceiling allows."""

    key: str
    title: str
    unit: str
    more: bool = False
    ceiling: Callable[[Ceilings], float] | None = None


@dataclass(frozen=True)
class Case:
    """One workload at one size. `sizes`: side -> size; a side without one is not asked. `rounds`: of a side, where not the usual."""

    name: str
    workload: str
    sizes: dict[str, int]
    figures: tuple[Figure, ...]
    quick: dict[str, int] = field(default_factory=dict)
    rounds: dict[str, int] = field(default_factory=dict)
    timeout_s: int = 120
    full: bool = False  # only with --full
    table: str = "sqlite"  # or "postgres", "footprint"

    def size(self, side: str, quick: bool) -> int:
        return (self.quick.get(side) or min(self.sizes[side], 40)) if quick else self.sizes[side]


# Sides. The first two tables have one column each; what a call returned from is on the disk only where `fsync` says so.
OURS, NORMAL, REFERENCE, DBOS = "ours", "ours, normal", "reference", "dbos"
SIDES = (OURS, REFERENCE, DBOS, NORMAL)
FSYNC = {OURS: "yes", NORMAL: "no", REFERENCE: "no", DBOS: "yes"}


def sizes(ours: int, reference: int | None = None, dbos: int | None = None, normal: bool = False) -> dict[str, int]:
    found = {OURS: ours, REFERENCE: reference, DBOS: dbos, NORMAL: ours if normal else None}
    return {side: size for side, size in found.items() if size}


def commits(count: float, ceilings: Ceilings) -> float:
    """ms of so many commits of one operation, one after the other."""
    return count / ceilings["step@1"] * 1e3


def asked(count: float, ceilings: Ceilings) -> float:
    """The same on a server: of the smallest transactions of one row, as pgbench does them; a step's rows where that program is not there."""
    return count / ceilings.get("pgbench@1", ceilings["step@1"]) * 1e3


ONCE = {REFERENCE: 1, DBOS: 1}


def throughput() -> list[Case]:
    steps = Figure("drain_ten", "drain: queued instances of 10 steps", "steps/s", True, lambda c: c["step@48"])
    # An instance of one step is written in two commits, and what it writes beside its step is about one more step.
    drained = Figure("drain", "drain: queued instances of 1 step", "instances/s", True, lambda c: c["step@48"] / 2)
    return [
        Case("drain", "drain", sizes(10_000, 300, 100, True), (drained,)),
        Case("drain_ten", "drain_ten", sizes(2_000, 60, 30, True), (steps,)),
        Case("processes", "processes", sizes(6_000, 300), (Figure("drain", "the same, 1 step, by 3 processes on one file", "instances/s", True),), rounds=ONCE),
        Case("starts_1", "starts_1", sizes(2_000, 1_500, 100, True), (Figure("starts", "starts from 1 thread", "starts/s", True, lambda c: c["start@1"]),)),
        Case("starts_8", "starts_8", sizes(8_000, 1_600, 160, True), (Figure("starts", "starts from 8 threads", "starts/s", True, lambda c: c["start@8"]),)),
        Case("starts_32", "starts_32", sizes(16_000, 1_600, 160, True), (Figure("starts", "starts from 32 threads", "starts/s", True, lambda c: c["start@32"]),)),
        Case("starts_bulk", "starts_bulk", sizes(20_000, None, None, True), (Figure("starts", "starts, 1,000 a call", "starts/s", True, lambda c: c["start@256"]),)),
        Case("batches", "batches", sizes(2_000, 500, None, True), (Figure("batches", "queue messages in batches of 50", "messages/s", True),)),
        Case(
            "mixed", "mixed", sizes(16, 16),
            (Figure("alone", "1-step instances, 16 under way", "instances/s", True), Figure("beside", "the same beside a CPU-bound activity", "instances/s", True),
             Figure("share", "pace that is left beside it", "%", True)),
            quick=sizes(8, 8), rounds=ONCE,
        ),
    ]  # fmt: skip


def latencies() -> list[Case]:
    def pair(what: str, count: float | None) -> tuple[Figure, ...]:
        ceiling = None if count is None else lambda c: commits(count, c)
        return Figure("p50", f"{what}, p50", "ms", False, ceiling), Figure("p99", f"{what}, p99", "ms")

    return [
        Case("instance", "instance", sizes(300, 60, 30, True), pair("latency of an instance of 1 step", 3)),
        Case("child", "child", sizes(200, 60, 30), pair("latency of a child", 4)),
        Case("event", "event", sizes(200, 60), pair("latency of an event", 2)),
        Case("message", "message", sizes(300, 100, 30, True), pair("latency of a queue message", 2)),
        Case("chat", "chat", sizes(200, 60), (Figure("chat", "chat: message, activity, answer, continue-as-new", "ms", False, lambda c: commits(4, c)),)),
        Case("payload_1k", "payload_1k", sizes(100, 30, 20), pair("1 step with 1 KB", 3)[:1]),
        Case("payload_100k", "payload_100k", sizes(50, 20, 20), pair("1 step with 100 KB", None)[:1]),
        Case("payload_5m", "payload_5m", sizes(3, 2, 2), pair("1 step with 5 MB", None)[:1], quick=sizes(1, 1, 1), rounds=ONCE),
    ]


def scaling() -> list[Case]:
    step = Figure("step", "", "ms", False, lambda c: commits(1, c))

    def of_chain(steps: int, **options: object) -> Case:
        along = (Figure("first", f"chain of {steps:,}: a step at its beginning", "ms"), Figure("last", f"chain of {steps:,}: a step at its end", "ms"))
        title = Figure("step", f"chain of {steps:,} steps, per step", "ms", False, step.ceiling)
        return Case(f"chain_{steps}", "chain", options.pop("sizes"), (title, *(along if steps > 10 else ())), rounds=ONCE, **options)  # type: ignore[arg-type]

    def of_all(width: int, **options: object) -> Case:
        title = Figure("all", f"all() over {width:,}", "ms", False, lambda c: width / c["step@256"] * 1e3 if width > 10 else commits(3, c))
        member = Figure("member", f"all() over {width:,}, per member", "us")
        return Case(f"all_{width}", "all_of", options.pop("sizes"), (title, member), rounds=ONCE, **options)  # type: ignore[arg-type]

    return [
        of_chain(10, sizes=sizes(10, 10, 10)),
        of_chain(1_000, sizes=sizes(1_000, 1_000, 200, True), quick=sizes(60, 40, 20)),
        of_chain(10_000, sizes=sizes(10_000), quick=sizes(100)),
        of_all(10, sizes=sizes(10, 10, 10)),
        of_all(2_000, sizes=sizes(2_000, 2_000, None, True), quick=sizes(100, 60)),
        of_all(10_000, sizes=sizes(10_000), quick=sizes(200)),
        Case(
            "timers", "timers", sizes(1_000, 20, 10),
            (Figure("late_p50", "lateness of timers, p50", "ms"), Figure("late_p99", "lateness of timers, p99", "ms"),
             Figure("rate", "timers fired", "timers/s", True)),
            quick=sizes(5, 5, 2), rounds=ONCE,
        ),
        Case(
            "recovery", "recovery", sizes(10_000, 200), (Figure("first", "SIGKILL: to the first step that goes on", "ms"), Figure("last", "SIGKILL: to the last of all in flight", "ms")),
            quick=sizes(50, 20), rounds={OURS: 2, REFERENCE: 1}, timeout_s=180,
        ),
        Case("replay_1000", "replay", sizes(1_000, 500), (Figure("replay", "cold replay, 1,000 events", "events/s", True),), rounds=ONCE),
        Case("replay_100000", "replay", sizes(100_000), (Figure("replay", "cold replay, 100,000 events", "events/s", True),), rounds={OURS: 2}, timeout_s=180),
    ]  # fmt: skip


def footprint() -> list[Case]:
    def parked(size: int, full: bool) -> Case:
        return Case(
            f"parked_{size}", "parked", sizes(size, None if full else 2_000),
            (Figure("rss", f"memory per parked instance, of {size:,}", "B"), Figure("file", f"disk per parked instance, of {size:,}", "B")),
            quick=sizes(100, 50), rounds={OURS: 1, REFERENCE: 1}, timeout_s=600, full=full, table="footprint",
        )  # fmt: skip

    def sleeping(size: int, full: bool) -> Case:
        return Case(
            f"sleeping_{size}", "sleeping", sizes(size, None if full else 10_000),
            (Figure("rss", f"memory per sleeping timer, of {size:,}", "B"), Figure("file", f"disk per sleeping timer, of {size:,}", "B"),
             Figure("idle", f"CPU while {size:,} timers sleep", "%")),
            quick=sizes(100, 100), rounds={OURS: 1, REFERENCE: 1}, timeout_s=900, full=full, table="footprint",
        )  # fmt: skip

    return [
        Case("idle", "idle", sizes(30, 30, 30), (Figure("idle", "CPU of an idle runtime", "% of a core"),), table="footprint"),
        Case("importing", "importing", sizes(10, 10, 3), (Figure("import", "import", "ms"),), quick=sizes(2, 2, 2), table="footprint"),
        Case("packaged", "packaged", sizes(1, 1, 1), (Figure("wheel", "wheel", "KiB"),), rounds={OURS: 1, REFERENCE: 1, DBOS: 1}, table="footprint"),
        parked(10_000, False), sleeping(100_000, False), parked(100_000, True), sleeping(1_000_000, True),
    ]  # fmt: skip


def postgres() -> list[Case]:
    def of(name: str, workload: str, size: dict[str, int], *figures: Figure, **options: object) -> Case:
        return Case(f"pg_{name}", workload, size, figures, table="postgres", **options)  # type: ignore[arg-type]

    p50 = "p50"
    calls = {
        "metrics": "system metrics", "depths": "queue depths", "running": "list of those that run (one of a thousand)", "list": "list of all ids",
        "info": "one instance", "prune": "prune 500", "delete": "delete 500",
    }  # fmt: skip
    return [
        of("drain", "drain", sizes(3_000, 200, 200), Figure("drain", "drain: queued instances of 1 step", "instances/s", True, lambda c: c["step@48"] / 2)),
        of("drain_ten", "drain_ten", sizes(500, 40, 40), Figure("drain_ten", "drain: queued instances of 10 steps", "steps/s", True, lambda c: c["step@48"])),
        of("instance", "instance", sizes(150, 50, 50), Figure(p50, "latency of an instance of 1 step, p50", "ms", False, lambda c: asked(3, c)), Figure("p99", "latency of an instance of 1 step, p99", "ms")),
        of("message", "message", sizes(150, 50, 50), Figure(p50, "latency of a queue message, p50", "ms", False, lambda c: asked(2, c))),
        of("chain", "chain", sizes(500, 300, 200), Figure("step", "chain of 500 steps (reference 300), per step", "ms", False, lambda c: asked(1, c)), rounds=ONCE),
        of("all", "all_of", sizes(1_000, 300, 100), Figure("member", "all() over 1,000 (reference 300, DBOS 100), per member", "us"), rounds=ONCE),
        of(
            "crew", "crew", sizes(2_000),
            Figure("one", "drain by 1 process on one schema", "instances/s", True, lambda c: c["step@48"] / 2),
            Figure("two", "drain by 2 processes on one schema", "instances/s", True, lambda c: c["step@48"] / 2),
            Figure("four", "drain by 4 processes on one schema", "instances/s", True, lambda c: c["step@48"] / 2),
            Figure("share", "4 processes to 1", "times", True), quick=sizes(20),
        ),
        of("admin", "admin", sizes(1_000_000), *(Figure(key, f"of 1,000,000 instances: {text}", "ms") for key, text in calls.items()), quick=sizes(500), rounds={OURS: 1}, timeout_s=900, full=True),
        of("starts_8", "starts_8", sizes(2_000, 800, 800), Figure("starts", "starts from 8 threads", "starts/s", True, lambda c: c["start@8"])),
    ]  # fmt: skip


def cases(full: bool) -> list[Case]:
    return [case for case in throughput() + latencies() + scaling() + footprint() + postgres() if full or not case.full]
