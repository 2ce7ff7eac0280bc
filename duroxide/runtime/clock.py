"""The runtime's time: what is now, how long to wait, and what is random. Tests put a clock of their own in its place.

Owns every call of the operating system's clocks and of randomness that the runtime makes. Imports nothing of ours.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable


class Clock:
    """The system's clock. `now` is in Unix ms, `monotonic` and `wait` in seconds."""

    def now(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Whether the event was set within that time."""
        return event.wait(seconds)

    def token(self) -> str:
        """A name that nobody else has: 16 hex digits."""
        return os.urandom(8).hex()

    def guid(self) -> str:
        """A random UUID, version 4, as text. (`uuid` imports `platform`: 4 ms, a fifth of what our own modules take.)"""
        bits = int.from_bytes(os.urandom(16), "big") & ~(0xF << 76) & ~(0x3 << 62) | (0x4 << 76) | (0x2 << 62)
        text = f"{bits:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


SYSTEM = Clock()
now: Callable[[], int] = SYSTEM.now
