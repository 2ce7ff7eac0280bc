"""Two runs of a program side by side: what may differ between any two runs is taken out, the rest must be equal.

Taken out: times, GUIDs, file names and line numbers in tracebacks, the frames of the SDK and of `json` in them, and the class of a failed
step's exception, which is a bare `Exception` in the reference and a subclass here. Nothing else.
"""

from __future__ import annotations

import json
import re
from typing import Any

SYSCALL = "__duroxide_syscall:"
COMPLETIONS = ("ActivityCompleted", "ActivityFailed", "TimerFired", "SubOrchestrationCompleted", "SubOrchestrationFailed")
_FRAME = re.compile(r'^(?P<indent>\s*)File "(?P<path>.*?)", line \d+, in (?P<name>.*)$')
_LIBRARY = re.compile(r"(^|/)(duroxide/|json/(__init__|encoder|decoder)\.py)")
_CARETS = re.compile(r"^[\s~^]*[~^]+[\s~^]*$")
_STEP_ERROR = re.compile(r"^duroxide\.errors\.\w+: ", re.MULTILINE)
_TIME = re.compile(r"\b1[0-9]{12}\b")
_ENVELOPE = ("event_id", "source_event_id", "instance_id", "execution_id", "timestamp_ms", "duroxide_version", "type")


def text(value: str) -> str:
    """A message without what hangs on the machine and the moment."""
    if "Traceback (most recent call last)" in value:
        value = traceback_text(value)
    return _TIME.sub("<ms>", value)


def traceback_text(value: str) -> str:
    """A traceback with its frames as `File, in name`, those of libraries left out."""
    kept: list[str] = []
    skipping = False
    for line in value.split("\n"):
        frame = _FRAME.match(line)
        if frame:
            skipping = bool(_LIBRARY.search(frame["path"]))
            if not skipping:
                kept.append(f"{frame['indent']}File, in {frame['name'].split('.')[-1]}")
        elif skipping and line.startswith("    "):
            continue
        elif not _CARETS.match(line):
            skipping = False
            kept.append(line)
    return _STEP_ERROR.sub("Exception: ", "\n".join(kept))


def deep_text(value: Any) -> Any:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, list):
        return [deep_text(v) for v in value]
    if isinstance(value, dict):
        return {k: deep_text(v) for k, v in value.items()}
    return value


def payload(value: str) -> str:
    """An output or result: JSON with its texts cleaned, or a plain text."""
    try:
        decoded = json.loads(value)
    except ValueError:
        return text(value)
    return json.dumps(deep_text(decoded)) if "Traceback" in value else text(value)


def event(stored: dict[str, Any], system_calls: dict[int, str]) -> dict[str, Any]:
    """One stored event; `system_calls` maps the ids of the system calls scheduled so far in its history to their names."""
    kind = stored["type"]
    body = {k: v for k, v in stored.items() if k not in _ENVELOPE and k not in ("fire_at_ms", "last_updated_at_ms")}
    if kind == "ActivityScheduled" and stored["name"].startswith(SYSCALL):
        system_calls[stored["event_id"]] = stored["name"].removeprefix(SYSCALL)
    if kind == "ActivityCompleted" and system_calls.get(stored["source_event_id"]) in ("new_guid", "utc_now_ms"):
        body["result"] = f"<{system_calls[stored['source_event_id']]}>"
    for key in ("details", "result", "output", "input"):
        if isinstance(body.get(key), str):
            body[key] = payload(body[key])
        elif key in body:
            body[key] = deep_text(body[key])
    found = {"id": stored["event_id"], "type": kind, **body}
    if stored.get("source_event_id") is not None:
        found["source"] = stored["source_event_id"]
    return found


def events(stored: list[dict[str, Any]]) -> list[dict[str, Any]]:
    system_calls: dict[int, str] = {}
    return [event(e, system_calls) for e in stored]


def commands(stored: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The history without ids and without what arrived: what the code asked for, in its order."""
    arrivals = (*COMPLETIONS, "ExternalEvent", "ExternalEventPersistent", "OrchestrationCancelRequested")
    return [{k: v for k, v in e.items() if k not in ("id", "source")} for e in events(stored) if e["type"] not in arrivals]


def instance(row: dict[str, Any]) -> dict[str, Any]:
    found = {**row, "executions": {n: events(e) for n, e in row["executions"].items()}}
    found["output"] = None if not row["output"] else payload(row["output"])
    return found


def recording(run: dict[str, Any]) -> dict[str, Any]:
    return {i: instance(row) for i, row in run["instances"].items()}


def differences(expected: Any, found: Any, at: str = "") -> list[str]:
    """Where two values differ, a line each, deepest first."""
    if isinstance(expected, dict) and isinstance(found, dict):
        lines = [f"{at}.{k}: missing, expected {expected[k]!r:.200}" for k in expected if k not in found]
        lines += [f"{at}.{k}: not expected: {found[k]!r:.200}" for k in found if k not in expected]
        return lines + [line for k in expected if k in found for line in differences(expected[k], found[k], f"{at}.{k}")]
    if isinstance(expected, list) and isinstance(found, list):
        lines = [line for n, (e, f) in enumerate(zip(expected, found)) for line in differences(e, f, f"{at}[{n}]")]
        if len(expected) != len(found):
            rest = expected[len(found) :] or found[len(expected) :]
            lines.append(f"{at}: {len(expected)} expected, {len(found)} found; the rest: {rest!r:.300}")
        return lines
    return [] if expected == found else [f"{at}: expected {expected!r:.300}, found {found!r:.300}"]
