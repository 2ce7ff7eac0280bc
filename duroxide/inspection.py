"""`python -m duroxide inspect PATH-or-URL`: what a store is and what is in flight in it, without touching it.

Owns the report and its text. Which answers come from which database is theirs (`sqlite_inspect`, `postgres_inspect`).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from duroxide.errors import ProviderError
from duroxide.events import KINDS, VERSIONS
from duroxide.runtime import clock

ITEMS = (
    "StartOrchestration", "ContinueAsNew", "ActivityCompleted", "ActivityFailed", "TimerFired", "ExternalRaised", "QueueMessage",
    "SubOrchCompleted", "SubOrchFailed", "CancelInstance",
)  # fmt: skip
Report = dict[str, Any]


def run(where: str, schema: str | None, as_json: bool) -> int:
    """Print the report. ProviderError where there is nothing to report."""
    found = report(where, schema, clock.now())
    print(json.dumps(found, indent=2, ensure_ascii=False) if as_json else text(found))
    return 0


def report(where: str, schema: str | None, now: int) -> Report:
    """See `text` for what it holds; times are Unix ms or ms from `now`, which is a Unix time in ms."""
    with looking(where, schema, now) as look:
        found: Report = dict(look.facts)
        found["instances"] = {status: int(count) for status, count in look.ask("instances")}
        found["executions"] = {status: int(count) for status, count in look.ask("executions")}
        found["running_pinned_to"] = {_pin(row[:3]): int(row[3]) for row in look.ask("pins")}
        found["messages"] = _messages(look.ask("messages"), now)
        found["activities"] = {kind: {"count": int(n), "attempts": int(most)} for kind, n, most in look.ask("work")}
        found["leases"] = _leases(look.ask("leases"), now)
        [(sessions, live)] = look.ask("sessions")
        found["sessions"] = {"count": int(sessions), "live": int(live or 0)}
        found["unknown_events"] = {str(kind): int(n) for kind, n in look.ask("events") if kind not in KINDS}
    found["unknown_messages"] = {kind: row["count"] for kind, row in found["messages"].items() if kind not in ITEMS}
    found["left_alone_here"] = sum(n for pin, n in found["running_pinned_to"].items() if _packed(pin) > VERSIONS[1])
    return found


@contextlib.contextmanager
def looking(where: str, schema: str | None, now: int) -> Iterator[Any]:
    if where.startswith(("postgres://", "postgresql://")):
        try:
            from duroxide.storage import postgres_inspect
        except ImportError as error:
            raise ProviderError(f"PostgreSQL needs psycopg: pip install 'duroxide[postgres]' ({error})") from error
        with postgres_inspect.look(where, schema or "public", now) as look:
            yield look
        return
    if schema is not None:
        raise ProviderError("--schema is for PostgreSQL URLs")
    from duroxide.storage import sqlite_inspect
    from duroxide.storage.sqlite import file_of

    with sqlite_inspect.look(file_of(where), now) as other:
        yield other


def _pin(version: tuple[Any, ...]) -> str:
    return "any" if version[0] is None else ".".join(str(part) for part in version)


def _packed(pin: str) -> int:
    if pin == "any":
        return 0
    major, minor, patch = (int(part) for part in pin.split("."))
    return major * 1_000_000 + minor * 1_000 + patch


def _messages(rows: list[tuple[Any, ...]], now: int) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for head, count, later, held, attempts, first in rows:
        kind = head.split('"')[1] if head.count('"') > 1 else head
        row = found.setdefault(kind, {"count": 0, "later": 0, "held": 0, "attempts": 0, "first_due_in_ms": None})
        row["count"] += int(count)
        row["later"] += int(later or 0)
        row["held"] += int(held or 0)
        row["attempts"] = max(row["attempts"], int(attempts))
        if isinstance(first, int) or (first is not None and not isinstance(first, str)):
            due = int(first) - now
            row["first_due_in_ms"] = due if row["first_due_in_ms"] is None else min(due, row["first_due_in_ms"])
    return found


def _leases(rows: list[tuple[Any, ...]], now: int) -> dict[str, Any]:
    live = [row for row in rows if int(row[3]) > now]
    oldest = None
    if rows:
        what, instance, token, until = rows[0]
        oldest = {"of": what, "instance": instance, "held_by": _holder(token), "ends_in_ms": int(until) - now}
    return {"live": len(live), "ended": len(rows) - len(live), "oldest": oldest}


def _holder(token: str) -> str:
    """Tokens of ours name their owner before a colon; those of the reference have none."""
    return token.removeprefix("lock_").split(":")[0] if ":" in token else "the reference"


# ── as text ──────────────────────────────────────────────────────────────────────────────────────────────────


def text(found: Report) -> str:
    """The report for people, a fact a line."""
    opened = ", opened by this package" if found["opened_by_this_package"] and found["made_by"] != "this package" else ""
    lines = [
        ("store", f"{found['kind']}, {found['where']}"),
        ("made by", found["made_by"] + opened),
        ("schema", f"version {found['schema']} (this package knows up to {found['schema_known']})"),
        ("usable here", _yes(found, "usable_here")),
        ("by the reference", _yes(found, "usable_by_reference")),
        ("instances", _counts(found["instances"])),
        ("executions", _counts(found["executions"])),
        ("running, pinned to", _counts(found["running_pinned_to"])),
    ]
    lines += [("message", _message(kind, row)) for kind, row in found["messages"].items()]
    lines += [
        ("activity", f"{kind}: {row['count']}, at most {row['attempts']} attempts") for kind, row in found["activities"].items()
    ]
    leases = found["leases"]
    lines.append(("leases", f"{leases['live']} live, {leases['ended']} ended"))
    if leases["oldest"]:
        oldest = leases["oldest"]
        lines.append(
            (
                "oldest lease",
                f"{oldest['of']} of '{oldest['instance']}', held by {oldest['held_by']}, {_when(oldest['ends_in_ms'], 'ended', 'ends')}",
            )
        )
    lines.append(("sessions", f"{found['sessions']['count']}, {found['sessions']['live']} live"))
    if found["left_alone_here"]:
        lines.append(
            (
                "warning",
                f"{found['left_alone_here']} running executions are pinned to a newer version: this package leaves them alone",
            )
        )
    for what in ("messages", "events"):
        if found[f"unknown_{what}"]:
            lines.append(("warning", f"{what} of kinds that this package does not know: {_counts(found[f'unknown_{what}'])}"))
    return "\n".join(f"{name:<19}{value}" for name, value in lines)


def _yes(found: Report, key: str) -> str:
    return f"{'yes' if found[key] else 'no'}: {found[key + '_why']}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counts.items()) or "none"


def _message(kind: str, row: dict[str, Any]) -> str:
    parts = [f"{kind}: {row['count']}"]
    if row["later"]:
        parts.append(f"{row['later']} later")
    if row["held"]:
        parts.append(f"{row['held']} held by a lease")
    if row["first_due_in_ms"] is not None:
        parts.append(f"the first {_when(row['first_due_in_ms'], 'was due', 'is due')}")
    return ", ".join(parts + [f"at most {row['attempts']} attempts"])


def _when(ms: int, past: str, future: str) -> str:
    seconds = abs(ms) / 1000
    amount = f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:.0f} h"
    return f"{future} in {amount}" if ms > 0 else f"{past} {amount} ago"
