"""The runtime's time: what is now, how long to wait, and what is random. Tests put a clock of their own in its place.

Owns every call of the operating system's clocks and of randomness that the runtime makes. Imports nothing of ours.
"""

from __future__ import annotations

import random
import threading
import time
import uuid


class Clock:
    """The system's clock. `now` is in Unix ms, `monotonic` and `wait` in seconds."""

    def now(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Whether the event was set within that time."""
        return event.wait(seconds)

    def between(self, low: float, high: float) -> float:
        return random.uniform(low, high)

    def token(self) -> str:
        """A name that nobody else has: 16 hex digits."""
        return uuid.uuid4().hex[:16]

    def guid(self) -> str:
        return str(uuid.uuid4())


SYSTEM = Clock()
now = SYSTEM.now
