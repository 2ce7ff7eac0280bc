"""Traces of orchestrations and activities, on top of the standard `logging` module.

Owns the loggers `duroxide.orchestration` and `duroxide.activity` with their extra fields, and `init_tracing`; `trace_lines` has the shapes.
Nothing is written anywhere until the program asks for it: through `logging`, `init_tracing`, or a runtime's log options.
Refuses to know replay: a context calls only for what is to be logged.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, TextIO

from . import arguments
from .logs import Log

if TYPE_CHECKING:
    import logging

    from .context import ActivityContext, OrchestrationContext
    from .options import RuntimeOptions

ROOT = Log("duroxide")
ORCHESTRATION = Log("duroxide.orchestration")
ACTIVITY = Log("duroxide.activity")

OFF, ERROR, WARNING, INFO = 60, 40, 30, 20  # numbers of `logging`, which is imported with the first trace
LEVELS = {"off": OFF, "error": ERROR, "warn": WARNING, "info": INFO, "debug": 10, "trace": 5}
# log call, this function, context._trace, context.trace_info, the user's line: records should name the last.
_STACK = 4

_installing = threading.Lock()
_installed: logging.Handler | None = None


def orchestration(level: str, text: str, context: OrchestrationContext) -> None:
    """Log one trace of an orchestration; unknown levels count as info."""
    number = LEVELS.get(level, INFO)
    if ORCHESTRATION.isEnabledFor(number):
        ORCHESTRATION.log(number, text, extra=_ids(context), stacklevel=_STACK)


def activity(level: str, text: str, context: ActivityContext) -> None:
    """Log one trace of an activity; unknown levels count as info."""
    number = LEVELS.get(level, INFO)
    if ACTIVITY.isEnabledFor(number):
        extra = {
            **_ids(context),
            "activity_name": context.activity_name,
            "activity_id": context._activity_id,
            "worker_id": context.worker_id,
        }
        ACTIVITY.log(number, text, extra=extra, stacklevel=_STACK)


def _ids(context: OrchestrationContext | ActivityContext) -> dict[str, object]:
    return {
        "instance_id": context.instance_id,
        "execution_id": context.execution_id,
        "orchestration_name": context.orchestration_name,
        "orchestration_version": context.orchestration_version,
    }


def init_tracing(log_file: str, log_level: str | None = None, log_format: str | None = None) -> None:
    """Append traces to `log_file`, once per process.

    `log_level`: off, error, warn, info (default), debug or trace, for orchestrations and activities; the rest of the package
    logs from warn on. The environment variable RUST_LOG (`info`, `duroxide::activity=debug,warn`), if set, counts instead.
    `log_format`: "json", else one plain line each. RuntimeError if the file cannot be opened or traces already go somewhere.
    """
    path = arguments.text("log_file", log_file)
    level, shape = arguments.optional_text("log_level", log_level), arguments.optional_text("log_format", log_format)
    try:
        stream = open(path, "a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115 - open for the process's life
    except OSError as error:
        reason = f"{os.strerror(error.errno or 0)} (os error {error.errno})"
        raise RuntimeError(f"Failed to open log file '{path}': {reason}") from error
    if not _install(stream, level or "info", shape or "compact"):
        stream.close()
        raise RuntimeError("Failed to init tracing: a global default trace dispatcher has already been set")


def start_runtime(options: RuntimeOptions) -> None:
    """A runtime starts: traces go to stdout if its options say how, and nothing was set up before."""
    if options.log_level is not None or options.log_format is not None:
        _install(sys.stdout, options.effective("log_level"), options.effective("log_format"))


def _install(stream: TextIO, level: str, shape: str) -> bool:
    global _installed
    from .trace_lines import handler

    with _installing:
        if _installed is not None:
            return False
        _installed = handler(stream, shape)
        ROOT.addHandler(_installed)
        _set_levels(level)
    return True


def _set_levels(level: str) -> None:
    wanted = _directives(os.environ.get("RUST_LOG", ""))
    if wanted is None:
        number = LEVELS.get(level.lower())
        wanted = {ROOT.name: WARNING}
        for logger in (ORCHESTRATION, ACTIVITY):
            wanted[logger.name] = WARNING if number is None else number
    for name, number in wanted.items():
        Log(name).setLevel(number)
    if level.lower() not in LEVELS:
        ROOT.warning("log level %r is none of %s: using warn", level, ", ".join(LEVELS))


def _directives(text: str) -> dict[str, int] | None:
    """{logger name: level} of a RUST_LOG text, or None if it says nothing that can be read. A level alone is for all of ours."""
    found = {}
    for part in filter(None, map(str.strip, text.split(","))):
        target, _, level = part.rpartition("=")
        if level.lower() not in LEVELS:
            return None
        found[target.replace("::", ".") or ROOT.name] = LEVELS[level.lower()]
    return found or None
