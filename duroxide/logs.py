"""The package's loggers. `logging` itself, a tenth of the package's import time, is imported when the first is used.

Owns nothing else. Imports nothing of ours.
"""

from __future__ import annotations

from typing import Any


class Log:
    """`logging.getLogger(name)`, got at each use: calls go straight to its methods, so records name the caller's line."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name: str = name

    def __getattr__(self, attribute: str) -> Any:
        import logging

        return getattr(logging.getLogger(self.name), attribute)
