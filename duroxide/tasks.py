"""What an orchestration yields: descriptors, dicts that the engine validates when they are yielded, and the type of what they give.

Owns their classes and how input and retry policies are written into them. Refuses to know what is done with them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    R_co = TypeVar("R_co", covariant=True, default=Any)
else:
    from typing import TypeVar

    R_co = TypeVar("R_co", covariant=True)  # without its default, which this Python may not have

Task = dict[str, Any]

dumps: Callable[[Any], str] = json.JSONEncoder().encode  # what json.dumps(x) does, without its look at nine options


class TypedTask(dict[str, Any], Generic[R_co]):
    """A descriptor that knows the type of its result. `TypedTask` alone is `TypedTask[Any]`."""

    def result(self) -> Generator[Any, Any, R_co]:
        """`paid = yield from task.result()` is `paid = yield task`, with the type of the result: what a bare `yield` gives has none."""
        found: R_co = yield self
        return found


class ScheduledTask(TypedTask[R_co]):
    """The descriptor of an activity: yield it, or put it into `all`/`race`."""

    def with_tag(self, tag: str | None) -> ScheduledTask[R_co]:
        """Only runtimes that take `tag` run it (`RuntimeOptions.worker_tag_filter`); None: no tag. Changes this and returns it.

        A tag of more than `MAX_TAG_NAME_BYTES` fails the instance.
        """
        self["tag"] = tag
        return self


def retry_policy(retry: dict[str, Any]) -> Task:
    """The part `retry` of a descriptor, from what the schedule calls are given in either spelling."""
    policy = {
        "maxAttempts": retry.get("max_attempts", retry.get("maxAttempts", 3)),
        "timeoutMs": retry.get("timeout_ms", retry.get("timeoutMs")),
        "totalTimeoutMs": retry.get("total_timeout_ms", retry.get("totalTimeoutMs")),
        "backoff": retry.get("backoff"),
    }
    overall = retry.get("overall_timeout_ms", retry.get("overallTimeoutMs"))
    return policy if overall is None else {**policy, "overallTimeoutMs": overall}
