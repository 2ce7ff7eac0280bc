"""Traces of orchestrations and activities, on top of the standard `logging` module.

Owns the loggers `duroxide.orchestration` and `duroxide.activity` with their extra fields, the two line shapes and `init_tracing`.
Nothing is written anywhere until the program asks for it: through `logging`, `init_tracing`, or a runtime's log options.
Refuses to know replay: a context calls only for what is to be logged.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
from datetime import datetime, timezone
from typing import TYPE_CHECKING, TextIO

from . import arguments

if TYPE_CHECKING:
    from .context import ActivityContext, OrchestrationContext
    from .options import RuntimeOptions

ROOT = logging.getLogger("duroxide")
ORCHESTRATION = logging.getLogger("duroxide.orchestration")
ACTIVITY = logging.getLogger("duroxide.activity")

LEVELS = {
    "off": logging.CRITICAL + 10,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": 5,
}
_NAMES = {50: "ERROR", logging.ERROR: "ERROR", logging.WARNING: "WARN", logging.INFO: "INFO", logging.DEBUG: "DEBUG"}
_FIELDS = (
    "instance_id", "execution_id", "orchestration_name", "orchestration_version", "activity_name", "activity_id", "worker_id",
)  # fmt: skip
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# log call, this function, context._trace, context.trace_info, the user's line: records should name the last.
_STACK = 4

_installing = threading.Lock()
_installed: logging.Handler | None = None


def orchestration(level: str, text: str, context: OrchestrationContext) -> None:
    """Log one trace of an orchestration; unknown levels count as info."""
    number = LEVELS.get(level, logging.INFO)
    if ORCHESTRATION.isEnabledFor(number):
        ORCHESTRATION.log(number, text, extra=_ids(context), stacklevel=_STACK)


def activity(level: str, text: str, context: ActivityContext) -> None:
    """Log one trace of an activity; unknown levels count as info."""
    number = LEVELS.get(level, logging.INFO)
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
    with _installing:
        if _installed is not None:
            return False
        _installed = logging.StreamHandler(stream)
        _installed.setFormatter(JsonLines() if shape == "json" else PlainLines())
        ROOT.addHandler(_installed)
        _set_levels(level)
    return True


def _set_levels(level: str) -> None:
    wanted = _directives(os.environ.get("RUST_LOG", ""))
    if wanted is None:
        number = LEVELS.get(level.lower())
        wanted = {ROOT.name: logging.WARNING}
        for logger in (ORCHESTRATION, ACTIVITY):
            wanted[logger.name] = logging.WARNING if number is None else number
    for name, number in wanted.items():
        logging.getLogger(name).setLevel(number)
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


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _fields(record: logging.LogRecord) -> dict[str, str]:
    return {name: str(value) for name in _FIELDS if (value := getattr(record, name, None)) is not None}


def _message(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    text = record.getMessage()
    return f"{text}\n{formatter.formatException(record.exc_info)}" if record.exc_info else text


class PlainLines(logging.Formatter):
    """`2026-01-01T00:00:00.000000Z  INFO duroxide::orchestration: text instance_id=i execution_id=1 ...`; controls escaped."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        line = f"{_message(self, record)}{fields}"
        line = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", line)
        return f"{_time(record)} {_NAMES.get(record.levelno, 'TRACE'):>5} {record.name.replace('.', '::')}: {line}"


class JsonLines(logging.Formatter):
    """One JSON object a line: timestamp, level, fields (message and ids, all text), target."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "timestamp": _time(record),
            "level": _NAMES.get(record.levelno, "TRACE"),
            "fields": {"message": _message(self, record), **_fields(record)},
            "target": record.name.replace(".", "::"),
        }
        return json.dumps(line, ensure_ascii=False)
