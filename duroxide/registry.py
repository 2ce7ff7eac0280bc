"""Which function runs under which name and version: one table per runtime, readable from every thread, open after start.

Owns the registration rules and the order of versions. Refuses to know what the functions do and when they are called.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from . import arguments
from .errors import OptionError

DEFAULT_VERSION = "1.0.0"

# Every orchestration registered in this process, by name or name@version, the last one counts. Runtimes never read it: it is
# what `driver.create_generator` calls, for programs that step generators by hand.
functions: dict[str, Callable[..., Any]] = {}

# The names under which each function was registered in this process, for calls that are given the function.
_names: dict[str, WeakKeyDictionary[Callable[..., Any], set[str]]] = {
    "activity": WeakKeyDictionary(),
    "orchestration": WeakKeyDictionary(),
}
_naming = threading.Lock()

SYSCALL = "__duroxide_syscall:"

_NUMBER = r"(0|[1-9]\d*)"
_PRE = r"(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)"
_SEMVER = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-({_PRE}(?:\.{_PRE})*))?(?:\+([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?", re.ASCII
)


def version_key(version: str) -> tuple[Any, ...] | None:
    """A key that orders semantic versions (a pre-release before its release, build metadata last); None if it is not one."""
    found = _SEMVER.fullmatch(version)
    if found is None:
        return None
    major, minor, patch, pre, build = found.groups()
    numbers = (int(major), int(minor), int(patch))
    return (*numbers, pre is None, _identifiers(pre), build is not None, _identifiers(build))


def _identifiers(text: str | None) -> tuple[tuple[bool, int, str], ...]:
    parts = text.split(".") if text else []
    return tuple((False, int(part), "") if part.isdigit() else (True, 0, part) for part in parts)


class _Versions:
    """The registered versions of one orchestration name. `latest` and `functions` are only ever replaced by newer states."""

    __slots__ = ("functions", "latest", "latest_key")

    def __init__(self) -> None:
        self.functions: dict[str, Callable[..., Any]] = {}
        self.latest = ""
        self.latest_key: tuple[Any, ...] = ()


class Registry:
    """Activities by name, orchestrations by name and version.

    The first function registered for an activity name stays; for an orchestration's version the last one counts.
    Versions of one name have to be registered in increasing order (registering without a version means 1.0.0 and is always
    allowed): said by `check()` when the runtime starts, and at the call once it has started.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._activities: dict[str, Callable[..., Any]] = {}
        self._orchestrations: dict[str, _Versions] = {}
        self._disorder: str | None = None
        self._checked = False

    def add_activity(self, name: str, fn: Callable[..., Any]) -> None:
        name = arguments.text("name", name)
        _callable("activity", name, fn)
        if name.startswith(SYSCALL):
            raise OptionError(f"activity name '{name}' is reserved: names that start with '{SYSCALL}' belong to the runtime")
        with self._lock:
            if self._activities.setdefault(name, fn) is fn:
                _name("activity", name, fn)

    def add_orchestration(self, name: str, version: str | None, fn: Callable[..., Any]) -> None:
        """`version` None: 1.0.0, outside the order. OptionError for a version that is not semantic or comes out of order."""
        name = arguments.text("name", name)
        wanted = DEFAULT_VERSION if version is None else arguments.text("version", version)
        _callable("orchestration", name, fn)
        key = version_key(wanted)
        if key is None:
            raise OptionError(
                f"Version should be valid semver: '{wanted}' of orchestration '{name}' is not; "
                "expected major.minor.patch, for example 1.2.0 or 1.2.0-beta.1"
            )
        with self._lock:
            known = self._orchestrations.setdefault(name, _Versions())
            if wanted not in known.functions and key < known.latest_key and version is not None:
                self._refuse(
                    f"non-monotonic orchestration version for {name}: {wanted} is not later than existing latest {known.latest}"
                )
            known.functions[wanted] = fn
            _name("orchestration", name, fn)
            functions[name if version is None else f"{name}@{wanted}"] = fn
            if key > known.latest_key:
                known.latest, known.latest_key = wanted, key

    def _refuse(self, text: str) -> None:
        if self._checked:
            raise OptionError(text)
        self._disorder = self._disorder or text

    def check(self) -> None:
        """Raise OptionError if what was registered so far cannot work; from here on each call says so itself."""
        with self._lock:
            if self._disorder is not None:
                raise OptionError(self._disorder)
            self._checked = True

    def activity(self, name: str) -> Callable[..., Any] | None:
        return self._activities.get(name)

    def resolve(self, name: str, version: str | None) -> tuple[str, Callable[..., Any]] | None:
        """(version, function) of an orchestration; `version` None: the latest. None if it is not registered."""
        known = self._orchestrations.get(name)
        if known is None:
            return None
        wanted = known.latest if version is None else version
        fn = known.functions.get(wanted)
        return None if fn is None else (wanted, fn)


def _name(kind: str, name: str, fn: Callable[..., Any]) -> None:
    # What cannot be referred to weakly, or hashed, is called by name only.
    with _naming, suppress(TypeError):
        _names[kind].setdefault(_function(fn), set()).add(name)


def name_of(kind: str, fn: Callable[..., Any]) -> str:
    """The one name under which `fn` is registered in this process as a `kind` ("activity", "orchestration"), else TypeError."""
    with _naming:
        try:
            found = sorted(_names[kind].get(_function(fn), ()))
        except TypeError:
            found = []
    if len(found) == 1:
        return found[0]
    said = (
        f"registered as {' and '.join(found)}: pass the name that is meant"
        if found
        else "not registered in this process: pass its name"
    )
    raise TypeError(f"{getattr(fn, '__qualname__', repr(fn))} is no {kind} that can be called by its function, {said}")


def _function(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A bound method is made anew at each access; its function is not."""
    return getattr(fn, "__func__", fn)


def _callable(kind: str, name: str, fn: Any) -> None:
    if not callable(fn):
        raise TypeError(f"fn of {kind} '{name}' must be callable, not '{type(fn).__name__}'")
