"""The committed recordings: one JSON file a program, an event a line, long runs of one character written short.

A recording is {"program", "reference", "instances": {id: {"status", "output", "error", "custom_status", "custom_status_version",
"name", "version", "parent", "kv", "executions": {number: [event]}}}}; events are as the reference stored them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).with_name("histories")
Recording = dict[str, Any]

_RUN = re.compile(r"([^\\\"0-9])\1{499,}")
_SHORT = re.compile(r"\{\{(.)\*([0-9]+)\}\}")


def pack(text: str) -> str:
    return _RUN.sub(lambda m: f"{{{{{m[1]}*{len(m[0])}}}}}", text)


def unpack(text: str) -> str:
    return _SHORT.sub(lambda m: m[1] * int(m[2]), text)


def path(name: str) -> Path:
    return DIRECTORY / f"{name}.json"


def write(recording: Recording, directory: Path = DIRECTORY) -> None:
    def dumps(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    lines = [f'{{"program":{dumps(recording["program"])},"reference":{dumps(recording["reference"])},"instances":{{']
    for n, (instance, row) in enumerate(recording["instances"].items()):
        head = dumps({k: v for k, v in row.items() if k != "executions"})
        lines.append(f'{"," if n else ""}{dumps(instance)}:{head[:-1]},"executions":{{')
        for m, (number, events) in enumerate(row["executions"].items()):
            lines.append(f'{"," if m else ""}{dumps(str(number))}:[')
            lines.append(",\n".join(dumps(e) for e in events))
            lines.append("]")
        lines.append("}}")
    lines.append("}}\n")
    (directory / f"{recording['program']}.json").write_text(pack("\n".join(lines)), encoding="utf-8")


def read(name: str) -> Recording:
    recording: Recording = json.loads(unpack(path(name).read_text(encoding="utf-8")))
    for row in recording["instances"].values():
        row["executions"] = {int(number): events for number, events in row["executions"].items()}
    return recording


def names() -> list[str]:
    return sorted(p.stem for p in DIRECTORY.glob("*.json"))


def instances(rows: Callable[[str], Iterable[Any]]) -> dict[str, Any]:
    """What a database holds of every instance; `rows` runs one statement on it."""
    found: dict[str, Any] = {}
    for instance, name, version, parent, custom, custom_version, status, output in rows(
        "SELECT i.instance_id, i.orchestration_name, i.orchestration_version, i.parent_instance_id, i.custom_status,"
        " i.custom_status_version, e.status, e.output FROM instances i JOIN executions e"
        " ON e.instance_id = i.instance_id AND e.execution_id = i.current_execution_id ORDER BY i.created_at, i.instance_id"
    ):
        found[instance] = {
            "name": name, "version": version, "parent": parent, "status": status, "output": output,
            "custom_status": custom, "custom_status_version": custom_version, "kv": {}, "executions": {},
        }  # fmt: skip
    for table in ("kv_store", "kv_delta"):  # the second has what changed since, NULL for what went
        for instance, key, value in rows(f"SELECT instance_id, key, value FROM {table} ORDER BY 1, 2"):
            if instance in found:
                found[instance]["kv"][key] = value
    for row in found.values():
        row["kv"] = {k: v for k, v in sorted(row["kv"].items()) if v is not None}
    for instance, number, event in rows("SELECT instance_id, execution_id, event_data FROM history ORDER BY 1, 2, event_id"):
        found[instance]["executions"].setdefault(number, []).append(json.loads(event))
    return found
