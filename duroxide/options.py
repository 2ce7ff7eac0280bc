"""Options and filters that users construct, their defaults, the limits and the tag filter's text form.

Owns what each option means when it is left out and which combinations cannot work. Refuses to know who reads them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from . import arguments
from .errors import OptionError
from .results import Record

MAX_WORKER_TAGS = 5
MAX_TAG_NAME_BYTES = 256
MAX_KV_KEYS = 150
MAX_KV_VALUE_BYTES = 65_536

# Stands for "no limit" where an option is negative; small enough to be added to a time in ms.
UNLIMITED = (1 << 31) - 1

_DEFAULTS: dict[str, Any] = {
    "orchestration_concurrency": 2,
    "worker_concurrency": 2,
    "dispatcher_poll_interval_ms": 100,
    "worker_lock_timeout_ms": 30_000,
    "log_format": "compact",
    "log_level": "info",
    "service_name": None,
    "service_version": None,
    "max_sessions_per_runtime": 10,
    "session_idle_timeout_ms": 300_000,
    "worker_node_id": None,
    "worker_tag_filter": "default_only",
    "orchestrator_lock_timeout_ms": 5_000,
    "orchestrator_lock_renewal_buffer_ms": 2_000,
    "max_attempts": 10,
    "worker_lock_renewal_buffer_ms": 5_000,
    "session_lock_timeout_ms": 30_000,
    "session_lock_renewal_buffer_ms": 5_000,
}
_I32 = ("orchestration_concurrency", "worker_concurrency", "max_sessions_per_runtime", "max_attempts")
_UNLIMITED_IF_NEGATIVE = ("max_sessions_per_runtime", "session_idle_timeout_ms", "max_attempts")
_AT_LEAST_ONE = ("worker_lock_timeout_ms", "orchestrator_lock_timeout_ms")


class RuntimeOptions(Record):
    """How a `Runtime` works. Everything may be left out; times are in ms; reading an attribute gives what was passed.

    orchestration_concurrency, worker_concurrency: turns and activities run at once (2, 2; 0: none).
    dispatcher_poll_interval_ms: the longest pause between looks at the store where no signal can come (100).
    orchestrator_lock_timeout_ms, worker_lock_timeout_ms, session_lock_timeout_ms: leases of instances (5,000), activities
    (30,000) and sessions (30,000), renewed when a third of their time is over; the `..._renewal_buffer_ms` are accepted and only
    checked against the others.
    max_attempts: how often a message may be fetched before it is given up as poison (10; negative: no limit).
    max_sessions_per_runtime (10), session_idle_timeout_ms (300,000), worker_node_id: sessions held here, and by whom.
    worker_tag_filter: which activities this runtime takes, see `TagFilter`.
    log_format ("compact", "json", "pretty"), log_level: if one is given and nothing else was set up, traces go to stdout.
    service_name, service_version: kept for the reference's sake; no effect on log lines there or here.
    """

    orchestration_concurrency: int | None
    worker_concurrency: int | None
    dispatcher_poll_interval_ms: int | None
    worker_lock_timeout_ms: int | None
    log_format: str | None
    log_level: str | None
    service_name: str | None
    service_version: str | None
    max_sessions_per_runtime: int | None
    session_idle_timeout_ms: int | None
    worker_node_id: str | None
    worker_tag_filter: str | None
    orchestrator_lock_timeout_ms: int | None
    orchestrator_lock_renewal_buffer_ms: int | None
    max_attempts: int | None
    worker_lock_renewal_buffer_ms: int | None
    session_lock_timeout_ms: int | None
    session_lock_renewal_buffer_ms: int | None

    def __init__(
        self,
        orchestration_concurrency: int | None = None,
        worker_concurrency: int | None = None,
        dispatcher_poll_interval_ms: int | None = None,
        worker_lock_timeout_ms: int | None = None,
        log_format: str | None = None,
        log_level: str | None = None,
        service_name: str | None = None,
        service_version: str | None = None,
        max_sessions_per_runtime: int | None = None,
        session_idle_timeout_ms: int | None = None,
        worker_node_id: str | None = None,
        worker_tag_filter: str | None = None,
        orchestrator_lock_timeout_ms: int | None = None,
        orchestrator_lock_renewal_buffer_ms: int | None = None,
        max_attempts: int | None = None,
        worker_lock_renewal_buffer_ms: int | None = None,
        session_lock_timeout_ms: int | None = None,
        session_lock_renewal_buffer_ms: int | None = None,
    ) -> None:
        given = dict(locals())
        for name, default in _DEFAULTS.items():
            value = given[name]
            if value is None:
                pass
            elif default is None or isinstance(default, str):
                value = arguments.text(name, value)
            else:
                value = arguments.signed(name, value, 32 if name in _I32 else 64)
            self.__dict__[name] = value

    def __repr__(self) -> str:
        return f"RuntimeOptions({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items() if value is not None)})"

    def effective(self, name: str) -> Any:
        """The value of one option with its default filled in."""
        value = self.__dict__[name]
        if value is None:
            return _DEFAULTS[name]
        return UNLIMITED if name in _UNLIMITED_IF_NEGATIVE and value < 0 else value

    def check(self) -> None:
        """Raise OptionError for values that cannot work, naming the option; called when a runtime starts."""
        for name, default in _DEFAULTS.items():
            least = 1 if name in _AT_LEAST_ONE else 0
            if isinstance(default, int) and self.effective(name) < least:
                raise OptionError(f"{name} must be at least {least}, got {self.effective(name)}")
        parse_tag_filter(self.effective("worker_tag_filter"))
        idle = self.effective("session_idle_timeout_ms")
        renewal = max(1_000, self.effective("worker_lock_timeout_ms") - self.effective("worker_lock_renewal_buffer_ms"))
        if idle <= renewal:
            raise OptionError(
                f"session_idle_timeout ({idle / 1000:g}s) must be greater than "
                f"worker lock renewal interval ({renewal / 1000:g}s). Sessions would unpin during long-running activity "
                "execution. Increase session_idle_timeout or decrease worker_lock_timeout."
            )


class PruneOptions(Record):
    """Which executions `Client.prune_executions` removes: all but the newest `keep_last` (the current one counts), those completed
    before a time (`completed_before`, Unix ms), or those to which both apply."""

    keep_last: int | None
    completed_before: int | None

    def __init__(self, keep_last: int | None = None, completed_before: int | None = None) -> None:
        self.__dict__["keep_last"] = None if keep_last is None else arguments.signed("keep_last", keep_last)
        self.__dict__["completed_before"] = _time("completed_before", completed_before)


class InstanceFilter(Record):
    """Which instances a bulk call touches: these ids (None: any), completed before a time (Unix ms), at most `limit` of them
    (None: 1,000; negative: no limit)."""

    instance_ids: list[str] | None
    completed_before: int | None
    limit: int | None

    def __init__(
        self, instance_ids: Iterable[str] | None = None, completed_before: int | None = None, limit: int | None = None
    ) -> None:
        self.__dict__["instance_ids"] = None if instance_ids is None else arguments.texts("instance_ids", instance_ids)
        self.__dict__["completed_before"] = _time("completed_before", completed_before)
        self.__dict__["limit"] = None if limit is None else arguments.signed("limit", limit)


def _time(name: str, value: Any) -> int | None:
    return None if value is None else arguments.signed(name, value)


class TagFilter:
    """Texts for `RuntimeOptions.worker_tag_filter`: untagged activities only, any, none, given tags, or untagged and given."""

    DEFAULT_ONLY = "default_only"
    ANY = "any"
    NONE = "none"

    @staticmethod
    def tags(tags: Iterable[str]) -> str:
        """Only activities with one of these tags (at most `MAX_WORKER_TAGS`)."""
        return json.dumps({"tags": list(tags)})

    @staticmethod
    def default_and(tags: Iterable[str]) -> str:
        """Activities without a tag, and those with one of these tags (at most `MAX_WORKER_TAGS`)."""
        return json.dumps({"default_and": list(tags)})


def parse_tag_filter(text: str) -> tuple[str, tuple[str, ...]]:
    """(mode, tags) of a tag filter's text. A text that is none of the known forms means untagged activities only, as in
    the reference (`is_tag_filter` tells); too many tags or none at all is an OptionError."""
    if text in (TagFilter.DEFAULT_ONLY, TagFilter.ANY, TagFilter.NONE):
        return text, ()
    found = _tag_lists(text)
    for mode in ("tags", "default_and"):
        if not isinstance(found.get(mode), list):
            continue
        tags = tuple(dict.fromkeys(tag for tag in found[mode] if isinstance(tag, str)))
        if len(tags) > MAX_WORKER_TAGS:
            raise OptionError(f"Worker can subscribe to at most {MAX_WORKER_TAGS} tags, got {len(tags)}")
        if not tags:
            instead = "TagFilter::None for no activities" if mode == "tags" else "TagFilter::DefaultOnly for untagged only"
            raise OptionError(f"TagFilter::{mode}() requires at least one tag; use {instead}")
        return mode, tags
    return TagFilter.DEFAULT_ONLY, ()


def is_tag_filter(text: str) -> bool:
    """Whether the text is one of the known forms; a runtime warns where it is not."""
    known = (TagFilter.DEFAULT_ONLY, TagFilter.ANY, TagFilter.NONE)
    return text in known or any(isinstance(tags, list) for tags in _tag_lists(text).values())


def _tag_lists(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return {k: v for k, v in found.items() if k in ("tags", "default_and")} if isinstance(found, dict) else {}
