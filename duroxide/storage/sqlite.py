"""SQLite files as providers: which file a path means, how it is opened and adopted, and the connections on it.

Owns paths, pragmas, opening errors and the choice between the store in C and the one in Python. Refuses to know turns and tables
(`sqlite_schema`, `sqlite_sql`).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from weakref import WeakSet

import apsw

from duroxide.errors import ProviderError
from duroxide.logs import Log
from duroxide.storage import sqlite_log, sqlite_schema
from duroxide.storage.base import Loaded, Renewal, Renewed, Request, Store, StoreError, Taken
from duroxide.storage.file_watch import FileWatch
from duroxide.storage.liveness import Owners
from duroxide.storage.sqlite_admin import SqliteAdmin

log: Log = Log("duroxide.storage")

MEMORY = ":memory:"
HEADER = b"SQLite format 3\0"
BUSY_S = 60.0
LEVELS = {"full": 2, "normal": 1}
FORKED = (
    "before this process was forked, and SQLite cannot be used on both sides of a fork: open it in the children only,"
    " or start them with multiprocessing's 'spawn'"
)


class SqliteNative(SqliteAdmin):
    """One opened file (or memory): the verbs of the store, the admin calls, liveness. Threads may share it."""

    def __init__(self, path: str, synchronous: str, implementation: str, vfs: str | None = None) -> None:
        self.path, self._vfs = path, vfs
        self._reserves = synchronous == "full" and path != MEMORY
        self._watch: FileWatch | None = None
        self._versions = threading.Lock()
        self._version: Callable[[], int]
        self._connect: Callable[[], apsw.Connection] = lambda: _connect(path, synchronous, vfs)
        self._lock = threading.RLock()
        self._ended = ""  # why nothing can be asked any more
        self._owners = None if path == MEMORY else Owners(path)
        self._cold = self._connect()
        self._identity = _remember(path)
        try:
            _busy(path, lambda: sqlite_schema.install(self._cold, path))
            self._store, kind = self._make_store(implementation)
        except BaseException:
            self._cold.close()
            _forget(self._identity)
            raise
        self.name: str = f"sqlite ({kind})"
        _natives.add(self)
        if path == MEMORY:
            return
        # A file's verbs have connections of their own: nothing of ours stands between.
        self.exchange, self.load, self.renew = self._store.exchange, self._store.load, self._store.renew  # type: ignore[method-assign]

    def _make_store(self, implementation: str) -> tuple[Store, str]:
        memory = self.path == MEMORY
        writer = self._cold if memory else self._connect()
        reader = None if memory else self._connect()
        if implementation != "python":
            try:
                from duroxide.storage._capsule import CapsuleStore
                from duroxide.storage._sqlite import data_version, open_store

                capsule = open_store(writer, reader)
                self._version = lambda: data_version(capsule)
                return CapsuleStore(capsule), "C"
            except (ImportError, StoreError) as error:
                if implementation == "c":
                    raise ProviderError(f"Failed to open SQLite: the store in C does not run here: {error}") from error
                log.warning("the store in C does not run here, the slower one in Python does: %s", error)
        from duroxide.storage.sqlite_store import PythonStore

        store = PythonStore(writer, reader)
        self._version = store.version
        return store, "Python"

    # ── the verbs, where one connection serves all ───────────────────────────────────────────────────────────

    def exchange(self, requests: Sequence[Request]) -> list[Taken]:
        with self._lock:
            return self._store.exchange(requests)

    def load(self, instance: str, execution_id: int | None = None, after: int = 0) -> Loaded | None:
        with self._lock:
            return self._store.load(instance, execution_id, after)

    def renew(self, renewal: Renewal) -> Renewed:
        with self._lock:
            return self._store.renew(renewal)

    def close(self) -> None:
        """Close all connections; later calls raise StoreError or ProviderError. Idempotent."""
        with self._lock:
            if self._ended:
                return
            with self._versions:
                self._ended = "is closed"
                self._store.close()
            self._cold.close()
            _forget(self._identity)

    def abandon(self) -> None:
        """In a forked child: the connections and their locks are the parent's; one statement on them here could ruin the file."""
        self._lock, self._versions = threading.RLock(), threading.Lock()  # a thread that stayed behind may have held them
        self._ended = f"was opened {FORKED}"
        self.exchange = self.load = self.renew = self._refuse  # type: ignore[method-assign,assignment]

    def _refuse(self, *arguments: Any) -> Any:
        raise StoreError(f"the provider of '{self.path}' {self._ended}")

    # ── cold calls ───────────────────────────────────────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def session(self) -> Iterator[apsw.Connection]:
        with self._lock:
            if self._ended:
                raise ProviderError(f"the provider of '{self.path}' {self._ended}")
            try:
                yield self._cold
            except apsw.Error as error:
                raise ProviderError(f"'{self.path}': {error}") from error

    @contextlib.contextmanager
    def writing(self) -> Iterator[apsw.Connection]:
        with self.session() as connection:
            try:
                _busy(self.path, lambda: connection.execute("BEGIN IMMEDIATE"))
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def version(self) -> int:
        """Asked on the connection that writes, for which its own commits are no change."""
        if self.path == MEMORY:
            return 0
        with self._versions:  # nobody closes it meanwhile
            if self._ended:
                raise ProviderError(f"the provider of '{self.path}' {self._ended}")
            try:
                return self._version()
            except StoreError as error:
                raise ProviderError(f"'{self.path}': {error}") from error

    def reserve_log(self) -> bool:
        """Make some more room for the log, in a few ms; whether it is worth to be called again."""
        if self._reserves:
            try:
                with self.writing():
                    self._reserves = sqlite_log.extend(self.path, self._vfs)
            except (ProviderError, apsw.Error, OSError) as error:  # a full disk, say: commits take their time then
                self._reserves = False
                log.debug("no room for the log of '%s': %s", self.path, error)
        return self._reserves

    def rest(self, seconds: float) -> bool | None:
        """Whoever commits writes to the log first, and the system says so."""
        if self.path == MEMORY or self._ended:
            return None
        try:
            if self._watch is None:
                self._watch = FileWatch(f"{self.path}-wal")
            return self._watch.wait(seconds)
        except (ImportError, AttributeError, OSError, ValueError) as error:  # not here, or too many watches: ask, as before
            log.debug("nobody says when '%s' is written to: %s", self.path, error)
            return None

    # ── liveness ─────────────────────────────────────────────────────────────────────────────────────────────

    def announce(self, owner: str) -> Callable[[], None]:
        with self.session():
            pass  # who begins to work on a closed provider hears of it at once
        if self._owners is None:
            return lambda: None
        try:
            return self._owners.announce(owner)
        except OSError as error:
            log.warning("%s: leases of this process end only by time after a crash: %s", self._owners.directory, error)
            return lambda: None

    def reclaim(self, now: int) -> int:
        if self._owners is None:
            return 0
        with self._owners.dead() as owners:
            if not owners:
                return 0
            with self.writing() as connection:
                freed = sum(_free(connection, owner) for owner in owners)
        log.info("%d rows freed that dead owners had leased: %s", freed, ", ".join(owners))
        return freed

    def sweep_sessions(self, now: int) -> int:
        with self.writing() as connection:
            connection.execute(
                "DELETE FROM sessions WHERE locked_until <= ? AND NOT EXISTS"
                " (SELECT 1 FROM worker_queue w WHERE w.session_id = sessions.session_id)",
                (now,),
            )
            return connection.changes()


