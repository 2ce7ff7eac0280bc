"""Where a PostgreSQL server is and how one signs in: URLs as users have them, one connection, the first connection.

Owns connection parameters, passwords that change, and the texts with which connecting fails. Knows no pool, no schema, no statement.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from duroxide.errors import ProviderError

if TYPE_CHECKING:
    from typing_extensions import Self

log: logging.Logger = logging.getLogger("duroxide.storage")

# The driver of the reference takes these in a URL; libpq has other names for them, or none.
_RENAMED = {"ssl-mode": "sslmode", "ssl-root-cert": "sslrootcert", "ssl-ca": "sslrootcert", "ssl-cert": "sslcert", "ssl-key": "sslkey"}
_LIBPQ = {option.keyword.decode(): option.envvar for option in pq.Conninfo.get_defaults()}  # and its environment variables
# Where the caller does not say otherwise. A host that vanished is noticed within half a minute, also in the middle of a statement.
_DEFAULTS = {
    "application_name": "duroxide", "connect_timeout": 10, "keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}  # fmt: skip
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
LIMIT_S = 15.0  # for an answer of the server; beyond it leases would be lost anyhow
UNLIMITED_S = float("inf")
_LOOK_S = 0.1


class Address:
    """How to reach one database. `password` is asked for each new connection, if there is one; else the URL or libpq's files have it.

    `failed` is told that a new connection could not be made: a password that was remembered may be out of date.
    """

    def __init__(
        self,
        url: str,
        password: Callable[[], str] | None = None,
        failed: Callable[[], None] | None = None,
        what: str = "Failed to connect to PostgreSQL",
    ) -> None:
        self.what = what
        self._password, self._failed = password, failed
        try:
            given = conninfo_to_dict(_libpq_url(url))
        except (psycopg.ProgrammingError, ValueError) as error:
            raise ProviderError(f"{what}: error with configuration: {str(error).strip()}") from error
        self._named = "application_name" in given or bool(os.environ.get("PGAPPNAME"))
        self.conninfo: str = make_conninfo("", **{**_defaults(), **given})
        self.connection_class: type[Line] = _signing_in(password, failed)

    @property
    def place(self) -> str:
        """Host, port and database for messages; no secrets."""
        found = conninfo_to_dict(self.conninfo)
        host = found.get("host") or found.get("hostaddr") or "localhost"
        return f"{host}:{found.get('port') or 5432}/{found.get('dbname') or found.get('user') or ''}"

    def named(self, name: str) -> dict[str, Any]:
        """What to connect with, so that the server's lists show `name`, unless the user has chosen one."""
        return {} if self._named else {"application_name": name}

    def connect(self, **options: Any) -> Line:
        """One new connection; psycopg.Error if there is none to be had now. `options` are psycopg's: autocommit, prepare_threshold."""
        return self.connection_class.connect(self.conninfo, **options)

    def first(self, timeout_s: float, **options: Any) -> Line:
        """One new connection, as soon as the server is there; ProviderError at once where waiting will not help, else after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        pause, answers = _FIRST_PAUSE_S, 0
        while True:
            try:
                return self.connect(**options)
            except psycopg.Error as error:
                answer = self._answer(error)
                answers += answer is pq.Ping.OK
                if answer is pq.Ping.NO_ATTEMPT or answers > 1:  # at the first answer it may just have come up
                    reason = "returned from database" if answers > 1 else "with configuration"
                    raise ProviderError(f"{self.what}: error {reason}: {_text(error)}") from error
                if time.monotonic() + pause > deadline:
                    text = f"{self.what}: pool timed out while waiting for an open connection: {_text(error)}"
                    raise ProviderError(text) from error
                if not answers:
                    log.warning("%s is not there yet: %s", self.place, _text(error))
            if not answers:
                time.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_S)

    def _answer(self, error: psycopg.Error) -> pq.Ping:
        """Whether a server answers there and takes connections, whoever asks. ProviderError if there is no such place."""
        if not isinstance(error, psycopg.OperationalError) or error.pgconn is None:
            raise ProviderError(f"{self.what}: error communicating with database: {_text(error)}") from error
        return pq.Ping(pq.PGconn.ping(make_conninfo(self.conninfo, connect_timeout=3).encode()))


class Line(psycopg.Connection[Any]):
    """A connection on which nobody waits for ever: where nothing comes for `limit_s`, it is closed.

    TCP notices a host that is gone. A proxy that lives and whose server does not, or one that is paused, only time can tell.
    """

    limit_s: float = LIMIT_S
    own_session = True  # False: between us and the server is a pooler, which may give each transaction another session

    @classmethod
    def connect(cls, conninfo: str = "", **options: Any) -> Self:
        """As psycopg's. In a session that others use too, a statement that one prepared may be somebody else's: there nothing is prepared."""
        line = super().connect(conninfo, **options)
        try:
            row = line.execute("SELECT pg_backend_pid()").fetchone()
            if not line.autocommit:
                line.rollback()
        except BaseException:
            line.close()
            raise
        if row is None or row[0] != line.info.backend_pid:  # a pooler makes the number up, to know by it what is to be cancelled
            line.own_session, line.prepare_threshold = False, None
        return line

    def wait(self, gen: Any, interval: float = _LOOK_S, *more: Any, **others: Any) -> Any:
        return super().wait(self._within(gen), interval, *more, **others)

    def _within(self, gen: Any) -> Generator[Any, Any, Any]:
        """What `gen` gives; psycopg sends 0 whenever nothing came for `interval`."""
        deadline = time.monotonic() + self.limit_s
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > deadline:
                    self.close()
                    raise psycopg.OperationalError(f"no answer within {self.limit_s:g} s, the connection was closed")
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value


def _signing_in(password: Callable[[], str] | None, failed: Callable[[], None] | None) -> type[Line]:
    if password is None:
        return Line
    ask, tell = password, failed or (lambda: None)

    class SignedIn(Line):
        """A connection made with the password of now; a pool makes its connections through this class too."""

        @classmethod
        def connect(cls, conninfo: str = "", **options: Any) -> SignedIn:
            try:
                return super().connect(conninfo, **{**options, "password": ask()})
            except psycopg.OperationalError:
                tell()
                raise

    return SignedIn


def _defaults() -> dict[str, Any]:
    """Ours, but for what this libpq does not know and what the environment sets."""
    return {name: value for name, value in _DEFAULTS.items() if name in _LIBPQ and not os.environ.get((_LIBPQ[name] or b"").decode())}


def _libpq_url(url: str) -> str:
    """The URL with the reference's parameters under libpq's names; what neither knows is left out with a warning."""
    if not url:
        raise ValueError("relative URL without a base: the URL is empty, expected postgresql://user:password@host:port/database")
    base, _, query = url.partition("?")
    if not base.startswith(("postgres://", "postgresql://")):
        return url  # key=value pairs of libpq, or something that it complains of
    kept = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name.startswith("options[") and name.endswith("]"):
            name, value = "options", f"-c {name[8:-1]}={value}"
        name = _RENAMED.get(name, name)
        if name in _LIBPQ:
            kept.append(f"{name}={quote(value, safe='')}")
        else:
            log.warning("the parameter '%s' of the database URL is not known and was left out", name)
    return base + ("?" + "&".join(kept) if kept else "")


def _text(error: BaseException) -> str:
    return " ".join(str(error).split())
