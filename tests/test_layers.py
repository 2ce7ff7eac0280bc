"""Who may import whom, read from the import lines of .py, .pyx and .pxd and the includes of .c and .h.

A room that is not named in the table may import nothing of ours; so a new one has to be placed first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "duroxide"

# room -> what it may import of ours. "x.*" is x and everything below it; the most specific room of a module counts.
RULES: dict[str, tuple[str, ...]] = {
    # import nothing of ours
    "duroxide.errors": (),
    "duroxide.events": ("duroxide.errors",),
    "duroxide.runtime.clock": (),
    "duroxide.logs": (),
    # the engine: pure
    "duroxide.engine": ("duroxide.errors", "duroxide.events", "duroxide.engine.*", "duroxide.storage.base"),
    # stores: a backend knows no other backend and no runtime
    "duroxide.storage": ("duroxide.storage",),
    "duroxide.storage.base": (),
    "duroxide.storage.inspect_sql": (),
    "duroxide.storage.doctor_sql": (),
    "duroxide.storage.sqlite_inspect": ("duroxide.errors", "duroxide.storage.inspect_sql", "duroxide.storage.doctor_sql", "duroxide.storage.sqlite_schema"),
    "duroxide.storage.postgres_inspect": (
        "duroxide.errors", "duroxide.storage.base", "duroxide.storage.inspect_sql", "duroxide.storage.doctor_sql", "duroxide.storage.postgres_*",
    ),
    "duroxide.storage._queue": ("duroxide.errors", "duroxide.storage.base", "duroxide.storage._capsule"),
    "duroxide.storage._abi": (),
    "duroxide.storage._postgres": (),
    "duroxide.storage._rows": ("duroxide.storage.base", "duroxide.storage._abi"),
    "duroxide.storage._capsule": ("duroxide.errors", "duroxide.storage.base", "duroxide.storage._abi", "duroxide.storage._rows"),
    "duroxide.storage.capsule": ("duroxide.errors", "duroxide.storage.base", "duroxide.storage._capsule"),
    "duroxide.storage.file_watch": (),
    "duroxide.storage.liveness": ("duroxide.errors", "duroxide.storage.base"),
    "duroxide.storage.memory*": ("duroxide.errors", "duroxide.events", "duroxide.storage.base", "duroxide.storage.memory*"),
    "duroxide.storage.sqlite": (
        "duroxide.arguments", "duroxide.errors", "duroxide.events", "duroxide.storage.base", "duroxide.storage.liveness",
        "duroxide.storage.file_watch", "duroxide.storage.sqlite*", "duroxide.storage._sqlite", "duroxide.storage._capsule", "duroxide.logs",
    ),
    "duroxide.storage.sqlite_*": (
        "duroxide.errors", "duroxide.events", "duroxide.storage.base", "duroxide.storage.liveness", "duroxide.storage.sqlite_*",
    ),
    "duroxide.storage._sqlite": (
        "duroxide.errors", "duroxide.events", "duroxide.storage.base", "duroxide.storage.sqlite_sql", "duroxide.storage._capsule",
    ),
    "duroxide.storage.postgres*": ("duroxide.errors", "duroxide.events", "duroxide.storage.base", "duroxide.storage.postgres*", "duroxide.storage._postgres"),
    # what users hold: no backend, no engine
    "duroxide.arguments": ("duroxide.errors",),
    "duroxide.trace_lines": (),
    "duroxide.tracing": ("duroxide.arguments", "duroxide.logs", "duroxide.trace_lines", "duroxide.context", "duroxide.options"),  # the last two: types only
    "duroxide.results": ("duroxide.errors", "duroxide.arguments", "duroxide.events"),
    "duroxide.options": ("duroxide.errors", "duroxide.arguments", "duroxide.registry", "duroxide.results"),
    "duroxide.registry": ("duroxide.errors", "duroxide.arguments"),
    "duroxide.tasks": (),
    "duroxide.typed": ("duroxide.registry", "duroxide.tasks", "duroxide.context"),  # the last: types only
    "duroxide.context": (
        "duroxide.errors", "duroxide.arguments", "duroxide.tracing", "duroxide.client", "duroxide.engine._execution", "duroxide.tasks", "duroxide.typed",
    ),
    "duroxide.client": (
        "duroxide.errors", "duroxide.arguments", "duroxide.events", "duroxide.options", "duroxide.registry", "duroxide.results",
        "duroxide.runtime.clock", "duroxide.storage.base", "duroxide.storage._queue",
    ),
    "duroxide.driver": ("duroxide.errors", "duroxide.context", "duroxide.registry", "duroxide.arguments", "duroxide.tracing"),
    # the runtime: no named backend
    "duroxide.runtime": (
        "duroxide.errors", "duroxide.arguments", "duroxide.events", "duroxide.options", "duroxide.registry", "duroxide.results",
        "duroxide.logs", "duroxide.tracing", "duroxide.context", "duroxide.client", "duroxide.engine.*", "duroxide.runtime.*",
        "duroxide.storage.base", "duroxide.storage._queue",
    ),
    # what puts it together
    "duroxide": ("duroxide.*",),
    "duroxide._duroxide": ("duroxide.*",),
    "duroxide.__main__": ("duroxide.*",),
    "duroxide.demo": ("duroxide.*",),
    "duroxide.inspection": ("duroxide.*",),
    # what must hold of a store: rows and events as data; which databases there are is known to `inspection`
    "duroxide.doctor": (
        "duroxide.errors", "duroxide.events", "duroxide.runtime.clock", "duroxide.inspection", "duroxide.doctor.*", "duroxide.storage.base",
        "duroxide.storage.doctor_sql",
    ),
    "duroxide.postgres": ("duroxide.errors", "duroxide.arguments", "duroxide.storage.postgres*"),
    # shipped for those who write stores; nothing else of ours stands on it
    "duroxide.testing": (
        "duroxide.errors", "duroxide.events", "duroxide.engine.*", "duroxide.storage.base", "duroxide.storage._queue",
        "duroxide.testing.*",
    ),
}  # fmt: skip

# Modules that a room must not touch although they are not ours.
FOREIGN: dict[str, tuple[str, ...]] = {
    "duroxide.context": ("time", "random", "apsw", "sqlite3", "psycopg", "threading"),
    "duroxide.engine": ("time", "random", "threading", "apsw", "sqlite3", "psycopg", "uuid", "datetime", "os", "socket"),
    "duroxide.engine.cache": ("time", "random", "apsw", "sqlite3", "psycopg", "os"),
    "duroxide.client": ("apsw", "sqlite3", "psycopg"),
    "duroxide.runtime": ("apsw", "sqlite3", "psycopg"),
    "duroxide.storage": ("sqlite3", "psycopg", "psycopg_pool"),
    "duroxide.storage.sqlite*": ("sqlite3", "psycopg", "psycopg_pool"),
    "duroxide.storage.postgres*": ("sqlite3", "apsw"),
    "duroxide": ("sqlite3",),
}
# C files: what they may include besides the C library and our own headers in csrc.
C_LIBRARY = {
    "assert.h", "inttypes.h", "limits.h", "stdarg.h", "stdbool.h", "stddef.h", "stdint.h", "stdio.h", "stdlib.h", "string.h",
    "stdatomic.h", "stdalign.h",
}  # fmt: skip
C_EXTRA = {"sqlite_statements.c": {"time.h", "windows.h"}}  # sleeps between tries on a busy file

_FROM = re.compile(r"^\s*from\s+([.\w]+)\s+c?import\s+(\(?[^#\n]*)")
_IMPORT = re.compile(r"^\s*c?import\s+([\w., ]+)")
_INCLUDE = re.compile(r'^\s*#\s*include\s+[<"]([^>"]+)[>"]')


def module_name(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def imports(package: str, source: str) -> Iterator[tuple[int, str]]:
    """(line, module) for every import statement; `from a import b` gives a.b where that is a module of ours, else a."""
    lines = source.splitlines()
    for number, line in enumerate(lines, 1):
        found = _FROM.match(line)
        if found:
            base = absolute(found[1], package)
            names = found[2]
            if names.startswith("(") and ")" not in names:
                names += " ".join(lines[number : lines.index(next(x for x in lines[number:] if ")" in x), number) + 1])
            for part in re.findall(r"(\w+)(?:\s+as\s+\w+)?", names.replace("(", "").split(")")[0]):
                yield number, f"{base}.{part}" if is_module(f"{base}.{part}") else base
        elif plain := _IMPORT.match(line):
            for part in plain[1].split(","):
                yield number, part.split()[0]


def absolute(name: str, package: str) -> str:
    dots = len(name) - len(name.lstrip("."))
    if not dots:
        return name
    base = package.split(".")
    return ".".join([*base[: len(base) - dots + 1], *filter(None, name.lstrip(".").split("."))])


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return any(path.with_suffix(s).exists() for s in (".py", ".pyx", ".pxd")) or (path / "__init__.py").exists()


def matches(name: str, pattern: str) -> bool:
    if pattern.endswith(".*"):
        return name == pattern[:-2] or name.startswith(pattern[:-1])
    if pattern.endswith("*"):
        return name.startswith(pattern[:-1])
    return name == pattern


def room(module: str, rooms: dict[str, tuple[str, ...]]) -> str | None:
    """The rule for a module: its own name, a pattern, or the package around it."""
    candidates = [r for r in rooms if matches(module, r) or (r != "duroxide" and module.startswith(r + "."))]
    return max(candidates, key=len, default=None)


def offences(module: str, found: str) -> str | None:
    if found == "duroxide" or found.startswith("duroxide."):
        rule = room(module, RULES)
        if rule is None:
            return f"{module} is in no room of the table"
        if matches(found, "duroxide.testing.*") and rule != "duroxide.testing":
            return f"{module} imports {found}, which is for tests"
        if found == module or any(matches(found, allowed) for allowed in RULES[rule]):
            return None
        return f"{module} (room {rule}) imports {found}"
    rule = room(module, FOREIGN) or "duroxide"
    return f"{module} imports {found}" if found.split(".")[0] in FOREIGN[rule] else None


def sources(*suffixes: str) -> list[Path]:
    return sorted(p for s in suffixes for p in PACKAGE.rglob(f"*{s}"))


@pytest.mark.parametrize("path", sources(".py", ".pyx", ".pxd"), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_module_imports_only_what_its_room_may(path: Path) -> None:
    module = module_name(path)
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    found_imports = imports(package, path.read_text(encoding="utf-8"))
    wrong = [f"{path.name}:{line}: {text}" for line, found in found_imports if (text := offences(module, found))]
    assert not wrong, "\n".join(wrong)


C_SOURCES = sorted(p for s in ("*.c", "*.h") for p in (ROOT / "csrc").glob(s))


@pytest.mark.parametrize("path", C_SOURCES, ids=lambda p: p.name)
def test_c_source_knows_neither_python_nor_a_system_sqlite(path: Path) -> None:
    ours = {p.name for p in (ROOT / "csrc").glob("*.h")}
    found = {m[1] for line in path.read_text(encoding="utf-8").splitlines() if (m := _INCLUDE.match(line))}
    foreign = found - ours - C_LIBRARY - C_EXTRA.get(path.name, set())
    assert not foreign, f"{path.name} includes {sorted(foreign)}"


def test_public_header_stands_alone() -> None:
    """A third party's store needs the one header and nothing else of ours."""
    text = (ROOT / "csrc" / "duroxide_store.h").read_text(encoding="utf-8")
    assert {m[1] for line in text.splitlines() if (m := _INCLUDE.match(line))} <= C_LIBRARY


def test_an_import_across_a_wall_is_seen() -> None:
    assert offences("duroxide.engine._replay", "duroxide.runtime.loop")
    assert offences("duroxide.runtime.loop", "duroxide.storage.sqlite")
    assert offences("duroxide.storage.memory", "duroxide.storage.sqlite")
    assert offences("duroxide.context", "time")
    assert offences("duroxide.demo", "duroxide.testing.world") and offences("duroxide.testing.world", "duroxide.storage.memory")
    assert offences("duroxide.client", "duroxide.engine._turn")
    assert offences("duroxide.storage.oracle", "duroxide.storage.base"), "a room without rules may import nothing"
    assert offences("duroxide.engine._replay", "duroxide.storage.base") is None


EVERY_FORM = """
import os, json as j
from ..storage import base
from duroxide.storage cimport base
from . import cache
from ..errors import (
    A,
    B,
)
    cimport cython
"""


def test_every_form_of_import_is_read() -> None:
    assert [name for _, name in imports("duroxide.engine", EVERY_FORM)] == [
        "os", "json", "duroxide.storage.base", "duroxide.storage.base", "duroxide.engine.cache", "duroxide.errors", "duroxide.errors",
        "cython",
    ]  # fmt: skip
