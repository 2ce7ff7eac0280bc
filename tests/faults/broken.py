"""A disk that fails at the n-th operation of a kind, and one with no room, as the VFS "broken": see broken_disk.c.

Owns which errors there are, by the operation that can have them. Refuses to know what runs on it.
"""

from __future__ import annotations

import ctypes
import functools

import apsw
from faults.compiled import compiled

VFS = "broken"
# operation -> what it may fail with: names of result codes. The order is that of broken_disk.c.
FAILURES: dict[str, tuple[str, ...]] = {
    "open": ("CANTOPEN", "NOMEM", "IOERR"),
    "read": ("IOERR_READ", "NOMEM", "CORRUPT", "NOTADB", "IOERR_CORRUPTFS"),
    "write": ("IOERR_WRITE", "FULL", "NOMEM", "READONLY"),
    "sync": ("IOERR_FSYNC", "IOERR_DIR_FSYNC", "FULL"),
    "truncate": ("IOERR_TRUNCATE",),
    "size": ("IOERR_FSTAT",),
    "lock": ("BUSY", "IOERR_LOCK", "IOERR_RDLOCK"),
    "unlock": ("IOERR_UNLOCK",),
    "check_reserved": ("IOERR_CHECKRESERVEDLOCK",),
    "delete": ("IOERR_DELETE",),
    "access": ("IOERR_ACCESS", "NOMEM"),
    "shm_map": ("IOERR_SHMSIZE", "IOERR_SHMMAP", "NOMEM", "CANTOPEN"),
    "shm_lock": ("BUSY", "IOERR_SHMLOCK"),
}
OPERATIONS = tuple(FAILURES)
EVERY = [(operation, error) for operation, errors in FAILURES.items() for error in errors]


@functools.cache
def disk() -> Disk:
    """The one of this process; registers the VFS."""
    return Disk()


class Disk:
    def __init__(self) -> None:
        path = compiled("broken_disk.c")
        connection = apsw.Connection(":memory:")
        connection.enable_load_extension(True)
        connection.load_extension(path, "sqlite3_broken_init")
        connection.close()
        self._library = ctypes.CDLL(path)
        for name, parameters in (("plan", 4), ("room", 1), ("count", 0), ("struck", 0)):
            function = getattr(self._library, f"broken_{name}")
            function.argtypes, function.restype = [ctypes.c_int64] * parameters, ctypes.c_int64 if not parameters else None

    def plan(self, operation: str, error: str, first: int, burst: int = 1) -> None:
        """`operation` fails with `error` at its `first` call from now on and at the ones after it, `burst` in all."""
        code = getattr(apsw, f"SQLITE_{error}")
        self._library.broken_plan(OPERATIONS.index(operation), code, first, burst)

    def heal(self) -> None:
        self._library.broken_plan(-1, 0, 0, 0)

    def room(self, size: int) -> None:
        """From now on no file grows beyond `size` bytes."""
        self._library.broken_room(size)

    @property
    def count(self) -> int:
        """How many operations of the planned kind there were."""
        return int(self._library.broken_count())

    @property
    def struck(self) -> int:
        """How many of them failed."""
        return int(self._library.broken_struck())
