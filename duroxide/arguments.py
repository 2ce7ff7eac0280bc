"""What a public call checks of its arguments before anything happens, with the wording that users of the reference know.

Owns the conversions (text, integers of a width, flags). Refuses to know which call it serves, stores and options.
"""

from __future__ import annotations

import operator
from typing import Any

from .errors import OptionError

MARKER = "sub::"


def text(argument: str, value: Any) -> str:
    """A plain str that UTF-8 can hold; TypeError otherwise, UnicodeEncodeError for a lone surrogate."""
    if not isinstance(value, str):
        raise TypeError(f"argument '{argument}': '{type(value).__name__}' object cannot be converted to 'PyString'")
    if not value.isascii():
        value.encode()
    return value if type(value) is str else str.__str__(value)


def optional_text(argument: str, value: Any) -> str | None:
    return None if value is None else text(argument, value)


def _index(argument: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError as error:
        raise TypeError(f"argument '{argument}': {error}") from None


def signed(argument: str, value: Any, bits: int = 64) -> int:
    """An int of `bits` bits (bool counts as int, float does not); TypeError or OverflowError otherwise."""
    number = _index(argument, value)
    if not -(1 << 63) <= number < 1 << 63:
        raise OverflowError("Python int too large to convert to C long")
    if not -(1 << (bits - 1)) <= number < 1 << (bits - 1):
        raise OverflowError("out of range integral type conversion attempted")
    return number


def unsigned(argument: str, value: Any) -> int:
    """An int of 64 bits that is not negative; TypeError or OverflowError otherwise."""
    number = _index(argument, value)
    if number < 0:
        raise OverflowError("can't convert negative int to unsigned")
    if number >= 1 << 64:
        raise OverflowError("int too big to convert")
    return number


def flag(argument: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"argument '{argument}': '{type(value).__name__}' object cannot be converted to 'PyBool'")
    return value


def texts(argument: str, value: Any) -> list[str]:
    """A list of str from a list or tuple (any sequence but a str); TypeError otherwise."""
    if isinstance(value, str):
        raise TypeError(f"argument '{argument}': Can't extract `str` to `Vec`")
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"argument '{argument}': '{type(value).__name__}' object cannot be converted to 'Sequence'")
    return [text(argument, item) for item in value]


def root_instance(argument: str, value: Any) -> str:
    """An instance id that a client may start: not one of those that the engine makes for children (OptionError)."""
    instance = text(argument, value)
    if instance.startswith(MARKER) or "::" + MARKER in instance:
        raise OptionError(f"Invalid input: instance id '{instance}' uses the reserved sub-orchestration marker '{MARKER}'")
    return instance


def native(provider: Any) -> Any:
    """The store behind a provider object, or the object itself if it is a store. TypeError if there is none."""
    store = provider if hasattr(provider, "exchange") else provider._native
    if not hasattr(store, "exchange"):
        raise TypeError(f"argument 'provider': '{type(store).__name__}' object cannot be converted to 'PySqliteProvider'")
    return store
