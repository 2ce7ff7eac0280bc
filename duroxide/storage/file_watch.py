"""Being told by the system that somebody wrote to a file, where it tells (Linux: inotify), instead of asking again and again.

Owns one watch, which is set while somebody waits and only then: a watched file costs those who write to it. Knows no databases.
"""

from __future__ import annotations

import os
import select

IN_MODIFY, IN_CLOEXEC, IN_NONBLOCK = 0x2, 0o2000000, 0o4000


class FileWatch:
    """One file that is there. OSError, ImportError or AttributeError where the system does not tell; one thread waits at a time."""

    def __init__(self, path: str) -> None:
        self._fd = self._watched = -1
        import ctypes  # 5 ms, in a thread that has nothing else to do (docs/decisions/0055-imports-wait-until-they-are-needed.md)

        self._libc, self._path = ctypes.CDLL(None, use_errno=True), os.fsencode(path)
        self._errno = ctypes.get_errno
        self._fd = self._checked(self._libc.inotify_init1(IN_CLOEXEC | IN_NONBLOCK))

    def __del__(self) -> None:
        if self._fd >= 0:  # not before: a thread may wait, and the number would be somebody else's file
            os.close(self._fd)

    def _checked(self, code: int) -> int:
        if code < 0:
            raise OSError(self._errno(), os.strerror(self._errno()))
        return code

    def wait(self, seconds: float) -> bool:
        """Sleeps until somebody writes to the file, at most so long; whether somebody did. What was written before the watch was set is
        not told: the first wait, and each after one that was True, only sets it and returns False at once."""
        if self._watched < 0:
            self._watched = self._checked(self._libc.inotify_add_watch(self._fd, self._path, IN_MODIFY))
            return False
        if not select.select([self._fd], [], [], seconds)[0]:
            return False
        self._checked(self._libc.inotify_rm_watch(self._fd, self._watched))
        self._watched = -1
        while select.select([self._fd], [], [], 0)[0]:
            os.read(self._fd, 4096)
        return True
