"""`PostgresProvider`: the PostgreSQL names of the public API.

Owns their signatures and the checks of what is passed. This version stores in SQLite only and says so when asked to connect.
"""

from __future__ import annotations

from typing import Any, NoReturn

from . import arguments
from .errors import ProviderError


class PostgresEntraOptions:
    """Options of a sign-in with Microsoft Entra; times in ms."""

    def __init__(
        self,
        *,
        audience: str | None = None,
        max_connections: int | None = None,
        acquire_timeout_ms: int | None = None,
        refresh_interval_ms: int | None = None,
    ) -> None:
        numbers = {
            "max_connections": max_connections,
            "acquire_timeout_ms": acquire_timeout_ms,
            "refresh_interval_ms": refresh_interval_ms,
        }
        self._native: dict[str, Any] = {"audience": arguments.optional_text("audience", audience)}
        for name, value in numbers.items():
            self._native[name] = None if value is None else arguments.unsigned(name, value)


class PostgresProvider:
    """A store in a PostgreSQL schema. Every way to connect raises ProviderError in this version."""

    _type = "postgres"

    def __init__(self, native: Any) -> None:
        self._native = native

    @staticmethod
    def connect(database_url: str) -> PostgresProvider:
        """Store in the schema `public` of that database."""
        return PostgresProvider.connect_with_schema(database_url, "public")

    @staticmethod
    def connect_with_schema(database_url: str, schema: str) -> PostgresProvider:
        """Store in `schema` of that database."""
        arguments.text("database_url", database_url)
        arguments.text("schema", schema)
        try:
            from .storage.postgres import open_postgres
        except ImportError as error:
            raise ProviderError(
                f"Failed to connect to PostgreSQL: {error}: install the extra, pip install 'duroxide[postgres]'"
            ) from error
        return PostgresProvider(open_postgres(database_url, schema))

    @staticmethod
    def connect_with_entra(
        host: str, port: int, database: str, user: str, options: PostgresEntraOptions | None = None
    ) -> PostgresProvider:
        """Sign in with Microsoft Entra; store in the schema `public`."""
        return PostgresProvider.connect_with_schema_and_entra(host, port, database, user, "public", options)

    @staticmethod
    def connect_with_schema_and_entra(
        host: str, port: int, database: str, user: str, schema: str, options: PostgresEntraOptions | None = None
    ) -> PostgresProvider:
        """Sign in with Microsoft Entra; store in `schema`."""
        for name, value in (("host", host), ("database", database), ("user", user), ("schema", schema)):
            arguments.text(name, value)
        if arguments.unsigned("port", port) >= 1 << 16:
            raise OverflowError("out of range integral type conversion attempted")
        if options is not None and not isinstance(options, PostgresEntraOptions):
            raise TypeError(
                f"argument 'options': '{type(options).__name__}' object cannot be converted to 'PyPostgresEntraOptions'"
            )
        _unsupported()


def _unsupported() -> NoReturn:
    raise ProviderError(
        "Failed to connect to PostgreSQL: this version of duroxide stores in SQLite only; use SqliteProvider.open(path)"
    )