def _free(connection: apsw.Connection, owner: str) -> int:
    """Everything leased under tokens of `owner` becomes free; returns how many rows."""
    tokens = (f"lock_{owner}:", f"lock_{owner};")  # the range of its tokens: ';' follows ':'
    freed = 0
    for sql in (
        "DELETE FROM instance_locks WHERE lock_token >= ? AND lock_token < ?",
        "UPDATE orchestrator_queue SET lock_token = NULL, locked_until = NULL WHERE lock_token >= ? AND lock_token < ?",
        "UPDATE worker_queue INDEXED BY dx_work_expiry SET lock_token = NULL, locked_until = NULL WHERE lock_token >= ? AND lock_token < ?",
    ):
        connection.execute(sql, tokens)
        freed += connection.changes()
    connection.execute("DELETE FROM sessions WHERE worker_id = ?", (owner,))
    return freed + connection.changes()


# ── opening ──────────────────────────────────────────────────────────────────────────────────────────────────


def open_sqlite(path: str, *, synchronous: str = "full", implementation: str = "auto", _vfs: str | None = None) -> SqliteNative:
    """Open or create the database file that `path` means; see `SqliteProvider.open`. `implementation`: "auto", "c", "python".

    `_vfs`: a registered VFS that all connections go through, for tests that lose power or fill the disk.
    """
    if not isinstance(path, str):
        raise TypeError(f"argument 'path': '{type(path).__name__}' object cannot be converted to 'PyString'")
    if synchronous not in LEVELS:
        raise ValueError(f"synchronous is {synchronous!r}, expected 'full' (survives power cuts) or 'normal' (survives crashes)")
    if implementation not in ("auto", "c", "python"):
        raise ValueError(f"implementation is {implementation!r}, expected 'auto', 'c' or 'python'")
    file = file_of(path)
    try:
        with _opening:  # another thread's look at the file, once closed, would drop the locks of a connection made meanwhile
            if file != MEMORY:
                _prepare(file, _vfs)
            return SqliteNative(file, synchronous, implementation, _vfs)
    except apsw.Error as error:
        raise ProviderError(f"Failed to open SQLite: '{file}': {error}") from error


