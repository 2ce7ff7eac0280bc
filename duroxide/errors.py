"""The exception tree and the shape of every message. Imports nothing of ours.

What the reference raises as a bare `Exception` or `RuntimeError` is raised here as a subclass with the same text, so that code
which matches on either keeps working, and with attributes, so that new code need not parse a message.
"""

from __future__ import annotations

from typing import Any


class DuroxideError(Exception):
    """Base of everything this package raises on its own account."""


class ActivityError(DuroxideError):
    """An activity failed for good. `str()` is `Activity '{name}' call failed: {Type}: {message}` or the stored text."""

    def __init__(
        self, text: str, activity: str | None = None, error_type: str | None = None, instance_id: str | None = None
    ) -> None:
        super().__init__(text)
        self.activity = activity
        self.error_type = error_type
        self.instance_id = instance_id

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.activity, self.error_type, self.instance_id)


class ActivityTimeout(ActivityError, TimeoutError):
    """A retry policy's time ran out: `timeout: activity timed out`."""


class SubOrchestrationError(DuroxideError):
    """A child orchestration failed. `str()` is the child's error text."""

    def __init__(self, text: str, orchestration: str | None = None, instance_id: str | None = None) -> None:
        super().__init__(text)
        self.orchestration = orchestration
        self.instance_id = instance_id

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.orchestration, self.instance_id)


class Cancelled(SubOrchestrationError):
    """A child orchestration was cancelled: `canceled: {reason}`."""


class OrchestrationFailed(DuroxideError):
    """`Client.wait_for_orchestration_typed` on a failed instance. `str()` is `status.error`."""

    def __init__(self, text: str, instance_id: str | None = None) -> None:
        super().__init__(text)
        self.instance_id = instance_id


class NondeterminismError(OrchestrationFailed):
    """The code no longer asks for what its history holds: `nondeterministic: ...`."""


class PoisonError(OrchestrationFailed):
    """A message was fetched more often than `max_attempts` allows: `poison: ...`."""


class OperationTimeout(RuntimeError, TimeoutError):
    """A `wait_for_...` call ran out of time: `Operation timed out`."""


class ProviderError(RuntimeError):
    """A store could not be opened or could not do what was asked; the text names operation, place and reason."""


class NotFound(RuntimeError, LookupError):
    """A client call that needs an instance or an execution did not find it: `{call}: Instance {id} not found`."""


class OptionError(ValueError, RuntimeError):
    """A registration or an option that cannot work, said at the call or at `Runtime.start()`."""
