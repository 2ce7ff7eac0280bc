"""Room for the write-ahead log: blocks that are there before a commit needs them. What makes a file longer is synced by the file
system's journal too, which takes twice as long as writing what is there (docs/decisions/0058-room-for-the-log.md).

Owns how much is added and how. Refuses to know what is in the log: whoever calls `extend` keeps others from writing to it.
"""

from __future__ import annotations

import apsw

ROOM = 4_000 * 4_120  # bytes: all the frames up to a checkpoint (`wal_autocheckpoint`), then SQLite begins at the front again
PIECE = 1 << 20  # bytes: for this long others do not write
WRITE = 1 << 16  # bytes: as SQLite's largest page; its VFS takes less than twice as much at a time


def extend(path: str, vfs: str | None) -> bool:
    """Add zeros to the end of the log of the database `path`, and sync them; whether there is still room to be made.

    Within a write transaction that has written nothing: nobody else appends then. To SQLite zeros are no frames, as whatever lies behind
    the last commit is none; a log without a header is empty. Goes through the `vfs` of the database. Raises apsw.Error.
    """
    log = apsw.VFSFile(vfs or "", f"{path}-wal", [apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_WAL, 0])
    try:
        size = log.xFileSize()
        if size >= ROOM:
            return False
        until = min(size + PIECE, ROOM)
        for at in range(size, until, WRITE):
            log.xWrite(bytes(min(WRITE, until - at)), at)
        log.xSync(apsw.SQLITE_SYNC_NORMAL)
        return until < ROOM
    finally:
        log.xClose()