def open_memory() -> SqliteNative:
    return open_sqlite(MEMORY)


def file_of(path: str) -> str:
    """The file that a path or `sqlite:` URL means."""
    rest = path.removeprefix("sqlite:").split("?")[0]
    if rest == MEMORY:
        return MEMORY
    if rest.startswith("file:"):
        raise ProviderError(f"Failed to open SQLite: '{path}' is a SQLite URI; give a path, or sqlite:PATH")
    while rest.startswith("//"):
        rest = rest[1:]
    return rest


def _make_directories(path: str) -> None:
    """Make what is missing, for good: a directory whose entry is not synced is gone after a power cut, with everything in it."""
    missing = []
    while path and not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path.rstrip(os.sep))
    for directory in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory)
        if os.name != "nt":
            above = os.open(os.path.dirname(directory.rstrip(os.sep)) or ".", os.O_RDONLY)
            try:
                os.fsync(above)
            finally:
                os.close(above)


def _prepare(file: str, vfs: str | None) -> None:
    """Make the directories; say at once, before anything is written, why this cannot be a database of ours."""
    try:
        file.encode()
        if not file or "\0" in file:
            raise FileNotFoundError(2, "No such file or directory")
        if os.path.isdir(file) or file.endswith(os.sep):
            raise IsADirectoryError(21, "Is a directory")
        if os.path.exists(file) and not os.path.isfile(file):
            raise OSError(22, "Not a regular file")
        parent = os.path.dirname(file) or "."
        if os.path.isfile(parent):
            raise NotADirectoryError(20, "Not a directory")
        _make_directories(parent)
        if not os.path.exists(file):
            os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o644))
            return
        stat = os.stat(file)
        if (stat.st_dev, stat.st_ino) in _of_parent:
            raise ProviderError(f"Failed to open SQLite: '{file}' was opened {FORKED}")
        with open(file, "rb+") as f:  # before any connection of this process exists on it, or none has locks to lose
            head = f.read(len(HEADER)) if not _opened_here(file) else HEADER
    except UnicodeEncodeError as error:
        raise ProviderError(f"Failed to create DB file: {error}: {file!r}") from error
    except OSError as error:
        raise ProviderError(f"Failed to create DB file: {error.strerror} (os error {error.errno}): '{file}'") from error
    # With a journal beside it the power may have gone while its first page was written: SQLite can tell, and undoes that.
    if head and head != HEADER and not os.path.exists(file + "-journal"):
        raise ProviderError(
            f"Failed to open SQLite: '{file}' is not a database (it begins with {head[:8]!r}, expected 'SQLite format 3'): "
            "give the path of a duroxide database or of a file to be created; nothing was changed"
        )
    if head:
        _inspect(file, vfs)


_opened: Counter[tuple[int, int]] = Counter()  # (device, inode) -> providers of this process
_opening = threading.RLock()


def _remember(path: str) -> tuple[int, int] | None:
    if path == MEMORY:
        return None
    stat = os.stat(path)
    with _opening:
        _opened[stat.st_dev, stat.st_ino] += 1
    return stat.st_dev, stat.st_ino


def _forget(identity: tuple[int, int] | None) -> None:
    if identity is not None:
        with _opening:
            _opened[identity] -= 1


_natives: WeakSet[SqliteNative] = WeakSet()
_inherited: list[SqliteNative] = []  # kept by a forked child: it must not close them either
_of_parent: set[tuple[int, int]] = set()  # files on which SQLite still remembers the parent's locks as ours


