"""A disk that remembers what was written and what was synced, and what it could hold after the power went.

Owns the tape (every write, truncation, sync, creation and deletion, in order, with the facts that were acknowledged between them) and
the rules by which a cut turns a tape into files. Refuses to know what the files mean.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

SECTORS = (512, 4096)
HOW = ("lost", "kept", "prefix", "any", "torn")


@dataclass
class Op:
    """One step on the tape. `kind`: create (`value`: what is in it), write, truncate (`offset`: to), sync and delete (`value`: whether
    the directory was synced too), fact."""

    kind: str
    file: str = ""
    offset: int = 0
    value: Any = None


class Tape:
    """What happened to the files of one directory, in order, and what was told meanwhile."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.known: set[str] = set()

    def add(self, kind: str, file: str = "", offset: int = 0, value: Any = None) -> None:
        self.ops.append(Op(kind, file, offset, value))

    def fact(self, value: Any) -> None:
        """Somebody has been told this."""
        self.add("fact", value=value)


class RecordedFile(apsw.VFSFile):
    def __init__(self, vfs: RecordingVFS, name: Any, flags: list[int]) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self.tape, self.lazy, self.file = vfs.tape, vfs.lazy, os.path.basename(path)
        self.opens_journal = self.file.endswith(("-wal", "-journal")) and bool(flags[0] & apsw.SQLITE_OPEN_CREATE)
        content = Path(path).read_bytes() if self.file not in self.tape.known and os.path.exists(path) and os.path.getsize(path) else b""
        super().__init__(vfs.base, name, flags)
        if self.file not in self.tape.known:
            self.tape.known.add(self.file)
            self.tape.add("create", self.file, 0, content)

    def xWrite(self, data: bytes, offset: int) -> None:
        super().xWrite(data, offset)
        self.tape.add("write", self.file, offset, bytes(data))

    def xTruncate(self, size: int) -> None:
        super().xTruncate(size)
        self.tape.add("truncate", self.file, size)

    def xSync(self, flags: int) -> None:
        """The first sync of a journal by whoever may have created it syncs the directory, as SQLite's own VFS does."""
        if not self.lazy:
            self.tape.add("sync", self.file, 0, self.opens_journal)
            self.opens_journal = False


class RecordingVFS(apsw.VFS):
    """Registered as `name`. Nothing is really synced: the tape is the disk. `lazy`, a bug to be caught: a sync does nothing at all."""

    def __init__(self, name: str, tape: Tape, lazy: bool = False, base: str = "") -> None:
        self.name, self.tape, self.lazy, self.base = name, tape, lazy, base
        super().__init__(name, base)

    def xOpen(self, name: Any, flags: list[int]) -> RecordedFile:
        return RecordedFile(self, name, flags)

    def xDelete(self, name: str, sync: bool) -> None:
        super().xDelete(name, sync)
        self.tape.known.discard(os.path.basename(name))
        self.tape.add("delete", os.path.basename(name), 0, bool(sync) and not self.lazy)


def apply(content: bytearray, op: Op) -> None:
    end = op.offset + (len(op.value) if op.kind == "write" else 0)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    if op.kind == "truncate":
        del content[op.offset :]
    else:
        content[op.offset : end] = op.value


@dataclass
class Inode:
    """One file: what is surely on the disk, and the steps since its last sync."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Op] = field(default_factory=list)

    def sync(self) -> None:
        for op in self.pending:
            apply(self.durable, op)
        self.pending.clear()


class Disk:
    """The tape up to a place: inodes, and two directories, the one that programs see and the one that is surely on the disk."""

    def __init__(self) -> None:
        self.names: dict[str, Inode] = {}
        self.durable_names: dict[str, Inode] = {}

    def play(self, op: Op) -> None:
        if op.kind == "create":
            self.names[op.file] = Inode(bytearray(op.value))
        elif op.kind in ("write", "truncate"):
            self.names[op.file].pending.append(op)
        elif op.kind == "sync":
            self.names[op.file].sync()
        elif op.kind == "delete":
            self.names.pop(op.file, None)
        if op.kind in ("sync", "delete") and op.value:
            self.durable_names = dict(self.names)

    def cut(self, lots: random.Random, how: str, sector: int) -> dict[str, bytes]:
        """Files as they could be after the power went now. `how`, of what was not synced: "lost" (nothing is there), "kept" (all is),
        "prefix" (what came first, the last step torn), "any" (each step or not: writes reordered), "torn" (each sector of each or not)."""
        found = {}
        for file in sorted(self.names.keys() | self.durable_names.keys()):
            new = how == "kept" or (how != "lost" and lots.random() < 0.5)
            inode = (self.names if new else self.durable_names).get(file)
            if inode is not None:
                found[file] = content_of(inode, lots, how, sector)
        return found


def content_of(inode: Inode, lots: random.Random, how: str, sector: int) -> bytes:
    content, pending = bytearray(inode.durable), inode.pending
    if how == "prefix":
        upto = lots.randint(0, len(pending))
        parts = sectors(pending[upto], sector) if upto < len(pending) else []
        pending = pending[:upto] + parts[: lots.randint(0, len(parts))]
    elif how == "any":
        pending = [op for op in pending if lots.random() < 0.5]
    elif how == "torn":
        pending = [part for op in pending for part in sectors(op, sector) if lots.random() < 0.5]
    elif how == "lost":
        pending = []
    for op in pending:
        apply(content, op)
    if how == "torn" and lots.random() < 0.5:  # where the file grew and nothing was written there may be anything
        junk(content, inode, pending, lots, sector)
    return bytes(content)


def junk(content: bytearray, inode: Inode, there: list[Op], lots: random.Random, sector: int) -> None:
    written = {op.offset // sector for op in there if op.kind == "write"}
    for number in range(len(inode.durable) // sector + 1, len(content) // sector):
        if number not in written:
            content[number * sector : (number + 1) * sector] = lots.randbytes(sector)


def sectors(op: Op, sector: int) -> list[Op]:
    """A write as one step for each sector that it touches."""
    if op.kind != "write":
        return [op]
    parts, at, end = [], op.offset, op.offset + len(op.value)
    while at < end:
        to = min(end, (at // sector + 1) * sector)
        parts.append(Op("write", op.file, at, op.value[at - op.offset : to - op.offset]))
        at = to
    return parts


def lay_out(files: dict[str, bytes], directory: Path, lots: random.Random) -> None:
    """At times a -shm file of before the cut is still there: nobody ever synced it, so it holds anything."""
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_bytes(content)
        if name.endswith("-wal") and lots.random() < 0.3:
            (directory / name.replace("-wal", "-shm")).write_bytes(lots.randbytes(32_768))
