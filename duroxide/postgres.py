"""`PostgresProvider`: a PostgreSQL schema for `Client` and `Runtime`, on any number of hosts.

Owns the public signatures, the checks of what is passed, and what to install where something is missing. Everything else is in
`duroxide.storage.postgres*`, imported when somebody connects.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from . import arguments
from .errors import ProviderError

if TYPE_CHECKING:
    from .storage.postgres import PostgresNative

_SCHEMA = "public"


class PostgresEntraOptions:
    """Options of a sign-in with Microsoft Entra; times in ms.

    `credential`: what has `get_token(scope)`, such as those of azure-identity; without one it is `DefaultAzureCredential()`.
    `refresh_interval_ms`: a token older than that is not used for new connections; without it only one that ends soon is replaced.
    """

    def __init__(
        self,
        *,
        audience: str | None = None,
        max_connections: int | None = None,
        acquire_timeout_ms: int | None = None,
        refresh_interval_ms: int | None = None,
        credential: Any = None,
    ) -> None:
        numbers = {
            "max_connections": max_connections,
            "acquire_timeout_ms": acquire_timeout_ms,
            "refresh_interval_ms": refresh_interval_ms,
        }
        self._native: dict[str, Any] = {"audience": arguments.optional_text("audience", audience), "credential": credential}
        for name, value in numbers.items():
            self._native[name] = None if value is None else arguments.unsigned(name, value)


class PostgresProvider:
    """A store in a PostgreSQL schema; any number of processes on any number of hosts share one.

    Every way to connect makes the schema and its tables if they are not there, adopts those of the reference, and raises ProviderError,
    with nothing written, for what it cannot use. A server that is not there yet is waited for, `acquire_timeout_ms` (30 s) at most.
    `max_connections` (10, or DUROXIDE_PG_POOL_MAX) bounds the connections of this provider.
    """

    _type = "postgres"

    def __init__(self, native: PostgresNative) -> None:
        self._native = native

    @staticmethod
    def connect(
        database_url: str, *, max_connections: int | None = None, acquire_timeout_ms: int | None = None
    ) -> PostgresProvider:
        """Store in the schema `public` of that database: `postgresql://user:password@host:port/database?sslmode=require`."""
        return PostgresProvider.connect_with_schema(
            database_url, _SCHEMA, max_connections=max_connections, acquire_timeout_ms=acquire_timeout_ms
        )

    @staticmethod
    def connect_with_schema(
        database_url: str, schema: str, *, max_connections: int | None = None, acquire_timeout_ms: int | None = None
    ) -> PostgresProvider:
        """Store in `schema` of that database: letters, digits and `_`, at most 63; upper case means lower case."""
        arguments.text("database_url", database_url)
        arguments.text("schema", schema)
        numbers = _numbers(max_connections, acquire_timeout_ms)
        _check_driver()
        from .storage.postgres import open_postgres
        from .storage.postgres_connect import Address

        return PostgresProvider(open_postgres(Address(database_url), schema, **numbers))

    @staticmethod
    def connect_with_entra(
        host: str, port: int, database: str, user: str, options: PostgresEntraOptions | None = None
    ) -> PostgresProvider:
        """Sign in with Microsoft Entra; store in the schema `public`."""
        return PostgresProvider.connect_with_schema_and_entra(host, port, database, user, _SCHEMA, options)

    @staticmethod
    def connect_with_schema_and_entra(
        host: str, port: int, database: str, user: str, schema: str, options: PostgresEntraOptions | None = None
    ) -> PostgresProvider:
        """Sign in with Microsoft Entra; store in `schema`. Needs `pip install 'duroxide[entra]'`, or a credential in the options.

        The token is the password of each new connection and is fetched anew before it ends. The connection is encrypted
        (`sslmode=require`) unless the environment's PGSSLMODE says otherwise.
        """
        for name, value in (("host", host), ("database", database), ("user", user), ("schema", schema)):
            arguments.text(name, value)
        if arguments.unsigned("port", port) >= 1 << 16:
            raise OverflowError("out of range integral type conversion attempted")
        if options is not None and not isinstance(options, PostgresEntraOptions):
            raise TypeError(
                f"argument 'options': '{type(options).__name__}' object cannot be converted to 'PyPostgresEntraOptions'"
            )
        given = (options or PostgresEntraOptions())._native
        _check_driver()
        from .storage import postgres_entra as entra
        from .storage.postgres import open_postgres
        from .storage.postgres_connect import Address

        refresh = given["refresh_interval_ms"]
        tokens = entra.Tokens(
            entra.default_credential() if given["credential"] is None else given["credential"],
            given["audience"] or entra.AUDIENCE,
            None if refresh is None else refresh / 1_000,
        )
        tokens.password()  # what does not work at all is said at once
        from urllib.parse import quote

        url = f"postgresql://{quote(user, safe='')}@{quote(host, safe=':[],')}:{port}/{quote(database, safe='')}"
        if "PGSSLMODE" not in os.environ:
            url += "?sslmode=require"
        address = Address(url, tokens.password, tokens.doubt, entra.WHAT)
        numbers = _numbers(given["max_connections"], given["acquire_timeout_ms"])
        return PostgresProvider(open_postgres(address, schema, **numbers))

    @property
    def name(self) -> str:
        """Which implementation serves it: "postgres"."""
        return self._native.name

    @property
    def schema(self) -> str:
        """The schema that it stores in, as PostgreSQL knows it."""
        return self._native.schema

    def close(self) -> None:
        """Close the connections. Shut down runtimes on it first."""
        self._native.close()


def _numbers(max_connections: Any, acquire_timeout_ms: Any) -> dict[str, int | None]:
    given = {"max_connections": max_connections, "acquire_timeout_ms": acquire_timeout_ms}
    return {name: None if value is None else arguments.unsigned(name, value) for name, value in given.items()}


def _check_driver() -> None:
    try:
        import psycopg
        import psycopg_pool
    except ImportError as error:
        raise ProviderError(
            f"Failed to connect to PostgreSQL: the driver is not installed ({error}): pip install 'duroxide[postgres]'"
        ) from error
    del psycopg, psycopg_pool