def _forked() -> None:
    global _opening
    _opening = threading.RLock()
    _of_parent.update(identity for identity, count in _opened.items() if count)
    _opened.clear()
    _inherited.extend(_natives)
    _natives.clear()
    for native in _inherited:
        native.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _opened_here(file: str) -> bool:
    """Whether this process has the file open already: then it must not open and close it past SQLite (POSIX locks would drop)."""
    stat = os.stat(file)
    return _opened[stat.st_dev, stat.st_ino] > 0


def _inspect(file: str, vfs: str | None) -> None:
    """Refuse a newer schema before the first pragma: switching to WAL would already change the file."""
    connection = apsw.Connection(file, vfs=vfs)
    try:
        connection.set_busy_timeout(int(BUSY_S * 1000))
        if os.path.exists(file + "-wal") and os.path.getsize(file + "-wal"):
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        sqlite_schema.check(connection, file)
    except apsw.Error as error:
        raise ProviderError(f"Failed to open SQLite: '{file}': {error}; nothing was changed") from error
    finally:
        connection.close()


def _connect(path: str, synchronous: str, vfs: str | None = None) -> apsw.Connection:
    """A connection with every pragma set and read back."""
    connection = apsw.Connection(path, vfs=vfs)
    try:
        connection.set_busy_timeout(int(BUSY_S * 1000))
        wanted: dict[str, Any] = {"journal_mode": "wal", "synchronous": LEVELS[synchronous], "wal_autocheckpoint": 4_000}
        if path == MEMORY:
            wanted = {"journal_mode": "memory", "synchronous": 0}
        wanted |= {"foreign_keys": 1, "cache_size": -64_000}
        for pragma, value in wanted.items():
            _busy(path, lambda pragma=pragma, value=value: connection.execute(f"PRAGMA {pragma} = {value}").fetchall())  # type: ignore[misc]
            (found,) = connection.execute(f"PRAGMA {pragma}").fetchone() or (None,)
            if found != value:
                raise ProviderError(
                    f"Failed to open SQLite: '{path}': PRAGMA {pragma} is {found!r}, expected {value!r}; "
                    "is the file or its directory read-only, or on a file system without shared memory?"
                )
    except BaseException:
        connection.close()
        raise
    _busy_by_sleeping(connection)
    return connection


def _busy_by_sleeping(connection: apsw.Connection) -> None:
    """Wait for other processes in short sleeps: SQLite's own steps grow to 100 ms."""
    began = [0.0]

    def handler(count: int) -> bool:
        if count == 0:
            began[0] = time.monotonic()
        if time.monotonic() - began[0] > BUSY_S:
            return False
        time.sleep(min(0.0002 * (count + 1), 0.005))
        return True

    connection.set_busy_handler(handler)


def _busy(path: str, step: Callable[[], Any]) -> Any:
    """Do `step`, again while another process has the file; some busy errors bypass every handler."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            return step()
        except (apsw.BusyError, apsw.LockedError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.002)


class SqliteProvider:
    """A SQLite database for `Client` and `Runtime`; any number of them share one, from any number of processes of one machine.

    Threads may share a provider. It must not be used on both sides of a fork: a forked child is refused.
    """

    def __init__(self, native: SqliteNative) -> None:
        self._native = native

    @staticmethod
    def open(path: str, synchronous: str = "full") -> SqliteProvider:
        """Open or create the file `path` (also `sqlite:PATH`, `sqlite:///PATH`, `:memory:`), with its directories.

        `synchronous="full"`: what a call returned from survives a power cut; `"normal"`: a crash of the process only.
        An existing file is adopted: one of this package, or of the reference. Raises ProviderError, with nothing written, for what
        cannot be opened (it names path and reason), ValueError for another `synchronous`, TypeError for a path that is no str.
        """
        return SqliteProvider(open_sqlite(path, synchronous=synchronous))

    @staticmethod
    def in_memory() -> SqliteProvider:
        """A database of this provider's own, gone with it."""
        return SqliteProvider(open_memory())

    @property
    def name(self) -> str:
        """Which implementation serves it: "sqlite (C)" or "sqlite (Python)"."""
        return self._native.name

    def close(self) -> None:
        """Close the connections; later calls raise. Shut down runtimes on it first. Idempotent."""
        self._native.close()
