"""Every .pyx has a .pyi that tells Python code the truth: names, members of classes, names and order of parameters.

A stub speaks of what Python code may use; names that only other compiled modules use (cimport, or between engine modules) may be
left out of it, but whatever any .py file of the package or of the tests imports has to be there.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "duroxide").rglob("*.pyx"))
Shape = dict[str, Any]  # name -> None (a value), [parameters] (a function) or Shape (a class)


def public(name: str) -> bool:
    return not name.startswith("_")


# ── what the stub says ──


def stub_shape(source: str) -> Shape:
    shape: Shape = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and not is_protocol(node):
            shape[node.name] = class_shape(node)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            shape[node.name] = parameters(node)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            shape[node.target.id] = None
        elif isinstance(node, ast.Assign):
            shape.update({t.id: None for t in node.targets if isinstance(t, ast.Name)})
    return {k: v for k, v in shape.items() if public(k)}


def is_protocol(node: ast.ClassDef) -> bool:
    """A shape for type checkers only; nothing of the kind exists at run time."""
    return any(isinstance(b, ast.Name) and b.id == "Protocol" for b in node.bases)


def class_shape(node: ast.ClassDef) -> Shape:
    shape: Shape = {}
    for member in node.body:
        if isinstance(member, ast.FunctionDef):
            is_value = any(isinstance(d, ast.Name) and d.id == "property" for d in member.decorator_list)
            is_setter = any(isinstance(d, ast.Attribute) for d in member.decorator_list)
            if not is_setter:
                shape[member.name] = None if is_value else parameters(member)
        elif isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name):
            shape[member.target.id] = None
    return {k: v for k, v in shape.items() if public(k) or k == "__init__"}


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    a = node.args
    names = [x.arg for x in (*a.posonlyargs, *a.args, *([a.vararg] if a.vararg else ()), *a.kwonlyargs, *([a.kwarg] if a.kwarg else ()))]
    return [n for n in names if n not in ("self", "cls")]


# ── what is there ──


def module_shape(module: ModuleType, source: str) -> Shape:
    shape: Shape = {}
    for name, value in vars(module).items():
        if not public(name) or inspect.ismodule(value):
            continue
        home = getattr(value, "__module__", None)
        if inspect.isclass(value) and home == module.__name__:
            shape[name] = runtime_class(value, source)
        elif callable(value) and home == module.__name__:
            shape[name] = signature(value)
        elif home is None and isinstance(value, (int, str, bytes, float, tuple, frozenset)) and assigned(name, source):
            shape[name] = None
    return shape


def assigned(name: str, source: str) -> bool:
    return re.search(rf"^{name}\s*(:[^=]*)?=", source, re.MULTILINE) is not None


def runtime_class(cls: type, source: str) -> Shape:
    shape: Shape = {}
    for name, member in vars(cls).items():
        if public(name):
            shape[name] = signature(member) if callable(member) or isinstance(member, (staticmethod, classmethod)) else None
    made = constructor(cls.__name__, source)
    if made is not None:
        shape["__init__"] = made
    return shape


def signature(function: Any) -> list[str]:
    if isinstance(function, (staticmethod, classmethod)):
        function = function.__func__
    return [n for n in inspect.signature(function).parameters if n not in ("self", "cls")]


def constructor(name: str, source: str) -> list[str] | None:
    """Parameter names of a class's __init__ or __cinit__, from the source: Cython keeps no signature of them."""
    body = re.search(rf"^(?:cdef\s+)?class\s+{name}\b.*?(?=^\S|\Z)", source, re.MULTILINE | re.DOTALL)
    found = body and re.search(r"def __c?init__\((.*?)\)\s*(?:->[^:]*)?:", body[0], re.DOTALL)
    if not found:
        return None
    parts = [p.split("=")[0].split(":")[0].strip() for p in split_arguments(found[1])]
    names = [p.split()[-1].lstrip("*") for p in parts if p and p not in ("*", "/")]
    return [n for n in names if n != "self"] or None


def split_arguments(text: str) -> list[str]:
    parts, depth = [""], 0
    for c in re.sub(r"#[^\n]*", "", text):
        depth += (c in "([{") - (c in ")]}")
        if c == "," and not depth:
            parts.append("")
        else:
            parts[-1] += c
    return parts


def differences(stub: Shape, real: Shape, at: str = "") -> list[str]:
    lines = [f"{at}{n}: in the .pyi only" for n in stub if n not in real]
    for name in stub.keys() & real.keys():
        a, b = stub[name], real[name]
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, f"{at}{name}.")
        elif a != b:
            lines.append(f"{at}{name}: {a} in the .pyi, {b} in the module")
    return lines


def imported_names(module: str) -> set[str]:
    """What .py files take from a module by name."""
    found: set[str] = set()
    for path in [*(ROOT / "duroxide").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        package = ".".join(path.relative_to(ROOT).parent.parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                base = package.rsplit(".", node.level - 1)[0] + "." if node.level else ""
                if f"{base}{node.module or ''}" == module:
                    found |= {a.name for a in node.names if public(a.name)}
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_stub_says_what_the_module_has(path: Path) -> None:
    stub = path.with_suffix(".pyi")
    assert stub.exists(), f"{path.name} has no stub"
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    shape = stub_shape(stub.read_text())
    wrong = differences(shape, module_shape(module, path.read_text()))
    wrong += [f"{name}: imported by Python code, not in the .pyi" for name in sorted(imported_names(module.__name__) - shape.keys())]
    assert not wrong, "\n".join(wrong)


def test_a_stub_that_lies_is_seen() -> None:
    from duroxide.engine import _turn

    path = ROOT / "duroxide" / "engine" / "_turn.pyx"
    source, text = path.read_text(), path.with_suffix(".pyi").read_text()
    assert differences(stub_shape(text + "\ndef invented() -> None: ...\n"), module_shape(_turn, source))
    assert differences(stub_shape(text.replace("payload: str, row_id", "body: str, row_id")), module_shape(_turn, source))
    assert differences(stub_shape(text.replace("    attempt: int\n", "    attempts: int\n")), module_shape(_turn, source))
