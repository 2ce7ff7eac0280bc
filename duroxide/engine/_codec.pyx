# cython: language_level=3
"""JSON text <-> user values, byte-identical to `json.dumps`/`json.loads` with their defaults, faster for what is common.

Owns the rules which of a payload's two forms (text, value) is used where; refuses to know events.
"""

from json import JSONDecoder, dumps as _dumps, loads as _loads
from json.encoder import encode_basestring_ascii as _ascii

cdef object _scan = JSONDecoder().scan_once


def dumps(obj):
    """`json.dumps(obj)`; TypeError/ValueError as there."""
    if obj is None:
        return "null"
    if obj is True:
        return "true"
    if obj is False:
        return "false"
    if type(obj) is str:
        return _ascii(obj)
    if type(obj) is int:
        return str(obj)
    return _dumps(obj)


def loads(str text not None):
    """`json.loads(text)`; ValueError as there."""
    if text == "null":
        return None
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        return _loads(text)
    return value if end == len(text) else _loads(text)


def read(str text not None):
    """The value of a payload: decoded JSON, or the text itself where it is none."""
    try:
        return loads(text)
    except (ValueError, RecursionError):
        return text


def clean(str text not None):
    """The text with lone surrogates replaced by U+FFFD, so that it can be stored."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
