"""Which owners of leases are alive: each keeps a file beside the database locked; the lock ends with its process, however that
ends.

Owns those files and nothing of the database. POSIX record locks belong to a process and drop when *any* descriptor of the file is
closed in it, so a process never opens the file of an owner of its own; a forked child is no owner.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

if os.name == "nt":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


TRIES = 100  # where nothing can be locked at all there is no end to trying

_own: dict[str, int] = {}  # path -> locked descriptor
_guard = threading.Lock()


def _forget() -> None:
    """In a forked child: the locks stayed with the parent, the descriptors are left as they are."""
    global _guard
    _guard = threading.Lock()
    _own.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


class Owners:
    """The owners of one database file; their files stand in `{path}-owners/`."""

    def __init__(self, path: str) -> None:
        self.directory: str = os.path.realpath(path) + "-owners"

    def announce(self, owner: str) -> Callable[[], None]:
        """Hold the file of `owner` locked until the returned function is called. OSError if that cannot be."""
        path = os.path.join(self.directory, owner)
        failure: OSError | None = None
        for _ in range(TRIES):
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.directory)
            try:
                with _guard:  # in one step: a file that is not in `_own` is taken for somebody else's
                    descriptor = _own[path] = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
            except FileNotFoundError as error:
                failure = error
                continue  # the last one out took the directory away between the two calls
            try:
                _lock(descriptor)
                if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
                    return lambda: self._withdraw(path)
            except OSError as error:
                failure = error
            self._withdraw(path)  # somebody took the unlocked file for a dead owner's
        raise failure or OSError(f"{path} is taken away each time")

    def _withdraw(self, path: str) -> None:
        with _guard:
            descriptor = _own.pop(path, None)
            if descriptor is not None:
                with contextlib.suppress(OSError):
                    os.unlink(path)
        if descriptor is not None:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                os.rmdir(self.directory)  # only the last one out succeeds

    @contextlib.contextmanager
    def dead(self) -> Iterator[list[str]]:
        """Owners whose process is gone, theirs while the block runs; after it (without an error) they are forgotten."""
        held: dict[str, int] = {}
        try:
            for name in self._names():
                path = os.path.join(self.directory, name)
                with _guard:
                    if path in _own:
                        continue
                    descriptor = self._take(path)
                if descriptor is not None:
                    held[path] = descriptor
            yield [os.path.basename(path) for path in held]
            for path in held:
                with contextlib.suppress(OSError):
                    os.unlink(path)
        finally:
            for descriptor in held.values():
                os.close(descriptor)

    def _names(self) -> list[str]:
        try:
            return os.listdir(self.directory)
        except OSError:
            return []

    @staticmethod
    def _take(path: str) -> int | None:
        """The file locked by us, or None if its owner lives (or it is gone)."""
        try:
            descriptor = os.open(path, os.O_RDWR)
        except OSError:
            return None
        try:
            _lock(descriptor)
        except OSError:
            os.close(descriptor)
            return None
        return descriptor
