"""The two shapes of a trace line, as formatters of the standard `logging` module.

Owns what a line looks like. Refuses to know who writes it and where it goes. Imported when traces are first sent somewhere.
"""

from __future__ import annotations

import json
import logging
import re
from datetime import datetime, timezone
from typing import TextIO

_NAMES = {50: "ERROR", logging.ERROR: "ERROR", logging.WARNING: "WARN", logging.INFO: "INFO", logging.DEBUG: "DEBUG"}
_FIELDS = (
    "instance_id", "execution_id", "orchestration_name", "orchestration_version", "activity_name", "activity_id", "worker_id",
)  # fmt: skip
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def handler(stream: TextIO, shape: str) -> logging.Handler:
    """What writes lines of that shape ("json", else plain) to a stream."""
    writes = logging.StreamHandler(stream)
    writes.setFormatter(JsonLines() if shape == "json" else PlainLines())
    return writes


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
