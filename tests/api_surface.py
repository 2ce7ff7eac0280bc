"""Prints the public surface of the `duroxide` that this interpreter imports, as JSON: run under ours and under the reference.

Owns what counts as surface: names, constants, signatures, attributes of value classes. Knows neither of the two packages.
`python api_surface.py > data/api_surface_0.2.2.json` with the reference's interpreter records it anew.
"""

from __future__ import annotations

import importlib
import inspect
import json
from typing import Any

MODULES = {
    "duroxide": None,  # every public name
    "duroxide.context": ("ActivityContext", "OrchestrationContext", "ScheduledTask"),
    "duroxide.driver": ("create_generator", "dispose_generator", "next_step"),
    "duroxide._duroxide": None,
}
PRIVATE = ("_orchestration_functions", "_parse_status")


def surface() -> dict[str, Any]:
    found: dict[str, Any] = {"__all__": list(importlib.import_module("duroxide").__all__)}
    for module_name, names in MODULES.items():
        module = importlib.import_module(module_name)
        for name in sorted(names or public_names(module)):
            thing = getattr(module, name)
            if not inspect.ismodule(thing) and getattr(thing, "__module__", "") not in ("typing", "__future__"):
                found[f"{module_name}.{name}"] = describe(thing)
    return found


def public_names(module: Any) -> list[str]:
    if module.__name__ == "duroxide._duroxide":
        return list(module.__all__)
    return [name for name in vars(module) if not name.startswith("_") or name in PRIVATE]


def describe(thing: Any) -> Any:
    if inspect.isclass(thing):
        return describe_class(thing)
    if callable(thing):
        return {"call": signature(thing)}
    return {"value": thing if isinstance(thing, (int, str)) else type(thing).__name__}


def describe_class(cls: type) -> dict[str, Any]:
    members: dict[str, Any] = {}
    attributes = set()
    for base in reversed(cls.__mro__[:-1]):
        if base.__module__.startswith("duroxide") or base is cls:
            attributes |= set(base.__dict__.get("__annotations__", ()))
            for name, member in vars(base).items():
                if name.startswith("_"):
                    continue
                if inspect.isgetsetdescriptor(member):
                    attributes.add(name)
                elif callable(member) or isinstance(member, staticmethod):
                    bound = isinstance(member, staticmethod)
                    members[name] = signature(getattr(cls, name), 0 if bound else 1)
                elif isinstance(member, (str, int)):
                    members[name] = member
    attributes -= set(members)
    return {
        "call": signature(cls),
        "members": dict(sorted(members.items())),
        "attributes": sorted(name for name in attributes if not name.startswith("_")),
    }


def signature(thing: Any, skip: int = 0) -> Any:
    """[[parameter, kind, default or "-"]]; None where it cannot be asked or says nothing (`*args, **kwargs`)."""
    try:
        parameters = list(inspect.signature(thing).parameters.values())[skip:]
    except (TypeError, ValueError):
        return None
    if [p.kind.name for p in parameters] == ["VAR_POSITIONAL", "VAR_KEYWORD"]:
        return None
    return [[p.name, p.kind.name, "-" if p.default is p.empty else repr(p.default)] for p in parameters]


if __name__ == "__main__":
    lines = (f"{json.dumps(name)}: {json.dumps(thing, sort_keys=True)}" for name, thing in sorted(surface().items()))
    print("{\n" + ",\n".join(lines) + "\n}")
