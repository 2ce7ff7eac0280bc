"""Every .pyx has a .pyi that tells Python code the truth: names, members of classes, names and order of parameters.

A stub speaks of what Python code may use; names that only other compiled modules use (cimport, or between engine modules) may be
left out of it, but whatever any .py file of the package or of the tests imports has to be there.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
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


# ── the same and more by mypy's stubtest, over the whole package; some minutes on a busy machine ──

# What it may not hold against us, one rule a kind; the entries are made of the sources, so that nothing else can hide behind them.
#   CLASS            a cdef class cannot be combined with others: `@disjoint_base`, which says so, is newer than what checkers are sure to know
#   CLASS.__init__   of a class with `__cinit__`: Cython keeps no signature of it (`constructor`, above, compares it with the source)
#   Connection       psycopg's class under a name of ours: its stubs, not ours
#   NAME@LINE        mypy's own name for a class inside a function
# Names that a stub leaves out (Cython's, and those for other compiled modules) are not asked for: `imported_names`, above, is.
ELSEWHERE = [r"duroxide\.storage\.postgres\w*\._?Connection\.cursor", r".*@\d+"]


def noise() -> list[str]:
    entries = [*ELSEWHERE]
    for path in SOURCES:
        module, source = ".".join(path.relative_to(ROOT).with_suffix("").parts), path.read_text()
        for name, shape in stub_shape(path.with_suffix(".pyi").read_text()).items():
            if isinstance(shape, dict) and re.search(rf"^cdef class {name}\b", source, re.MULTILINE):
                entries.append(re.escape(f"{module}.{name}"))
                if re.search(rf"^cdef class {name}\b(?:(?!^\S).)*?def __cinit__", source, re.MULTILINE | re.DOTALL):
                    entries.append(re.escape(f"{module}.{name}.__init__"))
    return entries


def stubtest(place: Path, *entries: str) -> tuple[int, str]:
    allowed = place / "allowed.txt"
    allowed.write_text("\n".join(entries))
    command = [sys.executable, "-m", "mypy.stubtest", "duroxide", "--concise", "--ignore-missing-stub", "--ignore-unused-allowlist"]
    done = subprocess.run(
        [*command, "--allowlist", str(allowed)],
        cwd=ROOT, env={**os.environ, "MYPYPATH": str(ROOT)}, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.soak
def test_stubtest_finds_nothing_but_what_cython_does_to_every_module(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy comes with the extra `test`")
    code, said = stubtest(tmp_path, *noise())
    assert code == 0, said
    code, said = stubtest(tmp_path, *(entry for entry in noise() if "_turn" not in entry))
    assert code == 1 and "duroxide.engine._turn.Turn" in said, said  # it looks
