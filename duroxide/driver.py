"""The reference's helpers to step an orchestration's generator by hand, as JSON texts; the engine does not use them.

Owns a table of generators by number. Finds functions in `registry.functions`, where every registration of the process is noted.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Generator
from types import GeneratorType
from typing import Any

from .context import OrchestrationContext
from .registry import functions

_generators: dict[int, Generator[Any, Any, Any]] = {}
_last_tasks: dict[int, Any] = {}
_numbers = itertools.count(1)


def create_generator(payload_json: str) -> str:
    """Call an orchestration. `payload_json`: {"ctxInfo": {"instanceId", "executionId", "orchestrationName",
    "orchestrationVersion"}, "input": JSON text}. Returns {"status": "yielded", "generatorId", "task"},
    {"status": "completed", "output": JSON text} or {"status": "error", "message"}."""
    return _reported(_create, payload_json)


def next_step(payload_json: str) -> str:
    """Send a result. `payload_json`: {"generatorId", "isError", "result": JSON text}; an error's text is raised at the
    yield. Returns what `create_generator` does."""
    return _reported(_next, payload_json)


def dispose_generator(id_str: str) -> str:
    """Forget a generator; "ok", also if there is none of that number."""
    number = int(id_str)
    _last_tasks.pop(number, None)
    generator = _generators.pop(number, None)
    if generator is not None:
        generator.close()
    return "ok"


def _reported(step: Callable[[Any], dict[str, Any]], payload_json: str) -> str:
    try:
        return json.dumps(step(json.loads(payload_json)))
    except Exception:
        import traceback

        return json.dumps({"status": "error", "message": traceback.format_exc()})


def _create(payload: Any) -> dict[str, Any]:
    info = payload["ctxInfo"]
    context = OrchestrationContext(info)
    name, version = context.orchestration_name, context.orchestration_version
    fn = functions.get(f"{name}@{version}") or functions.get(name)
    if fn is None:
        return {"status": "error", "message": f"Orchestration '{name}' not registered on Python side"}
    text = payload.get("input")
    outcome = fn(context, _value(text) if text else None)
    if not isinstance(outcome, GeneratorType):
        return {"status": "completed", "output": json.dumps(outcome)}
    number = next(_numbers)
    _generators[number] = outcome
    return _drive(number, lambda: next(outcome))


def _next(payload: Any) -> dict[str, Any]:
    number, text = payload["generatorId"], payload.get("result")
    generator = _generators.get(number)
    if generator is None:
        return {"status": "error", "message": f"Generator {number} not found"}
    if payload.get("isError"):
        return _drive(number, lambda: generator.throw(Exception(text)))
    return _drive(number, lambda: generator.send(_unwrapped(_last_tasks.get(number), _value(text))))


def _drive(number: int, step: Callable[[], Any]) -> dict[str, Any]:
    """Run to the next yield; a generator that returned, raised or yielded what JSON cannot hold is forgotten."""
    try:
        task = step()
        json.dumps(task)
    except StopIteration as end:
        dispose_generator(str(number))
        return {"status": "completed", "output": json.dumps(end.value)}
    except BaseException:
        dispose_generator(str(number))
        raise
    _last_tasks[number] = task
    return {"status": "yielded", "generatorId": number, "task": task}


def _value(text: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return text


def _unwrapped(task: Any, value: Any) -> Any:
    if isinstance(task, dict) and task.get("_typed_all") and isinstance(value, list):
        return [item["ok"] if isinstance(item, dict) and "ok" in item else item for item in value]
    return value
