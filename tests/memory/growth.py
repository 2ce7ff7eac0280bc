"""Does an operation keep what it took? Counted, not timed: Python's blocks, the collector's objects, the bytes of C's heap.

A leak shows in every round, noise (caches that fill, threads that come) does not: the least growth of several rounds counts.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import sys
from collections.abc import Callable
from typing import NamedTuple

ROUNDS = 3
_numbers = itertools.count()


class Held(NamedTuple):
    blocks: int  # of Python's small-object allocator
    objects: int  # that the collector knows
    heap: int  # bytes that malloc gave and has not got back


class _Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]


def _heap() -> int:
    """Bytes in use in all arenas of glibc and in its mappings; 0 where there is no glibc."""
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return 0
    ask.restype = _Mallinfo
    found = ask()
    return int(found.uordblks + found.hblkhd)


def held() -> Held:
    gc.collect()
    return Held(sys.getallocatedblocks(), len(gc.get_objects()), _heap())


def growth(operation: Callable[[int], object], count: int) -> Held:
    """The least that `count` calls of `operation(n)` added in a round, after one to warm up; n never comes twice."""
    numbers = _numbers
    for _ in range(count):
        operation(next(numbers))
    rounds = []
    for _ in range(ROUNDS):
        before = held()
        for _ in range(count):
            operation(next(numbers))
        after = held()
        rounds.append(Held(*(b - a for a, b in zip(before, after))))
    return Held(*(min(column) for column in zip(*rounds)))


def leak(operation: Callable[[int], object], count: int) -> str:
    """What it keeps a call, in words; empty: nothing. What grows in `count` calls has to grow in ten and a hundred times as
    many, too: the rest is noise, caches that fill once and take less and less a call."""
    found = ""
    for calls in (count, 10 * count, 100 * count):
        limits = Held(calls // 2, calls // 2, 24 * calls + 4_096)
        found = ", ".join(
            f"{name} {value / calls:.1f}" for name, value, limit in zip(Held._fields, growth(operation, calls), limits) if value > limit
        )
        if not found:
            break
    return found
